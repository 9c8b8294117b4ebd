"""The GPU benchmark without a GPU: what is the baseline, what is compared with what, what is written."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from autopilot import plugins
from autopilot.errors import Unsupported
from autopilot.recipe import Deployment
from autopilot.spec import load_spec
from benchmarks import gpu, gpu_rows, gpu_table
from benchmarks.gpu_encoder import write_encoder

# Milliseconds of each row of the made-up device.
FLOAT = gpu_rows.Row("cuda", options={"io": "plain"})
HALF = gpu_rows.Row("cuda", options={"io": "graph"}, **gpu_rows.HALF)
INT8 = gpu_rows.Row("tensorrt", **gpu_rows.INT8)
TIMES = {FLOAT.text: 2.0, HALF.text: 1.0, INT8.text: 0.5}


class FakeBench:
    """Known latencies; ``broken`` rows can't be built."""

    def __init__(self, broken: tuple[str, ...] = ()) -> None:
        self.broken = broken

    def figures(self, row: gpu_rows.Row) -> dict[str, Any]:
        """As told."""
        if row.text in self.broken:
            raise Unsupported("no kernel for it.")
        return {"latency_p50_ms": TIMES[row.text], "requests": 10, "quality": 0.9}

    def ratio(self, row: gpu_rows.Row, to: gpu_rows.Row) -> dict[str, Any]:
        """Without noise."""
        value = TIMES[row.text] / TIMES[to.text]
        return {"ratio": {"value": value, "low": value, "high": value}}


def measured(bench: FakeBench, until: float = math.inf) -> dict[str, dict[str, Any]]:
    """Records by row."""
    return {told["row"]: told for told in gpu.measure(bench, (INT8, FLOAT, HALF), until)}  # type: ignore[arg-type]


def test_baseline_is_the_better_of_float32_and_float16() -> None:
    """int8 is compared with float16 where that is faster: a gain over float32 alone is none on such a device."""
    found = measured(FakeBench())

    assert [name for name, told in found.items() if told["is_baseline"]] == [HALF.text]
    assert found[INT8.text]["over"] == HALF.text
    assert found[INT8.text]["comparison"]["ratio"]["value"] == 0.5


def test_row_that_cannot_run_is_named_and_the_others_go_on() -> None:
    """One missing kernel must not cost the machine's time."""
    found = measured(FakeBench((HALF.text,)))

    assert "no kernel" in found[HALF.text]["left_out"]
    assert found[INT8.text]["over"] == FLOAT.text


def test_first_row_that_runs_is_what_others_are_compared_with() -> None:
    """A first row that breaks must not take all others with it."""
    found = measured(FakeBench((FLOAT.text,)))

    assert "comparison" not in found[HALF.text]
    assert found[HALF.text]["is_baseline"]
    assert found[INT8.text]["over"] == HALF.text


def test_all_records_are_there_after_every_row() -> None:
    """What was measured is written at once: the machine may go at any moment."""
    seen = [[told["row"] for told in found] for found in gpu.measured(FakeBench(), (INT8, FLOAT, HALF), math.inf)]  # type: ignore[arg-type]

    assert [len(rows) for rows in seen] == [1, 2, 3]


def test_unfinished_result_says_so(tmp_path: Path) -> None:
    """Rows that never began aren't told as left out for the time."""
    about = {
        "date": "2026-01-02", "gpus": "X", "versions": "", "command": "c", "seconds": 3.0, "missing": {},
        "finished": False,
    }  # fmt: skip

    assert "Unfinished" in gpu_table.write("digits", [], about, tmp_path).read_text()
    assert "Unfinished" not in gpu_table.write("digits", [], about | {"finished": True}, tmp_path).read_text()


def test_processes_end_with_the_benchmarks_time(tmp_path: Path) -> None:
    """A row that begins late doesn't get a minute and a half for its start."""
    bench = gpu.Bench(study(tmp_path), tmp_path, end=time.monotonic() + 10)

    assert bench._limits.wall_s <= 10


def study(folder: Path) -> Any:
    """What a benchmark has to know of a study before it builds anything."""
    return SimpleNamespace(
        splits=SimpleNamespace(calibration=None, validation=None), classification=True, work=folder, target=None
    )


def test_encoder_answers_its_own_labels(tmp_path: Path) -> None:
    """So that accuracy is the agreement with float32; a small one is as a large one."""
    folder = write_encoder(tmp_path, samples=16, layers=1, width=16, heads=2, tokens=8, vocabulary=32, classes=4)
    spec = load_spec(folder / "spec.yaml", plugins.vocabulary())
    session = plugins.providers()["cpu"].open(folder / "model.onnx", Deployment("cpu"))
    data = np.load(folder / "valid.npz")

    assert spec.name == "encoder"
    assert (session.run({"tokens": data["tokens"]})[0].argmax(-1) == data["label"]).all()
    assert len(set(data["label"])) > 1


def test_rows_beyond_the_time_are_left_out() -> None:
    """The machine is lent for minutes."""
    found = measured(FakeBench(), time.monotonic() - 1)

    assert all(told["left_out"] == "no time left" for told in found.values())


def test_result_is_written_for_people_and_for_scripts(tmp_path: Path) -> None:
    """Dated, with the devices and what was missing."""
    about = {
        "date": "2026-01-02", "gpus": "NVIDIA X", "versions": "onnxruntime-gpu 1", "command": "c", "seconds": 3.0,
        "missing": {"tensorrt": "no libnvinfer"},
    }  # fmt: skip
    rows = gpu.measure(FakeBench((INT8.text,)), (FLOAT, HALF, INT8), math.inf)  # type: ignore[arg-type]

    text = gpu_table.write("digits", rows, about, tmp_path).read_text()

    assert "| 1.0000 | 0.9000 | 0.500 (0.500 to 0.500) |" in text
    assert "left out: no kernel" in text
    assert "- tensorrt: no libnvinfer" in text
    assert json.loads((tmp_path / "2026-01-02-gpu-digits.json").read_text())["rows"] == rows


def test_every_row_has_options_that_its_provider_knows() -> None:
    """Found out here and not on a lent machine."""
    providers, techniques = plugins.providers(), plugins.techniques()

    for row in gpu_rows.ROWS:
        declared = providers[row.provider].parameters
        assert all(k in declared and declared[k].contains(v) for k, v in row.options.items()), row.text
        assert not row.technique or row.technique in techniques
