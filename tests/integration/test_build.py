"""Building recipes in a child process: the cache, the limits, the failures, and torch staying out."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autopilot.artifact import Artifact
from autopilot.bench.child import ChildLimits
from autopilot.build import build
from autopilot.build.cache import Cache
from autopilot.data import Split, prepare
from autopilot.errors import Failure, Unsupported, VariantFailed
from autopilot.model import inspect, int8_audit
from autopilot.recipe import Recipe, Step, params_of
from autopilot.spec import DataSpec, InputSpec, MetricSpec
from tests import models

pytestmark = pytest.mark.integration

LIMITS = ChildLimits(wall_s=600.0, memory_bytes=None)
DYNAMIC = Step("dynamic_int8", params_of({"op_types": "matmul"}))
FUSE = Step("fuse", params_of({"method": "ort_fusions"}))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The small text encoder as an artifact, weights beside it."""
    path = models.write(models.encoder(), tmp_path_factory.mktemp("encoder") / "text.onnx", external=True)
    return Artifact.of(list(inspect(path).files))


@pytest.fixture(scope="module")
def calibration(encoder: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Real samples, written and split as the study does it."""
    folder = tmp_path_factory.mktemp("data")
    arrays = models.samples(models.encoder(), 200)
    np.savez(folder / "valid.npz", label=np.arange(200) % 3, **arrays)  # type: ignore[arg-type]
    data = DataSpec(folder / "valid.npz", inputs={k: InputSpec(source=k) for k in arrays})
    splits = prepare(
        data, MetricSpec("accuracy"), inspect(encoder.path), folder / "splits", seed=0, metric_needs_labels=True
    )
    return splits.calibration


def make(
    steps: tuple[Step, ...], model: Artifact, cache: Path, calibration: Split | None, limits: ChildLimits = LIMITS
) -> tuple[Artifact, list[str]]:
    """Build, with what the child said it was doing."""
    said: list[str] = []
    artifact = build(
        Recipe(steps),
        model,
        calibration=calibration,
        cache=Cache(cache),
        threads=1,
        limits=limits,
        progress=said.append,
    )
    return artifact, said


def test_empty_recipe_is_the_model_itself(encoder: Artifact, tmp_path: Path) -> None:
    """Nothing is copied and no process starts for the model as given."""
    artifact, said = make((), encoder, tmp_path / "cache", None)

    assert artifact == encoder
    assert said == []
    assert not (tmp_path / "cache").exists()


def test_recipe_is_built_once_and_prefixes_are_shared(encoder: Artifact, calibration: Split, tmp_path: Path) -> None:
    """The second time nothing runs; another recipe on the same prefix runs only what is new."""
    cache = tmp_path / "cache"

    first, said_first = make((FUSE, DYNAMIC), encoder, cache, calibration)
    again, said_again = make((FUSE, DYNAMIC), encoder, cache, calibration)
    fused, said_fused = make((FUSE,), encoder, cache, calibration)
    other, said_other = make((FUSE, Step("bfloat16")), encoder, cache, calibration)

    assert said_first == ["building fuse", "building dynamic_int8"]
    assert again == first
    assert said_again == said_fused == []
    assert said_other == ["building bfloat16"]
    assert first.parent == other.parent == fused.sha256
    assert fused.parent == encoder.sha256
    assert inspect(first.path).dynamic_quantized
    assert not list(cache.glob("builds/staging-*"))


def test_built_model_runs_in_int8(encoder: Artifact, calibration: Split, tmp_path: Path) -> None:
    """What the file claims is what ONNX Runtime's optimized graph executes."""
    import onnxruntime as ort

    artifact, _ = make((FUSE, DYNAMIC), encoder, tmp_path / "cache", calibration)
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    ort.InferenceSession(str(artifact.path), options, providers=["CPUExecutionProvider"])

    audit = int8_audit(artifact.path, tmp_path / "optimized.onnx")

    assert audit.claimed == audit.executed == 7
    assert not audit.is_fake


def test_damaged_cache_entry_is_built_again(encoder: Artifact, tmp_path: Path) -> None:
    """A torn file in the cache costs a rebuild, not a wrong model; the same bytes come out again."""
    cache = tmp_path / "cache"
    first, _ = make((DYNAMIC,), encoder, cache, None)
    first.path.write_bytes(first.path.read_bytes()[:1000])

    second, said = make((DYNAMIC,), encoder, cache, None)

    assert said == ["building dynamic_int8"]
    assert second.sha256 == first.sha256


def test_unsupported_is_told_and_remembered(tmp_path: Path) -> None:
    """The reason names the technique; asked again, no process starts."""
    model = Artifact.of([models.write(models.arithmetic(), tmp_path / "model.onnx")])

    for expected in (["building dynamic_int8"], []):
        said: list[str] = []
        with pytest.raises(Unsupported, match="dynamic_int8: there is nothing to quantize"):
            build(
                Recipe((DYNAMIC,)), model, calibration=None, cache=Cache(tmp_path / "cache"), threads=1, limits=LIMITS,
                progress=said.append,
            )  # fmt: skip
        assert said == expected


def test_unknown_technique_is_unsupported(encoder: Artifact, tmp_path: Path) -> None:
    """A recipe from elsewhere may name what this installation doesn't have."""
    with pytest.raises(Unsupported, match="no technique called 'magic'"):
        make((Step("magic"),), encoder, tmp_path / "cache", None)


def test_timeout_is_not_remembered(encoder: Artifact, tmp_path: Path) -> None:
    """Time ends a build with its class; with more of it the same build succeeds."""
    cache = tmp_path / "cache"

    with pytest.raises(VariantFailed) as caught:
        make((DYNAMIC,), encoder, cache, None, ChildLimits(wall_s=0.05, memory_bytes=None))

    assert caught.value.failure is Failure.TIMEOUT
    assert not list(cache.glob("builds/staging-*"))
    assert make((DYNAMIC,), encoder, cache, None)[0].size_bytes < encoder.size_bytes


@pytest.mark.skipif(sys.platform != "linux", reason="memory limits are Linux's")
@pytest.mark.parametrize("memory_mb", [130, 200])
def test_too_little_memory_is_not_remembered(tmp_path: Path, memory_mb: int) -> None:
    """Wherever in the build it runs out, the model is neither called bad nor unsupported for good.

    Some native code crashes instead of reporting it, which isn't remembered either.
    """
    cache, large = tmp_path / "cache", models.wide(8000, 2000)
    model = Artifact.of([models.write(large, tmp_path / "model.onnx")])

    with pytest.raises(VariantFailed) as caught:
        make((DYNAMIC,), model, cache, None, ChildLimits(wall_s=300.0, memory_bytes=memory_mb << 20))

    assert caught.value.failure in (Failure.OOM, Failure.CRASH)
    assert not list(cache.glob("builds/*/meta.json"))


def test_failed_step_keeps_the_steps_before_it(encoder: Artifact, calibration: Split, tmp_path: Path) -> None:
    """What was built before the failing step is there for the next recipe."""
    cache = tmp_path / "cache"
    with pytest.raises(Unsupported, match="weight_only: the model is quantized already"):
        make((FUSE, DYNAMIC, replace(DYNAMIC, technique="weight_only", params=())), encoder, cache, calibration)

    _, said = make((FUSE, DYNAMIC), encoder, cache, calibration)

    assert said == []


def test_techniques_work_without_torch(tmp_path: Path, repository: Path) -> None:
    """Every technique but those that train runs where importing torch fails; those say what they lack."""
    source = models.write(models.encoder(), tmp_path / "source" / "model.onnx")
    code = f"""
import sys
sys.modules["torch"] = None
from pathlib import Path
from autopilot import plugins
from autopilot.contracts import BuildContext
from autopilot.errors import Unsupported
from tests import models
use = BuildContext(models.split_for(models.encoder(), 32), Path({str(tmp_path)!r}), 1, True)
for name, technique in plugins.techniques().items():
    if technique.needs_training:
        assert "torch is not installed" in technique.available(None)
        continue
    folder = Path({str(tmp_path)!r}) / name
    folder.mkdir()
    params = technique.normalise({{k: d.default for k, d in technique.parameters.items()}})
    if "torch" in technique.libraries:
        try:
            technique.apply(Path({str(source)!r}), folder, params, use)
        except Unsupported as exc:
            assert "torch is not installed" in str(exc)
            continue
        raise AssertionError(name)
    technique.apply(Path({str(source)!r}), folder, params, use)
    assert (folder / "model.onnx").is_file(), name
assert sys.modules["torch"] is None
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, timeout=600, check=False
    )

    assert done.returncode == 0, done.stderr[-2000:]
