"""Time by operator: what is read out of the runtime's profile, and how it adds up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopilot.bench.operator_child import FEWEST_REQUESTS, MOST_REQUESTS, requests_for
from autopilot.errors import Unsupported
from autopilot.profile import OperatorCost, OperatorTable
from autopilot.providers._ort_profile import NodeRun, costs_of, read_profile

CPU = "CPUExecutionProvider"


def event(op: str, start: int, took: int, types: list[str], *, thread: int = 1, provider: str = CPU) -> dict[str, Any]:
    """A node's event as ONNX Runtime 1.32 writes it."""
    args = {"op_name": op, "provider": provider, "input_type_shape": [{t: [1, 4]} for t in types], "node_index": "0"}
    return {"cat": "Node", "pid": 9, "tid": thread, "dur": took, "ts": start, "name": f"{op}_kernel_time", "args": args}


def request(start: int, took: int) -> dict[str, Any]:
    return {"cat": "Session", "pid": 9, "tid": 1, "dur": took, "ts": start, "name": "model_run", "args": {}}


def write(path: Path, events: list[dict[str, Any]]) -> Path:
    """One event a line, with the runtime's own spacing."""
    lines = ",\n".join(json.dumps(e, separators=(",", " :")) for e in events)
    path.write_text(f"[\n{lines}\n]\n")
    return path


def node(op: str, start: int, took: int, thread: int = 1) -> NodeRun:
    return NodeRun(op, CPU, "float32", "", thread, start, took)


def test_warm_up_is_left_out(tmp_path: Path) -> None:
    """Only the last requests count, whatever the first one cost."""
    events = []
    for i, took in enumerate((5000, 10, 30)):
        start = 10_000 * i
        events += [event("Conv", start + 1, took, ["float", "float"]), request(start, took + 5)]
    rows = read_profile(write(tmp_path / "p.json", events), 2)

    assert [(r.operator, r.provider, r.dtype, r.count) for r in rows] == [("Conv", CPU, "float32", 1.0)]
    assert rows[0].seconds == pytest.approx(20e-6)


def test_types_tell_int8_from_float(tmp_path: Path) -> None:
    """The first input's type, and that of the weights where they are narrower; converting nodes have no weights."""
    events = [
        request(0, 100),
        event("QuantizeLinear", 1, 4, ["float", "float", "uint8"]),
        event("QLinearConv", 10, 30, ["uint8", "float", "uint8", "int8", "float", "int8", "float", "uint8", "int32"]),
        event("DynamicQuantizeMatMul", 50, 20, ["float", "int8", "float", "int8"]),
        event("Gather", 80, 2, ["uint8", "int64"]),
        event("Conv", 85, 9, ["float16"]),
    ]
    rows = {r.operator: (r.dtype, r.weights) for r in read_profile(write(tmp_path / "p.json", events), 1)}

    assert rows == {
        "QuantizeLinear": ("float32", ""),
        "QLinearConv": ("uint8", "int8"),
        "DynamicQuantizeMatMul": ("float32", "int8"),
        "Gather": ("uint8", ""),
        "Conv": ("float16", ""),
    }


def test_rows_are_kept_apart_by_provider_and_type(tmp_path: Path) -> None:
    """A node that fell back is a row of its own."""
    events = [
        request(0, 100),
        event("Conv", 1, 30, ["float"], provider="CUDAExecutionProvider"),
        event("Conv", 40, 5, ["float"]),
        event("Conv", 50, 3, ["float16"]),
        event("Conv", 55, 4, ["float16"]),
    ]
    rows = read_profile(write(tmp_path / "p.json", events), 1)

    assert [(r.provider, r.dtype, r.count) for r in rows] == [
        ("CUDAExecutionProvider", "float32", 1.0),
        (CPU, "float16", 2.0),
        (CPU, "float32", 1.0),
    ]
    assert OperatorTable(rows, 1).by_provider() == pytest.approx({"CUDAExecutionProvider": 30 / 42, CPU: 12 / 42})


def test_control_flow_counts_its_own_time_only() -> None:
    """The time of an If holds that of its branch, a Loop's that of every turn, nested ones too."""
    runs = [
        node("Loop", 0, 100),
        node("If", 10, 50),
        node("MatMul", 12, 30),
        node("MatMul", 70, 20),
        node("Relu", 110, 7),
        node("Tanh", 20, 40, thread=2),
    ]
    micros = {r.operator: round(r.seconds * 1e6) for r in costs_of(runs, 1)}

    assert micros == {"Loop": 30, "If": 20, "MatMul": 50, "Relu": 7, "Tanh": 40}


def test_profile_with_fewer_requests_is_refused(tmp_path: Path) -> None:
    """The runtime stops recording after a million events: a part would not be what was asked for."""
    path = write(tmp_path / "p.json", [request(0, 5), event("Conv", 1, 2, ["float"])])

    with pytest.raises(Unsupported, match="1 of 2 requests"):
        read_profile(path, 2)


@pytest.mark.parametrize("text", ['{"name" :"model_run"', '[\n{"cat": "Session", "name" :"model_run"},\n]', "[1]"])
def test_damaged_profile_is_refused(tmp_path: Path, text: str) -> None:
    """A cut file, missing fields, another shape: an error of ours."""
    path = tmp_path / "p.json"
    path.write_text(text)

    with pytest.raises(Unsupported, match="profile"):
        read_profile(path, 1)


runs = st.lists(
    st.tuples(st.sampled_from(["Conv", "MatMul", "Relu"]), st.integers(0, 50), st.integers(1, 3)), min_size=1
)


@given(runs, st.integers(1, 9))
def test_no_time_is_lost_or_counted_twice(found: list[tuple[str, int, int]], requests: int) -> None:
    """Without control flow the rows add up to the nodes, and shares to 1."""
    nodes = [node(op, 1000 * i, took, thread) for i, (op, took, thread) in enumerate(found)]
    table = OperatorTable(costs_of(nodes, requests), requests)

    total_us = sum(took for _, took, _ in found)
    assert table.total_s * requests == pytest.approx(total_us / 1e6)
    assert sum(row.count for row in table.rows) * requests == pytest.approx(len(found))
    if total_us:
        assert sum(table.share(row) for row in table.rows) == pytest.approx(1.0)
        assert table.by_provider() == {CPU: 1.0}


def test_covered_is_the_operators_time_over_the_latency() -> None:
    """What lies between nodes isn't any operator's."""
    rows = (OperatorCost("Conv", CPU, "float32", 2.0, 0.003), OperatorCost("Relu", CPU, "float32", 1.0, 0.001))

    assert OperatorTable(rows, 50, 1, 0.005).covered == pytest.approx(0.8)
    assert OperatorTable(rows, 50).covered is None


def test_table_without_time_has_no_shares() -> None:
    """Nodes below the clock's microsecond take no time that is known."""
    table = OperatorTable((OperatorCost("Relu", CPU, "float32", 1.0, 0.0),), 50)

    assert table.by_provider() == {}
    assert table.share(table.rows[0]) == 0.0


def test_table_survives_json() -> None:
    """As it stands in result.json."""
    rows = (OperatorCost("QLinearConv", CPU, "uint8", 2.0, 0.0031, "int8"),)
    table = OperatorTable(rows, 57, 4, 0.0047)

    assert OperatorTable.from_json(json.loads(json.dumps(table.to_json()))) == table


@given(st.integers(0, 10**7))
def test_number_of_profiled_requests_is_bounded(nodes: int) -> None:
    """A large graph fills the profile faster."""
    assert FEWEST_REQUESTS <= requests_for(nodes) <= MOST_REQUESTS
