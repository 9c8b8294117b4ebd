"""The records of a finished study: result.json, and the rows of trials.csv."""

from autopilot.result.baseline import BaselineChoice
from autopilot.result.ending import NO_TIME_LEFT, TIME_UP, cut_off_text, is_cut_off, is_out_of_time, nothing_text
from autopilot.result.findings import Binding, Comparison, Fallback, FrontMember, Relaxation
from autopilot.result.rows import places, recipe_text, trial_rows, trials_csv
from autopilot.result.stages import StageCost
from autopilot.result.study import RATES, SCHEMA, MlflowRef, Status, StudyResult, speed_axis
from autopilot.result.trial import FAILED_AGAIN, HELD_AGAIN, Candidate, TrialRecord, TrialState

__all__ = [
    "FAILED_AGAIN",
    "HELD_AGAIN",
    "NO_TIME_LEFT",
    "RATES",
    "SCHEMA",
    "TIME_UP",
    "BaselineChoice",
    "Binding",
    "Candidate",
    "Comparison",
    "Fallback",
    "FrontMember",
    "MlflowRef",
    "Relaxation",
    "StageCost",
    "Status",
    "StudyResult",
    "TrialRecord",
    "TrialState",
    "cut_off_text",
    "is_cut_off",
    "is_out_of_time",
    "nothing_text",
    "places",
    "recipe_text",
    "speed_axis",
    "trial_rows",
    "trials_csv",
]
