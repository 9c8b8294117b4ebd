"""The export child: a PyTorch model -> ONNX, checked (``python -m autopilot.export_worker REQUEST.json``).

It loads the user's own code, which is why it is a process of its own, under the study's limits.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopilot.bench.childside import child_main, progress
from autopilot.errors import ModelError, VariantFailed

if TYPE_CHECKING:
    from autopilot.torch_model import Exported


def handle(request: Mapping[str, Any]) -> dict[str, Any]:
    """Write ``request["target"]`` from ``request["source"]``; ``request["example"]`` is an .npz of real inputs.

    Without a target the model is described instead.
    """
    import numpy as np
    import torch

    from autopilot.spec import TorchSource
    from autopilot.torch_model import export_onnx, load_source

    torch.set_num_threads(int(request["threads"]))
    if "target" not in request:
        return tell(request)
    target = Path(request["target"])
    with np.load(request["example"]) as stored:
        feed = {name: stored[name] for name in request["inputs"]}
    progress("loading the PyTorch model")
    model = load_source(TorchSource.from_json(request["source"]))
    progress("exporting it to ONNX")
    per_sample = tuple(request["per_sample"])
    exported = export_onnx(model, feed, per_sample, target)
    progress("checking the export")
    check(target, exported, per_sample)
    return {"batch": exported.batch, "note": exported.note}


def tell(request: Mapping[str, Any]) -> dict[str, Any]:
    """What ``request["source"]`` takes and answers; the latter of code after a run on ``request["example"]``."""
    import numpy as np

    from autopilot.spec import TorchSource
    from autopilot.torch_model import load_source
    from autopilot.torch_model.describe import describe

    model = load_source(TorchSource.from_json(request["source"]))
    if request["example"] is None:
        return describe(model, None)
    with np.load(request["example"]) as stored:
        return describe(model, {name: stored[name] for name in request["inputs"]})


def check(target: Path, exported: Exported, per_sample: tuple[str, ...]) -> None:
    """Compare the file's answers with PyTorch's own.

    Raises:
        ModelError: an input is missing, or an output differs by more than the tolerances.
    """
    from autopilot.techniques._torch import check_export

    try:
        check_export(target, exported, per_sample)
    except VariantFailed as exc:
        raise ModelError(
            f"the ONNX export does not answer as the PyTorch model does: {exc.message}",
            "Export it yourself and give the .onnx file, or report it.",
        ) from exc


if __name__ == "__main__":
    child_main(handle)
