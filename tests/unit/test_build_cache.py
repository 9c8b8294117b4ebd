"""The build cache: keys hold everything a result depends on; entries are whole or not there."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from autopilot.artifact import Artifact
from autopilot.build.cache import Cache, complete, step_key
from autopilot.cache import Lease
from autopilot.contracts import BuildContext, Slot, Technique
from autopilot.domain import Choice, Int, Scalar
from autopilot.errors import AutopilotError, Failure, Unsupported, VariantFailed
from autopilot.recipe import Step, params_of
from tests.cache_support import new_root


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
    assert not list(tmp_path.glob("builds/staging-*"))


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
    assert len(list(cache.folder.iterdir())) == 1


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_damaged_failure_is_tried_again(tmp_path: Path, damage: str) -> None:
    """A remembered failure that was altered fails nobody: the step is built once more."""
    cache = Cache(tmp_path)
    cache.put_failure(key(), Unsupported("no weights.", ""), parent="p", step=STEP)
    meta = tmp_path / "builds" / key() / "meta.json"
    match damage:
        case "flip":
            meta.write_text(meta.read_text().replace("no weights", "no Weights"))
        case "truncate":
            os.truncate(meta, meta.stat().st_size // 2)
        case "remove":
            meta.unlink()

    assert cache.take(key(), parent="p", step=STEP) is None
    assert cache.take(key(), parent="p", step=STEP) is None
    assert filled(cache).files[1].read_text() == "weights"


def test_altered_meta_gives_nothing(tmp_path: Path) -> None:
    """A list of files that leaves the external data out would be a model without weights."""
    cache = Cache(tmp_path)
    meta = filled(cache).path.parent / "meta.json"
    value = json.loads(meta.read_text())
    meta.write_text(json.dumps(value | {"files": ["model.onnx"], "sha256": "0" * 64}))

    assert cache.take(key(), parent="p", step=STEP) is None


def test_build_error_is_tried_again_after_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have been the machine's; what is unsupported stays so."""
    cache = Cache(tmp_path)
    cache.put_failure("a", VariantFailed(Failure.BUILD_ERROR, "it broke."), parent="p", step=STEP)
    cache.put_failure("b", Unsupported("no weights."), parent="p", step=STEP)
    now_s = time.time()
    monkeypatch.setattr(time, "time", lambda: now_s + 25 * 3600)

    assert cache.take("a", parent="p", step=STEP) is None
    with pytest.raises(Unsupported):
        cache.take("b", parent="p", step=STEP)


def test_key_holds_the_kind_of_machine_only_where_things_are_timed() -> None:
    """A ranking by milliseconds is of the machine that took them."""
    assert key(replace(TOY, machine_bound=True)) != key()


def test_price_is_what_the_build_took(tmp_path: Path) -> None:
    """Told apart from the moment that taking it takes; nothing is nothing."""
    cache = Cache(tmp_path)
    with cache.staging() as folder:
        (folder / "built").mkdir()
        (folder / "built" / "model.onnx").write_text("graph")
        cache.put(key(), folder / "built", parent="p", step=STEP, took_s=12.5)

    assert cache.price_s(key()) == 12.5
    assert cache.price_s("other") == 0.0


def test_damaged_entry_of_another_builder_is_replaced(tmp_path: Path) -> None:
    """Who finishes a step and finds a damaged one in its place puts its own there."""
    cache = Cache(tmp_path)
    filled(cache).files[1].write_text("WEIGHTS")

    assert filled(cache).files[1].read_text() == "weights"


def keep_model(cache: Cache, built: Path) -> None:
    cache.put(key(), built, parent="p", step=STEP)


def keep_failure(cache: Cache, built: Path) -> None:
    cache.put_failure(key(), Unsupported("no."), parent="p", step=STEP)


@pytest.mark.parametrize(
    ("where", "keep"), [("rename", keep_model), ("write_text", keep_model), ("mkdir", keep_failure)]
)
def test_full_disk_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, keep: Callable[[Cache, Path], None]
) -> None:
    """Wherever it comes up: one message, no half entry, and nothing else is lost."""
    cache = Cache(tmp_path)

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with cache.staging() as folder:
        built = folder / "built"
        built.mkdir()
        (built / "model.onnx").write_text("graph")
        with monkeypatch.context() as patch:
            patch.setattr(Path, where, full)
            with pytest.raises(AutopilotError, match=r"No space left on device\)\. Free some space .*cache clear"):
                keep(cache, built)

    assert cache.take(key(), parent="p", step=STEP) is None
    assert filled(cache).files[1].read_text() == "weights"


def test_taken_entry_is_in_the_lease_before_it_is_looked_for(tmp_path: Path) -> None:
    """Whoever removes entries sees it in time; builds under way are named too."""
    root = new_root(tmp_path)
    lease = Lease.hold(root)
    cache = Cache(root, lease)

    assert cache.take(key(), parent="p", step=STEP) is None
    with cache.staging() as folder:
        named = lease.path.read_text().split()

    assert named == [key(), folder.name]
    lease.close()


def test_meta_says_what_was_done(tmp_path: Path) -> None:
    """An entry explains itself to whoever looks into the folder."""
    artifact = filled(Cache(tmp_path))

    meta = json.loads((artifact.path.parent / "meta.json").read_text())

    assert meta["step"] == {"technique": "toy", "mode": "a", "level": 3}
    assert meta["sha256"] == artifact.sha256
    assert meta["parent"] == "p"
