"""The records of a finished study: JSON there and back, exit codes, rows."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopilot.artifact import Artifact
from autopilot.budget import Budget, Judgement, Limit, Verdict
from autopilot.errors import BadInput, Failure
from autopilot.profile import Interval, Measurement
from autopilot.recipe import Deployment, Recipe, Step, Variant, params_of
from autopilot.result import (
    HELD_AGAIN,
    Candidate,
    MlflowRef,
    Status,
    StudyResult,
    TrialRecord,
    TrialState,
    places,
    recipe_text,
    trial_rows,
    trials_csv,
)
from autopilot.result.jsonable import measurement_from_json, measurement_to_json, plain
from autopilot.testing import fake_result, unbounded

AXES = ("latency_p50_ms", "latency_p99_ms", "quality_drop", "size_mb", "energy_mj")
finite = st.floats(allow_nan=False, allow_infinity=False)
text = st.text(max_size=12)
names = st.from_regex(r"[a-z_0-9]{1,8}", fullmatch=True)
params = st.dictionaries(names, text | st.booleans() | st.integers(-9, 9) | finite | st.none(), max_size=3).map(
    params_of
)


@st.composite
def intervals(draw: st.DrawFn) -> Interval:
    """Intervals with any finite value; a side may be unbounded."""
    low = draw(finite | st.just(-math.inf))
    high = draw(finite | st.just(math.inf))
    return Interval(draw(finite), low, high)


@st.composite
def measurements(draw: st.DrawFn, axis: str) -> Measurement:
    """Measured with bounds, without bounds, half-open, or not measurable."""
    if draw(st.booleans()):
        return Measurement.missing(axis, draw(text))
    low = draw(st.none() | finite | st.just(-math.inf))
    high = draw(st.none() | finite | st.just(math.inf))
    ratio = draw(st.none() | intervals())
    return Measurement(axis, draw(finite), low, high, draw(st.integers(0, 10**6)), draw(text), ratio, draw(text))


@st.composite
def measured(draw: st.DrawFn) -> dict[str, Measurement]:
    """A few axes with their measurements."""
    return {axis: draw(measurements(axis)) for axis in draw(st.lists(st.sampled_from(AXES), unique=True))}


@st.composite
def verdicts(draw: st.DrawFn) -> Verdict:
    """Any verdict."""
    limits = draw(st.dictionaries(st.sampled_from(AXES), st.sampled_from(Judgement)))
    violations = draw(st.dictionaries(st.sampled_from(AXES), finite))
    return Verdict(draw(st.sampled_from(Judgement)), limits, violations)


steps = st.builds(Step, names.filter(lambda n: n != "technique"), params)
recipes = st.builds(Recipe, st.lists(steps, max_size=3).map(tuple))
deployments = st.builds(Deployment, st.sampled_from(("cpu", "openvino")), st.integers(1, 8), st.integers(1, 64), params)
paths = names.map(lambda n: Path("models") / n)
artifacts = st.builds(
    Artifact, paths, st.lists(paths).map(tuple), st.integers(0, 10**12), names, names, st.none() | steps
)
trials = st.builds(
    TrialRecord,
    id=names,
    number=st.integers(0, 999),
    state=st.sampled_from(TrialState),
    failure=st.none() | st.sampled_from(Failure),
    reason=text,
    stage=names,
    variant=st.builds(Variant, recipes, deployments),
    measured=measured(),
    verdict=st.none() | verdicts(),
    seconds=st.dictionaries(names, st.floats(0, 1e6)),
    artifact=st.none() | artifacts,
    warnings=st.lists(text, max_size=2).map(tuple),
    log=text,
)
candidates = st.builds(
    Candidate,
    id=names,
    recipe=recipes,
    deployment=deployments,
    artifact=text,
    sha256=text,
    measured=measured(),
    verdict=st.none() | verdicts(),
    speedup=st.none() | intervals(),
    number=st.none() | st.integers(0, 999),
)
limits = st.builds(Limit, st.sampled_from(AXES), st.floats(0.1, 9), st.booleans(), st.booleans(), st.floats(0, 0.9))
budgets = st.lists(limits, max_size=4, unique_by=lambda limit: limit.axis).map(lambda found: Budget(tuple(found)))
results = st.builds(
    StudyResult,
    status=st.sampled_from(Status),
    name=text,
    objective=names,
    baseline=candidates,
    best=st.none() | candidates,
    nearest=st.none() | candidates,
    pareto=st.lists(names, max_size=3).map(tuple),
    trials=st.lists(trials, max_size=2).map(tuple),
    explanation=text,
    budget=budgets,
    environment=st.dictionaries(names, text | st.integers() | st.lists(text, max_size=2), max_size=3),
    elapsed_s=st.floats(0, 1e6),
    mlflow=st.none() | st.builds(MlflowRef, text, text, text, st.none() | text, st.none() | st.integers(1, 99)),
    warnings=st.lists(text, max_size=2).map(tuple),
    budget_version=st.none() | st.integers(0, 99),
    rationale=st.none() | text,
)


def _strict(value: str) -> Any:
    """Parse JSON as the standard has it: without NaN and Infinity."""

    def refuse(name: str) -> Any:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(value, parse_constant=refuse)


@settings(max_examples=60, deadline=None)
@given(results)
def test_result_survives_json_unchanged(result: StudyResult) -> None:
    """Whatever a result holds, its JSON text is standard JSON and gives an equal result back."""
    assert StudyResult.from_json(_strict(result.text())) == result


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_measurement_without_a_number_is_written_as_missing(value: float) -> None:
    """A reading that is no number never becomes one; the reason says what it was."""
    written = measurement_to_json(Measurement("latency_p50_ms", value, value, value, 3))

    assert written == {"value": None, "reason": f"the reading was {value}"}


def test_unbounded_interval_is_null_in_json_and_infinite_again() -> None:
    """An upper bound that doesn't exist is null, one that was never taken is absent."""
    open_ended = Measurement("latency_p99_ms", 3.0, 2.5, math.inf, 40)
    no_bounds = Measurement("size_mb", 3.0)

    assert measurement_to_json(open_ended)["high"] is None
    assert "high" not in measurement_to_json(no_bounds)
    assert measurement_from_json("latency_p99_ms", measurement_to_json(open_ended)) == open_ended
    assert measurement_from_json("size_mb", measurement_to_json(no_bounds)) == no_bounds


