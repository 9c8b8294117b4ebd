"""The parent's part of looking at a PyTorch model: described in a child process, since that runs the user's code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from autopilot.bench.child import ChildLimits, run_child
from autopilot.build.torch_export import check_installed
from autopilot.errors import ModelError, VariantFailed
from autopilot.model import ModelInfo, TensorInfo
from autopilot.temporary import temporary_folder

if TYPE_CHECKING:
    from autopilot.data.example import Example
    from autopilot.spec import TorchSource


def describe_torch(source: TorchSource, example: Example | None, *, limits: ChildLimits, threads: int) -> ModelInfo:
    """What ``source`` takes and answers; of code the outputs only where it runs on ``example``.

    Inputs and outputs of which only the name is known have an empty dtype and no dimensions.

    Raises:
        ModelError: torch is missing, the model can't be loaded, or it fails on the example.
    """
    check_installed(source)
    with temporary_folder("describe") as scratch:
        stored = None
        if example is not None:
            stored = str(scratch / "example.npz")
            np.savez(stored, **dict(example.feed))  # type: ignore[arg-type]  # names of inputs, never "allow_pickle"
        request = {
            "source": source.to_json(),
            "example": stored,
            "inputs": list(example.feed) if example is not None else [],
            "threads": threads,
        }
        try:
            told = run_child("autopilot.export_worker", request, limits, workdir=scratch, threads=threads)
        except VariantFailed as exc:
            what = f"{source.path}: the PyTorch model could not be loaded: {exc.message}"
            raise ModelError(what, exc.hint or "Run its code by itself first.") from exc
    return _info(source, told)


def _info(source: TorchSource, told: dict[str, Any]) -> ModelInfo:
    inputs, outputs = (
        tuple(TensorInfo(t["name"], t["dtype"], tuple(t["shape"])) for t in told[key]) for key in ("inputs", "outputs")
    )
    return ModelInfo(
        path=source.path,
        files=(source.path,),
        inputs=inputs,
        outputs=outputs,
        opset=0,
        op_counts={},
        quantized=False,
        has_control_flow=False,
        dynamic_quantized=False,
        parameters=0,
        batch=None,
    )
