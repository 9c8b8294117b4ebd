"""What is said before trial 1: limits that can't be shown here, and an audit that variants will fail."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopilot.budget import Budget, Limit
from autopilot.plugins import metrics
from autopilot.profile import Measurement
from autopilot.scoring import least_drop, samples_for, score
from autopilot.search.foreseen import foreseen, sample_notes, unmeasurable_notes
from autopilot.spec import DataSpec
from tests.unit.search_support import Facts, FakeEvaluator, Recorder, setup_of

ACCURACY = metrics()["accuracy"]
NO_COUNTER = Measurement.missing("energy_mj", "no RAPL files in /sys/class/powercap.")
DATA = DataSpec(Path("valid.npz"))
FALLBACK = "provider_fallback: 1 of 8 nodes (12.5%) run on CPUExecutionProvider, not on TornExecutionProvider as asked."


@pytest.mark.parametrize("name", ["accuracy", "agreement", "balanced_accuracy", "f1_macro"])
@pytest.mark.parametrize("n", [30, 300])
def test_least_drop_is_what_scoring_gives_without_a_changed_decision(name: str, n: int) -> None:
    """The interval of the score itself, not of another formula: at the least limit the verdict turns."""
    metric = metrics()[name]
    labels = np.arange(n) % 2
    outputs = np.eye(2, dtype=np.float32)[labels]
    drop = score(metric, {}, outputs=outputs * 2, baseline=outputs, labels=labels, split_name="test").drop

    assert drop.high == pytest.approx(least_drop(metric, n), rel=1e-6)


def test_metrics_that_see_every_change_rule_out_any_loss() -> None:
    """Of them nothing is foreseen, nor of what a user's function does."""
    assert [least_drop(metrics()[name], 30) for name in ("mae", "log_loss", "roc_auc", "r2")] == [0.0] * 4
    assert samples_for(metrics()["mae"], 0.01) == 1


@given(st.floats(1e-4, 0.5), st.sampled_from(["accuracy", "f1_macro"]))
def test_samples_for_is_the_fewest_that_do(drop: float, name: str) -> None:
    """One less doesn't."""
    metric = metrics()[name]
    needed = samples_for(metric, drop)

    assert least_drop(metric, needed) <= drop * (1 + 1e-9)
    assert needed == 1 or least_drop(metric, needed - 1) > drop * (1 - 1e-9)


def test_limit_that_the_samples_can_not_show_is_told_with_what_would_do() -> None:
    """A limit of 0.01 less its margin on 300 samples: how many it takes, in which file, and what limit would do."""
    budget = Budget((Limit("quality_drop", 0.01, margin=0.02),))

    (said,) = sample_notes(budget, ACCURACY, 300, DATA)
    (own_test,) = sample_notes(budget, ACCURACY, 300, replace(DATA, test=Path("test.npz")))

    assert "can't be shown on 300 held-back samples" in said
    assert "0.0126" in said
    assert "it takes at least 389 held-back ones (a data.test, or 1167 samples in data.validation)" in said
    assert "or a limit of 0.013" in said
    assert "389 held-back ones (data.test)" in own_test


@pytest.mark.parametrize(
    ("limit", "n"),
    [(Limit("quality_drop", 0.02), 300), (Limit("quality_drop", 0.01), 400), (Limit("quality", 0.9, upper=False), 30)],
)
def test_nothing_is_said_of_limits_that_can_be_shown(limit: Limit, n: int) -> None:
    """A note that comes always is read by nobody."""
    assert sample_notes(Budget((limit,)), ACCURACY, n, DATA) == []


def test_limit_of_no_loss_at_all_asks_for_no_number_of_samples() -> None:
    """None would do."""
    (said,) = sample_notes(Budget((Limit("quality_drop", 0.0),)), ACCURACY, 300, DATA)

    assert said.endswith("a limit of 0.0127 can be shown")


def test_axis_without_a_figure_is_told_with_the_reason_and_the_way_out() -> None:
    """The machine's lack is every variant's; another may follow from the provider."""
    budget = Budget((Limit("energy_mj", 5.0), Limit("size_mb", 1.0), Limit("gpu_memory_mb", 9.0)))
    measured = {
        "energy_mj": NO_COUNTER,
        "size_mb": Measurement.exact("size_mb", 0.5, ""),
        "gpu_memory_mb": Measurement.missing("gpu_memory_mb", "it runs on no GPU"),
    }

    energy, gpu = unmeasurable_notes(budget, measured, providers=2)

    assert energy.startswith("energy_mj <= 5: there is no figure here for the model as given (no RAPL files")
    assert "no variant can be shown to keep the limit" in energy
    assert "remove the limit" in energy
    assert "a variant like that can't be shown" in gpu


@pytest.mark.parametrize(("audit", "said"), [("fail", True), ("warn", False)])
def test_audit_that_the_model_as_given_fails_is_told_before_the_search(tmp_path: Path, audit: Any, said: bool) -> None:
    """With what comes of it: every variant like that fails, the model as given at the end included."""
    setup = setup_of(tmp_path, audit=audit, budget=Budget((Limit("quality_drop", 0.5),)))
    evaluator: Any = FakeEvaluator(setup, Recorder(), lambda variant: Facts())
    evaluator.measure_baseline()
    evaluator.reference.warnings += ["the server was bound to no particular cores", FALLBACK]

    notes = foreseen(evaluator)

    assert [FALLBACK in note and "`audit: warn`" in note for note in notes] == ([True] if said else [])
