"""What wasn't tried, and what was missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from autopilot.contracts import Slot, Technique
from autopilot.needs import Lack, Need, NotTried, refused, unmet
from autopilot.search.prepare import lacks
from autopilot.space_file import SpaceRequest, build_space
from autopilot.target import Target
from tests.unit.search_support import setup_of, technique

TARGET = Target.detect()


class Absent:
    """A provider that can't run here."""

    name = "absent"
    parameters: dict[str, object] = {}  # noqa: RUF012 - a plug-in's own declaration
    thread_choices = False

    def usable(self, target: Target) -> str | None:
        return "onnxruntime-absent is not installed; run pip install onnxruntime-absent."


class Present(Absent):
    """One that can."""

    name = "present"

    def usable(self, target: Target) -> str | None:
        return None


def gaps(folder: Path, *techniques: Technique, given: dict[Lack, str] | None = None) -> dict[str, NotTried]:
    """What a space of ``techniques`` leaves out."""
    file = folder / "space.yaml"
    file.write_text("{}")
    request = SpaceRequest(("present", "absent"), 1, (1,), lacks=given or {})
    providers = {"present": Present(), "absent": Absent()}
    named = {t.name: t for t in techniques}
    space = build_space(file, request, target=TARGET, techniques=named, providers=providers)  # type: ignore[arg-type]
    assert set(space.techniques) == {t.name for t in techniques} - {gap.name for gap in space.not_tried}
    assert space.left_out == {gap.name: gap.reason for gap in space.not_tried}
    return {gap.name: gap for gap in space.not_tried}


def test_missing_library_is_named_with_the_command_that_brings_it(tmp_path: Path) -> None:
    """The technique's own declaration says which."""
    needy = technique("prune", Slot.GRAPH, needs=(Need(Lack.LIBRARY, "no_such_library", "pip install nothing"),))

    gap = gaps(tmp_path, needy, technique("int8", Slot.PRECISION))["prune"]

    assert (gap.kind, gap.missing, gap.install) == ("technique", Lack.LIBRARY, "pip install nothing")
    assert "no_such_library is not installed" in gap.reason
    assert NotTried.from_json(gap.to_json()) == gap


def test_technique_whose_needs_are_met_is_tried(tmp_path: Path) -> None:
    """What is installed and given is no gap."""
    needs = (Need(Lack.LIBRARY, "json"), Need(Lack.TRAINING_DATA))

    assert "prune" not in gaps(tmp_path, technique("prune", Slot.GRAPH, needs=needs))


@pytest.mark.parametrize("lack", [Lack.TRAINING_DATA, Lack.TORCH_MODEL])
def test_what_the_spec_does_not_give_is_the_reason(tmp_path: Path, lack: Lack) -> None:
    """An ONNX spec without training data leaves out what learns or works on PyTorch."""
    found = lacks(setup_of(tmp_path).problem)

    gap = gaps(tmp_path, technique("distil", Slot.STRUCTURE, needs=(Need(lack),)), given=found)["distil"]

    assert gap.missing is lack
    assert ("data.train" if lack is Lack.TRAINING_DATA else "PyTorch") in gap.reason


def test_provider_that_is_not_usable_says_why(tmp_path: Path) -> None:
    """In its own words, with the command in them."""
    gap = gaps(tmp_path)["absent"]

    assert (gap.kind, gap.missing) == ("provider", Lack.PROVIDER)
    assert gap.install == "pip install onnxruntime-absent"


def test_refusal_without_a_command_is_the_machines() -> None:
    """Nothing is invented: no command where the plug-in names none."""
    gap = refused("technique", "bfloat16", "this CPU has no bfloat16 arithmetic")

    assert (gap.missing, gap.install) == (Lack.MACHINE, "")


def test_library_in_a_package_that_is_missing_is_missing() -> None:
    """No error of the import system reaches the user."""
    assert unmet("x", [Need(Lack.LIBRARY, "no_such_package.inside")], {}) is not None
