"""Scores of earlier runs: used where everything is the same, and only there."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from autopilot.bench.child import ChildLimits
from autopilot.cache import CacheFolder, SharedCache
from autopilot.errors import Failure, VariantFailed
from autopilot.plugins import metrics
from autopilot.profile import Int8Audit, QualityReading, RawScores
from autopilot.recipe import Deployment, Recipe, Step, Variant, params_of
from autopilot.scoring import FunctionMetric
from autopilot.search import kept_scores as module
from autopilot.search import scored
from autopilot.search.kept_scores import KeptScore, KeptScores, numerics, scorer
from autopilot.search.outcome import Outcome
from autopilot.search.prepare import Setup
from autopilot.search.scored import QualityPass
from autopilot.spec import MetricSpec
from tests.unit.search_support import artifact_of, setup_of, split

N = 40
# How a child is started, bound and asked: no answer depends on it.
PLUMBING = {"autopilot.bench.childside", "autopilot.bench.cores", "autopilot.bench.server"}
LABELS = np.zeros(N, dtype=int)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Models that are right but for the candidate's first sample; the names of the folders of all runs."""
    found: list[str] = []
    written: dict[Path, Any] = {}

    def evaluate(path: Path, deployment: Deployment, *, folder: Path, **_: Any) -> Any:
        outputs = np.eye(2, dtype=np.float32)[LABELS]
        if not folder.parent.name.startswith("baseline"):
            outputs = outputs + np.float32(0.01)
            outputs[0] = outputs[0, ::-1]
        found.append(folder.name)
        written[folder] = SimpleNamespace(
            load=lambda: {"y": outputs}, output_names=("y",), all_names=("y",), left_out={}, padded=()
        )
        return written[folder]

    monkeypatch.setattr(scored, "evaluate", evaluate)
    monkeypatch.setattr(scored.Evaluation, "open", lambda path: written[path])
    monkeypatch.setattr(
        scored, "inspect", lambda path: SimpleNamespace(batch=None, dynamic_quantized=False, quantized=False)
    )
    monkeypatch.setattr(QualityPass, "claims_int8", staticmethod(lambda recipe: bool(recipe.steps)))
    monkeypatch.setattr(QualityPass, "_audit", staticmethod(lambda *_: Int8Audit(3, 2, 4, 0.5)))
    return found


def new_setup(work: Path, **changes: Any) -> Setup:
    work.mkdir(exist_ok=True)
    return replace(setup_of(work), metric=metrics()["accuracy"], **changes)


def outcomes(setup: Setup, recipe: str = "slim", **options: Any) -> tuple[Outcome, Outcome]:
    """The baseline, and a variant that wasn't scored yet."""
    usual = setup.space.default_deployment()
    built = Recipe((Step(recipe),))
    deployment = Deployment(usual.provider, 1, 1, params_of(dict(usual.options) | options))
    return Outcome(Variant(Recipe(), usual), setup.model), Outcome(Variant(built, deployment), artifact_of(built))


def score_both(setup: Setup, cache: Path, data: Any = None, **more: Any) -> tuple[Any, Any, Outcome]:
    """Baseline's and candidate's readings in a run of its own."""
    data = data if data is not None else data_of()
    baseline, outcome = outcomes(setup, **more)
    quality = QualityPass(setup, baseline, SharedCache(CacheFolder(cache)))
    limits = ChildLimits(10.0)
    return (
        quality.run(baseline, data, limits=limits, early=False),
        quality.run(outcome, data, limits=limits, early=True),
        outcome,
    )


def data_of(digest: str = "v") -> Any:
    return SimpleNamespace(**{**vars(split(n=N)), "digest": digest, "labels": LABELS})


def test_next_run_scores_nothing_again(tmp_path: Path, runs: list[str]) -> None:
    """The same reading, raw scores and audit; its price is told, not spent."""
    first = score_both(new_setup(tmp_path / "a"), tmp_path / "cache")
    count = len(runs)

    again = score_both(new_setup(tmp_path / "b"), tmp_path / "cache")

    assert count == 2
    assert len(runs) == count
    assert again[:2] == first[:2]
    assert again[1][1] == Int8Audit(3, 2, 4, 0.5)
    raw, before = again[1][0].raw, first[1][0].raw
    assert raw.candidate.tolist() == before.candidate.tolist()
    assert first[2].seconds == {}
    assert again[2].seconds["evaluate_saved"] > 0


