"""Which variant next: the one with the most expected improvement inside the budget for its seconds.

Expected improvement with constraints (Schonlau, Welch & Jones 1998; Gardner et al. 2014) per unit of cost (Snoek,
Larochelle & Adams 2012). Everything follows from the finished trials, so that a resumed search, or another machine
on the same study, goes on as this one would.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from autopilot.budget import Judgement
from autopilot.domain import Scalar
from autopilot.profile import Interval
from autopilot.recipe import Variant
from autopilot.result import TrialRecord, TrialState
from autopilot.search.ranking import Ranking
from autopilot.search.stages import Screen, stage_costs
from autopilot.search.surrogate import Choices, Observations, Prediction, fit, predict

Floats = npt.NDArray[np.float64]

# Fewer figures than this teach the model less than the techniques' own advice.
_FEWEST_SEEN = 3
# No figure is surer than this: two processes of one model differ.
_LEAST_NOISE = 0.005
# A gain below this share of the objective drowns in what finalists that tie differ by.
WORTH = 0.005
# So many proposals in a row that promise less end the search.
PATIENCE = 3
# So many of the recommended variants are tried before the model is asked: each technique's best, and a batch.
KNOWN = 8
# Before this many trials the model has too little to go by to end a search.
FEWEST_TRIALS = 12
# The share of the weighted sum beside the weighted maximum, as in ParEGO.
_AUGMENTED = 0.05
# Weights are fitted again when the trials grew by this share.
_REFIT = 0.15


@dataclass(frozen=True, slots=True)
class Proposal:
    """``variant`` None: nothing is worth trying any more, and ``reason`` says why.

    ``gain``: by what share the objective is expected to improve, from variants that may not fit the budget too.
    """

    variant: Variant | None
    reason: str = ""
    gain: float = math.inf


class Candidates(Protocol):
    """Where variants come from."""

    def known_good(self) -> Sequence[Variant]:
        """Variants that are recommended, best first."""

    def pool(self, records: Sequence[TrialRecord]) -> Sequence[Variant]:
        """Variants to choose from."""

    def names_of(self, variant: Variant) -> Mapping[str, Scalar]:
        """The variant's choices by name."""


@dataclass(slots=True)
class Proposer:
    """Proposes variants for one study.

    ``limits``: the budget's axes. ``known``: how many recommended variants are tried before the model is asked.
    ``expected_s``: what stages should cost before any trial told.
    """

    candidates: Candidates
    ranking: Ranking
    limits: Sequence[str]
    known: int = KNOWN
    expected_s: Mapping[Screen, float] = field(default_factory=dict)
    _weights: dict[str, tuple[int, Floats]] = field(default_factory=dict)
    _poor: int = 0

    def next(self, records: Sequence[TrialRecord], is_new: Callable[[Variant], bool]) -> Proposal:
        """The next variant to try, of those that are new."""
        if len(records) <= self.known:
            for variant in self.candidates.known_good():
                if is_new(variant):
                    return Proposal(variant, "recommended for this machine")
        pool = [v for v in self.candidates.pool(records) if is_new(v)]
        if not pool:
            return Proposal(None, "every variant of this space was tried", 0.0)
        return self._of_model(records, pool)

    def _of_model(self, records: Sequence[TrialRecord], pool: Sequence[Variant]) -> Proposal:
        told = [r for r in records if not _spoilt(r)]
        rows = [self.candidates.names_of(v) for v in (*pool, *(r.variant for r in told))]
        model = _Model(Choices.of(rows), len(pool), told, self._weights)
        chance = model.chance(self.limits)
        gain, worth = model.improvement(self.ranking), self._worth_s(records, pool)
        score = gain * chance / worth
        best = int(np.argmax(score))
        expected = float((gain * chance).max())
        self._poor = self._poor + 1 if model.has_incumbent and expected < WORTH else 0
        if self._poor >= PATIENCE and len(records) >= FEWEST_TRIALS:
            reason = f"no untried variant is expected to be better by more than {WORTH:.1%}, which is noise"
            return Proposal(None, reason, expected)
        return Proposal(pool[best], "most improvement expected for its cost", expected)

    def _worth_s(self, records: Sequence[TrialRecord], pool: Sequence[Variant]) -> Floats:
        """Seconds that a trial of each variant should take: what was built or scored before costs nothing again."""
        prices = {c.stage: c.price_s for c in stage_costs(records) if c.price_s is not None}
        price = {s: prices.get(s.value, self.expected_s.get(s, 0.0)) for s in Screen}
        builds: dict[str, list[float]] = {}
        built: set[str] = set()
        scored: set[str] = set()
        for r in records:
            recipe = r.variant.recipe
            built.add(recipe.digest)
            if "evaluate" in r.seconds:
                scored.add(recipe.digest)
            build_s = r.seconds.get("build", 0.0) + r.seconds.get("build_saved", 0.0)
            if recipe.steps and build_s > 0.05:
                builds.setdefault(recipe.steps[-1].technique, []).append(build_s)
        out = []
        for variant in pool:
            recipe = variant.recipe
            seconds = price[Screen.LOAD] + price[Screen.LATENCY]
            if recipe.digest not in scored:
                seconds += price[Screen.QUALITY]
            if recipe.steps and recipe.digest not in built:
                seen = builds.get(recipe.steps[-1].technique)
                seconds += float(np.mean(seen)) if seen else price[Screen.BUILD]
            out.append(max(seconds, 0.1))
        return np.array(out)


