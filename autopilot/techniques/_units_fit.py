"""Least squares after units were removed: what is left is made to say what the whole block said.

Blocks are fitted from the first to the last, each to what it receives from those before (as Kwon et al. 2022 tune
their masks), so that later blocks mend what earlier ones lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from autopilot.techniques._units import Block, Graph, reading_matrix
from autopilot.techniques._units_cut import store_for
from autopilot.techniques._units_run import Session, rows

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

    from autopilot.contracts import Array

# Ridge towards the old weights, as shares of the inputs' mean square; held-out requests say which.
_DAMPINGS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
_HELD_OUT = 4  # every fourth request
# Rows for each input of a layer: with fewer a regression begins to fit noise, more take time.
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


def enough(weights: Sequence[Array], width: int) -> Sequence[Array]:
    """The first of the requests' row weights, float32, that together weigh as much as fits ``width`` inputs; or all.

    Rows of unequal weight count as fewer (Kish's effective sample size).
    """
    rows = np.cumsum([float(w.sum()) ** 2 / max(float((w**2).sum()), 1e-30) for w in weights])
    return weights[: int(np.searchsorted(rows, _ROWS_AN_INPUT * width)) + 1]


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

    def joined(self, other: Normal) -> Normal:
        """The equations of both."""
        return Normal(self.inputs + other.inputs, self.errors + other.errors, self.before + other.before)

    def solved(self, damping: float) -> Array:
        """The change that minimises the squared error and, damped, itself; nothing where that is no better."""
        ridge = damping * max(float(np.diag(self.inputs).mean()), 1e-12)
        change: Array = np.linalg.solve(self.inputs + ridge * np.eye(len(self.inputs)), self.errors)
        return change if self.after(change) <= self.before else np.zeros_like(change)

    def solved_by_unit(self, damping: float, weights: Array, inner: int) -> Array:
        """As ``solved``, with one factor a unit of ``inner`` inputs: the tuned masks of the paper."""
        count = len(weights) // inner
        used = count * inner
        pairs = self.inputs[:used, :used] * (weights @ weights.T)
        products = pairs.reshape(count, inner, count, inner).sum((1, 3))
        aims = (self.errors[:used] * weights).sum(1).reshape(count, inner).sum(1)
        ridge = damping * max(float(np.diag(products).mean()), 1e-12)
        factors = np.linalg.solve(products + ridge * np.eye(count), aims)
        change = np.zeros_like(self.errors)
        change[:used] = np.repeat(factors, inner)[:, None] * weights
        return change if self.after(change) <= self.before else np.zeros_like(change)


def fitted(fitting: Normal, held: Normal, solve: Callable[[Normal, float], Array]) -> Array:
    """The change by ``solve(equations, damping)`` on all, with the damping that serves the ``held`` ones best.

    None where every change of the ``fitting`` ones is worse for those held out than no change.
    """
    left = {damping: held.after(solve(fitting, damping)) for damping in _DAMPINGS}
    best = min(left, key=lambda damping: left[damping])
    if left[best] >= held.before:
        return np.zeros_like(fitting.errors)
    return solve(fitting.joined(held), best)


@dataclass(frozen=True, slots=True)
class Fit:
    """How to refit: ``feeds`` are gone through once a block, on ``threads`` cores.

    ``weights``: for each block a float32 array a request, shape (rows,), for as many requests as it takes.
    ``by_unit``: one factor a unit, not the whole matrix.
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
        fitting, held = _normals(graph, student, layer, zip(fit.feeds, weights, strict=False), fit.threads)
        by_unit = partial(Normal.solved_by_unit, weights=layer.weight, inner=block.inner)
        change = fitted(fitting, held, by_unit if fit.by_unit else Normal.solved)
        whole = fitting.joined(held)
        told.append((whole.before, whole.after(change)))
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


def _normals(
    graph: Graph,
    student: ModelProto,
    layer: _Layer,
    requests: Iterable[tuple[Mapping[str, Array], Array]],
    threads: int,
) -> tuple[Normal, Normal]:
    """What is missing in the student's answer, on what it is given now, for fitting and held out.

    Where the answer is added to something, what that has lost already is missing too.
    """
    more = [layer.end.skip] if layer.end.skip else []
    teacher = Session(graph.model, [layer.end.out, *more], threads, optimize=True)
    pupil = Session(student, [layer.hidden, layer.end.out, *more], threads, optimize=True)
    width = len(layer.weight) + (layer.bias is not None)
    parts = [Normal(np.zeros((width, width)), np.zeros((width, layer.weight.shape[1])), 0.0) for _ in range(2)]
    waiting: tuple[list[tuple[Array, Array]], ...] = ([], [])
    for number, (feed, weight) in enumerate(requests):
        (said, *had), (x, y, *has) = rows(teacher, feed), rows(pupil, feed)
        error = (said if layer.end.columns is None else said[:, layer.end.columns]) - y
        error = error + had[0] - has[0] if more else error
        heavy = np.flatnonzero(weight > 0)
        scale = np.sqrt(weight[heavy])[:, None]
        x = np.concatenate([x, np.ones((len(x), 1), x.dtype)], 1) if layer.bias is not None else x
        part = int(number % _HELD_OUT == _HELD_OUT - 1)
        waiting[part].append((x[heavy] * scale, error[heavy] * scale))
        if sum(len(w[0]) for w in waiting[part]) >= _ROWS:
            parts[part].take(waiting[part])
    for normal, rest in zip(parts, waiting, strict=True):
        normal.take(rest)
    return parts[0], parts[1]
