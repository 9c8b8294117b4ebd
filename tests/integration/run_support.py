"""A small study to run end to end: a model, data with learnable labels, a spec."""

from __future__ import annotations

import atexit
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import yaml

from autopilot.bench import control
from autopilot.cli import main
from autopilot.tracking import Store
from tests import models

# What a test takes that isn't about times: however busy the machine is, the verdict is the same. The objective is no
# time either: variants of a tiny model tie on that, and finalists that tie are compared for a dozen seconds each.
UNTIMED: dict[str, Any] = {"budget": {"quality_drop": 0.5, "size_mb": 50}, "objective": "size_mb"}


def labelled(model: onnx.ModelProto, folder: Path, n: int = 240, **more: Any) -> dict[str, np.ndarray]:
    """Samples of ``model`` with the model's own answers as labels, one in ten turned wrong."""
    fixed = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    path = models.write(model, folder / "probe.onnx")
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    drawn = [models.samples(model, fixed or n, seed=i) for i in range(n // fixed if fixed else 1)]
    arrays = {name: np.concatenate([d[name] for d in drawn]) for name in drawn[0]}
    found = np.concatenate([np.asarray(session.run(None, d)[0]) for d in drawn])
    labels = found.argmax(-1)
    labels[::10] = (labels[::10] + 1) % found.shape[-1]
    path.unlink()
    return {**arrays, "label": labels, **more}


def write_study(folder: Path, model: onnx.ModelProto | None = None, **changes: Any) -> Path:
    """A folder with model.onnx, valid.npz and spec.yaml; returns the spec's path.

    ``changes`` replace top-level keys of the spec.
    """
    model = model if model is not None else models.cnn()
    models.write(model, folder / "model.onnx")
    np.savez(folder / "valid.npz", **labelled(model, folder))  # type: ignore[arg-type]
    spec: dict[str, Any] = {
        "name": "small",
        "model": "model.onnx",
        "data": {"validation": "valid.npz"},
        "metric": "accuracy",
        "budget": {"latency_p50_ms": "300% of baseline", "quality_drop": 0.5},
        "target": {"providers": ["cpu"], "threads": 1},
        "space": "quick",
        "search": {"trials": 4, "timeout": "300s", "seed": 0},
    }
    spec |= changes
    # Limits are far away on purpose: a second is enough to see that. Without any on a time, the clock decides nothing.
    is_timed = any(axis.startswith(("latency", "throughput", "dropped", "energy")) for axis in spec["budget"])
    spec["search"] = {"measure_cap": "1s" if is_timed else "0.2s", **spec["search"]}
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path


def hurry(patch: pytest.MonkeyPatch) -> None:
    """Of the model against itself read two pairs of processes instead of four, as of slow models: for studies in this
    process without a time among limits and objectives, where its figure is only told, or with such that are far away.
    """
    patch.setattr(control, "PROCESSES", control.FEWEST)


@cache
def _stores() -> Path:
    """A folder for stores, with an empty one of all tables: making it takes seconds, copying it nothing."""
    folder = Path(tempfile.mkdtemp(prefix="autopilot-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlruns' / 'mlflow.db'}")
        Store.current().client()
    return folder


def new_store(folder: Path) -> str:
    """The URI of the MLflow store in ``folder``, where there is none an empty one that is put there."""
    database = folder / "mlruns" / "mlflow.db"
    if not database.exists():
        database.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(_stores() / "mlruns" / "mlflow.db", database)
    return f"sqlite:///{database}"


@cache
def store_of(cwd: Path) -> str:
    """An MLflow store for what is run in ``cwd``, and elsewhere: no champion of other tests is in it.

    A study that finds one of its own name measures it beside the winner, which takes as long as a trial.
    """
    return new_store(Path(tempfile.mkdtemp(dir=_stores())))


def environment(cwd: Path, *, own_store: bool = False) -> dict[str, str]:
    """The environment of a child in ``cwd``: this package importable, plain output, a store unless it makes its own."""
    root = str(Path(__file__).resolve().parents[2])
    out = {**os.environ, "PYTHONPATH": root, "NO_COLOR": "1", "COLUMNS": "100"}
    out.pop("MLFLOW_TRACKING_URI", None)
    return out if own_store else out | {"MLFLOW_TRACKING_URI": store_of(cwd)}


def autopilot(*args: str, cwd: Path, timeout: float = 600, own_store: bool = False) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would."""
    return subprocess.run(
        [sys.executable, "-m", "autopilot", *args],
        cwd=cwd,
        env=environment(cwd, own_store=own_store),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def in_process(*args: str, cwd: Path, own_store: bool = False) -> subprocess.CompletedProcess[str]:
    """The same in this process, which has its libraries loaded: for tests that aren't about the process itself."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(cwd)
        for name, value in (("NO_COLOR", "1"), ("COLUMNS", "100"), ("MLFLOW_TRACKING_URI", store_of(cwd))):
            patch.setenv(name, value)
        if own_store:
            patch.delenv("MLFLOW_TRACKING_URI")
        code = main(list(args))
    return subprocess.CompletedProcess(args, code, out.getvalue(), err.getvalue())


def result_of(folder: Path) -> Mapping[str, Any]:
    """result.json of a run folder."""
    value: Mapping[str, Any] = json.loads((folder / "result.json").read_text())
    return value
