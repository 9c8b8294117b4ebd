#!/usr/bin/env python3
"""What pruning a transformer's heads and neurons costs in accuracy and brings in milliseconds, without training.

    python benchmarks/prune_heads.py SPEC [--keep 0.85 0.7 0.5] [--refit weights none]

Accuracy is that of the first output's largest score on the spec's validation split; milliseconds are medians of single
samples in ONNX Runtime on the CPU, one thread, all models in turns, in float32 and after dynamic int8.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autopilot import plugins
from autopilot.contracts import BuildContext
from autopilot.observer import NullObserver
from autopilot.search import load_spec
from autopilot.search.prepare import Setup, prepare
from autopilot.techniques._gate import session

TURNS = 150


def build(name: str, source: Path, folder: Path, context: BuildContext, **params: Any) -> Path:
    """Apply a technique with its defaults but ``params``; the file it wrote."""
    technique = plugins.techniques()[name]
    folder.mkdir()
    technique.apply(source, folder, {k: d.default for k, d in technique.parameters.items()} | params, context)
    return folder / "model.onnx"


def accuracy(path: Path, setup: Setup) -> float:
    """Share of the validation samples whose largest score is the label's."""
    split, runner = setup.splits.validation, session(path)
    assert split.labels is not None
    right = 0
    for start in range(0, split.n, 50):
        rows = list(range(start, min(start + 50, split.n)))
        right += int((runner.run(None, dict(split.feed(rows)))[0].argmax(-1) == split.labels[rows]).sum())
    return right / split.n


def medians_ms(paths: Mapping[str, Path], setup: Setup) -> dict[str, float]:
    """Median milliseconds of one sample, the models in turns."""
    runners = {name: session(path) for name, path in paths.items()}
    taken: dict[str, list[float]] = {name: [] for name in paths}
    for turn in range(TURNS):
        feed = dict(setup.splits.validation.feed([turn % setup.splits.validation.n]))
        for name, runner in runners.items():
            begun = time.perf_counter()
            runner.run(None, feed)
            taken[name].append((time.perf_counter() - begun) * 1e3)
    return {name: float(np.median(t[10:])) for name, t in taken.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Build, score, time and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", type=Path)
    parser.add_argument("--keep", type=float, nargs="+", default=[0.85, 0.7, 0.5])
    parser.add_argument("--refit", nargs="+", default=["weights"])
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        setup = prepare(load_spec(args.spec), work / "work", NullObserver())
        (work / "scratch").mkdir()
        splits = setup.splits
        context = BuildContext(splits.calibration, work / "scratch", 1, setup.classification, train=splits.train)
        built, seconds = {"unpruned": setup.model.path}, {"unpruned": 0.0}
        for keep in args.keep:
            for refit in args.refit:
                begun, name = time.perf_counter(), f"keep {keep:g}, refit {refit}"
                target = work / f"{keep}-{refit}"
                built[name] = build("prune_heads", setup.model.path, target, context, keep=keep, refit=refit)
                seconds[name] = time.perf_counter() - begun
        int8 = {n: build("dynamic_int8", p, work / f"int8-{i}", context) for i, (n, p) in enumerate(built.items())}
        times = medians_ms(built | {f"{n} int8": p for n, p in int8.items()}, setup)
        print("| model | accuracy | ms | int8 accuracy | int8 ms | MB | built in s |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for name, path in built.items():
            figures = f"{accuracy(path, setup):.4f} | {times[name]:.2f} | {accuracy(int8[name], setup):.4f}"
            size = path.stat().st_size / 1e6
            print(f"| {name} | {figures} | {times[f'{name} int8']:.2f} | {size:.1f} | {seconds[name]:.0f} |")


if __name__ == "__main__":
    main()
