"""A model's logits for many images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.learning.classifier import Classifier


def predict_logits(model: Classifier, images: NDArray[np.uint8], device: torch.device) -> NDArray[np.float32]:
    """Logits float32 `[N]` of uint8 images `[N, 32, 32, 3]`, computed in float32.

    The model is in evaluation mode meanwhile, and then gets its old mode back.
    """
    was_training = model.training
    model.eval().to(device)
    try:
        return in_batches(model, images, device)
    finally:
        model.train(was_training)


@torch.inference_mode()
def in_batches(
    function: Callable[[Tensor], Tensor], images: NDArray[np.uint8], device: torch.device
) -> NDArray[np.float32]:
    """Apply `function` to uint8 images `[N, 32, 32, 3]` on `device`; the results are one float32 array `[N, ...]`."""
    # The response maps of a small batch fit into a CPU's caches; a GPU is faster with a large batch.
    size = 128 if device.type == "cuda" else 16
    starts = range(0, len(images), size)
    batches = [torch.from_numpy(np.array(images[start : start + size])) for start in starts]
    outputs = [function(batch.to(device)).float().cpu() for batch in batches]
    return torch.cat(outputs).numpy() if outputs else np.zeros(0, np.float32)
