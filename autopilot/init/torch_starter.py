"""``autopilot init`` for a PyTorch model: what it takes is asked of it, and of code what it answers to real samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from autopilot.bench.child import ChildLimits
from autopilot.build.torch_describe import describe_torch
from autopilot.data.example import take_example
from autopilot.data.sources import Header, open_source
from autopilot.errors import BadInput
from autopilot.init.match import LABELS, Findings, study, without_data
from autopilot.init.refusals import data_spec
from autopilot.model import TensorInfo

if TYPE_CHECKING:
    from autopilot.model import ModelInfo
    from autopilot.spec import DataSpec, TorchSource

# Loading somebody's code may take a while, but not for ever; the same share of memory as a study's child.
_LIMITS_S, _MEMORY_SHARE = 300.0, 0.8
# Two samples tell which dimension of an output is the sample.
_SAMPLES = 2
_ANSWER = TensorInfo("output", "float32", (None, None))


def torch_starter(source: TorchSource, data: Path | None) -> tuple[ModelInfo, Findings]:
    """What is known of the model, with types and dimensions as far as ``data`` tell them, and what to write of them.

    Raises:
        BadInput: torch is missing, or the model or the data can't be read.
    """
    info = _asked(source, None)
    if data is None:
        return info, without_data(info)
    stored = open_source(data)
    known = replace(info, inputs=tuple(_guessed(t, info, stored.headers) for t in info.inputs))
    if info.outputs:
        return known, study(known, stored)
    found = study(replace(known, outputs=(_ANSWER,)), stored)
    try:
        outputs = _asked(source, data_spec(data, found)).outputs
    except BadInput as exc:
        found.remarks.append(f"the model was not run on the samples, so the metric is a guess: {exc.message}")
        return known, found
    known = replace(known, outputs=outputs)
    return known, study(known, stored)


def _asked(source: TorchSource, data: DataSpec | None) -> ModelInfo:
    example = take_example(data, _SAMPLES) if data is not None else None
    limits = ChildLimits(wall_s=_LIMITS_S, memory_bytes=int(psutil.virtual_memory().total * _MEMORY_SHARE))
    return describe_torch(source, example, limits=limits, threads=1)


def _guessed(tensor: TensorInfo, info: ModelInfo, headers: Any) -> TensorInfo:
    """An input that code only names, as the stored array that feeds it suggests: its rank, and a type to compute in."""
    if tensor.dtype:
        return tensor
    header = _header(tensor.name, len(info.inputs), headers)
    if header is None:
        return tensor
    kind, rank = header.dtype.kind, len(header.shape)
    pixels = header.dtype.name == "uint8" and rank >= 3
    dtype = "float32" if kind == "f" or pixels else header.dtype.name if header.dtype.name in _KEPT else "int64"
    return TensorInfo(tensor.name, dtype, (None,) * rank)


# Types that networks take as they are; other integers are indices, which embeddings want as int64.
_KEPT = ("int64", "int32", "bool")


def _header(name: str, inputs: int, headers: Any) -> Header | None:
    """The array of that name, or, for a single input, the only one that is no label."""
    by_name: dict[str, Header] = {n.lower(): h for n, h in headers.items()}
    if name.lower() in by_name:
        return by_name[name.lower()]
    free = [h for n, h in headers.items() if n.lower() not in LABELS]
    return free[0] if inputs == 1 and len(free) == 1 else None
