"""Value ranges of a model's tensors on real inputs: measured once, used by every static int8 recipe.

One pass keeps a histogram a tensor, so that min-max, any percentile and entropy all come from the
same file. ONNX Runtime's own calibrators keep every intermediate tensor of every sample in memory
and measure again for each method; its entropy method with the default 128 bins has a single
candidate threshold, which makes it min-max.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autopilot.cache.sealed import read_sealed, write_sealed
from autopilot.contracts import BuildContext, Feed
from autopilot.errors import Unsupported
from autopilot.recipe import digest
from autopilot.techniques import _onnx
from autopilot.techniques._histogram import BINS, Histogram, Range
from autopilot.temporary import temporary_folder

if TYPE_CHECKING:
    from onnx import ModelProto

    from autopilot.data import Split

# What the tensors of one calibration batch may take.
_BATCH_BYTES = 64 << 20
# Part of the file's key: raise it when histograms change.
_FORMAT = 2


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
    data = f"{count} samples of {split.digest[:8]}"
    _write(found, path, f"ranges of {len(found.histograms)} tensors of {model_digest[:8]} on {data}")
    return found


def _measure(model: ModelProto, tensors: Sequence[str], count: int, split: Split, threads: int) -> dict[str, Histogram]:
    with temporary_folder("calibrate") as folder:
        path = folder / _onnx.MODEL
        _onnx.save(exposing(model, tensors), path)
        runner = plain_session(path, threads)
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


def exposing(model: ModelProto, tensors: Sequence[str]) -> ModelProto:
    """A copy whose outputs include ``tensors``; ONNX Runtime infers their types itself."""
    import onnx

    out = onnx.ModelProto()
    out.CopyFrom(model)
    there = {v.name for v in (*out.graph.input, *out.graph.output)}
    out.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors if name not in there)
    return out


def plain_session(path: Path, threads: int) -> Any:
    """A session that computes every tensor under its own name, on the CPU provider."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Every tensor must be computed under its own name.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def batches(
    runner: Any, split: Split, count: int, outputs: Sequence[str] = (), *, single: bool = False
) -> Iterator[Feed]:
    """Requests that hold ``count`` samples in all, as many at a time as memory and the model allow, or ``single``.

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
    fixed = single or any(isinstance(d, int) for d in first_dimensions)
    free = not fixed and _onnx.takes_batches(runner, split)
    step = _affordable(runner, first, outputs) if free else size
    while start < count:
        stop = min(start + step, count) if free else start + step
        if stop > split.n:
            return
        yield _onnx.feed_for(runner, split.feed(slice(start, stop)))
        start = stop


def _affordable(runner: Any, feed: Feed, outputs: Sequence[str]) -> int:
    """Samples a batch such that the exposed tensors stay within _BATCH_BYTES; ``feed`` holds one."""
    one = sum(int(v.nbytes) for v in runner.run(list(outputs) or _onnx.tensor_outputs(runner), feed))
    return int(np.clip(_BATCH_BYTES // max(one, 1), 1, 32))


def _write(found: Calibration, path: Path, about: str) -> None:
    names = sorted(found.histograms)
    ordered = [found.histograms[n] for n in names]
    numbers = np.array([[h.low, h.high, h.bound, float(h.usable)] for h in ordered], np.float64).reshape(-1, 4)
    counts = np.array([h.counts for h in ordered], np.int64).reshape(-1, BINS)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, names=np.array(names, dtype=np.str_), numbers=numbers, counts=counts)
    write_sealed(path, buffer.getvalue(), about)


def _read(path: Path) -> Calibration | None:
    payload = read_sealed(path)
    if payload is None:
        return None
    with np.load(io.BytesIO(payload), allow_pickle=False) as stored:
        names, numbers, counts = stored["names"], stored["numbers"], stored["counts"]
    rows = zip(names.tolist(), numbers.tolist(), counts, strict=True)
    return Calibration({n: Histogram(lo, hi, bound, c, bool(ok)) for n, (lo, hi, bound, ok), c in rows})
