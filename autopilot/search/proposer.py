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

from autopilot import plugins
from autopilot.budget import Judgement
from autopilot.domain import Scalar
from autopilot.errors import Failure
from autopilot.profile import Interval
from autopilot.recipe import Variant
from autopilot.result import NO_TIME_LEFT, TrialRecord, TrialState
from autopilot.search.prices import Techniques
from autopilot.search.ranking import Ranking
from autopilot.search.shapes import FirstRuns
from autopilot.search.stages import Screen
from autopilot.search.surrogate import Observations, Prediction, Surrogate, Table
from autopilot.search.trial_prices import TrialPrices

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
# And so many for each provider beyond the first: its techniques' best and the model as given.
KNOWN_MORE = 4
# Before this many trials the model has too little to go by to end a search.
FEWEST_TRIALS = 12
# The share of the weighted sum beside the weighted maximum, as in ParEGO.
_AUGMENTED = 0.05
# What the model learns from costs time with every variant that it judges: so many trials tell it enough.
_MOST_TOLD = 80
# Weights are fitted again when the trials grew by this share.
_REFIT = 0.15


# Of each question the number of trials that its weights were fitted to, and its model.
Questions = dict[str, tuple[int, Surrogate]]


@dataclass(frozen=True, slots=True)
class Proposal:
    """``variant`` None: nothing is worth trying any more, and ``reason`` says why.

    ``gain``: by what share the objective is expected to improve, from variants that may not fit the budget too.
    """

    variant: Variant | None
    reason: str = ""
    gain: float = math.inf


def known_for(providers: int) -> int:
    """How many recommended variants are tried before the model is asked, in a search over so many providers.

    >>> known_for(1), known_for(2)
    (8, 12)
    """
    return KNOWN + KNOWN_MORE * (providers - 1)


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
    ``expected_s``: what stages should cost before any trial told. ``first_runs``: how many a deployment makes before
    it is timed.
    """

    candidates: Candidates
    ranking: Ranking
    limits: Sequence[str]
    known: int = KNOWN
    expected_s: Mapping[Screen, float] = field(default_factory=dict)
    first_runs: FirstRuns = lambda deployment: 0
    techniques: Techniques = plugins.techniques
    _questions: Questions = field(default_factory=dict)
    _poor: int = 0
    _table: tuple[Table, Mapping[str, int]] | None = None

    def next(
        self, records: Sequence[TrialRecord], is_new: Callable[[Variant], bool], left_s: float = math.inf
    ) -> Proposal:
        """The next variant to try, of those that are new and should be built and measured in ``left_s`` seconds."""
        if len(records) <= self.known:
            known = [v for v in self.candidates.known_good() if is_new(v)]
            for variant, worth_s in zip(known, self._prices(records).trials_s(known), strict=True):
                if worth_s <= left_s:
                    return Proposal(variant, "recommended for this machine")
        pool = [v for v in self.candidates.pool(records) if is_new(v)]
        if not pool:
            return Proposal(None, "every variant of this space was tried", 0.0)
        return self._of_model(records, pool, left_s)

    def _of_model(self, records: Sequence[TrialRecord], pool: Sequence[Variant], left_s: float) -> Proposal:
        told = _telling(records, self.ranking)
        table, index = self._tabled(pool, told)
        model = _Model(table, index, told, self._questions, len(records))
        rows = [index[v.id] for v in pool]
        chance = model.chance(self.limits)[rows]
        gain, worth = model.improvement(self.ranking)[rows], np.array(self._prices(records).trials_s(pool))
        in_time = worth <= left_s
        if not in_time.any():
            return Proposal(None, NO_TIME_LEFT, 0.0)
        gain = np.where(in_time, gain, 0.0)
        # Where nothing promises anything, one that ends in time all the same.
        best = int(np.argmax(np.where(in_time, gain * chance / worth, -1.0)))
        expected = float((gain * chance).max())
        self._poor = self._poor + 1 if model.has_incumbent and expected < WORTH else 0
        if self._poor >= PATIENCE and len(records) >= FEWEST_TRIALS:
            reason = f"no untried variant is expected to be better by more than {WORTH:.1%}, which is noise"
            return Proposal(None, reason, expected)
        return Proposal(pool[best], "most improvement expected for its cost", expected)

    def _tabled(self, pool: Sequence[Variant], told: Sequence[TrialRecord]) -> tuple[Table, Mapping[str, int]]:
        """A table with a row for each variant of ``pool`` and of ``told``; the same one while it has them all."""
        wanted = {v.id: v for v in (*pool, *(r.variant for r in told))}
        if self._table is None or not wanted.keys() <= self._table[1].keys():
            table = Table([self.candidates.names_of(v) for v in wanted.values()])
            self._table = (table, {name: row for row, name in enumerate(wanted)})
            self._questions = {name: (trials, model.on(table)) for name, (trials, model) in self._questions.items()}
        return self._table

    def _prices(self, records: Sequence[TrialRecord]) -> TrialPrices:
        return TrialPrices.learn(records, self.expected_s, first_runs=self.first_runs, techniques=self.techniques)


def _telling(records: Sequence[TrialRecord], ranking: Ranking) -> Sequence[TrialRecord]:
    """The records that the model learns from: of many the best and the last ones."""
    told = [r for r in records if r.failure is not Failure.UNSTABLE]
    if len(told) <= _MOST_TOLD:
        return told
    last = told[-_MOST_TOLD // 2 :]
    first = sorted(told[: -_MOST_TOLD // 2], key=lambda r: (_broken(r), ranking.of(r).value))
    return [*first[: _MOST_TOLD // 2], *last]


def _broken(record: TrialRecord) -> float:
    """By how much limits are broken; infinite for a variant that didn't run."""
    return record.verdict.worst if record.verdict is not None else math.inf


