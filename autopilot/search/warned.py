"""The warnings of a whole study: a line each, however many trials one holds for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from autopilot.search.steadiness import drift_of

# A number that stands by itself; those in names (int8, model.onnx.2) say what is meant, not how much.
_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?!\w|\.\d)")


@dataclass(frozen=True, slots=True)
class Warned:
    """A warning, and the trial in which it was given: in its first measurement, or when it was measured ``again``."""

    text: str
    trial: int
    again: bool = False


def in_one_line_each(found: Sequence[Warned]) -> tuple[str, ...]:
    """The texts in the order in which they came first; those that differ in numbers alone are one.

    >>> in_one_line_each([Warned("used 1.8 cores, not 1", 2), Warned("used 1.5 cores, not 1", 3), Warned("odd", 3)])
    ('used 1.5 to 1.8 cores, not 1 (trials 2-3)', 'odd')
    """
    alike: dict[str, list[Warned]] = {}
    for warned in found:
        kind = "drift" if drift_of(warned.text) is not None else _NUMBER.sub("#", warned.text)
        alike.setdefault(kind, []).append(warned)
    return tuple(_drifted(group) if kind == "drift" else _merged(group) for kind, group in alike.items())


def _drifted(group: Sequence[Warned]) -> str:
    """How far the machine was from its speed at the start, which way, and when."""
    percents = [(drift_of(w.text) or 0, w) for w in group]
    said = []
    for word, sign in (("slower", 1), ("faster", -1)):
        mine = [(abs(p), w) for p, w in percents if p * sign > 0]
        if mine:
            far = _between(min(p for p, _ in mine), max(p for p, _ in mine), "%")
            said.append(f"{far} {word} than at the start during {_where([w for _, w in mine])}")
    return (
        f"the machine was {', and '.join(said)}: the intervals of these trials' absolute figures cover both speeds; "
        "ratios to the baseline, which was read beside them, don't feel it"
    )


def _merged(group: Sequence[Warned]) -> str:
    """One text for all: with the least and the most of each number that differs, and the trials."""
    first, where = group[0].text, {(w.trial, w.again) for w in group}
    if len(where) == 1 and all(w.text == first for w in group):
        return first
    columns = zip(*(_NUMBER.findall(w.text) for w in group), strict=True)
    numbers = iter([_between(min(c, key=float), max(c, key=float)) for c in columns])
    return f"{_NUMBER.sub(lambda _: next(numbers), first)} ({_where(group)})"


def _between(least: object, most: object, unit: str = "") -> str:
    return f"{least}{unit}" if least == most else f"{least}{unit} to {most}{unit}"


def _where(group: Iterable[Warned]) -> str:
    """``trials 3, 7, 9-12 and the second measurement of trial 7``."""
    group = list(group)
    parts = [
        text
        for again, what in ((False, ""), (True, "the second measurement of "))
        if (text := _numbered(sorted({w.trial for w in group if w.again is again}), what))
    ]
    return " and ".join(parts)


def _numbered(numbers: Sequence[int], what: str) -> str:
    """``trials 3, 7, 9-12``; empty without any."""
    if not numbers:
        return ""
    runs = [[n for _, n in run] for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])]
    said = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    return f"{what}trial{'' if len(numbers) == 1 else 's'} {said}"
