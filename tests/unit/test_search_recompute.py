"""A run's figures and verdicts again from its raw readings: equal, or said where they differ."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import autopilot
from autopilot.budget import Budget, Judgement, Limit
from autopilot.cli import main
from autopilot.contracts import Stage
from autopilot.errors import BadInput, Failure
from autopilot.profile import Measurement, Profile
from autopilot.profile.storage import save_record
from autopilot.recipe import Deployment, Recipe, Step, Variant
from autopilot.result import Candidate, Status, StudyResult, TrialRecord, TrialState
from autopilot.search import recompute_file, recompute_run
from autopilot.search.outcome import Outcome
from autopilot.search.recomputed import deviation
from autopilot.search.samples import WORK, Samples, beside_name, save_samples, verified_name
from autopilot.search.summary import summarise
from tests.scoring_support import classifier
from tests.scoring_support import reading as scored
from tests.unit.search_support import artifact_of, reading, setup_of

BUDGET = Budget(
    (
        Limit("latency_p50_ms", 0.6, relative=True),
        Limit("peak_memory_mb", 0.9, relative=True),
        Limit("quality_drop", 0.05),
        Limit("latency_p97.5_ms", 5.0),
    )
)
BASELINE = Variant(Recipe(), Deployment("cpu"))
SLIM = Variant(Recipe((Step("slim"),)), Deployment("cpu"))


def profile_of(variant: Variant, ms: float, memory_mb: int, *, beside: bool) -> Profile:
    """Readings of all passes."""
    base, labels = classifier(400, 0.9)
    mine, _ = classifier(400, 0.9, seed=0) if variant is BASELINE else classifier(400, 0.89)
    return Profile(
        variant.id,
        size_bytes=1234,
        load_s=np.array([0.21, 0.2, 0.22]),
        peak_memory_bytes=memory_mb * 1_000_000,
        latency=reading(ms),
        baseline_latency=reading(1.0) if beside else None,
        quality=scored("accuracy", mine, base, labels, same_model=variant is BASELINE),
    )


class Run:
    """A finished run in a folder, its readings kept as the search keeps them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.work = folder / WORK
        self.work.mkdir(parents=True)
        self.problem = setup_of(folder, budget=BUDGET).problem
        self.records: list[TrialRecord] = []

    def keep(
        self, name: str, variant: Variant, profile: Profile, *, beside: Mapping[str, Measurement] | None, file: str = ""
    ) -> Outcome:
        """Measure, judge and keep, as the evaluator and the book do."""
        outcome = Outcome(variant, artifact_of(variant.recipe), profile=profile, stage=Stage.QUALITY)
        outcome.baseline_samples = file
        outcome.measured |= summarise(self.problem, profile, Stage.QUALITY, beside)
        save_samples(self.work, name, outcome, BUDGET.judge(outcome.measured))
        return outcome

    def trial(self, outcome: Outcome, **more: Any) -> None:
        told: dict[str, Any] = {"state": TrialState.COMPLETE, "failure": None, "reason": "", "stage": "quality"}
        verdict = BUDGET.judge(outcome.measured) if outcome.measured else None
        told |= {"measured": outcome.measured, "verdict": verdict} | more
        self.records.append(TrialRecord(outcome.variant.id, len(self.records), variant=outcome.variant, **told))

    def write(self, best: Outcome | None, baseline: Outcome, number: int = 1) -> None:
        chosen = None if best is None else candidate(best, number)
        result = StudyResult(
            status=Status.IN_BUDGET if best else Status.NO_FIT,
            name="simulated",
            objective="latency_p50_ms",
            baseline=candidate(baseline, 0),
            best=chosen,
            nearest=None,
            pareto=(),
            trials=tuple(self.records),
            explanation="",
            budget=BUDGET,
            environment={},
            elapsed_s=1.0,
        )
        (self.folder / "result.json").write_text(result.text())


def candidate(outcome: Outcome, number: int) -> Candidate:
    verdict = BUDGET.judge(outcome.measured)
    variant = outcome.variant
    return Candidate(variant.id, variant.recipe, variant.deployment, "", "", outcome.measured, verdict, number=number)


@pytest.fixture
def finished(tmp_path: Path) -> Run:
    """Baseline, a winner that was verified, a failed trial and a duplicate."""
    run = Run(tmp_path / "run")
    baseline = run.keep("0", BASELINE, profile_of(BASELINE, 1.0, 100, beside=False), beside=None)
    run.trial(baseline)
    beside = baseline.measured
    slim = run.keep("1", SLIM, profile_of(SLIM, 0.5, 80, beside=True), beside=beside, file="0")
    run.trial(slim, stage="verify")
    again = run.keep(verified_name(1), SLIM, profile_of(SLIM, 0.51, 81, beside=True), beside=beside, file="0")
    own = run.keep(beside_name(1), BASELINE, profile_of(BASELINE, 1.01, 100, beside=False), beside=None)
    run.trial(Outcome(SLIM, artifact_of(Recipe())), state=TrialState.FAILED, failure=Failure.CRASH)
    run.trial(slim, state=TrialState.DUPLICATE, reason="the same as trial 1")
    run.write(again, own)
    return run


