"""Which keys a spec has and what kind of value each takes, as pydantic models.

What a value means (a limit, a path, a name) is decided in ``parse``; keys that take several forms
are ``Any`` here.
"""

from __future__ import annotations

import re
import typing
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from autopilot.spec.source import KeyPath, Source, dotted, nearest, short

Text = Annotated[StrictStr, Field(min_length=1)]
Number = StrictInt | StrictFloat
Figures = Number | Annotated[list[Number], Field(min_length=1)]
Positive = Annotated[Number, Field(gt=0)]
# numpy's names; bfloat16 has none there, and strings are not numbers.
Dtype = Literal[
    "float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool"
]  # fmt: skip


class Shape(BaseModel):
    """Base: unknown keys are refused, and nothing is converted in silence."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=False)


class InputShape(Shape):
    source: Text | None = Field(None, alias="from")
    dtype: Dtype | None = None
    scale: Figures | None = None
    offset: Figures | None = None
    mean: Figures | None = None
    std: Figures | None = None
    constant: Any = None
    shape: list[Annotated[StrictInt, Field(ge=1)]] | None = None


class DataShape(Shape):
    validation: Text
    test: Text | None = None
    train: Text | None = None
    label: Text = "label"
    inputs: dict[str, InputShape] = Field(default_factory=dict)
    batched: StrictBool = True
    preprocess: Text | None = None
    postprocess: Text | None = None


class MetricShape(Shape):
    name: Text | None = None
    function: Text | None = None
    direction: Literal["maximize", "minimize"] | None = None
    output: Text | None = None
    threshold: Number | None = None
    blank: StrictInt | None = None
    pad: StrictInt | None = None


class BurstShape(Shape):
    on_s: Positive = 0.2
    off_s: Positive = 0.3


class TrafficShape(Shape):
    scenario: Literal["single_stream", "offline", "server"] = "single_stream"
    rate_rps: Positive | None = None
    arrivals: Text = "poisson"
    burst: BurstShape = BurstShape()
    period_s: Positive = 10.0


class TargetShape(Shape):
    providers: Annotated[list[Text], Field(min_length=1)] = ["cpu"]
    threads: Annotated[StrictInt, Field(ge=1)] | None = None
    price_per_hour: Positive | None = None

    @field_validator("providers", mode="before")
    @classmethod
    def _one_provider(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class SearchShape(Shape):
    trials: Annotated[StrictInt, Field(ge=1)] = 60
    timeout: Any = "15m"
    # numpy's generators and Optuna's samplers take 32 bits.
    seed: Annotated[StrictInt, Field(ge=0, lt=2**32)] = 0
    memory_limit_mb: Positive | None = None
    step_timeout: Any = "10m"
    measure_cap: Any = "30s"
    storage: Text | None = None


class SpecShape(Shape):
    name: Text
    model: Any
    data: DataShape
    metric: Any
    budget: Annotated[dict[str, Any], Field(min_length=1)]
    objective: Any = None
    margin: Any = 0.0
    traffic: TrafficShape = TrafficShape()
    target: TargetShape = TargetShape()
    space: Text = "cpu"
    search: SearchShape = SearchShape()
    audit: Literal["fail", "warn"] = "fail"
    version: Annotated[StrictInt, Field(ge=0)] | None = None
    rationale: StrictStr = ""

    @field_validator("traffic", mode="before")
    @classmethod
    def _scenario_alone(cls, value: Any) -> Any:
        return {"scenario": value} if isinstance(value, str) else value


S = TypeVar("S", bound=Shape)


def checked(shape: type[S], raw: Any, source: Source, at: KeyPath = ()) -> S:
    """``raw`` as ``shape``; ``at`` is where it stands in the spec.

    Raises:
        SpecError: the first thing that is wrong, by line.
    """
    try:
        return shape.model_validate(raw)
    except ValidationError as exc:
        found = [(e["type"], e.get("ctx", {}), _path(raw, e)) for e in exc.errors(include_url=False)]
    # Unknown keys first: a misspelt key is also a missing one, and the spelling is the cause.
    kind, _, path = min(found, key=lambda f: (f[0] != "extra_forbidden", source.line((*at, *f[2]))))
    shown = dotted((*at, *path)) or "the spec"
    if kind == "extra_forbidden":
        raise source.error((*at, *path), f"unknown key {shown!r}", nearest(path[-1], _keys(shape, path[:-1])))
    if kind == "missing":
        raise source.error((*at, *path), f"the key {shown!r} is missing", _MISSING.get(shown, ""))
    value = _value(raw, path)
    same = [(k, ctx) for k, ctx, p in found if p == path]
    hint = "Put it in quotes." if kind == "string_type" and isinstance(value, (bool, int, float)) else ""
    if kind == "literal_error":
        hint = nearest(value, _quoted(same[0][1]))
    expected = _expected(same, shape, path)
    raise source.error((*at, *path), f"{shown} should be {expected}, not {_shown(value)}", hint)


_MISSING = {
    "name": "It names the MLflow experiment and the registered model: name: my-model.",
    "model": "Name the model file: model: model.onnx.",
    "data": "Name the validation samples: data: {validation: valid.npz}.",
    "data.validation": "Name the samples to score variants on: validation: valid.npz.",
    "metric": "Name one, such as accuracy; without labels, agreement.",
    "budget": "Set at least one limit, such as latency_p50_ms: 60% of baseline.",
}


def _path(raw: Any, error: ErrorDetails) -> KeyPath:
    """The key that pydantic complains about, without the names it gives to members of a union."""
    out: list[str | int] = []
    names_a_key = error["type"] in ("extra_forbidden", "missing")
    for i, part in enumerate(error["loc"]):
        last = i == len(error["loc"]) - 1
        if isinstance(raw, dict) and (part in raw or (last and names_a_key)):
            out.append(part)
            raw = raw.get(part)
        elif isinstance(raw, list) and isinstance(part, int) and part < len(raw):
            out.append(part)
            raw = raw[part]
    return tuple(out)


def _value(raw: Any, path: KeyPath) -> Any:
    for part in path:
        raw = raw[part]
    return raw


def _shown(value: Any) -> str:
    if value is None:
        return "left empty"
    if isinstance(value, bool):
        return "true" if value else "false"
    return short(value)


def _quoted(context: dict[str, Any]) -> list[str]:
    """The words of a Literal, out of pydantic's "'a', 'b' or 'c'"."""
    return re.findall(r"'([^']*)'", str(context.get("expected", "")))


