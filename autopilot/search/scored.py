"""The quality pass: outputs of a variant against the baseline's on the same samples, and the int8 audit."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from autopilot import plugins
from autopilot.artifact import Artifact
from autopilot.bench.child import ChildLimits
from autopilot.bench.launcher import Evaluation, check_sizes, evaluate
from autopilot.cache import SharedCache
from autopilot.contracts import Array
from autopilot.data import Split
from autopilot.errors import Failure, VariantFailed
from autopilot.meters.placement import INT8_SHARE, MAC_SHARE
from autopilot.model import ModelInfo, inspect, int8_audit, int8_audit_of_kernels
from autopilot.profile import Int8Audit, QualityReading
from autopilot.recipe import Recipe, digest
from autopilot.scoring import can_reject, score
from autopilot.search.kept_scores import KeptScore, KeptScores, numerics, scorer
from autopilot.search.outcome import Outcome
from autopilot.search.preflight import scored_for_sure, scored_name
from autopilot.search.prepare import Setup

# The first subset that can reject a variant; each further one is as large as all before it together. At 256 samples
# a certain rejection takes a drop of some five points: a broken recipe, and those are the common ones.
PREFIX = 256
# What one more process for a subset costs, and so what the samples left must cost for a stop before them to pay.
PREFIX_PAYS_S = 1.0
# ``can_reject`` shares its error between so many looks.
LOOKS = 8

Scored = tuple[QualityReading, Int8Audit | None]


class QualityPass:
    """Scores variants; an artifact that was scored under the same numerics isn't scored again.

    Where another deployment of it serves other sizes, a few samples are run in those and compared.

    Scores are kept in ``cache`` for later runs, unless code of the user's takes part.
    """

    def __init__(self, setup: Setup, baseline: Outcome, cache: SharedCache | None = None) -> None:
        self._setup = setup
        self._baseline = baseline
        self._infos: dict[str, ModelInfo] = {}  # of what was scored, by the artifact's digest
        self._scorer = scorer(setup)
        self._kept = KeptScores(cache) if cache is not None and self._scorer is not None else None
        self._done: dict[str, KeptScore] = {}
        self._outputs: dict[str, Path] = {}  # the baseline's, by split

    def run(self, outcome: Outcome, split: Split, *, limits: ChildLimits, early: bool) -> Scored:
        """The reading on ``split``; with ``early``, of a prefix that already rules the variant out.

        Raises:
            VariantFailed: it can't be run, or its outputs are no numbers.
        """
        batch = self._batch(outcome)
        key = self._key(outcome, split, batch)
        known = self._known(key)
        if known is None:
            if outcome is not self._baseline:
                self._baseline_outputs(split, limits)  # not this variant's to pay for
            started = time.perf_counter()
            scored = self._measure(outcome, split, batch, limits, early=early)
            if scored[0].n < split.n:
                return scored
            new = KeptScore(*scored, time.perf_counter() - started, self._compared(outcome))
        else:
            new = self._with_sizes(known, outcome, split, batch, limits)
            outcome.seconds["evaluate_saved"] = outcome.seconds.get("evaluate_saved", 0.0) + known.took_s
        if new is not known and self._kept is not None:
            self._kept.put(key, new, outcome.artifact, split)
        self._done[key] = new
        return new.reading, new.audit

    def knows(self, outcome: Outcome, split: Split) -> bool:
        """Whether ``run`` would answer at once."""
        if outcome.artifact.sha256 not in self._infos:
            return False
        known = self._done.get(self._key(outcome, split, self._batch(outcome)))
        return known is not None and set(self._compared(outcome)) <= set(known.sizes)

    def _known(self, key: str) -> KeptScore | None:
        return self._done.get(key) or (self._kept.get(key) if self._kept is not None else None)

    def _with_sizes(
        self, known: KeptScore, outcome: Outcome, split: Split, batch: int, limits: ChildLimits
    ) -> KeptScore:
        """``known`` after its answers were compared with those of the sizes that ``outcome`` serves, a few samples."""
        new = tuple(size for size in self._compared(outcome) if size not in known.sizes)
        if not new:
            return known
        check_sizes(
            outcome.artifact.path,
            outcome.variant.deployment,
            split=split,
            batch=batch,
            sizes=new,
            scored=scored_for_sure(self._setup.problem.metric),
            limits=limits,
        )
        return replace(known, sizes=(*known.sizes, *new))

    def _batch(self, outcome: Outcome) -> int:
        return self._setup.scoring_batch(outcome.variant.deployment, self._info(outcome.artifact))

    def _compared(self, outcome: Outcome) -> tuple[int, ...]:
        return self._setup.compared_sizes(outcome.variant.deployment, self._info(outcome.artifact))

    def _info(self, artifact: Artifact) -> ModelInfo:
        if artifact.sha256 not in self._infos:
            self._infos[artifact.sha256] = inspect(artifact.path)
        return self._infos[artifact.sha256]

    def _audits(self, outcome: Outcome) -> bool:
        """Whether it is read what runs in int8: a step promises it, the file itself holds it, or the spec asks.

        A model as given, and every file or bundle that ``check`` gets, has no steps.
        """
        problem = self._setup.problem
        asked = {INT8_SHARE.name, MAC_SHARE.name}.intersection((*problem.budget.axes, *problem.objectives))
        return bool(asked) or self.claims_int8(outcome.variant.recipe) or self._info(outcome.artifact).quantized

    def _key(self, outcome: Outcome, split: Split, batch: int) -> str:
        base = self._baseline
        mine = [outcome.artifact.sha256, numerics(outcome.variant.deployment, batch)]
        theirs = [base.artifact.sha256, numerics(base.variant.deployment, self._batch(base))]
        roles = [outcome is base, self._audits(outcome)]
        return digest([self._scorer, mine, theirs, roles, split.digest, split.name])

    def _measure(self, outcome: Outcome, split: Split, batch: int, limits: ChildLimits, *, early: bool) -> Scored:
        if outcome is self._baseline:
            found = self._baseline_outputs(split, limits)
            reading = self._reading(found.load(), split, limits, same_model=True)
            return reading, self._audit(outcome, found, split, batch)
        folder = self._setup.work / "outputs" / f"{outcome.variant.id}-{split.name}"
        shutil.rmtree(folder, ignore_errors=True)
        try:
            parts: list[dict[str, Array]] = []
            for start, stop in self._spans(outcome, split, early=early):
                found = self._evaluate(outcome, split, (start, stop), batch, folder / str(start), limits)
                parts.append(found.load())
                if stop < split.n and self._rejects(_joined(parts), split, stop, limits):
                    break
            audit = self._audit(outcome, Evaluation.open(folder / "0"), split, batch)
            return self._reading(_joined(parts), split, limits, same_model=False), audit
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _spans(self, outcome: Outcome, split: Split, *, early: bool) -> list[tuple[int, int]]:
        """Subsets that grow by doubling, for as long as what is left after one is worth stopping for."""
        measured = outcome.measured.get("latency_mean_ms") or self._baseline.measured.get("latency_mean_ms")
        sample_s = measured.value / 1e3 if measured is not None and measured.value is not None else 0.0
        stops: list[int] = []
        end = PREFIX
        while early and len(stops) < LOOKS and end < split.n and (split.n - end) * sample_s > PREFIX_PAYS_S:
            stops.append(end)
            end *= 2
        return list(pairwise([0, *stops, split.n]))

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
            optimized=span[0] == 0 and self._audits(outcome),
            sizes=self._compared(outcome) if span[0] == 0 else (),
            scored=scored_for_sure(self._setup.problem.metric),
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
            looks=LOOKS,
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


def _joined(parts: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """The outputs of one subset after the other."""
    return dict(parts[0]) if len(parts) == 1 else {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}


def _taken(outputs: Mapping[str, Array], name: str) -> Array:
    """The scored output of a variant, which may run in batches that the baseline didn't."""
    if name not in outputs:
        message = f"its output {name!r} doesn't follow the batch, so that it can't be scored."
        raise VariantFailed(Failure.UNSUPPORTED, message, "Take a batch size of 1.")
    return outputs[name]
