"""The build cache: keys hold everything a result depends on; entries are whole or not there."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from autopilot.artifact import Artifact
from autopilot.build.cache import Cache, complete, step_key
from autopilot.contracts import BuildContext, Slot, Technique
from autopilot.domain import Choice, Int, Scalar
from autopilot.errors import Failure, Unsupported, VariantFailed
from autopilot.recipe import Step, params_of


def nothing(source: Path, target: Path, params: Mapping[str, Scalar], context: BuildContext) -> None:
    """A technique that is never run here."""


TOY = Technique(
    name="toy",
    slot=Slot.GRAPH,
    version=1,
    parameters={"mode": Choice(("a", "b")), "level": Int(1, 9, 3)},
    apply=nothing,
    summary="for tests",
    normalise=lambda p: {**p, "level": 3} if p["mode"] == "b" else p,
)
STEP = complete(TOY, Step("toy"))


def key(technique: Technique = TOY, step: Step = STEP, parent: str = "p", calibration: str | None = "c") -> str:
    """A key with defaults."""
    return step_key(technique, step, parent=parent, calibration=calibration, is_classification=True)


def filled(cache: Cache, text: str = "weights") -> Artifact:
    """One entry with a main file and external data."""
    with cache.staging() as folder:
        built = folder / "built"
        built.mkdir()
        (built / "model.onnx").write_text("graph")
        (built / "model.onnx.data").write_text(text)
        return cache.put(key(), built, parent="p", step=STEP)


def test_completed_step_has_every_parameter() -> None:
    """Defaults are filled in and the result is normalised: equal builds have equal recipes."""
    assert complete(TOY, Step("toy")) == Step("toy", params_of({"mode": "a", "level": 3}))
    assert complete(TOY, Step("toy", params_of({"mode": "b", "level": 7}))) == complete(
        TOY, Step("toy", params_of({"mode": "b"}))
    )


@pytest.mark.parametrize("params", [{"mode": "z"}, {"mode": True}, {"size": 1}, {"level": 99}])
def test_undeclared_parameters_are_unsupported(params: Mapping[str, Scalar]) -> None:
    """A recipe written by hand can't ask for what isn't there."""
    with pytest.raises(Unsupported, match="toy takes no"):
        complete(TOY, Step("toy", params_of(params)))


@pytest.mark.parametrize(
    "other",
    [
        key(parent="q"),
        key(replace(TOY, version=2)),
        key(replace(TOY, name="toy2")),
        key(step=complete(TOY, Step("toy", params_of({"level": 4})))),
        key(replace(TOY, libraries=("numpy",))),
        key(replace(TOY, needs_calibration=True)),
    ],
)
def test_key_changes_with_what_the_result_depends_on(other: str) -> None:
    """Parent, technique, version, parameters, libraries and, where used, the data."""
    assert other != key()


def test_key_holds_the_data_only_where_they_are_used() -> None:
    """Other calibration data rebuild static quantization, not dynamic quantization."""
    needing = replace(TOY, needs_calibration=True)

    assert key(calibration="c") == key(calibration="d")
    assert key(needing, calibration="c") != key(needing, calibration="d")


def test_kept_artifact_is_taken_again(tmp_path: Path) -> None:
    """What comes out is what went in, files, digest and origin."""
    cache = Cache(tmp_path)
    kept = filled(cache)

    taken = cache.take(key(), parent="p", step=STEP)

    assert taken == kept
    assert [f.name for f in kept.files] == ["model.onnx", "model.onnx.data"]
    assert kept.files[1].read_text() == "weights"
    assert not list(tmp_path.glob("staging-*"))


def test_unknown_key_gives_nothing(tmp_path: Path) -> None:
    """An empty cache is no error."""
    assert Cache(tmp_path / "none").take(key(), parent="p", step=STEP) is None


@pytest.mark.parametrize("damage", ["change", "truncate", "remove", "meta", "no_meta"])
def test_damaged_entry_is_built_again(tmp_path: Path, damage: str) -> None:
    """A torn or changed file never comes out of the cache, and what replaces it does."""
    cache = Cache(tmp_path)
    data = filled(cache).files[1]
    match damage:
        case "change":
            data.write_text("WEIGHTS")
        case "truncate":
            os.truncate(data, 2)
        case "remove":
            data.unlink()
        case "meta":
            (data.parent / "meta.json").write_text('{"files": ["model.o')
        case "no_meta":
            (data.parent / "meta.json").unlink()

    assert cache.take(key(), parent="p", step=STEP) is None
    assert filled(cache, "new").files[1].read_text() == "new"
    assert cache.take(key(), parent="p", step=STEP) is not None


@pytest.mark.parametrize(
    "error", [Unsupported("no weights.", "Try another."), VariantFailed(Failure.BUILD_ERROR, "it broke.", "h")]
)
def test_failure_is_remembered_with_its_reason(tmp_path: Path, error: VariantFailed) -> None:
    """The same build fails the same way without running."""
    cache = Cache(tmp_path)
    cache.put_failure(key(), error, parent="p", step=STEP)

    with pytest.raises(type(error)) as caught:
        cache.take(key(), parent="p", step=STEP)

    assert (caught.value.failure, caught.value.message, caught.value.hint) == (error.failure, error.message, error.hint)


def test_second_builder_of_the_same_step_is_no_error(tmp_path: Path) -> None:
    """Two processes may finish the same step; either result will do."""
    cache = Cache(tmp_path)
    first = filled(cache)

    assert filled(cache).sha256 == first.sha256
    assert len(list(tmp_path.iterdir())) == 1


def test_sweep_removes_only_what_is_old(tmp_path: Path) -> None:
    """A build that runs elsewhere keeps its staging folder, one killed yesterday doesn't."""
    cache = Cache(tmp_path)
    for name in ("staging-old", "staging-new"):
        (tmp_path / name).mkdir()
    os.utime(tmp_path / "staging-old", (0, 0))

    cache.sweep()

    assert [f.name for f in tmp_path.iterdir()] == ["staging-new"]


def test_meta_says_what_was_done(tmp_path: Path) -> None:
    """An entry explains itself to whoever looks into the folder."""
    artifact = filled(Cache(tmp_path))

    meta = json.loads((artifact.path.parent / "meta.json").read_text())

    assert meta["step"] == {"technique": "toy", "mode": "a", "level": 3}
    assert meta["sha256"] == artifact.sha256
    assert meta["parent"] == "p"
