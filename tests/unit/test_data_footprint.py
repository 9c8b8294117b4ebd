"""What reading and preparing data cost in imports and memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.data_support import data, images, run, save

ROOT = Path(__file__).resolve().parents[2]


def test_split_loads_light(tmp_path):
    """The serving child reads a split with numpy and the standard library only."""
    run(tmp_path, data(save(tmp_path / "v.npz", **images(60))))
    code = (
        "import sys, json, pathlib; from autopilot.data import Split; "
        "s = Split.load(pathlib.Path(sys.argv[1])); s.feed([0]); "
        "print(json.dumps(sorted(m.split('.')[0] for m in sys.modules)))"
    )

    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "data/validation")],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )

    heavy = {"pydantic", "yaml", "pyarrow", "sklearn", "scipy", "onnx", "onnxruntime", "torch", "pandas", "mlflow"}
    assert not heavy & set(json.loads(out.stdout))


MEMORY_PROBE = """
import pathlib, re, sys
from tests.data_support import TensorInfo, data, run

folder = pathlib.Path(sys.argv[1])
run(folder, data(folder / "v.npz"), TensorInfo("x", "float32", ("n", 5000)))
status = pathlib.Path("/proc/self/status").read_text()
print(int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) / 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kernel tells no high-water mark")
def test_prepare_keeps_memory_moderate_with_large_files(tmp_path):
    """200 MB of stored data stay far below the parent's 600 MB."""
    values = np.random.default_rng(0).random((10_000, 5000), dtype=np.float32)
    np.savez(tmp_path / "v.npz", x=values, label=np.arange(10_000) % 7)

    out = subprocess.run(
        [sys.executable, "-c", MEMORY_PROBE, str(tmp_path)], capture_output=True, text=True, check=True, cwd=ROOT
    )

    assert float(out.stdout) < 300
