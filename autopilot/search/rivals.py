"""What is the baseline: the model as given, or another plain way of running it that is certainly faster.

On an NVIDIA device everybody runs float16 before anything else, so that a gain over plain float32 is none. Which ways
are plain is declared by providers (``ProviderFacts.rivals``). Losses are told against the model as given all the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from autopilot import plugins
from autopilot.budget import Judgement
from autopilot.build.cache import complete
from autopilot.errors import BaselineFailed, Unsupported, VariantFailed
from autopilot.profile import Interval, Measurement
from autopilot.recipe import Recipe, Rival, Step, Variant
from autopilot.result import BaselineChoice, TrialRecord, recipe_text, speed_axis
from autopilot.search.evaluator import Evaluator
from autopilot.search.given import provider_facts
from autopilot.search.outcome import BASELINE, RETRIED, VERIFYING, Outcome
from autopilot.search.prepare import Setup
from autopilot.search.stages import Screen
from autopilot.search.summary import times_as_fast

# It is chosen once for a whole study: read for as long as a finalist, until the ratio is known as well as in screening.
RIVAL = replace(BASELINE, cap_s=VERIFYING.cap_s, precise_s=VERIFYING.cap_s)
# Where the budget says nothing of quality, a rival may lose this share of what the model as given scores: half a point
# of an accuracy near 1, what is commonly taken for a free conversion, and of a meaning in every metric's unit.
MOST_LOST_AS_BASELINE = 0.005
_QUALITY = ("quality", "quality_drop")
_MEDIAN = "latency_p50_ms"


@dataclass(frozen=True, slots=True)
class Candidacy:
    """One rival after it was measured beside the model as given, and what is ``said`` of it.

    ``gain``: how many times as fast it is, where nothing speaks against it.
    """

    rival: Rival
    variant: Variant
    said: str
    gain: Interval | None = None


def settle_baseline(evaluator: Evaluator, earlier: Variant | None = None) -> None:
    """Make the fastest plain way of running the model the baseline; the model as given was measured.

    ``earlier``: the baseline of the trials so far, where there are any. It is taken again, whatever would be chosen
    now: the ratios of one study are to one baseline.

    Raises:
        BaselineFailed: ``earlier`` can't be measured here any more.
    """
    if earlier is not None:
        follow(evaluator, earlier)
        return
    found = [_measured(evaluator, rival, variant) for rival, variant in rivals_of(evaluator.setup)]
    for candidacy in found:
        evaluator.observer.note(candidacy.said)
    found.sort(key=lambda c: c.gain.value if c.gain is not None else 0.0, reverse=True)
    said = [c.said for c in found]
    name = "the model as given"
    for k, best in enumerate(found):
        if best.gain is None:
            break
        try:
            evaluator.adopt(best.variant, evaluator.build(best.variant.recipe, {}))
        except VariantFailed as exc:
            said[k] += f", but couldn't be measured as the baseline ({exc.failure.value}): {exc.message}"
            evaluator.observer.note(said[k])
            continue
        name = best.rival.name
        break
    if found:
        evaluator.baseline.remark = f"The baseline is {name}: {'; '.join(s.removesuffix('.') for s in said)}."


def follow(evaluator: Evaluator, wanted: Variant) -> None:
    """Make ``wanted``, the baseline of the study's trials, that of this run, where it isn't.

    Raises:
        BaselineFailed: it can't be built or run here.
    """
    if evaluator.baseline.variant.id == wanted.id:
        return
    name = rival_name(evaluator.setup, wanted) or "the model as given"
    evaluator.observer.phase(f"measuring the baseline of the trials so far: {name}")
    try:
        evaluator.adopt(wanted, evaluator.build(wanted.recipe, {}))
    except VariantFailed as exc:
        message = f"the baseline of this study's trials ({name}) can't be measured: {exc.failure.value}: {exc.message}"
        raise BaselineFailed(message, "Start the study anew with --fresh.") from exc


def rivals_of(setup: Setup) -> list[tuple[Rival, Variant]]:
    """What else the first provider's baseline may be; none on most."""
    given = setup.given
    found = [(rival, _completed(rival.beside(given))) for rival in provider_facts(given.deployment.provider).rivals]
    return [(rival, variant) for rival, variant in found if variant.id != given.id]


def rival_name(setup: Setup, baseline: Variant) -> str:
    """What the ``baseline`` is called; empty for the model as given."""
    if baseline.id == setup.given.id:
        return ""
    names = {variant.id: rival.name for rival, variant in rivals_of(setup)}
    return names.get(baseline.id) or recipe_text(baseline.recipe)


