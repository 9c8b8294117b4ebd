"""Whether a winner becomes champion: only where it beats the champion so far, measured again beside it."""

from __future__ import annotations

from pathlib import Path

from autopilot.artifact import Artifact
from autopilot.bench.compare import Standing
from autopilot.budget import Judgement
from autopilot.errors import BadInput, VariantFailed
from autopilot.model import inspect
from autopilot.result import Candidate, StudyResult
from autopilot.search.check import fitting, measure_again
from autopilot.search.evaluator import Evaluator
from autopilot.search.outcome import Outcome
from autopilot.search.ranking import Ranking
from autopilot.search.settle import CAP_S, can_compare, percentile
from autopilot.tracking import Champion, Ruling, Tracker


def contest(evaluator: Evaluator, result: StudyResult, ranking: Ranking, tracker: Tracker, out: Path) -> Ruling:
    """What is to become of the alias ``champion``, now that ``result`` has a winner in budget.

    The champion so far is fetched and measured like a finalist: beside the baseline, on the held-back data, in its
    own deployment. It stays where it keeps the budget of now and the winner isn't certainly better.

    Raises:
        AutopilotError: MLflow failed.
    """
    assert result.best is not None
    before = tracker.champion(result)
    if before is None:
        return Ruling(True, "there was no champion before")
    if _is_same(before, result.best):
        reason = f"the same file and deployment as version {before.version}, the champion before"
        return Ruling(True, reason, keeps_previous=True)
    evaluator.observer.phase(f"measuring the champion so far (version {before.version}) against the winner")
    try:
        old = _measured(evaluator, tracker.fetch(before, evaluator.setup.work / "champion"))
        verdict = evaluator.verdict(old)
        if verdict.overall is not Judgement.IN:
            misses = ", ".join(f"{axis} {j.value}" for axis, j in verdict.per_limit.items() if j is not Judgement.IN)
            return Ruling(True, f"version {before.version} is not shown to keep the budget of now ({misses})")
        return _beats(evaluator, result.best, out, old, ranking=ranking, before=before)
    except (BadInput, VariantFailed) as exc:
        return _unmeasured(before, str(result.environment.get("fingerprint", "")), exc.message)


def _is_same(before: Champion, best: Candidate) -> bool:
    return before.tags.get("sha256") == best.sha256 and before.tags.get("variant") == best.id


def _measured(evaluator: Evaluator, bundle: Path) -> Outcome:
    """The champion so far, measured on this machine.

    Raises:
        BadInput: it doesn't take this spec's inputs or traffic, or its provider isn't usable here.
        VariantFailed: it can't be run.
    """
    variant, artifact = fitting(bundle, evaluator.setup)
    return measure_again(evaluator, variant, artifact)


def _beats(
    evaluator: Evaluator, best: Candidate, out: Path, old: Outcome, *, ranking: Ranking, before: Champion
) -> Ruling:
    """Ruling between two that keep the budget: a direct comparison where there is one, else by both intervals."""
    version = f"version {before.version}"
    if can_compare(evaluator.setup.problem, ranking):
        files = inspect(out / best.artifact).files
        new = Outcome(best.variant, Artifact.of(list(files)))
        q = percentile(ranking.axis)
        seen = evaluator.compare(new, old, q=q, cap_s=CAP_S)
        r = seen.ratio
        figures = f"{ranking.axis} {r.value:.3f} times that of {version} ({r.low:.3f}..{r.high:.3f}, interleaved)"
        return Ruling(seen.verdict is Standing.FASTER, figures)
    mine, theirs = ranking.seen(best.measured), ranking.seen(old.measured)
    figures = f"{ranking.axis} against the baseline: {abs(mine.value):.4g} here, {abs(theirs.value):.4g} of {version}"
    return Ruling(mine.high < theirs.low, f"{figures}, each measured beside the baseline")


def _unmeasured(before: Champion, here: str, why: str) -> Ruling:
    """A champion of other hardware stays: what can't be run here may serve well there. One of this hardware goes."""
    reason = f"version {before.version} couldn't be measured here: {why}"
    elsewhere = before.tags.get("hardware", here) != here
    if elsewhere:
        return Ruling(
            False, f"{reason} It was chosen on other hardware and stays; move the alias by hand to replace it"
        )
    return Ruling(True, reason)
