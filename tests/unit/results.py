"""A finished study as result.json holds it, for tests of tables and commands."""

from __future__ import annotations

from typing import Any


def measured(value: float | None, low: float = 0.0, high: float = 0.0, **more: Any) -> dict[str, Any]:
    """One measurement."""
    if value is None:
        return {"value": None, "reason": "no RAPL counter"}
    return {"value": value, "low": low, "high": high, "n": 2048, "how": "timed", **more}


RATIO = {"ratio": {"value": 0.41, "low": 0.40, "high": 0.43}}
LIMITS = {
    "latency_p99_ms": {"max": 2.0, "relative": False, "margin": 0.02, "text": "<= 2"},
    "latency_p50_ms": {"max": 0.6, "relative": True, "margin": 0.02, "text": "<= 60% of baseline"},
    "quality_drop": {"max": 0.01, "relative": False, "margin": 0.02, "text": "<= 0.01"},
    "energy_mj": {"max": 5.0, "relative": False, "margin": 0.02, "text": "<= 5"},
}


def candidate(verdict: str, artifact: str) -> dict[str, Any]:
    """The winner or the nearest miss."""
    return {
        "id": "abcdef012345",
        "number": 7,
        "recipe": [{"technique": "static_int8", "per_channel": True, "activations": "uint8"}],
        "deployment": {"provider": "cpu", "threads": 1, "batch": 1, "spinning": False},
        "artifact": artifact,
        "sha256": "5" * 64,
        "measured": {
            "latency_p99_ms": measured(0.81, 0.79, 0.84),
            "latency_p50_ms": measured(0.4181, 0.41, 0.43, **RATIO),
            "quality_drop": measured(0.001, -0.002, 0.004),
            "quality": measured(0.934, 0.93, 0.94),
            "energy_mj": measured(None),
        },
        "verdict": dict.fromkeys(LIMITS, "in") | {"latency_p99_ms": verdict, "energy_mj": "not_measurable"},
        "overall": verdict,
        "violations": {},
        "speedup": {"value": 2.51, "low": 2.44, "high": 2.58},
    }


def result(status: str = "in_budget", **changes: Any) -> dict[str, Any]:
    """A whole result; ``nearest`` takes the winner's place when the budget is not met."""
    best = candidate("in", "best/model.onnx") if status == "in_budget" else None
    nearest = None if best else candidate("out", "nearest/model.onnx")
    baseline = candidate("out", "model.onnx") | {"id": "fedcba543210", "recipe": [], "speedup": None, "number": 0}
    baseline["measured"] = {"latency_p50_ms": measured(1.02, 1.0, 1.05), "quality": measured(0.935, 0.93, 0.94)}
    whole = {
        "schema": 1,
        "status": status,
        "name": "fashion-cpu",
        "objective": "latency_p50_ms",
        "baseline": baseline,
        "best": best,
        "nearest": nearest,
        "pareto": [],
        "trials": [],
        "explanation": "The nearest miss misses latency_p99_ms <= 2 at 2.3; a limit of 2.4 would admit it.",
        "budget": LIMITS,
        "budget_version": None,
        "rationale": None,
        "environment": {},
        "warnings": [],
        "elapsed_s": 183.0,
        "mlflow": {
            "tracking_uri": "sqlite:///mlruns/mlflow.db",
            "experiment": "fashion-cpu",
            "run_id": "0" * 32,
            "model": "fashion-cpu",
            "version": 2,
        },
    }
    return whole | changes
