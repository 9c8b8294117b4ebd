"""Small classifiers and one-line scoring for the tests of quality."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from autopilot.contracts import Array
from autopilot.plugins import metrics
from autopilot.profile import QualityReading
from autopilot.scoring import score


def reading(name: str, outputs: Array, baseline: Array, labels: Array | None, **more: Any) -> QualityReading:
    """The reading of a built-in metric with its default options."""
    metric = metrics()[name]
    return score(metric, {}, outputs=outputs, baseline=baseline, labels=labels, split_name="validation", **more)


def classifier(n: int, right: float, seed: int = 0, classes: int = 10) -> tuple[Array, Array]:
    """Float scores (n, classes) whose argmax is the label with probability ``right``, and the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    guess = np.where(rng.random(n) < right, labels, (labels + 1) % classes)
    return np.eye(classes, dtype=np.float32)[guess] + rng.random((n, classes)).astype(np.float32) / 2, labels


def spec(**more: Any) -> Any:
    """A metric section: ``accuracy`` unless told otherwise."""
    base = {"name": "accuracy", "options": {}, "output": None, "function": None, "direction": None}
    return SimpleNamespace(**{**base, **more})
