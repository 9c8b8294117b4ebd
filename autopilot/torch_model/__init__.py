"""PyTorch models: loading them, writing them as ONNX, and making one of an ONNX file.

torch is an extra, and is imported inside the functions that need it.
"""

from autopilot.torch_model.available import INSTALL, missing
from autopilot.torch_model.convert import Converted, from_onnx, unsupported
from autopilot.torch_model.export import Exported, export_onnx
from autopilot.torch_model.load import load_source

__all__ = ["INSTALL", "Converted", "Exported", "export_onnx", "from_onnx", "load_source", "missing", "unsupported"]
