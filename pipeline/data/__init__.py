"""From the sources of CIFAR-10 to the dataset: download, records, the two classes and their three splits.

Code that learns or draws must not be here. A training depends on `dataset.py` alone, so code that downloads or extracts
stays out of that file.
"""
