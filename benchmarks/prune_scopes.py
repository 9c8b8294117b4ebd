"""Pruning by measured milliseconds beside pruning by one ranking of all channels: speed and score of what each builds.

    python benchmarks/prune_scopes.py SPEC --scopes global latency --ratios 0.2 0.4 --epochs 2

The spec needs a PyTorch or convertible model, ``data.train`` and classes as labels. Every build is the technique's
own, in this process, one after the other; then all are timed in turns beside the model as given, in float, with one
sample a request. With ``--keep FOLDER`` what was built there before is not built again, so that builds may be made
while the machine is in use, and timed later when it is quiet.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from autopilot import plugins
from autopilot.contracts import BuildContext
from autopilot.data import Split
from autopilot.domain import Scalar
from autopilot.errors import Unsupported
from autopilot.observer import NullObserver
from autopilot.plugins import vocabulary
from autopilot.search.prepare import Setup, prepare
from autopilot.spec import load_spec
from autopilot.techniques import _gate
from autopilot.techniques._interleaved import time_against

_BATCH = 100


def accuracy(model: Path, split: Split, threads: int) -> float:
    """The share of samples whose largest score is their label's."""
    runner = _gate.session(model, threads)
    right = 0
    for start in range(0, split.n, _BATCH):
        chosen = list(range(start, min(start + _BATCH, split.n)))
        scores = runner.run(None, _gate.feed_for(runner, split.feed(chosen)))[0]
        labels = np.asarray(split.labels)[chosen]
        right += int((scores.argmax(-1) == labels).sum())
    return right / split.n


def build(setup: Setup, folder: Path, params: dict[str, Scalar], threads: int, *, loud: bool) -> float | None:
    """Write ``folder / "model.onnx"``; the seconds it took, None where the technique can't."""
    technique = plugins.techniques()["prune_channels"]
    defaults: dict[str, Scalar] = {name: d.default for name, d in technique.parameters.items()}
    if (folder / "model.onnx").exists():
        return 0.0
    folder.mkdir(parents=True, exist_ok=True)
    context = BuildContext(
        calibration=setup.splits.calibration,
        scratch=folder.parent / "scratch",
        threads=threads,
        metric_is_classification=True,
        train=setup.splits.train,
        torch_source=setup.training.source,
        tell=print if loud else lambda text: None,
    )
    begun = time.monotonic()
    try:
        technique.apply(setup.model.path, folder, {**defaults, **params}, context)
    except Unsupported as exc:
        print(f"{params}: {exc}")
        return None
    return time.monotonic() - begun


def main() -> None:
    """Build, score, time, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("spec", type=Path)
    parser.add_argument("--scopes", nargs="+", default=["global", "latency"])
    parser.add_argument("--ratios", nargs="+", type=float, default=[0.2, 0.4])
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--round-to", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--loud", action="store_true", help="print what the technique tells")
    parser.add_argument("--keep", type=Path, help="a folder for what is built")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="prune-scopes-") as scratch:
        root = given.keep or Path(scratch)
        setup = prepare(load_spec(given.spec, vocabulary()), root / "work", NullObserver())
        rows: list[tuple[str, Path, float]] = []
        for scope in given.scopes:
            for ratio in given.ratios:
                folder = root / "built" / f"{scope}-{ratio:g}-{given.epochs}"
                params = {"scope": scope, "ratio": ratio, "epochs": given.epochs, "round_to": given.round_to}
                took_s = build(setup, folder, params, given.threads, loud=given.loud)
                if took_s is not None:
                    rows.append((folder.name, folder / "model.onnx", took_s))
        feed, whole = setup.splits.validation.feed([0]), setup.model.path
        timing = time_against(whole, [path for _, path, _ in rows], feed, threads=given.threads, seconds=15.0)
        score = accuracy(whole, setup.splits.validation, given.threads)
        print(f"as given: {timing.whole_ms:.3f} ms, accuracy {score:.4f}")
        for (name, path, took_s), saved in zip(rows, timing.saved, strict=True):
            score = accuracy(path, setup.splits.validation, given.threads)
            print(f"{name}: {1 - saved:.3f} of the latency, accuracy {score:.4f}, built in {took_s:.0f} s")


if __name__ == "__main__":
    main()
