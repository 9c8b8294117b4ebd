"""Least squares after units were removed: what is left is made to say what the whole block said.

Blocks are fitted from the first to the last, each to what it receives from those before (as Kwon et al. 2022 tune
their masks), so that later blocks mend what earlier ones lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from autopilot.techniques._units import Block, Graph, reading_matrix
from autopilot.techniques._units_cut import store_for
from autopilot.techniques._units_run import Session, rows

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

    from autopilot.contracts import Array

# Ridge towards the old weights, as a share of the inputs' mean square.
_DAMPING = 1e-2
# Rows for each input of the widest layer: 8 told the sums of all inputs well enough, 16 gave no better answers.
_ROWS_AN_INPUT = 8
# Rows that are multiplied at once: few enough for float32 sums, many enough that adding them up costs nothing.
_ROWS = 2048


@dataclass(frozen=True, slots=True)
class Ends:
    """A reading layer's tensors: ``out`` after its bias, ``bias`` stored or empty, ``skip`` what is added or empty.

    ``columns``: which of its own outputs are left, where they are another block's units.
    """

    out: str
    bias: str
    skip: str
    columns: Array | None = None


def requests_needed(graph: Graph, blocks: Sequence[Block]) -> int:
    """How many requests hold enough rows to fit every block."""
    return max(math.ceil(_ROWS_AN_INPUT * b.width / max(1, prod(graph.shape(b.hidden)[:-1]))) for b in blocks)


def ends(graph: Graph, block: Block) -> Ends:
    """Where the block's answer comes out."""
    node = graph.node(block.reader)
    out, bias = node.output[0], ""
    width = graph.shape(out)[-1]
    if node.op_type == "Gemm" and len(node.input) > 2:
        bias = node.input[2]
    other, after = _added(graph, out)
    if not bias and other in graph.stored and graph.stored[other].shape == (width,):
        out, bias = after, other
        other, after = _added(graph, out)
    if bias and (bias not in graph.stored or graph.stored[bias].shape != (width,)):
        bias = ""
    skip = other if other in graph.shapes and graph.shape(other) == graph.shape(out) else ""
    return Ends(out, bias, skip)


def _added(graph: Graph, name: str) -> tuple[str, str]:
    """What the only user of ``name`` adds to it, and the sum; empty where it is something else."""
    users = graph.users.get(name, [])
    node = graph.node(users[0]) if len(users) == 1 else None
    if node is None or node.op_type != "Add" or name in graph.outputs:
        return "", ""
    return next((i for i in node.input if i != name), ""), node.output[0]


@dataclass(slots=True)
class Normal:
    """Normal equations of a change to a layer: ``inputs`` x 'x and ``errors`` x 'e, weighted; ``before``: e 'e."""

    inputs: Array
    errors: Array
    before: float

    def take(self, waiting: list[tuple[Array, Array]]) -> None:
        """Add the rows in ``waiting``, inputs with errors, which is empty then."""
        if not waiting:
            return
        x, error = (np.concatenate(part) for part in zip(*waiting, strict=True))
        waiting.clear()
        self.inputs += x.T @ x
        self.errors += x.T @ error
        self.before += float((error.astype(np.float64) ** 2).sum())

    def after(self, change: Array) -> float:
        """The squared error once ``change``, shape (inputs, outputs), is added to the weights."""
        return float(self.before - 2 * (change * self.errors).sum() + (change * (self.inputs @ change)).sum())

    def solved(self) -> Array:
        """The change that minimises the squared error and, damped, itself; nothing where that is no better."""
        damping = _DAMPING * max(float(np.diag(self.inputs).mean()), 1e-12)
        change: Array = np.linalg.solve(self.inputs + damping * np.eye(len(self.inputs)), self.errors)
        return change if self.after(change) <= self.before else np.zeros_like(change)

    def solved_by_unit(self, weights: Array, inner: int) -> Array:
        """As ``solved``, with one factor a unit of ``inner`` inputs: the tuned masks of the paper."""
        count = len(weights) // inner
        used = count * inner
        pairs = self.inputs[:used, :used] * (weights @ weights.T)
        products = pairs.reshape(count, inner, count, inner).sum((1, 3))
        aims = (self.errors[:used] * weights).sum(1).reshape(count, inner).sum(1)
        damping = _DAMPING * max(float(np.diag(products).mean()), 1e-12)
        factors = np.linalg.solve(products + damping * np.eye(count), aims)
        change = np.zeros_like(self.errors)
        change[:used] = np.repeat(factors, inner)[:, None] * weights
        return change if self.after(change) <= self.before else np.zeros_like(change)


@dataclass(frozen=True, slots=True)
class Fit:
    """How to refit: ``feeds`` are gone through once a block, on ``threads`` cores.

    ``weights``: for each block a float32 array a request, shape (rows,). ``by_unit``: one factor a unit, not the
    whole matrix.
    """

    feeds: Iterable[Mapping[str, Array]]
    weights: Sequence[Sequence[Array]]
    by_unit: bool
    threads: int