@pytest.mark.parametrize(
    "change",
    [
        lambda setup: (setup, {"data": data_of("other")}),
        lambda setup: (setup, {"recipe": "other"}),
        lambda setup: (setup, {"graph_optimization": "none"}),
        lambda setup: (replace(setup, metric=metrics()["balanced_accuracy"]), {}),
        lambda setup: (replace(setup, problem=replace(setup.problem, metric=MetricSpec("accuracy", output="y"))), {}),
        lambda setup: (replace(setup, model=artifact_of(Recipe((Step("another"),)))), {}),
        lambda setup: (replace(setup, target=replace(setup.target, cpu_flags=("avx",))), {}),
        lambda setup: (replace(setup, batching=False), {}),
    ],
)
def test_anything_that_a_score_depends_on_makes_it_another(
    tmp_path: Path, runs: list[str], change: Callable[[Setup], tuple[Setup, dict[str, Any]]]
) -> None:
    """Data, artifact, numerics, metric, output, baseline, instruction sets, samples a run."""
    score_both(new_setup(tmp_path / "a"), tmp_path / "cache")
    runs.clear()

    setup, more = change(new_setup(tmp_path / "b"))
    score_both(setup, tmp_path / "cache", **more)

    assert "0" in runs


def test_how_a_session_runs_is_no_matter(tmp_path: Path, runs: list[str]) -> None:
    """Memory arenas and spinning threads don't change a sum."""
    score_both(new_setup(tmp_path / "a"), tmp_path / "cache", arena=True)
    runs.clear()

    score_both(new_setup(tmp_path / "b"), tmp_path / "cache", arena=False)

    assert runs == []
    options = {"spinning": False, "arena": True, "graph_optimization": "all"}
    assert numerics(Deployment("cpu", 2, 8, params_of(options)), 4) == ["cpu", {"graph_optimization": "all"}, 4]


def test_shapes_that_openvino_compiles_for_are_numerics() -> None:
    """Other shapes are other kernels: one answered garbage where the other was right."""
    fixed, dynamic = (Deployment("openvino", options=(("shapes", shapes),)) for shapes in ("fixed", "dynamic"))

    assert numerics(fixed, 4) != numerics(dynamic, 4)


@pytest.mark.parametrize("scenario", ["offline", "server"])
def test_deployments_of_one_artifact_share_a_score_and_only_new_sizes_are_compared(
    tmp_path: Path, runs: list[str], monkeypatch: pytest.MonkeyPatch, scenario: str
) -> None:
    """Batches of 1, 2 and 4 are all scored 4 at a time; that answers agree holds for later runs too."""
    asked: list[tuple[int, ...]] = []
    monkeypatch.setattr(scored, "check_sizes", lambda *_, sizes, batch, **__: asked.append((batch, *sizes)))

    def score_all(work: Path) -> list[bool]:
        setup = replace(setup_of(work, scenario=scenario), metric=metrics()["accuracy"])
        baseline, outcome = outcomes(setup)
        quality, known = QualityPass(setup, baseline, SharedCache(CacheFolder(tmp_path / "cache"))), []
        for batch in (1, 2, 4, 2):
            deployment = replace(outcome.variant.deployment, batch=batch)
            served = Outcome(replace(outcome.variant, deployment=deployment), outcome.artifact)
            known.append(quality.knows(served, data_of()))
            quality.run(served, data_of(), limits=ChildLimits(10.0), early=False)
        return known

    for work in ("a", "b"):
        (tmp_path / work).mkdir()

    assert score_all(tmp_path / "a") == [False, False, True, True]
    assert (runs.count("0"), asked) == (1, [(4, 2)])  # 1 was compared as the score was taken
    assert score_all(tmp_path / "b") == [False, True, True, True]
    assert (runs.count("0"), asked) == (1, [(4, 2)])


