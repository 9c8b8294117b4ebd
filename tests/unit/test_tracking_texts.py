"""What the registry's pages say, and which columns the table of runs shows."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from autopilot.result import Status
from autopilot.testing import fake_result
from autopilot.tracking.describe import best_why, describe
from autopilot.tracking.fields import version_tags
from autopilot.tracking.history import Goal
from autopilot.tracking.views import columns, runs_link, view_state


def test_description_says_what_why_and_the_verdict_of_each_limit() -> None:
    """Whoever opens a version needs no other page to know what it is."""
    result = fake_result()
    assert result.best is not None

    text = describe(result, result.best, best_why(result, result.best))

    assert "**What:** static_int8" in text
    assert "cpu, 1 thread, batch" in text
    assert "2.50 times as fast as the model as given" in text
    assert "The budget: a fake" in text
    assert "**Verdict:** in budget (budget version 3)" in text
    assert "| latency_p50_ms <= 70% of baseline | 40% of the baseline" in text
    assert text.count("\n| ") == 1 + 1 + len(result.budget.limits)


def test_description_of_a_miss_says_so() -> None:
    """No text of a winner for what isn't one."""
    result = fake_result(Status.NO_FIT)
    assert result.nearest is not None

    assert "**Verdict:** not in budget" in describe(result, result.nearest, "the nearest miss")


def test_version_tags_bind_to_budget_and_hardware() -> None:
    """The budget's version and digest, the hardware's fingerprint, the verdict."""
    result = replace(fake_result(), environment={"fingerprint": "0123456789ab", "cpu": "a processor"})
    assert result.best is not None

    tags = version_tags(result, result.best)

    assert (tags["hardware"], tags["cpu"], tags["budget_version"]) == ("0123456789ab", "a processor", "3")
    assert (tags["verdict"], tags["objective"]) == ("in", "latency_p50_ms")
    assert len(tags["budget_digest"]) == 12


def test_columns_are_the_objective_and_the_budget_once_each() -> None:
    """Verdict first, then figures, then what was done."""
    keys = columns(["latency_p50_ms", "latency_p50_ms", "size_mb"])

    assert len(keys) == len(set(keys))
    assert keys[:3] == ["tags.`place`", "tags.`verdict`", "tags.`state`"]
    assert keys.index("metrics.`latency_p50_ms`") < keys.index("metrics.`size_mb`") < keys.index("params.`threads`")


def test_view_lists_the_trials_of_one_study_best_first() -> None:
    """Only its nested runs: under the parent's fold nobody would see them."""
    state = json.loads(view_state([Goal("throughput_rps", maximize=True)], ["size_mb"], "0123abcd"))

    assert state["selectedColumns"] == columns(["throughput_rps", "size_mb"])
    assert state["searchFilter"] == "tags.`mlflow.parentRunId` = '0123abcd'"
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`throughput_rps`", False)


def test_link_leads_to_the_view() -> None:
    """The form of MLflow's own links."""
    assert runs_link("http://127.0.0.1:5000", "7") == (
        "http://127.0.0.1:5000/#/experiments/7/runs?viewStateShareKey=autopilot&workflowType=machine_learning"
    )


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (np.zeros((1, 1, 8, 8), np.float32), True),
        (np.zeros((1, 1, 800, 800), np.float32), False),
        (np.array([["text"]], object), False),
    ],
)
def test_input_example_is_kept_where_it_is_small_and_numeric(value: np.ndarray, kept: bool) -> None:
    """Examples are stored as text: no megabytes of it, and nothing that MLflow can't write."""
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    from autopilot.tracking.registry import example_of

    signature = ModelSignature(inputs=Schema([TensorSpec(np.dtype("float32"), (-1, 1, 8, 8), "image")]))

    found = example_of({"image": value, "other": value}, signature)

    assert (found is not None and list(found) == ["image"]) is kept
