"""Scheduled traffic on real serving processes: batching, overload, the highest rate, and what breaks."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from autopilot.bench.arrivals import Load
from autopilot.bench.launcher import Server
from autopilot.bench.max_rate import find_max_rate
from autopilot.bench.traffic import MIN_WINDOWS, measure_traffic
from autopilot.data import Split
from autopilot.errors import VariantFailed, WorkerDied
from autopilot.meters.traffic import is_overloaded
from autopilot.profile import LatencyReading
from autopilot.recipe import Deployment
from autopilot.search import max_rate
from autopilot.search import traffic as study_traffic
from autopilot.spec import Traffic
from tests import models
from tests.integration.bench_support import LIMITS, ONE_THREAD, dense, samples, write_split
from tests.integration.run_support import hurry, in_process, result_of, write_study

pytestmark = pytest.mark.integration

SLOW = """
import time
def preprocess(raw):
    time.sleep({seconds})
    return {{"x": raw["x"]}}
def postprocess(outputs):
    {after}
    return outputs
"""


def load(rate_rps: float, arrivals: str = "poisson") -> Load:
    return Load.of(Traffic("server", rate_rps, arrivals))


def split(folder: Path, *, service_s: float = 0.0, after: str = "pass") -> Split:
    """Samples whose service takes ``service_s`` whatever the machine."""
    folder.mkdir(exist_ok=True)
    steps = folder / "steps.py"
    steps.write_text(SLOW.format(seconds=service_s, after=after))
    hooks = {"preprocess": f"{steps}:preprocess", "postprocess": f"{steps}:postprocess"} if service_s else {}
    return write_split(folder / "split", {"x": samples(64, 16)}, **hooks)


def never(reading: LatencyReading, beside: LatencyReading | None) -> bool:
    return False


@pytest.mark.parametrize("arrivals", ["poisson", "bursty", "diurnal", "trace.csv"])
def test_every_request_is_answered_and_its_latency_adds_up(tmp_path: Path, arrivals: str) -> None:
    """Late sending, queueing and service are the whole time from due to done; both servers get the same requests."""
    if arrivals == "trace.csv":
        arrivals = str(tmp_path / arrivals)
        Path(arrivals).write_text("seconds\n10.0\n10.1\n10.15\n10.4\n")
    model, data = dense(tmp_path / "m.onnx"), split(tmp_path)
    with (
        Server.start(model, ONE_THREAD, split=data, limits=LIMITS) as one,
        Server.start(model, ONE_THREAD, split=data, limits=LIMITS) as two,
    ):
        reading, beside = measure_traffic(one, two, load(100, arrivals), decided=never, cap_s=1.5)

    assert beside is not None
    assert reading.traffic is not None
    assert beside.traffic is not None
    seen = reading.traffic
    assert seen.lost == 0
    assert seen.offered.sum() == reading.latency_s.size > 0
    assert seen.offered.tolist() == beside.traffic.offered.tolist()
    assert reading.latency_s == pytest.approx(seen.send_lag_s + seen.queue_s + seen.service_s, abs=1e-8)
    assert np.all(seen.send_lag_s >= 0)


@pytest.mark.parametrize("fixed", [False, True])
def test_requests_that_come_together_run_together(tmp_path: Path, *, fixed: bool) -> None:
    """A service of 20 ms under 150 requests a second: only batches keep up, also in a model of whole batches."""
    model = dense(tmp_path / "m.onnx", batch=8 if fixed else "n")
    deployment = Deployment("cpu", 1, 8, max_delay_ms=5.0)
    with Server.start(model, deployment, split=split(tmp_path, service_s=0.02), limits=LIMITS) as server:
        reading, _ = measure_traffic(server, None, load(150), decided=never, cap_s=2.0, fixed=fixed)

    assert reading.traffic is not None
    assert reading.traffic.mean_batch > 1.5
    assert reading.traffic.batch_sizes.size <= 9


def test_instances_share_the_queue(tmp_path: Path) -> None:
    """Two instances of 20 ms are busy for more time than has passed, which one can't be."""
    model, data = dense(tmp_path / "m.onnx"), split(tmp_path, service_s=0.02)
    with Server.start(model, Deployment("cpu", 1, 1, instances=2), split=data, limits=LIMITS) as server:
        reading, _ = measure_traffic(server, None, load(400), decided=never, cap_s=2.0)

    assert reading.traffic is not None
    assert reading.traffic.busy_s.mean() > 1.2 * reading.traffic.window_s


def test_overload_ends_and_is_seen(tmp_path: Path) -> None:
    """Ten times as many requests as can be answered: lost ones are counted, and the time is bounded."""
    model, data = dense(tmp_path / "m.onnx"), split(tmp_path, service_s=0.02)
    with Server.start(model, ONE_THREAD, split=data, limits=LIMITS) as server:
        server.warm_up(0.2)
        reading, _ = measure_traffic(server, None, load(500), decided=lambda a, b: True, cap_s=30.0)

    assert reading.traffic is not None
    assert is_overloaded(reading.traffic)
    assert reading.traffic.lost > 0
    assert reading.traffic.answered.sum() < reading.traffic.offered.sum() / 4
    assert reading.block_wall_s.size < 10


