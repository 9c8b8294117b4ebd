"""Value ranges of a model's tensors on real inputs: measured once, used by every static int8 recipe.

One pass keeps a histogram a tensor, so that min-max, any percentile and entropy all come from the
same file. ONNX Runtime's own calibrators keep every intermediate tensor of every sample in memory
and measure again for each method; its entropy method with the default 128 bins has a single
candidate threshold, which makes it min-max.
"""

from __future__ import annotations

import os
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from autopilot.contracts import Array, BuildContext, Feed
from autopilot.errors import Unsupported
from autopilot.recipe import digest
from autopilot.techniques import _onnx

if TYPE_CHECKING:
    from onnx import ModelProto

    from autopilot.data import Split

# Bins over [-bound, bound]; bound is a power of two, so at least a quarter of them is in use.
BINS = 8192
# What the tensors of one calibration batch may take.
_BATCH_BYTES = 64 << 20
# Masks such as -3e38 leave no bits for anything else: tensors beyond this are never quantized.
HUGE = 1e30
# What entropy calibration may clip.
_MOST_CLIPPED = 0.001
# Part of the file's key: raise it when histograms change.
_FORMAT = 1

Counts = npt.NDArray[np.int64]
Range = tuple[float, float]


@dataclass(slots=True)
class Histogram:
    """Distribution of one tensor's values, any shape.

    ``counts``: int64, shape (BINS,), equal bins over [-bound, bound]; ``low`` and ``high`` the
    extremes; ``usable`` False where a value was not finite or beyond HUGE.
    """

    low: float
    high: float
    bound: float
    counts: Counts
    usable: bool = True

    @classmethod
    def empty(cls) -> Histogram:
        return cls(0.0, 0.0, 2.0**-24, np.zeros(BINS, np.int64))

    def add(self, values: Array) -> None:
        """Count more values (float, any shape)."""
        x = np.asarray(values, np.float32).ravel()
        if x.size == 0 or not self.usable:
            return
        low, high = float(x.min()), float(x.max())
        peak = max(-low, high)
        if not peak < HUGE:  # NaN too
            self.usable = False
            return
        self.low, self.high = min(self.low, low), max(self.high, high)
        while peak > self.bound:
            self._widen()
        half = BINS // 2
        index = (x * np.float32(half / self.bound) + np.float32(half)).astype(np.int32)
        np.clip(index, 0, BINS - 1, out=index)
        self.counts += np.bincount(index, minlength=BINS)

    def _widen(self) -> None:
        quarter = BINS // 4
        merged = self.counts.reshape(-1, 2).sum(axis=1)
        self.counts = np.zeros(BINS, np.int64)
        self.counts[quarter : quarter + BINS // 2] = merged
        self.bound *= 2

    def edges(self) -> npt.NDArray[np.float64]:
        """Bin edges, shape (BINS + 1,)."""
        return np.linspace(-self.bound, self.bound, BINS + 1)

    def span(self, method: str, percentile: float) -> Range:
        """The range to quantize over: ``minmax``, ``percentile`` (of both tails together) or ``entropy``."""
        if method == "minmax" or self.high <= self.low:
            return self.low, self.high
        low, high = self._percentile(percentile) if method == "percentile" else self._entropy()
        return max(low, self.low), min(high, self.high)

    def _percentile(self, percentile: float) -> Range:
        share = np.cumsum(self.counts) / self.counts.sum()
        tail = (100.0 - percentile) / 200.0
        left = int(np.searchsorted(share, tail, side="right"))
        right = int(np.searchsorted(share, 1.0 - tail))
        edges = self.edges()
        return float(edges[min(left, BINS - 1)]), float(edges[min(right, BINS - 1) + 1])

    def _entropy(self) -> Range:
        """The clipping threshold of least KL divergence (Migacz, TensorRT, GTC 2017), on magnitudes.

        One-sided tensors have twice the levels. Thresholds that clip more than _MOST_CLIPPED of the
        values are not considered: a constant background makes them look free (fashion: 0.94 -> 0.78).
        """
        half = BINS // 2
        magnitude = self.counts[half:] + self.counts[:half][::-1]
        levels = 256 if self.low >= 0 or self.high <= 0 else 128
        step = half // 256
        kept = np.cumsum(magnitude) / magnitude.sum()
        least = int(np.searchsorted(kept, 1.0 - _MOST_CLIPPED)) + 1
        sizes = range(max(levels, -(-least // step) * step), half + 1, step)
        scores = [_divergence(magnitude, size, levels) for size in sizes]
        threshold = self.bound * sizes[int(np.argmin(scores))] / half
        return -threshold, threshold


def _divergence(magnitude: Counts, size: int, levels: int) -> float:
    """KL(P || Q): P the first ``size`` bins with the rest clipped into the last, Q what ``levels`` steps keep."""
    kept = magnitude[:size].astype(np.float64)
    p = kept.copy()
    p[-1] += magnitude[size:].sum()
    owner = np.arange(size) * levels // size
    filled = kept > 0
    mass = np.bincount(owner, kept, minlength=levels)
    cells = np.bincount(owner, filled, minlength=levels)
    q = np.where(filled, mass[owner] / np.maximum(cells[owner], 1), 0.0)
    if q.sum() == 0:
        return np.inf
    p /= p.sum()
    q /= q.sum()
    # A clipped bin that Q leaves empty costs much, but not infinitely much.
    where = p > 0
    return float(np.sum(p[where] * np.log(p[where] / np.maximum(q[where], 1e-7))))


@dataclass(frozen=True, slots=True)
class Calibration:
    """Histograms by tensor name; tensors that aren't float32 are not in it."""

    histograms: Mapping[str, Histogram]

    def ranges(self, method: str, percentile: float) -> dict[str, Range]:
        """Range of every usable tensor."""
        return {k: h.span(method, percentile) for k, h in self.histograms.items() if h.usable}


def calibrate(
    model: ModelProto, model_digest: str, tensors: Sequence[str], samples: int, context: BuildContext
) -> Calibration:
    """Histograms of ``tensors`` on the first ``samples`` calibration samples; from ``context.scratch`` when known.

    Safe beside other builds: the file is written under another name and renamed; a damaged one is made again.

    Raises:
        Unsupported: there are no calibration data, or too few for the model's fixed batch size.
    """
    split = context.calibration
    if split is None:
        raise Unsupported("static quantization needs calibration data.", "Give data.train or more validation samples.")
    count = min(samples, split.n)
    key = digest([_FORMAT, model_digest, split.digest, count, sorted(tensors)])
    path = context.scratch / "calibration" / f"{key[:32]}.npz"
    known = _read(path)
    if known is not None:
        return known
    found = Calibration(_measure(model, sorted(tensors), count, split, context.threads))
    _write(found, path)
    return found


def _measure(model: ModelProto, tensors: Sequence[str], count: int, split: Split, threads: int) -> dict[str, Histogram]:
    with tempfile.TemporaryDirectory(prefix="calibrate-") as folder:
        path = Path(folder) / _onnx.MODEL
        _onnx.save(_exposing(model, tensors), path)
        runner = _session(path, threads)
    wanted = set(tensors)
    outputs = [o.name for o in runner.get_outputs() if o.type == "tensor(float)" and o.name in wanted]
    inputs = [i.name for i in runner.get_inputs() if i.type == "tensor(float)" and i.name in wanted]
    found = {name: Histogram.empty() for name in (*inputs, *outputs)}
    for feed in batches(runner, split, count, outputs):
        for name in inputs:
            found[name].add(feed[name])
        for name, values in zip(outputs, runner.run(outputs, feed) if outputs else (), strict=True):
            found[name].add(values)
    return found


def _exposing(model: ModelProto, tensors: Sequence[str]) -> ModelProto:
    """A copy whose outputs include ``tensors``; ONNX Runtime infers their types itself."""
    import onnx

    out = onnx.ModelProto()
    out.CopyFrom(model)
    there = {v.name for v in (*out.graph.input, *out.graph.output)}
    out.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors if name not in there)
    return out


def _session(path: Path, threads: int) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Every tensor must be computed under its own name.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def batches(runner: Any, split: Split, count: int, outputs: Sequence[str] = ()) -> Iterator[Feed]:
    """Requests that hold ``count`` samples in all, as many at a time as memory and the model allow.

    A model with a fixed batch size gets whole batches; unbatched data and inputs shared by the
    samples whose shape may follow the batch go one sample at a time.

    Raises:
        Unsupported: fewer samples than the fixed batch size.
    """
    if not split.batched:
        for i in range(count):
            yield _onnx.feed_for(runner, split.feed([i]))
        return
    first_dimensions = [i.shape[0] for i in runner.get_inputs() if i.shape]
    numbers = {d for d in first_dimensions if isinstance(d, int)}
    size = numbers.pop() if len(numbers) == 1 and len(set(first_dimensions)) == 1 else 1
    if size > split.n:
        raise Unsupported(f"the model takes {size} samples at a time and there are {split.n} for calibration.")
    first = _onnx.feed_for(runner, split.feed(slice(0, size)))
    yield first
    start = size
    free = not any(isinstance(d, int) for d in first_dimensions) and not split.has_shared_inputs()
    step = _affordable(runner, first, outputs) if free else size
    while start < count:
        stop = min(start + step, count) if free else start + step
        if stop > split.n:
            return
        yield _onnx.feed_for(runner, split.feed(slice(start, stop)))
        start = stop


def _affordable(runner: Any, feed: Feed, outputs: Sequence[str]) -> int:
    """Samples a batch such that the exposed tensors stay within _BATCH_BYTES; ``feed`` holds one."""
    one = sum(int(v.nbytes) for v in runner.run(list(outputs) or None, feed))
    return int(np.clip(_BATCH_BYTES // max(one, 1), 1, 32))


def _write(found: Calibration, path: Path) -> None:
    names = sorted(found.histograms)
    ordered = [found.histograms[n] for n in names]
    numbers = np.array([[h.low, h.high, h.bound, float(h.usable)] for h in ordered], np.float64).reshape(-1, 4)
    counts = np.array([h.counts for h in ordered], np.int64).reshape(-1, BINS)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as f:
            np.savez_compressed(f, names=np.array(names, dtype=np.str_), numbers=numbers, counts=counts)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _read(path: Path) -> Calibration | None:
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            names, numbers, counts = stored["names"], stored["numbers"], stored["counts"]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error):
        return None
    rows = zip(names.tolist(), numbers.tolist(), counts, strict=True)
    return Calibration({n: Histogram(lo, hi, bound, c, bool(ok)) for n, (lo, hi, bound, ok), c in rows})
