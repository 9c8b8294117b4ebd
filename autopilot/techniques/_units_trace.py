"""Walking back from a layer to what makes its inputs, a rule an operator; see ``_units``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from autopilot.techniques._units import Block, Cut, Graph, NotUnits, Position, Resize, attribute, regrouped
from autopilot.techniques._units import reading_matrix as reading
from autopilot.techniques._units_cut import scaled

if TYPE_CHECKING:
    from onnx import NodeProto

_ELEMENTWISE = (
    "Abs", "Add", "And", "Cast", "Ceil", "Celu", "Clip", "Cos", "Div", "Dropout", "Elu", "Equal", "Erf", "Exp", "Floor",
    "Gelu", "Greater", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Less", "Log", "Max",
    "Min", "Mish", "Mul", "Neg", "Not", "Or", "Pow", "Reciprocal", "Relu", "Selu", "Sigmoid", "Sign", "Sin", "Softplus",
    "Softsign", "Sqrt", "Sub", "Sum", "Tanh", "Where",
)  # fmt: skip
_UNCHANGED_BY_ONE = frozenset({"Cast", "Clip", "Dropout"})  # further inputs are settings


class Walk:
    """One attempt: everything that holds the units which ``reader`` takes ``inner`` at a time."""

    def __init__(self, graph: Graph, units: int) -> None:
        self.graph = graph
        self.units = units
        self.at: dict[str, Position] = {}
        self.nodes: set[int] = set()
        self.cuts: list[Cut] = []
        self.resizes: list[Resize] = []
        self.products: list[int] = []

    def carry(self, name: str, at: Position) -> None:
        """``name`` holds the units at ``at``: go on with what makes it.

        Raises:
            NotUnits: it can't be cut there.
        """
        if name in self.at:
            if self.at[name] != at:
                raise NotUnits(f"{name!r} holds the units in two ways")
            return
        size = self.graph.shape(name)[at.axis]
        if size % (self.units * at.inner) or name not in self.graph.makers:
            raise NotUnits(f"{name!r} is an input of the model, or holds other units")
        self.at[name] = at
        number = self.graph.makers[name]
        node = self.graph.node(number)
        rule = RULES.get(node.op_type) if not node.domain else None
        if rule is None:
            raise NotUnits(f"{node.op_type} is in the way")
        self.nodes.add(number)
        rule(self, number, node, at)

    def operand(self, number: int, index: int, at: Position) -> None:
        """Input ``index`` of a node holds the units: cut it where it is stored, else follow it."""
        name = self.graph.node(number).input[index]
        if name not in self.graph.stored:
            self.carry(name, at)
        elif (cut := Cut(number, index, at)) not in self.cuts:
            self.cuts.append(cut)

    def shape(self, node: NodeProto, index: int = 0) -> tuple[int, ...]:
        """The shape of a node's input."""
        return self.graph.shape(node.input[index])

    def broadcast(self, number: int, index: int, at: Position, rank: int) -> bool:
        """Follow an input that is broadcast to ``rank`` dimensions; whether it holds the units at all."""
        shape = self.shape(self.graph.node(number), index)
        axis = at.axis - (rank - len(shape))
        if axis < 0 or shape[axis] == 1:
            return False
        self.operand(number, index, Position(axis, at.inner))
        return True

    def check_sizes(self) -> None:
        """Try the stored sizes that would change.

        Raises:
            NotUnits: one is no multiple of the units.
        """
        for resize in self.resizes:
            size = self.graph.stored.get(self.graph.node(resize.node).input[resize.index])
            if size is not None:
                scaled(size, resize.entries, self.units, 1)

    def closed(self, reader: int) -> bool:
        """Whether nothing else sees the units; shapes that are read while running follow by themselves."""
        inside = self.nodes | {reader}
        for number in self.nodes:
            for name in filter(None, self.graph.node(number).output):
                users = [u for u in self.graph.users.get(name, []) if self.graph.node(u).op_type != "Shape"]
                if name in self.graph.outputs or any(u not in inside for u in users):
                    return False
                if users and name not in self.at:
                    return False
        return True


Rule = Callable[[Walk, int, Any, Position], None]


def _elementwise(walk: Walk, number: int, node: NodeProto, at: Position) -> None:
    rank = len(walk.graph.shape(node.output[0]))
    count = 1 if node.op_type in _UNCHANGED_BY_ONE else len(node.input)
    holding = [walk.broadcast(number, i, at, rank) for i in range(count)]  # all of them, not up to the first
    if not any(holding):
        raise NotUnits(f"the units begin at {node.op_type}")


def _along(walk: Walk, number: int, node: NodeProto, at: Position) -> None:
    """Softmax and layer norms: over other dimensions than that of the units."""
    rank = len(walk.shape(node))
    axis = attribute(node, "axis", -1)
    if (axis + rank if axis < 0 else axis) <= at.axis:
        raise NotUnits(f"{node.op_type} runs over the units")
    walk.operand(number, 0, at)


def _transpose(walk: Walk, number: int, node: NodeProto, at: Position) -> None:
    perm = attribute(node, "perm") or list(reversed(range(len(walk.shape(node)))))
    walk.operand(number, 0, Position(perm[at.axis], at.inner))


def _reshape(walk: Walk, number: int, node: NodeProto, at: Position) -> None:
    """Reshape, and its like without a shape input."""
    before, after = walk.graph.shape(node.output[0]), walk.shape(node)
    if node.op_type == "Reshape":
        walk.resizes.append(Resize(number, 1, (at.axis,)))
    walk.operand(number, 0, regrouped(before, after, at, walk.units))


