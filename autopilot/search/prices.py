"""What building a recipe should cost, learned from the builds so far: steps that were built are there already."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from autopilot import plugins
from autopilot.contracts import Technique
from autopilot.recipe import Recipe, Step
from autopilot.result import TrialRecord

# The techniques by name; a test brings its own.
Techniques = Callable[[], Mapping[str, Technique]]
# A build that took less came from the cache and tells nothing.
_LEAST_S = 0.05
# With so much of a unit left at least, a step that goes on from another is never free.
_LEAST_WORK = 0.1


@dataclass(slots=True)
class BuildPrices:
    """Seconds by unit of ``Technique.work``, technique by technique; ``usual_s`` before any build."""

    usual_s: float
    techniques: Techniques = plugins.techniques
    _built: set[tuple[Step, ...]] = field(default_factory=set)
    _spent: dict[str, tuple[float, float]] = field(default_factory=dict)  # seconds, units
    _known: dict[Recipe, float] = field(default_factory=dict)

    @classmethod
    def learn(
        cls, records: Sequence[TrialRecord], usual_s: float, techniques: Techniques = plugins.techniques
    ) -> BuildPrices:
        """From the finished trials, in their order: what was built when tells which step took the time."""
        prices = cls(usual_s, techniques)
        for record in records:
            steps = record.variant.recipe.steps
            took_s = record.seconds.get("build", 0.0) + record.seconds.get("build_saved", 0.0)
            fresh = prices._missing(steps)
            if took_s > _LEAST_S and fresh:
                prices._attribute(fresh, took_s)
            prices._built.update(steps[: k + 1] for k in range(len(steps)))
        return prices

    def seconds(self, recipe: Recipe) -> float:
        """What building ``recipe`` should take from here on."""
        found = self._known.get(recipe)
        if found is None:
            missing = self._missing(recipe.steps)
            found = self._known[recipe] = sum(self._unit_s(step) * work for step, work in missing)
        return found

    def _attribute(self, fresh: Sequence[tuple[Step, float]], took_s: float) -> None:
        """Split the seconds of one build between its steps as they were expected."""
        expected = [self._unit_s(step) * work for step, work in fresh]
        total = sum(expected) or 1.0
        for (step, work), share in zip(fresh, expected, strict=True):
            seconds, units = self._spent.get(step.technique, (0.0, 0.0))
            self._spent[step.technique] = (seconds + took_s * share / total, units + work)

    def _unit_s(self, step: Step) -> float:
        seconds, units = self._spent.get(step.technique, (0.0, 0.0))
        if units:
            return seconds / units
        # Of a technique that wasn't seen: what a unit of all others took.
        seconds = sum(s for s, _ in self._spent.values())
        units = sum(u for _, u in self._spent.values())
        return seconds / units if units else self.usual_s

    def _missing(self, steps: tuple[Step, ...]) -> list[tuple[Step, float]]:
        """The steps that must be built, and how much work each is."""
        # The longest part that is there: what comes before it needn't be.
        there = next((k for k in range(len(steps), 0, -1) if steps[:k] in self._built), 0)
        return [(step, self._work(steps[:k], step)) for k, step in enumerate(steps) if k >= there]

    def _work(self, before: tuple[Step, ...], step: Step) -> float:
        technique = self.techniques().get(step.technique)
        if technique is None:
            return 1.0
        params = dict(step.params)
        work = technique.work(params)
        name = technique.continues
        if not name or not isinstance(level := params.get(name), int):
            return work
        for lower in range(level - 1, -1, -1):
            earlier = {**params, name: lower}
            known = Step(step.technique, tuple((key, earlier[key]) for key, _ in step.params))
            if (*before, known) in self._built:
                return max(_LEAST_WORK, work - technique.work(earlier))
        return work
