"""The variants that a proposer chooses from: all of a small space, a drawn part of a large one."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

from autopilot.budget import Judgement
from autopilot.contracts import Slot
from autopilot.domain import Choice, Domain, Int, Scalar
from autopilot.errors import SpecError
from autopilot.known_good import parents, preferred
from autopilot.recipe import Recipe, Step, Variant
from autopilot.result import TrialRecord
from autopilot.search.finalists import line_up
from autopilot.search.ranking import Ranking
from autopilot.space import SearchSpace, Suggest
from autopilot.space_walk import TooMany, walk
from autopilot.target import Target

# A space of up to so many variants is looked at whole: the model judges these in some tens of milliseconds.
MOST = 3000
# Of a larger one so many are drawn, and so many neighbours of each of the best variants.
DRAWN, NEIGHBOURS, BEST = 800, 40, 5
# Drawing and encoding them takes a tenth of a second: they serve for so many trials.
KEPT = 10
# What comes before the graph is touched: it trains.
_EARLY = tuple(Slot)[: tuple(Slot).index(Slot.GRAPH)]


class SpaceCandidates:
    """Candidates from ``space`` for one study; draws follow ``seed`` and the number of trials alone."""

    def __init__(self, space: SearchSpace, target: Target, ranking: Ranking, *, seed: int) -> None:
        self._space = space
        self._ranking = ranking
        self._seed = seed
        self._target = target
        self._known = [v for v in space.known_good(target) if space.refusal(v.recipe) is None]
        self._all = _whole(space, seed)
        self._drawn: tuple[tuple[int, str, str], Sequence[Variant]] | None = None

    @property
    def is_whole(self) -> bool:
        """Whether ``pool`` holds every variant of the space."""
        return self._all is not None

    def known_good(self) -> Sequence[Variant]:
        """What plug-ins recommend for this machine, best first."""
        return self._known

    def names_of(self, variant: Variant) -> Mapping[str, Scalar]:
        """The variant's choices by name."""
        return self._space.names_of(variant)

    def pool(self, records: Sequence[TrialRecord]) -> Sequence[Variant]:
        """Variants that make sense, tried ones among them."""
        if self._all is not None:
            return self._all
        turn, best = len(records) // KEPT, self._near(records)[:BEST]
        missed = self._almost(records)
        # Around a new best one there are new neighbours, and no others.
        key = (turn, best[0].id if best else "", missed[0].id if missed else "")
        if self._drawn is None or self._drawn[0] != key:
            self._drawn = (key, self._draw_pool(best, missed, turn))
        return self._drawn[1]

    def _near(self, records: Sequence[TrialRecord]) -> Sequence[TrialRecord]:
        """Records in the order of finalists, but for a baseline that the space can't give."""
        return [r for r in line_up(records, self._ranking) if self._space.knows(r.variant.recipe)]

    def _almost(self, records: Sequence[TrialRecord]) -> Sequence[TrialRecord]:
        """Variants changed early that broke a limit, by the least first: more training may bring them inside."""
        out = [r for r in records if r.verdict and r.verdict.overall is Judgement.OUT]
        out = [r for r in out if self._space.knows(r.variant.recipe) and any(self._taught(r.variant))]
        return sorted(out, key=lambda r: r.verdict.worst if r.verdict else 0.0)[:BEST]

    def _draw_pool(self, best: Sequence[TrialRecord], missed: Sequence[TrialRecord], turn: int) -> Sequence[Variant]:
        draw = _Draw(random.Random(f"{self._seed}-{turn}"))
        found = {v.id: v for v in self._known}
        for _ in range(DRAWN):
            variant = self._space.sample(draw)
            found[variant.id] = variant
        for record in missed:
            found |= {v.id: v for v in self._taught(record.variant)}
        for record in best:
            names = self._space.names_of(record.variant)
            for variant in (*self._grafted(record.variant), *self._taught(record.variant)):
                found[variant.id] = variant
            for _ in range(NEIGHBOURS):
                variant = self._space.sample(draw.near(names))
                found[variant.id] = variant
        return [v for v in found.values() if self._space.refusal(v.recipe) is None]

    def _grafted(self, good: Variant) -> Iterator[Variant]:
        """``good`` with each recommended way to change the model before it, in place of its own."""
        kept = tuple(s for s in good.recipe.steps if self._space.techniques[s.technique][0].slot not in _EARLY)
        for before in parents(self._space, self._target.running(good.deployment.provider)):
            yield Variant(Recipe((*before, *kept)), good.deployment)

    def _taught(self, variant: Variant) -> Iterator[Variant]:
        """``variant`` with more training: one level further, or with the recommended one after its structure."""
        yield from self._continued(variant)
        slots = [self._space.techniques[s.technique][0].slot for s in variant.recipe.steps]
        if Slot.STRUCTURE not in slots or Slot.TRAINING in slots:
            return
        until = slots.index(Slot.STRUCTURE) + 1
        before, after = variant.recipe.steps[:until], variant.recipe.steps[until:]
        for step in preferred(self._space, Slot.TRAINING, self._target.running(variant.deployment.provider)):
            yield Variant(Recipe((*before, step, *after)), variant.deployment)

    def _continued(self, good: Variant) -> Iterator[Variant]:
        """``good`` with each of its trainings taken one level further."""
        steps = good.recipe.steps
        for k, step in enumerate(steps):
            technique, domains = self._space.techniques[step.technique]
            name, params = technique.continues, dict(step.params)
            if name and isinstance(level := params.get(name), int) and domains[name].contains(level + 1):
                further = Step(step.technique, tuple((n, level + 1 if n == name else v) for n, v in step.params))
                yield Variant(Recipe((*steps[:k], further, *steps[k + 1 :])), good.deployment)


def _whole(space: SearchSpace, seed: int) -> Sequence[Variant] | None:
    """All variants in a drawn order, so that ties are broken by chance and not by the alphabet; None for too many."""
    try:
        found = [v for v in walk(space, most=4 * MOST) if space.refusal(v.recipe) is None]  # many draws may be one
    except (SpecError, TooMany):
        return None
    random.Random(seed).shuffle(found)
    return found if len(found) <= MOST else None


class _Draw:
    """Draws values; near given ones, all but one of the choices are as given."""

    def __init__(self, source: random.Random) -> None:
        self._random = source

    def __call__(self, name: str, domain: Domain) -> Scalar:
        if isinstance(domain, Choice):
            return self._random.choice(domain.values)
        if isinstance(domain, Int):
            return self._random.randrange(domain.low, domain.high + 1, domain.step)
        return self._random.uniform(domain.low, domain.high)

    def near(self, names: Mapping[str, Scalar]) -> Suggest:
        """As ``names`` says but for one choice, and for those that it opens."""
        changed = self._random.choice(sorted(names))

        def suggest(name: str, domain: Domain) -> Scalar:
            if name != changed and name in names and domain.contains(names[name]):
                return names[name]
            return self(name, domain)

        return suggest
