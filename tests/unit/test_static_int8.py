"""Static int8's pure parts: ranges from histograms, which nodes are chosen, parameters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from autopilot.cache.sealed import replacing
from autopilot.recipe import Recipe, Step
from autopilot.target import Target
from autopilot.techniques import _qdq, _static, mixed_int8, static_int8
from autopilot.techniques._divergence import divergence
from autopilot.techniques._histogram import BINS, Histogram
from autopilot.techniques._prepare import prepare_for_quantization
from autopilot.techniques._sensitivity import Group, Sensitivity, group
from tests.models import F, Weights, cnn, encoder, model_of, node, value

X86 = Target("x86_64", "", 2, 2, 0, ("avx2", "avx512_vnni"), (), "Linux", "3.11")


def histogram(*parts: np.ndarray) -> Histogram:
    """A histogram of several additions."""
    out = Histogram.empty()
    for part in parts:
        out.add(part)
    return out


def prepared(model: onnx.ModelProto) -> _static.Prepared:
    """A model as `prepare` leaves it, without ONNX Runtime's folding."""
    ready = prepare_for_quantization(model)
    weights = {t.name for t in ready.graph.initializer}
    chosen = tuple(n.name for n in ready.graph.node if _static._is_weighted(n, weights))
    return _static.Prepared(ready, "0" * 64, chosen)


def kinds(model: onnx.ModelProto, names: frozenset[str]) -> set[str]:
    """Operator types of the named nodes."""
    return {n.op_type for n in model.graph.node if n.name in names}


def test_histogram_counts_every_value_when_the_range_grows() -> None:
    """Widening merges bins and loses nothing."""
    parts = [np.random.default_rng(i).normal(0, 10.0**e, 1000) for i, e in enumerate(range(-3, 4))]

    whole = histogram(*parts)

    assert whole.counts.sum() == 7000
    assert whole.low == pytest.approx(min(p.min() for p in parts), rel=1e-6)
    assert whole.span("minmax", 0.0) == (whole.low, whole.high)


def test_histogram_is_the_same_in_any_order() -> None:
    """How samples were batched doesn't change the bins by more than rounding at their edges."""
    small, large = np.linspace(-0.5, 0.5, 1001), np.linspace(-8, 8, 1001)

    one, other = histogram(small, large), histogram(large, small)

    assert one.bound == other.bound
    assert np.abs(np.cumsum(one.counts - other.counts)).max() <= 1


@pytest.mark.parametrize("percentile", [99.0, 99.9])
def test_percentile_range_agrees_with_numpy(percentile: float) -> None:
    """Each tail loses half of what the percentile leaves out, to within two bins."""
    values = np.random.default_rng(0).normal(0.3, 1.0, 200_000).astype(np.float32)
    h = histogram(*np.array_split(values, 7))

    low, high = h.span("percentile", percentile)

    tail = (100 - percentile) / 2
    step = 2 * h.bound / BINS
    assert low == pytest.approx(np.percentile(values, tail), abs=2 * step)
    assert high == pytest.approx(np.percentile(values, 100 - tail), abs=2 * step)


def test_entropy_range_drops_an_outlier_and_keeps_the_bulk() -> None:
    """One value far out doesn't set the scale; at most one in a thousand is clipped."""
    values = np.random.default_rng(0).normal(0, 1, 100_000)
    h = histogram(np.append(values, 60.0))

    low, high = h.span("entropy", 0.0)

    assert 2.5 < high < 20
    assert np.mean((values < low) | (values > high)) <= 0.001


def test_entropy_range_keeps_values_beside_a_constant_background() -> None:
    """A background that is nine tenths of an image doesn't make clipping the rest look free."""
    rng = np.random.default_rng(0)
    values = np.where(rng.random(100_000) < 0.9, -0.8, rng.uniform(-0.8, 2.0, 100_000))

    low, high = histogram(values).span("entropy", 0.0)

    assert np.mean((values < low) | (values > high)) <= 0.001


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan, -3.0e38])
def test_histogram_is_unusable_with_values_no_int8_can_hold(bad: float) -> None:
    """Masks and NaN mark the tensor; later values don't bring it back."""
    h = histogram(np.array([1.0, bad]), np.array([1.0]))

    assert not h.usable


