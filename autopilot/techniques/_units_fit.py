"""Least squares after units were removed: what is left is made to say what the whole block said.

Blocks are fitted from the first to the last, each to what it receives from those before (as Kwon et al. 2022 tune
their masks), so that later blocks mend what earlier ones lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from autopilot.techniques._units import Block, Graph, reading_matrix
from autopilot.techniques._units_cut import store
from autopilot.techniques._units_run import Session, rows

if TYPE_CHECKING:
    from onnx import ModelProto

    from autopilot.contracts import Array

# Ridge towards the old weights, as a share of the inputs' mean square.
_DAMPING = 1e-2
# Rows that are multiplied at once: few enough for float32 sums, many enough that adding them up costs nothing.
_ROWS = 2048


@dataclass(frozen=True, slots=True)
class Ends:
    """A reading layer's tensors: ``out`` after its bias, ``bias`` stored or empty, ``skip`` what is added or empty."""

    out: str
    bias: str
    skip: str


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
        blocks = lambda a: a.reshape(count, inner, count, inner).sum((1, 3))  # noqa: E731
        products = blocks(self.inputs[:used, :used] * (weights @ weights.T))
        aims = (self.errors[:used] * weights).sum(1).reshape(count, inner).sum(1)
        damping = _DAMPING * max(float(np.diag(products).mean()), 1e-12)
        factors = np.linalg.solve(products + damping * np.eye(count), aims)
        change = np.zeros_like(self.errors)
        change[:used] = np.repeat(factors, inner)[:, None] * weights
        return change if self.after(change) <= self.before else np.zeros_like(change)


def refit(
    graph: Graph,
    blocks: Sequence[Block],
    student: ModelProto,
    *,
    feeds: Iterable[Mapping[str, Array]],
    weights: Sequence[Sequence[Array]],
    by_unit: bool,
    threads: int,
) -> list[tuple[float, float]]:
    """Refit the readers of ``student``, cut from ``graph``, in place; squared errors before and after, a pair a block.

    ``feeds`` are gone through once a block; ``weights``: for each block a float32 array a request, shape (rows,).
    ``by_unit``: one factor a unit, not the whole matrix.
    """
    told = []
    for block, heavy in zip(blocks, weights, strict=True):
        end = ends(graph, block)
        layer = _Layer.of(student, graph, block, end)
        normal = _normal(graph, student, end, layer, feeds, heavy, threads)
        change = normal.solved_by_unit(layer.weight, block.inner) if by_unit else normal.solved()
        told.append((normal.before, normal.after(change)))
        layer.add(student, change)
    return told


@dataclass(frozen=True, slots=True)
class _Layer:
    """The student's reading layer; ``weight``: float64, shape (inputs, outputs)."""

    hidden: str
    name: str
    turned: bool
    weight: Array
    bias: str

    @classmethod
    def of(cls, student: ModelProto, graph: Graph, block: Block, end: Ends) -> _Layer:
        from onnx import numpy_helper

        output = graph.node(block.reader).output[0]
        node = next(n for n in student.graph.node if output in n.output)
        turned = reading_matrix(graph, graph.node(block.reader)) == (block.width, 1)
        stored = next(t for t in student.graph.initializer if t.name == node.input[1])
        value = numpy_helper.to_array(stored).astype(np.float64)
        return cls(node.input[0], node.input[1], turned, value.T if turned else value, end.bias)

    def add(self, student: ModelProto, change: Array) -> None:
        """Store weights and bias with ``change`` added, in the type that they have."""
        from onnx import numpy_helper

        weight = self.weight + change[: len(self.weight)]
        stored = {
            t.name: numpy_helper.to_array(t) for t in student.graph.initializer if t.name in (self.name, self.bias)
        }
        store(student, self.name, (weight.T if self.turned else weight).astype(stored[self.name].dtype))
        if self.bias:
            bias = stored[self.bias]
            store(student, self.bias, (bias + change[-1]).astype(bias.dtype))


def _normal(
    graph: Graph,
    student: ModelProto,
    end: Ends,
    layer: _Layer,
    feeds: Iterable[Mapping[str, Array]],
    weights: Sequence[Array],
    threads: int,
) -> Normal:
    """What is missing in the student's answer, on what it is given now; what it adds to the answer counts too."""
    more = [end.skip] if end.skip else []
    teacher = Session(graph.model, [end.out, *more], threads, optimize=True)
    pupil = Session(student, [layer.hidden, end.out, *more], threads, optimize=True)
    width = len(layer.weight) + bool(layer.bias)
    normal = Normal(np.zeros((width, width)), np.zeros((width, layer.weight.shape[1])), 0.0)
    waiting: list[tuple[Array, Array]] = []
    for feed, weight in zip(feeds, weights, strict=True):
        (told, *had), (x, y, *has) = rows(teacher, feed), rows(pupil, feed)
        error = told - y + (had[0] - has[0] if end.skip else 0.0)
        heavy = np.flatnonzero(weight > 0)
        scale = np.sqrt(weight[heavy])[:, None]
        x = np.concatenate([x, np.ones((len(x), 1), x.dtype)], 1) if layer.bias else x
        waiting.append((x[heavy] * scale, error[heavy] * scale))
        if sum(len(w[0]) for w in waiting) >= _ROWS:
            normal.take(waiting)
    normal.take(waiting)
    return normal
