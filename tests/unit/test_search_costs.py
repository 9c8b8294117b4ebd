"""Where the time goes: what the pass leaves, and that it can't cost the result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autopilot.bench.child import ChildLimits
from autopilot.errors import DataError, Failure, Unsupported, VariantFailed, WorkerDied
from autopilot.profile import Measurement, OperatorCost, OperatorTable, Placement, Profile
from autopilot.search import costs as module
from autopilot.search.audit import provider_fallback
from autopilot.search.costs import take_costs
from autopilot.search.outcome import Outcome
from tests.unit.search_support import Recorder, artifact_of, reading, split
from tests.unit.test_search_evaluator import WANTED

ROWS = (
    OperatorCost("Conv", "CUDAExecutionProvider", "float32", 2.0, 0.0009),
    OperatorCost("Relu", "CPUExecutionProvider", "float32", 1.0, 0.0001),
)
LIMITS = ChildLimits(600.0)


def outcome(*, hooks: bool = False) -> Outcome:
    """A measured variant of 1 ms a request, a fifth of it in each hook where it has them."""
    timed = reading(1.0)
    if hooks:
        fifth = timed.latency_s / 5
        timed = replace(timed, preprocess_s=fifth, postprocess_s=fifth)
    measured = {"latency_mean_ms": Measurement("latency_mean_ms", 1.0, 0.9, 1.1, 400)}
    return Outcome(WANTED, artifact_of(WANTED.recipe), measured, Profile(WANTED.id, latency=timed))


def taken(found: Outcome, monkeypatch: pytest.MonkeyPatch, answer: Any, *, hook: Any = None) -> tuple[Profile, Any]:
    """The profile after the pass, and what was noted; ``answer`` is a table's rows or an error."""

    def measure(path: Path, deployment: Any, *, split: Any, limits: ChildLimits, latency_s: Any) -> OperatorTable:
        if isinstance(answer, Exception):
            raise answer
        return OperatorTable(answer, 50, 1, latency_s)

    monkeypatch.setattr(module, "measure_operators", measure)
    observer = Recorder()
    samples = split()
    samples.preprocess, samples.postprocess = hook, None
    take_costs(found, samples, LIMITS, observer)
    assert found.profile is not None
    return found.profile, observer.notes


def test_operators_are_held_against_the_latency_without_the_profiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """1.0 ms of operators in 1.0 ms of latency."""
    profile, notes = taken(outcome(), monkeypatch, ROWS)

    assert profile.operators is not None
    assert profile.operators.covered == pytest.approx(1.0)
    assert profile.stages is None
    assert notes == []


def test_hooks_are_no_part_of_what_operators_can_explain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three fifths of a request are the model's."""
    found = outcome(hooks=True)
    profile, _ = taken(found, monkeypatch, ROWS, hook=len)

    assert profile.stages is not None
    assert profile.operators is not None
    assert found.profile is not None
    assert found.profile.latency is not None
    assert profile.operators.latency_s == pytest.approx(0.6 * np.mean(found.profile.latency.latency_s))


def test_latency_that_may_hold_hooks_explains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record without its readings doesn't tell model from hooks."""
    found = replace(outcome(), profile=None)
    profile, _ = taken(found, monkeypatch, ROWS, hook=len)

    assert profile.operators is not None
    assert profile.operators.covered is None


@pytest.mark.parametrize(
    "error",
    [
        Unsupported("the provider fake has no profiler."),
        VariantFailed(Failure.OOM, "the child process ran out of memory."),
        WorkerDied(Failure.TIMEOUT, "the child was stopped after 60 s."),
        DataError("preprocess() failed."),
    ],
)
def test_pass_that_fails_is_a_note_and_a_warning(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """The result stays; the table is absent with the reason."""
    found = outcome(hooks=True)
    profile, notes = taken(found, monkeypatch, error, hook=len)

    assert profile.operators is None
    assert profile.stages is not None
    assert len(notes) == 1
    assert str(error).partition(".")[0] in notes[0]
    assert found.warnings == notes


def test_fallback_names_shares_of_nodes_and_of_time() -> None:
    """Half the nodes may be a tenth of the time."""
    environment = {"execution_provider": "CUDAExecutionProvider"}
    nodes = Placement({"CUDAExecutionProvider": 2, "CPUExecutionProvider": 1, "Unused": 0})
    profile = Profile("v", placement=nodes, environment=environment)

    assert provider_fallback(profile) == (
        "1 of 3 nodes (33.3%) run on CPUExecutionProvider, not on CUDAExecutionProvider as asked."
    )
    timed = provider_fallback(replace(profile, operators=OperatorTable(ROWS, 50)))
    assert timed is not None
    assert "(33.3%, 10.0% of the time)" in timed


@pytest.mark.parametrize("nodes", [{"CPUExecutionProvider": 5}, {}])
def test_nothing_elsewhere_is_no_fallback(nodes: dict[str, int]) -> None:
    """All on the provider asked for, or nothing known."""
    profile = Profile("v", placement=Placement(nodes), environment={"execution_provider": "CPUExecutionProvider"})

    assert provider_fallback(profile) is None
    assert provider_fallback(Profile("v")) is None
