"""Removing units from an ONNX model, or putting a mask on them; see ``_units``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from autopilot.techniques._units import Block, Cut, Graph, NotUnits, Resize

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

    from autopilot.contracts import Array

# Ends of a Slice that mean "to the very end" lie far above any size.
_NO_SIZE = 2**31


def mask_name(number: int) -> str:
    """What the mask of the block with this number is called."""
    return f"unit_mask_{number}"


def masked(graph: Graph, blocks: Sequence[Block], masks: Sequence[Array]) -> ModelProto:
    """A copy whose readers take their inputs times a stored mask, float32, shape (width,), one a block."""
    from onnx import helper

    out = _copy(graph.model)
    nodes = list(out.graph.node)
    before: dict[int, NodeProto] = {}
    for number, (block, mask) in enumerate(zip(blocks, masks, strict=True)):
        name = mask_name(number)
        store(out, name, mask.astype(graph.stored[nodes[block.reader].input[1]].dtype))
        before[block.reader] = helper.make_node("Mul", [block.hidden, name], [f"{name}_applied"], name=f"{name}_mul")
        nodes[block.reader].input[0] = f"{name}_applied"
    del out.graph.node[:]
    for index, node in enumerate(nodes):
        out.graph.node.extend([before[index], node] if index in before else [node])
    return out


def cut(graph: Graph, blocks: Sequence[Block], kept: Sequence[Array]) -> ModelProto:
    """A copy with only the ``kept`` units of each block, int64 indices in ascending order.

    Raises:
        NotUnits: a shape that doesn't follow the number of units.
    """
    knife = _Knife(graph)
    for block, units in zip(blocks, kept, strict=True):
        if len(units) < block.units:
            knife.apply(block, units)
    return knife.finish()


def store(model: ModelProto, name: str, value: Array) -> None:
    """Put ``value`` under ``name`` among the stored tensors, in place of one of that name."""
    from onnx import numpy_helper

    tensor = numpy_helper.from_array(np.ascontiguousarray(value), name)
    for found in model.graph.initializer:
        if found.name == name:
            found.CopyFrom(tensor)
            return
    model.graph.initializer.append(tensor)


def store_for(model: ModelProto, node: NodeProto, index: int, value: Array) -> None:
    """Make ``value`` the stored input ``index`` of ``node``; other nodes that read the old one keep it."""
    name = node.input[index]
    readers = sum(list(n.input).count(name) + _inner_names(n).count(name) for n in model.graph.node)
    if readers > 1 or name in {o.name for o in model.graph.output}:
        taken = {t.name for t in model.graph.initializer} | {o for n in model.graph.node for o in n.output}
        node.input[index] = name = next(
            f"{name}_own_{i}" for i in range(len(taken) + 1) if f"{name}_own_{i}" not in taken
        )
    store(model, name, value)


def _copy(model: ModelProto) -> ModelProto:
    out = type(model)()
    out.CopyFrom(model)
    del out.graph.value_info[:]
    return out


class _Knife:
    """Collects new stored tensors, one for each place that reads a changed one, and new Concat nodes."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.model = _copy(graph.model)
        self.values: dict[str, Array] = {}
        self.own: dict[tuple[int, int], str] = {}
        self.joins: dict[int, list[NodeProto]] = {}
        self.names = {t.name for t in self.model.graph.initializer} | set(graph.makers)

    def apply(self, block: Block, kept: Array) -> None:
        for piece in block.cuts:
            self._cut(piece, block.units, kept)
        for resize in block.resizes:
            self._resize(resize, block.units, len(kept))

    def finish(self) -> ModelProto:
        for name, value in self.values.items():
            store(self.model, name, value)
        nodes = list(self.model.graph.node)
        del self.model.graph.node[:]
        for number, node in enumerate(nodes):
            self.model.graph.node.extend([*self.joins.get(number, []), node])
        used = {i for n in self.model.graph.node for i in n.input} | self.graph.outputs
        used |= {i for n in self.model.graph.node for i in _inner_names(n)}
        stored = [t for t in self.model.graph.initializer if t.name in used]
        del self.model.graph.initializer[:]
        self.model.graph.initializer.extend(stored)
        return self.model

    def _cut(self, piece: Cut, units: int, kept: Array) -> None:
        name = self._private(piece.node, piece.index)
        value = self._value(name)
        rows = piece.at.rows(value.shape[piece.at.axis], units, kept)
        self.values[name] = np.take(value, rows, piece.at.axis)

    def _resize(self, resize: Resize, units: int, kept: int) -> None:
        given = self.model.graph.node[resize.node].input[resize.index]
        if given in self.graph.stored or given in self.values:
            name = self._private(resize.node, resize.index)
            self.values[name] = scaled(self._value(name), resize.entries, units, kept)
        elif resize.entries is not None:
            self._resize_join(resize, units, kept)

    def _resize_join(self, resize: Resize, units: int, kept: int) -> None:
        """A shape that is joined while running: its stored piece; other pieces are read from shapes and follow."""
        node = self.model.graph.node[resize.node]
        maker = self.graph.makers.get(node.input[resize.index])
        join = self.graph.node(maker) if maker is not None else None
        if join is None or join.op_type != "Concat" or resize.entries is None:
            return
        (entry,) = resize.entries
        for index, piece in enumerate(join.input):
            length = self.graph.shape(piece)[0]
            if entry < length and piece in self.graph.stored:
                fresh = type(join)()
                fresh.CopyFrom(join)
                fresh.name, fresh.output[0] = self._fresh(join.name), self._fresh(join.output[0])
                fresh.input[index] = self._fresh(piece)
                self.values[fresh.input[index]] = scaled(self.graph.stored[piece], (entry,), units, kept)
                self.joins.setdefault(resize.node, []).append(fresh)
                node.input[resize.index] = fresh.output[0]
            if entry < length:
                return
            entry -= length

    def _private(self, number: int, index: int) -> str:
        """The name of a stored input that only this place reads; others keep the tensor as it was."""
        if (number, index) not in self.own:
            node = self.model.graph.node[number]
            name = node.input[index]
            if len(self.graph.users[name]) > 1 or name in self.graph.outputs:
                fresh = self._fresh(name)
                self.values[fresh] = self.graph.stored[name]
                node.input[index] = name = fresh
            self.own[number, index] = name
        return self.own[number, index]

    def _value(self, name: str) -> Array:
        return self.values[name] if name in self.values else self.graph.stored[name]

    def _fresh(self, name: str) -> str:
        found, count = f"{name}_kept", 1
        while found in self.names:
            count += 1
            found = f"{name}_kept_{count}"
        self.names.add(found)
        return found


def scaled(value: Array, entries: tuple[int, ...] | None, units: int, kept: int) -> Array:
    """Sizes that are a multiple of the number of units, for fewer; 0, -1 and open ends stay.

    Raises:
        NotUnits: a size that is no multiple.
    """
    out: Array = value.copy()
    flat = out.reshape(-1)
    for entry in range(flat.size) if entries is None else entries:
        size = int(flat[entry])
        if size in (0, -1) or abs(size) >= _NO_SIZE or (entries is not None and size == 1):
            continue
        if size % units:
            raise NotUnits(f"a size of {size} is no multiple of {units} units")
        flat[entry] = size // units * kept
    return flat.reshape(value.shape)


def _inner_names(node: Any) -> list[str]:
    from autopilot.model.graph import graphs, subgraphs

    return [i for g in subgraphs(node) for inner in graphs(g) for n in inner.node for i in n.input]
