"""A model that is named on the command line, as a spec's ``model:`` would."""

from __future__ import annotations

from pathlib import Path

from autopilot.errors import BadInput, ModelError
from autopilot.spec.parse_model import TORCHSCRIPT, WEIGHTS, is_torchscript
from autopilot.spec.problem import TorchSource

_WITH_CODE = "model.py:build --weights model.safetensors"


def given_model(model: str, weights: Path | None, *, order: str) -> Path | TorchSource:
    """The file or folder called ``model``, or the PyTorch model that it and ``weights`` name, with absolute paths.

    ``order``: the command that was meant, for messages.

    Raises:
        BadInput: a file that is missing.
        ModelError: TorchScript, code without weights, or weights without code.
    """
    path, colon, function = model.rpartition(":")
    if colon and path.endswith(".py"):
        return _code(Path(path), function, weights)
    if model.endswith(".py"):
        raise ModelError(f"{model}: names no function that builds the network.", f"Write {_WITH_CODE}.")
    file = Path(model)
    if not file.exists():
        raise BadInput(f"the model {model} does not exist.", f"The order is: {order}.")
    suffix = file.suffix.lower()
    if suffix in TORCHSCRIPT or (suffix in (*WEIGHTS, ".pt2") and is_torchscript(file)):
        raise _torchscript(file)
    if suffix in WEIGHTS:
        what = f"{model}: holds weights of PyTorch without the code that they belong to."
        raise ModelError(what, f"Name the function that builds the network: {_WITH_CODE.split()[0]} --weights {model}.")
    if weights is not None:
        raise ModelError(f"--weights goes with code only, and {model} is a whole model.", f"Write {_WITH_CODE}.")
    return TorchSource(program=file.absolute()) if suffix == ".pt2" else file


def _code(path: Path, function: str, weights: Path | None) -> TorchSource:
    if not function.isidentifier():
        raise ModelError(f"{path}:{function} names no function.", f"Write {_WITH_CODE}.")
    if weights is None:
        raise ModelError(f"{path}:{function} builds a network without its weights.", f"Write {_WITH_CODE}.")
    for file in (path, weights):
        if not file.is_file():
            raise BadInput(f"{file} does not exist.", f"Write {_WITH_CODE}.")
    if weights.suffix.lower() in TORCHSCRIPT or is_torchscript(weights):
        raise _torchscript(weights)
    if weights.suffix.lower() not in WEIGHTS:
        raise ModelError(f"--weights {weights} is none of {', '.join(WEIGHTS)}.", f"Write {_WITH_CODE}.")
    return TorchSource(code=f"{path.absolute()}:{function}", weights=weights.absolute())


def _torchscript(file: Path) -> ModelError:
    return ModelError(
        f"{file}: is TorchScript, which PyTorch has retired and this program does not take.",
        "Save the module with torch.export.save(torch.export.export(module, args), 'model.pt2'), or give its code and"
        f" weights: {_WITH_CODE}.",
    )