def test_ratio_without_a_number_is_left_out() -> None:
    """A ratio that is NaN (a baseline of 0) is no ratio."""
    broken = Measurement("size_mb", 1.0, 1.0, 1.0, 1, "", Interval(math.nan, math.nan, math.nan))

    assert measurement_from_json("size_mb", measurement_to_json(broken)).ratio is None


def test_plain_makes_numpy_and_paths_writable() -> None:
    """What probes put into ``environment`` is written, whatever its type."""
    value = {"a": np.float32(0.5), "b": np.arange(2), "c": Path("x"), "d": math.nan, "e": (1, True), "f": np.int64(3)}

    assert _strict(json.dumps(plain(value))) == {"a": 0.5, "b": [0, 1], "c": "x", "d": None, "e": [1, True], "f": 3}


@pytest.mark.parametrize(("status", "code"), [("in_budget", 0), ("no_fit", 3), ("undecided", 4)])
def test_exit_code_follows_status(status: str, code: int) -> None:
    """Scripts rely on these codes."""
    assert fake_result(Status(status)).exit_code == code


def test_result_json_has_the_keys_of_the_contract() -> None:
    """interface.md names these keys; they keep name and meaning."""
    value = fake_result().to_json()
    study = "schema status name objective baseline best pareto trials explanation budget environment elapsed_s mlflow"
    best = "id recipe deployment artifact sha256 measured verdict speedup"
    trial = "id number state failure stage recipe deployment measured verdict seconds"

    assert set(study.split()) <= value.keys()
    assert set(best.split()) <= value["best"].keys()
    assert set(trial.split()) <= value["trials"][0].keys()
    assert value["schema"] == 1
    assert value["best"]["verdict"] == {"latency_p50_ms": "in", "quality_drop": "in", "size_mb": "in"}
    assert value["best"]["recipe"] == [{"technique": "static_int8", "per_channel": True}]
    assert value["best"]["deployment"]["provider"] == "cpu"
    assert value["best"]["measured"]["latency_p50_ms"].keys() >= {"value", "low", "high", "n"}


