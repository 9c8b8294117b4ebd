"""The loader of plug-ins: a broken one is named."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from types import SimpleNamespace

import pytest

from autopilot import plugins
from autopilot.domain import Choice
from autopilot.errors import AutopilotError
from autopilot.testing import FakeProvider


def with_entry(monkeypatch: pytest.MonkeyPatch, entry: object) -> None:
    """Let ``entry`` be the only plug-in of other packages."""
    monkeypatch.setattr(plugins, "entry_points", lambda group: [entry])


@pytest.mark.parametrize("value", ["no_such_package.module", "json:no_such_name"])
def test_plug_in_that_can_not_be_loaded_is_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """Its package is what has to be repaired, not this one."""
    with_entry(monkeypatch, EntryPoint("mine", value, "autopilot.meters"))

    with pytest.raises(AutopilotError, match="'mine' of meters"):
        plugins._scan("meters", "METER")


def test_plug_in_with_a_name_that_is_taken_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which of the two is meant must not depend on the order of installation."""
    with_entry(monkeypatch, EntryPoint("size", "json:loads", "autopilot.meters"))

    with pytest.raises(AutopilotError, match="called 'size'"):
        plugins._scan("meters", "METER")


def test_metric_with_a_name_that_is_taken_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two modules may not declare the same metric."""
    one = SimpleNamespace(name="accuracy")
    monkeypatch.setattr(plugins, "_scan", lambda kind, attribute: {"a": (one,), "b": (one,)})

    with pytest.raises(AutopilotError, match="'accuracy'"):
        plugins.metrics.__wrapped__()


def test_plug_in_of_another_package_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry point may name the module or the object itself."""
    with_entry(monkeypatch, EntryPoint("mine", "autopilot.meters.size", "autopilot.meters"))

    assert plugins._scan("meters", "METER")["mine"].name == "size"


@pytest.mark.parametrize("option", ["provider", "threads", "batch", "max_delay_ms", "instances"])
def test_option_called_like_a_part_of_the_deployment_is_refused(monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    """It would stand in that part's place in ids, records and bundles, and be lost when they are read."""
    acme = FakeProvider("acme", parameters={option: Choice((8, 1))})
    monkeypatch.setattr(plugins, "_scan", lambda kind, attribute: {"acme": acme})

    with pytest.raises(AutopilotError, match=f"'acme' has an option called '{option}'") as caught:
        plugins.providers.__wrapped__()

    assert "Rename it" in caught.value.hint


def test_parameter_called_like_a_part_of_the_step_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The technique's own name, in recipes."""
    mine = SimpleNamespace(name="mine", parameters={"technique": Choice((1, 2))})
    monkeypatch.setattr(plugins, "_scan", lambda kind, attribute: {"mine": mine})

    with pytest.raises(AutopilotError, match="parameter called 'technique'"):
        plugins.techniques.__wrapped__()
