"""The book of a study: what it remembers, and what it tells the sampler."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna.trial import Trial, TrialState

from autopilot.artifact import Artifact
from autopilot.contracts import Stage
from autopilot.errors import Failure, VariantFailed
from autopilot.recipe import Deployment, Recipe, Step, Variant, params_of
from autopilot.result import TrialRecord
from autopilot.search.book import Book
from autopilot.search.finalists import Ranking
from autopilot.search.hopeless import ENOUGH_BETTER
from autopilot.search.ledger import Ledger
from autopilot.search.outcome import Outcome
from autopilot.search.sampler import RUNNABLE, Sampler
from autopilot.search.storage import local_url
from autopilot.search.worker import Worker
from tests.unit.search_support import BUDGET, SPACE, Facts, artifact_of, figures, profile_of

RANKING = Ranking("latency_p50_ms", maximize=False)


def variant(kind: str | None = None, *, arena: bool = True, slim: str | None = None) -> Variant:
    steps = [Step(name, params_of({"kind": k})) for name, k in (("slim", slim), ("int8", kind)) if k]
    return Variant(Recipe(tuple(steps)), Deployment("cpu", 1, 1, params_of({"arena": arena})))


class Study:
    """A book over a real Optuna study."""

    def __init__(self, folder: Path, *, url: str | None = None) -> None:
        lease = None if url is None else 60.0
        self.sampler = Sampler(maximize=False, seed=0, limits=BUDGET.axes)
        self.ledger = Ledger(url or local_url(folder), "s", worker=Worker.here(), lease_s=lease)
        self.book = Book(self.sampler, self.ledger, RANKING, work=folder, space=SPACE)

    def ask(self, wanted: Variant) -> Trial:
        self.sampler.enqueue(SPACE, wanted, once=False)
        trial, got = self.sampler.ask(SPACE)
        assert got == wanted
        assert self.book.claim(wanted, 99)
        return trial

    def measured(
        self,
        wanted: Variant,
        facts: Facts,
        *,
        cut: str = "",
        stage: Stage = Stage.QUALITY,
        artifact: Artifact | None = None,
    ) -> TrialRecord:
        outcome = Outcome(
            wanted,
            artifact or artifact_of(wanted.recipe),
            figures(facts, later=False),
            profile_of(wanted),
            stage,
            cut_short=cut,
        )
        self.book.measured(self.ask(wanted), outcome, BUDGET.judge(outcome.measured))
        return self.book.records[-1]

    def failed(self, wanted: Variant, failure: Failure, *, was_built: bool) -> TrialRecord:
        self.book.failed(self.ask(wanted), wanted, VariantFailed(failure, "why"), {"build": 1.0}, was_built=was_built)
        return self.book.records[-1]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path)


def test_measured_variant_is_known_again(study: Study) -> None:
    """The same variant is found; another deployment of it is another variant."""
    record = study.measured(variant("a"), Facts(0.5))

    assert study.book.same_variant(variant("a")) is record
    assert study.book.same_variant(variant("a", arena=False)) is None


def test_recipe_out_by_its_size_is_out_in_every_deployment(study: Study) -> None:
    """What was cut by the built file alone needs no other deployment."""
    record = study.measured(variant("a"), Facts(0.5), cut="certain violation of size_mb", stage=Stage.BUILD)

    assert study.book.same_variant(variant("a", arena=False)) is record


def test_twin_is_told_like_its_original_and_counts_as_duplicate(study: Study, tmp_path: Path) -> None:
    """The same bytes in the same deployment are not run again, and the sampler learns the same figure."""
    record = study.measured(variant("a"), Facts(0.4))
    assert record.artifact is not None
    twin = study.book.same_artifact(record.artifact, variant("b"))
    assert twin is record
    study.book.duplicate(study.ask(variant("b")), variant("b"), record)

    assert [t.value for t in study.sampler.trials] == [0.4, 0.4]
    assert study.book.records[-1].state.value == "duplicate"
    assert study.book.records[-1].number == 1
    assert study.book.same_artifact(record.artifact, variant("a", arena=False)) is None


@pytest.mark.parametrize(
    ("failure", "built", "dead"),
    [
        (Failure.UNSUPPORTED, False, True),
        (Failure.UNSUPPORTED, True, False),
        (Failure.BUILD_ERROR, False, False),
        (Failure.OOM, False, False),
    ],
)
def test_dead_end_is_what_can_not_be_built(study: Study, failure: Failure, built: bool, dead: bool) -> None:
    """Recipes that begin with unsupported steps are not tried; failures of a deployment say nothing of them."""
    record = study.failed(variant(slim="a"), failure, was_built=built)

    assert record.stage == ("profile" if built else "build")
    assert (study.book.dead_end(variant("b", slim="a", arena=False).recipe) is not None) is dead
    assert study.book.dead_end(variant("b").recipe) is None
    assert study.sampler.trials[-1].state is TrialState.PRUNED
    assert study.sampler.trials[-1].constraints[RUNNABLE] == 1.0


def test_skipped_trial_leaves_no_record(study: Study) -> None:
    """Optuna learns what is known already; the study's trials are those that were run."""
    study.measured(variant("a"), Facts(0.4))
    for wanted, known in ((variant("a"), study.book.records[0]), (variant("b"), None)):
        study.sampler.enqueue(SPACE, wanted, once=False)
        study.book.skipped(study.sampler.ask(SPACE)[0], known)

    assert len(study.book.records) == 1
    assert [t.state for t in study.sampler.trials] == [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED]
    assert study.ledger.finished == 1


