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
    """Write ``request["target"]`` from ``request["source"]``; ``request["example"]`` is an .npz of real inputs."""
    import numpy as np
    import torch

    from autopilot.spec import TorchSource
    from autopilot.torch_model import export_onnx, load_source

    torch.set_num_threads(int(request["threads"]))
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


def check(target: Path, exported: Exported, per_sample: tuple[str, ...]) -> None:
    """Compare ONNX Runtime's answers with PyTorch's, all samples at once and, with a free batch, the first two alone.

    Raises:
        ModelError: an input or output is missing, or an output differs by more than the tolerances.
    """
    from autopilot.techniques._gate import difference, session
    from autopilot.torch_model.export import ATOL, RTOL

    runner = session(target)
    missing = set(exported.feed) - {i.name for i in runner.get_inputs()}
    if missing:
        raise ModelError(f"the exported model lost its input {sorted(missing)[0]!r}.", "Does forward() use it?")
    names = list(exported.expected)
    requests = [(slice(None), exported.feed)]
    if per_sample and exported.batch is None:
        one = [(slice(i, i + 1), _picked(exported.feed, per_sample, i)) for i in range(2)]
        requests += one
    samples = len(exported.feed[per_sample[0]]) if per_sample else None
    for rows, feed in requests:
        for name, got in zip(names, runner.run(names, dict(feed)), strict=True):
            expected = exported.expected[name]
            whole = rows == slice(None)
            if not whole and expected.shape[:1] != (samples,):
                continue  # no output a sample: nothing to compare a single one with
            try:
                difference(name, expected if whole else expected[rows], got, RTOL, ATOL)
            except VariantFailed as exc:
                raise ModelError(
                    f"the ONNX export does not answer as the PyTorch model does: {exc.message}",
                    "Export it yourself and give the .onnx file, or report it.",
                ) from exc


def _picked(feed: Mapping[str, Any], per_sample: tuple[str, ...], index: int) -> dict[str, Any]:
    return {name: v[index : index + 1] if name in per_sample else v for name, v in feed.items()}


if __name__ == "__main__":
    child_main(handle)
