"""Figures of a benchmark: printed with their goals, and written as JSON lines on request."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure. ``goal`` is a bound: at most, or at least where ``at_least``."""

    name: str
    value: float
    goal: float
    unit: str = ""
    at_least: bool = False
    detail: str = ""

    @property
    def reached(self) -> bool:
        return self.value >= self.goal if self.at_least else self.value <= self.goal

    @property
    def text(self) -> str:
        sign, state = (">=" if self.at_least else "<="), ("reached" if self.reached else "NOT REACHED")
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.name}: {self.value:.4g}{self.unit}, goal {sign} {self.goal:g}{self.unit}: {state}{detail}"


def arguments(doc: str | None, **counts: int) -> argparse.Namespace:
    """The command line: ``--json FILE`` and a whole number for each of ``counts`` with its default."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    for name, default in counts.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="append each figure to FILE as a line of JSON")
    return parser.parse_args()


def finish(figures: Sequence[Figure], json_lines: Path | None) -> int:
    """Print the figures; 0 when all goals were reached, else 1."""
    for figure in figures:
        print(figure.text, flush=True)
    if json_lines is not None:
        with json_lines.open("a", encoding="utf-8") as out:
            out.writelines(json.dumps(asdict(f) | {"reached": f.reached}) + "\n" for f in figures)
    return 0 if all(f.reached for f in figures) else 1