def choice_of(evaluator: Evaluator, records: Sequence[TrialRecord] = ()) -> BaselineChoice:
    """The baseline and why, as the first of a study's ``records`` says; without any, as this run chose."""
    baseline = evaluator.baseline
    reason = records[0].reason if records and records[0].id == baseline.variant.id else baseline.remark
    return BaselineChoice(rival_name(evaluator.setup, baseline.variant), reason)


def _completed(variant: Variant) -> Variant:
    """``variant`` with every parameter of its steps, as a search draws them: what is equal has equal ids."""
    known = plugins.techniques()

    def completed(step: Step) -> Step:
        with contextlib.suppress(Unsupported):  # building it says what is wrong
            return complete(known[step.technique], step) if step.technique in known else step
        return step

    return Variant(Recipe(tuple(completed(step) for step in variant.recipe.steps)), variant.deployment)


def _measured(evaluator: Evaluator, rival: Rival, variant: Variant) -> Candidacy:
    """``rival`` beside the model as given; one more attempt where its failure may be bad luck."""
    evaluator.observer.phase(f"measuring {rival.name} beside the model as given: it may be the baseline")
    try:
        return _beside(evaluator, rival, variant)
    except VariantFailed as exc:
        if exc.failure not in RETRIED:
            return _failed(rival, variant, exc)
        evaluator.observer.note(f"{rival.name}: {exc.failure.value}: {exc.message} Trying once more.")
    try:
        return _beside(evaluator, rival, variant)
    except VariantFailed as exc:
        return _failed(rival, variant, exc)


def _failed(rival: Rival, variant: Variant, exc: VariantFailed) -> Candidacy:
    said = f"{rival.name} is not taken, since it failed ({exc.failure.value}): {exc.message.removesuffix('.')}"
    return Candidacy(rival, variant, said)


def _beside(evaluator: Evaluator, rival: Rival, variant: Variant) -> Candidacy:
    """One attempt: latency first, answers only where it is certainly faster.

    Raises:
        VariantFailed: it can't be built or run.
    """
    artifact = evaluator.build(variant.recipe, {})
    timed = evaluator.measure(variant, artifact, RIVAL, order=(Screen.LOAD, Screen.LATENCY))
    axis, gain = _gain(evaluator, timed)
    if gain is None:
        return Candidacy(rival, variant, f"{rival.name} is not taken, for want of a speed to compare")
    faster = f"{rival.name} is {_times(axis, gain)}"
    if gain.low <= 1:
        return Candidacy(rival, variant, f"{faster}, which is not certainly faster")
    scored = evaluator.measure(variant, artifact, RIVAL, order=(Screen.QUALITY,)).measured
    drop = scored["quality_drop"]
    lost = f"a loss of {_between(drop.value, drop.low, drop.high)} in quality"
    reason = _too_much(evaluator, scored)
    if reason is not None:
        return Candidacy(rival, variant, f"{faster}, but at {lost}, which is certainly {reason}")
    return Candidacy(rival, variant, f"{faster}, at {lost}", gain)


def _gain(evaluator: Evaluator, outcome: Outcome) -> tuple[str, Interval | None]:
    """How many times as fast as the model as given, and on which axis: the objective's where it is a time or rate."""
    for axis in (speed_axis(evaluator.setup.problem.objectives), _MEDIAN):
        if (found := times_as_fast(outcome.measured, axis)) is not None:
            return axis, found
    return _MEDIAN, None


def _too_much(evaluator: Evaluator, measured: Mapping[str, Measurement]) -> str | None:
    """Why a rival has certainly lost more quality than a baseline may; None for what may be within bounds."""
    named = [limit for limit in evaluator.setup.problem.budget.limits if limit.axis in _QUALITY]
    broken = [f"{x.axis} {x.text}" for x in named if x.judge(measured.get(x.axis)) is Judgement.OUT]
    if named:
        return f"outside of {' and '.join(broken)}" if broken else None
    drop = measured["quality_drop"]
    most = MOST_LOST_AS_BASELINE * abs(evaluator.reference.measured["quality"].value or 0.0)
    least = drop.value if drop.low is None else drop.low
    return f"more than {most:.3g}" if least is None or least > most else None


def _times(axis: str, gain: Interval) -> str:
    word = "fast" if axis.startswith("latency_") else "good"
    return f"{gain.value:.2f} times as {word} as the model as given ({axis} {gain.low:.2f}..{gain.high:.2f})"


def _between(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "an unknown part"
    return f"{value:.3g}" if low is None or high is None else f"{value:.3g} ({low:.3g}..{high:.3g})"
