"""What ``model:`` may be: an ONNX file, an MLflow URI, or a PyTorch model."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autopilot.errors import ModelError
from autopilot.spec.context import Context
from autopilot.spec.problem import TorchSource
from autopilot.spec.source import KeyPath, nearest, short

_URI = re.compile(r"(?:models|runs):/+[^/\s].*")
WEIGHTS = (".safetensors", ".pt", ".pth")
TORCHSCRIPT = frozenset({".torchscript", ".ptl", ".jit"})
_AT: KeyPath = ("model",)
_CODE = "model: {code: model.py:build, weights: model.safetensors}"


class ModelParser(Context):
    """The part of a spec under ``model:``."""

    def model(self, raw: Any) -> Path | str | TorchSource:
        """The ONNX file, an MLflow URI as text, or a PyTorch model's files.

        Raises:
            SpecError: a file that is missing, or text that names none.
            ModelError: TorchScript, or weights without the code that they belong to.
        """
        if isinstance(raw, Mapping):
            return self.torch_code(raw)
        if not isinstance(raw, str) or not raw:
            raise self.error(
                _AT, f"model should be a path to an .onnx file, not {short(raw)}", "Write model: model.onnx."
            )
        if raw.startswith(("models:", "runs:")):
            if not _URI.fullmatch(raw):
                raise self.error(
                    _AT, f"model {short(raw)} is no MLflow URI", "Write models:/NAME@ALIAS or runs:/RUN/PATH."
                )
            return raw
        path = self.file(_AT, raw)
        suffix = path.suffix.lower()
        if suffix in TORCHSCRIPT or (suffix in WEIGHTS and is_torchscript(path)):
            raise self.torchscript(raw)
        if suffix in WEIGHTS:
            what = f"model is {short(raw)}: weights of PyTorch without the code that they belong to"
            raise ModelError(
                f"{self.source.where(_AT)}: {what}.",
                f"Name a function that builds the network: {_CODE}; or save it with torch.export.save as .pt2.",
            )
        return TorchSource(program=path) if suffix == ".pt2" else path

    def torch_code(self, raw: Mapping[str, Any]) -> TorchSource:
        """``{code, weights}``, both there, and a ``student`` for distillation where there is one."""
        keys = ("code", "weights", "student")
        for key in raw:
            if key not in keys:
                raise self.error((*_AT, key), f"unknown key 'model.{key}'", nearest(key, keys))
        for key in keys[: 3 if "student" in raw else 2]:
            value = raw.get(key)
            if not isinstance(value, str) or not value:
                what = f"model.{key} is missing" if value is None else f"model.{key} should be text, not {short(value)}"
                raise self.error((*_AT, key), what, f"Write {_CODE}.")
        weights = self.file((*_AT, "weights"), raw["weights"])
        if weights.suffix.lower() in TORCHSCRIPT or is_torchscript(weights):
            raise self.torchscript(raw["weights"])
        if weights.suffix.lower() not in WEIGHTS:
            message = f"model.weights: {short(raw['weights'])} is none of {', '.join(WEIGHTS)}"
            raise self.error((*_AT, "weights"), message, "Save them with safetensors.torch.save_file.")
        student = self.hook((*_AT, "student"), raw["student"]) if "student" in raw else None
        return TorchSource(code=self.hook((*_AT, "code"), raw["code"]), weights=weights, student=student)

    def torchscript(self, raw: str) -> ModelError:
        return ModelError(
            f"{self.source.where(_AT)}: {short(raw)} is TorchScript, which PyTorch has retired and this program"
            " does not take.",
            f"Save the module with torch.export.save(torch.export.export(...), 'model.pt2'), or write {_CODE}.",
        )


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive: a zip that holds code beside its tensors."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False
    return any(n.endswith("/constants.pkl") for n in names) and any("/code/" in n for n in names)
