"""A provider with a rival for its baseline, in real processes: it is taken, turned away, or can't be built.

The provider is a plug-in over ONNX Runtime's CPU provider, and how its ways differ is made: by default it sleeps.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autopilot.plugin_files import VARIABLE
from tests import models
from tests.integration.run_support import autopilot, labelled, result_of, write_study

pytestmark = pytest.mark.integration

PLUGIN = '''
"""The CPU provider in a slow and a fast way."""

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from autopilot.contracts import ProviderFacts
from autopilot.domain import Choice
from autopilot.profile import OperatorCost, Placement
from autopilot.providers import cpu
from autopilot.recipe import Rival, Step, params_of

SLEEP_S = 0.003  # far above what the model takes
FACTS = {facts}
PARAMETERS = {{"way": Choice(("slow", "fast", "spoilt"))}}


class Session:
    def __init__(self, inner, way):
        self._inner, self._way = inner, way
        self.output_names = inner.output_names

    def run(self, feed):
        if self._way == "slow":
            time.sleep(SLEEP_S)
        outputs = self._inner.run(feed)
        return [np.roll(o, 1, axis=-1) for o in outputs] if self._way == "spoilt" else outputs

    def placement(self):
        nodes = sum(self._inner.placement().nodes.values())
        return Placement({{"Slowly": nodes - {elsewhere}, "CPUExecutionProvider": {elsewhere}}})

    def operator_costs(self, requests):
        found = self._inner.operator_costs(requests)
        if {elsewhere} == 0:
            return found
        one = found[-1].operator
        return tuple(
            OperatorCost(c.operator, c.provider if c.operator == one else "Slowly", c.dtype, c.count, c.seconds)
            for c in found
        )


@dataclass(frozen=True)
class Provider:
    name: str = "rivalled"
    execution_provider: str = "Slowly"
    parameters: object = field(default_factory=lambda: PARAMETERS)
    thread_choices: bool = False
    facts: ProviderFacts = field(default_factory=lambda: FACTS)

    def usable(self, target):
        return None

    def open(self, artifact, deployment, *, optimized_model=None, profile_to=None):
        plain = deployment.with_(provider="cpu", options=())
        inner = cpu.PROVIDER.open(artifact, plain, optimized_model=optimized_model, profile_to=profile_to)
        return Session(inner, dict(deployment.options).get("way", "slow"))


PROVIDER = Provider()
'''
FAST = 'Rival("fast way", options=params_of({"way": "fast"}))'
SPOILT = 'Rival("spoilt way", options=params_of({"way": "spoilt"}))'
# On a model without weights of 32 bits: the conversion has nothing to convert.
HALF = 'Rival("float16", steps=(Step("float16"),), options=params_of({"way": "fast"}))'


def plug_in(folder: Path, monkeypatch: pytest.MonkeyPatch, facts: str, *, elsewhere: int = 0) -> None:
    """Have every process find the provider ``rivalled`` with these facts."""
    file = folder / "rivalled.py"
    file.write_text(PLUGIN.format(facts=f"ProviderFacts({facts})", elsewhere=elsewhere))
    monkeypatch.setenv(VARIABLE, str(file))


def study(folder: Path, **changes: Any) -> Path:
    """A spec whose first provider is the plug-in's, over a space of its two ways."""
    (folder / "space.yaml").write_text("techniques: {}\ndeployment:\n  threads: [1]\n")
    more: dict[str, Any] = {
        "target": {"providers": ["rivalled"], "threads": 1},
        "space": "space.yaml",
        "budget": {"latency_p50_ms": "300% of baseline", "quality_drop": 0.05},
        "search": {"trials": 3, "timeout": "120s", "seed": 0},
    }
    return write_study(folder, **(more | changes))


def ran(folder: Path, **changes: Any) -> tuple[dict[str, Any], str]:
    """The result of a run of ``study``, and what it printed."""
    spec = study(folder, **changes)
    done = autopilot("run", str(spec), "--out", "out", cwd=folder)
    assert done.returncode in (0, 3, 4), done.stderr
    return dict(result_of(folder / "out")), done.stdout + done.stderr


