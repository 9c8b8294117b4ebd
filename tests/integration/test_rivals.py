"""A provider with a rival for its baseline, in real processes: it is taken, turned away, or can't be built.

The provider is a plug-in over ONNX Runtime's CPU provider, and how its ways differ is made: by default it sleeps.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autopilot import plugins
from autopilot.cache.code import code_digest
from autopilot.observer import NullObserver
from autopilot.plugin_files import VARIABLE
from autopilot.search.evaluator import Evaluator
from autopilot.search.prepare import prepare
from autopilot.search.rivals import choice_of, settle_baseline
from autopilot.spec import load_spec
from tests import models
from tests.integration.run_support import UNTIMED, hurry, in_process, result_of, write_study

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
BOTH = {"providers": ["cpu", "rivalled"], "threads": 1}
SHARES = re.compile(
    r"1 of \d+ nodes \([0-9.]+%, [0-9.]+% of the time\) run on CPUExecutionProvider, not on Slowly as asked"
)
SPOILT = 'Rival("spoilt way", options=params_of({"way": "spoilt"}))'
HALF = 'Rival("float16", steps=(Step("float16"),), options=params_of({"way": "fast"}))'


@pytest.fixture(autouse=True)
def only_the_package(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No plug-in files before, none of these afterwards."""
    monkeypatch.setenv(VARIABLE, "")
    hurry(monkeypatch)  # the ways differ by more than dozens of times
    yield
    sys.modules.pop("autopilot_plugin_rivalled", None)
    for listing in (plugins.techniques, plugins.providers, plugins.meters, plugins.metrics, code_digest):
        listing.cache_clear()


def plug_in(folder: Path, facts: str, *, elsewhere: int = 0) -> None:
    """Have this process and those that it starts find the provider ``rivalled`` with these facts."""
    file = folder / "rivalled.py"
    file.write_text(PLUGIN.format(facts=f"ProviderFacts({facts})", elsewhere=elsewhere))
    plugins.add_plugins(file)


def study(folder: Path, **changes: Any) -> Path:
    """A spec whose first provider is the plug-in's, over a space of its ways; no limit is on a time."""
    (folder / "space.yaml").write_text("techniques: {}\ndeployment:\n  threads: [1]\n")
    spec: dict[str, Any] = {
        "target": {"providers": ["rivalled"], "threads": 1},
        "space": "space.yaml",
        "budget": UNTIMED["budget"],
        "search": {"trials": 2, "timeout": "300s"},
    }
    model = changes.pop("model", None)
    spec |= changes
    if spec["target"] != BOTH:
        # With less, a few blocks of milliseconds may be all that a busy machine reads of a rival. The mean has bounds
        # however requests come in moods; a percentile may have none then.
        spec = {"objective": "latency_mean_ms", **spec, "search": {"measure_cap": "4s", **spec["search"]}}
    return write_study(folder, model, **{**UNTIMED, **spec})


def ran(folder: Path, **changes: Any) -> tuple[dict[str, Any], str]:
    """The result of a run of ``study``, and what it printed."""
    spec = study(folder, **changes)
    done = in_process("run", str(spec), "--out", "out", cwd=folder)
    assert done.returncode in (0, 3, 4), done.stderr
    return dict(result_of(folder / "out")), done.stdout + done.stderr


def checked(folder: Path, model: str = "model.onnx", *more: str) -> dict[str, Any]:
    """What ``check`` found of a model, in its provider's default way."""
    done = in_process("check", model, "spec.yaml", "--json", *more, cwd=folder)
    assert done.returncode in (0, 3, 4), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_faster_way_becomes_the_baseline(tmp_path: Path) -> None:
    """Three milliseconds of sleep are no gain: the speedup is told against the way that doesn't sleep."""
    plug_in(tmp_path, f"rivals=({FAST},)")
    result, said = ran(tmp_path)
    first, second = result["trials"]

    assert result["baseline_choice"]["name"] == "fast way"
    assert [t["deployment"]["way"] for t in (result["baseline"], first, result["best"])] == ["fast"] * 3
    assert result["explanation"].startswith("The baseline is fast way: fast way is ")
    assert "the baseline (fast way): " in said
    assert "that, fast way, is the best" in " ".join(said.split())
    # The model as given is tried like any other: against the baseline it is slow.
    assert second["deployment"]["way"] == "slow"
    assert second["measured"]["latency_mean_ms"]["ratio"]["value"] > 3
    page = (tmp_path / "out" / "report.html").read_text()
    assert "The budget is met by the baseline (fast way)" in page
    readme = (tmp_path / "out" / "best" / "README.md").read_text()
    assert "as fast as the baseline (fast way)" in readme
    again = in_process("show", "out", "--samples", cwd=tmp_path)
    assert again.returncode == 0, again.stdout