def _expand(walk: Walk, number: int, node: NodeProto, at: Position) -> None:
    rank = len(walk.graph.shape(node.output[0]))
    entries = walk.shape(node, 1)[0]
    if at.axis >= rank - entries:
        walk.resizes.append(Resize(number, 1, (at.axis - (rank - entries),)))
    walk.broadcast(number, 0, at, rank)


def _split(walk: Walk, number: int, node: NodeProto, at: Position) -> None:
    rank = len(walk.shape(node))
    if attribute(node, "axis", 0) % rank == at.axis:
        if attribute(node, "split") is not None:
            raise NotUnits("a Split of an old opset runs over the units")
        if len(node.input) > 1 and node.input[1]:
            walk.resizes.append(Resize(number, 1, None))
    walk.operand(number, 0, at)


def _slice(walk: Walk, number: int, node: NodeProto, at: Position) -> None:
    stored = walk.graph.stored
    if len(node.input) < 4 or any(i not in stored for i in node.input[1:] if i):
        raise NotUnits("a Slice whose ends are computed while running")
    rank, size = len(walk.shape(node)), walk.shape(node)[at.axis]
    for entry, axis in enumerate(int(a) % rank for a in stored[node.input[3]].reshape(-1)):
        if axis == at.axis:
            whole = walk.units * at.inner
            start, end = (int(stored[node.input[i]].reshape(-1)[entry]) for i in (1, 2))
            step = int(stored[node.input[4]].reshape(-1)[entry]) if len(node.input) > 4 and node.input[4] else 1
            if step != 1 or start % whole or (abs(end) < size and end % whole):
                raise NotUnits("a Slice cuts through the units")
            walk.resizes += [Resize(number, 1, (entry,)), Resize(number, 2, (entry,))]
    walk.operand(number, 0, at)


def _gather(walk: Walk, number: int, node: NodeProto, at: Position) -> None:
    """Gather along another dimension: how q, k and v are taken out of one tensor."""
    rank, taken = len(walk.shape(node)), len(walk.shape(node, 1))
    axis = attribute(node, "axis", 0) % rank
    if axis <= at.axis < axis + taken:
        raise NotUnits("a Gather picks units")
    walk.operand(number, 0, Position(at.axis if at.axis < axis else at.axis - taken + 1, at.inner))


def _concat(walk: Walk, number: int, node: NodeProto, at: Position) -> None:
    if attribute(node, "axis") % len(walk.shape(node)) == at.axis:
        raise NotUnits("a Concat joins the units to others")
    for index in range(len(node.input)):
        walk.operand(number, index, at)


def _matmul(walk: Walk, number: int, node: NodeProto, at: Position) -> None:
    """The layer that makes the units, or a product of two tensors that hold them side by side."""
    rank = len(walk.graph.shape(node.output[0]))
    if reading(walk.graph, node):
        if at.axis == rank - 1:
            walk.cuts.append(Cut(number, 1, Position(1, at.inner)))
        else:
            walk.operand(number, 0, at)
        return
    if len(walk.shape(node)) < 2 or len(walk.shape(node, 1)) < 2:
        raise NotUnits("a product with a vector")
    if at.axis >= rank - 2:
        raise NotUnits("the units are multiplied by one another")
    walk.products.append(number)
    holding = [walk.broadcast(number, i, at, rank) for i in range(2)]
    if not any(holding):
        raise NotUnits("the units begin at a product")


def _gemm(walk: Walk, number: int, node: NodeProto, at: Position) -> None:
    if at.axis != 1 or not reading(walk.graph, node):
        raise NotUnits("a Gemm of two computed matrices, or over the units")
    walk.cuts.append(Cut(number, 1, Position(0 if attribute(node, "transB", 0) else 1, at.inner)))
    if len(node.input) > 2 and node.input[2]:
        walk.broadcast(number, 2, at, 2)


RULES: dict[str, Rule] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape),
    **dict.fromkeys(("Softmax", "LogSoftmax", "LayerNormalization"), _along),
    "Concat": _concat,
    "Expand": _expand,
    "Gather": _gather,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Slice": _slice,
    "Split": _split,
    "Transpose": _transpose,
}


def find_blocks(graph: Graph) -> list[Block]:
    """All blocks of at least two units, in graph order."""
    found = [_block(graph, number) for number in range(len(graph.model.graph.node))]
    return [b for b in found if b is not None]


def _block(graph: Graph, reader: int) -> Block | None:
    """The block that ends at node number ``reader``: of single channels, else of units of several."""
    node = graph.node(reader)
    matrix = reading(graph, node)
    if matrix is None or node.input[0] not in graph.shapes:
        return None
    inner: int | None = 1
    for _ in range(3):  # one attempt, one with the width that it found, and one more for nested groups
        if not inner or matrix[0] % inner or matrix[0] // inner < 2:
            return None
        walk = Walk(graph, matrix[0] // inner)
        try:
            walk.carry(node.input[0], Position(len(graph.shape(node.input[0])) - 1, inner))
            walk.check_sizes()
        except NotUnits as exc:
            inner = exc.inner * inner if exc.inner else None
            continue
        if not walk.closed(reader):
            return None
        cuts = (*walk.cuts, Cut(reader, 1, Position(matrix[1], inner)))
        resizes = tuple(dict.fromkeys(walk.resizes))
        return Block(reader, node.input[0], walk.units, inner, tuple(walk.products), cuts, resizes)
    return None
