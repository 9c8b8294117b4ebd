"""Finding, masking and removing units of an ONNX model; no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from autopilot.techniques import _onnx
from autopilot.techniques._units import Block, Graph, NotUnits, Position, regrouped
from autopilot.techniques._units_cut import cut, masked, store_for
from autopilot.techniques._units_run import Session, graph_of
from autopilot.techniques._units_trace import find_blocks
from tests import models
from tests.models import Weights, node

TEXTS = {
    "input_ids": np.random.default_rng(0).integers(0, 40, (3, 6)),
    "attention_mask": np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0]]),
}
# Sums of the same numbers without the zeros among them.
SAME = 1e-5


def found(model: ModelProto, feed: dict[str, Any]) -> tuple[Graph, list[Block]]:
    """A model, read with one real request, and its blocks."""
    graph = graph_of(_onnx.prepare_for_quantization(model), feed, 1)
    return graph, find_blocks(graph)


def masks(blocks: Sequence[Block], kept: Sequence[Any]) -> list[Any]:
    """What keeps those units and silences the others."""
    return [np.repeat(np.isin(np.arange(b.units), k), b.inner) for b, k in zip(blocks, kept, strict=True)]


def answers(model: ModelProto, feed: dict[str, Any]) -> Any:
    """The first output."""
    return Session(model, [model.graph.output[0].name], 1).run(feed)[0]


def chain(*, packed: bool = False, exposed: bool = False) -> ModelProto:
    """x [N,6] through layers of 8, 8 and 3 neurons, the first two's biases stored once.

    ``packed``: the second layer's result is split in halves that are multiplied. ``exposed``: the first hidden
    layer is an output too.
    """
    w = Weights(3)
    w.put("halves", np.array([4, 4], np.int64))
    w.put("shared", np.linspace(-1, 1, 8, dtype=np.float32))
    nodes = [
        node("Gemm", ["x", w.normal("w1", 6, 8), "shared"], ["h1"]), node("Relu", ["h1"], ["r1"]),
        node("Gemm", ["r1", w.normal("w2", 8, 8), "shared"], ["h2"]),
    ]  # fmt: skip
    if packed:
        nodes += [node("Split", ["h2", "halves"], ["a", "b"], axis=1), node("Mul", ["a", "b"], ["r2"])]
    else:
        nodes += [node("Tanh", ["h2"], ["r2"])]
    nodes += [node("MatMul", ["r2", w.normal("w3", 4 if packed else 8, 3)], ["y"])]
    outputs = [models.value("y", models.F, ["N", 3])] + ([models.value("r1", models.F, ["N", 8])] if exposed else [])
    return models.model_of(nodes, [models.value("x", models.F, ["N", 6])], outputs, w)


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_cut_model_answers_as_the_masked_one(data: st.DataObject) -> None:
    """Whichever units are kept, removing the others is the same as silencing them, for any number of samples."""
    graph, blocks = found(models.encoder(2), {k: v[:1] for k, v in TEXTS.items()})
    kept = [np.array(sorted(data.draw(st.sets(st.integers(0, b.units - 1), min_size=1)))) for b in blocks]

    pruned = cut(graph, blocks, kept)

    expected = answers(masked(graph, blocks, masks(blocks, kept)), TEXTS)
    np.testing.assert_allclose(answers(pruned, TEXTS), expected, rtol=SAME, atol=SAME)


def test_heads_and_neurons_are_found() -> None:
    """An encoder's layer holds one block of heads and one of neurons, and nothing else is taken for one."""
    _, blocks = found(models.encoder(2), {k: v[:1] for k, v in TEXTS.items()})

    assert [(b.is_attention, b.units, b.inner) for b in blocks] == [(True, 2, 16), (False, 64, 1)] * 2


def test_neighbouring_layers_are_cut_on_both_sides_and_shared_weights_stay_apart() -> None:
    """A layer may lose inputs and outputs; a bias that two layers share becomes two."""
    feed = {"x": np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)}
    graph, blocks = found(chain(), feed)
    kept = [np.array([0, 3, 5]), np.array([1, 2, 6, 7])]

    pruned = cut(graph, blocks, kept)

    assert [b.units for b in blocks] == [8, 8]
    np.testing.assert_allclose(
        answers(pruned, feed), answers(masked(graph, blocks, masks(blocks, kept)), feed), rtol=SAME, atol=SAME
    )
    sizes = {t.name: list(t.dims) for t in pruned.graph.initializer}
    assert sizes["w2"] == [3, 4]
    assert sorted(s for s in sizes.values() if len(s) == 1) == [[3], [4]]


def test_units_that_one_layer_holds_twice_are_cut_in_both_halves() -> None:
    """A Split's sizes follow the number of units, and the layer before loses a row in each half."""
    feed = {"x": np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)}
    graph, blocks = found(chain(packed=True), feed)
    kept = [np.arange(8), np.array([0, 3])]

    pruned = cut(graph, blocks, kept)

    assert [b.units for b in blocks] == [8, 4]
    np.testing.assert_allclose(
        answers(pruned, feed), answers(masked(graph, blocks, masks(blocks, kept)), feed), rtol=SAME, atol=SAME
    )


def test_what_others_see_is_no_block() -> None:
    """Neurons that are an output of the model as well can't be removed."""
    feed = {"x": np.zeros((1, 6), np.float32)}

    _, blocks = found(chain(exposed=True), feed)

    assert [b.hidden for b in blocks] == ["r2"]


@pytest.mark.parametrize("name", ["cnn", "detector", "recurrent", "upsampler", "qdq"])
def test_other_models_have_no_heads(name: str) -> None:
    """No attention is seen where there is none."""
    model = models.MAKERS[name]()
    split = models.split_for(model, 2)

    graph, blocks = found(model, split.feed([0, 1] if split.batched and name == "cnn" else [0]))

    assert not any(b.is_attention for b in blocks), graph.shapes


@given(outer=st.integers(1, 4), units=st.integers(2, 6), inner=st.integers(1, 4), before=st.integers(1, 3))
def test_regrouping_there_and_back_is_the_same_place(outer: int, units: int, inner: int, before: int) -> None:
    """Units keep their place when a dimension is split and joined again."""
    joined, apart = (before, outer * units * inner), (before, outer, units, inner)

    there = regrouped(joined, apart, Position(1, inner), units)

    assert apart[there.axis] == units
    assert there.inner == 1
    assert regrouped(apart, joined, there, units) == Position(1, inner)


def test_units_spread_over_dimensions_tell_the_width_to_try() -> None:
    """Single channels of an attention's result are spread over heads and their width: try heads of that width."""
    with pytest.raises(NotUnits) as caught:
        regrouped((2, 5, 12), (2, 5, 3, 4), Position(2, 1), 12)

    assert caught.value.inner == 4


def test_storing_for_one_reader_leaves_the_others_alone() -> None:
    """A tensor that two nodes read is replaced for one of them only."""
    model = chain()
    second = model.graph.node[2]

    store_for(model, second, 2, np.zeros(8, np.float32))

    assert second.input[2] != "shared"
    assert model.graph.node[0].input[2] == "shared"
