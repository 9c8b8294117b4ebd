"""The quality pass: outputs of a variant against the baseline's on the same samples, and the int8 audit."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from autopilot import plugins
from autopilot.bench.child import ChildLimits
from autopilot.bench.launcher import Evaluation, evaluate
from autopilot.contracts import Array, facts_of
from autopilot.data import Split
from autopilot.errors import Failure, VariantFailed
from autopilot.model import inspect, int8_audit, int8_audit_of_kernels
from autopilot.profile import Int8Audit, QualityReading
from autopilot.recipe import Recipe, digest
from autopilot.scoring import can_reject, score
from autopilot.search.outcome import Outcome
from autopilot.search.preflight import scored_name
from autopilot.search.prepare import Setup

# A random prefix of this many samples can reject a variant; a smaller one rarely does.
PREFIX = 512
# Below this many seconds the whole split costs less than a second process for the prefix.
PREFIX_PAYS_S = 3.0

Scored = tuple[QualityReading, Int8Audit | None]


class QualityPass:
    """Scores variants; an artifact that was scored under the same numerics isn't run again."""

    def __init__(self, setup: Setup, baseline: Outcome) -> None:
        self._setup = setup
        self._baseline = baseline
        self._done: dict[str, Scored] = {}
        self._outputs: dict[str, Path] = {}  # the baseline's, by split

    def run(self, outcome: Outcome, split: Split, *, limits: ChildLimits, early: bool) -> Scored:
        """The reading on ``split``; with ``early``, of a prefix that already rules the variant out.

        Raises:
            VariantFailed: it can't be run, or its outputs are no numbers.
        """
        batch = self._batch(outcome)
        key = self._key(outcome, split, batch)
        if key not in self._done:
            scored = self._measure(outcome, split, batch, limits, early=early)
            if scored[0].n < split.n:
                return scored
            self._done[key] = scored
        return self._done[key]

    def _batch(self, outcome: Outcome) -> int:
        return self._setup.scoring_batch(outcome.variant.deployment, inspect(outcome.artifact.path))

    def _key(self, outcome: Outcome, split: Split, batch: int) -> str:
        deployment = outcome.variant.deployment
        options = dict(deployment.options)
        told = facts_of(plugins.providers()[deployment.provider]).numerics
        numerics = [deployment.provider, *(options.get(name) for name in told), batch]
        return digest([outcome.artifact.sha256, numerics, split.digest])

    def _measure(self, outcome: Outcome, split: Split, batch: int, limits: ChildLimits, *, early: bool) -> Scored:
        if outcome is self._baseline:
            outputs = self._baseline_outputs(split, limits).load()
            return self._reading(outputs, split, limits, same_model=True), None
        self._baseline_outputs(split, limits)
        folder = self._setup.work / "outputs" / f"{outcome.variant.id}-{split.name}"
        shutil.rmtree(folder, ignore_errors=True)
        try:
            spans = self._spans(outcome, split, early=early)
            parts: list[dict[str, Array]] = []
            for start, stop in spans:
                found = self._evaluate(outcome, split, (start, stop), batch, folder / str(start), limits)
                parts.append(found.load())
                if stop < split.n and self._rejects(parts[0], split, stop, limits):
                    break
            audit = self._audit(outcome, Evaluation.open(folder / "0"), split, batch)
            outputs = parts[0] if len(parts) == 1 else {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
            return self._reading(outputs, split, limits, same_model=False), audit
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _spans(self, outcome: Outcome, split: Split, *, early: bool) -> list[tuple[int, int]]:
        mean = outcome.measured.get("latency_mean_ms")
        expected_s = mean.value / 1e3 * split.n if mean is not None and mean.value is not None else PREFIX_PAYS_S
        if early and split.n >= 2 * PREFIX and expected_s > PREFIX_PAYS_S:
            return [(0, PREFIX), (PREFIX, split.n)]
        return [(0, split.n)]

    def _evaluate(
        self,
        outcome: Outcome,
        split: Split,
        span: tuple[int, int],
        batch: int,
        folder: Path,
        limits: ChildLimits,
    ) -> Evaluation:
        return evaluate(
            outcome.artifact.path,
            outcome.variant.deployment,
            split=split,
            start=span[0],
            stop=span[1],
            batch=batch,
            folder=folder,
            limits=limits,
            optimized=span[0] == 0 and self.claims_int8(outcome.variant.recipe),
        )

    def _baseline_outputs(self, split: Split, limits: ChildLimits) -> Evaluation:
        """The baseline's outputs on ``split``, computed once."""
        if split.name not in self._outputs:
            folder = self._setup.work / "outputs" / f"baseline-{split.name}"
            shutil.rmtree(folder, ignore_errors=True)
            self._evaluate(self._baseline, split, (0, split.n), self._batch(self._baseline), folder, limits)
            self._outputs[split.name] = folder
        return Evaluation.open(self._outputs[split.name])

    def _rejects(self, outputs: dict[str, Array], split: Split, stop: int, limits: ChildLimits) -> bool:
        limit = self._setup.problem.budget.limit("quality_drop")
        if limit is None:
            return False
        found = self._baseline_outputs(split, limits)
        name = scored_name(self._setup.problem.metric, found)
        labels = split.labels
        return can_reject(
            self._setup.metric,
            self._setup.problem.metric.options,
            outputs_prefix=_taken(outputs, name),
            baseline_prefix=found.load()[name][:stop],
            labels_prefix=None if labels is None else labels[:stop],
            n_total=split.n,
            bound=limit.effective,
        )

    def _reading(
        self, outputs: dict[str, Array], split: Split, limits: ChildLimits, *, same_model: bool
    ) -> QualityReading:
        found = self._baseline_outputs(split, limits)
        name = scored_name(self._setup.problem.metric, found)
        scored = _taken(outputs, name)
        baseline = {k: v[: len(scored)] for k, v in found.load().items()}
        return score(
            self._setup.metric,
            self._setup.problem.metric.options,
            outputs=scored,
            baseline=baseline[name],
            labels=None if split.labels is None else split.labels[: len(scored)],
            split_name=split.name,
            all_outputs=outputs,
            all_baseline=baseline,
            same_model=same_model,
        )

    @staticmethod
    def claims_int8(recipe: Recipe) -> bool:
        """Whether some step of ``recipe`` promises integer kernels."""
        return any(plugins.techniques()[step.technique].claims_int8 for step in recipe.steps)

    @staticmethod
    def _audit(outcome: Outcome, found: Evaluation, split: Split, batch: int) -> Int8Audit | None:
        """What runs in int8, from the runtime's graph or from its kernels; None where it showed neither."""
        if found.optimized is None and found.kernels is None:
            return None
        shapes = {name: array.shape for name, array in split.feed([i % split.n for i in range(batch)]).items()}
        if found.kernels is not None:
            return int8_audit_of_kernels(outcome.artifact.path, found.kernels, shapes)
        assert found.optimized is not None
        return int8_audit(outcome.artifact.path, found.optimized, shapes)


def _taken(outputs: Mapping[str, Array], name: str) -> Array:
    """The scored output of a variant, which may run in batches that the baseline didn't."""
    if name not in outputs:
        message = f"its output {name!r} doesn't follow the batch, so that it can't be scored."
        raise VariantFailed(Failure.UNSUPPORTED, message, "Take a batch size of 1.")
    return outputs[name]
