"""Static int8 on real models: answers, what really runs in int8, calibration reused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from autopilot.contracts import Array, BuildContext
from autopilot.domain import Scalar
from autopilot.errors import Unsupported
from autopilot.model.int8 import int8_audit
from autopilot.techniques.static_int8 import TECHNIQUE, apply
from tests.machine import int8_products_saturate
from tests.models import MAKERS, F, Samples, Weights, cnn, model_of, node, split_for, value, write

pytestmark = pytest.mark.integration

DEFAULTS: Mapping[str, Scalar] = {k: d.default for k, d in TECHNIQUE.parameters.items()}
# Model -> matmul-like nodes with a stored weight in its main graph.
QUANTIZABLE = {
    "cnn": 3,
    "cnn_fixed_batch": 3,
    "cnn_opset11": 3,
    "encoder": 7,
    "detector": 2,
    "constant_weights": 2,
    "weights_as_inputs": 2,
    "half_weights": 2,
    "wide": 2,
}


def samples_for(model: onnx.ModelProto, n: int = 48) -> Samples:
    """Calibration data of a model; the seed differs from that of `answers`."""
    return split_for(model, n, seed=1)


def build(
    model: onnx.ModelProto, folder: Path, *, split: Any = None, scratch: Path | None = None, **params: Scalar
) -> tuple[Path, Path]:
    """Source and built file, in the form that suits the machine unless ``params`` say another."""
    source, target = write(model, folder / "source.onnx"), folder / "built"
    target.mkdir(parents=True)
    context = BuildContext(split or samples_for(model), scratch or folder / "scratch", 1)
    # Where products saturate, answers of the plain defaults are off by a tenth; the package prefers this there too.
    form = {"reduce_range": int8_products_saturate()}
    apply(source, target, {**DEFAULTS, **form, **params}, context)
    return source, target / "model.onnx"


def answers(path: Path, feed: Mapping[str, Array], optimized: Path | None = None) -> list[Array]:
    """All outputs at the highest optimization level, which is where integer kernels appear."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = {i.name for i in session.get_inputs()}
    return list(session.run(None, {k: v for k, v in feed.items() if k in names}))


def relative_errors(source: Path, built: Path, feed: Mapping[str, Array], optimized: Path) -> list[float]:
    """Root mean square error of each output over its root mean square."""
    pairs = zip(answers(source, feed), answers(built, feed, optimized), strict=True)
    return [float(np.sqrt(np.mean((a - b) ** 2) / np.mean(a**2))) for a, b in pairs]


@pytest.mark.parametrize("name", sorted(QUANTIZABLE))
def test_model_runs_in_int8_and_answers_alike(name: str, tmp_path: Path) -> None:
    """Every product of a stored weight becomes an integer kernel, and outputs stay within some percent."""
    model = MAKERS[name]()

    source, built = build(model, tmp_path)

    feed = split_for(model, 2 if name == "cnn_fixed_batch" else 16).feed(slice(0, 16))
    errors = relative_errors(source, built, feed, tmp_path / "optimized.onnx")
    audit = int8_audit(built, tmp_path / "optimized.onnx")
    assert 0 < max(errors) < 0.06
    assert audit.claimed == audit.executed == QUANTIZABLE[name]


@pytest.mark.parametrize(
    "params",
    [
        {"per_channel": False},
        {"weights": "uint8"},
        {"reduce_range": True},
        {"activations": "int8", "symmetric": True},
        {"calibration": "percentile", "percentile": 99.9},
        {"calibration": "entropy"},
        {"scope": "all"},
        {"samples": 32},
    ],
    ids=str,
)
def test_every_parameter_gives_a_working_model(params: dict[str, Scalar], tmp_path: Path) -> None:
    """Each parameter changes the file and keeps the answers."""
    model = cnn()
    (tmp_path / "default").mkdir()
    (tmp_path / "changed").mkdir()
    split = samples_for(model, 200)

    own = {k: v for k, v in DEFAULTS.items() if k in params}
    source, default = build(model, tmp_path / "default", split=split, **own)
    _, changed = build(model, tmp_path / "changed", split=split, **params)

    feed = split_for(model, 16).feed(slice(0, 16))
    assert max(relative_errors(source, changed, feed, tmp_path / "optimized.onnx")) < 0.15
    if params != {"scope": "all"}:  # nothing more to quantize here
        assert changed.read_bytes() != default.read_bytes()


