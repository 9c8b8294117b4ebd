"""How a changed module is rebuilt from the user's own code: its sizes as JSON, its weights as safetensors.

The code builds the module as given; a structural step made layers narrower or took blocks out. A record says what
is different, by name, and holds nothing that could run.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopilot.errors import ModelError
from autopilot.torch_model.messages import first_line

if TYPE_CHECKING:
    from torch import Tensor, nn

# Raise it when records of an earlier form can't be read.
_VERSION = 1
_TOLD = "autopilot"


def home(scratch: Path, sha256: str) -> Path:
    """Where the record of the ONNX file with this digest is: one file, so that it is whole or not there."""
    return scratch / "torch-modules" / f"{sha256}.safetensors"


def keep(module: nn.Module, path: Path) -> None:
    """Write the record of ``module`` as ``path``."""
    told = {"version": _VERSION, "modules": _described(module)}
    save(path, weights_of(module), told)


def rebuild(module: nn.Module, path: Path) -> nn.Module | None:
    """``module``, as its code builds it, changed in place into the recorded one; None where there is no record.

    Whether it answers alike is for the caller to check.

    Raises:
        ModelError: the record is damaged, or of another module.
    """
    try:
        tensors, told = load(path)
        if told["version"] != _VERSION:
            return None
        modules: Mapping[str, Any] = told["modules"]
        _drop_blocks(module, modules)
        _resize(module, modules)
        give_weights(module, tensors)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RuntimeError) as exc:
        raise ModelError(f"{path}: can't be read as a record of a module ({first_line(exc)}).") from exc
    return module.eval()


def save(path: Path, tensors: Mapping[str, Tensor], told: Mapping[str, Any]) -> None:
    """Write tensors and plain data as one file, in one step."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        save_file(dict(tensors), str(part), metadata={_TOLD: json.dumps(told)})
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What ``save`` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            told: dict[str, Any] = json.loads((file.metadata() or {})[_TOLD])
            return {name: file.get_tensor(name) for name in file.keys()}, told  # noqa: SIM118 - it is no mapping
    except (SafetensorError, KeyError) as exc:
        raise ValueError(f"{path} is damaged ({first_line(exc)})") from exc


def is_graph(module: nn.Module) -> bool:
    """Whether ``module`` was made of an ONNX file, which then says all there is to know of it."""
    from torch.fx import GraphModule

    return isinstance(module, GraphModule)


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters and buffers; tensors that are one stay one under their first name."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in module.state_dict(keep_vars=True).items():
        if id(value) not in seen:
            seen.add(id(value))
            found[name] = value.detach().contiguous().clone()
    return found


def holds(module: nn.Module, weights: Mapping[str, Tensor]) -> bool:
    """Whether ``module`` has exactly these weights, to the last bit."""
    import torch

    mine = weights_of(module)
    return mine.keys() == weights.keys() and all(torch.equal(mine[name], value) for name, value in weights.items())


def give_weights(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give ``module`` these weights, of other shapes too.

    Raises:
        KeyError: a name that the module doesn't have.
    """
    import torch
    from torch import nn

    with torch.no_grad():
        for name, value in weights.items():
            owner, _, own = name.rpartition(".")
            holder = module.get_submodule(owner)
            if (parameter := holder._parameters.get(own)) is not None:
                if parameter.shape == value.shape:
                    parameter.copy_(value)
                else:
                    holder._parameters[own] = nn.Parameter(value, requires_grad=parameter.requires_grad)
            elif own in holder._buffers:
                holder._buffers[own] = value.clone()
            else:
                raise KeyError(name)


def _described(module: nn.Module) -> dict[str, Any]:
    """Of every layer its class, the names of its children, and its plain attributes."""
    return {name: {"of": signature(m, 0), "has": _plain(m), "children": _children(m)} for name, m in _all(module)}


def _all(module: nn.Module) -> list[tuple[str, nn.Module]]:
    return list(module.named_modules())


def _children(module: nn.Module) -> list[str]:
    return [signature(child) for child in module.children()]


def signature(module: nn.Module, depth: int = 8) -> str:
    """The classes of a layer and of what it is made of, by name: equal for like blocks whatever their widths."""
    own = type(module).__name__
    if depth == 0:
        return own
    inside = ",".join(f"{name}:{signature(child, depth - 1)}" for name, child in module.named_children())
    return f"{own}({inside})" if inside else own


def _plain(module: nn.Module) -> dict[str, Any]:
    """Numbers and tuples of numbers among a layer's attributes: sizes, heads, groups."""
    found = {name: v for name, v in vars(module).items() if not name.startswith("_") and name != "training"}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in found.items() if _is_plain(v)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(isinstance(v, (int, float)) for v in value)
    return isinstance(value, (int, float))


def _drop_blocks(module: nn.Module, modules: Mapping[str, Any]) -> None:
    """Take out of lists of blocks what the record lacks; like blocks are told apart by their weights alone."""
    from torch import nn

    # The first names come first: what is inside of a block follows the names that dropping gave it.
    for name in modules:
        holder = module.get_submodule(name)
        wanted = modules[name]["children"]
        if not isinstance(holder, (nn.ModuleList, nn.Sequential)) or len(wanted) == len(holder):
            continue
        left = list(wanted)
        for index, child in reversed(list(enumerate(holder))):
            if left and signature(child) == left[-1] and index >= len(left) - 1:
                left.pop()
            else:
                del holder[index]
        if left:
            raise ValueError(f"{name or 'the module'} has other blocks")


def _resize(module: nn.Module, modules: Mapping[str, Any]) -> None:
    for name, layer in _all(module):
        told = modules[name]
        if told["of"] != signature(layer, 0):
            raise ValueError(f"{name} is a {signature(layer, 0)} where the record has a {told['of']}")
        own = _plain(layer)
        for key, value in told["has"].items():
            if own.get(key) != value:
                setattr(layer, key, tuple(value) if isinstance(value, list) else value)