def test_cnn_stays_in_int8_between_its_convolutions() -> None:
    """Activations and pooling between two convolutions are quantized with them."""
    ready = prepared(cnn())

    chosen = _static.extended(ready, ready.weighted)

    assert kinds(ready.model, chosen) == {"Conv", "Relu", "MaxPool", "GlobalAveragePool", "Flatten", "Gemm"}


def test_transformer_keeps_masks_and_residuals_in_float() -> None:
    """Only the products of stored weights are chosen: an Add of -10000 would eat the whole range."""
    ready = prepared(encoder())

    chosen = _static.extended(ready, _static.choose(ready, "weighted"))

    assert kinds(ready.model, chosen) == {"MatMul", "Gemm"}
    assert len(chosen) == 7


def test_attention_scope_adds_products_of_two_activations() -> None:
    """The scores and the context of attention join, and what leads to them; the mask doesn't."""
    ready = prepared(encoder())

    chosen = _static.extended(ready, _static.choose(ready, "attention"))

    assert {"l0_scores", "l0_context"} <= chosen
    mask_add = next(n.name for n in ready.model.graph.node if "mask" in n.input)
    assert mask_add not in chosen
    assert not kinds(ready.model, chosen) & {"Softmax", "LayerNormalization"}


def test_embeddings_are_chosen_only_when_asked() -> None:
    """A Gather of a stored float table is a matter of size, and optional."""
    ready = prepared(encoder())

    assert "embed" not in _static.choose(ready, "weighted")
    assert "embed" in _static.choose(ready, "weighted", embeddings=True)
    assert "embed" in _static.choose(ready, "all")


def test_barred_nodes_are_never_chosen() -> None:
    """A node on values that no int8 can hold stays in float, and ends the chain through it."""
    ready = replace(prepared(cnn()), barred=frozenset({"conv2"}))

    chosen = _static.extended(ready, ready.weighted)

    assert kinds(ready.model, chosen) == {"Conv", "Gemm"}
    assert "conv2" not in chosen


def test_float_readers_keep_the_float_tensor() -> None:
    """The residual beside an int8 product reads what the float node gave, not its quantized copy."""
    w = Weights()
    nodes = [
        node("Tanh", ["x"], ["t"], name="tanh"),
        node("MatMul", ["t", w.normal("w", 8, 8)], ["m"], name="product"),
        node("Add", ["t", "m"], ["y"], name="residual"),
    ]
    model = model_of(nodes, [value("x", F, ["N", 8])], [value("y", F, ["N", 8])], w)
    numbers = _qdq.Numbers("uint8", "int8", per_channel=True, symmetric=False, reduce_range=False)

    out = _qdq.quantize(model, ["product"], numbers, {"t": (-1.0, 1.0), "m": (-1.0, 1.0)})

    inputs = {n.name: list(n.input) for n in out.graph.node}
    assert inputs["residual"][0] == "t"
    assert inputs["product"][0] != "t"
    assert not out.metadata_props


def test_graph_output_stays_float_when_an_int8_node_reads_it() -> None:
    """A tensor that leaves the model is not rounded because a product inside wants it quantized."""
    w = Weights()
    nodes = [
        node("Tanh", ["x"], ["t"], name="tanh"),
        node("MatMul", ["t", w.normal("w", 8, 8)], ["m"], name="product"),
    ]
    model = model_of(nodes, [value("x", F, ["N", 8])], [value("t", F, ["N", 8]), value("m", F, ["N", 8])], w)
    numbers = _qdq.Numbers("uint8", "int8", per_channel=True, symmetric=False, reduce_range=False)

    out = _qdq.quantize(model, ["product"], numbers, {"t": (-1.0, 1.0), "m": (-1.0, 1.0)})

    makers = {o: n.op_type for n in out.graph.node for o in n.output}
    assert makers["t"] == "Tanh"
    assert makers[next(n.input[0] for n in out.graph.node if n.name == "product")] == "DequantizeLinear"
    onnx.checker.check_model(out, full_check=True)