def test_faster_way_becomes_the_baseline_of_run_and_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three milliseconds of sleep are no gain: the speedup is told against the way that doesn't sleep."""
    plug_in(tmp_path, monkeypatch, f"rivals=({FAST},)")
    result, said = ran(tmp_path, budget={"latency_p50_ms": "300% of baseline", "quality_drop": 0.05})
    trials = {t["deployment"]["way"]: t for t in result["trials"]}

    assert result["baseline_choice"]["name"] == "fast way"
    assert result["baseline"]["deployment"]["way"] == "fast"
    assert result["trials"][0]["deployment"]["way"] == "fast"
    assert result["best"]["deployment"]["way"] == "fast"
    assert result["explanation"].startswith("The baseline is fast way: fast way is ")
    assert "the baseline (fast way): " in said
    # The model as given was tried like any other: it is certainly more than three times as slow as the baseline.
    assert trials["slow"]["verdict"]["latency_p50_ms"] == "out"
    assert trials["slow"]["measured"]["latency_p50_ms"]["ratio"]["low"] > 3
    page = (tmp_path / "out" / "report.html").read_text()
    assert "The budget is met by the baseline (fast way)" in page
    readme = (tmp_path / "out" / "best" / "README.md").read_text()
    assert "as fast as the baseline (fast way)" in readme

    again = autopilot("show", "out", "--samples", cwd=tmp_path)
    assert again.returncode == 0, again.stdout
    checked = autopilot("check", "model.onnx", "spec.yaml", "--json", "--samples", "check.npz", cwd=tmp_path)
    found = json.loads(checked.stdout)
    assert found["baseline_choice"]["name"] == "fast way"
    assert found["verdict"]["latency_p50_ms"] == "out"  # in its default way: the slow one
    assert autopilot("show", "check.npz", "--samples", cwd=tmp_path).returncode == 0


def test_way_that_spoils_the_answers_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However fast it is; the result says why the model as given stays."""
    plug_in(tmp_path, monkeypatch, f"rivals=({SPOILT},)")
    result, said = ran(tmp_path, search={"trials": 1, "timeout": "120s"})

    assert result["baseline_choice"]["as_given"]
    assert result["baseline"]["deployment"]["way"] == "slow"
    assert "certainly outside of quality_drop <= 0.05" in result["explanation"]
    assert "spoilt way is " in said


def test_way_that_can_not_be_built_is_told_and_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model without float32 weights has nothing to convert; the study goes on."""
    plug_in(tmp_path, monkeypatch, f"rivals=({HALF},)")
    model = models.half_weights()
    monkeypatch.setattr(models, "cnn", lambda: model)
    result, said = ran(tmp_path, search={"trials": 1, "timeout": "120s"})

    assert result["baseline_choice"]["as_given"]
    assert "float16 is not taken, since it failed (unsupported)" in said
    assert "float16 is not taken" in result["explanation"]


def test_first_provider_that_takes_another_kind_of_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2 and what it takes, before anything runs."""
    plug_in(tmp_path, monkeypatch, 'formats=(".xml",)')
    done = autopilot("run", str(study(tmp_path)), "--out", "out", cwd=tmp_path)

    assert done.returncode == 2
    assert "rivalled takes .xml files, and model.onnx is none" in done.stderr.replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_variant_on_a_provider_of_another_kind_of_file_fails_as_unsupported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its trials say so and the others go on."""
    plug_in(tmp_path, monkeypatch, 'formats=(".xml",)')
    result, _ = ran(tmp_path, target={"providers": ["cpu", "rivalled"], "threads": 1}, search={"trials": 6})
    failed = [t for t in result["trials"] if t["deployment"]["provider"] == "rivalled"]

    assert failed
    assert {(t["failure"], "takes .xml files" in t["reason"]) for t in failed} == {("unsupported", True)}
    assert result["status"] == "in_budget"


@pytest.mark.parametrize("audit", ["fail", "warn"])
def test_split_placement_is_told_by_node_and_by_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, audit: str
) -> None:
    """Under the default policy the variant fails with both shares; else the warning has them, and so has ``check``."""
    plug_in(tmp_path, monkeypatch, "", elsewhere=1)
    target = {"providers": ["cpu", "rivalled"], "threads": 1}
    result, _ = ran(tmp_path, target=target, search={"trials": 4}, audit=audit)
    torn = [t for t in result["trials"] if t["deployment"]["provider"] == "rivalled"]
    told = [t["reason"] if audit == "fail" else " ".join(t["warnings"]) for t in torn]

    assert torn
    assert {t["failure"] for t in torn} == {"provider_fallback" if audit == "fail" else None}
    assert all("% of the time) run on CPUExecutionProvider, not on Slowly as asked" in text for text in told)
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    os.link(tmp_path / "model.onnx", bundle / "model.onnx")
    way = {"provider": "rivalled", "threads": 1, "batch": 1, "way": "fast"}
    (bundle / "variant.json").write_text(json.dumps({"deployment": way}))
    checked = autopilot("check", "bundle", "spec.yaml", cwd=tmp_path)
    assert (checked.returncode == 2) is (audit == "fail")
    assert audit == "warn" or "% of the time) run on" in checked.stderr.replace("\n", " ")


def test_samples_of_the_example_have_labels(tmp_path: Path) -> None:
    """What the spoilt way is judged on: answers that were right."""
    found = labelled(models.cnn(), tmp_path)

    assert len(np.unique(found["label"])) > 1
