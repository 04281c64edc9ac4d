"""Trains the lecture's network in Keras, one epoch for each line on standard input. Runs in its own environment.

Usage: keras_worker.py CAR_TRUCK.npz EPOCHS. The file has the arrays train_images, test_images (uint8 [N, 32, 32, 3]),
train_labels, test_labels.
Prints one JSON line an epoch: seconds of training (without validation), test_accuracy, peak_mib.
"""

import json
import os
import resource
import sys
import time


def main(arrays: str, epochs: int) -> None:
    """Train one epoch for each line."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

    import keras  # noqa: PLC0415  # it reads the environment when it is imported
    import numpy as np  # noqa: PLC0415

    layers = keras.layers
    data = np.load(arrays)
    to_gray = np.array([0.299, 0.587, 0.114], np.float32) / 255
    images = {split: (data[f"{split}_images"] @ to_gray)[..., None] for split in ("train", "test")}
    labels = {split: data[f"{split}_labels"].astype("float32") for split in ("train", "test")}

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            layers.Input((32, 32, 1)),
            layers.Conv2D(32, (7, 7), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Conv2D(64, (5, 5), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Conv2D(64, (3, 3), activation="relu"),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(64, activation="relu"),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(optimizer=keras.optimizers.RMSprop(), loss=keras.losses.BinaryCrossentropy(), metrics=["accuracy"])

    class EpochTimer(keras.callbacks.Callback):
        """Wait for a line before each epoch, time the epoch, and report it."""

        def on_epoch_begin(self, _epoch: int, _logs: object = None) -> None:
            sys.stdin.readline()
            self.start = time.perf_counter()

        def on_epoch_end(self, _epoch: int, _logs: object = None) -> None:
            seconds = time.perf_counter() - self.start
            accuracy = self.model.evaluate(images["test"], labels["test"], batch_size=500, verbose=0)[1]
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(json.dumps({"seconds": seconds, "test_accuracy": accuracy, "peak_mib": peak}), flush=True)

    model.fit(images["train"], labels["train"], epochs=epochs, batch_size=32, verbose=0, callbacks=[EpochTimer()])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
