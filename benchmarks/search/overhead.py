#!/usr/bin/env python3
"""What a search costs besides building, scoring and measuring: of a whole run, and of each trial's bookkeeping.

    python benchmarks/search/overhead.py [FOLDER ...] [--trials 40] [--instant 1000] [--json FILE]

A FOLDER holds a spec.yaml; with none given, the example ``examples/digits``. Its run is the main job in this
process, with a clock on everything that builds, scores or measures; all else is overhead: checking and splitting
the data, asking, storing, MLflow, writing the result, imports too. The goal is a share of at most 5%.

Then a search of instant trials: the space ``thorough`` and a simulated machine in place of builds and measurements,
with everything else as it is (the ledger, the sampler, raw samples on disk, MLflow). The goal is 50 ms a trial.
"""

from __future__ import annotations

import time

BEGUN = time.perf_counter()  # before the imports: they are overhead too

import argparse  # noqa: E402
import contextlib  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from dataclasses import replace  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402
from unittest import mock  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.measurement.figure import Figure, finish  # noqa: E402

SHARE_GOAL = 0.05
INSTANT_GOAL_MS = 50.0
# Of the real work: what the loop and the end of a run call of the evaluator.
WORK = ("build", "measure_baseline", "measure", "baseline_beside", "take_costs", "close")
# The overhead's parts, each where it is called from; the rest is what is left.
PARTS = {
    "preparing": ("autopilot.search.start", "prepare"),
    "asking": ("autopilot.search.sampler.Sampler", "ask"),
    "ledger": ("autopilot.search.database.Database", "change"),
    "raw samples": ("autopilot.search.samples", "save_record"),
    "MLflow": ("autopilot.tracking.Tracker", "log_trial"),
    "MLflow, start": ("autopilot.tracking.Tracker", "start"),
    "MLflow, end": ("autopilot.tracking.Tracker", "finish"),
    "writing the result": ("autopilot.search.conclude", "write_outputs"),
}


class Clock:
    """Seconds by part; what is called within a part counts for the outer one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._busy = False

    def around(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """``call``, with its time added to ``part``."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._busy:
                return call(*args, **kwargs)
            self._busy, start = True, time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                self._busy = False
                self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - start

        return timed


@contextlib.contextmanager
def watched(clock: Clock, evaluator: str) -> Iterator[None]:
    """While inside, ``clock`` times the parts and the methods of the class ``evaluator``."""
    with contextlib.ExitStack() as stack:
        for part, (owner, name) in PARTS.items():
            stack.enter_context(_timed(clock, part, owner, name))
        for name in WORK:
            if hasattr(_found(evaluator), name):
                stack.enter_context(_timed(clock, "work", evaluator, name))
        yield


def _found(path: str) -> Any:
    import pkgutil

    return pkgutil.resolve_name(path)


def _timed(clock: Clock, part: str, owner: str, name: str) -> Any:
    target = _found(owner)
    plain = vars(target)[name]
    if isinstance(plain, classmethod):
        timed = clock.around(part, plain.__func__)
        return mock.patch.object(target, name, classmethod(lambda cls, *a, **k: timed(cls, *a, **k)))
    return mock.patch.object(target, name, clock.around(part, plain))


def whole_run(folder: Path, trials: int, begun: float) -> Figure:
    """The overhead's share of a run of the spec in ``folder``."""
    from autopilot.observer import NullObserver
    from autopilot.plugins import vocabulary
    from autopilot.search.start import run_study
    from autopilot.spec import load_spec

    clock = Clock()
    problem = load_spec(folder / "spec.yaml", vocabulary()).searching(trials=trials)
    with own_folder() as out, watched(clock, "autopilot.search.evaluator.Evaluator"):
        result = run_study(problem, out / "run", fresh=True, observer=NullObserver())
    wall_s = time.perf_counter() - begun
    work_s = clock.seconds.pop("work", 0.0)
    share = 1 - work_s / wall_s
    parts = {**clock.seconds, "the rest, imports": wall_s - work_s - sum(clock.seconds.values())}
    said = ", ".join(f"{name} {s:.2f} s" for name, s in sorted(parts.items(), key=lambda p: -p[1]))
    print(f"{folder.name}: {len(result.trials)} trials in {wall_s:.1f} s, {work_s:.1f} s of it work; {said}")
    return Figure(
        f"overhead of {folder.name}", 100 * share, 100 * SHARE_GOAL, " %", detail=f"{len(result.trials)} trials"
    )


