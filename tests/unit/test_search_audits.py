"""What is audited for int8: what a step promises, what a file holds, what a budget asks for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from autopilot.bench.child import ChildLimits
from autopilot.budget import Budget, Limit
from autopilot.plugins import metrics
from autopilot.profile import Int8Audit
from autopilot.recipe import Deployment, Recipe, Variant
from autopilot.search import scored as module
from autopilot.search.outcome import Outcome
from autopilot.search.scored import QualityPass
from tests.unit.search_support import artifact_of, setup_of

LABELS = np.zeros(40, dtype=int)
AUDIT = Int8Audit(3, 3, 4, 0.9)
SPEED = Limit("latency_p50_ms", 0.6, relative=True)


def audits(folder: Path, monkeypatch: pytest.MonkeyPatch, *, quantized: bool, budget: Budget) -> list[Any]:
    """The audits of the model as given and of a file without steps in another deployment."""

    def evaluate(*_: Any, folder: Path, optimized: bool, **__: Any) -> Any:
        outputs = np.eye(2, dtype=np.float32)[LABELS]
        written[folder] = SimpleNamespace(
            load=lambda: {"y": outputs},
            output_names=("y",),
            all_names=("y",),
            left_out={},
            padded=(),
            optimized=folder / "optimized.onnx" if optimized else None,
            kernels=None,
        )
        return written[folder]

    written: dict[Path, Any] = {}
    known = SimpleNamespace(batch=None, dynamic_quantized=False, quantized=quantized)
    monkeypatch.setattr(module, "evaluate", evaluate)
    monkeypatch.setattr(module.Evaluation, "open", lambda path: written[path])
    monkeypatch.setattr(module, "inspect", lambda path: known)
    monkeypatch.setattr(module, "int8_audit", lambda *_: AUDIT)
    setup = setup_of(folder, budget=budget)
    object.__setattr__(setup, "metric", metrics()["accuracy"])
    split: Any = SimpleNamespace(
        name="test", n=len(LABELS), digest="t", batched=True, labels=LABELS, feed=lambda at: {"x": np.zeros((1, 4))}
    )
    baseline = Outcome(setup.given, setup.model)
    checked = Outcome(Variant(Recipe(), Deployment("cpu", 2)), artifact_of(Recipe()))
    quality = QualityPass(setup, baseline)
    return [quality.run(o, split, limits=ChildLimits(10.0), early=False)[1] for o in (baseline, checked)]


@pytest.mark.parametrize(
    ("quantized", "axis", "expected"),
    [(False, None, None), (True, None, AUDIT), (False, "int8_mac_share", AUDIT), (False, "int8_node_share", AUDIT)],
)
def test_file_without_steps_is_audited_when_it_holds_int8_or_the_budget_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quantized: bool, axis: str | None, expected: Int8Audit | None
) -> None:
    """``check`` has only the file, not the recipe that built it: a limit on int8 must be decided all the same."""
    limits = (SPEED,) if axis is None else (SPEED, Limit(axis, 0.5))

    found = audits(tmp_path, monkeypatch, quantized=quantized, budget=Budget(limits))

    assert found == [expected, expected]
