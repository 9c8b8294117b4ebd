"""What can't be built: recipes whose first steps some trial found not to apply to this model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from autopilot.domain import Scalar
from autopilot.errors import Failure
from autopilot.recipe import Recipe, Step
from autopilot.result import TrialRecord

# With so many parameter sets refused for one reason, what they have in common is taken for it.
ENOUGH = 2

Steps = tuple[Step, ...]


@dataclass(slots=True)
class _Refusals:
    """Parameter sets that a technique refused after the same steps for the same reason: what all of them share."""

    shared: Mapping[str, Scalar]
    count: int = 1

    def add(self, params: Mapping[str, Scalar]) -> None:
        if params != self.shared:
            self.shared = {name: value for name, value in self.shared.items() if params.get(name) == value}
            self.count += 1


@dataclass(slots=True)
class DeadEnds:
    """Learns from failed trials what not to try."""

    _steps: dict[Steps, str] = field(default_factory=dict)
    _kinds: dict[tuple[Steps, str, str], _Refusals] = field(default_factory=dict)

    def learn(self, record: TrialRecord) -> None:
        """Take in one trial that failed while it was built."""
        steps = record.variant.recipe.steps
        if record.failure is not Failure.UNSUPPORTED or not steps:
            return
        # The build names the technique that refused; those before it were built.
        named = (n for n in range(len(steps), 0, -1) if record.reason.startswith(f"{steps[n - 1].technique}:"))
        until = next(named, len(steps))
        self._steps[steps[:until]] = record.reason
        last = steps[until - 1]
        key = (steps[: until - 1], last.technique, record.reason)
        if (known := self._kinds.get(key)) is None:
            self._kinds[key] = _Refusals(dict(last.params))
        else:
            known.add(dict(last.params))

    def reason(self, recipe: Recipe) -> str | None:
        """Why ``recipe`` can't be built, as far as that is known."""
        for n, step in enumerate(recipe.steps):
            if (reason := self._steps.get(recipe.steps[: n + 1])) is not None:
                return reason
            params = dict(step.params)
            for (before, technique, reason), refused in self._kinds.items():
                alike = technique == step.technique and before == recipe.steps[:n] and refused.count >= ENOUGH
                if alike and all(params.get(name) == value for name, value in refused.shared.items()):
                    return reason
        return None
