"""A module as an ONNX file that is only timed: the older exporter is forty times as fast as the one for artifacts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from autopilot.torch_model.calling import Call
from autopilot.torch_model.export import OPSET, export_onnx
from autopilot.torch_model.quiet import quiet

if TYPE_CHECKING:
    from torch import nn


def export_for_timing(module: nn.Module, feed: Mapping[str, npt.NDArray[Any]], call: Call, target: Path) -> None:
    """Write ``module`` with the shapes of ``feed`` as ``target``; its answers are not checked.

    torch's tracing exporter took 0.15 s for a small ResNet, ``export_onnx`` 6 s: a table of widths needs some tens of
    files, and ONNX Runtime makes the same kernels of both. Where it can't, or is gone, ``export_onnx`` takes its place.

    Raises:
        ModelError: neither can write it.
    """
    import torch

    plain, keywords = call.arguments(feed)
    try:
        with quiet():
            torch.onnx.export(
                module,
                plain,
                str(target),
                kwargs=keywords or None,
                dynamo=False,
                opset_version=OPSET,
                input_names=list(call.names),
            )
    except Exception:  # the tracer runs the user's code and raises whatever that or torch can't do
        export_onnx(module, feed, (), target, call=call)
