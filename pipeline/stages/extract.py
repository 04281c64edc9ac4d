"""Stage `extract`: data/cifar10/*.bin -> data/car_truck, the images of two classes in three splits."""

from pipeline import car_truck
from pipeline.errors import run_as_command
from pipeline.files import CIFAR10
from pipeline.params import load_params


def main() -> None:
    """Pick the two classes, split them, write images, manifest and digest."""
    params = load_params()
    dataset = car_truck.extract(params.download.records(CIFAR10), params.data, params.seed)
    car_truck.save(dataset)
    sizes = ", ".join(f"{len(dataset.rows(split))} {split}" for split in car_truck.SPLITS)
    print(f"{' and '.join(dataset.class_names)}: {sizes}; digest {dataset.digest[:12]}…")


if __name__ == "__main__":
    run_as_command(main)
