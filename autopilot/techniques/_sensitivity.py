"""Which parts of a model int8 hurts, and what each part's int8 saves: one group quantized at a time.

The ranking that mixed-precision recipes of one model share; "score groups by output KL with one
group quantized at a time" as in HAWQ-like searches, with measured milliseconds instead of counted
operations.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from autopilot.cache.sealed import opened_json, replacing, sealed_json, used
from autopilot.contracts import BuildContext, Feed
from autopilot.errors import Failure, VariantFailed
from autopilot.recipe import digest
from autopilot.target import cpu_flags, cpu_model
from autopilot.techniques import _onnx, _qdq, _static
from autopilot.techniques._calibration import batches
from autopilot.techniques._divergence import divergence
from autopilot.techniques._histogram import Range
from autopilot.temporary import temporary_folder

if TYPE_CHECKING:
    from onnx import ModelProto

    from autopilot.data import Split

# Ranking costs one build and one timing a group: more groups cost minutes and are too small to time.
MOST_GROUPS = 16
# Samples for the divergence and requests for the timing, a group. Enough to rank, not to judge.
_SAMPLES = 32
_REQUESTS = 15
_WARM_UP = 3
# A group that saves less than this share of a request saves nothing that the timing can tell.
_SMALLEST_SAVING = 0.001
_FORMAT = 2
# Names of a group's nodes, and their weights' elements.
Members = tuple[tuple[str, ...], int]


@dataclass(frozen=True, slots=True)
class Group:
    """Neighbouring nodes that are int8 or float together.

    ``divergence``: how far the outputs move when this group alone is int8 (mean KL divergence of
    class distributions in nats, else squared error over variance); ``saved_ms``: milliseconds a
    request of one sample is faster for it, one thread.
    """

    nodes: tuple[str, ...]
    parameters: int
    divergence: float
    saved_ms: float


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Every group of a model, in graph order, and the float model's own milliseconds a request."""

    float_ms: float
    groups: tuple[Group, ...]

    def order(self, rank: str) -> tuple[int, ...]:
        """Indices of the groups, the one to keep in float first.

        ``divergence``: those that hurt most; ``divergence_per_ms``: those that hurt most for what they save.
        """
        least = _SMALLEST_SAVING * self.float_ms

        def score(i: int) -> float:
            group = self.groups[i]
            return group.divergence / max(group.saved_ms, least) if rank == "divergence_per_ms" else group.divergence

        return tuple(sorted(range(len(self.groups)), key=lambda i: (-score(i), i)))


def group(model: ModelProto, weighted: Sequence[str], most: int = MOST_GROUPS) -> tuple[Members, ...]:
    """``weighted`` nodes in graph order, merged into at most ``most`` groups of neighbours; with their parameters.

    The two smallest neighbours merge first, so that a block's small projections go together and
    its large layers stay alone.
    """
    sizes = {t.name: int(np.prod(t.dims)) for t in model.graph.initializer}
    inside = set(weighted)
    found: list[Members] = [((n.name,), sizes.get(n.input[1], 0)) for n in model.graph.node if n.name in inside]
    while len(found) > most:
        i = min(range(len(found) - 1), key=lambda k: found[k][1] + found[k + 1][1])
        found[i : i + 2] = [(found[i][0] + found[i + 1][0], found[i][1] + found[i + 1][1])]
    return tuple(found)


def rank(
    prepared: _static.Prepared,
    numbers: _qdq.Numbers,
    ranges: Mapping[str, Range],
    context: BuildContext,
) -> Sensitivity:
    """The table for these settings; from ``context.scratch`` where it was made before.

    Raises:
        VariantFailed: BUILD_ERROR, where a model with one group in int8 can't be built.
    """
    assert context.calibration is not None
    groups = group(prepared.model, prepared.weighted)
    content = [_FORMAT, prepared.digest, context.calibration.digest, asdict(numbers), context.metric_is_classification]
    content += [cpu_model(), cpu_flags()]  # what a group saves is this kind of machine's
    key = digest([*content, {k: list(v) for k, v in ranges.items()}, [list(names) for names, _ in groups]])
    path = context.scratch / "sensitivity" / f"{key[:32]}.json"
    known = _read(path)
    if known is None:
        known = _measure(prepared, groups, numbers, ranges, context)
        _write(known, path)
    return known


