"""An ONNX file read for conversion: functions inlined, constants found, shapes inferred."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from autopilot.errors import Unsupported
from autopilot.model.files import external_files, parse
from autopilot.model.graph import STANDARD, opset

if TYPE_CHECKING:
    import onnx_ir as ir

Array = npt.NDArray[Any]


class CannotConvert(Exception):
    """One node that the converter can't take; the message says why."""


class Node:
    """A node of the ONNX graph with its settings, whether they stand in attributes or in constant inputs.

    ``opset`` is the version of ONNX's operators that the model was written for.
    """

    def __init__(self, node: ir.Node, version: int, constants: dict[str, Array]) -> None:
        self.raw = node
        self.op = node.op_type
        self.opset = version
        self.inputs = [v.name or "" if v is not None else "" for v in node.inputs]
        self.outputs = [v.name or "" for v in node.outputs]
        self._constants = constants

    @property
    def name(self) -> str:
        """How to call the node in a message."""
        return self.raw.name or (self.outputs[0] if self.outputs else self.op)

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute's value; sequences as lists."""
        found = self.raw.attributes.get(name)
        if found is None or found.value is None:
            return default
        value = found.value
        return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value

    def has(self, index: int) -> bool:
        """Whether the optional input is given."""
        return index < len(self.inputs) and bool(self.inputs[index])

    def constant(self, index: int) -> Array | None:
        """The value of an input that is known beforehand, else None."""
        return self._constants.get(self.inputs[index]) if self.has(index) else None

    def numbers(self, index: int, attribute: str) -> list[Any] | None:
        """Numbers that stand in an attribute (older opsets) or a constant input; None where neither is given.

        Raises:
            CannotConvert: the input is computed while running.
        """
        given = self.attribute(attribute)
        if given is not None:
            return given if isinstance(given, list) else [given]
        if not self.has(index):
            return None
        value = self.constant(index)
        if value is None:
            raise CannotConvert(f"its {attribute} are computed while running")
        return [v.item() for v in value.reshape(-1)]

    def shape(self, index: int) -> tuple[int | None, ...] | None:
        """The shape of an input as far as it is known: None for a free dimension."""
        value = self.raw.inputs[index]
        if value is None or value.shape is None:
            return None
        return tuple(d if isinstance(d, int) else None for d in value.shape)

    def rank(self, index: int) -> int:
        """The number of an input's dimensions.

        Raises:
            CannotConvert: shape inference couldn't tell.
        """
        shape = self.shape(index)
        if shape is None:
            raise CannotConvert("the rank of its input is unknown")
        return len(shape)


class OnnxGraph:
    """The nodes in order, with constants by name; ``inputs`` and ``outputs`` are the graph's."""

    def __init__(self, path: Path) -> None:
        """Read ``path``; external data only from inside its folder.

        Raises:
            ModelError: not an ONNX model, or external data that is missing or elsewhere.
            Unsupported: it holds values that are no tensors.
        """
        import onnx_ir as ir

        self.model = _prepared(path)
        graph = self.model.graph
        self.opset = int(self.model.opset_imports.get("", 0))
        self.inputs = [v.name or "" for v in graph.inputs if v.name not in graph.initializers]
        self.outputs = [v.name or "" for v in graph.outputs]
        self.constants: dict[str, Array] = {}
        for name, value in graph.initializers.items():
            if value.const_value is not None and value.dtype not in (None, ir.DataType.STRING):
                self.constants[name] = value.const_value.numpy()
        self.nodes = [Node(n, self.opset, self.constants) for n in graph]

    def evaluate(self, node: Node) -> bool:
        """Compute ``node`` now where all of its inputs are constants; whether it was."""
        used = [i for i in node.inputs if i]
        if node.op in _RANDOM or not all(i in self.constants for i in used) or _has_subgraph(node):
            return False
        import onnx_ir as ir
        from onnx.reference import ReferenceEvaluator

        proto = ir.serde.serialize_node(node.raw)
        try:
            results = ReferenceEvaluator(proto, opsets={"": self.opset}).run(None, {i: self.constants[i] for i in used})
        except Exception as exc:  # the reference raises whatever its numpy code does; the node is converted instead
            raise CannotConvert(f"its constant value can't be computed ({type(exc).__name__})") from exc
        for name, value in zip(node.outputs, results, strict=False):
            if name:
                self.constants[name] = np.asarray(value)
        return True


_RANDOM = frozenset({"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Dropout"})


def _has_subgraph(node: Node) -> bool:
    import onnx_ir as ir

    return any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.raw.attributes.values())


def _prepared(path: Path) -> ir.Model:
    import onnx_ir as ir
    from onnx import checker, shape_inference
    from onnx.external_data_helper import load_external_data_for_model
    from onnx_ir.passes import common

    proto = parse(path)
    if external_files(proto, path):
        load_external_data_for_model(proto, str(path.parent))
    if opset(proto) and not any(e.domain not in STANDARD for e in proto.opset_import):
        del proto.graph.value_info[:]  # stale shapes stop the inference below
        # Without shapes some operators are refused, each with its reason.
        with contextlib.suppress(shape_inference.InferenceError, checker.ValidationError, ValueError):
            proto = shape_inference.infer_shapes(proto, data_prop=True)
    try:
        model = ir.from_proto(proto)
    except ir.serde.SerdeError as exc:  # maps, which classifiers of scikit-learn answer with
        raise Unsupported("this ONNX model can't become a PyTorch one: it has values that are no tensors.") from exc
    for step in (
        common.InlinePass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.RemoveUnusedNodesPass(),
        common.TopologicalSortPass(),
    ):
        step(model)
    return model
