#!/usr/bin/env python3
"""What CUDA and TensorRT do to a model, against the better of float32 and float16: one dated result.

    python benchmarks/gpu.py [FOLDER ...] [--seconds 300] [--out docs/results] [--providers cpu,cuda,tensorrt,…]

A FOLDER holds a ``spec.yaml``; without one: an encoder of BERT's size with random weights (``gpu_encoder``), on devices
only, then examples/digits. Float32 and float16 in every way of handing arrays over are
compared with the first row; the fastest of them is the baseline that everything else is then compared with, since
on NVIDIA devices float16 is what there is to beat. All through the same timed request: host arrays in, host arrays
out, one sample, fresh processes, interleaved. Writes DATE-gpu-NAME.json and .md anew after every row, so that what was
measured stays when the machine goes; ends with 2 and the doctor's reasons where no device can be used. Rows that don't
fit into the time are left out and named. Not yet run on a GPU; ``--providers cpu`` goes the same way without one.
"""

from __future__ import annotations

import argparse
import math
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from autopilot import plugins
from autopilot.bench.child import ChildLimits
from autopilot.bench.compare import Served, compare
from autopilot.bench.evaluation import evaluate
from autopilot.bench.launcher import Server, measure_latency
from autopilot.contracts import BuildContext
from autopilot.doctor import usable_providers
from autopilot.errors import AutopilotError
from autopilot.observer import NullObserver
from autopilot.recipe import Deployment, params_of
from autopilot.search.prepare import Setup, prepare
from autopilot.spec import load_spec
from autopilot.temporary import temporary_folder
from benchmarks.gpu_encoder import write_encoder
from benchmarks.gpu_rows import ROWS, Row
from benchmarks.gpu_table import HEADER, shown, write
from benchmarks.main_job import ROOT, print_table

# An engine of TensorRT may take a minute to build.
CHILD_S = 90.0
# Seconds of one comparison: some ten pairs of processes.
CAP_S = 12.0
PROVIDERS = "cpu,cuda,tensorrt,torch_compile_cuda"
# How the distributions begin whose versions are told.
TOLD = ("onnx", "tensorrt", "torch", "triton")
# Samples for the quality: all of a small validation split.
SCORED = 2000
# Of the time that is left for a study that others follow: the encoder's starts take longer, and it says more.
FIRST_SHARE = 0.6
# Providers that need no device.
HOST = frozenset({"cpu", "openvino", "torch_compile"})


class Bench:
    """Builds, scores and compares rows of one study; no process of it lives on after ``end`` (monotonic seconds)."""

    def __init__(self, setup: Setup, work: Path, end: float = math.inf) -> None:
        self._end = end
        self._setup = setup
        self._work = work
        self._built: dict[tuple[str, str], Path] = {}
        self._context = BuildContext(setup.splits.calibration, work / "scratch", 1, setup.classification)
        self._split = setup.splits.validation
        (work / "scratch").mkdir()

    @property
    def _limits(self) -> ChildLimits:
        return ChildLimits(wall_s=max(1.0, min(CHILD_S, self._end - time.monotonic())))

    def served(self, row: Row) -> Served:
        """The row's model file, built at first use, and how it is run."""
        deployment = Deployment(row.provider, options=params_of(row.options))
        if not row.technique:
            return Served(self._setup.model.path, deployment)
        key = (row.technique, row.provider)
        if key not in self._built:
            technique = plugins.techniques()[row.technique]
            best = next(iter(technique.prefer(self._setup.target.running(row.provider))), {})
            params = {k: d.default for k, d in technique.parameters.items()} | dict(best) | dict(row.params)
            folder = self._work / "-".join(key)
            folder.mkdir()
            technique.apply(self._setup.model.path, folder, params, self._context)
            self._built[key] = folder / "model.onnx"
        return Served(self._built[key], deployment)

    def figures(self, row: Row) -> dict[str, Any]:
        """Median latency, in a process of its own, and quality."""
        one = self.served(row)
        with Server.start(one.artifact, one.deployment, split=self._split, limits=self._limits) as server:
            reading, _ = measure_latency(server, None, decided=lambda *_: True, cap_s=2.0, min_s=1.0)
        return {
            "latency_p50_ms": float(np.median(reading.latency_s)) * 1e3,
            "requests": int(reading.latency_s.size),
            "quality": self._quality(one),
        }

    def _quality(self, one: Served) -> float | None:
        """The metric's score of the answers, from a process of its own: what breaks it leaves the others whole."""
        labels = self._split.labels
        if labels is None:
            return None
        n = min(SCORED, self._split.n)
        with tempfile.TemporaryDirectory(dir=self._work) as folder:
            found = evaluate(
                one.artifact, one.deployment, split=self._split, start=0, stop=n, batch=1, folder=Path(folder),
                limits=self._limits,
            )  # fmt: skip
            answers = np.array(found.load()[self._setup.problem.metric.output or found.output_names[0]])
        return float(self._setup.metric.score(answers, np.asarray(labels[:n]), self._setup.metric.options))

    def ratio(self, row: Row, to: Row) -> dict[str, Any]:
        """Latency of ``row`` over that of ``to``."""
        served = self.served(row), self.served(to)
        return compare(*served, split=self._split, limits=self._limits, cap_s=CAP_S).to_json()


