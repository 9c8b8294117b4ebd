"""The smoke check after every step: same inputs and outputs, loads, finite answers of the right shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from autopilot.artifact import sha256_file
from autopilot.contracts import Array, BuildContext
from autopilot.errors import Failure, Unsupported, VariantFailed
from autopilot.model.inspect import TensorInfo, inspect
from autopilot.techniques._gate import feeds, session
from autopilot.techniques._text import first_line, pass_on_memory


def check_built(source: Path, built: Path, context: BuildContext) -> None:
    """Refuse a step's result that can't take its source's place.

    Answers are looked at where the context holds real samples. A file that the CPU provider has no
    kernels for (NOT_IMPLEMENTED) passes: another provider may have them, and the one that serves
    it will say so.

    Raises:
        VariantFailed: BUILD_ERROR where nothing usable was written or inputs or outputs changed;
            WRONG_NUMERICS for NaN or infinity where the source's answer is finite.
        ModelError: ``source`` is no model.
    """
    if not built.is_file():
        raise VariantFailed(Failure.BUILD_ERROR, "wrote no model.onnx.")
    before, after = inspect(source), inspect(built)
    for what, old, new in (("inputs", before.inputs, after.inputs), ("outputs", before.outputs, after.outputs)):
        if _signature(old) != _signature(new):
            changed = f"the {what} changed from {_shown(old)} to {_shown(new)}"
            raise VariantFailed(Failure.BUILD_ERROR, f"{changed}; callers rely on them.")
    try:
        candidate = session(built, context.threads)
    except Exception as exc:  # ONNX Runtime's exceptions share no base class
        pass_on_memory(exc)
        if "NOT_IMPLEMENTED" in str(exc):
            return
        raise VariantFailed(Failure.BUILD_ERROR, f"the built model doesn't load ({first_line(exc)}).") from exc
    if context.calibration is None:
        return
    reference = session(source, context.threads)
    names = [t.name for t in after.outputs]
    for feed in feeds(reference, context, samples=1):
        expected = reference.run(names, feed)
        try:
            got = candidate.run(names, feed)
        except Exception as exc:  # see above
            pass_on_memory(exc)
            raise VariantFailed(Failure.BUILD_ERROR, f"the built model doesn't run ({first_line(exc)}).") from exc
        for info, a, b in zip(after.outputs, expected, got, strict=True):
            _compare(info.name, a, b)


def refuse_unchanged(source: Path, built: Path) -> None:
    """Refuse a step's result that is the model it was given, to the last byte of it and its external data.

    A recipe that names the step would be credited with what it didn't do.

    Raises:
        Unsupported: it is.
    """
    if source.stat().st_size != built.stat().st_size:  # as good as always, and cheap
        return
    before, after = inspect(source).files, inspect(built).files
    if [sha256_file(f) for f in before] == [sha256_file(f) for f in after]:
        raise Unsupported("it changed nothing of this model.", "Leave it out.")


def _signature(tensors: tuple[TensorInfo, ...]) -> list[tuple[str, str, int]]:
    return [(t.name, t.dtype, len(t.shape)) for t in tensors]


def _shown(tensors: tuple[TensorInfo, ...]) -> str:
    return ", ".join(f"{t.name} {t.dtype} {list(t.shape)}" for t in tensors) or "none"


def _compare(name: str, expected: Array, got: Array) -> None:
    if expected.shape != got.shape:
        shapes = f"{list(expected.shape)} became {list(got.shape)}"
        raise VariantFailed(Failure.WRONG_NUMERICS, f"output {name!r}: shape {shapes}.")
    if expected.dtype.kind == "f" and (np.isfinite(expected) & ~np.isfinite(got)).any():
        raise VariantFailed(Failure.WRONG_NUMERICS, f"output {name!r} has NaN or infinity where its source has none.")