def edit(run: Run, change: Any) -> None:
    """Change result.json's content."""
    path = run.folder / "result.json"
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_all_that_a_run_said_follows_from_its_readings(finished: Run) -> None:
    """Trials, the winner's second measurement and the baseline beside it, to the last digit."""
    found = recompute_run(finished.folder)

    assert [(row.trial, row.what, row.agrees, row.deviation) for row in found.rows] == [
        (0, "trial", True, 0.0),
        (1, "trial", True, 0.0),
        (1, "verified", True, 0.0),
        (1, "baseline", True, 0.0),
        (2, "trial", None, 0.0),
        (3, "trial", None, 0.0),
    ]
    assert [row.note for row in found.rows[4:]] == ["failed (crash): nothing to judge", "the same as trial 1"]
    assert found.agree
    assert found.sentence.startswith("All 4 recomputed verdicts agree")
    assert "latency_p97.5_ms" in found.rows[1].to_json()["measured"]


def test_verdict_that_its_readings_do_not_give_is_found(finished: Run) -> None:
    """A stored judgement that was changed."""
    edit(finished, lambda value: value["best"]["verdict"].update(peak_memory_mb="undecided"))

    found = recompute_run(finished.folder)

    assert [row.what for row in found.rows if row.agrees is False] == ["verified"]
    assert found.sentence.startswith("1 of 4 recomputed differ from what was stored: trial 1 (verified).")


def test_figure_that_its_readings_do_not_give_is_found(finished: Run) -> None:
    """A bound that was changed by a thousandth leaves the verdict, and is seen."""
    edit(finished, lambda v: v["trials"][0]["measured"]["latency_p50_ms"].update(high=1.5))

    row = recompute_run(finished.folder).rows[0]

    assert (row.agrees, row.axis) == (False, "latency_p50_ms")
    assert 0.2 < row.deviation < 0.5


def test_changed_readings_are_found(finished: Run) -> None:
    """Slower requests than those the verdict came from."""
    path = finished.work / "samples" / "1.npz"
    kept = Samples.load(path)
    save_record(path, replace(kept, profile=replace(kept.profile, latency=reading(0.7))))

    row = recompute_run(finished.folder).rows[1]

    assert row.again is not None
    assert row.again.verdict is not None
    assert row.agrees is False
    assert row.again.verdict.per_limit["latency_p50_ms"] is Judgement.OUT


def test_trials_of_a_resumed_run_are_held_against_the_baseline_they_were_measured_with(tmp_path: Path) -> None:
    """The model as given is measured anew when a run goes on; ratios of memory are to those figures."""
    run = Run(tmp_path)
    first = run.keep("0", BASELINE, profile_of(BASELINE, 1.0, 100, beside=False), beside=None)
    run.trial(first)
    later = run.keep("baseline-1", BASELINE, profile_of(BASELINE, 1.0, 70, beside=False), beside=None)
    slim = run.keep("1", SLIM, profile_of(SLIM, 0.5, 80, beside=True), beside=later.measured, file="baseline-1")
    run.trial(slim)
    run.write(None, first)

    row = recompute_run(tmp_path).rows[1]

    assert row.agrees
    assert row.stored.verdict is not None
    assert row.stored.verdict.per_limit["peak_memory_mb"] is Judgement.OUT


def test_missing_and_old_readings_are_said_to_be_so(finished: Run) -> None:
    """Neither counts as agreeing, neither as differing; without the baseline's, ratios can't be computed."""
    folder = finished.work / "samples"
    (folder / "1-verify.npz").unlink()
    np.savez(folder / "0.npz", latency_s=np.ones(5), block=np.zeros(5, int))

    found = recompute_run(finished.folder)

    notes = {(row.trial, row.what): row.note for row in found.rows if row.agrees is None}
    assert notes[1, "verified"] == "no readings were kept"
    assert "no header" in notes[0, "trial"]
    assert "0.npz" in notes[1, "trial"]
    assert found.agree
    assert found.sentence.endswith("5 without readings.")


def test_run_without_readings_is_bad_input(finished: Run, tmp_path: Path) -> None:
    """A copy of the results alone."""
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "result.json").write_text((finished.folder / "result.json").read_text())

    with pytest.raises(BadInput, match="has no readings"):
        recompute_run(tmp_path / "copy")


def test_finalist_that_did_not_win_is_held_against_what_its_file_says(finished: Run) -> None:
    """Its second verdict stands nowhere else."""
    edit(finished, lambda value: value["best"].update(number=0))

    rows = recompute_run(finished.folder).rows

    assert [(row.what, row.agrees) for row in rows if row.trial == 1] == [("trial", True), ("verified", True)]


