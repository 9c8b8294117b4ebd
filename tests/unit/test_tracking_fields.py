"""What of a result becomes a table in MLflow."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autopilot.profile import OperatorCost, OperatorTable
from autopilot.result import Status
from autopilot.testing import fake_result
from autopilot.tracking.fields import operator_table

TABLE = OperatorTable(
    (
        OperatorCost("QLinearConv", "CPU", "uint8", 2.0, 0.003, "int8"),
        OperatorCost("Relu", "CPU", "float32", 1.0, 0.001),
    ),
    50,
)


@pytest.mark.parametrize(("status", "name"), [(Status.IN_BUDGET, "best"), (Status.NO_FIT, "nearest")])
def test_operators_of_both_sides_are_one_table(status: Status, name: str) -> None:
    """A row an operator, named by the variant that it belongs to; shares are of that variant."""
    result = fake_result(status)
    assert result.chosen is not None
    chosen = replace(result.chosen, operators=TABLE)
    result = replace(result, baseline=replace(result.baseline, operators=TABLE), **{name: chosen})
    table = operator_table(result)

    assert [row[0] for row in table["data"]] == ["baseline", "baseline", name, name]
    first = dict(zip(table["columns"], table["data"][0], strict=True))
    assert first["operator"] == "QLinearConv"
    assert (first["time_ms"], first["share"]) == pytest.approx((3.0, 0.75))


def test_result_without_operators_has_an_empty_table() -> None:
    """A provider without a profiler: nothing is logged."""
    assert operator_table(fake_result())["data"] == []
