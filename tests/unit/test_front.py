"""The Pareto front of figures with intervals."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from autopilot.profile import Interval
from autopilot.search.front import Point, beats, front


@st.composite
def intervals(draw: st.DrawFn) -> Interval:
    value = draw(st.integers(0, 12)) / 4
    return Interval(value, value - draw(st.integers(0, 4)) / 8, value + draw(st.integers(0, 4)) / 8)


@st.composite
def clouds(draw: st.DrawFn) -> list[Point]:
    """Some points with the same number of figures each."""
    axes = draw(st.integers(2, 3))
    figures = st.tuples(*(intervals() for _ in range(axes)))
    drawn = draw(st.lists(st.tuples(figures, st.booleans()), max_size=9))
    return [Point(i, found, verified) for i, (found, verified) in enumerate(drawn)]


def values(point: Point) -> tuple[float, ...]:
    return tuple(x.value for x in point.figures)


def dominates(a: Point, b: Point) -> bool:
    """By the figures alone."""
    return values(a) != values(b) and all(x <= y for x, y in zip(values(a), values(b), strict=True))


@given(clouds())
def test_front_holds_every_point_that_no_figure_beats(points: list[Point]) -> None:
    """The front of the figures alone is part of it: intervals only add."""
    kept = {m.point.number for m in front(points)}

    assert kept >= {p.number for p in points if not any(dominates(q, p) for q in points)}


@given(clouds())
def test_point_off_the_front_is_certainly_worse_somewhere_and_nowhere_better(points: list[Point]) -> None:
    """Noise alone keeps nobody off; and whoever is off is dominated by a member of the front."""
    placed = front(points)
    kept = [m.point for m in placed]

    for off in (p for p in points if p not in kept):
        by = [q for q in points if beats(q, off)]
        assert by
        assert all(any(x.high < y.low for x, y in zip(q.figures, off.figures, strict=True)) for q in by)
        assert any(dominates(m, off) for m in kept)


@given(clouds())
def test_certain_member_is_certainly_better_than_each_other_somewhere(points: list[Point]) -> None:
    """Whatever the figures are inside their intervals, it stays on the front."""
    for m in front(points):
        others = [p for p in points if p is not m.point]
        better = [any(x.high < y.low for x, y in zip(m.point.figures, p.figures, strict=True)) for p in others]
        assert m.certain == all(better)


@given(clouds())
def test_front_of_points_without_noise_is_the_plain_one(points: list[Point]) -> None:
    """With intervals of no width it is what a textbook says."""
    sharp = [Point(p.number, tuple(Interval(x.value, x.value, x.value) for x in p.figures)) for p in points]

    kept = {m.point.number for m in front(sharp)}

    assert kept == {p.number for p in sharp if not any(dominates(q, p) for q in sharp)}


@given(clouds(), st.randoms())
def test_front_does_not_depend_on_the_order(points: list[Point], random: object) -> None:
    """The same points in another order are the same front."""
    shuffled = list(points)
    random.shuffle(shuffled)  # type: ignore[attr-defined]

    assert front(shuffled) == front(points)


def test_first_measurement_never_beats_a_second() -> None:
    """The best of many first figures is partly luck: the winner's curse."""
    lucky = Point(0, (Interval(1.0, 0.9, 1.1), Interval(0.0, 0.0, 0.0)))
    verified = Point(1, (Interval(2.0, 1.9, 2.1), Interval(0.1, 0.1, 0.1)), verified=True)

    assert not beats(lucky, verified)
    assert {m.point.number for m in front([lucky, verified])} == {0, 1}


def test_point_without_a_figure_has_no_place() -> None:
    """What wasn't measured is not good at it."""
    unknown = Point(0, (Interval(math.inf, math.inf, math.inf), Interval(0.0, 0.0, 0.0)))

    assert front([unknown]) == ()
