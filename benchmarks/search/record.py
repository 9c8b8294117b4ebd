#!/usr/bin/env python3
"""Measure every variant of a space once, to the end, for replaying searches against it.

    python benchmarks/search/record.py FOLDER --work DIR [--space FILE] [--out FILE] [--seconds N]

FOLDER holds a ``spec.yaml``. What is measured is kept in DIR after each variant, so that the same command goes
on where it was stopped, or where ``--seconds`` were over; the compact FILE is written when all are done.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import numpy as np

from autopilot.budget import Budget
from autopilot.errors import VariantFailed
from autopilot.observer import NullObserver
from autopilot.profile import LatencyReading
from autopilot.recipe import Recipe, Variant
from autopilot.search import load_spec
from autopilot.search.evaluator import Evaluator
from autopilot.search.outcome import RETRIED, Effort, Outcome
from autopilot.search.prepare import Setup, prepare
from autopilot.space_walk import walk
from benchmarks.search.recording import PERCENTILES, Floats, Recorded, Recording

HERE = Path(__file__).resolve().parent
SPACE = HERE / "medium.yaml"
# Every variant gets the same: until 1.6 s of requests, both servers together, or 20 pairs of blocks, were read.
EFFORT = Effort(cap_s=3.0, precise_s=1.6, precision=0.0, ends_early=True)
# What comes near the best is read again in fresh processes, so that the optimum isn't just the luckiest reading.
NEAR, AGAIN = 1.08, 2
# Known without requests.
PLAIN_AXES = ("size_mb", "load_s", "peak_memory_mb", "model_memory_mb")


def main() -> int:
    """Record until all is done or the time is up; 0 when all is done, else 75 (try again)."""
    told = _arguments()
    told.work.mkdir(parents=True, exist_ok=True)
    kept = told.work / "variants.jsonl"
    done = {r.variant.id: r for r in _kept(kept)}
    until = time.monotonic() + told.seconds
    setup, budget = _setup(told.folder, told.work, told.space)
    variants = [v for v in walk(setup.space) if setup.space.refusal(v.recipe) is None]
    with Evaluator(setup, NullObserver()) as evaluator, kept.open("a", encoding="utf-8") as out:
        baseline = evaluator.measure_baseline()
        for variant in (v for v in variants if v.id not in done):
            if time.monotonic() > until:
                print(f"{len(done)} of {len(variants)} variants; run it again to go on")
                return 75
            found = done[variant.id] = _one(evaluator, variant)
            _keep(out, found)
        for variant in _near(done, [v for v in variants if v.id in done]):
            while done[variant.id].processes <= AGAIN:
                if time.monotonic() > until:
                    print(f"all {len(variants)} variants, reading the best again; run it again to go on")
                    return 75
                done[variant.id] = _read_again(evaluator, done[variant.id])
                _keep(out, done[variant.id])
    assert baseline.profile is not None
    assert baseline.profile.quality is not None
    assert baseline.profile.quality.raw is not None
    about = {
        "budget": budget.to_json(),
        "objective": setup.problem.objective,
        "baseline": setup.space.default_deployment().to_json(),
        "machine": setup.target.to_json(),
        "spread": evaluator.control.spread if evaluator.control is not None else None,
        "date": datetime.now(UTC).date().isoformat(),
        "space": told.space.read_text(encoding="utf-8"),
    }
    scores = baseline.profile.quality.raw.baseline
    recording = Recording(setup.problem.name, about, scores, [done[v.id] for v in variants])
    recording.save(told.out or HERE / "recorded" / f"{setup.problem.name}.npz")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="where measured variants are kept")
    parser.add_argument(
        "--space", type=Path, default=SPACE, help="a space file; default: medium.yaml beside this script"
    )
    parser.add_argument("--out", type=Path, help="default: recorded/NAME.npz beside this script")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so many, to go on later")
    return parser.parse_args()


def _setup(folder: Path, work: Path, space: Path) -> tuple[Setup, Budget]:
    """The spec's study on the medium space without any limit that could end a variant early, and its real budget."""
    asked = load_spec(folder / "spec.yaml")
    lax = Budget(
        tuple(replace(limit, bound=limit.bound * 1e6 if limit.upper else 0.0) for limit in asked.budget.limits)
    )
    problem = replace(asked, budget=lax, space=space)
    return prepare(problem, work, NullObserver()), asked.budget


def _kept(path: Path) -> Iterator[Recorded]:
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        yield Recorded.from_json(json.loads(line))


def _keep(out: TextIO, found: Recorded) -> None:
    out.write(json.dumps(found.to_json()) + "\n")
    out.flush()


def _near(done: Mapping[str, Recorded], variants: Sequence[Variant]) -> Sequence[Variant]:
    """The variants whose median is near the best one's, whatever their quality."""
    ratios = {v.id: float(np.median(r.own[:, 0] / r.beside[:, 0])) for v in variants if (r := done[v.id]).own.size}
    return [v for v in variants if ratios.get(v.id, np.inf) <= NEAR * min(ratios.values())]


def _read_again(evaluator: Evaluator, known: Recorded) -> Recorded:
    """``known`` with the blocks of one more process."""
    built = evaluator.build(known.variant.recipe, {}) if known.variant.recipe.steps else evaluator.setup.model
    more = _recorded(evaluator.measure(known.variant, built, EFFORT), {})
    own, beside = np.concatenate([known.own, more.own]), np.concatenate([known.beside, more.beside])
    return replace(known, own=own, beside=beside, processes=known.processes + 1)


def _one(evaluator: Evaluator, variant: Variant) -> Recorded:
    """Build and measure one variant; a crash is bad luck the first time."""
    seconds: dict[str, float] = {}
    nothing = np.empty((0, len(PERCENTILES)))
    for attempt in (1, 2):
        artifact = ""
        try:
            for n in range(1, len(variant.recipe.steps) + 1):
                seconds = {}  # of the last step alone: the ones before are recipes of their own
                built = evaluator.build(Recipe(variant.recipe.steps[:n]), seconds)
            if not variant.recipe.steps:
                built = evaluator.setup.model
            artifact = built.sha256
            outcome = evaluator.measure(variant, built, EFFORT)
        except VariantFailed as exc:
            if attempt == 1 and exc.failure in RETRIED:
                continue
            return Recorded(variant, artifact, seconds, {}, nothing, nothing, np.empty(0), exc.failure.value)
        return _recorded(outcome, seconds | outcome.seconds)
    raise AssertionError("the second attempt returns")


def _recorded(outcome: Outcome, seconds: dict[str, float]) -> Recorded:
    assert outcome.profile is not None
    profile = outcome.profile
    assert profile.latency is not None
    assert profile.baseline_latency is not None
    assert profile.quality is not None
    assert profile.quality.raw is not None
    figures = {a: m.value for a in PLAIN_AXES if (m := outcome.measured.get(a)) is not None and m.value is not None}
    own, beside = _blocks(profile.latency), _blocks(profile.baseline_latency)
    pairs = min(len(own), len(beside))
    right = profile.quality.raw.candidate
    return Recorded(outcome.variant, outcome.artifact.sha256, seconds, figures, own[:pairs], beside[:pairs], right)


def _blocks(reading: LatencyReading) -> Floats:
    """Milliseconds, shape (blocks, percentiles)."""
    rows = [np.percentile(reading.latency_s[reading.block == b], PERCENTILES) for b in range(reading.block_wall_s.size)]
    return np.array(rows) * 1e3


if __name__ == "__main__":
    raise SystemExit(main())
