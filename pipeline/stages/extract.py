"""Stage `extract`: data/cifar10/*.bin -> data/dataset, the images of two classes in three splits."""

from pipeline.base.errors import run_as_command
from pipeline.base.files import CIFAR10
from pipeline.base.params import load_params
from pipeline.data.dataset import SPLITS, save
from pipeline.data.extract import extract


def main() -> None:
    """Pick the two classes, split them, write images, manifest and digest."""
    params = load_params()
    dataset = extract(params.download.records(CIFAR10), params.data, params.seed)
    save(dataset)
    sizes = ", ".join(f"{len(dataset.rows(split))} {split}" for split in SPLITS)
    print(f"{' and '.join(dataset.class_names)}: {sizes}; digest {dataset.digest[:12]}…")


if __name__ == "__main__":
    run_as_command(main)
