"""The one training loop. The dataset is a uint8 tensor on the device, without a DataLoader.

A checkpoint holds everything that changes during a training. So a killed training goes on after its last epoch and ends
with the same weights.
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from pipeline.base.errors import NotANumber, PipelineError
from pipeline.base.files import atomic
from pipeline.learning import processes
from pipeline.learning.approach import Job
from pipeline.learning.augmentation import augment
from pipeline.learning.card import Epoch
from pipeline.learning.checkpoints import read_checkpoint
from pipeline.learning.classifier import Classifier
from pipeline.learning.devices import choose_precision, describe_device
from pipeline.learning.optimizers import make_optimizer, make_schedule
from pipeline.learning.params import TrainingParams
from pipeline.learning.predict import predict_logits


def fit(
    model: Classifier, params: TrainingParams, job: Job, parameter_groups: list[dict[str, Any]] | None = None
) -> list[Epoch]:
    """Train `model` in place on the training split and leave it in evaluation mode.

    Args:
        parameter_groups: the weights to train, `[{"params": [...], "rate_factor": ...}]`; all weights by default.

    Returns:
        The curves, one entry per epoch.

    Raises:
        PipelineError: a batch is larger than the training split, or cannot be shared out to the processes.
        NotANumber: the loss or a weight became NaN or infinite.
    """
    precision = choose_precision(job.device)
    leads = processes.rank() == 0
    if leads:
        together = f" in {processes.size()} processes" if processes.size() > 1 else ""
        print(f"training on {describe_device(job.device)}{together}; {precision}: {precision.reason}", flush=True)
    torch.manual_seed(job.seed + processes.rank())  # for dropout, which each process draws itself
    groups = parameter_groups or [{"params": list(model.parameters()), "rate_factor": 1.0}]
    training = _Training(model.to(job.device), params, job, precision.dtype, groups)
    history = training.resume()
    for epoch in history:
        job.on_epoch(epoch)
    for number in range(len(history) + 1, params.epochs + 1):
        history.append(training.run_epoch(number))
        training.check_weights(number)
        training.save(history)
        job.on_epoch(history[-1])
        if leads:
            print(_line(history[-1], params.epochs), flush=True)
    training.finish()
    return history


class _Training:
    """Everything that changes during a training: weights, optimizer, schedule, average of the weights, random state."""

    def __init__(
        self,
        model: Classifier,
        params: TrainingParams,
        job: Job,
        precision: torch.dtype,
        groups: list[dict[str, Any]],
    ) -> None:
        self.model, self.params, self.job, self.device, self.precision = model, params, job, job.device, precision
        if params.batch_size % processes.size():
            raise PipelineError(
                f"batch_size = {params.batch_size} cannot be shared out to {processes.size()} processes evenly"
            )
        self.images, self.labels = job.images("train").to(self.device), job.labels("train").to(self.device)
        self.steps_per_epoch = len(self.images) // params.batch_size
        if self.steps_per_epoch == 0:
            raise PipelineError(
                f"batch_size = {params.batch_size} is larger than the {len(self.images)} training images"
            )
        self.network = processes.wrap(model, self.device)
        self.optimizer = make_optimizer(groups, params)
        self.schedule = make_schedule(self.optimizer, params, params.epochs * self.steps_per_epoch)
        self.trained: list[nn.Parameter] = [weight for group in groups for weight in group["params"]]
        self.average = [weight.detach().clone() for weight in self.trained] if params.ema_decay else None
        self.steps_taken = 0
        # It draws the order and the augmentation of the images, which are the same in every process.
        self.generator = torch.Generator(self.device).manual_seed(job.seed)

    def run_epoch(self, number: int) -> Epoch:
        """Train once on the images in a new order, without an incomplete last batch, and validate."""
        start = time.perf_counter()
        learning_rate = self.schedule.get_last_lr()[-1]
        batch_size = self.params.batch_size
        order = torch.randperm(len(self.images), generator=self.generator, device=self.device)[
            : self.steps_per_epoch * batch_size
        ]
        title = f"epoch {number}/{self.params.epochs}"
        bar = tqdm(
            order.view(-1, batch_size), title, leave=False, disable=processes.rank() > 0 or not sys.stderr.isatty()
        )
        share = batch_size // processes.size()
        loss_sum, correct = 0.0, 0
        self.model.train()
        for step, rows in enumerate(bar, start=1):
            loss, right = self._step(rows, f"step {step} of epoch {number}")
            loss_sum, correct = loss_sum + loss, correct + right
            bar.set_postfix(loss=f"{loss_sum / step:.3f}", accuracy=f"{correct / step / share:.3f}", refresh=False)
        loss_sum, correct = processes.total(
            torch.tensor([loss_sum / processes.size(), correct], device=self.device)  # NCCL needs them on the GPU
        ).tolist()
        images_per_second = order.numel() / (time.perf_counter() - start)
        validation_loss, validation_accuracy = self._validate()
        return Epoch(
            epoch=number,
            train_loss=loss_sum / self.steps_per_epoch,
            train_accuracy=correct / order.numel(),
            validation_loss=validation_loss,
            validation_accuracy=validation_accuracy,
            learning_rate=float(learning_rate),
            images_per_second=images_per_second,
            seconds=time.perf_counter() - start,
        )

    def _step(self, rows: Tensor, where: str) -> tuple[float, int]:
        """Update the weights once, by the images at `rows`.

        Returns:
            The loss on this process's share of the images, and how many of these were right.
        """
        mine = slice(processes.rank(), None, processes.size())
        images = augment(self.images[rows], self.params, self.generator)[mine]
        labels = self.labels[rows[mine]]
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            logits = self.network(images)
        loss = F.binary_cross_entropy_with_logits(logits, smooth(labels, self.params.label_smoothing))
        right = ((logits > 0) == (labels > 0)).sum()
        value, correct = torch.stack([loss.detach(), right]).tolist()  # in one call, because it waits for a GPU
        if not math.isfinite(value):
            raise self._not_a_number(f"the loss is {value} at {where}")
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.schedule.step()
        self.steps_taken += 1
        if self.average is not None:
            # A slow average would keep the first weights for long, so the decay starts low and grows with the steps.
            decay = min(self.params.ema_decay, (1 + self.steps_taken) / (10 + self.steps_taken))
            torch._foreach_lerp_(self.average, [weight.detach() for weight in self.trained], 1 - decay)
        return value, int(correct)

    def check_weights(self, epoch: int) -> None:
        """Keep broken weights out of the checkpoint.

        The loss shows a broken weight one step later, so this looks at the weights after the last step of an epoch.

        Raises:
            NotANumber: a weight is NaN or infinite.
        """
        if not all(torch.isfinite(weight).all() for weight in self.trained):
            raise self._not_a_number(f"a weight is not a finite number after epoch {epoch}")

    def _not_a_number(self, what: str) -> NotANumber:
        rate = f"{self.params.learning_rate:g}"
        return NotANumber(f"{what}: lower learning_rate ({rate}); the checkpoint of the epoch before is kept")

    def _validate(self) -> tuple[float | None, float | None]:
        """Loss and accuracy on the validation split, with the averaged weights if there are any.

        Both are None without validation images, and in every process except the leader.
        """
        images, labels = self.job.images("validation"), self.job.labels("validation")
        if not len(images) or processes.rank() > 0:
            return None, None
        current = [weight.detach().clone() for weight in self.trained]
        if self.average is not None:
            _assign(self.trained, self.average)
        logits = torch.from_numpy(predict_logits(self.model, images.numpy(), self.device))
        loss = F.binary_cross_entropy_with_logits(logits, labels).item()
        _assign(self.trained, current)
        return loss, ((logits > 0) == (labels > 0)).float().mean().item()

    def finish(self) -> None:
        """Give the model its final weights: the average if there is one, else the weights of the last step."""
        if self.average is not None:
            _assign(self.trained, self.average)
        self.model.eval()

    def save(self, history: list[Epoch]) -> None:
        """Write the checkpoint, so that another process can go on from here."""
        cuda = self.device.type == "cuda"
        random = processes.gather(torch.cuda.get_rng_state(self.device) if cuda else torch.get_rng_state())
        if processes.rank() > 0:
            return
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "average": self.average,
            "steps_taken": self.steps_taken,
            "generator": self.generator.get_state(),
            "random": random,
            "history": [asdict(epoch) for epoch in history],
        }
        with atomic(self.job.checkpoint) as temporary:
            torch.save(state, temporary)

    def resume(self) -> list[Epoch]:
        """Load the checkpoint and return its curves, which are empty if the checkpoint is missing or damaged."""
        state = processes.of_leader(read_checkpoint(self.job.checkpoint) if processes.rank() == 0 else None)
        if state is None:
            return []
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.average is not None:
            torch._foreach_copy_(self.average, [weight.to(self.device) for weight in state["average"]])
        self.steps_taken = state["steps_taken"]
        self.generator.set_state(state["generator"])
        random = state["random"][processes.rank()]
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(random, self.device)
        else:
            torch.set_rng_state(random)
        history = [Epoch(**epoch) for epoch in state["history"]]
        if processes.rank() == 0:
            print(f"going on after epoch {len(history)}, from {self.job.checkpoint}", flush=True)
        return history


@torch.no_grad()
def _assign(weights: list[nn.Parameter], values: list[Tensor]) -> None:
    torch._foreach_copy_(list[Tensor](weights), values)


def _line(epoch: Epoch, epochs: int) -> str:
    validation = "" if epoch.validation_accuracy is None else f"  validation {epoch.validation_accuracy:.4f}"
    return (
        f"epoch {epoch.epoch:3}/{epochs}  loss {epoch.train_loss:.4f}  train {epoch.train_accuracy:.4f}{validation}"
        f"  {epoch.images_per_second:,.0f} images/s  {epoch.seconds:.1f} s"
    )


def smooth(labels: Tensor, amount: float) -> Tensor:
    """Move the targets from 0 and 1 towards one half: 0 -> amount / 2, 1 -> 1 - amount / 2."""
    return labels * (1 - amount) + amount / 2
