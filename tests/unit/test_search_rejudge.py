"""What-if: recorded figures under another budget."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from autopilot.budget import Judgement
from autopilot.cli import main
from autopilot.errors import BadInput
from autopilot.result import TrialState
from autopilot.search import Study
from autopilot.testing import fake_result
from tests.report_support import searched


def test_looser_and_tighter_budgets_change_the_best_trial(tmp_path: Path) -> None:
    """Nothing is measured: the verdicts follow from the figures that are there."""
    study = Study(replace(searched(20), best=None), tmp_path)

    loose = study.rejudge({"latency_p50_ms": "200% of baseline"})
    tight = study.rejudge({"latency_p50_ms": "1% of baseline"})

    fastest = min((t for t in study.result.trials), key=lambda t: t.measured["latency_p50_ms"].value or 0.0)
    assert loose.best is not None
    assert loose.best.number == fastest.number
    assert (loose.exit_code, loose.verified) == (0, True) or not loose.verified
    assert tight.best is None
    assert tight.exit_code == 3
    assert {v.overall for v in tight.verdicts.values()} == {Judgement.OUT}


def test_trials_without_a_figure_would_have_to_be_measured_anew(tmp_path: Path) -> None:
    """A trial that ended before an axis was read isn't judged on it, and is named."""
    result = searched(8)
    cut = replace(
        result.trials[1],
        state=TrialState.PRUNED,
        measured={"size_mb": result.trials[1].measured["size_mb"]},
    )
    study = Study(replace(result, best=None, trials=(result.trials[0], cut, *result.trials[2:])), tmp_path)

    found = study.rejudge({"size_mb": 5, "quality_drop": 0.02})

    assert found.unmeasured == {1: ("quality_drop",)}
    assert "Trials 1 may fit" in found.text
    json.dumps(found.to_json())


def test_axis_that_nobody_measured_leaves_all_open(tmp_path: Path) -> None:
    """Exit code 4: nothing speaks for or against them."""
    found = Study(fake_result(), tmp_path).rejudge({"energy_mj": 5})

    assert found.best is None
    assert found.exit_code == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("budget: {latncy_p50_ms: 1}", "unknown axis .* Did you mean 'latency_p50_ms'"),
        ("budget: {size_mb: -1}", "negative"),
        ("[]", "no limits"),
        ("{", "YAML"),
        ("margin: 7\nbudget: {size_mb: 1}", "margin"),
    ],
)
def test_wrong_budget_is_bad_input(text: str, said: str, tmp_path: Path) -> None:
    """File and reason in one paragraph."""
    path = tmp_path / "other.yaml"
    path.write_text(text)

    with pytest.raises(BadInput, match=said):
        Study(fake_result(), tmp_path).rejudge(path)


def test_show_budget_prints_the_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A whole spec or the limits alone; the exit code is the answer's."""
    (tmp_path / "result.json").write_text(fake_result().text())
    other = tmp_path / "other.yaml"
    other.write_text("margin: 2%\nbudget: {size_mb: 0.1}\n")

    code = main(["show", str(tmp_path), "--budget", str(other)])

    assert code == 3
    assert "no recorded trial is shown to fit" in " ".join(capsys.readouterr().out.split())
