"""The variants that a proposer chooses from: all of a small space, a drawn part of a large one."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

from autopilot.domain import Choice, Domain, Int, Scalar
from autopilot.errors import SpecError
from autopilot.recipe import Step, Variant
from autopilot.result import TrialRecord
from autopilot.search.build_costs import EFFORT
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


class SpaceCandidates:
    """Candidates from ``space`` for one study; draws follow ``seed`` and the number of trials alone."""

    def __init__(self, space: SearchSpace, target: Target, ranking: Ranking, *, seed: int) -> None:
        self._space = space
        self._ranking = ranking
        self._seed = seed
        self._known = [v for v in space.known_good(target) if space.refusal(v.recipe) is None]
        self._all = _whole(space, seed)
        self._drawn: tuple[int, Sequence[Variant]] | None = None

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

    def declared_s(self, step: Step) -> float:
        """About how many seconds the step's technique says that it takes; 0 for those that are quick."""
        return self._space.techniques[step.technique][0].build_s(dict(step.params))

    def pool(self, records: Sequence[TrialRecord]) -> Sequence[Variant]:
        """Variants that make sense, tried ones among them."""
        if self._all is not None:
            return self._all
        turn = len(records) // KEPT
        if self._drawn is None or self._drawn[0] != turn:
            self._drawn = (turn, self._draw_pool(records, turn))
        return self._drawn[1]

    def _draw_pool(self, records: Sequence[TrialRecord], turn: int) -> Sequence[Variant]:
        draw = _Draw(random.Random(f"{self._seed}-{turn}"))
        found = {v.id: v for v in self._known}
        for _ in range(DRAWN):
            variant = self._space.sample(draw)
            found[variant.id] = variant
        for record in line_up(records, self._ranking)[:BEST]:
            names = self._space.names_of(record.variant)
            found |= {v.id: v for v in self._continued(names)}
            for _ in range(NEIGHBOURS):
                variant = self._space.sample(draw.near(names))
                found[variant.id] = variant
        return [v for v in found.values() if self._space.refusal(v.recipe) is None]

    def _continued(self, names: Mapping[str, Scalar]) -> Iterator[Variant]:
        """The same with one more rung of training, where the space has it: it goes on from a checkpoint."""
        for name, value in names.items():
            if name.partition("@")[0].endswith(f".{EFFORT}") and isinstance(value, int):
                try:
                    yield self._space.sample(_replay({**names, name: value + 1}))
                except KeyError:
                    continue  # it is the last one


def _replay(names: Mapping[str, Scalar]) -> Suggest:
    """Exactly ``names``; KeyError where the space hasn't such a value."""

    def suggest(name: str, domain: Domain) -> Scalar:
        if not domain.contains(names[name]):
            raise KeyError(name)
        return names[name]

    return suggest


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