def _measure(
    prepared: _static.Prepared,
    groups: Sequence[Members],
    numbers: _qdq.Numbers,
    ranges: Mapping[str, Range],
    context: BuildContext,
) -> Sensitivity:
    split = context.calibration
    assert split is not None
    reference = _session(prepared.model)
    feeds = tuple(batches(reference, split, min(_SAMPLES, split.n)))
    requests = tuple(islice(_single(reference, split), _REQUESTS + _WARM_UP))
    outputs = _onnx.tensor_outputs(reference)
    expected = [reference.run(outputs, feed) for feed in feeds]
    table: list[Group] = []
    float_times_ms: list[float] = []
    for names, parameters in groups:
        chosen = _static.extended(prepared, names)
        needed = _static.only(prepared, chosen, ranges)
        candidate = _session(_qdq.quantize(prepared.model, chosen, numbers, needed))
        got = [candidate.run(outputs, feed) for feed in feeds]
        distance = divergence(expected, got, context.metric_is_classification)
        saved_ms, float_ms = _saved(reference, candidate, requests)
        float_times_ms.append(float_ms)
        table.append(Group(names, parameters, distance, saved_ms))
    return Sensitivity(median(float_times_ms), tuple(table))


def _session(model: ModelProto) -> Any:
    with temporary_folder("sensitivity") as folder:
        path = folder / _onnx.MODEL
        _onnx.save(model, path)
        try:
            # One thread: what a group saves is to be told from the noise of waking others.
            return _onnx.session(path, 1)
        except Exception as exc:  # ONNX Runtime's exceptions share no base class
            _onnx.pass_on_memory(exc)
            what = f"a model with one group in int8 doesn't load ({_onnx.first_line(exc)})."
            raise VariantFailed(Failure.BUILD_ERROR, what) from exc


def _single(runner: Any, split: Split) -> Iterator[Feed]:
    """Requests of one sample (of a batch, where the model's is fixed), again from the start at the end."""
    while True:
        yield from batches(runner, split, min(_REQUESTS, split.n), single=True)


def _saved(reference: Any, candidate: Any, requests: Sequence[Feed]) -> tuple[float, float]:
    """Milliseconds a request that ``candidate`` saves, and those that ``reference`` takes.

    The two run one right after the other. A saving of nothing is measured twice more, since a short
    disturbance looks like one and would put the group first in the ranking; the median counts.
    """
    windows = [_window(reference, candidate, requests)]
    if windows[0][0] <= _SMALLEST_SAVING * windows[0][1]:
        windows += [_window(reference, candidate, requests) for _ in range(2)]
    return median(saved for saved, _ in windows), median(taken for _, taken in windows)


def _window(reference: Any, candidate: Any, requests: Sequence[Feed]) -> tuple[float, float]:
    pairs = []
    for feed in requests:
        start = time.perf_counter()
        reference.run(None, feed)
        middle = time.perf_counter()
        candidate.run(None, feed)
        pairs.append((middle - start, time.perf_counter() - middle))
    steady = pairs[_WARM_UP:]
    return median(a - b for a, b in steady) * 1e3, median(a for a, _ in steady) * 1e3


def _write(table: Sensitivity, path: Path) -> None:
    with replacing(path) as f:
        f.write(sealed_json(asdict(table)).encode())


def _read(path: Path) -> Sensitivity | None:
    try:
        stored = opened_json(path)
        if stored is None:
            return None
        groups = tuple(
            Group(tuple(g["nodes"]), int(g["parameters"]), float(g["divergence"]), float(g["saved_ms"]))
            for g in stored["groups"]
        )
        table = Sensitivity(float(stored["float_ms"]), groups)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    used(path)
    return table
