"""A recorded space behind the face of the evaluator: the real search runs against it on a clock of its own.

What is simulated is the measuring alone. Blocks of requests are the recorded ones, from a random place on, with
what two processes of one model differ by on top; a stage takes the seconds it took when it was recorded. Which
variant is next, in which order its stages run, what ends them early and what is chosen in the end is the
product's own code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from autopilot import plugins, stats
from autopilot.artifact import Artifact
from autopilot.budget import Budget, Judgement, Limit, Verdict
from autopilot.contracts import Stage
from autopilot.errors import Failure, VariantFailed
from autopilot.profile import Interval, LatencyReading, Measurement
from autopilot.recipe import Recipe, Variant
from autopilot.scoring.early import ERROR, lowest_drop
from autopilot.search.decider import Decider
from autopilot.search.outcome import SCREENING, Effort, GiveUp, Outcome
from autopilot.search.ranking import Ranking
from autopilot.search.scored import LOOKS, PREFIX, PREFIX_PAYS_S
from autopilot.search.stages import Screen
from autopilot.space import SearchSpace
from autopilot.space_file import SpaceRequest, build_space
from autopilot.target import Target
from benchmarks.search.recording import PERCENTILES, Recorded, Recording

# Starting the server of a variant, and its warm-up, before the first counted block.
START_S = 0.35
AXES = {f"latency_p{q:g}_ms": i for i, q in enumerate(PERCENTILES)}


def _narrowed(text: str, recording: Recording) -> str:
    """The space file ``text`` without what techniques can do since: parameters it doesn't name stay as recorded."""
    raw = yaml.safe_load(text)
    recorded: dict[str, dict[str, list[Any]]] = {}
    for step in (s for r in recording.variants for s in r.variant.recipe.steps):
        values = recorded.setdefault(step.technique, {})
        for name, value in step.params:
            if value not in values.setdefault(name, []):
                values[name].append(value)
    techniques = {name: recorded.get(name, {}) | told for name, told in raw["techniques"].items()}
    return yaml.safe_dump(raw | {"techniques": techniques}, sort_keys=False)


@dataclass(slots=True)
class World:
    """What the recording says, as a search would see it with all the time in the world."""

    recording: Recording
    budget: Budget
    ranking: Ranking
    space: SearchSpace
    by_id: Mapping[str, Recorded]
    spread: float
    _values: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, recording: Recording, work: Path) -> World:
        """Rebuild the budget and the space of the recorded study; ``work`` takes the space's file."""
        about = recording.about
        limits = tuple(Limit.from_json(axis, raw) for axis, raw in about["budget"].items())
        file = work / f"{recording.name}.yaml"
        file.write_text(_narrowed(about["space"], recording), encoding="utf-8")
        request = SpaceRequest(("cpu",), int(about["baseline"]["threads"]), (1,))
        space = build_space(
            file, request, target=target_of(about), techniques=plugins.techniques(), providers=plugins.providers()
        )
        ranking = Ranking(about["objective"], maximize=False)
        by_id = {r.variant.id: r for r in recording.variants}
        return cls(recording, Budget(limits), ranking, space, by_id, float(about.get("spread") or 0.005))

    def exhaustive_s(self) -> float:
        """Wall seconds of measuring everything to the end."""
        return sum(sum(r.seconds.get(s.value, 0.0) for s in Screen) for r in self.recording.variants)

    def truth(self, found: Recorded) -> dict[str, Measurement]:
        """All figures of a variant from all that was recorded of it."""
        if found.failure or not found.own.size:
            return {}
        return self.plain(found) | self.timed(found.own, found.beside) | self.scored(found, len(found.right))

    def plain(self, found: Recorded) -> dict[str, Measurement]:
        """The axes known without requests."""
        return {axis: Measurement.exact(axis, value, "recorded") for axis, value in found.figures.items()}

    def timed(self, own: Any, beside: Any, shift: float = 0.0) -> dict[str, Measurement]:
        """Latency of pairs of blocks, with the interval of Student's t over their log ratios and the spread."""
        n = len(own)
        t = stats.t_quantile(0.975, max(2, n))
        out = {}
        for axis, column in AXES.items():
            logs = np.log(own[:, column] / beside[:, column]) + shift
            half = math.hypot(t * float(logs.std(ddof=1)) / math.sqrt(n), 1.96 * self.spread)
            middle = float(np.median(logs))
            ratio = Interval(math.exp(middle), math.exp(middle - half), math.exp(middle + half))
            base = float(np.median(beside[:, column]))
            out[axis] = Measurement(axis, base * ratio.value, base * ratio.low, base * ratio.high, n, "", ratio)
        return out

    def scored(self, found: Recorded, n: int) -> dict[str, Measurement]:
        """Quality on the first ``n`` samples; right-or-wrong scores, normal interval of the paired difference."""
        loss = self.recording.baseline_right[:n] - found.right[:n]
        half = 1.96 * float(loss.std()) / math.sqrt(n)
        drop = float(loss.mean())
        return {"quality_drop": Measurement("quality_drop", drop, drop - half, drop + half, n, "recorded")}

    def best(self) -> float:
        """The objective of the best variant in budget, as a share of the baseline's."""
        return min(self.value(r.variant) for r in self.recording.variants)

    def value(self, variant: Variant) -> float:
        """The true objective of ``variant``; infinite where it isn't in budget."""
        if variant.id not in self._values:
            measured = self.truth(self.by_id[variant.id])
            is_in = bool(measured) and self.budget.judge(measured).overall is Judgement.IN
            figures = self.ranking.figures(measured.get(self.ranking.axis))
            self._values[variant.id] = figures.value if is_in else math.inf
        return self._values[variant.id]


