"""The ``data:`` and ``metric:`` parts of a spec."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autopilot.spec.context import Context
from autopilot.spec.problem import DataSpec, InputSpec, MetricSpec, PerChannel
from autopilot.spec.shape import DataShape, Figures, InputShape, MetricShape, checked
from autopilot.spec.source import KeyPath, dotted, nearest, short

_DATA_SUFFIXES = (".npz", ".parquet")


class DataParser(Context):
    """Samples, inputs, hooks and the metric."""

    def data(self, shape: DataShape) -> DataSpec:
        at = ("data",)
        if shape.inputs and shape.preprocess:
            message = "data.preprocess and data.inputs exclude each other: preprocess makes all model inputs itself"
            raise self.error((*at, "preprocess"), message, "Keep one of them.")
        return DataSpec(
            validation=self.data_file((*at, "validation"), shape.validation),
            test=self.data_file((*at, "test"), shape.test) if shape.test else None,
            train=self.data_file((*at, "train"), shape.train) if shape.train else None,
            label=shape.label,
            inputs={name: self.input((*at, "inputs", name), given) for name, given in shape.inputs.items()},
            batched=shape.batched,
            preprocess=self.hook((*at, "preprocess"), shape.preprocess) if shape.preprocess else None,
            postprocess=self.hook((*at, "postprocess"), shape.postprocess) if shape.postprocess else None,
        )

    def input(self, at: KeyPath, shape: InputShape) -> InputSpec:
        mapped = [k for k in ("source", "scale", "offset", "mean", "std") if getattr(shape, k) is not None]
        if shape.constant is not None:
            if mapped:
                key = "from" if mapped[0] == "source" else mapped[0]
                raise self.error(
                    (*at, key), f"{dotted(at)} is a constant, so {key!r} has no meaning", "Keep one of them."
                )
            if not _numeric(shape.constant):
                message = (
                    f"{dotted(at)}.constant should be a number or nested lists of numbers, not {short(shape.constant)}"
                )
                raise self.error((*at, "constant"), message)
        elif shape.shape is not None:
            raise self.error(
                (*at, "shape"), f"{dotted(at)}.shape belongs to a constant", "Arrays keep their own shape."
            )
        for key, value in (("scale", shape.scale), ("std", shape.std)):
            if value is not None and 0 in (value if isinstance(value, list) else [value]):
                raise self.error((*at, key), f"{dotted(at)}.{key} is 0, which leaves nothing of the input")
        return InputSpec(
            shape.source,
            shape.dtype,
            _channels(shape.scale),
            _channels(shape.offset),
            _channels(shape.mean),
            _channels(shape.std),
            shape.constant,
            tuple(shape.shape) if shape.shape is not None else None,
        )

    def metric(self, raw: Any) -> MetricSpec:
        at: KeyPath = ("metric",)
        if isinstance(raw, str):
            return MetricSpec(self.metric_name(at, raw))
        if not isinstance(raw, Mapping):
            hint = "Write a name such as accuracy, {name: ...} or {function: file.py:score, direction: maximize}."
            raise self.error(at, f"metric should be a name or a mapping, not {short(raw)}", hint)
        shape = checked(MetricShape, raw, self.source, at)
        if (shape.name is None) == (shape.function is None):
            hint = "{name: f1_binary, threshold: 0.3} or {function: file.py:score, direction: maximize}."
            raise self.error(at, "metric needs exactly one of name and function", f"Write {hint}")
        options = {k: v for k in ("threshold", "blank", "pad") if (v := getattr(shape, k)) is not None}
        if shape.name is not None:
            if shape.direction is not None:
                message = f"metric {shape.name} knows its own direction"
                raise self.error((*at, "direction"), message, "direction belongs to a function only.")
            return MetricSpec(self.metric_name((*at, "name"), shape.name), options, shape.output)
        if shape.direction is None:
            raise self.error(
                at, "metric.function needs a direction", "Write direction: maximize or direction: minimize."
            )
        if options:
            key = next(iter(options))
            raise self.error((*at, key), f"metric.{key} has no meaning for a function", "Put it into the function.")
        function = self.hook((*at, "function"), str(shape.function))
        return MetricSpec(function.rpartition(":")[2], {}, shape.output, function, shape.direction)

    def metric_name(self, at: KeyPath, name: str) -> str:
        if name not in self.vocabulary.metric_names:
            raise self.error(at, f"unknown metric {name!r}", nearest(name, self.vocabulary.metric_names))
        return name

    def data_file(self, at: KeyPath, raw: str) -> Path:
        path = self.file(at, raw)
        if path.suffix.lower() not in _DATA_SUFFIXES:
            hint = "Save the arrays with numpy.savez, or as Parquet."
            raise self.error(at, f"{dotted(at)}: {raw} is neither .npz nor .parquet", hint)
        return path


def _numeric(value: Any) -> bool:
    """Whether ``value`` is a number, or nested lists of at least one."""
    if isinstance(value, list):
        return bool(value) and all(_numeric(v) for v in value)
    return isinstance(value, (bool, int, float))


def _channels(value: Figures | None) -> PerChannel | None:
    if value is None:
        return None
    return tuple(float(v) for v in value) if isinstance(value, list) else float(value)