def refit(
    graph: Graph, blocks: Sequence[Block], kept: Sequence[Array], student: ModelProto, fit: Fit
) -> list[tuple[float, float]]:
    """Refit the readers of ``student``, cut from ``graph`` to ``kept``, in place.

    Returns:
        The weighted squared errors before and after, a pair a block.
    """
    told = []
    for block, weights in zip(blocks, fit.weights, strict=True):
        columns, end = _left_of(graph, block, blocks, kept), ends(graph, block)
        end = end if columns is None else replace(end, skip="", columns=columns)
        layer = _Layer.of(student, graph, block, end)
        normal = _normal(graph, student, layer, zip(fit.feeds, weights, strict=True), fit.threads)
        change = normal.solved_by_unit(layer.weight, block.inner) if fit.by_unit else normal.solved()
        told.append((normal.before, normal.after(change)))
        layer.add(student, change, graph.stored[graph.node(block.reader).input[1]].dtype)
    return told


def _left_of(graph: Graph, block: Block, blocks: Sequence[Block], kept: Sequence[Array]) -> Array | None:
    """Which of the reader's own outputs another block has left; None where all are."""
    for other, units in zip(blocks, kept, strict=True):
        for piece in other.cuts:
            if piece.node == block.reader and piece.index == 1 and other is not block and len(units) < other.units:
                size = graph.stored[graph.node(block.reader).input[1]].shape[piece.at.axis]
                return piece.at.rows(size, other.units, units)
    return None


@dataclass(frozen=True, slots=True)
class _Layer:
    """The student's reading layer; ``weight``: float64, shape (inputs, outputs), stored ``turned`` or not.

    ``bias`` is float64, shape (outputs,), or None; input ``index`` of the node ``biased`` adds it.
    """

    end: Ends
    node: NodeProto
    biased: NodeProto
    index: int
    turned: bool
    weight: Array
    bias: Array | None

    @classmethod
    def of(cls, student: ModelProto, graph: Graph, block: Block, end: Ends) -> _Layer:
        from onnx import numpy_helper

        teacher = graph.node(block.reader)
        makers = {o: n for n in student.graph.node for o in n.output}
        node, biased = makers[teacher.output[0]], makers[end.out]
        wanted = {node.input[1], *biased.input}
        stored = {t.name: numpy_helper.to_array(t) for t in student.graph.initializer if t.name in wanted}
        weight = stored[node.input[1]].astype(np.float64)
        turned = reading_matrix(graph, teacher) == (block.width, 1)
        index = list(graph.node(graph.makers[end.out]).input).index(end.bias) if end.bias else 0
        bias = stored[biased.input[index]].astype(np.float64) if end.bias else None
        return cls(end, node, biased, index, turned, weight.T if turned else weight, bias)

    @property
    def hidden(self) -> str:
        """The tensor that the layer reads."""
        return str(self.node.input[0])

    def add(self, student: ModelProto, change: Array, dtype: np.dtype[Any]) -> None:
        """Store weights and bias with ``change`` added."""
        weight = self.weight + change[: len(self.weight)]
        store_for(student, self.node, 1, (weight.T if self.turned else weight).astype(dtype))
        if self.bias is not None:
            store_for(student, self.biased, self.index, (self.bias + change[-1]).astype(dtype))


def _normal(
    graph: Graph,
    student: ModelProto,
    layer: _Layer,
    requests: Iterable[tuple[Mapping[str, Array], Array]],
    threads: int,
) -> Normal:
    """What is missing in the student's answer, on what it is given now; what it adds to the answer counts too."""
    end = layer.end
    more = [end.skip] if end.skip else []
    teacher = Session(graph.model, [end.out, *more], threads, optimize=True)
    pupil = Session(student, [layer.hidden, end.out, *more], threads, optimize=True)
    width = len(layer.weight) + (layer.bias is not None)
    normal = Normal(np.zeros((width, width)), np.zeros((width, layer.weight.shape[1])), 0.0)
    waiting: list[tuple[Array, Array]] = []
    for feed, weight in requests:
        (told, *had), (x, y, *has) = rows(teacher, feed), rows(pupil, feed)
        error = (told if end.columns is None else told[:, end.columns]) - y + (had[0] - has[0] if end.skip else 0.0)
        heavy = np.flatnonzero(weight > 0)
        scale = np.sqrt(weight[heavy])[:, None]
        x = np.concatenate([x, np.ones((len(x), 1), x.dtype)], 1) if layer.bias is not None else x
        waiting.append((x[heavy] * scale, error[heavy] * scale))
        if sum(len(w[0]) for w in waiting) >= _ROWS:
            normal.take(waiting)
    normal.take(waiting)
    return normal