def _spoilt(record: TrialRecord) -> bool:
    return record.failure is not None and record.failure.value == "unstable"


class _Model:
    """One surrogate a question: the objective, each limit, whether it runs; rows of the pool come first."""

    def __init__(
        self,
        choices: Choices,
        pool: int,
        records: Sequence[TrialRecord],
        weights: dict[str, tuple[int, Floats]],
    ) -> None:
        self._choices = choices
        self._pool = pool
        self._records = records
        self._weights = weights
        self.has_incumbent = False

    def _row(self, k: int) -> int:
        return self._pool + k

    def _predict(self, name: str, seen: Observations) -> Prediction:
        known = self._weights.get(name)
        fits = known is not None and known[1].size == self._choices.codes.shape[1]
        if known is None or not fits or len(seen.rows) > known[0] * (1 + _REFIT):
            start = known[1] if known is not None and fits else None
            self._weights[name] = known = (len(seen.rows), fit(self._choices, seen, start=start))
        return predict(self._choices, seen, known[1])

    def improvement(self, ranking: Ranking) -> Floats:
        """Expected improvement of the objective over the best in budget, as a share; shape (pool,).

        Without a variant in budget there is nothing to improve on: 1 for all.
        """
        rows, values, noises, inside = [], [], [], []
        for k, (value, noise) in enumerate(self._figures(ranking)):
            if not math.isfinite(value):
                continue
            record = self._records[k]
            rows.append(self._row(k))
            values.append(value)
            noises.append(noise)
            inside.append(
                record.state is not TrialState.PRUNED
                and record.verdict is not None
                and record.verdict.overall is Judgement.IN
            )
        if len(rows) < _FEWEST_SEEN or not any(inside):
            return np.ones(self._pool)
        self.has_incumbent = not ranking.further  # of a front there is always more to find
        seen = Observations(rows, np.array(values), np.array(noises))
        found = self._predict("objective", seen)
        best = min(found.mean[row] for row, is_in in zip(rows, inside, strict=True) if is_in)
        mean, std = found.mean[: self._pool], found.std[: self._pool]
        z = (best - mean) / std
        density: Floats = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
        expected: Floats = std * (z * _cdf(z) + density)
        return expected

    def _figures(self, ranking: Ranking) -> Sequence[tuple[float, float]]:
        """Each record's objective and its standard deviation; smaller is better, infinite where it isn't known.

        Several objectives are drawn together with weights that change from trial to trial (ParEGO, Knowles 2006).
        """
        if not ranking.further:
            return [_logarithmic(ranking.of(record)) for record in self._records]
        found = np.array([[f.value for f in ranking.all_seen(r.measured)] for r in self._records])
        known = np.isfinite(found).all(1)
        if not known.any():
            return [(math.inf, 0.0)] * len(found)
        low, high = found[known].min(0), found[known].max(0)
        scaled = (found - low) / np.where(high > low, high - low, 1.0)
        weights = np.random.default_rng(len(self._records)).dirichlet(np.ones(found.shape[1]))
        drawn = (weights * scaled).max(1) + _AUGMENTED * (weights * scaled).sum(1)
        return [(float(v) if k else math.inf, 0.02) for v, k in zip(drawn, known, strict=True)]

    def chance(self, limits: Sequence[str]) -> Floats:
        """Probability that a variant runs and keeps every limit, shape (pool,)."""
        chance = np.ones(self._pool)
        for axis in limits:
            found = [
                (self._row(k), math.asinh(3 * r.verdict.violations[axis]))
                for k, r in enumerate(self._records)
                if r.verdict is not None and axis in r.verdict.violations
            ]
            if len(found) < _FEWEST_SEEN or all(v <= 0 for _, v in found):
                continue  # a limit that nothing broke so far turns nothing away
            values = np.array([v for _, v in found])
            noise = np.full(len(found), 0.02)
            told = self._predict(f"limit {axis}", Observations([row for row, _ in found], values, noise))
            chance *= _cdf(-told.mean[: self._pool] / told.std[: self._pool])
        return chance * self._runs()

    def _runs(self) -> Floats:
        failed = np.array([float(r.state is TrialState.FAILED) for r in self._records])
        if not failed.any():
            return np.ones(self._pool)
        rows = [self._row(k) for k in range(len(failed))]
        told = self._predict("runs", Observations(rows, failed, np.full(len(failed), 0.1)))
        return np.clip(1.0 - told.mean[: self._pool], 0.02, 1.0)


def _logarithmic(figures: Interval) -> tuple[float, float]:
    """Value and standard deviation on the scale on which shares add up."""
    if not math.isfinite(figures.value) or figures.value == 0:
        return math.inf, 0.0
    half = (_log(figures.high) - _log(figures.low)) / 2 / 1.96
    return _log(figures.value), max(half if math.isfinite(half) else 0.1, _LEAST_NOISE)


def _log(value: float) -> float:
    """Shares compare as factors; of what is maximised the negative comes in."""
    return math.log(value) if value > 0 else -math.log(-value) if value < 0 else -math.inf


def _cdf(z: Floats) -> Floats:
    return np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in z.tolist()], dtype=np.float64)
