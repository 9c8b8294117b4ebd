"""Raw readings of real runs: kept, small, and enough to compute every verdict again; check as a tool of its own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import autopilot
from autopilot.search import recompute_file
from autopilot.search.samples import Samples
from tests import models
from tests.integration.run_support import autopilot as command
from tests.integration.run_support import in_process, result_of, write_study

pytestmark = pytest.mark.integration

# A request's latency in nanoseconds takes 4 bytes at most; the rest of the readings of this small study, 20 kB.
MOST_BYTES_A_REQUEST, MOST_OTHER_BYTES = 4, 20_000


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """One finished run, with limits on all kinds of axes; by that of size an int8 model is the only finalist."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "space.yaml").write_text("techniques: {static_int8: {}}\ndeployment: {threads: [1]}\n")
    budget = {
        "latency_p50_ms": "1000% of baseline",
        "peak_memory_mb": "300% of baseline",
        "load_s": 60,
        "quality_drop": 0.5,
        "size_mb": "95% of baseline",
    }
    # Limits on times: a busy machine gets the seconds that a verdict takes there; a quiet one doesn't use them. No
    # readings of a comparison of finalists that tie are kept, so that none is provoked by an objective that is a time.
    search = {"trials": 2, "timeout": "300s", "seed": 0, "measure_cap": "5s"}
    spec = write_study(folder, budget=budget, objective="size_mb", space="space.yaml", search=search)
    (folder / "hasty.yaml").write_text(spec.read_text().replace("measure_cap: 5s", "measure_cap: 0.2s"))
    return folder, in_process("run", "spec.yaml", cwd=folder)


def test_every_verdict_of_a_run_follows_from_its_readings(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    """Screening, verification and the baseline beside it, to the last digit, in another process."""
    folder, done = finished
    assert done.returncode in (0, 4), done.stderr  # on the busiest machine a limit on a time may stay undecided

    shown = command("show", "runs/small", "--samples", "--json", cwd=folder)

    assert shown.returncode == 0, shown.stdout + shown.stderr
    told = json.loads(shown.stdout)
    measured = [row for row in told["rows"] if row["agrees"] is not None]
    assert told["agree"]
    what = {row["what"] for row in measured}
    assert what == {"trial", "verified", "baseline"} or (done.returncode == 4 and what == {"trial", "baseline"})
    assert all(row["deviation"] == 0 for row in measured)
    states = {t["number"]: t["state"] for t in result_of(folder / "runs/small")["trials"]}
    assert {row["trial"] for row in measured} == {n for n, s in states.items() if s in ("complete", "pruned")}


def test_readings_of_a_trial_are_small(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """A few bytes a request, whatever the model."""
    for path in (finished[0] / "runs/small/.autopilot/samples").glob("*.npz"):
        profile = Samples.load(path).profile
        read = [r.latency_s.size for r in (profile.latency, profile.baseline_latency) if r is not None]

        assert path.stat().st_size < MOST_OTHER_BYTES + MOST_BYTES_A_REQUEST * sum(read)


def test_show_samples_prints_all_figures_of_a_trial(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """With how each was taken, and the requests in a CSV file."""
    folder = finished[0]

    shown = in_process("show", "runs/small", "--samples", "--trial", "0", "--csv", "requests.csv", cwd=folder)

    assert shown.returncode == 0, shown.stderr
    assert "high-water mark" in shown.stdout
    profile = autopilot.Study.load(folder / "runs/small").samples(0)
    assert profile.latency is not None
    assert len((folder / "requests.csv").read_text().splitlines()) == 1 + profile.latency.latency_s.size


def test_check_keeps_readings_that_give_its_verdict_again(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    """From Python, with paths as text, in a folder of one's own."""
    folder = finished[0]

    chosen = next(f for name in ("best", "nearest") if (f := folder / "runs/small" / name).is_dir())
    found = autopilot.check(str(chosen), str(folder / "spec.yaml"), samples=str(folder / "check.npz"))

    again = recompute_file(folder / "check.npz").rows[0]
    assert found.exit_code in (0, 4)
    assert found.failure is None
    assert found.verdict is not None
    assert again.agrees
    assert again.deviation == 0
    assert again.again is not None
    assert again.again.verdict == found.verdict
    assert in_process("show", "check.npz", "--samples", cwd=folder).returncode == 0


def greedy(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with petabytes of intermediate values: it loads, and no machine can run it.

    More than an address space holds: a system that promises any memory would hand out terabytes.
    """
    graph = model.graph
    last = graph.output[0].name
    for n in graph.node:
        for i, name in enumerate(n.output):
            if name == last:
                n.output[i] = "answer"
    graph.initializer.append(numpy_helper.from_array(np.array([10**15], np.int64), "many"))
    graph.node.extend(
        [
            helper.make_node("ReduceMean", ["answer"], ["mean"], keepdims=0),
            helper.make_node("Expand", ["mean", "many"], ["huge"]),
            helper.make_node("ReduceMax", ["huge"], ["one"], keepdims=0),
            helper.make_node("Add", ["answer", "one"], [last]),
        ]
    )
    return model


def spoilt(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with a NaN among its weights."""
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        if values.dtype == np.float32:
            values.reshape(-1)[0] = np.nan
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return model


@pytest.mark.parametrize(("broken", "failure"), [(greedy, "oom"), (spoilt, "wrong_numerics")])
def test_check_of_a_model_that_fails_while_it_runs_exits_3(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
    broken: object,
    failure: str,
) -> None:
    """It was loaded and has the right inputs, so nothing was typed wrong: the gate is closed, and says why."""
    folder = finished[0]
    assert callable(broken)
    models.write(broken(models.cnn()), folder / f"{failure}.onnx")

    done = in_process("check", f"{failure}.onnx", "hasty.yaml", "--json", cwd=folder)

    assert done.returncode == 3, done.stderr
    told = json.loads(done.stdout)
    assert (told["status"], told["failure"]) == ("no_fit", failure)
    assert told["reason"]


def test_check_of_a_file_that_is_no_model_exits_2(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """Bad input, in one paragraph on stderr."""
    folder = finished[0]
    (folder / "text.onnx").write_text("no model")

    done = in_process("check", "text.onnx", "spec.yaml", cwd=folder)

    assert done.returncode == 2
    assert "text.onnx" in done.stderr
