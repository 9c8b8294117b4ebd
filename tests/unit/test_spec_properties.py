"""Properties of the spec's parser that hold for any input."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from autopilot.budget import parse_fraction
from autopilot.contracts import Axis, Stage
from autopilot.errors import BadInput, SpecError
from autopilot.spec import Vocabulary, format_duration, load_spec, parse_duration, parse_spec

AXES = ("latency_p50_ms", "size_mb", "throughput_rps")
TOP = ["name", "model", "data", "metric", "budget", "objective", "margin", "traffic", "target", "space", "search"]
TOP += ["version", "rationale", "audit"]
INNER = ["validation", "test", "label", "inputs", "batched", "preprocess", "trials", "timeout", "seed", "providers"]
INNER += ["threads", "scenario", "rate_rps", "arrivals", "max", "min", "function", "direction", "from", "scale", "code"]
KEYS = [*TOP, *INNER]
WORDS = [
    *KEYS,
    *AXES,
    "accuracy",
    "cpu",
    "model.onnx",
    "valid.npz",
    "60% of baseline",
    "5%",
    "15m",
    "",
    "server",
    "warn",
]


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A folder with the files that specs here name."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("model.onnx", "valid.npz", "cpu.yaml"):
            (Path(folder) / name).write_text("")
        yield Path(folder)


def vocabulary(home: Path) -> Vocabulary:
    def axis(name: str) -> Axis | None:
        return Axis(name, name == "throughput_rps", Stage.LATENCY, "") if name in AXES else None

    return Vocabulary(axis, AXES, ("accuracy",), ("cpu",), home)


def good() -> dict[str, Any]:
    return {
        "name": "demo",
        "model": "model.onnx",
        "data": {"validation": "valid.npz"},
        "metric": "accuracy",
        "budget": {"latency_p50_ms": "60% of baseline"},
    }


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(WORDS), st.text(max_size=8), st.dates()
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.sampled_from(WORDS), st.text(max_size=4)), inner, max_size=4),
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(TOP), values, max_size=6))
def test_any_change_of_a_spec_gives_a_problem_or_bad_input(home: Path, changes: dict[str, Any]) -> None:
    """Nothing that a mapping can hold leads to any other exception."""
    problem = None
    with suppress(BadInput):
        problem = parse_spec(good() | changes, home, vocabulary(home))

    assert problem is None or len(problem.digest) == 64


@given(st.one_of(values.map(yaml.safe_dump), st.text(), st.binary()))
def test_any_file_gives_a_problem_or_bad_input(home: Path, content: str | bytes) -> None:
    """Nothing that a file can hold leads to any other exception."""
    path = home / "spec.yaml"
    path.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)

    with pytest.raises(BadInput, match=r"spec\.yaml"):
        load_spec(path, vocabulary(home))


@given(st.text(min_size=1, max_size=12).filter(lambda key: key not in TOP), values)
def test_any_unknown_key_is_refused(home: Path, key: str, value: Any) -> None:
    """No key is ever ignored."""
    with pytest.raises(SpecError):
        parse_spec(good() | {key: value}, home, vocabulary(home))


@given(st.integers(min_value=1, max_value=10**7))
def test_whole_seconds_survive_formatting(seconds: int) -> None:
    """A duration that is shown can be typed again."""
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.floats(min_value=1e-3, max_value=1e9))
def test_bare_number_is_seconds(seconds: float) -> None:
    """A number means seconds, whatever its size."""
    assert math.isclose(parse_duration(f"{seconds:.6f}"), seconds, abs_tol=1e-6)


@given(st.integers(0, 20), st.integers(0, 100), st.integers(0, 100), st.integers(1, 100))
def test_units_add_up(days: int, hours: int, minutes: int, seconds: int) -> None:
    """Days, hours, minutes and seconds are summed, spaces or not."""
    expected = days * 86400 + hours * 3600 + minutes * 60 + seconds

    assert parse_duration(f"{days}d{hours}h{minutes}m{seconds}s") == expected
    assert parse_duration(f" {days}d {hours}h {minutes}m {seconds} ") == expected


@given(st.one_of(st.text(), st.none(), st.booleans(), st.lists(st.integers()), st.floats(), st.integers()))
def test_anything_else_is_no_duration(raw: object) -> None:
    """What is read is a positive finite number of seconds; all else is a ValueError."""
    seconds = 1.0
    with suppress(ValueError):
        seconds = parse_duration(raw)

    assert 0 < seconds < math.inf


@given(st.integers(0, 9999))
def test_percentages_survive_formatting(hundredths: int) -> None:
    """5% is 0.05, for every share below one."""
    assert math.isclose(parse_fraction(f"{hundredths / 100:g}%"), hundredths / 10000)
    assert math.isclose(parse_fraction(hundredths / 10000), hundredths / 10000)


@given(st.integers(1, 500))
def test_relative_limits_survive_the_spec(home: Path, percent: int) -> None:
    """The share in the budget is the share that was written."""
    raw = good() | {"budget": {"latency_p50_ms": f"{percent}% of baseline"}}

    limit = parse_spec(raw, home, vocabulary(home)).budget.limits[0]

    assert limit.relative
    assert math.isclose(limit.bound, percent / 100)
    assert limit.text == f"<= {percent}% of baseline"


FULL: dict[str, Any] = {
    **good(),
    "data": {
        "validation": "valid.npz",
        "test": "valid.npz",
        "label": "y",
        "batched": True,
        "inputs": {
            "x": {"from": "a", "dtype": "float32", "scale": [1.0], "mean": 0},
            "h": {"constant": 0, "shape": [1]},
        },
    },
    "metric": {"name": "accuracy", "threshold": 0.5, "blank": 0},
    "budget": {"latency_p50_ms": {"max": 3, "margin": "5%"}, "size_mb": 3},
    "traffic": {"scenario": "server", "rate_rps": 3, "arrivals": "poisson"},
    "target": {"providers": ["cpu"], "threads": 2, "price_per_hour": 0.1},
    "search": {"trials": 3, "timeout": "5m", "seed": 1, "memory_limit_mb": 3, "step_timeout": 3, "measure_cap": 3},
}


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a nested value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([at] if at else []), *(p for key, item in inner for p in paths(item, (*at, key)))]


@given(st.sampled_from(paths(FULL)), values)
def test_any_one_wrong_value_gives_a_problem_or_bad_input(home: Path, at: tuple[Any, ...], value: Any) -> None:
    """A whole spec with one value replaced anywhere is read or refused, and never anything else."""
    raw = copy.deepcopy(FULL)
    place = raw
    for key in at[:-1]:
        place = place[key]
    place[at[-1]] = value

    problem = None
    with suppress(BadInput):
        problem = parse_spec(raw, home, vocabulary(home))

    assert problem is None or len(problem.digest) == 64
