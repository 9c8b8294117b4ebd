"""A study's warnings: one line for each kind, with its range and the trials that it holds for."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopilot.result import StudyResult
from autopilot.search import conclude as module
from autopilot.search.ranking import Ranking
from autopilot.search.steadiness import Drift, Reading, drift_of
from autopilot.search.warned import Warned, in_one_line_each
from autopilot.tracking.fields import study_tags
from tests.unit.search_support import Facts, reading
from tests.unit.test_search_conclude import evaluator_of, record


def drifted(drift: float) -> str:
    """What a trial says whose baseline was so much slower."""
    said = Drift(allowed=None).remark(Reading(reading(), reading(), drift))
    assert said is not None
    return said


def test_drift_of_many_trials_is_one_line() -> None:
    """Both ways, with the range of each, and the trials in which it was."""
    percents = {3: 6, 7: 14, 9: 8, 10: 8, 11: 7, 12: 9, 8: -5}
    found = [Warned(drifted(p / 100), trial) for trial, p in percents.items()]

    (line,) = in_one_line_each(found)

    assert line == (
        "the machine was 6% to 14% slower than at the start during trials 3, 7, 9-12, and 5% faster than at the start "
        "during trial 8: the intervals of these trials' absolute figures cover both speeds; ratios to the baseline, "
        "which was read beside them, don't feel it"
    )


def test_drift_of_the_second_measurement_is_told_apart() -> None:
    """It is of the winner's figures, not of the search's."""
    found = [Warned(drifted(0.06), 3), Warned(drifted(0.10), 3, again=True)]

    (line,) = in_one_line_each(found)

    assert "6% to 10% slower than at the start during trial 3 and the second measurement of trial 3:" in line


@given(st.floats(0.03, 3.0), st.booleans())
def test_every_remark_on_drift_is_understood(size: float, is_faster: bool) -> None:
    """The percents that are said are those that are read."""
    drift = -min(size, 0.9) if is_faster else size

    assert drift_of(drifted(drift)) == pytest.approx(100 * drift, abs=0.51)


def test_texts_that_differ_in_numbers_alone_are_one() -> None:
    """With the least and the most of each; what is equal in all stays as it is."""
    found = [Warned(f"provider openvino used {used} cores, not its 1 threads", n) for n, used in ((2, 1.9), (3, 1.7))]

    assert in_one_line_each([*found, Warned("provider openvino used 1.8 cores, not its 1 threads", 5)]) == (
        "provider openvino used 1.7 to 1.9 cores, not its 1 threads (trials 2-3, 5)",
    )


def test_numbers_in_names_tell_kinds_apart() -> None:
    """int8 is no amount, and neither is a version in a file's name."""
    found = [Warned("fake_int8: 1 of 4 nodes", 1), Warned("fake_int4: 2 of 4 nodes", 2), Warned("v2.onnx is odd", 2)]

    assert in_one_line_each(found) == ("fake_int8: 1 of 4 nodes", "fake_int4: 2 of 4 nodes", "v2.onnx is odd")


def test_warning_of_one_trial_stays_as_it_is_and_the_same_of_several_names_them() -> None:
    """Of trial 0 and the baseline, which is that trial, it is one."""
    assert in_one_line_each([Warned("odd 1", 4)]) == ("odd 1",)
    assert in_one_line_each([Warned("odd 1", 0), Warned("odd 1", 0)]) == ("odd 1",)
    assert in_one_line_each([Warned("odd", 0), Warned("odd", 4)]) == ("odd (trials 0, 4)",)


texts = st.builds(
    "{} took {} of {} s".format, st.sampled_from("ab"), st.integers(0, 99), st.floats(0, 9).map("{:.1f}".format)
)


@given(st.lists(st.builds(Warned, texts, st.integers(0, 9), st.booleans()), max_size=20))
def test_no_two_lines_differ_in_numbers_alone(found: list[Warned]) -> None:
    """However many there are, a reader sees each kind once; none is lost."""
    lines = in_one_line_each(found)
    kinds = [line[0] for line in lines]

    assert kinds == list(dict.fromkeys(w.text[0] for w in found))
    for line in lines:
        numbers = [float(n) for n in re.findall(r"\d+(?:\.\d+)?", line.partition(" (")[0])]
        seen = [re.findall(r"\d+(?:\.\d+)?", w.text) for w in found if w.text[0] == line[0]]
        assert set(numbers) == {f(float(n) for n in column) for column in zip(*seen, strict=True) for f in (min, max)}


def test_result_and_mlflow_have_the_line_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven trials of a machine that was slower are one warning, wherever it is shown; the trials keep their own."""
    monkeypatch.setattr(module, "write_outputs", lambda result, out, artifact, **more: result)
    facts = [Facts(1.0), *(Facts(0.3 + i / 100) for i in range(7))]
    evaluator: Any = evaluator_of(tmp_path, facts)
    records = [record(i, f) for i, f in enumerate(facts)]
    records[1:] = [replace(r, warnings=(drifted(0.05 + r.number / 100),)) for r in records[1:]]
    result: StudyResult = module.conclude(
        evaluator, records, Ranking("latency_p50_ms", maximize=False), started=0.0, deadline=float("inf"), out=tmp_path
    )
    told = [w for w in result.warnings if "slower" in w]

    assert len(told) == 1
    assert told[0].startswith("the machine was 6% to 12% slower than at the start during trials 1-7:")
    assert all(len(t.warnings) == 1 for t in result.trials[1:])
    assert study_tags(result)["warnings"].count("slower") == 1