def measured(bench: Bench, rows: Sequence[Row], until: float) -> Iterator[list[dict[str, Any]]]:
    """All records so far after each row, plain rows first.

    Each is compared with the first that ran, then with the best of the plain ones.
    """
    found: list[dict[str, Any]] = []
    first: Row | None = None
    best: Row | None = None
    least = 1.0
    for row in sorted(rows, key=lambda row: not row.is_plain):
        told: dict[str, Any] = {"row": row.text, "plain": row.is_plain}
        found.append(told)
        to = first if row.is_plain else best
        try:
            if time.monotonic() + row.takes_s > until:
                told["left_out"] = "no time left"
            else:
                told |= bench.figures(row)
                if to is not None:
                    told |= {"over": to.text, "comparison": bench.ratio(row, to)}
        except AutopilotError as exc:
            told["left_out"] = str(exc)
        if "left_out" not in told:
            print(f"{row.text}: {told['latency_p50_ms']:.3f} ms", file=sys.stderr, flush=True)
            if first is None and row.is_plain:
                first = best = row
            elif row.is_plain and (ratio := told["comparison"]["ratio"]["value"]) < least:
                best, least = row, ratio
        for other in found:
            other["is_baseline"] = best is not None and other["row"] == best.text
        yield found


def measure(bench: Bench, rows: Sequence[Row], until: float) -> list[dict[str, Any]]:
    """A record a row, all of them."""
    found: list[dict[str, Any]] = []
    for found in measured(bench, rows, until):  # noqa: B007  # the last one
        pass
    return found


@dataclass(frozen=True, slots=True)
class Case:
    """A study of the benchmark: ``folder`` with a spec.yaml; ``host`` whether the host's providers run it too."""

    folder: Path
    host: bool = True


def run_case(case: Case, wanted: Sequence[str], out: Path, end: float) -> Path | None:
    """Measure one study until ``end`` (monotonic seconds); the written Markdown, None where no device can be used."""
    begun = time.monotonic()
    problem = load_spec(case.folder / "spec.yaml", plugins.vocabulary())
    with temporary_folder("gpu") as scratch:
        setup = prepare(problem, scratch / "study", NullObserver())
        told = usable_providers(setup.target, plugins.providers())
        missing = {name: found["reason"] for name, found in told.items() if name in wanted and not found["usable"]}
        usable = [name for name in wanted if name not in missing]
        for name, reason in missing.items():
            print(f"{name} can't run here: {reason}", file=sys.stderr)
        if missing and set(usable) <= HOST:
            return None
        about = {
            "date": date.today().isoformat(),
            "gpus": ", ".join(setup.target.gpus) or "no GPU",
            "versions": ", ".join(f"{k} {v}" for k, v in setup.target.versions.items() if k.startswith(TOLD)),
            "command": f"python benchmarks/gpu.py {case.folder.name}",
            "missing": missing,
        }
        rows = [row for row in ROWS if row.provider in usable and (case.host or row.provider not in HOST)]
        found: list[dict[str, Any]] = []
        path = None
        for found in measured(Bench(setup, scratch, end), rows, end):
            now = {"seconds": time.monotonic() - begun, "finished": len(found) == len(rows)}
            path = write(problem.name, found, about | now, out)
    print_table([HEADER, *(shown(row) for row in found)])
    return path


def main() -> int:
    """Measure what fits into the time, print and write it; 2 where no device can be used."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folders", nargs="*", type=Path, help="with a spec.yaml each; default: see above")
    parser.add_argument("--seconds", type=float, default=300.0, help="everything has ended by then")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results")
    parser.add_argument("--providers", default=PROVIDERS, help="names with commas between them")
    options = parser.parse_args()
    begun, wanted = time.monotonic(), options.providers.split(",")
    # What `timeout` sends: so that folders and processes are cleaned away; what was measured is written already.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with temporary_folder("gpu") as made:
        cases = [Case(folder) for folder in options.folders]
        if not cases and not set(wanted) <= HOST:
            cases.append(Case(write_encoder(made / "encoder"), host=False))
        cases = cases if options.folders else [*cases, Case(ROOT / "examples" / "digits")]
        for case in cases:
            left_s = begun + options.seconds - time.monotonic()
            share = FIRST_SHARE if case is not cases[-1] else 1.0
            written = run_case(case, wanted, options.out, time.monotonic() + share * left_s)
            if written is None:
                print("nothing was measured on a GPU and nothing was written", file=sys.stderr)
                return 2
            print(written)
    return 0


if __name__ == "__main__":
    sys.exit(main())