def test_size_with_other_answers_is_refused_each_time(
    tmp_path: Path, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A score that is known says nothing of it, and goes on being one for the other sizes."""

    def differ(*_: object, **__: object) -> None:
        raise VariantFailed(Failure.WRONG_NUMERICS, "other answers")

    monkeypatch.setattr(scored, "check_sizes", differ)
    setup = new_setup(tmp_path / "a")
    baseline, one = outcomes(setup)
    two = Outcome(replace(one.variant, deployment=replace(one.variant.deployment, batch=2)), one.artifact)
    quality = QualityPass(setup, baseline)
    quality.run(one, data_of(), limits=ChildLimits(10.0), early=False)

    for _ in range(2):
        with pytest.raises(VariantFailed, match="other answers"):
            quality.run(two, data_of(), limits=ChildLimits(10.0), early=False)
    assert quality.knows(one, data_of())


def test_other_library_version_scores_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An update of the runtime makes every score another."""
    setup = new_setup(tmp_path)
    before = scorer(setup)
    monkeypatch.setattr(module.metadata, "version", lambda name: "99")

    assert scorer(setup) != before


def test_versions_are_those_of_the_providers_in_the_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What computes is its provider's own word: an update of torch changes what torch_compile answers, and no more."""
    setup = new_setup(tmp_path)
    with_torch = replace(setup, space=replace(setup.space, providers={"cpu": {}, "torch_compile": {}, "openvino": {}}))
    before = [scorer(setup), scorer(with_torch)]

    def changed(other: str) -> list[bool]:
        monkeypatch.setattr(module.metadata, "version", lambda name: "99" if name == other else version(name))
        return [scorer(s) != old for s, old in zip((setup, with_torch), before, strict=True)]

    version = module.metadata.version
    found = {name: changed(name) for name in ("onnxruntime", "torch", "openvino", "numpy", "optuna")}

    assert found == {
        "onnxruntime": [True, True],
        "torch": [False, True],
        "openvino": [False, True],
        "numpy": [True, True],
        "optuna": [False, False],
    }


def test_users_code_keeps_scores_from_other_runs(tmp_path: Path, runs: list[str]) -> None:
    """What a function imports and reads can't be known: its scores hold for one run."""
    setup = new_setup(tmp_path / "a")
    mine = FunctionMetric("mine", True, lambda outputs, labels, options: 0.0, "", function=lambda *_: 0.5)
    hooked = replace(setup, problem=replace(setup.problem, data=replace(setup.problem.data, preprocess="a.py:f")))

    assert scorer(setup) is not None
    assert scorer(hooked) is None
    assert scorer(replace(setup, metric=mine)) is None
    score_both(hooked, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_damaged_score_is_taken_again(tmp_path: Path, runs: list[str]) -> None:
    """A flipped byte costs a pass over the data, not a wrong verdict."""
    first = score_both(new_setup(tmp_path / "a"), tmp_path / "cache")
    for path in (tmp_path / "cache" / "quality").iterdir():
        content = bytearray(path.read_bytes())
        content[len(content) // 3] ^= 1
        path.write_bytes(content)
    runs.clear()

    again = score_both(new_setup(tmp_path / "b"), tmp_path / "cache")

    assert len(runs) == 2
    assert again[:2] == first[:2]


def test_full_disk_costs_this_run_nothing(tmp_path: Path, runs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The reading is there; only later runs have to take it again."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_sealed", full)

    reading: QualityReading = score_both(new_setup(tmp_path / "a"), tmp_path / "cache")[1][0]

    assert isinstance(reading.raw, RawScores)
    assert not (tmp_path / "cache").exists()


def test_score_of_another_layout_counts_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole file whose fields this version doesn't have is no error."""
    kept = KeptScores(SharedCache(CacheFolder(tmp_path)))
    monkeypatch.setattr(module, "record_bytes", lambda score: b"something else")
    reading = SimpleNamespace(metric="accuracy")
    kept.put("k", KeptScore(reading, None, 1.0), artifact_of(Recipe()), data_of())  # type: ignore[arg-type]

    assert kept.get("k") is None
    assert kept.get("none") is None


def test_scores_depend_on_all_that_the_scoring_child_works_with(repository: Path) -> None:
    """What is changed there must not leave the scores, and the sizes that agreed with them, of before."""
    seen, todo = set(), ["autopilot.bench.scorer"]
    while todo:
        name = todo.pop()
        seen.add(name)
        tree = ast.parse((repository / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8"))
        used = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        todo += [m for m in used - seen - PLUMBING if m.startswith("autopilot.bench.")]

    assert "autopilot.bench.answers" in seen
    assert seen <= set(module._SCORING)
