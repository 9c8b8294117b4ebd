"""Results for tests of the report: all endings, hostile text everywhere, a search with known causes."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import numpy as np

from autopilot.profile import Measurement, OperatorCost, OperatorTable
from autopilot.recipe import Step, params_of
from autopilot.report import Readings
from autopilot.result import StudyResult, TrialRecord, TrialState
from autopilot.testing import fake_measured, fake_result, fake_trial, fake_variant

# What a model's name, a recipe, a reason or a log may bring: markup, quotes, a comment's end, a lone surrogate,
# a control character, a mark that turns the direction of text.
HOSTILE = (
    "</script></title><script>alert(1)</script><img src=x onerror=alert(1)> \"'`&amp; --> ]]> \x00\x1b \ud800 \u202e"
)
HOSTILE_NAME = "evil</style><script>alert(1)</script>"


def readings(n: int = 2000, *, verified: bool = True) -> Readings:
    """Latencies around 1 ms and 0.4 ms with a slow tail."""
    rng = np.random.default_rng(0)
    return Readings(1e-3 * (1 + rng.exponential(0.1, n)), 4e-4 * (1 + rng.exponential(0.2, n)), verified)


def searched(trials: int = 40) -> StudyResult:
    """A study in which the technique and ``per_channel`` set the latency, and ``noise`` nothing."""
    rng = np.random.default_rng(1)
    records = [fake_trial(0, fake_variant(), fake_measured(latency_ms=1.0) | _scored(0.95))]
    for i in range(1, trials):
        technique = ("static_int8", "dynamic_int8")[i % 2]
        per_channel, noise = bool(rng.integers(2)), int(rng.integers(3))
        latency_ms = (0.4 if technique == "static_int8" else 1.5) * (1.3 if per_channel else 1.0)
        latency_ms *= float(np.exp(rng.normal(0, 0.01)))
        variant = fake_variant(technique, per_channel=per_channel, noise=noise, seed=i)
        records.append(fake_trial(i, variant, fake_measured(latency_ms=latency_ms) | _scored(0.95 - 0.001 * noise)))
    return replace(fake_result(), trials=tuple(records))


def _scored(value: float) -> dict[str, Measurement]:
    return {"quality": Measurement("quality", value, value - 0.01, value + 0.01, 600, "accuracy")}


def hostile() -> StudyResult:
    """A result with HOSTILE in every text that comes from outside."""
    result = fake_result()
    step = Step(HOSTILE, params_of({HOSTILE: HOSTILE, "other": 1}))
    trials = [_poisoned(trial, step) for trial in result.trials]
    chosen = result.best
    assert chosen is not None
    measured = {axis: replace(m, reason=m.reason and HOSTILE, how=HOSTILE) for axis, m in chosen.measured.items()}
    table = OperatorTable((OperatorCost(HOSTILE, HOSTILE, HOSTILE, 1.0, 1e-3, HOSTILE),), 10, latency_s=1e-3)
    best = replace(
        chosen, recipe=replace(chosen.recipe, steps=(step,)), artifact=HOSTILE, sha256=HOSTILE, operators=table
    )
    return replace(
        result,
        name=HOSTILE,
        best=replace(best, measured=measured),
        trials=tuple(trials),
        explanation=HOSTILE,
        environment={HOSTILE: HOSTILE, "versions": {HOSTILE: HOSTILE}, "noise": {HOSTILE: HOSTILE}},
        warnings=(HOSTILE,),
        rationale=HOSTILE,
    )


def _poisoned(trial: TrialRecord, step: Step) -> TrialRecord:
    variant = replace(trial.variant, recipe=replace(trial.variant.recipe, steps=(step,)))
    return replace(trial, variant=variant, reason=HOSTILE, log=HOSTILE, stage=HOSTILE, warnings=(HOSTILE,))


def duplicate(result: StudyResult) -> StudyResult:
    """``result`` with its second trial repeated."""
    again = replace(
        result.trials[1], number=len(result.trials), state=TrialState.DUPLICATE, reason="the same as trial 1"
    )
    return replace(result, trials=(*result.trials, again))


class Page(HTMLParser):
    """Tags, attributes and texts of a page; ``unclosed`` elements left open."""

    VOID = frozenset({"meta", "input", "br", "hr", "link", "img", "col"})

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.unclosed: list[str] = []
        self.wrong: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.unclosed.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.unclosed or self.unclosed.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.unclosed):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)
