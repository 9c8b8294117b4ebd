"""Pruning of transformers: smaller behind the same interface, whoever exported them, and what comes after it works."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch", reason="the extra is missing: pip install -c constraints.txt -e '.[torch]'")

from autopilot import plugins  # noqa: E402
from autopilot.contracts import BuildContext  # noqa: E402
from autopilot.errors import Unsupported  # noqa: E402
from autopilot.recipe import Recipe, Step, params_of  # noqa: E402
from autopilot.techniques import _onnx  # noqa: E402
from autopilot.techniques._smoke import check_built  # noqa: E402
from autopilot.techniques._units_cut import cut, masked  # noqa: E402
from autopilot.techniques._units_fit import Fit, refit  # noqa: E402
from autopilot.techniques._units_run import Session, graph_of  # noqa: E402
from autopilot.techniques._units_trace import find_blocks  # noqa: E402
from autopilot.torch_model import from_onnx  # noqa: E402
from autopilot.torch_model.quiet import quiet  # noqa: E402
from tests import models, torch_files  # noqa: E402
from tests import torch_nets as nets  # noqa: E402

pytestmark = pytest.mark.integration

TECHNIQUE = plugins.techniques()["prune_heads"]
QUICK = {"cost": "multiplications", "round_to": 8, "keep": 0.6, "samples": 128}
RNG = np.random.default_rng(0)
N = 48
INPUTS: dict[str, dict[str, Any]] = {
    "Encoder": {"ids": RNG.integers(0, 40, (N, 6)), "mask": (RNG.random((N, 6)) < 0.8) | (np.arange(6) == 0)},
    "Patches": {"image": RNG.standard_normal((N, 1, 8, 8)).astype(np.float32)},
    "Layers": {"x": RNG.standard_normal((N, 6, 5)).astype(np.float32)},
    "Attending": {"x": RNG.standard_normal((N, 6, 5)).astype(np.float32)},
}
INPUTS["Encoder"]["mask"] = INPUTS["Encoder"]["mask"].astype(np.int64)
# Heads and their width, neurons: in the order of the graph.
BLOCKS = {
    "Encoder": [(True, 2, 8), (False, 32, 1)],
    "Patches": [(True, 4, 4), (False, 64, 1)],
    "Layers": [(True, 4, 4), (False, 32, 1)] * 2,
    "Attending": [(True, 4, 4)],
}


def exported(name: str, folder: Path) -> Path:
    """One of the networks as an ONNX file with a free batch."""
    feed = {k: v[:4] for k, v in INPUTS[name].items()}
    return torch_files.exported(getattr(nets, name), feed, folder / "source.onnx")


def context(name: str, folder: Path, **changes: Any) -> BuildContext:
    """What a build gives: samples without labels."""
    split = models.Samples(INPUTS[name], N)
    given: dict[str, Any] = {"calibration": split, "scratch": folder, "threads": 1, "metric_is_classification": True}
    return BuildContext(**(given | {"train": split} | changes))


def build(source: Path, folder: Path, use: BuildContext, **params: Any) -> Path:
    """Apply the technique; the file it wrote."""
    defaults = {name: domain.default for name, domain in TECHNIQUE.parameters.items()}
    folder.mkdir()
    TECHNIQUE.apply(source, folder, defaults | QUICK | params, use)
    return folder / "model.onnx"


def weights(path: Path) -> int:
    """The number of stored values."""
    return sum(int(np.prod(t.dims)) for t in onnx.load(path).graph.initializer)


def first_output(path: Path, feed: dict[str, Any]) -> Any:
    model = onnx.load(path)
    return Session(model, [model.graph.output[0].name], 1).run(feed)[0]


@pytest.mark.parametrize("name", INPUTS)
def test_blocks_are_found_and_masking_is_cutting(name: str, tmp_path: Path) -> None:
    """In each way that torch exports attention the heads are seen, and removing any is the same as silencing them."""
    feed = INPUTS[name]
    model = _onnx.prepare_for_quantization(onnx.load(exported(name, tmp_path)))
    graph = graph_of(model, {k: v[:1] for k, v in feed.items()}, 1)
    blocks = find_blocks(graph)
    output = [model.graph.output[0].name]

    assert [(b.is_attention, b.units, b.inner) for b in blocks] == BLOCKS[name]
    for seed in range(3):
        rng = np.random.default_rng(seed)
        kept = [np.sort(rng.choice(b.units, rng.integers(1, b.units + 1), replace=False)) for b in blocks]
        masks = [np.repeat(np.isin(np.arange(b.units), k), b.inner) for b, k in zip(blocks, kept, strict=True)]
        expected = Session(masked(graph, blocks, masks), output, 1).run(feed)[0]
        np.testing.assert_allclose(Session(cut(graph, blocks, kept), output, 1).run(feed)[0], expected, atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("dynamo", [True, False])
def test_free_lengths_stay_free(dynamo: bool, tmp_path: Path) -> None:
    """Shapes that either exporter leaves to run time follow, for any number of samples and tokens."""
    ids = torch.arange(14).reshape(2, 7)
    path = tmp_path / "model.onnx"
    free: dict[str, Any] = {"dynamic_axes": {"ids": {0: "n", 1: "length"}}, "opset_version": 13}
    if dynamo:
        free = {"dynamic_shapes": {"ids": {0: torch.export.Dim("n"), 1: torch.export.Dim("length")}}, "verbose": False}
    with quiet():
        torch.onnx.export(nets.seeded(nets.AnyLength), (ids,), str(path), input_names=["ids"], dynamo=dynamo, **free)
    model = _onnx.prepare_for_quantization(_onnx.load(path))
    graph = graph_of(model, {"ids": ids[:1].numpy()}, 1)
    blocks = find_blocks(graph)
    kept = [np.array([0, 2]), np.arange(3, 30)]
    masks = [np.repeat(np.isin(np.arange(b.units), k), b.inner) for b, k in zip(blocks, kept, strict=True)]

    pruned, silenced = cut(graph, blocks, kept), masked(graph, blocks, masks)

    assert [(b.is_attention, b.units, b.inner) for b in blocks] == [(True, 4, 4), (False, 32, 1)]
    output = [model.graph.output[0].name]
    for shape in ((1, 7), (3, 5), (2, 12)):
        feed = {"ids": RNG.integers(0, 40, shape)}
        expected = Session(silenced, output, 1).run(feed)[0]
        np.testing.assert_allclose(Session(pruned, output, 1).run(feed)[0], expected, atol=1e-5)


@pytest.mark.parametrize("name", INPUTS)
def test_pruned_model_is_smaller_and_usable(name: str, tmp_path: Path) -> None:
    """Fewer weights, the same interface for any batch, and a torch module again."""
    source, use = exported(name, tmp_path), context(name, tmp_path)

    built = build(source, tmp_path / "built", use)

    check_built(source, built, use)
    assert first_output(built, INPUTS[name]).shape == first_output(source, INPUTS[name]).shape
    assert weights(built) < weights(source) or name == "Layers"  # whose two layers shared their weights
    assert from_onnx(built).module is not None


@pytest.mark.parametrize("name", ["Encoder", "Patches"])
def test_refit_brings_answers_nearer(name: str, tmp_path: Path) -> None:
    """On the samples that it saw, what is left then says more of what the whole model said."""
    source, use = exported(name, tmp_path), context(name, tmp_path)
    whole = first_output(source, INPUTS[name])

    built = {how: build(source, tmp_path / how, use, refit=how) for how in ("none", "weights")}

    away = {how: float(np.square(first_output(path, INPUTS[name]) - whole).mean()) for how, path in built.items()}
    assert away["weights"] < 0.5 * away["none"]


def test_refit_keeps_every_block_at_least_as_good(tmp_path: Path) -> None:
    """In least squares on the fitting data, also where layers share their weights in the file."""
    feeds = [{k: v[i : i + 1] for k, v in INPUTS["Layers"].items()} for i in range(16)]
    graph = graph_of(_onnx.prepare_for_quantization(onnx.load(exported("Layers", tmp_path))), feeds[0], 1)
    blocks = find_blocks(graph)
    kept = [np.arange(b.units // 2) for b in blocks]
    rows = [[np.ones(6, np.float32)] * len(feeds) for _ in blocks]

    told = refit(graph, blocks, kept, cut(graph, blocks, kept), Fit(feeds, rows, False, 1))

    assert len(told) == len(blocks)
    assert all(after <= before for before, after in told)
    assert any(after < 0.9 * before for before, after in told)


def test_parts_are_pruned_alone(tmp_path: Path) -> None:
    """Heads alone leave the neurons, neurons alone the heads."""
    source, use = exported("Patches", tmp_path), context("Patches", tmp_path)

    for part, name, axis in (("heads", "up.bias", 0), ("neurons", "qkv.bias", 0)):
        built = onnx.load(build(source, tmp_path / part, use, parts=part))
        (kept,) = (t for t in built.graph.initializer if t.name == name)
        assert kept.dims[axis] == {"up.bias": 64, "qkv.bias": 48}[name]


def test_cost_can_be_measured(tmp_path: Path) -> None:
    """Milliseconds of ONNX Runtime take the place of multiplications, whatever they are."""
    source, use = exported("Patches", tmp_path), context("Patches", tmp_path)

    check_built(source, build(source, tmp_path / "built", use, cost="milliseconds", keep=0.2), use)


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("classes", [True, False])
def test_labels_are_optional(labelled: bool, classes: bool, tmp_path: Path) -> None:
    """Without labels, and for answers that are no classes, the model's own answers tell what matters."""
    split = models.Samples(INPUTS["Patches"], N, labels=np.arange(N) % 4 if labelled else None)
    use = context("Patches", tmp_path, train=None, calibration=split, metric_is_classification=classes)
    source = exported("Patches", tmp_path)

    assert weights(build(source, tmp_path / "built", use)) < weights(source)


