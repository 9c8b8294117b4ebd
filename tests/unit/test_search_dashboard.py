"""A finished study as Optuna has it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from autopilot.cli.dashboard import newest_run, start_dashboard
from autopilot.errors import BadInput
from autopilot.search.dashboard import common_distributions, export_study
from autopilot.testing import fake_measured, fake_result, fake_trial, fake_variant


def exported(folder: Path) -> optuna.Study:
    """The fake study (baseline, a variant in budget, one that failed) and a pruned trial, read back."""
    result = fake_result()
    cut = replace(fake_trial(3, fake_variant("float16", level=2)), measured=fake_measured(latency_ms=2.0))
    cut = replace(cut, state=type(cut.state).PRUNED, failure=None)
    url = export_study(replace(result, trials=(*result.trials, cut)), folder / "optuna.db")
    return optuna.load_study(study_name="fake-study", storage=url)


def test_trials_keep_states_values_and_parameters(tmp_path: Path) -> None:
    """Values are what was measured, in its unit."""
    study = exported(tmp_path)

    assert [t.state.name for t in study.trials] == ["COMPLETE", "COMPLETE", "FAIL", "PRUNED"]
    assert study.trials[1].values == [pytest.approx(0.4)]
    assert study.trials[1].params["static_int8.per_channel"] is True
    assert study.trials[1].params["techniques"] == "static_int8"
    assert study.trials[1].params["threads"] == 1
    assert study.best_trial.number == 1
    assert (study.direction.name, study.metric_names) == ("MINIMIZE", ["latency_p50_ms"])


def test_constraints_are_the_limits_violations(tmp_path: Path) -> None:
    """Optuna calls the baseline infeasible (it is over 70% of itself), and the winner feasible."""
    study = exported(tmp_path)

    assert study.trials[0].constraints["latency_p50_ms"] > 0
    assert all(v <= 0 for v in study.trials[1].constraints.values())


def test_attributes_hold_figures_with_bounds_and_what_went_wrong(tmp_path: Path) -> None:
    """What MLflow has of a trial is there too."""
    study = exported(tmp_path)

    attributes = study.trials[1].user_attrs
    assert attributes["latency_p50_ms_low"] < attributes["latency_p50_ms"] < attributes["latency_p50_ms_high"]
    assert attributes["verdict"] == "in"
    assert study.trials[2].user_attrs["failure"] == "build_error"
    assert study.user_attrs["budget.latency_p50_ms"] == "<= 70% of baseline"


def test_exporting_again_replaces_the_file(tmp_path: Path) -> None:
    """Not twice the trials."""
    exported(tmp_path)

    assert len(exported(tmp_path).trials) == 4


def test_numbers_stay_numbers_and_mixed_values_become_choices() -> None:
    """One distribution a name; True and 1 are different choices."""
    found = common_distributions([{"a": 1, "b": True, "c": 0.5, "d": "x"}, {"a": 8, "b": 1, "c": 2.0}])

    assert found == {
        "a": optuna.distributions.IntDistribution(1, 8),
        "b": optuna.distributions.CategoricalDistribution([True, 1]),
        "c": optuna.distributions.FloatDistribution(0.5, 2.0),
        "d": optuna.distributions.CategoricalDistribution(["x"]),
    }


def test_newest_run_is_the_one_finished_last(tmp_path: Path) -> None:
    """By its result's time; folders without a result don't count."""
    import os

    for name, age in (("old", 100), ("new", 10)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text("{}")
        os.utime(tmp_path / name / "result.json", (1e9 - age, 1e9 - age))
    (tmp_path / "unfinished").mkdir()

    assert newest_run(tmp_path) == tmp_path / "new"


def test_no_finished_run_is_bad_input(tmp_path: Path) -> None:
    """The hint names the form that takes a folder."""
    with pytest.raises(BadInput, match="no finished run"):
        newest_run(tmp_path)


def test_dashboard_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(BadInput, match="optuna-dashboard isn't installed") as caught:
        start_dashboard(tmp_path, 5000, announce=print)
    assert "from a clone: pip install -e '.[dashboard]'" in caught.value.hint  # the package is on no index