def test_best_is_null_and_nearest_given_when_nothing_fits() -> None:
    """A variant outside the budget is never called best."""
    value = fake_result(Status.NO_FIT).to_json()

    assert value["best"] is None
    assert value["nearest"]["verdict"]["latency_p50_ms"] == "out"


def test_load_reads_a_run_folder_or_its_file(tmp_path: Path) -> None:
    """Both forms that users type give the same result."""
    result = unbounded(fake_result())
    (tmp_path / "result.json").write_text(result.text(), encoding="utf-8")

    assert StudyResult.load(tmp_path) == result
    assert StudyResult.load(tmp_path / "result.json") == result


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (None, "can't be read"),
        ('{"schema": 1', "not valid JSON"),
        ('{"schema": 99}', "schema 99"),
        ('{"schema": 1, "status": "in_budget"}', "not a result of autopilot"),
        ("[]", "not a result of autopilot"),
        ('{"schema": 1, "status": "splendid"}', "not a result of autopilot"),
    ],
)
def test_load_refuses_what_is_no_result(tmp_path: Path, content: str | None, wrong: str) -> None:
    """A missing, torn or foreign file is bad input, with the file named."""
    if content is not None:
        (tmp_path / "result.json").write_text(content, encoding="utf-8")

    with pytest.raises(BadInput, match=wrong):
        StudyResult.load(tmp_path)


def test_rows_have_every_column_in_a_stable_order() -> None:
    """Columns depend on the budget and on what was measured, not on the order of the trials."""
    result = fake_result()
    columns, rows = trial_rows(result)
    turned = replace(result, trials=tuple(reversed(result.trials)))

    assert trial_rows(turned)[0] == columns
    assert columns[:3] == ["number", "id", "state"]
    assert columns.index("latency_p50_ms") < columns.index("quality_drop") < columns.index("energy_mj")
    assert all(list(row) == columns for row in rows)
    assert rows[1]["latency_p50_ms_verdict"] == "in"
    assert rows[1]["recipe"] == "static_int8(per_channel=True)"
    assert rows[2]["failure"] == "build_error"
    assert rows[2]["latency_p50_ms"] is None


def test_rows_hold_no_infinity() -> None:
    """An unbounded interval is an empty cell, not the text ``inf``."""
    assert "inf" not in trials_csv(unbounded(fake_result())).replace("in_budget", "")


def test_dataframe_has_one_row_a_trial() -> None:
    """``trials_dataframe`` shows the rows of trials.csv."""
    frame = fake_result().trials_dataframe()

    assert list(frame["number"]) == [0, 1, 2]
    assert list(frame["state"]) == ["complete", "complete", "failed"]


def test_empty_recipe_is_called_as_given() -> None:
    """The baseline has a name for people."""
    assert recipe_text(Recipe()) == "as given"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("fashion-cpu", "fashion-cpu"), ("team/a:b", "team-a-b"), ("..", "model.."), ("a b", "a b"), ("/x", "-x")],
)
def test_registered_name_is_one_the_registry_takes(name: str, expected: str) -> None:
    """MLflow's registry refuses slashes, colons and bare dots."""
    assert fake_result(name=name).registered_name == expected


def test_place_tells_what_became_of_a_finalist() -> None:
    """Who held when it was measured again is told from who didn't; who never was a finalist has no place."""
    result = fake_result()
    baseline, winner, other = result.trials
    held = replace(other, number=2, stage="verify", reason=HELD_AGAIN)
    broke = replace(other, number=3, stage="verify", reason="measured again: latency_p50_ms out")
    screened = replace(other, number=4, stage="profile", reason="")

    found = places(replace(result, trials=(baseline, winner, held, broke, screened)))

    assert found == {0: "baseline", 1: "best", 2: "finalist", 3: "finalist-not-held"}


def test_records_are_short_in_a_notebook() -> None:
    """What a cell shows fits a line; all of it is in ``to_json``."""
    result = fake_result()
    assert result.best is not None

    for record in (*result.trials, result.best, result.baseline):
        assert len(repr(record)) < 160
    assert repr(result.best).startswith("<candidate, trial 1: static_int8 on cpu, 1 thread")
    assert "; complete at verify, in>" in repr(result.trials[1])