@pytest.mark.parametrize("name", ["Encoder", "Patches"])
def test_fusion_and_int8_follow(name: str, tmp_path: Path) -> None:
    """What runs after it in a recipe takes the pruned model: attention is fused, products become integer ones."""
    source, use = exported(name, tmp_path), context(name, tmp_path)
    built = build(source, tmp_path / "built", use)

    for follower in ("fuse", "dynamic_int8"):
        technique = plugins.techniques()[follower]
        folder = tmp_path / follower
        folder.mkdir()
        technique.apply(built, folder, {k: d.default for k, d in technique.parameters.items()}, use)
        check_built(source, folder / "model.onnx", use)
        built = folder / "model.onnx"

    assert any("Integer" in n.op_type or "DynamicQuantize" in n.op_type for n in onnx.load(built).graph.node)


def test_models_without_blocks_are_refused(tmp_path: Path) -> None:
    """The reason names what was looked for."""
    source = models.write(models.cnn(), tmp_path / "cnn.onnx")
    use = replace(context("Patches", tmp_path), train=models.split_for(models.cnn(), 32))

    with pytest.raises(Unsupported, match="no attention heads or feed-forward neurons"):
        build(source, tmp_path / "built", use)


@pytest.mark.parametrize(
    ("changes", "reason"), [({"train": None, "calibration": None}, "takes samples"), ({}, "removes nothing")]
)
def test_what_cannot_be_pruned_is_refused_by_type(changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    """No samples, or steps so large that nothing can be removed."""
    use = context("Layers", tmp_path, **changes)

    with pytest.raises(Unsupported, match=reason):
        build(exported("Layers", tmp_path), tmp_path / "built", use, parts="neurons", round_to=32)


def test_it_comes_before_quantization_and_is_asked_for() -> None:
    """Off unless a space names it; refused after a change of precision."""
    assert not TECHNIQUE.on_by_default
    assert TECHNIQUE.refuses(Recipe((Step("dynamic_int8", params_of({})),)), {})
