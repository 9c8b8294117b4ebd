"""What every technique promises, whichever file it is in."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from autopilot import plugins
from autopilot.artifact import sha256_file
from autopilot.contracts import BuildContext, Technique
from autopilot.domain import Choice, Scalar
from autopilot.errors import Failure, Unsupported, VariantFailed
from autopilot.model import inspect
from autopilot.model.graph import all_graphs
from autopilot.recipe import Recipe, Step
from autopilot.target import Target
from autopilot.techniques._gate import feeds, session
from autopilot.techniques._smoke import check_built
from tests import models

TECHNIQUES = plugins.techniques()
# Those that train need data of their own kind, and an extra; their tests are in files of their own.
UNTRAINED = tuple(name for name, t in TECHNIQUES.items() if not t.needs_training and "torch" not in t.libraries)
# A build by way of PyTorch takes seconds and an extra: its tests are in a file of its own too.
QUICK = tuple(name for name, t in TECHNIQUES.items() if t.needs_training or name in UNTRAINED)
MACHINES = {
    "vnni": ("x86_64", ("avx", "avx2", "avx512_vnni", "avx512f", "fma")),
    "avx2": ("x86_64", ("avx", "avx2", "fma")),
    "arm": ("aarch64", ("asimd", "asimddp")),
    "unknown": ("unknown", ()),
}
# Technique -> models that it must take with its default parameters; the others it may refuse.
TAKES = {
    "fuse": {"encoder", "half_weights"},
    "dynamic_int8": {"cnn", "cnn_fixed_batch", "cnn_opset11", "encoder", "detector", "constant_weights",
                     "weights_as_inputs", "half_weights", "wide"},
    "weight_only": {"cnn", "cnn_opset11", "encoder", "detector", "constant_weights", "weights_as_inputs",
                    "half_weights", "wide"},
    "static_int8": {"cnn", "cnn_fixed_batch", "cnn_opset11", "encoder", "constant_weights", "weights_as_inputs",
                    "half_weights", "wide"},
    "float16": {"cnn", "cnn_opset11", "encoder", "recurrent", "upsampler", "constant_weights", "wide"},
    "bfloat16": {"cnn", "cnn_opset11", "encoder", "recurrent", "detector", "wide"},
}  # fmt: skip


def target(name: str) -> Target:
    """A machine with the CPU flags of ``MACHINES``."""
    machine, flags = MACHINES[name]
    return Target(machine, name, 2, 2, 8 << 30, flags, (), "test", "3.11")


def defaults(technique: Technique) -> Mapping[str, Scalar]:
    """Declared defaults, normalised as a recipe's are."""
    return technique.normalise({k: d.default for k, d in technique.parameters.items()})


def context(name: str, tmp_path: Path) -> BuildContext:
    """Real-looking samples for one of the test models."""
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    return BuildContext(models.split_for(models.MAKERS[name](), 32), scratch, 1, True)  # type: ignore[arg-type]


def apply(technique: Technique, source: Path, folder: Path, use: BuildContext) -> Path:
    """Run a technique with its defaults into an empty folder; the model it wrote."""
    folder.mkdir()
    technique.apply(source, folder, defaults(technique), use)
    return folder / "model.onnx"


@pytest.mark.parametrize("name", TECHNIQUES)
def test_declaration_is_whole(name: str) -> None:
    """File name = plug-in name, a summary, libraries, a positive version, defaults inside their domains."""
    technique = TECHNIQUES[name]

    assert technique.name == name
    assert technique.summary
    assert technique.libraries
    assert technique.version >= 1
    assert all(d.contains(d.default) for d in technique.parameters.values())


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", TECHNIQUES)
def test_preferred_parameters_are_declared_ones(name: str, machine: str) -> None:
    """Known-good sets lie inside the domains on every kind of CPU, known or not."""
    technique = TECHNIQUES[name]

    for wanted in technique.prefer(target(machine)):
        assert all(k in technique.parameters and technique.parameters[k].contains(v) for k, v in wanted.items()), wanted
    assert technique.available(target(machine)) is None or technique.available(target(machine))


