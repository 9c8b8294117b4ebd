"""Matching a file's arrays to the model's inputs: names, ranks, shapes, types, before any array is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from autopilot.data.constants import resolve_constant
from autopilot.data.hooks import nearest
from autopilot.data.mapping import Factor, InputMap, fits, is_text
from autopilot.data.sources import Header, Source
from autopilot.errors import DataError
from autopilot.words import counted

if TYPE_CHECKING:
    from autopilot.model import ModelInfo, TensorInfo
    from autopilot.spec import DataSpec, InputSpec


@dataclass(frozen=True, slots=True)
class FilePlan:
    """What one data file contributes.

    ``n`` samples; ``label`` the label array's name or None; ``inputs`` the resolved model inputs
    (empty with a preprocess hook); ``stored`` the per-sample arrays to keep, label included;
    ``shared`` the arrays without a sample dimension.
    """

    source: Source
    n: int
    label: str | None
    inputs: tuple[InputMap, ...]
    stored: tuple[str, ...]
    shared: tuple[str, ...]


def plan_file(source: Source, data: DataSpec, model: ModelInfo, *, metric_needing_labels: str | None) -> FilePlan:
    """Decide how the arrays of ``source`` feed ``model``.

    Raises:
        DataError: a label, input, shape or type that doesn't fit; the message names the file and array.
    """
    headers = source.headers
    label = data.label if data.label in headers else None
    if label is None and metric_needing_labels:
        others = [h for h in headers if h not in {i.name for i in model.inputs}]
        raise DataError(
            f"{source.path} has no label array {data.label!r}, which the metric {metric_needing_labels} needs;"
            f" it has: {', '.join(headers)}.",
            nearest(data.label, others) + " Set data.label to the label array's name.",
        )
    n = _count(source, data, model, label)
    if data.preprocess:
        stored = tuple(h.name for h in headers.values() if h.shape[:1] == (n,))
        shared = tuple(name for name in headers if name not in stored)
        return FilePlan(source, n, label, (), stored, shared)
    _check_mapping_names(data, model)
    inputs = tuple(_resolve(t, data.inputs.get(t.name), source, n, data.batched) for t in model.inputs)
    used = [m.source for m in inputs if m.source is not None and not m.shared]
    shared = tuple(dict.fromkeys(m.source for m in inputs if m.source is not None and m.shared))
    return FilePlan(source, n, label, inputs, tuple(dict.fromkeys([*used, *([label] if label else [])])), shared)


def _count(source: Source, data: DataSpec, model: ModelInfo, label: str | None) -> int:
    if label is not None:
        shape = source.headers[label].shape
        if not shape:
            raise DataError(f"the label array {label!r} in {source.path} is a single number.", "It needs one a sample.")
        n = shape[0]
    else:
        wanted = {(data.inputs[t.name].source if t.name in data.inputs else None) or t.name for t in model.inputs}
        used = [h for h in source.headers.values() if h.name in wanted and h.shape and not data.preprocess]
        used = used or [h for h in source.headers.values() if h.shape]
        if not used:
            raise DataError(f"{source.path} holds no array with a sample dimension.")
        n = Counter(h.shape[0] for h in used).most_common(1)[0][0]
    if n == 0:
        raise DataError(f"{source.path} is empty: its arrays have 0 samples.", "Write at least 30 samples into it.")
    return n


def _check_mapping_names(data: DataSpec, model: ModelInfo) -> None:
    names = [t.name for t in model.inputs]
    for name in data.inputs:
        if name not in names:
            raise DataError(f"data.inputs names {name!r}, which is no input of the model.", nearest(name, names))


def _resolve(tensor: TensorInfo, spec: InputSpec | None, source: Source, n: int, batched: bool) -> InputMap:
    if spec is not None and spec.dtype is not None and spec.dtype != tensor.dtype:
        raise DataError(
            f"data.inputs.{tensor.name} asks for {spec.dtype}, but the model's input is {tensor.dtype}.",
            f"Write dtype: {tensor.dtype}.",
        )
    if spec is not None and spec.constant is not None:
        return resolve_constant(tensor, spec, batched)
    name = (spec.source if spec is not None else None) or tensor.name
    header = source.headers.get(name)
    if header is None:
        raise DataError(
            f"the model's input {tensor.name!r} {_wanted(tensor)} finds no array {name!r} in {source.path}.",
            nearest(name, source.headers) + f" To use another array: data.inputs.{tensor.name}.from.",
        )
    base = InputMap(
        name=tensor.name,
        dtype=tensor.dtype,
        source=name,
        scale=_factor(spec.scale if spec else None),
        offset=_factor(spec.offset if spec else None),
        mean=_factor(spec.mean if spec else None),
        std=_factor(spec.std if spec else None),
    )
    _check_dtype(header, base, source, explicit=spec is not None and spec.dtype is not None)
    return _with_shape(base, tensor, header, source, n, batched)


def _factor(value: float | tuple[float, ...] | list[float] | None) -> Factor:
    if value is None or isinstance(value, (int, float)):
        return None if value is None else float(value)
    return tuple(float(v) for v in value)


def _wanted(tensor: TensorInfo) -> str:
    return f"({tensor.dtype}[{', '.join('?' if d is None else str(d) for d in tensor.shape)}])"


def _check_dtype(header: Header, mapped: InputMap, source: Source, *, explicit: bool) -> None:
    where = (
        f"array {header.name!r} in {source.path} is {header.text}, the model's input {mapped.name!r} is {mapped.dtype}"
    )
    kind = header.dtype.kind
    if is_text(mapped.dtype) != (kind in "US"):
        raise DataError(f"{where}: text and numbers don't convert.", "Store the type that the model takes.")
    if is_text(mapped.dtype):
        return
    try:
        target = np.dtype(mapped.dtype)
    except TypeError:
        target = np.dtype("V1")
    if target.kind not in "biuf":  # bfloat16, float8, int4: known to numpy through other libraries at most
        raise DataError(f"{where}, a type that numpy does not have.", "Export the model with a float32 input.")
    if kind not in "biuf":
        raise DataError(f"{where}: {header.dtype.name} values can't feed it.", "Store numbers.")
    example = f"{{from: {header.name}, dtype: {mapped.dtype}}}"
    hint = f"If the conversion is meant, write data.inputs.{mapped.name}: {example}."
    if mapped.calculates and target.kind != "f" and not explicit:
        raise DataError(f"{where}: scale, offset, mean or std would be rounded to whole numbers.", hint)
    if not mapped.calculates and not explicit and not np.can_cast(header.dtype, target, "safe"):
        raise DataError(f"{where}: not a safe cast.", hint)
    if mapped.std is not None and np.any(np.asarray(mapped.std) == 0):
        raise DataError(f"data.inputs.{mapped.name}.std holds a zero, by which values would be divided.")


def _with_shape(
    mapped: InputMap, tensor: TensorInfo, header: Header, source: Source, n: int, batched: bool
) -> InputMap:
    """``mapped`` as a per-sample or a shared input, whichever the array's shape says."""
    shape, wanted = header.shape, tensor.shape
    if shape[:1] == (n,):
        pad, item = _padding(shape[1:], wanted[1:] if batched else wanted)
        if pad is not None and (wanted or not batched):
            return _with_axis(_replace(mapped, pad=pad), item, len(wanted), batched)
    elif _is_shared(header, wanted, batched):
        varying = any(not isinstance(d, int) for d in wanted)
        fixed = shape if wanted else ()
        return _with_axis(_replace(mapped, shared=True, varying=varying, shape=fixed), fixed, len(wanted), False)
    raise DataError(_shape_problem(tensor, header, source, n, batched), _shape_hint(tensor, header, n, batched))