def test_check_file_stands_alone(finished: Run, tmp_path: Path) -> None:
    """Budget, baseline and readings are in it."""
    kept = Samples.load(finished.work / "samples" / "1.npz")
    own = Samples.load(finished.work / "samples" / "0.npz")
    alone = replace(kept, baseline="", baseline_profile=own.profile, budget=BUDGET, objective="latency_p50_ms")
    save_record(tmp_path / "check.npz", alone)

    found = recompute_file(tmp_path / "check.npz")

    assert [(row.what, row.agrees, row.deviation) for row in found.rows] == [("check", True, 0.0)]
    assert main(["show", str(tmp_path / "check.npz"), "--samples"]) == 0
    with pytest.raises(BadInput, match="part of a run"):
        recompute_file(finished.work / "samples" / "1.npz")


def test_study_gives_readings_and_recomputes(finished: Run) -> None:
    """From Python."""
    study = autopilot.Study.load(finished.folder)

    profile = study.samples(1)
    assert profile.latency is not None
    assert profile.latency.latency_s.tolist() == reading(0.5).latency_s.tolist()
    assert study.samples(1, verified=True).peak_memory_bytes == 81_000_000
    assert study.recomputed().agree
    with pytest.raises(BadInput, match=r"3\.npz"):
        study.samples(3)


# ---- the command -----------------------------------------------------------------------------------


def test_show_samples_exits_0_where_all_agree_and_1_where_one_differs(
    finished: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the run's own verdict; the last line says it in words."""
    assert main(["show", str(finished.folder), "--samples"]) == 0
    assert "All 4 recomputed verdicts agree" in capsys.readouterr().out

    edit(finished, lambda value: value["trials"][1]["verdict"].update(peak_memory_mb="out"))
    assert main(["show", str(finished.folder), "--samples"]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "peak_memory_mb judged differently" in out
    assert "1 of 4 recomputed differ from what was stored: trial 1 (trial)." in out

    assert main(["show", str(finished.folder), "--samples", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["agree"] is False
    assert [row["agrees"] for row in told["rows"]] == [True, False, True, True, None, None]


def test_show_samples_of_one_trial_prints_every_figure_and_its_requests(
    finished: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Value, interval, n and how; a line a request in the CSV file."""
    requests = tmp_path / "requests.csv"

    assert main(["show", str(finished.folder), "--samples", "--trial", "1", "--csv", str(requests)]) == 0

    out = " ".join(capsys.readouterr().out.split())
    assert "peak_memory_mb: high-water mark" in out
    assert "McNemar's exact p" in out
    assert "trial 1 again" in out
    with requests.open() as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 800
    assert {row["who"] for row in rows} == {"candidate", "baseline"}
    assert float(rows[0]["latency_ms"]) == pytest.approx(reading(0.5).latency_s[0] * 1e3, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--trial", "1"], "need --samples"),
        (["--samples", "--trial", "9"], "there is no trial 9"),
        (["--samples", "--csv", "a.csv"], "--csv needs --trial"),
        (["--samples", "--trial", "1", "--csv", "gone/a.csv"], "can't be written"),
    ],
)
def test_show_samples_refuses_what_it_can_not_do(
    finished: Run, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    """Exit 2 and one paragraph."""
    assert main(["show", str(finished.folder), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_show_samples_of_an_mlflow_run_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """MLflow has no readings."""
    assert main(["show", "0" * 32, "--samples"]) == 2
    assert "MLflow has none" in capsys.readouterr().err


# ---- how far two measurements are apart ------------------------------------------------------------

FIGURE = st.floats(-1e6, 1e6)


@given(FIGURE, FIGURE, FIGURE)
def test_deviation_of_a_measurement_from_itself_is_zero(value: float, low: float, high: float) -> None:
    """Unbounded sides included."""
    for m in (Measurement("x", value, low, high), Measurement("x", value, -math.inf, math.inf), Measurement("x", None)):
        assert deviation(m, m) == 0.0


@given(FIGURE, st.sampled_from(["value", "low", "high"]), st.floats(1e-3, 10.0))
def test_deviation_sees_every_figure(value: float, side: str, by: float) -> None:
    """A change of any of them counts, as a share of the largest."""
    m = Measurement("x", value, value - 1, value + 1)
    changed = replace(m, **{side: getattr(m, side) + by})

    assert deviation(m, changed) == pytest.approx(by / max(abs(v) for v in _all(m) + _all(changed)))


def _all(m: Measurement) -> list[float]:
    return [v for v in (m.value, m.low, m.high) if v is not None]


def test_deviation_from_nothing_is_infinite() -> None:
    """A figure that is gone, a bound that is gone, a ratio that is gone."""
    m = Measurement("x", 1.0, 0.0, 2.0)
    for other in (None, Measurement.missing("x", "gone"), replace(m, high=math.inf)):
        assert deviation(m, other) == math.inf