def test_attention_scope_quantizes_products_of_activations(tmp_path: Path) -> None:
    """Scores and context run in integer kernels too."""
    _, built = build(MAKERS["encoder"](), tmp_path, scope="attention")

    answers(built, split_for(MAKERS["encoder"](), 4).feed(slice(0, 4)), tmp_path / "optimized.onnx")
    assert int8_audit(built, tmp_path / "optimized.onnx").executed == 9


def test_embeddings_make_the_file_smaller(tmp_path: Path) -> None:
    """A quantized embedding table is stored as bytes."""
    w = Weights()
    nodes = [
        node("Gather", [w.normal("table", 1000, 32), "ids"], ["e"], name="embed"),
        node("MatMul", ["e", w.normal("w", 32, 4)], ["y"], name="product"),
    ]
    ids = value("ids", onnx.TensorProto.INT64, ["N", "S"])
    model = model_of(nodes, [ids], [value("y", F, ["N", "S", 4])], w)

    sizes = [build(model, tmp_path / str(e), embeddings=e)[1].stat().st_size for e in (False, True)]

    assert sizes[1] < 0.4 * sizes[0]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("qdq", "already"), ("arithmetic", "no Conv, Gemm or MatMul"), ("recurrent", "no Conv, Gemm or MatMul")],
)
def test_model_without_float_products_is_unsupported(name: str, reason: str, tmp_path: Path) -> None:
    """Models that are quantized already, or have nothing to quantize, say so."""
    with pytest.raises(Unsupported, match=reason):
        build(MAKERS[name](), tmp_path)


def test_too_few_samples_for_a_fixed_batch_is_unsupported(tmp_path: Path) -> None:
    """A model that takes two samples at a time can't be calibrated on one."""
    model = MAKERS["cnn_fixed_batch"]()
    split = samples_for(model)
    split.n = 1

    with pytest.raises(Unsupported, match="2 samples at a time"):
        build(model, tmp_path, split=split)


def test_same_request_gives_the_same_bytes(tmp_path: Path) -> None:
    """Artifacts are named by content: a build must be reproducible."""
    builds = [build(MAKERS["encoder"](), tmp_path / str(i))[1].read_bytes() for i in range(2)]

    assert builds[0] == builds[1]


def test_calibration_is_measured_once_for_all_methods(tmp_path: Path) -> None:
    """Percentile and entropy recipes reuse the histograms of the min-max one; other samples don't."""
    model, calls = cnn(), []

    class Counting(Samples):
        def feed(self, indices: Any) -> dict[str, Array]:
            calls.append(indices)
            return super().feed(indices)

    plain = samples_for(model, 64)
    split = Counting(plain.arrays, plain.n)
    scratch = tmp_path / "scratch"
    build(model, tmp_path / "a", split=split, scratch=scratch)
    first = len(calls)

    build(model, tmp_path / "b", split=split, scratch=scratch, calibration="entropy", per_channel=False)
    build(model, tmp_path / "c", split=split, scratch=scratch, calibration="percentile")

    # One request each: the built model answers once before it counts as built.
    assert len(calls) == first + 2
    assert first > 2
    assert len(list((scratch / "calibration").iterdir())) == 1
    build(model, tmp_path / "d", split=split, scratch=scratch, samples=32)
    assert len(list((scratch / "calibration").iterdir())) == 2


