#!/usr/bin/env python3
"""How often 95% intervals hold the truth, on simulated servers whose distribution is known.

    python benchmarks/measurement/coverage.py [--runs N] [--json FILE]

Absolute figures and ratios of two interleaved servers on a machine that drifts, of mean, p50, p95 and p99,
for log-normal, bimodal and autocorrelated latencies. The goal is 95% of the runs in every cell; a share of
1,000 runs scatters by 0.7 points. The second server is 5% slower in half of the ratios' runs.
"""

from __future__ import annotations

import os
import sys
import zlib
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from autopilot import stats
from autopilot.profile import Interval
from benchmarks.measurement.figure import Figure, arguments, finish
from benchmarks.measurement.servers import SERVERS, SIZES, walk

AXES = (None, 50.0, 95.0, 99.0)
NAMES = ("mean", "p50", "p95", "p99")
GOAL = 95.0
# Ratios cost twice as much, and their cells are pooled over both true ratios.
RATIOS = (1.0, 1.05)


def main() -> int:
    """Print each cell and the worst one; 0 when every cell holds 95%."""
    options = arguments(__doc__, runs=1000)
    cells = [
        (kind, i, j, options.runs) for kind in (absolute, ratio) for i in range(len(SIZES)) for j in range(len(SERVERS))
    ]
    with ProcessPoolExecutor(max_workers=min(2, os.cpu_count() or 1)) as pool:
        found = list(pool.map(_run, cells))
    figures = []
    for (kind, i, j, _), shares in zip(cells, found, strict=True):
        label = f"{kind.__name__}, {SIZES[i].name}, {SERVERS[j].name}"
        print(f"{label:90s}" + "  ".join(f"{n} {s:5.1f}%" for n, s in zip(NAMES, shares, strict=True)), flush=True)
    for kind in (absolute, ratio):
        worst = min(min(shares) for cell, shares in zip(cells, found, strict=True) if cell[0] is kind)
        cells_of = sum(len(NAMES) for cell in cells if cell[0] is kind)
        detail = f"the worst of {cells_of} cells of {options.runs} runs"
        figures.append(Figure(f"coverage, {kind.__name__}", worst, GOAL, "%", at_least=True, detail=detail))
    return finish(figures, options.json)


def _run(cell: tuple) -> list[float]:  # type: ignore[type-arg]
    kind, i, j, runs = cell
    rng = np.random.default_rng(zlib.crc32(f"{kind.__name__} {i} {j}".encode()))
    covered = np.zeros(len(AXES))
    for number in range(runs):
        covered += kind(rng, i, j, number)
    return [float(c) for c in 100 * covered / runs]


def absolute(rng: np.random.Generator, i: int, j: int, number: int) -> list[bool]:
    """Whether each axis's interval holds the truth, in one simulated reading."""
    size, server = SIZES[i], SERVERS[j]
    values, block = np.exp(server.draw(rng, size.blocks, size.size)), size.block
    found = [
        stats.mean_interval(values, block) if q is None else stats.percentile_interval(values, block, q) for q in AXES
    ]
    return [holds(interval, server.truth(q)) for interval, q in zip(found, AXES, strict=True)]


def ratio(rng: np.random.Generator, i: int, j: int, number: int) -> list[bool]:
    """The same of two servers side by side on a machine that drifts."""
    size, server, block, true = SIZES[i], SERVERS[j], SIZES[i].block, RATIOS[number % len(RATIOS)]
    shared = 0.02 * walk(rng, size.blocks, 0.95) + np.linspace(-0.01, 0.01, size.blocks)
    pair = [
        np.exp(
            server.draw(rng, size.blocks, size.size)
            + np.repeat(shared + 0.002 * rng.standard_normal(size.blocks), size.size)
        )
        for _ in "ab"
    ]
    return [holds(stats.ratio_interval(true * pair[0], block, pair[1], block, q=q), true) for q in AXES]


def holds(interval: Interval, true: float) -> bool:
    """Whether the truth lies within; a hair's breadth is rounding."""
    return interval.low * (1 - 1e-12) <= true <= interval.high * (1 + 1e-12)


if __name__ == "__main__":
    sys.exit(main())
