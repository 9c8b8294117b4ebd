"""Divide a tensor's channels by factors and multiply the weights that read it: the model computes the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from autopilot.model.graph import STANDARD

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

Floats = npt.NDArray[np.float32]
# What normalizes over the last axis and scales after it: inputs that hold the scale and the shift.
_NORMALIZES = {
    "LayerNormalization": (1, 2),
    "SimplifiedLayerNormalization": (1,),
    "SkipLayerNormalization": (2, 3),
    "SkipSimplifiedLayerNormalization": (2,),
}


class Rescaling:
    """One pass over a copy of ``model``; ``added`` names the Muls that were put in. Weights are copied, not shared."""

    def __init__(self, model: ModelProto) -> None:
        import onnx
        from onnx import numpy_helper

        self._model = onnx.ModelProto()
        self._model.CopyFrom(model)
        graph = self._model.graph
        self._nodes: list[NodeProto] = list(graph.node)
        self._by_name = {n.name: n for n in graph.node}
        self._stored = {t.name: t for t in graph.initializer}
        self._values: dict[str, Floats] = {}
        self._read = numpy_helper.to_array
        self._makers = {o: n for n in graph.node for o in n.output}
        self._readers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._fixed = {o.name for o in graph.output} | _read_inside(model)
        self.added: list[str] = []

    def rows(self, node: NodeProto) -> int:
        """Channels of the tensor that ``node`` multiplies: rows of its matrix."""
        return int(self._matrix(node).shape[0])

    def row_peaks(self, node: NodeProto) -> Floats:
        """Largest absolute weight of each row, float32, shape (channels,)."""
        peaks: Floats = np.abs(self._matrix(node)).max(axis=1, initial=0.0)
        return peaks

    def divide(self, tensor: str, readers: Sequence[NodeProto], factor: Floats) -> None:
        """Divide ``tensor`` by ``factor``, float32, shape (channels,), where ``readers``, all products, read it."""
        names = {n.name for n in readers}
        alone = tensor not in self._fixed and all(n.name in names for n in self._readers[tensor])
        if not (alone and self._fold(tensor, 1.0 / factor)):
            self._insert(tensor, names, 1.0 / factor)
        for name in names:
            node = self._by_name[name]
            value = self._value(node.input[1])
            self._replace(node, 1, value * (factor if _transposed(node) else factor[:, None]))

    def done(self) -> ModelProto:
        """The model, without the weights that nothing reads any more."""
        from onnx import numpy_helper

        graph = self._model.graph
        del graph.node[:]
        graph.node.extend(self._nodes)
        used = {i for n in graph.node for i in n.input} | self._fixed
        kept = [t for t in graph.initializer if t.name in used]
        made = [numpy_helper.from_array(np.ascontiguousarray(v), n) for n, v in self._values.items() if n in used]
        del graph.initializer[:]
        graph.initializer.extend([*kept, *made])
        return self._model

    def _fold(self, tensor: str, factor: Floats) -> bool:
        """Multiply ``tensor`` by ``factor`` in the stored vectors that make it; False where they can't take it."""
        steps = self._steps(tensor, factor.size)
        for node, index in steps or ():
            self._replace(node, index, self._value(node.input[index]) * factor)
        return steps is not None

    def _steps(self, tensor: str, size: int) -> list[tuple[NodeProto, int]] | None:
        node = self._makers.get(tensor)
        if node is None:
            return None
        if node.op_type in _NORMALIZES and node.output[0] == tensor and _over_last_axis(node):
            inputs = [i for i in _NORMALIZES[node.op_type] if i < len(node.input) and node.input[i]]
            fits = all(self._is_vector(node.input[i], size) for i in inputs)
            return [(node, i) for i in inputs] if fits else None
        if node.op_type not in ("Mul", "Add") or node.domain not in STANDARD:
            return None
        vectors = [i for i, name in enumerate(node.input) if self._is_vector(name, size)]
        if len(vectors) != 1:
            return None
        if node.op_type == "Mul":
            return [(node, vectors[0])]
        other = node.input[1 - vectors[0]]
        if other in self._fixed or len(self._readers[other]) > 1:
            return None
        before = self._steps(other, size)
        return None if before is None else [*before, (node, vectors[0])]

    def _is_vector(self, name: str, size: int) -> bool:
        """True for a stored float32 vector; a scalar may be part of a pattern that runtimes fuse (GELU's 0.5)."""
        stored = self._stored.get(name)
        if stored is None:
            return False
        return stored.data_type == stored.FLOAT and list(stored.dims) == [size] and size > 1

    def _insert(self, tensor: str, names: set[str], factor: Floats) -> None:
        from onnx import helper

        output, weight = f"{tensor}_smooth", f"{tensor}_smooth_factor"
        node = helper.make_node("Mul", [tensor, weight], [output], name=f"{tensor}_smoothing")
        self._values[weight] = factor
        first = min(i for i, n in enumerate(self._nodes) if n.name in names)
        self._nodes.insert(first, node)
        self.added.append(node.name)
        for name in names:
            self._by_name[name].input[0] = output

    def _replace(self, node: NodeProto, index: int, value: Floats) -> None:
        """Give ``node`` a stored input of its own with this value."""
        name = f"{node.input[index]}_of_{node.name}"
        if node.input[index] in self._values:
            name = node.input[index]
        self._values[name] = value.astype(np.float32)
        node.input[index] = name

    def _matrix(self, node: NodeProto) -> Floats:
        """The stored matrix with a row a channel."""
        value = self._value(node.input[1])
        return value.T if _transposed(node) else value

    def _value(self, name: str) -> Floats:
        if name in self._values:
            return self._values[name]
        value: Floats = self._read(self._stored[name])
        return value


def _transposed(node: NodeProto) -> bool:
    return any(a.name == "transB" and bool(a.i) for a in node.attribute)


def _over_last_axis(node: NodeProto) -> bool:
    return all(a.i == -1 for a in node.attribute if a.name == "axis")


def _read_inside(model: ModelProto) -> set[str]:
    """Names that subgraphs read: such tensors must keep their values."""
    from autopilot.model.graph import graphs

    inner = list(graphs(model.graph))[1:]
    return {i for g in inner for n in g.node for i in n.input} | {o.name for g in inner for o in g.output}