def _is_shared(header: Header, wanted: tuple[int | str | None, ...], batched: bool) -> bool:
    """True for an array that fits the model's input as it is, or one value where the input is a scalar."""
    if not wanted:
        return int(np.prod(header.shape, dtype=np.int64)) == 1
    # A free first dimension of batched data is the batch: 59 rows there are 59 samples, not a constant.
    follows_batch = batched and not isinstance(wanted[0], int) and header.shape[:1] != (1,)
    return fits(header.shape, wanted) and not follows_batch


def _padding(item: tuple[int, ...], wanted: tuple[int | str | None, ...]) -> tuple[int | None, tuple[int, ...]]:
    """Trailing 1-dimensions that make a scalar per sample fit, and the item's shape with them; None = doesn't fit."""
    if fits(item, wanted):
        return 0, item
    if item == () and wanted and all(d == 1 or not isinstance(d, int) for d in wanted):
        return len(wanted), (1,) * len(wanted)
    return None, item


def _replace(mapped: InputMap, **changes: object) -> InputMap:
    return InputMap.from_json({**mapped.to_json(), **changes})


def _with_axis(mapped: InputMap, item: tuple[int, ...], rank: int, batched: bool) -> InputMap:
    """Where per-channel factors lie: axis 1 of the model input (rank >= 3), else the last one that has that length."""
    factors: Mapping[str, Factor] = {k: getattr(mapped, k) for k in ("scale", "offset", "mean", "std")}
    lengths = {len(f) for f in factors.values() if isinstance(f, tuple)}
    if not lengths:
        return mapped
    full = (-1, *item) if batched else item
    candidates = [1, rank - 1] if rank >= 3 else [rank - 1]
    for axis in candidates:
        if 0 <= axis < len(full) and lengths == {full[axis]}:
            return _replace(mapped, axis=axis - len(full))
    raise DataError(
        f"data.inputs.{mapped.name} gives {', '.join(map(str, sorted(lengths)))} values a channel,"
        f" but a sample of {mapped.source!r} has the shape {list(item)}.",
        "Give one number, or one for each index of the channel axis (axis 1 of the model's input, else the last).",
    )


def _shape_problem(tensor: TensorInfo, header: Header, source: Source, n: int, batched: bool) -> str:
    what = f"array {header.name!r} in {source.path} is {header.text}"
    if header.shape[:1] != (n,):
        length = f"it has {counted(header.shape[0], 'sample')}" if header.shape else "it is a single number"
        others = [repr(h.name) for h in source.headers.values() if h.shape[:1] == (n,)]
        have = "has" if len(others) == 1 else "have"
        return f"{what}: {length}, but {' and '.join(others)} in the same file {have} {n}."
    rest = "after the sample dimension" if batched else "without its sample dimension"
    return f"{what}: {rest} it does not fit the model's input {tensor.name!r} {_wanted(tensor)}."


def _shape_hint(tensor: TensorInfo, header: Header, n: int, batched: bool) -> str:
    if header.shape[:1] != (n,):
        return (
            "Arrays with an entry a sample need the same first dimension; one that is the same for all samples needs "
            f"the shape of the model's input {tensor.name!r} {_wanted(tensor)}."
        )
    if batched and fits(header.shape[1:], tensor.shape):
        return "If the model takes one sample a run, set data.batched: false."
    if not batched and fits(header.shape[1:], tensor.shape[1:]):
        return "If the model takes a batch of samples, drop data.batched: false."
    return "Store it in the model's shape, or convert it with data.preprocess."