def test_check_compares_with_the_faster_way_too(tmp_path: Path) -> None:
    """The model in its default way is slow beside it, and the kept readings say so again."""
    plug_in(tmp_path, f"rivals=({FAST},)")
    study(tmp_path, budget={"latency_mean_ms": "300% of baseline"})
    found = checked(tmp_path, "model.onnx", "--samples", "check.npz")

    assert found["baseline_choice"]["name"] == "fast way"
    assert found["verdict"]["latency_mean_ms"] == "out"
    assert in_process("show", "check.npz", "--samples", cwd=tmp_path).returncode == 0


def test_ways_that_spoil_the_answers_or_can_not_be_built_are_not_taken(tmp_path: Path) -> None:
    """However fast one is; a quantized model isn't converted to float16. It is said why the model as given stays."""
    plug_in(tmp_path, f"rivals=({SPOILT}, {HALF})")
    spec = study(tmp_path, model=models.qdq(), budget={"quality_drop": 0.05})
    setup = prepare(load_spec(spec, plugins.vocabulary()), tmp_path / "work", NullObserver())
    with Evaluator(setup, NullObserver()) as evaluator:
        evaluator.measure_baseline()
        settle_baseline(evaluator)
        found = choice_of(evaluator)

    assert found.as_given
    assert "spoilt way is " in found.reason
    assert "certainly outside of quality_drop <= 0.05" in found.reason
    assert "float16 is not taken, since it failed (unsupported)" in found.reason


def test_first_provider_that_takes_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    """Exit code 2 and what it takes, before anything runs."""
    plug_in(tmp_path, 'formats=(".xml",)')
    done = in_process("run", str(study(tmp_path)), "--out", "out", cwd=tmp_path)

    assert done.returncode == 2
    assert "rivalled takes .xml files, and model.onnx is none" in done.stderr.replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_variant_on_a_provider_of_another_kind_of_file_fails_as_unsupported(tmp_path: Path) -> None:
    """Its trial says so, and the baseline on another provider holds."""
    plug_in(tmp_path, 'formats=(".xml",)')
    result, _ = ran(tmp_path, target=BOTH)
    _, second = result["trials"]

    assert (second["deployment"]["provider"], second["failure"]) == ("rivalled", "unsupported")
    assert "rivalled takes .xml files, and model.onnx is none" in second["reason"]
    assert result["status"] == "in_budget"


def test_variant_that_lands_partly_elsewhere_fails_with_its_shares(tmp_path: Path) -> None:
    """Of nodes and of time, in a run's trial and in what ``check`` says of a bundle."""
    plug_in(tmp_path, "", elsewhere=1)
    result, _ = ran(tmp_path, target=BOTH)
    _, second = result["trials"]
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (tmp_path / "model.onnx").rename(bundle / "model.onnx")
    (bundle / "variant.json").write_text(json.dumps({"deployment": second["deployment"]}))
    (tmp_path / "model.onnx").write_bytes((bundle / "model.onnx").read_bytes())
    done = in_process("check", "bundle", "spec.yaml", cwd=tmp_path)

    assert (second["deployment"]["provider"], second["failure"]) == ("rivalled", "provider_fallback")
    assert SHARES.search(second["reason"])
    assert done.returncode == 3
    assert SHARES.search(done.stdout.replace("\n", " "))


def test_variant_that_lands_partly_elsewhere_is_warned_about_where_the_spec_says_so(tmp_path: Path) -> None:
    """It is measured to the end; its warning has both shares."""
    plug_in(tmp_path, "", elsewhere=1)
    result, _ = ran(tmp_path, target=BOTH, audit="warn")
    _, second = result["trials"]

    assert (second["deployment"]["provider"], second["failure"]) == ("rivalled", None)
    assert [w for w in second["warnings"] if w.startswith("provider_fallback: ") and SHARES.search(w)]
    assert 0 < second["measured"]["provider_time_share"]["value"] < 1
