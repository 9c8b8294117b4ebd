"""What a recipe's build should cost, step by step: what is built costs nothing again, a training its minutes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from autopilot.recipe import Recipe, Step, params_of
from autopilot.result import TrialRecord

# The parameter of techniques that train which counts rungs: each doubles the work, and goes on from the one below.
EFFORT = "effort"
# A build that is shorter came out of the cache and tells nothing.
_LEAST_S = 0.05

Declared = Callable[[Step], float]


@dataclass(frozen=True, slots=True)
class BuildCosts:
    """``built``: digests of recipes, and of what they begin with, that lie in the cache.

    ``seen_s``: mean seconds of a technique's own step. ``factor``: by what share of the seconds that it ``declared``
    a slow technique really took.
    """

    built: frozenset[str]
    seen_s: Mapping[str, float]
    factor: Mapping[str, float]
    declared: Declared

    @classmethod
    def of(cls, records: Sequence[TrialRecord], declared: Declared) -> BuildCosts:
        """From the builds of finished trials; of several new steps in one build the slowest declared one counts."""
        built: set[str] = set()
        seen: dict[str, list[float]] = {}
        shares: dict[str, list[float]] = {}
        for record in records:
            new = [step for begin, step in prefixes(record.variant.recipe) if begin.digest not in built]
            built.update(begin.digest for begin, _ in prefixes(record.variant.recipe))
            took_s = record.seconds.get("build", 0.0) + record.seconds.get("build_saved", 0.0)
            if not new or took_s <= _LEAST_S:
                continue
            slowest = max(new[::-1], key=declared)
            begun = any(below in built for below in _below(record.variant.recipe, slowest))
            if (declared_s := declared(slowest) * (0.5 if begun else 1.0)) > 0:
                shares.setdefault(slowest.technique, []).append(took_s / declared_s)
            else:
                seen.setdefault(slowest.technique, []).append(took_s)
        return cls(frozenset(built), _means(seen), _means(shares), declared)

    def seconds(self, recipe: Recipe, usual_s: float) -> float:
        """What building ``recipe`` should still take; ``usual_s`` for a quick step that was never seen."""
        total_s = 0.0
        for begin, step in prefixes(recipe):
            if begin.digest not in self.built:
                begun = any(below in self.built for below in _below(begin, step))
                total_s += self._step_s(step, usual_s) * (0.5 if begun else 1.0)
        return total_s

    def _step_s(self, step: Step, usual_s: float) -> float:
        declared_s = self.declared(step)
        if declared_s > 0:
            return declared_s * self.factor.get(step.technique, 1.0)
        return self.seen_s.get(step.technique, usual_s)


def _below(recipe: Recipe, step: Step) -> Iterator[str]:
    """The digest of ``recipe`` up to ``step`` with one rung less of training there, which was half of the work."""
    params = dict(step.params)
    effort = params.get(EFFORT)
    if isinstance(effort, int) and effort > 0:
        lower = Step(step.technique, params_of({**params, EFFORT: effort - 1}))
        yield Recipe((*recipe.steps[: recipe.steps.index(step)], lower)).digest


def prefixes(recipe: Recipe) -> Iterator[tuple[Recipe, Step]]:
    """Each step of ``recipe``, with the recipe that ends with it."""
    for i, step in enumerate(recipe.steps):
        yield Recipe(recipe.steps[: i + 1]), step


def _means(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: fmean(found) for name, found in values.items()}
