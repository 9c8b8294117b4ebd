"""What the machine that runs the tests does by itself, read and not assumed."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

# As long as a vector of the kernels: unsigned 255 times signed 127, two of which don't fit into 16 bits.
_LENGTH = 64


@cache
def int8_products_saturate() -> bool:
    """Whether ONNX Runtime's sums of unsigned times signed 8-bit products are cut off here, as on AVX2 without VNNI.

    Wide weights spoil the answers of an int8 model there, which is why the package then prefers ``reduce_range``.
    """
    weight = numpy_helper.from_array(np.full((_LENGTH, 1), 127, np.int8), "w")
    x = helper.make_tensor_value_info("x", TensorProto.UINT8, [1, _LENGTH])
    y = helper.make_tensor_value_info("y", TensorProto.INT32, [1, 1])
    graph = helper.make_graph([helper.make_node("MatMulInteger", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {"x": np.full((1, _LENGTH), 255, np.uint8)})[0]
    return int(np.asarray(found)[0, 0]) != 255 * 127 * _LENGTH
