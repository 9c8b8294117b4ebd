"""The sample that a model fails on: found, named by its place in the file, and by what is odd about it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given as given_that
from hypothesis import strategies as st

from autopilot.bench.child import ChildLimits
from autopilot.data import Splits
from autopilot.errors import DataError, Failure, VariantFailed, WorkerDied
from autopilot.observer import NullObserver
from autopilot.recipe import Deployment, Recipe
from autopilot.search import blame as module
from autopilot.search.blame import Given, blamed, check_extremes
from autopilot.spec import DataSpec
from tests.unit.search_support import artifact_of, info_of

N = 24
CRASH = VariantFailed(Failure.CRASH, "running the model failed.")


def split_of(name: str, ids: np.ndarray) -> Any:
    """Samples with one array of whole numbers, all of them the same constant beside it."""
    shared = np.zeros((3, 5), np.float32)
    return SimpleNamespace(
        name=name,
        n=len(ids),
        batched=True,
        raw=lambda at: {"ids": ids[list(at)], "weights": shared},
        whole_numbers=lambda: {"ids": ids},
    )


def study(folder: Path, monkeypatch: pytest.MonkeyPatch, ids: np.ndarray, *, fails_on: set[int]) -> Given:
    """A model that fails on samples whose first number is in ``fails_on``; splits are shuffled halves of ``ids``."""
    order = np.random.default_rng(0).permutation(len(ids))
    half = len(ids) // 2
    parts = [split_of(n, ids[o]) for n, o in (("validation", order[:half]), ("test", order[half:]))]

    def evaluate(path: Path, deployment: Deployment, *, split: Any, start: int, stop: int, **_: Any) -> None:
        bad = [int(v) for v in split.raw(range(start, stop))["ids"][:, 0] if int(v) in fails_on]
        if bad:
            raise VariantFailed(Failure.CRASH, f"running the model failed: idx={bad[0]} is out of bounds.")

    monkeypatch.setattr(module, "evaluate", evaluate)
    np.savez(folder / "valid.npz", ids=ids, weights=np.zeros((3, 5), np.float32))
    splits = Splits(*parts, parts[0], None, (), "d")
    return Given(
        artifact_of(Recipe()), Deployment("cpu"), info_of(), splits, DataSpec(folder / "valid.npz"), ChildLimits(9.0)
    )


def numbers(n: int = N) -> np.ndarray:
    """Every sample with a first number of its own, and a second one that is the least or the largest."""
    return np.stack([np.arange(n), np.arange(n) % 2 * (n - 1)], axis=1).astype(np.int64)


@pytest.mark.parametrize("row", range(0, N, 5))
def test_sample_that_fails_is_named_by_its_place_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: int
) -> None:
    """In either split, wherever the shuffle put it, with the value that no other sample has."""
    ids = numbers()
    ids[row, 0] = 5000

    found = blamed(CRASH, study(tmp_path, monkeypatch, ids, fails_on={5000}), NullObserver())

    assert isinstance(found, DataError)
    assert f"valid.npz: the model can't be run on sample {row} (counted from 0)" in found.message
    assert "idx=5000 is out of bounds" in found.message
    assert "'ids' holds 5000, where they hold 0 to 23" in found.message


@given_that(st.sets(st.integers(0, N - 1), min_size=1, max_size=N // 3))
def test_sample_that_is_blamed_is_one_that_fails(rows: set[int]) -> None:
    """Of several, some one of them."""
    with pytest.MonkeyPatch.context() as patch:
        from autopilot.temporary import temporary_folder

        with temporary_folder("blame-test") as folder:
            found = blamed(CRASH, study(folder, patch, numbers(), fails_on=rows), NullObserver())

    # Where the first two samples of a split fail all may; the other split isn't asked then.
    assert found is None or int(found.message.split("sample ")[1].split()[0]) in rows


@pytest.mark.parametrize("fails_on", [set(), set(range(N))])
def test_no_sample_is_blamed_for_what_all_or_none_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_on: set[int]
) -> None:
    """A model that fails on everything is at fault itself; one that answers now had bad luck."""
    assert blamed(CRASH, study(tmp_path, monkeypatch, numbers(), fails_on=fails_on), NullObserver()) is None


@pytest.mark.parametrize("failure", [Failure.TIMEOUT, Failure.OOM, Failure.UNSUPPORTED])
def test_other_failures_are_no_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Failure) -> None:
    """Nothing is run for them."""
    found = study(tmp_path, monkeypatch, numbers(), fails_on={0})

    assert blamed(WorkerDied(failure, "no."), found, NullObserver()) is None


@pytest.mark.parametrize("value", [5000, -5000])
def test_value_beyond_those_that_were_answered_is_tried_before_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: int
) -> None:
    """Held-back samples come last of all: their index beyond an embedding would cost the whole search."""
    ids = numbers()
    row = int(np.random.default_rng(0).permutation(N)[-1])  # the last of the held-back half
    ids[row, 0] = value
    found = study(tmp_path, monkeypatch, ids, fails_on={value})

    with pytest.raises(DataError, match=rf"sample {row} \(counted from 0\).*holds {value}"):
        check_extremes(found, NullObserver())


def test_extremes_that_the_model_answers_are_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A word that validation didn't have is a word all the same."""
    ids = numbers()
    ids[:, 0] += 100

    check_extremes(study(tmp_path, monkeypatch, ids, fails_on=set()), NullObserver())


@pytest.mark.parametrize("then", [None, VariantFailed(Failure.OOM, "no memory.")])
def test_sample_that_crashes_once_is_not_accused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: VariantFailed | None
) -> None:
    """A process may crash by bad luck: a trial is tried again for it, and a study isn't ended."""
    ids = numbers()
    ids[:, 0] += 100
    found = study(tmp_path, monkeypatch, ids, fails_on=set())
    ran: list[int] = []

    def evaluate(path: Path, deployment: Deployment, *, start: int, **_: Any) -> None:
        ran.append(start)
        if ran.count(start) == 1:
            raise CRASH
        if then is not None:
            raise then

    monkeypatch.setattr(module, "evaluate", evaluate)
    monkeypatch.setattr(module, "_beyond", lambda arrays, known: {1})

    check_extremes(found, NullObserver())

    assert ran.count(1) >= 2
