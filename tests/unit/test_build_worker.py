"""What a technique's libraries raise becomes a typed failure in the build child."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from autopilot.build_worker import _apply
from autopilot.contracts import BuildContext, Slot, Technique
from autopilot.domain import Scalar
from autopilot.errors import AutopilotError, Failure, Unsupported, VariantFailed
from autopilot.recipe import Step
from autopilot.techniques._smoke import check_built
from tests import models


def raising(error: BaseException) -> Technique:
    """A technique that fails in a given way."""

    def apply(source: Path, target: Path, params: Mapping[str, Scalar], context: BuildContext) -> None:
        raise error

    return Technique("toy", Slot.GRAPH, 1, {}, apply, "for tests")


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (ValueError("no such axis"), Failure.BUILD_ERROR),
        (AssertionError(), Failure.BUILD_ERROR),
        (OSError(errno.ENOENT, "gone"), Failure.BUILD_ERROR),
        (Unsupported("not this one."), Failure.UNSUPPORTED),
    ],
)
def test_errors_of_libraries_are_classified(tmp_path: Path, error: BaseException, failure: Failure) -> None:
    """Whatever a library raises ends one candidate, with its first line as the reason."""
    with pytest.raises(VariantFailed) as caught:
        _apply(raising(error), tmp_path, tmp_path, Step("toy"), BuildContext(None, tmp_path, 1))

    assert caught.value.failure is failure
    assert (str(error).splitlines() or [type(error).__name__])[0] in str(caught.value)


def test_full_disk_ends_the_run(tmp_path: Path) -> None:
    """No other candidate would fare better: not a failure of this one, and never remembered."""
    with pytest.raises(AutopilotError, match="No space") as caught:
        _apply(
            raising(OSError(errno.ENOSPC, "No space left on device")),
            tmp_path,
            tmp_path,
            Step("toy"),
            BuildContext(None, tmp_path, 1),
        )

    assert not isinstance(caught.value, VariantFailed)


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("std::bad_alloc"), ValueError("Error parsing message: Arena alloc failed")],
)
def test_out_of_memory_passes_through(tmp_path: Path, error: Exception) -> None:
    """Memory, whoever reports it, is classified by the child's main and never remembered as a build error."""
    with pytest.raises(MemoryError):
        _apply(raising(error), tmp_path, tmp_path, Step("toy"), BuildContext(None, tmp_path, 1))


def context(tmp_path: Path) -> BuildContext:
    """Samples for the cnn."""
    return BuildContext(models.split_for(models.cnn(), 16), tmp_path, 1)  # type: ignore[arg-type]


def test_smoke_check_passes_the_model_itself(tmp_path: Path) -> None:
    """The source can always take its own place."""
    path = models.write(models.cnn(), tmp_path / "a.onnx")

    check_built(path, path, context(tmp_path))


def test_smoke_check_refuses_a_missing_file(tmp_path: Path) -> None:
    """A technique that wrote nothing has failed."""
    path = models.write(models.cnn(), tmp_path / "a.onnx")

    with pytest.raises(VariantFailed, match="wrote no model"):
        check_built(path, tmp_path / "b.onnx", context(tmp_path))


def test_smoke_check_refuses_changed_inputs(tmp_path: Path) -> None:
    """Callers rely on names and types."""
    source = models.write(models.cnn(), tmp_path / "a.onnx")
    other = models.write(models.wide(), tmp_path / "b.onnx")

    with pytest.raises(VariantFailed, match=r"the inputs changed from image float32 .* to x float32"):
        check_built(source, other, context(tmp_path))


def test_smoke_check_refuses_nan(tmp_path: Path) -> None:
    """NaN where the source is finite is WRONG_NUMERICS before anything is measured."""
    source = models.write(models.cnn(), tmp_path / "a.onnx")
    broken = models.cnn()
    bias = next(t for t in broken.graph.initializer if t.name == "b3")
    bias.raw_data = np.full(4, np.nan, np.float32).tobytes()

    with pytest.raises(VariantFailed, match="NaN or infinity") as caught:
        check_built(source, models.write(broken, tmp_path / "b.onnx"), context(tmp_path))

    assert caught.value.failure is Failure.WRONG_NUMERICS


def test_smoke_check_refuses_a_model_that_does_not_load(tmp_path: Path) -> None:
    """An operator that doesn't exist fails at load, with the runtime's words."""
    source = models.write(models.cnn(), tmp_path / "a.onnx")
    broken = models.cnn()
    broken.graph.node[1].op_type = "Rleu"

    with pytest.raises(VariantFailed, match=r"doesn't load .*Rleu"):
        check_built(source, models.write(broken, tmp_path / "b.onnx"), context(tmp_path))