@pytest.mark.parametrize("name", TECHNIQUES)
def test_normalise_is_idempotent_and_keeps_every_parameter(name: str) -> None:
    """A normalised recipe is its own normal form, complete, with values inside the domains."""
    technique = TECHNIQUES[name]
    first = {k: d.default for k, d in technique.parameters.items()}
    variants = [first] + [
        {**first, key: value}
        for key, domain in technique.parameters.items()
        for value in (domain.values if isinstance(domain, Choice) else (domain.low, domain.high))
    ]

    for values in variants:
        once = technique.normalise(values)
        assert technique.normalise(once) == once
        assert set(once) == set(values)
        assert all(technique.parameters[k].contains(v) for k, v in once.items())


@pytest.mark.parametrize("name", TECHNIQUES)
def test_nothing_changes_precision_or_fuses_after_quantization(name: str) -> None:
    """Order: distil, prune, fuse, then one change of precision."""
    technique = TECHNIQUES[name]

    assert technique.refuses(Recipe(), defaults(technique)) is None
    assert technique.refuses(Recipe((Step("dynamic_int8"),)), defaults(technique))


@pytest.mark.parametrize("model", models.MAKERS)
@pytest.mark.parametrize("name", QUICK)
def test_apply_writes_a_usable_model_or_says_unsupported(name: str, model: str, tmp_path: Path) -> None:
    """On any model: same interface, loads, finite answers, unique names, source untouched; or Unsupported."""
    technique, use = TECHNIQUES[name], context(model, tmp_path)
    source = models.write(models.MAKERS[model](), tmp_path / "source" / "model.onnx")
    before = sha256_file(source)

    if model in TAKES.get(name, ()):
        built = apply(technique, source, tmp_path / "built", use)
    else:
        try:
            built = apply(technique, source, tmp_path / "built", use)
        except Unsupported:
            return

    check_built(source, built, use)
    assert sha256_file(source) == before
    assert {f.name for f in built.parent.iterdir()} <= {"model.onnx", "model.onnx.data"}
    for graph in all_graphs(onnx.load(built)):
        stored = [t.name for t in graph.initializer]
        assert len(stored) == len(set(stored))
        assert not set(stored) & {o for n in graph.node for o in n.output}


@pytest.mark.parametrize("name", UNTRAINED)
def test_same_input_gives_the_same_bytes(name: str, tmp_path: Path) -> None:
    """A built file is named by its content, so that building twice must not give two artifacts."""
    use = context("encoder", tmp_path)
    source = models.write(models.encoder(), tmp_path / "source" / "model.onnx")

    digests = set()
    for turn in ("a", "b"):
        built = apply(TECHNIQUES[name], source, tmp_path / turn, use)
        digests.add(hashlib.sha256(built.read_bytes()).hexdigest())

    assert len(digests) == 1


@pytest.mark.parametrize("name", UNTRAINED)
def test_default_parameters_keep_the_answers_close(name: str, tmp_path: Path) -> None:
    """With its defaults no technique moves the encoder's logits by more than a tenth of their size."""
    use = context("encoder", tmp_path)
    source = models.write(models.encoder(), tmp_path / "source" / "model.onnx")

    built = apply(TECHNIQUES[name], source, tmp_path / "built", use)

    reference, candidate = session(source), session(built)
    feed = next(feeds(reference, use, 16))
    expected, got = reference.run(None, feed)[0], candidate.run(None, feed)[0]
    assert np.abs(expected - got).max() < 0.1 * np.abs(expected).max()


@pytest.mark.parametrize("name", UNTRAINED)
def test_external_data_are_read_from_beside_the_source(name: str, tmp_path: Path) -> None:
    """Weights in a second file come along; the result doesn't refer back to the source's folder."""
    use = context("encoder", tmp_path)
    source = models.write(models.encoder(), tmp_path / "source" / "model.onnx", external=True)

    built = apply(TECHNIQUES[name], source, tmp_path / "built", use)

    (tmp_path / "source" / "weights.bin").unlink()
    assert inspect(built).files == (built,)
    session(built)


@pytest.mark.parametrize("name", [n for n, t in TECHNIQUES.items() if t.slot.value not in ("structure", "training")])
def test_quantized_model_is_left_alone(name: str, tmp_path: Path) -> None:
    """A model that is quantized already is Unsupported, never quantized or fused again."""
    source = models.write(models.qdq(), tmp_path / "source" / "model.onnx")

    with pytest.raises(VariantFailed, match="quantized already") as caught:
        apply(TECHNIQUES[name], source, tmp_path / "built", context("qdq", tmp_path))

    assert caught.value.failure is Failure.UNSUPPORTED
