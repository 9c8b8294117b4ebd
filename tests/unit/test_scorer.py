"""The evaluating child's work, in this process and with a made-up provider."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from autopilot.bench import scorer, server
from autopilot.recipe import Deployment
from autopilot.testing import FakeSession
from tests.integration.bench_support import samples, write_split


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
