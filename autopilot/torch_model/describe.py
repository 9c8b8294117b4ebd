"""What a PyTorch model takes and answers, as far as it tells."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from autopilot.torch_model.calling import module_call, named_outputs, run

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

# Arguments that forward() collects have no names of their own.
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def describe(model: nn.Module | ExportedProgram, feed: Mapping[str, npt.NDArray[Any]] | None) -> dict[str, Any]:
    """``inputs`` and ``outputs``, each a list of name, dtype and shape (a free dimension as text), as plain data.

    An exported program tells all of it. Of a module's inputs the names are known, and, once it ran on ``feed``, its
    outputs; what isn't known is an empty dtype.

    Raises:
        ModelError: ``feed`` doesn't fit ``forward``, or it fails on it.
    """
    from torch.export import ExportedProgram

    if isinstance(model, ExportedProgram):
        return _program(model)
    parameters = inspect.signature(model.forward).parameters
    names = [n for n, p in parameters.items() if p.default is p.empty and p.kind not in _VARIADIC]
    told: dict[str, Any] = {"inputs": [{"name": n, "dtype": "", "shape": []} for n in names], "outputs": []}
    if feed is not None:
        answer = named_outputs(run(module_call(model, tuple(feed)), model, feed))
        told["outputs"] = [_tensor(name, value) for name, value in answer.items()]
    return told


def _program(program: ExportedProgram) -> dict[str, Any]:
    values = {n.name: n.meta["val"] for n in program.graph.nodes if "val" in n.meta}
    signature = program.graph_signature
    inputs = [_tensor(str(n), values[n]) for n in signature.user_inputs if n in values]
    outputs = [_tensor(f"output_{i}", values[n]) for i, n in enumerate(signature.user_outputs) if n in values]
    return {"inputs": inputs, "outputs": outputs}


def _tensor(name: str, value: Any) -> dict[str, Any]:
    shape = [d if isinstance(d, int) else str(d) for d in value.shape]
    return {"name": name, "dtype": str(value.dtype).removeprefix("torch."), "shape": shape}
