"""neural_compressor without building anything: when it is offered, in which form, and what makes two recipes one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from autopilot import plugins
from autopilot.build.cache import complete
from autopilot.contracts import BuildContext
from autopilot.errors import Failure, VariantFailed
from autopilot.needs import Lack
from autopilot.recipe import Recipe, Step, params_of
from autopilot.space import SearchSpace
from autopilot.space_file import SpaceRequest, build_space
from autopilot.target import Target
from autopilot.techniques import _onnx, neural_compressor
from tests import models
from tests.unit.test_space import FakeProvider

TECHNIQUE = neural_compressor.TECHNIQUE
TARGET = replace(Target.detect(), machine="x86_64", cpu_flags=("avx2", "avx512_vnni"))


def space_of(folder: Path, *providers: str) -> SearchSpace:
    """The space of this technique alone."""
    path = folder / "space.yaml"
    path.write_text("techniques: [neural_compressor]")
    made = {name: FakeProvider(name) for name in providers}
    request = SpaceRequest(providers, 1, (1,))
    return build_space(path, request, target=TARGET, techniques=plugins.techniques(), providers=made)  # type: ignore[arg-type]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the extra were there."""
    monkeypatch.setattr("autopilot.needs._installed", lambda module: True)


@pytest.mark.usefixtures("installed")
def test_only_the_algorithm_that_works_is_drawn(tmp_path: Path) -> None:
    """The others end as unsupported, whatever the model: a trial on one is lost."""
    space = space_of(tmp_path, "cpu")

    domains = space.domains("neural_compressor", "cpu")
    assert domains["algorithm"].values == ("static",)  # type: ignore[union-attr]
    drawn = [v.recipe.steps for v in space.known_good(TARGET) if v.recipe.steps]
    assert [dict(s.params)["calibration"] for (s,) in drawn] == ["minmax", "kl"]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("provider", ["torch_compile", "cuda", "tensorrt", "tensorrt_rtx"])
def test_is_not_tried_where_its_form_has_no_kernels(tmp_path: Path, provider: str) -> None:
    """Unsigned activations in QDQ form: ONNX Runtime's CPU provider and OpenVINO multiply those."""
    assert space_of(tmp_path, "cpu", provider).slot(TECHNIQUE.slot, provider) == ()
    assert "neural_compressor" in space_of(tmp_path, provider).left_out


def test_missing_extra_is_named_with_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result then says what would bring it."""
    monkeypatch.setattr("autopilot.needs._installed", lambda module: module != "neural_compressor")

    (gap,) = space_of(tmp_path, "cpu").not_tried

    assert (gap.name, gap.missing) == ("neural_compressor", Lack.LIBRARY)
    assert "'.[torch,inc]'" in gap.install


def test_needs_no_training_data() -> None:
    """It measures ranges on calibration data and starts from the ONNX file."""
    assert TECHNIQUE.needs_calibration
    assert not TECHNIQUE.needs_training
    assert {need.lack for need in TECHNIQUE.needs} == {Lack.LIBRARY}


@pytest.mark.parametrize("earlier", ["static_int8", "qat", "float16", "fuse"])
def test_follows_no_step_that_leaves_pytorch_nothing_to_quantize(earlier: str) -> None:
    """Integers, halves and fused operators don't become a float module; pruned models do."""
    assert neural_compressor.refuses(Recipe((Step(earlier),)), {}) is not None
    assert neural_compressor.refuses(Recipe((Step("prune_channels"),)), {}) is None


def test_no_other_precision_follows_it() -> None:
    """Nothing else can quantize what it wrote."""
    assert plugins.techniques()["static_int8"].refuses(Recipe((Step("neural_compressor"),)), {}) is not None


def test_settings_that_change_nothing_make_no_second_recipe() -> None:
    """Dynamic quantization takes ranges while it runs."""
    one, other = (
        complete(TECHNIQUE, Step("neural_compressor", params_of({"algorithm": "dynamic", "calibration": kind})))
        for kind in ("minmax", "kl")
    )

    assert one == other


def test_quantized_model_is_refused_before_anything_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the extra is missing: the reason is the model's."""
    monkeypatch.setattr(neural_compressor, "missing", lambda *names: "torch is not installed.")
    source = models.write(models.qdq(), tmp_path / _onnx.MODEL)
    params = {name: d.default for name, d in TECHNIQUE.parameters.items()}

    with pytest.raises(VariantFailed, match="quantized already") as caught:
        TECHNIQUE.apply(source, tmp_path / "built", params, BuildContext(None, tmp_path, 1))

    assert caught.value.failure is Failure.UNSUPPORTED