@pytest.mark.parametrize("technique", [static_int8.TECHNIQUE, mixed_int8.TECHNIQUE], ids=lambda t: t.name)
def test_preferred_parameters_are_declared_and_normal(technique: object) -> None:
    """Every preferred set is inside the domains and already in its normal form."""
    assert isinstance(technique, type(static_int8.TECHNIQUE))
    defaults = {k: d.default for k, d in technique.parameters.items()}
    for wanted in technique.prefer(X86):
        assert all(technique.parameters[k].contains(v) for k, v in wanted.items())
        full = {**defaults, **wanted}
        assert technique.normalise(full) == full


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", ("avx2", "avx512_vnni"), ("uint8", "int8", False)),
        ("x86_64", ("amx_int8", "avx2"), ("uint8", "int8", False)),
        ("x86_64", ("avx2",), ("uint8", "int8", True)),
        ("aarch64", ("asimd", "asimddp"), ("int8", "int8", False)),
    ],
)
def test_preference_follows_the_cpu(machine: str, flags: tuple[str, ...], expected: tuple[str, str, bool]) -> None:
    """U8S8 with VNNI or AMX, 7-bit weights where products saturate, S8S8 on ARM."""
    first = static_int8.prefer(replace(X86, machine=machine, cpu_flags=flags))[0]

    assert (first["activations"], first["weights"], bool(first.get("reduce_range", False))) == expected


def test_normalise_makes_equal_builds_equal() -> None:
    """Parameters without effect are fixed, those with one stay."""
    params = {k: d.default for k, d in static_int8.TECHNIQUE.parameters.items()}

    assert static_int8.normalise({**params, "percentile": 99.9}) == params
    assert static_int8.normalise({**params, "symmetric": True}) == params
    percentile = {**params, "calibration": "percentile", "percentile": 99.9}
    assert static_int8.normalise(percentile) == percentile
    assert static_int8.normalise({**params, "activations": "int8", "weights": "uint8"})["weights"] == "int8"


@pytest.mark.parametrize("module", [static_int8, mixed_int8])
def test_nothing_follows_another_change_of_precision(module: object) -> None:
    """After dynamic int8 no float weights are left."""
    technique = module.TECHNIQUE  # type: ignore[attr-defined]

    assert "dynamic_int8" in (technique.refuses(Recipe((Step("dynamic_int8"),)), {}) or "")
    assert technique.refuses(Recipe((Step("fuse"),)), {}) is None


def test_groups_are_neighbours_and_hold_every_node_once() -> None:
    """Merging keeps graph order, joins small neighbours first and stops at the limit."""
    ready = prepared(encoder(layers=3))

    merged = group(ready.model, ready.weighted, most=4)

    assert [name for names, _ in merged for name in names] == list(ready.weighted)
    assert len(merged) == 4
    assert len(group(ready.model, ready.weighted, most=100)) == len(ready.weighted)


def test_order_weighs_divergence_by_what_a_group_saves() -> None:
    """A group that hurts little but saves nothing comes before one that hurts more and saves much."""
    table = Sensitivity(10.0, (Group(("a",), 1, 0.5, 5.0), Group(("b",), 1, 0.2, -0.1), Group(("c",), 1, 0.1, 1.0)))

    assert table.order("divergence") == (0, 1, 2)
    assert table.order("divergence_per_ms") == (1, 0, 2)


def test_divergence_is_zero_for_equal_and_grows_with_the_change() -> None:
    """Logits, probabilities, single scores and regressions: all are zero for no change and order changes right."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (50, 4))
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    single = 1 / (1 + np.exp(-logits[:, :1]))
    for outputs, classification in ((logits, True), (shares, True), (single, True), (logits, False)):
        little, much = (outputs + e * (0.25 - outputs) for e in (0.01, 0.3))

        near, far = (divergence([[outputs]], [[x]], classification) for x in (little, much))

        assert divergence([[outputs]], [[outputs]], classification) == pytest.approx(0, abs=1e-12)
        assert 0 < near < far


def test_divergence_of_answers_that_are_not_finite_is_the_largest() -> None:
    """NaN never looks like a perfect match."""
    good, bad = np.ones((2, 3), np.float32), np.full((2, 3), np.nan, np.float32)

    assert divergence([[good]], [[bad]], classification=False) >= 1e9
    assert divergence([[good]], [[bad]], classification=True) >= 1e9


def test_replacing_leaves_the_old_file_when_writing_fails(tmp_path: Path) -> None:
    """A build that dies while it writes leaves neither half a file nor a temporary one."""

    def write(content: bytes, *, fails: bool) -> None:
        with replacing(path) as f:
            f.write(content)
            if fails:
                raise OSError("disk full")

    path = tmp_path / "folder" / "table.json"
    write(b"old", fails=False)

    with pytest.raises(OSError, match="disk full"):
        write(b"new", fails=True)

    assert path.read_bytes() == b"old"
    assert [p.name for p in path.parent.iterdir()] == ["table.json"]