def test_recover_knows_all_that_the_first_part_knew(study: Study, tmp_path: Path) -> None:
    """Records, twins, dead ends and recipes out by size survive; samples without a record don't."""
    first = study.measured(variant("a"), Facts(0.4))
    study.failed(variant(slim="a"), Failure.UNSUPPORTED, was_built=False)
    study.measured(variant("c"), Facts(0.9), cut="too large", stage=Stage.BUILD)
    (tmp_path / "samples" / "3.npz").write_bytes(b"of a trial that was cut off")
    again = Study(tmp_path)
    again.book.recover()

    assert [r.to_json() for r in again.book.records] == [r.to_json() for r in study.book.records]
    assert again.book.same_artifact(artifact_of(variant("a").recipe), variant("a")) is not None
    assert again.book.dead_end(variant(slim="a").recipe) == "why"
    assert again.book.same_variant(variant("c", arena=False)) is not None
    assert sorted(p.name for p in (tmp_path / "samples").iterdir()) == [f"{first.number}.npz", "2.npz"]


def test_hopeless_needs_several_clearly_better_in_budget(study: Study) -> None:
    """One lucky variant, or better ones that are out, end nobody's trial."""
    slow = figures(Facts(0.55), later=False)
    study.measured(variant("a"), Facts(0.3, drop=0.5))
    reasons = []
    for kind in ("b", "c", "a"):
        study.measured(variant(kind, slim="b"), Facts(0.3))
        reasons.append(study.book.hopeless(slow))

    assert ENOUGH_BETTER == 3
    assert reasons[:2] == [None, None]
    assert reasons[2] is not None
    assert study.book.hopeless(figures(Facts(0.305), later=False)) is None
    assert study.book.hopeless({}) is None


def test_readings_of_a_trial_that_another_run_took_over_are_not_taken_for_its_record(tmp_path: Path) -> None:
    """When the run joins the study again, the record under the variant's id is of the other machine."""
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    folders = [tmp_path / name for name in ("slow", "other")]
    for folder in folders:
        folder.mkdir()
    slow, other = (Study(folder, url=url) for folder in folders)
    slow.ledger._lease_s = -1.0  # it has run out when it begins
    trial = slow.ask(variant("a"))
    other.ledger.recover()
    other.measured(variant("a"), Facts(0.5))
    outcome = Outcome(variant("a"), artifact_of(variant("a").recipe), figures(Facts(0.9), later=False))
    outcome.profile = profile_of(variant("a"))
    slow.book.measured(trial, outcome, BUDGET.judge(outcome.measured))
    Study(folders[0], url=url).book.recover()

    assert slow.book.records == []
    assert list((folders[0] / "samples").iterdir()) == []
    assert [file.name for file in (folders[1] / "samples").iterdir()] == ["0.npz"]
