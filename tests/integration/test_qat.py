"""Quantization-aware training: the kernels of static int8, answers nearer to the float model's, honest refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

torch = pytest.importorskip("torch", reason="the extra is missing: pip install -c constraints.txt -e '.[torch]'")

from autopilot import plugins  # noqa: E402
from autopilot.contracts import BuildContext  # noqa: E402
from autopilot.errors import Unsupported  # noqa: E402
from autopilot.model.int8 import int8_audit  # noqa: E402
from autopilot.recipe import Recipe, Step  # noqa: E402
from autopilot.techniques import qat  # noqa: E402
from tests import models  # noqa: E402

pytestmark = pytest.mark.integration

TECHNIQUES = plugins.techniques()


def context(model: onnx.ModelProto, folder: Path, n: int = 256, **changes: Any) -> BuildContext:
    """What a build gives, with as many unlabelled training samples."""
    split = labelless(model, n)
    given: dict[str, Any] = {"calibration": split, "scratch": folder / "scratch", "threads": 1, "train": split}
    return BuildContext(**(given | {"metric_is_classification": True} | changes))


def labelless(model: onnx.ModelProto, n: int) -> Any:
    """Samples for ``model`` without labels."""

    class Unlabelled(models.Samples):
        labels = None

    return Unlabelled(models.samples(model, n), n)


def build(technique: str, source: Path, folder: Path, use: BuildContext, **params: Any) -> Path:
    """Apply a technique with its defaults and ``params``; the file it wrote."""
    folder.mkdir()
    used = TECHNIQUES[technique]
    used.apply(source, folder, {n: d.default for n, d in used.parameters.items()} | params, use)
    return folder / "model.onnx"


def answers(path: Path, feed: Any) -> Any:
    """The first output of ``path``."""
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, dict(feed))[0]


def fused(path: Path, folder: Path) -> Any:
    """The audit of what ONNX Runtime makes of ``path``."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return int8_audit(path, folder / "optimized.onnx")


def spoiled(model: onnx.ModelProto) -> onnx.ModelProto:
    """``models.cnn`` with a channel made 120 times larger and its reader's weights as much smaller.

    It computes the same, Relu and MaxPool being homogeneous; in one scale a tensor the other channels
    are left with about two of 127 steps.
    """
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor).copy()
        if tensor.name in ("w1", "b1"):
            value[0] *= 120.0
        elif tensor.name == "w2":
            value[:, 0] /= 120.0
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    return model


@pytest.mark.parametrize("maker", [models.cnn, models.encoder])
def test_same_products_run_in_int8_as_of_static_int8(tmp_path: Path, maker: Any) -> None:
    """Every product that claims int8 is fused, and there are as many as static_int8 makes."""
    model = maker()
    source, use = models.write(model, tmp_path / "source.onnx"), context(model, tmp_path)

    trained = fused(build("qat", source, tmp_path / "qat", use, epochs=1), tmp_path)
    static = fused(build("static_int8", source, tmp_path / "static", use), tmp_path)

    assert trained.executed == trained.claimed == static.executed > 0
    assert not trained.is_fake


def test_training_mends_what_static_int8_spoils(tmp_path: Path) -> None:
    """Where one scale a tensor is too coarse, answers that are trained to be near are nearer on unseen samples."""
    model = spoiled(models.cnn())
    source = models.write(model, tmp_path / "source.onnx")
    use = context(model, tmp_path, metric_is_classification=False)  # the squared distance is trained
    feed = models.samples(model, 128, seed=7)
    aim = answers(source, feed)

    trained = build("qat", source, tmp_path / "q", use, epochs=30, per_channel=False, learning_rate=3e-3)
    static = build("static_int8", source, tmp_path / "s", use, per_channel=False)

    off = {path: float(((answers(path, feed) - aim) ** 2).mean() / aim.var()) for path in (static, trained)}
    assert off[static] > 0.05, "the construction is not bad enough to tell anything"
    assert off[trained] < off[static]


def test_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    """A built file is named by its content."""
    model = models.cnn()
    source, use = models.write(model, tmp_path / "source.onnx"), context(model, tmp_path)

    first, second = (build("qat", source, tmp_path / turn, use, epochs=2).read_bytes() for turn in "ab")

    assert first == second


def test_refuses_what_it_cant_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No training data, integers already, no torch: each with its reason."""
    model = models.cnn()
    source, use = models.write(model, tmp_path / "source.onnx"), context(model, tmp_path)
    with pytest.raises(Unsupported, match="no training data"):
        build("qat", source, tmp_path / "a", context(model, tmp_path, train=None))

    integers = models.qdq()
    with pytest.raises(Unsupported):
        build("qat", models.write(integers, tmp_path / "qdq.onnx"), tmp_path / "b", context(integers, tmp_path))

    monkeypatch.setattr(qat, "missing", lambda *names: "torch is not installed.")
    with pytest.raises(Unsupported, match="torch is not installed"):
        build("qat", source, tmp_path / "c", use)


def test_refuses_a_training_that_changed_nothing(tmp_path: Path) -> None:
    """One sample makes no batch, no epoch no step: what would be written is static_int8's file under another name."""
    model = models.cnn()
    source = models.write(model, tmp_path / "source.onnx")

    for samples, epochs in ((1, 2), (None, 0)):
        use = context(model, tmp_path) if samples is None else context(model, tmp_path, n=samples)
        with pytest.raises(Unsupported, match=r"changed no weight and no range \(0 steps\)"):
            build("qat", source, tmp_path / f"q{epochs}", use, epochs=epochs)


def test_follows_no_other_change_of_precision() -> None:
    """Integer weights can't be trained; nor can anything else quantize what it wrote."""
    assert qat.refuses(Recipe((Step("static_int8"),)), {}) is not None
    assert TECHNIQUES["static_int8"].refuses(Recipe((Step("qat"),)), {}) is not None
    assert qat.refuses(Recipe((Step("prune_channels"),)), {}) is None