def _expected(errors: list[tuple[str, dict[str, Any]]], shape: type[Shape], path: KeyPath) -> str:
    """What would be right, from all complaints about one key."""
    kinds = {kind for kind, _ in errors}
    context: dict[str, Any] = {}
    for _, one in errors:
        context |= one
    for kind, text in (("greater_than", "above {gt}"), ("greater_than_equal", "at least {ge}")):
        if kind in kinds:
            return text.format(**context)
    if "less_than" in kinds:
        return f"below {context['lt']}"
    if "literal_error" in kinds:
        return "one of " + ", ".join(_quoted(context))
    if kinds & {"model_type", "model_attributes_type"}:
        return "a mapping with some of the keys " + ", ".join(_keys(shape, path))
    words = [word for kind, word in _WORDS.items() if kind in kinds]
    if "float_type" in kinds and "a whole number" in words:
        words.remove("a whole number")
    return " or ".join(words) or "something else"


_WORDS = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "string_too_short": "text that is not empty",
    "bool_type": "true or false",
    "list_type": "a list",
    "too_short": "at least one entry",
    "dict_type": "a mapping of names to values",
}


def _keys(shape: type[Shape], path: KeyPath) -> list[str]:
    """The keys that the mapping at ``path`` may have."""
    for part in path:
        inner = next((f for key, f in _fields(shape) if key == part), None)
        found = _shape_in(inner.annotation) if inner is not None else None
        # A name of the user's own (an input's) stands between a mapping of shapes and the shape.
        shape = found or shape
    return [key for key, _ in _fields(shape)]


def _fields(shape: type[Shape]) -> list[tuple[str, FieldInfo]]:
    return [(info.alias or name, info) for name, info in shape.model_fields.items()]


def _shape_in(annotation: Any) -> type[Shape] | None:
    if isinstance(annotation, type) and issubclass(annotation, Shape):
        return annotation
    inner = (_shape_in(argument) for argument in typing.get_args(annotation))
    return next((found for found in inner if found is not None), None)