class _Model:
    """One surrogate a question: the objective, each limit, whether it runs. Answers are for every row of the table."""

    def __init__(
        self,
        table: Table,
        index: Mapping[str, int],
        records: Sequence[TrialRecord],
        questions: Questions,
        trials: int,
    ) -> None:
        self._table = table
        self._rows = [index[r.variant.id] for r in records]
        self._all = len(index)
        self._records = records
        self._questions = questions
        self._trials = trials
        self.has_incumbent = False

    def _predict(
        self, question: str, which: Sequence[int], value: Sequence[float], noise: Sequence[float]
    ) -> Prediction:
        """The answer from what the records ``which`` say."""
        seen = Observations([self._rows[k] for k in which], np.array(value), np.array(noise))
        trials, surrogate = self._questions.get(question, (0, None))
        surrogate = surrogate or Surrogate(self._table)
        if self._trials >= trials * (1 + _REFIT):
            surrogate.fit(seen)
            self._questions[question] = (self._trials, surrogate)
        return surrogate.predict(seen)

    def improvement(self, ranking: Ranking) -> Floats:
        """Expected improvement of the objective over the best in budget, as a share; shape (rows,).

        Without a variant in budget there is nothing to improve on: 1 for all.
        """
        which, values, noises, inside = [], [], [], []
        for k, (value, noise) in enumerate(self._figures(ranking)):
            if not math.isfinite(value):
                continue
            record = self._records[k]
            which.append(k)
            values.append(value)
            noises.append(noise)
            inside.append(
                record.state is not TrialState.PRUNED
                and record.verdict is not None
                and record.verdict.overall is Judgement.IN
            )
        if len(which) < _FEWEST_SEEN or not any(inside):
            return np.ones(self._all)
        self.has_incumbent = not ranking.further  # of a front there is always more to find
        found = self._predict("objective", which, values, noises)
        best = min(found.mean[self._rows[k]] for k, is_in in zip(which, inside, strict=True) if is_in)
        z = (best - found.mean) / found.std
        density: Floats = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
        expected: Floats = found.std * (z * _cdf(z) + density)
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
        """Probability that a variant runs and keeps every limit, shape (rows,)."""
        chance = np.ones(self._all)
        for axis in limits:
            found = [
                (k, math.asinh(3 * r.verdict.violations[axis]))
                for k, r in enumerate(self._records)
                if r.verdict is not None and axis in r.verdict.violations
            ]
            if len(found) < _FEWEST_SEEN or all(v <= 0 for _, v in found):
                continue  # a limit that nothing broke so far turns nothing away
            told = self._predict(f"limit {axis}", [k for k, _ in found], [v for _, v in found], [0.02] * len(found))
            chance *= _cdf(-told.mean / told.std)
        return chance * self._runs()

    def _runs(self) -> Floats:
        failed = [float(r.state is TrialState.FAILED) for r in self._records]
        if not any(failed):
            return np.ones(self._all)
        told = self._predict("runs", range(len(failed)), failed, [0.1] * len(failed))
        return np.clip(1.0 - told.mean, 0.02, 1.0)


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
