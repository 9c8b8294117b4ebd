"""The first samples as model inputs, for a model that doesn't say what its inputs are: a PyTorch module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from autopilot.data.hooks import as_arrays, call_hook, load_hook
from autopilot.data.resolve import FilePlan, plan_file
from autopilot.data.sources import Header, Source, open_source
from autopilot.model import ModelInfo, TensorInfo

if TYPE_CHECKING:
    from autopilot.spec import DataSpec, InputSpec

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Example:
    """``feed``: model inputs by name; ``samples`` many, or one without its sample dimension where not ``batched``.

    ``per_sample`` names the inputs whose first dimension is the sample.
    """

    feed: Mapping[str, Array]
    samples: int
    per_sample: tuple[str, ...]
    batched: bool


def take_example(data: DataSpec, samples: int) -> Example:
    """The first ``samples`` (at most) of the validation file as ``data`` maps them to inputs.

    Inputs are those that ``data.inputs`` names, else all arrays but the label; their types are those
    asked for, else float32 where a mapping calculates and the stored type where it doesn't.

    Raises:
        DataError: an array that is missing, or a mapping or hook that can't be applied.
    """
    source = open_source(data.validation)
    names = () if data.preprocess else tuple(data.inputs) or tuple(h for h in source.headers if h != data.label)
    guessed = _as_model(tuple(_guess(name, data, source) for name in names), data)
    plan = plan_file(source, data, guessed, metric_needing_labels=None)
    count = min(samples, plan.n) if data.batched else 1
    raw = _first_rows(plan, count, data.batched)
    if data.preprocess:
        raw.pop(plan.label or "", None)
        feed = as_arrays(call_hook(load_hook(data.preprocess), data.preprocess, raw), data.preprocess)
        grown = tuple(name for name, value in feed.items() if value.shape[:1] == (count,))
    else:
        feed = {m.name: m.apply(raw) for m in plan.inputs}
        grown = tuple(m.name for m in plan.inputs if m.source is not None and not m.shared)
    return Example(feed, count, grown if data.batched else (), data.batched)


def _first_rows(plan: FilePlan, count: int, batched: bool) -> dict[str, Array]:
    """Stored arrays: of the first samples, and the shared ones whole."""
    rows = {name: np.array(next(iter(plan.source.chunks(name)))[:count]) for name in plan.stored}
    if not batched:
        rows = {name: np.asarray(value[0]) for name, value in rows.items()}
    return rows | {name: _whole(plan.source, name) for name in plan.shared}


def _whole(source: Source, name: str) -> Array:
    chunks = list(source.chunks(name))
    return chunks[0] if len(chunks) == 1 else np.concatenate(chunks)


def _guess(name: str, data: DataSpec, source: Source) -> TensorInfo:
    """The input as its stored array (or constant) and its mapping suggest it."""
    spec = data.inputs.get(name)
    if spec is not None and spec.constant is not None:
        values = np.asarray(spec.constant)
        dtype = spec.dtype or ("float32" if values.dtype.kind == "f" else values.dtype.name)
        return TensorInfo(name, dtype, spec.shape if spec.shape is not None else values.shape)
    header = source.headers.get((spec.source if spec is not None else None) or name)
    if header is None:  # refused where the arrays are matched, which names those there are
        return TensorInfo(name, "float32", (None,))
    item = header.shape[1:]
    return TensorInfo(name, _dtype(spec, header), (None, *item) if data.batched else item)


def _dtype(spec: InputSpec | None, header: Header) -> str:
    if spec is not None and spec.dtype is not None:
        return spec.dtype
    calculates = spec is not None and any(f is not None for f in (spec.scale, spec.offset, spec.mean, spec.std))
    return "float32" if calculates and header.dtype != np.float64 else header.dtype.name


def _as_model(inputs: tuple[TensorInfo, ...], data: DataSpec) -> ModelInfo:
    return ModelInfo(data.validation, (), inputs, (), 0, {}, False, False, False, 0, None)
