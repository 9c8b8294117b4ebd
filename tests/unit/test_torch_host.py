"""Arithmetic on shapes while a converted model runs: as ONNX specifies it for small int64 tensors."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from autopilot.torch_model import host


def test_shape_and_size_are_numbers() -> None:
    """Of all dimensions or of some."""
    x = SimpleNamespace(shape=(2, 3, 4))

    assert host.sizes(x) == [2, 3, 4]
    assert host.sizes(x, 1) == [3, 4]
    assert host.sizes(x, -2, -1) == [3]
    assert host.size(x) == 24


def test_picking_and_joining() -> None:
    """Gather, Slice, Concat, Squeeze and Unsqueeze on one axis."""
    assert host.gather([2, 3, 4], 1) == 3
    assert host.gather([2, 3, 4], [0, -1]) == [2, 4]
    assert host.take([2, 3, 4], 1, 2**63 - 1) == [3, 4]
    assert host.take([2, 3, 4], -(2**63), -2) == [2]
    assert host.concat([2], [3, 4]) == [2, 3, 4]
    assert (host.unsqueeze(3), host.unsqueeze([3])) == ([3], [3])
    assert (host.squeeze([3]), host.squeeze(3)) == (3, 3)


@pytest.mark.parametrize(
    ("op", "a", "b", "expected"),
    [
        ("Add", 2, 3, 5),
        ("Sub", [5, 6], 1, [4, 5]),
        ("Mul", [2, 3], [4, 5], [8, 15]),
        ("Div", 7, 2, 3),
        ("Mod", [7, 8], [4], [3, 0]),
        ("Equal", [1, -1], -1, [False, True]),
        ("Max", 3, [1, 4], [3, 4]),
        ("Min", 3, 2, 2),
    ],
)
def test_elementwise_arithmetic_spreads_single_numbers(op: str, a: host.Host, b: host.Host, expected: object) -> None:
    """Numbers with numbers, lists with lists, one number with a list."""
    assert host.binary(op, a, b) == expected


def test_choosing() -> None:
    """Where on shapes: the usual way of writing "this dimension unless it is -1"."""
    assert host.where([True, False], 1, [5, 6]) == [1, 6]
    assert host.where(False, 1, 2) == 2
    assert host.product([2, 3, 4]) == 24
