"""What a trial should cost: its stages as they were seen, its build, its first runs under scheduled traffic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autopilot import plugins
from autopilot.errors import Failure
from autopilot.recipe import Recipe, Variant
from autopilot.result import TrialRecord
from autopilot.search.prices import BuildPrices, Techniques
from autopilot.search.shapes import FirstRuns, ShapePrices
from autopilot.search.stages import Screen, stage_costs

# No trial is free: what costs nothing would be tried before anything else.
_LEAST_S = 0.1


@dataclass(frozen=True, slots=True)
class TrialPrices:
    """Seconds by stage, and of what differs between variants. ``scored``: the recipes whose scores are known."""

    stage_s: Mapping[Screen, float]
    builds: BuildPrices
    shapes: ShapePrices
    scored: frozenset[Recipe]

    @classmethod
    def learn(
        cls,
        records: Sequence[TrialRecord],
        expected_s: Mapping[Screen, float],
        *,
        first_runs: FirstRuns,
        techniques: Techniques = plugins.techniques,
    ) -> TrialPrices:
        """From the finished trials; ``expected_s`` stands for stages that no trial went through yet."""
        told = [r for r in records if r.failure is not Failure.TIMEOUT]  # one that hung says nothing of others
        prices = {c.stage: c.price_s for c in stage_costs(told, first_runs=False) if c.price_s is not None}
        stage_s = {s: prices.get(s.value, expected_s.get(s, 0.0)) for s in Screen}
        return cls(
            stage_s,
            BuildPrices.learn(records, stage_s[Screen.BUILD], techniques),
            ShapePrices.learn(records, first_runs),
            frozenset(r.variant.recipe for r in records if "evaluate" in r.seconds),
        )

    def trials_s(self, variants: Sequence[Variant]) -> list[float]:
        """Seconds that a trial of each should take: what was built or scored before costs nothing again."""
        return [self._trial_s(variant) for variant in variants]

    def _trial_s(self, variant: Variant) -> float:
        seconds = sum(self.stage_s[s] for s in (Screen.LOAD, Screen.LATENCY, Screen.ENERGY))
        seconds += self.builds.seconds(variant.recipe) + self.shapes.seconds(variant.deployment)
        if variant.recipe not in self.scored:
            seconds += self.stage_s[Screen.QUALITY]
        return max(seconds, _LEAST_S)
