"""Walking a space: every variant once, and none that can't be drawn."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopilot.contracts import Slot, Technique
from autopilot.domain import Choice, Domain, Float, Int, Scalar
from autopilot.errors import SpecError
from autopilot.recipe import Deployment
from autopilot.space import SearchSpace
from autopilot.space_walk import TooMany, walk


def technique(name: str, slot: Slot, **parameters: Domain) -> tuple[Technique, dict[str, Domain]]:
    found = Technique(name=name, slot=slot, version=1, summary="", parameters=parameters, apply=lambda *_: None)  # type: ignore[arg-type]
    return found, parameters


def space(*, low: int = 1, high: int = 3, kinds: int = 2, threads: tuple[int, ...] = (2, 1)) -> SearchSpace:
    return SearchSpace(
        techniques={
            "slim": technique("slim", Slot.GRAPH, level=Int(low, high, low)),
            "int8": technique("int8", Slot.PRECISION, kind=Choice(tuple("abcd"[:kinds]))),
        },
        providers={"cpu": {"spinning": Choice((True, False))}},
        threads=threads,
        batches=(1,),
    )


@given(st.integers(1, 3), st.integers(0, 3), st.integers(1, 4))
def test_walk_gives_the_product_of_the_choices(low: int, more: int, kinds: int) -> None:
    """(no graph step + its levels) x (no precision step + its kinds) x threads x spinning, each once."""
    found = list(walk(space(low=low, high=low + more, kinds=kinds)))

    assert len(found) == (1 + more + 1) * (1 + kinds) * 2 * 2
    assert len({v.id for v in found}) == len(found)


@given(st.integers(0, 2**32))
def test_walk_meets_every_variant_that_can_be_drawn(seed: int) -> None:
    """Whatever a sampler draws is among the walked ones."""
    source = random.Random(seed)

    def draw(name: str, domain: Domain) -> Scalar:
        if isinstance(domain, Choice):
            return source.choice(domain.values)
        assert isinstance(domain, Int)
        return source.randint(domain.low, domain.high)

    walked = {v.id for v in walk(space())}
    assert all(space().sample(draw).id in walked for _ in range(20))


def test_walk_gives_one_variant_where_an_option_changes_nothing() -> None:
    """With one thread nothing spins: one variant there, two with two threads."""
    told = SearchSpace(
        techniques={},
        providers={"cpu": {"spinning": Choice((True, False))}},
        threads=(2, 1),
        batches=(1,),
        irrelevant={"cpu": lambda d: ("spinning",) if d.threads == 1 else ()},
    )

    found = [v.deployment for v in walk(told)]

    assert sorted((d.threads, dict(d.options)["spinning"]) for d in found) == [(1, True), (2, False), (2, True)]
    assert told.settled(Deployment("cpu", 1, 1, (("spinning", False),))) == Deployment(
        "cpu", 1, 1, (("spinning", True),)
    )


def test_walk_ends_where_it_would_never_end() -> None:
    """More draws than allowed, and a real number, are said and not walked for ever."""
    with pytest.raises(TooMany):
        list(walk(space(), most=5))
    endless = SearchSpace({"t": technique("t", Slot.GRAPH, share=Float(0.0, 1.0, 0.5))}, {"cpu": {}}, (1,), (1,))
    with pytest.raises(SpecError, match=r"t.share is a real number"):
        list(walk(endless))
