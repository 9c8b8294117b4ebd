"""Measurements, intervals and verdicts as result.json holds them, and back.

JSON has no NaN and no infinity: a bound of an interval that is unbounded is written as null and
read back as infinite; a bound that was never taken is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from autopilot.budget import Judgement, Verdict
from autopilot.profile import Interval, Measurement


def plain(value: Any) -> Any:
    """``value`` as JSON can hold it: numpy scalars and paths converted, non-finite numbers as None.

    >>> plain({"a": float("inf"), "b": (1, 2)})
    {'a': None, 'b': [1, 2]}
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    return str(value)


def _low(value: Any) -> float:
    return -math.inf if value is None else float(value)


def _high(value: Any) -> float:
    return math.inf if value is None else float(value)


def interval_to_json(interval: Interval | None) -> dict[str, float | None] | None:
    """An interval with unbounded sides as null; None when its value is no number."""
    if interval is None or not math.isfinite(interval.value):
        return None
    value: dict[str, float | None] = plain(interval.to_json())
    return value


def interval_from_json(value: Mapping[str, Any] | None) -> Interval | None:
    """The inverse of ``interval_to_json``; null bounds become infinite."""
    return Interval(float(value["value"]), _low(value["low"]), _high(value["high"])) if value else None


def measurement_to_json(measured: Measurement) -> dict[str, Any]:
    """A measurement without NaN or infinity: what is no number has no value, but a reason."""
    if measured.value is not None and not math.isfinite(measured.value):
        measured = Measurement.missing(measured.axis, measured.reason or f"the reading was {measured.value}")
    out: dict[str, Any] = plain(measured.to_json())
    for bound in ("low", "high"):
        if bound in out and getattr(measured, bound) is None:
            del out[bound]
    if "ratio" in out:
        out["ratio"] = interval_to_json(measured.ratio)
    if measured.reason:
        out["reason"] = measured.reason
    return out


def measurement_from_json(axis: str, value: Mapping[str, Any]) -> Measurement:
    """The inverse of ``measurement_to_json``."""
    return Measurement(
        axis,
        value["value"],
        _low(value["low"]) if "low" in value else None,
        _high(value["high"]) if "high" in value else None,
        int(value.get("n", 0)),
        str(value.get("how", "")),
        interval_from_json(value.get("ratio")),
        str(value.get("reason", "")),
    )


def measured_to_json(measured: Mapping[str, Measurement]) -> dict[str, Any]:
    return {axis: measurement_to_json(m) for axis, m in measured.items()}


def measured_from_json(value: Mapping[str, Any]) -> dict[str, Measurement]:
    return {axis: measurement_from_json(axis, m) for axis, m in value.items()}


def verdict_to_json(verdict: Verdict | None) -> dict[str, Any]:
    """``verdict`` holds the limits alone (the contract of result.json); the rest stands beside it."""
    if verdict is None:
        return {"verdict": {}, "overall": None, "violations": {}}
    finite = {axis: v for axis, v in plain(verdict.violations).items() if v is not None}
    limits = {axis: j.value for axis, j in verdict.per_limit.items()}
    return {"verdict": limits, "overall": verdict.overall.value, "violations": finite}


def verdict_from_json(value: Mapping[str, Any]) -> Verdict | None:
    if value.get("overall") is None:
        return None
    limits = {axis: Judgement(j) for axis, j in value["verdict"].items()}
    return Verdict(Judgement(value["overall"]), limits, {k: float(v) for k, v in value["violations"].items()})
