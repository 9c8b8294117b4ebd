"""A study whose time was up before any variant had its turn: what took it, and how much there should be."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autopilot.result import TrialRecord, is_cut_off, is_out_of_time, nothing_text
from autopilot.search.evaluator import Evaluator
from autopilot.search.reserve import KEPT_SHARE, first_reserve_s

# Nobody sets a timeout to the second, and the next run takes a little longer or shorter.
_STEP_S = 10.0
# A trial that was cut off takes longer than it did until then, nobody knows by how much: advice must not repeat it.
_LONGER = 2.0


def too_short_text(
    evaluator: Evaluator, records: Sequence[TrialRecord], ended: str, spent_s: tuple[float, float]
) -> str:
    """The sentence for the result of a study whose time was up before any variant's end; else nothing.

    ``ended`` says why the search did; ``spent_s``: all seconds it took, and those of them of a trial that was cut off.
    """
    if not is_out_of_time(ended, len(records)):
        return ""
    all_s, cut_off_s = spent_s
    baseline, used_s = evaluator.baseline, all_s - cut_off_s
    trial_s = sum(evaluator.expected_s().values()) + baseline.seconds.get("load", 0.0)
    first_s = first_reserve_s(evaluator.setup, baseline)
    given_s = evaluator.setup.problem.search.timeout_s
    said, one = "", f"A trial should take some {trial_s:.0f} s here"
    if is_cut_off(ended):
        variant = ended.rpartition(" the trial of ")[2]
        said, one = f", and the trial of {variant}", f"Such a trial takes more than {cut_off_s:.0f} s here"
        trial_s = max(trial_s, _LONGER * cut_off_s)
    least_s = least_timeout_s(used_s, trial_s, first_s)
    return (
        f"{nothing_text(ended).capitalize()}: preparing the study and measuring the baseline, also against itself, took"
        f" {used_s:.0f} s of its {given_s:.0f} s{said}. {one} and measuring a finalist again {first_s:.0f} s:"
        f" for a first variant give search.timeout (--timeout) {least_s:.0f} s or more, for a search some minutes."
    )


def least_timeout_s(used_s: float, trial_s: float, first_s: float) -> float:
    """The shortest timeout in which one trial has its turn after ``used_s``, in steps that people type.

    Whatever is kept for the finalists is no more than their share, or what the first of them takes.

    >>> least_timeout_s(22.0, 4.0, 10.0)
    50.0
    """
    begun_s = used_s + trial_s
    return _STEP_S * math.ceil(max(begun_s / (1 - KEPT_SHARE), begun_s + first_s) / _STEP_S)
