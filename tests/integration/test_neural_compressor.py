"""int8 by neural-compressor: files that ONNX Runtime runs in integers, with any batch; refusals with their reasons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

pytest.importorskip("torchao", reason="the extra is missing: pip install -c constraints.txt -e '.[torch,inc]'")
pytest.importorskip("torch", reason="the extra is missing: pip install -c constraints.txt -e '.[torch,inc]'")

from autopilot.contracts import BuildContext
from autopilot.errors import Unsupported
from autopilot.model.int8 import int8_audit
from autopilot.profile import Int8Audit
from autopilot.techniques import neural_compressor
from autopilot.techniques._smoke import check_built
from tests import models, torch_files, torch_nets
from tests.machine import int8_products_saturate

pytestmark = pytest.mark.integration


def context(samples: Any, folder: Path) -> BuildContext:
    """What a build gives where the spec names no training data."""
    return BuildContext(samples, folder / "scratch", 1)


def build(source: Path, folder: Path, use: BuildContext, **params: Any) -> Path:
    """Apply the technique with its defaults and ``params``; the file it wrote."""
    folder.mkdir()
    technique = neural_compressor.TECHNIQUE
    technique.apply(source, folder, {n: d.default for n, d in technique.parameters.items()} | params, use)
    return folder / "model.onnx"


def answers(path: Path, feed: Any) -> Any:
    """The first output of ``path``, from integer kernels but where the processor cuts their sums off.

    There the same products are made in float, of the values that the file has.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    if int8_products_saturate():
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, dict(feed))[0]


def audit(path: Path, folder: Path) -> Int8Audit:
    """What ONNX Runtime makes of ``path``."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return int8_audit(path, folder / "optimized.onnx")


def close(path: Path, source: Path, feed: Any) -> bool:
    """Whether no answer moved by more than a tenth of their size."""
    expected, got = answers(source, feed), answers(path, feed)
    return bool(np.abs(expected - got).max() < 0.1 * np.abs(expected).max())


@pytest.mark.parametrize("observer", ["minmax", "kl"])
@pytest.mark.parametrize("maker", [models.cnn, models.encoder])
def test_products_run_in_int8_with_answers_close_to_the_source(tmp_path: Path, maker: Any, observer: str) -> None:
    """What ONNX Runtime runs holds integer products; several samples at once and one alone are answered."""
    model = maker()
    source = models.write(model, tmp_path / "source.onnx")
    use = context(models.split_for(model, 64), tmp_path)

    built = build(source, tmp_path / "built", use, calibration=observer)

    check_built(source, built, use)
    assert audit(built, tmp_path).executed > 0
    assert not audit(built, tmp_path).is_fake
    for n in (1, 7):
        assert close(built, source, models.samples(model, n, seed=5))


def _samples(kind: type) -> models.Samples:
    generator = np.random.default_rng(0)
    if kind is torch_nets.Encoder:
        ids = generator.integers(0, 40, (32, 6))
        return models.Samples({"ids": ids, "mask": np.ones((32, 6), np.int64)}, 32)
    return models.Samples({"image": generator.standard_normal((32, 1, 8, 8)).astype(np.float32)}, 32)


@pytest.mark.parametrize("kind", [torch_nets.Encoder, torch_nets.Cnn])
def test_takes_files_that_torch_exported(tmp_path: Path, kind: type) -> None:
    """Such files name tensors as the exporter names its own; weights are stored as integers all the same."""
    samples = _samples(kind)
    source, feed = tmp_path / "source.onnx", samples.feed(slice(0, 4))
    torch_files.exported(kind, feed, source)

    built = build(source, tmp_path / "built", context(samples, tmp_path))

    assert audit(built, tmp_path).executed > 0
    assert close(built, source, samples.feed(slice(0, 8)))
    stored = {t.name: t.data_type for t in onnx.load(built).graph.initializer}
    assert onnx.TensorProto.INT8 in stored.values()


def test_keeps_a_fixed_batch(tmp_path: Path) -> None:
    """A model for two samples at a time becomes one for two samples at a time."""
    model = models.cnn(batch=2)
    source = models.write(model, tmp_path / "source.onnx")
    use = context(models.split_for(model), tmp_path)

    built = build(source, tmp_path / "built", use)

    check_built(source, built, use)
    assert onnx.load(built).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 2


def test_same_input_gives_the_same_bytes_and_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A built file is named by its content; a library's advice to its developers is none for a user."""
    model = models.cnn()
    source = models.write(model, tmp_path / "source.onnx")
    use = context(models.split_for(model), tmp_path)

    first, second = (build(source, tmp_path / turn, use).read_bytes() for turn in "ab")

    assert first == second
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("algorithm", "reason"), [("dynamic", "choose_qparams"), ("smooth_quant", "intel_extension_for_pytorch")]
)
def test_other_algorithms_are_unsupported_with_their_reason(tmp_path: Path, algorithm: str, reason: str) -> None:
    """When one of them begins to work, this fails, and its value may be offered."""
    model = models.encoder()
    source = models.write(model, tmp_path / "source.onnx")

    with pytest.raises(Unsupported, match=reason):
        build(source, tmp_path / "built", context(models.split_for(model), tmp_path), algorithm=algorithm)


def test_refuses_what_it_cant_quantize(tmp_path: Path) -> None:
    """No calibration data, and operators that PyTorch has none for: each with its reason."""
    source = models.write(models.cnn(), tmp_path / "source.onnx")
    with pytest.raises(Unsupported, match="calibration data"):
        build(source, tmp_path / "a", context(None, tmp_path))

    model = models.MAKERS["detector"]()
    source, use = models.write(model, tmp_path / "detector.onnx"), context(models.split_for(model), tmp_path)
    with pytest.raises(Unsupported, match="can't become a PyTorch one"):
        build(source, tmp_path / "b", use)
