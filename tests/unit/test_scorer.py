"""The evaluating child's work, in this process and with a made-up provider."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from autopilot.bench import evaluation, scorer, server
from autopilot.bench.cores import server_cores
from autopilot.errors import VariantFailed
from autopilot.recipe import Deployment
from autopilot.search.preflight import scored_for_sure
from autopilot.spec import MetricSpec
from autopilot.testing import FakeSession
from tests.integration.bench_support import LIMITS, samples, write_split


class InTurn(FakeSession):
    """A session that notes what it is told and asked, in order."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        super().__init__(lambda feed: self.told.append(len(feed["x"])) or [feed["x"]])

    def answer_side_by_side(self, runs: int) -> None:
        self.told.append(f"{runs} at a time")


def test_session_that_answers_in_turn_is_told_of_all_workers_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one core would score while the others wait for it."""
    session = InTurn()
    monkeypatch.setattr(server, "find_provider", lambda name: SimpleNamespace(open=lambda *_, **__: session))
    split = write_split(tmp_path / "split", {"x": samples(8, 3)})
    request = {"artifact": "model.onnx", "deployment": Deployment("fake").to_json(), "split": str(split.folder)}
    request |= {"start": 0, "stop": 8, "batch": 4, "folder": str(tmp_path), "optimized": False, "sizes": []}

    scorer.evaluate(request | {"cores": [0, 1, 2]})

    assert session.told == ["3 at a time", 4, 4]
    np.testing.assert_array_equal(np.load(tmp_path / "0.npy"), samples(8, 3))


def test_scoring_takes_no_more_cores_than_a_container_may_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a worker that holds samples, and a stream of OpenVINO's: 64 of them would share two cores' time."""
    asked: list[tuple[int, int]] = []

    def noted(module: str, request: dict[str, Any], *_: Any, threads: int, **__: Any) -> dict[str, Any]:
        asked.append((len(request["cores"]), threads))
        return {"batching": True}

    monkeypatch.setattr(evaluation, "run_child", noted)
    monkeypatch.setattr(evaluation, "available_cores", lambda: 1)
    split = write_split(tmp_path / "split", {"x": samples(8, 3)})

    evaluation.probe_batching(tmp_path / "model.onnx", Deployment("cpu"), split, LIMITS)

    assert asked == [(len(server_cores(1)), 1)]


@pytest.mark.parametrize(("scored", "refused"), [("", False), ("good", False), ("bad", True)])
def test_sizes_are_compared_in_the_output_that_is_scored(tmp_path: Path, scored: str, refused: bool) -> None:
    """What no metric looks at may depend on the batch as it likes; "" is the first output."""
    session = FakeSession(lambda feed: [feed["x"], feed["x"] * 10.0 ** len(feed["x"])], ("good", "bad"))
    split = write_split(tmp_path / "split", {"x": samples(40, 3)})

    with pytest.raises(VariantFailed, match="'bad'") if refused else nullcontext():
        scorer.compare_sizes(session, split, 4, [1], 1, scored=scored)


@pytest.mark.parametrize(("spec", "name"), [({}, ""), ({"output": "y"}, "y"), ({"function": "m.py:f"}, None)])
def test_scored_output_is_known_unless_a_function_chooses(spec: dict[str, str], name: str | None) -> None:
    """Before anything ran."""
    assert scored_for_sure(MetricSpec("m", **spec)) == name  # type: ignore[arg-type]
