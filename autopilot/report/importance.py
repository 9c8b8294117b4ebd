"""Which knobs mattered: what each parameter's value explains of the differences between trials.

Made for the few dozen trials a search has. A forest's importances need more of them, and give figures to
parameters that do nothing; here every figure is held against what chance gives with the same trials.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autopilot.domain import Scalar
from autopilot.profile import Floats, Ints
from autopilot.report.points import distinct
from autopilot.report.words import interval_of, setting
from autopilot.result import StudyResult, TrialRecord

# Fewer trials that differ in nothing but chance tell nothing.
FEWEST_TRIALS = 6
# Random assignments that a knob is compared with: enough to tell 5% from 2% (standard error 0.7%), in milliseconds.
SHUFFLES = 1000
# One knob in twenty that does nothing looks as if it did: the usual level of a test.
CHANCE = 0.05
# A number with more values than this is told by its thirds.
MOST_VALUES = 6
TECHNIQUE = "technique"
_SCORES = ("quality", "quality_drop")


@dataclass(frozen=True, slots=True)
class ValueSeen:
    """One value of a knob: its trials, and the median and the range of their figures."""

    value: str
    trials: int
    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Knob:
    """What one knob explains of an axis.

    ``explained``: share, 0..1, of the variance of the axis (of its logarithm where all figures are above 0)
    that goes with the knob's value, less what as many random assignments explain on average. For all knobs
    but ``technique`` it is the variance between trials of the same techniques, so that a setting isn't
    credited with the technique it came with. ``by_chance``: share of the random assignments that explain as
    much. ``trials`` have the knob at all.
    """

    name: str
    explained: float
    by_chance: float
    trials: int
    values: tuple[ValueSeen, ...]

    @property
    def is_clear(self) -> bool:
        """Whether chance alone rarely explains as much."""
        return self.by_chance <= CHANCE


@dataclass(frozen=True, slots=True)
class Importance:
    """The knobs of one axis, the most telling first; none with fewer than FEWEST_TRIALS, or where all are equal.

    ``trials`` is how many had a figure; ``is_ratio`` whether figures are ratios to the baseline.
    """

    axis: str
    trials: int
    is_ratio: bool
    knobs: tuple[Knob, ...] = ()


def importance(result: StudyResult, axis: str, *, seed: int = 0) -> Importance:
    """Every knob with two values or more among the trials where ``axis`` was measured."""
    trials, figures, is_ratio = _measured(result, axis)
    if len(trials) < FEWEST_TRIALS or float(figures.max()) == float(figures.min()):
        return Importance(axis, len(trials), is_ratio)
    y = np.log(figures) if float(figures.min()) > 0 else figures
    settings = [_settings(t) for t in trials]
    chains = np.array([s[TECHNIQUE] for s in settings])
    rng = np.random.default_rng(seed)
    knobs = []
    for name in dict.fromkeys(name for s in settings for name in s):
        has = np.array([name in s for s in settings])
        values = _labels([s[name] for s in settings if name in s])
        within = np.zeros(int(has.sum()), np.int32) if name == TECHNIQUE else _codes(chains[has].tolist())
        knob = _knob(name, values, figures[has], _centred(y[has], within), within=within, rng=rng)
        if knob is not None:
            knobs.append(knob)
    knobs.sort(key=lambda k: (not k.is_clear, -k.explained, k.by_chance, k.name))
    return Importance(axis, len(trials), is_ratio, tuple(knobs))


def _measured(result: StudyResult, axis: str) -> tuple[list[TrialRecord], Floats, bool]:
    """Trials with a finite figure of ``axis``; the figures, and whether they are ratios to the baseline.

    They are where all have one, which the machine's drift cancels out of; scores stay as they are.
    """
    found = [(t, interval_of(t.measured.get(axis))) for t in distinct(result)]
    kept = [(t, i) for t, i in found if i is not None and math.isfinite(i.value)]
    ratios = [t.measured[axis].ratio for t, _ in kept]
    if axis not in _SCORES and all(r is not None and math.isfinite(r.value) for r in ratios):
        return [t for t, _ in kept], np.array([r.value for r in ratios if r is not None], np.float64), True
    return [t for t, _ in kept], np.array([i.value for _, i in kept], np.float64), False


def _settings(trial: TrialRecord) -> dict[str, Scalar]:
    """All knobs of a trial by name: the techniques together, each technique's parameters, the deployment's."""
    steps = trial.variant.recipe.steps
    out: dict[str, Scalar] = {TECHNIQUE: " > ".join(s.technique for s in steps) or "as given"}
    out |= {f"{step.technique}.{name}": value for step in steps for name, value in step.params}
    return out | {f"deployment.{k}": v for k, v in trial.variant.deployment.to_json().items()}


def _labels(values: Sequence[Scalar]) -> list[str]:
    """Each value as a label; numbers with many values as the third they lie in."""
    numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
    if len(numbers) < len(values) or len(set(numbers)) <= MOST_VALUES:
        return [setting(v) for v in values]
    lower, upper = (float(q) for q in np.quantile(numbers, (1 / 3, 2 / 3)))
    names = (f"up to {setting(lower)}", f"up to {setting(upper)}", f"above {setting(upper)}")
    return [names[0] if v <= lower else names[1] if v <= upper else names[2] for v in numbers]


def _codes(labels: Sequence[object]) -> Ints:
    """Labels as small integers."""
    known = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    return np.array([known[label] for label in labels], np.int32)


def _centred(y: Floats, groups: Ints) -> Floats:
    """``y`` less the mean of its group."""
    sums = np.bincount(groups, weights=y)
    return np.asarray(y - (sums / np.bincount(groups))[groups], np.float64)


def _knob(
    name: str, labels: Sequence[str], figures: Floats, residual: Floats, *, within: Ints, rng: np.random.Generator
) -> Knob | None:
    """What the labels explain of ``residual``; None where no group of trials has two of them."""
    codes = _codes(labels)
    mixed = any(len(set(codes[within == g].tolist())) > 1 for g in set(within.tolist()))
    total = float(residual @ residual)
    if not mixed or total <= 0:
        return None
    shuffled = np.array([codes[_shuffled(within, rng)] for _ in range(SHUFFLES)])
    chance = _explained(shuffled, residual) / total
    found = float(_explained(codes[None, :], residual)[0]) / total
    expected = float(chance.mean())
    explained = max(0.0, (found - expected) / (1 - expected)) if expected < 1 else 0.0
    # The assignment that was seen is one of those that chance could have given.
    by_chance = (1 + int((chance >= found - 1e-12).sum())) / (1 + SHUFFLES)
    return Knob(name, explained, by_chance, len(labels), _seen(labels, figures))


def _shuffled(groups: Ints, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """A random order of the trials that leaves each in its group: a permutation of indices."""
    order = np.lexsort((rng.random(groups.size), groups))
    out = np.empty(groups.size, np.int64)
    out[np.argsort(groups, kind="stable")] = order
    return out


def _explained(codes: npt.NDArray[np.int32], residual: Floats) -> Floats:
    """Sums of squares between the groups of each row of ``codes``: float64, shape (rows,)."""
    total = np.zeros(codes.shape[0])
    for code in range(int(codes.max()) + 1):
        inside = codes == code
        count = inside.sum(axis=1)
        total += (inside @ residual) ** 2 / np.maximum(count, 1)
    return np.asarray(total, np.float64)


def _seen(labels: Sequence[str], figures: Floats) -> tuple[ValueSeen, ...]:
    """Each value's trials, the most frequent first."""
    by: Mapping[str, Floats] = {v: figures[np.array([x == v for x in labels])] for v in Counter(labels)}
    rows = [ValueSeen(v, f.size, float(np.median(f)), float(f.min()), float(f.max())) for v, f in by.items()]
    return tuple(sorted(rows, key=lambda row: (-row.trials, row.value)))
