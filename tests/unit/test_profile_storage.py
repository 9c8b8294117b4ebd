"""Records in an npz file and back: nothing is lost, whatever fields a record has."""

from __future__ import annotations

import collections.abc
import dataclasses
import types
from collections.abc import Mapping
from dataclasses import dataclass, field, make_dataclass
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from autopilot.errors import BadInput
from autopilot.profile import Interval, LatencyReading, Profile
from autopilot.profile.storage import load_record, save_record

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.dictionaries(st.text(max_size=4), inner, max_size=3) | st.lists(inner, max_size=3),
    max_leaves=6,
)
NANOSECONDS = hnp.arrays(np.int64, st.integers(0, 30), elements=st.integers(0, 10**13)).map(lambda a: a / 1e9)


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Values of an annotation, dataclasses with all their fields included: a new field is drawn unasked."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return st.one_of([values_of(h) for h in inner])
    if origin is np.ndarray:
        dtype = np.dtype(get_args(inner[1])[0]) if get_args(inner[1])[0] is not Any else np.dtype(np.float64)
        drawn = hnp.arrays(dtype, hnp.array_shapes(max_dims=2, min_side=0, max_side=9))
        return drawn | NANOSECONDS if dtype == np.float64 else drawn
    if origin is tuple:
        if inner[-1] is Ellipsis:
            return st.lists(values_of(inner[0]), max_size=3).map(tuple)
        return st.tuples(*map(values_of, inner))
    if origin in (dict, collections.abc.Mapping):
        return st.dictionaries(values_of(inner[0]), values_of(inner[1]), max_size=3)
    if dataclasses.is_dataclass(hint):
        hints = get_type_hints(hint)
        return st.builds(hint, **{f.name: values_of(hints[f.name]) for f in dataclasses.fields(hint) if f.init})
    if isinstance(hint, type) and issubclass(hint, Enum):
        return st.sampled_from(list(hint))
    plain = {int: st.integers(), float: st.floats(), str: st.text(max_size=6), bool: st.booleans(), Any: JSON}
    return st.none() if hint is type(None) else plain[hint]


def same(a: Any, b: Any) -> bool:
    """Equal to the last bit and of the same type."""
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    if dataclasses.is_dataclass(a):
        return type(a) is type(b) and all(
            same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(type(a))
        )
    if isinstance(a, Mapping):
        return isinstance(b, Mapping) and list(a) == list(b) and all(same(v, b[k]) for k, v in a.items())
    if isinstance(a, (tuple, list)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or (a != a and b != b))


def there_and_back(record: Any, folder: Path) -> Any:
    """``record`` after it was written and read."""
    save_record(folder / "record.npz", record)
    return load_record(folder / "record.npz", type(record))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(profile=values_of(Profile))
def test_profile_is_the_same_after_the_round_trip(tmp_path: Path, profile: Profile) -> None:
    """Every field that a Profile has, now or later, comes back bit for bit."""
    assert same(profile, there_and_back(profile, tmp_path))


class Kind(StrEnum):
    """A state."""

    ONE = "one"


@dataclass(frozen=True, slots=True)
class Stage:
    """A record that a later version may hang on a profile."""

    kind: Kind
    when: tuple[Interval, ...] = ()
    counts: Mapping[int, float] = field(default_factory=dict)
    either: Interval | LatencyReading | None = None
    flags: Any = None


def test_nested_records_enums_mappings_and_unions_come_back(tmp_path: Path) -> None:
    """What annotations tell apart is told apart."""
    stage = Stage(
        Kind.ONE,
        (Interval(0.0, -0.0, float("inf")),),
        {3: float("nan")},
        Interval(1.0, 2.0, 3.0),
        {"a": (1, [2, {"b": np.array([True, False])}]), "s": frozenset({"x", "y"})},
    )

    assert same(stage, there_and_back(stage, tmp_path))


def test_field_of_a_later_version_is_passed_over_and_a_missing_one_takes_its_default(tmp_path: Path) -> None:
    """A file is read as far as both versions know the same fields."""
    later = make_dataclass("Profile", [("variant", str), ("warp_factor", Any), ("drift", float)], frozen=True)
    save_record(tmp_path / "later.npz", later("v", Stage(Kind.ONE, flags=np.arange(3)), 0.25))

    found = load_record(tmp_path / "later.npz", Profile)

    assert same(found, Profile("v", drift=0.25))


def test_readings_of_a_clock_take_few_bytes(tmp_path: Path) -> None:
    """Nanosecond counts are stored as such: less than half of what the floats take."""
    ns = np.random.default_rng(0).gamma(20, 4000, 20_000).astype(np.int64)
    blocks = np.repeat(np.arange(200, dtype=np.int32), 100)
    walls = np.add.reduceat(ns, np.arange(0, 20_000, 100)) / 1e9
    profile = Profile("v", latency=LatencyReading(ns / 1e9, blocks, walls, walls))

    assert same(profile, there_and_back(profile, tmp_path))
    np.savez_compressed(tmp_path / "plain.npz", ns / 1e9, blocks, walls, walls)
    assert (tmp_path / "record.npz").stat().st_size < 0.5 * (tmp_path / "plain.npz").stat().st_size


def test_object_arrays_are_neither_written_nor_read(tmp_path: Path) -> None:
    """Reading them would unpickle, and so run, whatever the file says."""
    objects = np.array([Kind], dtype=object)
    with pytest.raises(TypeError, match="flags: an array of object"):
        save_record(tmp_path / "a.npz", Stage(Kind.ONE, flags=objects))

    np.savez(tmp_path / "b.npz", header=objects)
    with pytest.raises(BadInput, match="can't be read"):
        load_record(tmp_path / "b.npz", Profile)


@pytest.mark.parametrize("keep", [0, 10, 200, -40])
def test_damaged_file_is_bad_input(tmp_path: Path, keep: int) -> None:
    """Cut off anywhere, the file is named and nothing else is raised."""
    path = tmp_path / "a.npz"
    save_record(path, Profile("v", load_s=np.arange(50) / 7))
    path.write_bytes(path.read_bytes()[:keep])

    with pytest.raises(BadInput, match=r"a\.npz"):
        load_record(path, Profile)


def test_file_of_another_record_or_none_is_bad_input(tmp_path: Path) -> None:
    """An interval is no profile, plain arrays are no record, and a missing file is said to be one."""
    save_record(tmp_path / "a.npz", Interval(1.0, 0.0, 2.0))
    np.savez(tmp_path / "b.npz", latency_s=np.ones(3))

    for name, said in (("a", "a record Interval"), ("b", "no header"), ("c", "No such file")):
        with pytest.raises(BadInput, match=said):
            load_record(tmp_path / f"{name}.npz", Profile)


def test_failed_write_leaves_the_earlier_file(tmp_path: Path) -> None:
    """The file is replaced whole or not at all."""
    save_record(tmp_path / "a.npz", Interval(1.0, 0.0, 2.0))
    with pytest.raises(TypeError):
        save_record(tmp_path / "a.npz", Stage(Kind.ONE, flags=object()))

    assert load_record(tmp_path / "a.npz", Interval) == Interval(1.0, 0.0, 2.0)
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]
