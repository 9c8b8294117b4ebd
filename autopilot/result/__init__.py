"""The records of a finished study: result.json, and the rows of trials.csv."""

from autopilot.result.findings import Binding, Comparison, Fallback, FrontMember, Relaxation
from autopilot.result.rows import recipe_text, trial_rows, trials_csv
from autopilot.result.study import SCHEMA, MlflowRef, Status, StudyResult
from autopilot.result.trial import Candidate, TrialRecord, TrialState

__all__ = [
    "SCHEMA",
    "Binding",
    "Candidate",
    "Comparison",
    "Fallback",
    "FrontMember",
    "MlflowRef",
    "Relaxation",
    "Status",
    "StudyResult",
    "TrialRecord",
    "TrialState",
    "recipe_text",
    "trial_rows",
    "trials_csv",
]
