"""Where the time goes, on real models in real processes: operators, types, stages."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autopilot.bench.launcher import Server, measure_latency
from autopilot.bench.operators import measure_operators
from autopilot.errors import Unsupported, VariantFailed
from autopilot.profile import LatencyReading
from autopilot.providers import cpu
from autopilot.recipe import Deployment
from autopilot.stats import stage_shares
from tests import models
from tests.integration.bench_support import LIMITS, ONE_THREAD, write_split
from tests.integration.run_support import hurry, in_process, result_of, write_study

pytestmark = pytest.mark.integration

CPU = "CPUExecutionProvider"
HOOKS = """
def preprocess(arrays):
    return {name: array * 1.0 for name, array in arrays.items()}

def postprocess(outputs):
    return {name: array + 0.0 for name, array in outputs.items()}
"""


def table_of(name: str, folder: Path, deployment: Deployment = ONE_THREAD, **more: Any) -> Any:
    """The operators of one of the test models."""
    model = models.MAKERS[name]()
    split = write_split(folder / "split", models.samples(model, 24))
    path = models.write(model, folder / "model.onnx")
    return measure_operators(path, deployment, split=split, limits=LIMITS, **more)


def test_quantized_model_shows_integer_operators(tmp_path: Path) -> None:
    """A model in QDQ form runs as QLinearMatMul on uint8 with int8 weights; what converts is a row of its own."""
    table = table_of("qdq", tmp_path)

    rows = {row.operator: (row.provider, row.dtype, row.weights, row.count) for row in table.rows}
    assert rows == {
        "QuantizeLinear": (CPU, "float32", "", 1.0),
        "QLinearMatMul": (CPU, "uint8", "int8", 1.0),
        "DequantizeLinear": (CPU, "uint8", "", 1.0),
    }
    assert table.by_provider() == {CPU: 1.0}
    assert table.requests >= 1


def test_float_model_shows_float_operators_by_cost(tmp_path: Path) -> None:
    """Shares sum to 1, the dearest first; the batch is the deployment's."""
    table = table_of("cnn", tmp_path, Deployment("cpu", threads=1, batch=4), latency_s=1.0)

    assert {row.dtype for row in table.rows} == {"float32"}
    assert next(row.count for row in table.rows if row.operator == "Conv") == 2.0
    assert sum(table.share(row) for row in table.rows) == pytest.approx(1.0)
    assert [row.seconds for row in table.rows] == sorted((row.seconds for row in table.rows), reverse=True)
    assert table.samples_per_request == 4
    assert table.covered == pytest.approx(table.total_s)


def test_model_that_does_not_load_fails_as_ours(tmp_path: Path) -> None:
    """The caller makes a note of it."""
    split = write_split(tmp_path / "split", models.samples(models.cnn(), 24))
    (tmp_path / "model.onnx").write_bytes(b"no model")

    with pytest.raises(VariantFailed):
        measure_operators(tmp_path / "model.onnx", ONE_THREAD, split=split, limits=LIMITS)