@dataclass(slots=True)
class Replay:
    """Stands in for the Evaluator; ``now`` is the clock. Without ``staged`` every trial is measured to the end."""

    world: World
    random: np.random.Generator
    staged: bool = True
    now: float = 0.0
    baseline_samples: str = "0"
    _built: set[str] = field(default_factory=set)
    _scored: set[str] = field(default_factory=set)

    def build(self, recipe: Recipe, seconds: dict[str, float]) -> Artifact:
        """What was recorded of building ``recipe``, step by step; steps that were built are free."""
        spent = 0.0
        found = self._any(recipe)
        for n in range(1, len(recipe.steps) + 1):
            step = Recipe(recipe.steps[:n])
            if step.digest not in self._built:
                self._built.add(step.digest)
                spent += self._any(step).seconds.get("build", 0.0)
        self._spend("build", spent, seconds)
        if not found.artifact:
            raise VariantFailed(Failure(found.failure), "as recorded")
        size = int(found.figures.get("size_mb", 0.0) * 1e6)
        path = Path(f"{found.artifact}.onnx")
        return Artifact(path, (path,), size, found.artifact)

    def _any(self, recipe: Recipe) -> Recorded:
        """The recorded variant of ``recipe`` that paid for its build, or any."""
        known = [r for r in self.world.recording.variants if r.variant.recipe.digest == recipe.digest]
        return max(known, key=lambda r: r.seconds.get("build", 0.0))

    def _spend(self, key: str, spent: float, seconds: dict[str, float]) -> None:
        self.now += spent
        seconds[key] = seconds.get(key, 0.0) + spent

    def expected_s(self) -> Mapping[Screen, float]:
        """As the evaluator's: what the stages cost with the baseline."""
        n = len(self.world.recording.baseline_right)
        return {Screen.QUALITY: n * self._sample_s(), Screen.LATENCY: SCREENING.precise_s}

    def _sample_s(self) -> float:
        """Seconds of scoring one sample of the baseline."""
        scored = [r.seconds["evaluate"] for r in self.world.recording.variants if r.seconds.get("evaluate", 0.0) > 0.01]
        return max(scored, default=0.0) / max(1, len(self.world.recording.baseline_right))

    def verdict(self, outcome: Outcome) -> Verdict:
        return self.world.budget.judge(outcome.measured)

    def measure(
        self, variant: Variant, artifact: Artifact, effort: Effort, *, give_up: GiveUp, order: Sequence[Screen]
    ) -> Outcome:
        """As the evaluator's, against the recording."""
        found = self.world.by_id[variant.id]
        outcome = Outcome(variant, artifact)
        self._spend("load", found.seconds.get("load", 0.0), outcome.seconds)
        if found.failure and not found.own.size:
            self._spend("evaluate", found.seconds.get("evaluate", 0.0), outcome.seconds)
            self._spend("profile", found.seconds.get("profile", 0.0), outcome.seconds)
            raise VariantFailed(Failure(found.failure), "as recorded")
        outcome.measured |= self.world.plain(found)
        early = self.staged and effort.ends_early
        if early and self._score_key(found) in self._scored:
            order = (Screen.LOAD, Screen.QUALITY, *(s for s in order if s not in (Screen.LOAD, Screen.QUALITY)))
        runs = {Screen.LATENCY: self._latency, Screen.QUALITY: self._quality}
        for screen in (s for s in order if s in runs):
            broken = self.world.budget.broken(outcome.measured)
            reason = "broken" if broken else give_up(outcome.measured)
            if reason is not None and early:
                outcome.cut_short = reason
                return outcome
            runs[screen](found, outcome, effort, give_up if early else None)
            outcome.reach(Stage.LATENCY if screen is Screen.LATENCY else Stage.QUALITY)
            if outcome.cut_short:
                return outcome
        return outcome

    def _latency(self, found: Recorded, outcome: Outcome, effort: Effort, give_up: GiveUp | None) -> None:
        pairs = len(found.own) // found.processes
        pair_s = max(1e-3, (found.seconds["profile"] - START_S) / pairs)
        start = int(self.random.integers(len(found.own)))
        rows = [(start + i) % len(found.own) for i in range(pairs)]
        shift = float(self.random.normal(0.0, self.world.spread))
        taken = pairs
        if give_up is not None:
            decider = Decider(
                lambda own, beside: self.world.timed(
                    found.own[rows[: own.block_wall_s.size]], found.beside[rows[: own.block_wall_s.size]], shift
                ),
                self.world.budget,
                self.world.ranking.axis,
                effort,
                floor=self.world.spread,
                give_up=give_up,
            )
            taken = self._until_decided(decider, pairs, pair_s)
        self._spend("profile", START_S + taken * pair_s, outcome.seconds)
        outcome.measured |= self.world.timed(found.own[rows[:taken]], found.beside[rows[:taken]], shift)

    @staticmethod
    def _until_decided(decider: Decider, pairs: int, pair_s: float) -> int:
        look = 10
        while look < pairs:
            half = np.full(look, pair_s / 2)
            reading = LatencyReading(np.empty(0), np.empty(0, dtype=np.int32), half, half)
            if decider(reading, reading):
                return look
            look = max(look + 1, math.ceil(look * 1.25))
        return pairs

    def _score_key(self, found: Recorded) -> str:
        return f"{found.artifact} {dict(found.variant.deployment.options).get('graph_optimization')}"

    def _quality(self, found: Recorded, outcome: Outcome, effort: Effort, give_up: GiveUp | None) -> None:
        key = self._score_key(found)
        n = len(found.right)
        if key in self._scored:
            self._spend("evaluate", 0.0, outcome.seconds)
            outcome.measured |= self.world.scored(found, n)
            return
        whole_s = max(
            r.seconds.get("evaluate", 0.0) for r in self.world.recording.variants if self._score_key(r) == key
        )
        limit = self.world.budget.limit("quality_drop")
        # Of a drawn order of the samples, as splits are stored shuffled.
        drawn = self.random.permutation(n)
        loss = (self.world.recording.baseline_right - found.right)[drawn]
        end, looks = PREFIX, 0
        while (
            give_up is not None
            and limit is not None
            and looks < LOOKS
            and end < n
            and whole_s * (n - end) / n > PREFIX_PAYS_S
        ):
            if lowest_drop(loss[:end], n, span=1.0, error=ERROR / LOOKS) > limit.effective:
                self._spend("evaluate", START_S + whole_s * end / n, outcome.seconds)
                outcome.cut_short = "certain violation of quality_drop"
                drop = float(loss[:end].mean())
                outcome.measured["quality_drop"] = Measurement("quality_drop", drop, limit.effective, drop, end, "")
                return
            end, looks = end * 2, looks + 1
        self._scored.add(key)
        self._spend("evaluate", whole_s, outcome.seconds)
        outcome.measured |= self.world.scored(found, n)


def target_of(about: Mapping[str, Any]) -> Target:
    """The recorded machine."""
    told = about["machine"]
    known = {f.name: told[f.name] for f in fields(Target) if f.name in told}
    known["cpu_flags"], known["gpus"] = tuple(known["cpu_flags"]), tuple(known["gpus"])
    return Target(**known)
