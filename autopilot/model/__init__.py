"""What formats a trained model comes in, and what can be known of it without running it."""

from autopilot.model.host_nodes import shapes_apart
from autopilot.model.inspect import ModelInfo, TensorInfo, copy_model, inspect
from autopilot.model.int8 import int8_audit
from autopilot.model.kernels import int8_audit_of_kernels

__all__ = ["ModelInfo", "TensorInfo", "copy_model", "inspect", "int8_audit", "int8_audit_of_kernels", "shapes_apart"]