def test_damaged_calibration_file_is_measured_again(tmp_path: Path) -> None:
    """A file cut short by a full disk costs time, not the study."""
    model, scratch = cnn(), tmp_path / "scratch"
    _, first = build(model, tmp_path / "a", scratch=scratch)
    [file] = (scratch / "calibration").iterdir()
    file.write_bytes(file.read_bytes()[:500])

    _, second = build(model, tmp_path / "b", scratch=scratch)

    assert first.read_bytes() == second.read_bytes()
    assert file.stat().st_size > 500


def test_huge_mask_stays_in_float(tmp_path: Path) -> None:
    """A product on values beyond any int8 range is left alone; the others are quantized."""
    w = Weights()
    w.put("lowest", np.float32(-3e38))
    nodes = [
        node("MatMul", ["x", w.normal("w1", 8, 8)], ["a"], name="first"),
        node("Mul", ["a", "lowest"], ["masked"]),
        node("MatMul", ["masked", w.normal("w2", 8, 8)], ["b"], name="second"),
        node("Tanh", ["b"], ["y"]),
    ]
    model = model_of(nodes, [value("x", F, ["N", 8])], [value("y", F, ["N", 8])], w)

    _, built = build(model, tmp_path)

    inputs = {n.name: n.input[1] for n in onnx.load(built).graph.node if n.op_type == "MatMul"}
    assert inputs["second"] == "w2"
    assert inputs["first"] != "w1"


def test_stacked_weights_run_when_per_channel_is_asked(tmp_path: Path) -> None:
    """A weight of three dimensions gets one scale: ONNX Runtime's kernel fails on one a column."""
    w = Weights()
    model = model_of(
        [node("MatMul", ["x", w.normal("w", 5, 8, 6)], ["y"], name="stacked")],
        [value("x", F, ["N", 5, 4, 8])],
        [value("y", F, ["N", 5, 4, 6])],
        w,
    )

    source, built = build(model, tmp_path, per_channel=True)

    feed = split_for(model, 8).feed(slice(0, 8))
    assert max(relative_errors(source, built, feed, tmp_path / "optimized.onnx")) < 0.05
    assert int8_audit(built, tmp_path / "optimized.onnx").executed == 1


def test_scaled_gemm_keeps_its_factor(tmp_path: Path) -> None:
    """The quantizer loses a Gemm's beta: such a node stays in float and the answers stay right."""
    w = Weights()
    nodes = [
        node("Gemm", ["x", w.normal("w1", 8, 16), w.normal("b1", 16)], ["h"], name="plain"),
        node("Relu", ["h"], ["r"]),
        node("Gemm", ["r", w.normal("w2", 16, 4), w.normal("b2", 4)], ["y"], name="scaled", beta=3.0),
    ]
    model = model_of(nodes, [value("x", F, ["N", 8])], [value("y", F, ["N", 4])], w)

    source, built = build(model, tmp_path)

    feed = split_for(model, 16).feed(slice(0, 16))
    assert max(relative_errors(source, built, feed, tmp_path / "optimized.onnx")) < 0.05
    assert int8_audit(built, tmp_path / "optimized.onnx").executed == 1


def test_external_weights_are_read(tmp_path: Path) -> None:
    """A model whose weights lie in a file of their own is quantized like any other."""
    source = write(cnn(), tmp_path / "source.onnx", external=True)
    (tmp_path / "built").mkdir()

    apply(source, tmp_path / "built", DEFAULTS, BuildContext(samples_for(cnn()), tmp_path / "scratch", 1))

    assert [p.name for p in (tmp_path / "built").iterdir()] == ["model.onnx"]
    assert answers(tmp_path / "built" / "model.onnx", split_for(cnn(), 2).feed(slice(0, 2)))[0].shape == (2, 4)


def test_building_loads_no_torch(tmp_path: Path) -> None:
    """The core works without torch: nothing on the way imports it."""
    code = (
        "import sys; from pathlib import Path; from tests.integration.test_static_int8 import build; "
        f"from tests.models import cnn; build(cnn(), Path({str(tmp_path)!r})); "
        "sys.exit('torch' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "built" / "model.onnx").exists()
