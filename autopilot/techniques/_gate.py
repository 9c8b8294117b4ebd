"""The numerical gate: a rewritten model must answer as its source does, on real inputs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autopilot.contracts import Array, BuildContext
from autopilot.errors import Failure, Unsupported, VariantFailed
from autopilot.techniques._text import first_line, pass_on_memory

if TYPE_CHECKING:
    from autopilot.data import Split

# An argmax over near-equal scores may flip when float sums are reordered; more than that is wrong.
_FLIPS = 1e-3


def check_same(
    source: Path, built: Path, context: BuildContext, *, rtol: float = 1e-3, atol: float = 1e-4, samples: int = 16
) -> None:
    """Run both files on real inputs and refuse ``built`` where its outputs differ.

    The tolerance of an output is ``atol + rtol * max|expected|``: float reorderings of a fusion
    stay far below it, a wrong fusion far above. Of integer and boolean outputs (an argmax) one in a
    thousand may differ.

    Raises:
        VariantFailed: WRONG_NUMERICS, with the output's name and the largest difference; or
            BUILD_ERROR where the built file doesn't load or run.
    """
    if context.calibration is None:
        raise Unsupported("real inputs are needed to check that the rewritten model gives the same answers.")
    reference = session(source, context.threads)
    try:
        candidate = session(built, context.threads)
    except Exception as exc:  # ONNX Runtime's exceptions share no base class
        pass_on_memory(exc)
        raise VariantFailed(Failure.BUILD_ERROR, f"the rewritten model doesn't load ({first_line(exc)}).") from exc
    names = tensor_outputs(reference)
    for feed in feeds(reference, context, samples):
        expected = reference.run(names, feed)
        try:
            got = candidate.run(names, feed_for(candidate, feed))
        except Exception as exc:  # see above
            pass_on_memory(exc)
            raise VariantFailed(Failure.BUILD_ERROR, f"the rewritten model doesn't run ({first_line(exc)}).") from exc
        for name, a, b in zip(names, expected, got, strict=True):
            difference(name, a, b, rtol, atol)


def difference(name: str, expected: Array, got: Array, rtol: float, atol: float) -> None:
    """Raise WRONG_NUMERICS unless two outputs agree; both any shape and dtype."""
    if expected.shape != got.shape or expected.dtype != got.dtype:
        what = f"{expected.dtype}{list(expected.shape)} became {got.dtype}{list(got.shape)}"
        raise VariantFailed(Failure.WRONG_NUMERICS, f"output {name!r}: {what}.")
    if expected.dtype.kind not in "fc":
        flipped = int(np.sum(expected != got))
        if flipped > _FLIPS * expected.size:
            what = f"differs in {flipped} of {expected.size} values"
            raise VariantFailed(Failure.WRONG_NUMERICS, f"output {name!r} {what}.")
        return
    finite = np.isfinite(expected)
    if not np.array_equal(np.isnan(expected), np.isnan(got)) or not np.array_equal(finite, np.isfinite(got)):
        raise VariantFailed(Failure.WRONG_NUMERICS, f"output {name!r} is not finite where its source is.")
    if not finite.any():
        return
    a, b = expected[finite].astype(np.float64), got[finite].astype(np.float64)
    worst, allowed = float(np.abs(a - b).max()), atol + rtol * float(np.abs(a).max())
    if worst > allowed:
        what = f"differs from its source's by {worst:.3g} where {allowed:.3g} is allowed"
        raise VariantFailed(Failure.WRONG_NUMERICS, f"output {name!r} {what}.")


def session(path: Path, threads: int = 1) -> Any:
    """An ONNX Runtime session on the CPU provider, quiet, its threads asleep between runs."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def feeds(reference: Any, context: BuildContext, samples: int) -> Iterator[dict[str, Array]]:
    """Real requests that hold at least ``samples`` samples in all, in the batch size the model is made for.

    One sample at a time where ``reference`` takes no batches.
    """
    split = context.calibration
    if split is None:
        return
    count = min(samples, split.n)
    if not split.batched:
        for i in range(count):
            yield feed_for(reference, split.feed([i]))
        return
    size = fixed_batch(reference, split) or (count if takes_batches(reference, split) else 1)
    for start in range(0, count, size):
        # A batch may be larger than what is left: begin again from the first sample.
        yield feed_for(reference, split.feed([i % split.n for i in range(start, start + size)]))


def takes_batches(runner: Any, split: Split) -> bool:
    """Whether two samples run at once; inputs alone don't tell.

    Constants of the spec may hold a state for one sample, and a graph may hold a batch of 1 inside.
    """
    if split.has_shared_inputs() or split.n < 2:
        return False
    try:
        runner.run(None, feed_for(runner, split.feed([0, 1])))
    except Exception as exc:  # ONNX Runtime's exceptions share no base class
        pass_on_memory(exc)
        return False
    return True


def tensor_outputs(runner: Any) -> list[str]:
    """Names of the outputs that are arrays; a sequence or a map is none."""
    return [o.name for o in runner.get_outputs() if o.type.startswith("tensor(")]


def feed_for(runner: Any, feed: Any) -> dict[str, Array]:
    """Only the inputs that ``runner`` has."""
    wanted = {i.name for i in runner.get_inputs()}
    return {name: value for name, value in feed.items() if name in wanted}


def fixed_batch(runner: Any, split: Split | None = None) -> int | None:
    """The batch size that a model is made for, None when it takes any.

    Only inputs that grow with the batch say so, which ``split`` tells: an initial state of shape
    [2, N, 64] or a sampling rate doesn't.
    """
    shapes = {i.name: i.shape for i in runner.get_inputs() if i.shape and isinstance(i.shape[0], int)}
    if split is not None and split.batched and split.n > 1 and shapes:
        one, two = split.feed([0]), split.feed([0, 1])
        shapes = {k: s for k, s in shapes.items() if k in one and one[k].shape[:1] != two[k].shape[:1]}
    return next((int(s[0]) for s in shapes.values()), None)
