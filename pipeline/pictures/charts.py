"""The charts of a model's answers: confusion, calibration, ROC, training curves.

A `test` table has one row per image, with the columns label (0 or 1) and probability (of label 1). A `history` has one
row per epoch, with the columns of `learning.card.Epoch`.
"""

from __future__ import annotations

from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter
from sklearn.metrics import roc_auc_score, roc_curve

from pipeline.pictures.palette import RIGHT, SERIES, WRONG
from pipeline.results.metrics import predicted, wilson


def confusion(test: pd.DataFrame, class_names: list[str], name: str) -> Figure:
    """Counts and shares of the test images by truth and prediction, for the model called `name`."""
    labels = predicted(test)
    counts = np.array([[int(((test["label"] == t) & (labels == p)).sum()) for p in (0, 1)] for t in (0, 1)])
    shares = counts / counts.sum(axis=1, keepdims=True)
    figure = Figure(figsize=(4.2, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for truth in (0, 1):
        for prediction in (0, 1):
            share = shares[truth, prediction]
            text = f"{counts[truth, prediction]:,}\n{100 * share:.1f} %"
            color = "white" if share > 0.5 else "black"
            axes.text(prediction, truth, text, ha="center", va="center", color=color, fontsize=13)
    axes.set(
        xticks=(0, 1),
        yticks=(0, 1),
        xlabel="prediction",
        ylabel="truth",
        title=f"{name}: {len(test):,} test images,\nshares of each truth",
    )
    axes.set_xticklabels(class_names)
    axes.set_yticklabels(class_names, rotation=90, va="center")
    return figure


def curves(history: pd.DataFrame, name: str, *, smoothed: bool = False, narrow: bool = False) -> Figure:
    """Loss and accuracy over the epochs, for the model called `name`.

    Args:
        smoothed: whether the labels were smoothed, which raises the loss on training images.
        narrow: put the two charts one below the other instead of side by side.
    """
    figure = Figure(figsize=(3.8, 5.6) if narrow else (9, 3.6), layout="constrained")
    title = (f"{name}: loss (binary cross-entropy)", "and share of right answers over the epochs")
    figure.suptitle(("\n" if narrow else " ").join(title), fontsize=10 if narrow else 11)
    both = figure.subplots(2, 1) if narrow else figure.subplots(1, 2)
    for axes, quantity in zip(both, ("loss", "accuracy"), strict=True):
        for split, color in (("train", RIGHT), ("validation", WRONG)):
            column = f"{split}_{quantity}"
            label = "train, with smoothed labels" if smoothed and column == "train_loss" else split
            axes.plot(history["epoch"], history[column], color=color, marker=".", label=label)
        axes.set(xlabel="epoch", ylabel=quantity)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.margins(y=0.25 if narrow else 0.05)  # room for the legend
        axes.legend()
    return figure


def reliability(test: pd.DataFrame, class_names: list[str], name: str, bins: int = 10) -> Figure:
    """Whether probabilities are right: for the images in each tenth of them, the share that is of the second class."""
    place = np.minimum((test["probability"] * bins).astype(int), bins - 1)
    groups = test.groupby(place).agg(stated=("probability", "mean"), second=("label", "sum"), n=("label", "size"))
    bounds = np.array([wilson(int(k), int(n)) for k, n in zip(groups["second"], groups["n"], strict=True)])
    share = groups["second"] / groups["n"]
    figure = Figure(figsize=(5.2, 5.4), layout="constrained")
    axes, below = figure.subplots(2, 1, height_ratios=[3, 1], sharex=True)
    axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", label="ideal")
    errors = np.abs(bounds.T - share.to_numpy())
    axes.errorbar(
        groups["stated"], share, yerr=errors, color=RIGHT, marker="o", capsize=3, label="measured, 95 % interval"
    )
    axes.set(
        ylabel=f"share of {class_names[1]} images",
        ylim=(-0.02, 1.02),
    )
    figure.suptitle(f"{name}: reliability on {len(test):,} test images")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    below.bar((groups.index + 0.5) / bins, groups["n"], width=0.9 / bins, color=RIGHT)
    below.set(xlabel=f"the model's probability of {class_names[1]}", ylabel="images", xlim=(0, 1), yscale="log")
    below.set_ylim(0.7, 2 * groups["n"].max())
    below.yaxis.set_major_locator(LogLocator(numticks=4))
    below.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    below.yaxis.set_minor_locator(NullLocator())
    below.grid(alpha=0.3, axis="y")
    return figure


def roc(tests: dict[str, pd.DataFrame], class_names: list[str]) -> Figure:
    """Receiver operating characteristic of one or several models on the test split, with the area under each curve."""
    figure = Figure(figsize=(5.2, 5.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", label="chance (0.5)")
    for (name, test), color in zip(tests.items(), cycle(SERIES), strict=False):
        false_rate, true_rate, _ = roc_curve(test["label"], test["probability"])
        area = roc_auc_score(test["label"], test["probability"])
        axes.plot(false_rate, true_rate, color=color, label=f"{name} ({area:.4f})")
    first, second = class_names
    axes.set(
        xlabel=f"share of {first} images called {second}",
        ylabel=f"share of {second} images called {second}",
        title="ROC (area under it)",
    )
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return figure


def validation_curves(histories: dict[str, pd.DataFrame], width: float = 7.5) -> Figure:
    """Accuracy of all models over the epochs, validation as lines and training dotted; `width` is in inches."""
    figure = Figure(figsize=(width, 4), layout="constrained")
    axes = figure.subplots()
    for (name, history), color in zip(histories.items(), cycle(SERIES), strict=False):
        axes.plot(history["epoch"], history["validation_accuracy"], color=color, marker=".", label=name)
        axes.plot(history["epoch"], history["train_accuracy"], color=color, linestyle=":", alpha=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="epoch", ylabel="accuracy")
    axes.set_title("Validation (lines) and training images (dotted)", fontsize=11 if width >= 5 else 9)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return figure


def leaderboard(board: dict[str, Any], width: float = 7.5) -> Figure:
    """Test accuracy of all models with 95 % intervals, beside the accuracy of the lecture and of people.

    Args:
        width: in inches; below 5 the legend has one column.
    """
    models = board["models"][::-1]
    figure = Figure(figsize=(width, (1.2 if width >= 5 else 1.8) + 0.55 * len(models)), layout="constrained")
    axes = figure.subplots()
    for place, model in enumerate(models):
        accuracy = 100 * model["test_accuracy"]
        errors = [[accuracy - 100 * model["test_low"]], [100 * model["test_high"] - accuracy]]
        axes.errorbar(accuracy, place, xerr=errors, color=RIGHT, marker="o", capsize=4)
        axes.annotate(  # left of the interval, away from the lines of people's accuracy
            f"{accuracy:.2f}", (100 * model["test_low"], place), xytext=(-6, 0), textcoords="offset points",
            ha="right", va="center", fontsize=9,
        )  # fmt: skip
        if model["lecture_test"] is not None:
            axes.plot(100 * model["lecture_test"], place, color=WRONG, marker="D", linestyle="none", markersize=6)
    if any(model["lecture_test"] is not None for model in models):
        axes.plot([], [], color=WRONG, marker="D", linestyle="none", label="the lecture's figure")
    for (who, share), style in zip(board["people"].items(), ("--", ":"), strict=False):
        axes.axvline(100 * share, color=SERIES[2], linestyle=style, label=f"people, {who} ({share:.1%})")
    axes.set_yticks(range(len(models)), [model["name"] for model in models])
    axes.set(xlabel="test accuracy in %, 95 % intervals", ylim=(-0.5, len(models) - 0.5))
    axes.margins(x=0.12 if width >= 5 else 0.3)
    axes.grid(alpha=0.3, axis="x")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3 if width >= 5 else 1, fontsize=9)
    return figure
