"""A PyTorch model from its files: ``.pt2``, or the user's code and a file of weights."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopilot.artifact import sha256_file
from autopilot.data.hook_code import hook_code
from autopilot.data.hooks import call_hook, load_hook, parse_hook
from autopilot.errors import DataError, ModelError
from autopilot.recipe import digest
from autopilot.torch_model.messages import first_line, listed

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram

    from autopilot.spec import TorchSource

# What training loops call the weights inside a checkpoint.
_NESTED = ("state_dict", "model_state_dict", "model")
_SAVE = "Save the weights alone: safetensors.torch.save_file(model.state_dict(), 'model.safetensors')."


def load_source(source: TorchSource) -> nn.Module | ExportedProgram:
    """The model of ``source`` on the CPU, modules in evaluation mode.

    ``code`` runs the user's own file: call this in a child process, under limits.

    Raises:
        ModelError: the file can't be read, the code fails, or the weights don't fit it.
    """
    if source.program is not None:
        return _program(source.program)
    assert source.code is not None
    assert source.weights is not None
    module = build_module(source.code)
    _load_weights(module, read_weights(source.weights), source)
    return module.eval()


def _program(path: Path) -> ExportedProgram:
    import torch

    try:
        return torch.export.load(str(path))
    except Exception as exc:  # zip, JSON, pickle and schema errors of many kinds, all about this file
        raise ModelError(
            f"{path}: is no program that this torch ({torch.__version__}) can load ({first_line(exc)}).",
            "Save it again with torch.export.save(torch.export.export(model, args), 'model.pt2').",
        ) from exc


def build_module(code: str) -> nn.Module:
    """What the user's function ``"FILE.py:function"`` returns.

    Raises:
        ModelError: it fails, or returns something else than a module.
    """
    from torch import nn

    path, function = parse_hook(code)
    try:
        built = call_hook(load_hook(code), code)
    except DataError as exc:
        raise ModelError(exc.message, exc.hint or f"{function}() is called without arguments.") from exc
    if not isinstance(built, nn.Module):
        raise ModelError(
            f"{function}() in {path} returns a {type(built).__name__}, not a torch.nn.Module.",
            "It should build the network and return it, without its weights.",
        )
    return built.cpu()


def code_digest(code: str) -> str:
    """Hex sha256 of the user's function, of every Python file in its folder, and of what it imports from elsewhere."""
    path, function = parse_hook(code)
    found = hook_code(code)
    beside = {f.name: sha256_file(f) for f in sorted(path.parent.glob("*.py"))}
    return digest([beside, found.files, found.libraries, path.name, function])


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors in a file of weights by name; nothing in the file is executed.

    Raises:
        ModelError: damaged, or holding more than tensors.
    """
    import torch

    found: Any
    try:
        if path.suffix.lower() == ".safetensors":
            from safetensors.torch import load_file

            found = load_file(str(path))
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as exc:
        what = "holds Python objects beside its tensors, which are not loaded: they could run any code"
        raise ModelError(f"{path}: {what} ({first_line(exc)}).", _SAVE) from exc
    except Exception as exc:  # safetensors and torch raise what their readers trip over, all about this file
        raise ModelError(f"{path}: can't be read as weights ({first_line(exc)}).", _SAVE) from exc
    for key in _NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(v, torch.Tensor) for v in found.values()):
        raise ModelError(f"{path}: holds no mapping of names to tensors.", _SAVE)
    return dict(found)


def _load_weights(module: nn.Module, weights: Mapping[str, Tensor], source: TorchSource) -> None:
    wanted, given = set(module.state_dict()), set(weights)
    problems = []
    if wanted - given:
        problems.append(f"it lacks {listed(sorted(wanted - given))}")
    if given - wanted:
        problems.append(f"the network has no {listed(sorted(given - wanted))}")
    function = str(source.code).rpartition(":")[2]
    what = f"{source.weights} doesn't fit the network of {function}() in {source.path}"
    if problems:
        raise ModelError(f"{what}: {'; '.join(problems)}.", "Save model.state_dict() of that network.")
    try:
        module.load_state_dict(dict(weights))
    except RuntimeError as exc:
        lines = [line.strip() for line in str(exc).splitlines() if "size mismatch" in line]
        reason = lines[0] if lines else first_line(exc)
        raise ModelError(f"{what}: {reason.rstrip('.')}.", "Build the network that was trained.") from exc
