"""The small networks as ONNX files, exported once in a process: torch's exporter takes seconds, copying one nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autopilot.torch_model import export_onnx
from tests import torch_nets as nets

_made: dict[tuple[Any, ...], bytes] = {}


def exported(net: type, feed: Mapping[str, Any], path: Path) -> Path:
    """``net`` with its seeded weights as ``path``, for any number of samples like those of ``feed``."""
    key = (net, *((name, value.dtype.str, value.shape[1:]) for name, value in feed.items()))
    if key not in _made:
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "model.onnx"
            told = export_onnx(nets.seeded(net), dict(feed), tuple(feed), target)
            assert told.batch is None
            assert [p.name for p in Path(folder).iterdir()] == ["model.onnx"]
            _made[key] = target.read_bytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_made[key])
    return path