def test_provider_without_a_profiler_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One written for an earlier version takes no ``profile_to``: the table is absent with that reason."""
    from autopilot.bench import operator_child, server

    class Old:
        name = "old"

        def open(self, artifact: Path, deployment: Deployment, *, optimized_model: Path | None = None) -> Any:
            return cpu.PROVIDER.open(artifact, deployment, optimized_model=optimized_model)

    monkeypatch.setattr(server, "find_provider", lambda name: Old())
    split = write_split(tmp_path / "split", models.samples(models.cnn(), 24))
    request = {"deployment": ONE_THREAD.to_json(), "split": str(split.folder)}

    with pytest.raises(Unsupported, match="old has no profiler"):
        operator_child.profile(request)


def test_stages_sum_to_the_latency(tmp_path: Path) -> None:
    """Arithmetic, not timing: every request's parts add up, and the hooks take some of it."""
    (tmp_path / "steps.py").write_text(HOOKS)
    hooks = {name: f"{tmp_path / 'steps.py'}:{name}" for name in ("preprocess", "postprocess")}
    model = models.cnn()
    split = write_split(tmp_path / "split", models.samples(model, 24), **hooks)
    path = models.write(model, tmp_path / "model.onnx")

    def twenty(reading: LatencyReading, _: LatencyReading | None) -> bool:
        return reading.latency_s.size >= 20

    with Server.start(path, ONE_THREAD, split=split, limits=LIMITS) as server:
        reading, _ = measure_latency(server, None, decided=twenty, cap_s=5.0)
    stages = stage_shares(reading)

    assert stages is not None
    assert stages.total_s == pytest.approx(float(np.mean(reading.latency_s)))
    assert all(part.seconds > 0 for part in (stages.preprocess, stages.inference, stages.postprocess))
    assert stages.preprocess.share.value + stages.inference.share.value + stages.postprocess.share.value == (
        pytest.approx(1.0)
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A finished run with hooks whose winner is int8, and what it printed; checks of it are in a hurry too."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "steps.py").write_text(HOOKS)
    data = {"validation": "valid.npz", "preprocess": "steps.py:preprocess", "postprocess": "steps.py:postprocess"}
    (folder / "space.yaml").write_text("techniques: {static_int8: {}}\n")
    budget = {"size_mb": "95% of baseline", "quality_drop": 0.5, "int8_node_share": 0.9}
    write_study(
        folder,
        data=data,
        budget=budget,
        objective="size_mb",
        space="space.yaml",
        search={"trials": 2, "timeout": "300s"},
    )
    with pytest.MonkeyPatch.context() as patch:
        hurry(patch)
        done = in_process("run", "spec.yaml", cwd=folder)
        assert done.returncode == 0, done.stderr
        yield folder, done.stdout


def test_result_tells_where_the_time_goes(study: tuple[Path, str]) -> None:
    """For baseline and winner: stages that add up, operators with provider and type, their shares of 1."""
    result = result_of(study[0] / "runs" / "small")

    for side in ("baseline", "best"):
        stages, operators = result[side]["stages"], result[side]["operators"]
        assert sum(stage["share"]["value"] for stage in stages.values()) == pytest.approx(1.0)
        latency_ms = result[side]["measured"]["latency_mean_ms"]["value"]
        assert sum(stage["seconds"] for stage in stages.values()) == pytest.approx(latency_ms / 1e3)
        assert sum(row["share"] for row in operators["rows"]) == pytest.approx(1.0)
        assert operators["by_provider"] == {CPU: 1.0}
        assert operators["latency_s"] == pytest.approx(stages["inference"]["seconds"])
        assert result[side]["measured"]["provider_time_share"]["value"] == 1.0
    types = {row["operator"]: row["dtype"] for row in result["best"]["operators"]["rows"]}
    assert types["QLinearConv"] == "uint8"
    assert {row["dtype"] for row in result["baseline"]["operators"]["rows"]} == {"float32"}
    assert result["best"]["measured"]["int8_mac_share"]["value"] == 1.0


def test_show_prints_stages_and_operators(study: tuple[Path, str]) -> None:
    """The same tables as at the end of the run: of the operators the dearest, whichever that is on this machine."""
    folder, printed = study
    shown = in_process("show", "runs/small", cwd=folder).stdout
    rows = result_of(folder / "runs" / "small")["best"]["operators"]["rows"]
    dearest = max(rows, key=lambda row: row["share"])

    for text in (printed, shown):
        assert "preprocess" in text
        assert re.search(rf"^{dearest['operator']} {dearest['dtype']}", text, re.MULTILINE)
        assert "operators over mean latency without profiler" in text


def test_check_tells_where_the_time_goes(study: tuple[Path, str]) -> None:
    """``check --json`` has both for the model that it measured."""
    done = in_process("check", "runs/small/best", "spec.yaml", "--json", "--quiet", cwd=study[0])
    found = json.loads(done.stdout)

    assert {"preprocess", "inference", "postprocess"} == set(found["stages"])
    assert "QLinearConv" in {row["operator"] for row in found["operators"]["rows"]}
