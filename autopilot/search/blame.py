"""Which sample the model as given fails on: a value that the data hold and the model doesn't take is bad input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autopilot.artifact import Artifact
from autopilot.bench.child import ChildLimits
from autopilot.bench.launcher import evaluate
from autopilot.contracts import Array
from autopilot.data import Split, Splits
from autopilot.data.sources import open_source
from autopilot.errors import DataError, Failure, VariantFailed
from autopilot.model import ModelInfo
from autopilot.observer import Observer
from autopilot.recipe import Deployment
from autopilot.spec import DataSpec
from autopilot.temporary import temporary_folder


@dataclass(frozen=True, slots=True)
class Given:
    """The model as given, how it is run, and the data."""

    model: Artifact
    deployment: Deployment
    info: ModelInfo
    splits: Splits
    data: DataSpec
    limits: ChildLimits


def blamed(exc: VariantFailed, given: Given, observer: Observer) -> DataError | None:
    """What is wrong with the data, where the failure ``exc`` is one sample's; None where it isn't.

    A sample is to blame when the model fails on it alone and answers another. The samples are run in halves, so that
    this takes as long as two scoring passes.
    """
    if exc.failure is not Failure.CRASH:
        return None
    for split in (given.splits.validation, given.splits.test):
        observer.doing(f"looking for a {split.name} sample that the model fails on")
        found = _first_failing(given, split)
        if found is not None:
            return _error(given, split, *found)
    return None


def _first_failing(given: Given, split: Split) -> tuple[int, VariantFailed] | None:
    """The first sample that fails, and how; None where none does, or the first sample of all (then all may)."""
    low, high = 0, split.n
    failure = _failure(given, split, low, high)
    while failure is not None and high - low > 1:
        middle = (low + high) // 2
        before = _failure(given, split, low, middle)
        low, high, failure = (low, middle, before) if before is not None else (middle, high, failure)
    if failure is None:
        return None
    if low == 0 and split.n > 1 and _failure(given, split, 1, 2) is not None:
        return None
    alone = _failure(given, split, low, high)  # of a range, another sample's failure may have been the one reported
    return None if alone is None else (low, alone)


def _failure(given: Given, split: Split, start: int, stop: int) -> VariantFailed | None:
    """How the model fails on the samples ``start..stop``, one by one; None where it answers."""
    batch = (given.info.batch or 1) if split.batched else 1
    with temporary_folder("blame") as folder:
        try:
            evaluate(
                given.model.path,
                given.deployment,
                split=split,
                start=start,
                stop=stop,
                batch=batch,
                folder=folder,
                limits=given.limits,
            )
        except VariantFailed as exc:
            return exc
    return None


def _error(given: Given, split: Split, at: int, failure: VariantFailed) -> DataError:
    data = given.data
    path = {"test": data.test, "calibration": data.train}.get(split.name) or data.validation
    row = row_of(path, split, at)
    which = f"one of its samples ({split.name})" if row is None else f"sample {row} (counted from 0)"
    odd = "; ".join(unusual(split, at))
    odd = f" It is unlike the others: {odd}." if odd else ""
    return DataError(
        f"{path}: the model can't be run on {which}: {failure.message.rstrip('. ')}.{odd}",
        "Correct that sample or leave it out; the model answers others.",
    )


def unusual(split: Split, at: int) -> list[str]:
    """Whole-number arrays of sample ``at`` with values beyond those of all other samples, in a sentence each."""
    found = []
    others = np.arange(split.n) != at
    for name, array in split.whole_numbers().items():
        rest = array[others]
        if not rest.size:
            continue
        least, most = rest.min(), rest.max()
        beyond = np.unique(array[at][(array[at] < least) | (array[at] > most)])
        if beyond.size:
            shown = ", ".join(str(v) for v in beyond[:3])
            found.append(f"{name!r} holds {shown}, where they hold {least} to {most}")
    return found


def check_extremes(given: Given, observer: Observer) -> None:
    """Run samples whose whole numbers go beyond those of validation, which the model has answered.

    An index beyond an embedding is among a split's extremes. Held-back samples are run last of all, and those for
    calibration while variants are built: found there, a whole search would be lost, or every int8 variant.

    Raises:
        DataError: the model crashes on one, and does so again.
    """
    known = given.splits.validation.whole_numbers()
    for split in (given.splits.test, given.splits.calibration):
        for at in sorted(_beyond(split.whole_numbers(), known)):
            observer.doing(f"trying a {split.name} sample with values beyond those of validation")
            failure = _crash(given, split, at)
            if failure is not None:
                raise _error(given, split, at, failure) from failure


def _crash(given: Given, split: Split, at: int) -> VariantFailed | None:
    """How the model crashes on sample ``at``, twice: one crash may be bad luck, here as in a trial."""
    for _ in range(2):
        failure = _failure(given, split, at, at + 1)
        if failure is None or failure.failure is not Failure.CRASH:
            return None
    return failure


def _beyond(arrays: Mapping[str, Array], known: Mapping[str, Array]) -> set[int]:
    """The samples that hold an array's least or largest value, where that is beyond the ``known`` ones."""
    found = set()
    for name, array in arrays.items():
        if not array.size or name not in known or not known[name].size:
            continue
        by_sample = array.reshape(len(array), -1)
        lowest, highest = by_sample.min(axis=1), by_sample.max(axis=1)
        if lowest.min() < known[name].min():
            found.add(int(lowest.argmin()))
        if highest.max() > known[name].max():
            found.add(int(highest.argmax()))
    return found


def row_of(path: Path, split: Split, at: int) -> int | None:
    """Where sample ``at`` of ``split``, which is shuffled, stands in its file; None where that can't be told."""
    source = open_source(path)
    raw: Mapping[str, Array] = split.raw([at]) if split.batched else split.raw(at)
    same: Array | None = None
    for name, value in raw.items():
        shape = source.headers[name].shape if name in source.headers else ()
        item = value.shape[1:] if split.batched and value.shape[:1] == (1,) else value.shape
        if len(shape) == 0 or shape[0] < 2 or shape[1:] != item:
            continue  # shared by all samples
        row = value.reshape(-1)
        equal = np.concatenate([(c.reshape(len(c), -1) == row).all(axis=1) for c in source.chunks(name)])
        same = equal if same is None else same & equal
    if same is None or not same.any():
        return None
    return int(np.flatnonzero(same)[0])
