"""From the sources of CIFAR-10 to the dataset: download, records, the two classes and their three splits.

Nothing that learns or draws may come in. A training depends on `dataset.py` alone, so whatever fetches and extracts
stays out of that file.
"""