def instant_trials(trials: int) -> list[Figure]:
    """Bookkeeping of a search whose trials take no time: the mean over all, and over the last tenth."""
    from autopilot.observer import NullObserver
    from autopilot.search import start
    from tests.unit import search_support as fake

    ends: list[float] = []

    class Watch(NullObserver):
        def trial_finished(self, record: Any, best: str | None, against_budget: str) -> None:
            ends.append(time.perf_counter())

    clock = Clock()
    with own_folder() as out, contextlib.ExitStack() as stack:
        (out / "spec.yaml").write_text("name: instant\n")
        setup = simulated(out, trials)

        def evaluator(setup: Any, observer: Any) -> fake.FakeEvaluator:
            return fake.FakeEvaluator(setup, observer, fake.random_world(0))

        for name, value in {
            "Evaluator": evaluator,
            "resolve_model": lambda problem, work: Path("model.onnx"),
            "inspect": lambda path: setup.info,
            "identity": lambda problem, files: {"spec": "same"},
            "prepare": lambda problem, work, observer: replace(setup, work=work),
        }.items():
            stack.enter_context(mock.patch.object(start, name, value))
        # What is built is no file that could be copied.
        stack.enter_context(mock.patch("autopilot.search.conclude.write_outputs", lambda result, *a, **k: result))
        stack.enter_context(watched(clock, "tests.unit.search_support.FakeEvaluator"))
        begun = time.perf_counter()
        stack.enter_context(mock.patch("autopilot.search.proposer.WORTH", -1.0))
        result = start.run_study(setup.problem, out / "run", fresh=True, observer=Watch())
        wall_s = time.perf_counter() - begun
    n = len(result.trials)
    wall_s -= clock.seconds.pop("work", 0.0)
    parts = {**clock.seconds, "the rest": wall_s - sum(clock.seconds.values())}
    said = ", ".join(f"{name} {1e3 * s / n:.1f}" for name, s in sorted(parts.items(), key=lambda p: -p[1]))
    print(f"{n} instant trials in {wall_s:.1f} s; ms a trial: {said}")
    tenth = max(1, n // 10)
    late_ms = 1e3 * (ends[-1] - ends[-1 - tenth]) / tenth
    return [
        Figure("bookkeeping a trial", 1e3 * wall_s / n, INSTANT_GOAL_MS, " ms", detail=f"{n} instant trials"),
        Figure("of the last tenth", late_ms, INSTANT_GOAL_MS, " ms"),
    ]


def simulated(folder: Path, trials: int) -> Any:
    """A study over the space ``thorough`` in which nothing is built or measured."""
    from autopilot import plugins
    from autopilot.space_file import SpaceRequest, build_space
    from autopilot.spaces_folder import space_folder
    from autopilot.spec import SearchSpec
    from tests.unit import search_support as fake

    space = build_space(
        space_folder() / "thorough.yaml",
        SpaceRequest(("cpu",), 2, (1,)),
        target=fake.TARGET,
        techniques=plugins.techniques(),
        providers=plugins.providers(),
    )
    return fake.setup_of(folder, space=space, search=SearchSpec(trials=trials, timeout_s=3600.0))


@contextlib.contextmanager
def own_folder() -> Iterator[Path]:
    """A temporary folder, with a tracking store of its own in it."""
    with tempfile.TemporaryDirectory(prefix="autopilot-bench-", ignore_cleanup_errors=True) as name:
        store = f"sqlite:///{name}/mlruns/mlflow.db"
        # A cache of its own too: what other runs had built or scored would be work left out.
        own = {"MLFLOW_TRACKING_URI": store, "AUTOPILOT_CACHE_DIR": f"{name}/cache"}
        with mock.patch.dict(os.environ, own):
            yield Path(name)


def main() -> int:
    """Both parts; 0 when all goals were reached.

    The search doesn't end by itself here: the goals are for a number of trials.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path, help="folders with a spec.yaml; default: examples/digits")
    parser.add_argument("--trials", type=int, default=40, help="of each folder's run (40; 0: no such run)")
    parser.add_argument("--instant", type=int, default=1000, help="instant trials (1000; 0: none)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="append each figure to FILE as a line of JSON")
    given = parser.parse_args()
    figures: list[Figure] = []
    if given.trials:
        begun = BEGUN
        for folder in given.folders or [ROOT / "examples" / "digits"]:
            with mock.patch("autopilot.search.proposer.WORTH", -1.0):
                figures.append(whole_run(folder.resolve(), given.trials, begun))
            begun = time.perf_counter()
    if given.instant:
        figures += instant_trials(given.instant)
    return finish(figures, given.json)


if __name__ == "__main__":
    sys.exit(main())
