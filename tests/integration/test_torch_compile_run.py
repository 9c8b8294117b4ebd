"""ONNX Runtime and torch.compile in one study, and torch.compile under scheduled traffic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from autopilot import plugins
from autopilot.bench.arrivals import Load
from autopilot.bench.launcher import Server
from autopilot.bench.traffic import measure_traffic
from autopilot.recipe import Deployment
from autopilot.spec import Traffic
from autopilot.target import Target
from tests import models
from tests.integration.bench_support import LIMITS, dense, samples, write_split
from tests.integration.run_support import UNTIMED, hurry, in_process, result_of, write_study

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        plugins.providers()["torch_compile"].usable(Target.detect()) is not None, reason="torch_compile can't run here"
    ),
]
BATCH = 2
# Each size of batch is compiled while the server starts, which may take a busy machine minutes.
PATIENT = replace(LIMITS, wall_s=240.0)
# The model as given on either provider, and nothing that takes time to build.
SPACE = "techniques: []\ndeployment: {threads: [1]}\n"


def test_both_providers_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first compilation is a start, not a failure: the trial ends with a verdict like the cpu's."""
    hurry(monkeypatch)
    monkeypatch.setenv("AUTOPILOT_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "space.yaml").write_text(SPACE)
    target = {"providers": ["cpu", "torch_compile"], "threads": 1}
    # A slow machine compiles for minutes; a study out of time would end without the second provider.
    search = {"trials": 2, "timeout": "20m", "seed": 0}
    # A model of one product: the compilers are what is waited for.
    # By memory the other provider wins on any machine: torch_compile as a finalist would start as often again.
    changes = UNTIMED | {"objective": "peak_memory_mb"}
    spec = write_study(tmp_path, models.wide(), target=target, space="space.yaml", search=search, **changes)

    done = in_process("run", str(spec), "--out", "out", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    trials = {t["deployment"]["provider"]: t for t in result_of(tmp_path / "out")["trials"]}
    assert set(trials) == {"cpu", "torch_compile"}
    for trial in trials.values():
        assert trial["failure"] is None
        assert set(trial["verdict"].values()) == {"in"}
        assert trial["measured"]["latency_p50_ms"]["value"] > 0
        assert trial["measured"]["provider_node_share"]["value"] == 1.0


def test_nothing_is_compiled_while_scheduled_requests_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every size of batch is there before the first window: inductor writes nothing from then on."""
    monkeypatch.setenv("AUTOPILOT_CACHE_DIR", str(tmp_path / "cache"))
    path = dense(tmp_path / "model.onnx", width=16, layers=2)
    split = write_split(tmp_path / "split", {"x": samples(32, 16)})

    def programs() -> set[Path]:
        return set((tmp_path / "cache" / "compiled" / "inductor").rglob("*.so"))

    with Server.start(path, Deployment("torch_compile", batch=BATCH), split=split, limits=PATIENT) as server:
        server.open_traffic()
        before = programs()
        load = Load.of(Traffic("server", 200.0))
        reading, _ = measure_traffic(server, None, load, decided=lambda *_: True, cap_s=2.0)

    assert len(before) >= BATCH
    assert programs() == before
    assert reading.traffic is not None
    assert reading.traffic.answered.sum() > 0