def test_max_rate_is_below_what_the_service_allows(tmp_path: Path) -> None:
    """A service of 10 ms can't answer more than 100 requests a second one after the other."""
    model, data = dense(tmp_path / "m.onnx"), split(tmp_path, service_s=0.01)

    def judge(reading: LatencyReading) -> tuple[bool | None, bool]:
        overloaded = is_overloaded(reading.traffic)
        holds = not overloaded and float(np.median(reading.latency_s)) < 0.1
        return holds, holds  # for certain: what is too close to call is looked at for as long as there is time

    with Server.start(model, ONE_THREAD, split=data, limits=LIMITS) as server:
        server.warm_up(0.2)
        found = find_max_rate(server, load(1.0), judge, cap_s=12.0)

    assert 0 < found.rate_rps < 110
    assert found.probes > 1


def test_killed_server_ends_the_measurement(tmp_path: Path) -> None:
    """In the middle of a window: as a dead worker, not as a hang."""
    model, data = dense(tmp_path / "m.onnx"), split(tmp_path)
    with Server.start(model, ONE_THREAD, split=data, limits=LIMITS) as server:
        server.warm_up()
        threading.Timer(0.5, os.kill, (server.pid, signal.SIGKILL)).start()
        started = time.monotonic()
        with pytest.raises(WorkerDied):
            measure_traffic(server, None, load(200), decided=never, cap_s=60.0)

    assert time.monotonic() - started < 50


def test_failing_request_ends_the_measurement_with_its_error(tmp_path: Path) -> None:
    """A thread that serves must not die in silence."""
    after = "if len(outputs['y']) > 1: raise ValueError('too many')"
    data = split(tmp_path, service_s=0.02, after=after)
    model = dense(tmp_path / "m.onnx")
    with Server.start(model, ONE_THREAD, split=data, limits=LIMITS) as server:
        server.warm_up(0.1)
        server.deployment = Deployment("cpu", 1, 4)  # the process finds out when two wait
        with pytest.raises(Exception, match="too many") as caught:
            measure_traffic(server, None, load(200), decided=never, cap_s=5.0)

    assert not isinstance(caught.value, VariantFailed)


# ---- the whole program -----------------------------------------------------------------------------

# Batches of two: the overloaded service answers no more than 400 requests a second with them.
SPACE = "techniques: {{{technique}}}\ndeployment: {{threads: [1], batch: [2]}}\n"


@pytest.mark.slow
def test_run_and_highest_rate_in_server_traffic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A result with latency under load and a deployment that fits; how much more the winner takes."""
    hurry(monkeypatch)
    (tmp_path / "space.yaml").write_text(SPACE.format(technique="static_int8: {}"))
    spec = write_study(
        tmp_path,
        models.cnn(),
        traffic={"scenario": "server", "rate_rps": 200},
        # Of size, so that the int8 model is the only finalist: another takes as long again.
        budget={"latency_p50_ms": 500, "dropped_share": 0.5, "quality_drop": 0.5, "size_mb": "95% of baseline"},
        objective="throughput_rps",  # known from few windows, since both servers get the same requests
        space="space.yaml",
        search={"trials": 2, "timeout": "240s", "seed": 0},
    )

    ran = in_process("run", str(spec), cwd=tmp_path)
    # A machine whose speed changes all the time leaves too little for a bound in a second of measuring.
    assert ran.returncode in (0, 4), ran.stderr
    result = result_of(tmp_path / "runs" / "small")
    folder, judged = ("best", {"in"}) if ran.returncode == 0 else ("nearest", {"in", "undecided"})
    best = result[folder]
    assert set(best["verdict"].values()) <= judged
    assert "200 requests a second" in best["measured"]["latency_p50_ms"]["how"]
    assert best["measured"]["throughput_rps"]["value"] > 0
    assert best["deployment"]["threads"] * best["deployment"].get("instances", 1) == 1
    assert any(t["deployment"]["batch"] > 1 for t in result["trials"])
    assert (tmp_path / "runs" / "small" / "trials.csv").is_file()

    found = max_rate(tmp_path / "runs" / "small" / folder, spec)
    assert found.value is not None
    assert found.value > 0


@pytest.mark.slow
def test_overloaded_study_ends_with_a_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Far more requests than a service of 5 ms can answer, the baseline included: nothing fits, and it is said why."""
    hurry(monkeypatch)
    # An overload by five times is certain from the first windows; half as many as bound a latency.
    monkeypatch.setattr(study_traffic, "_WINDOWS", MIN_WINDOWS)
    (tmp_path / "space.yaml").write_text(SPACE.format(technique=""))
    model = models.cnn()
    name = model.graph.input[0].name
    (tmp_path / "steps.py").write_text(
        "import time\n"
        f"def preprocess(raw):\n    time.sleep(0.005)\n    return {{{name!r}: raw[{name!r}].astype('float32')}}\n"
    )
    spec = write_study(
        tmp_path,
        model,
        traffic={"scenario": "server", "rate_rps": 2000},
        data={"validation": "valid.npz", "preprocess": "steps.py:preprocess"},
        budget={"latency_p95_ms": 30},
        objective="throughput_rps",
        space="space.yaml",
        search={"trials": 2, "timeout": "240s", "seed": 0},
    )

    ran = in_process("run", str(spec), cwd=tmp_path)

    assert ran.returncode == 3, ran.stdout + ran.stderr
    result = result_of(tmp_path / "runs" / "small")
    assert result["nearest"]["verdict"] == {"latency_p95_ms": "out"}
    assert "overloaded" in result["baseline"]["measured"]["latency_p95_ms"]["reason"]
