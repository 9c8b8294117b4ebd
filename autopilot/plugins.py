"""The one loader of the plug-in folders and entry points; fails loudly on a broken plug-in."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from autopilot.contracts import Axis, Meter, Metric, Provider, Technique
from autopilot.errors import AutopilotError

if TYPE_CHECKING:
    from autopilot.spec import Vocabulary


def _scan(kind: str, attribute: str) -> dict[str, Any]:
    """Module name -> declared object, of one folder and of its entry-point group."""
    found: dict[str, Any] = {}
    package = importlib.import_module(f"autopilot.{kind}")
    for info in pkgutil.iter_modules(package.__path__):
        if info.name.startswith("_"):
            continue
        module = importlib.import_module(f"autopilot.{kind}.{info.name}")
        if not hasattr(module, attribute):
            raise AutopilotError(
                f"plug-in {module.__name__} declares no {attribute}.", "See docs/adding-a-technique.md."
            )
        found[info.name] = getattr(module, attribute)
    for entry in entry_points(group=f"autopilot.{kind}"):
        if entry.name in found:
            raise AutopilotError(f"two plug-ins in {kind} are called {entry.name!r} ({entry.value}).", "Rename one.")
        try:
            loaded = entry.load()
        except (ImportError, AttributeError) as exc:
            raise AutopilotError(
                f"the plug-in {entry.name!r} of {kind} ({entry.value}) can't be loaded: {exc}.",
                "Repair or uninstall the package that brings it.",
            ) from exc
        found[entry.name] = getattr(loaded, attribute, loaded)
    return found


@cache
def techniques() -> dict[str, Technique]:
    """Every technique by name."""
    return _scan("techniques", "TECHNIQUE")


@cache
def providers() -> dict[str, Provider]:
    """Every provider by name."""
    return _scan("providers", "PROVIDER")


@cache
def meters() -> dict[str, Meter]:
    """Every meter by name."""
    return _scan("meters", "METER")


@cache
def metrics() -> dict[str, Metric]:
    """Every metric by its own name (a metrics module declares several)."""
    found: dict[str, Metric] = {}
    for group in _scan("metrics", "METRICS").values():
        for metric in group if isinstance(group, tuple) else (group,):
            if metric.name in found:
                raise AutopilotError(f"two plug-ins in metrics are called {metric.name!r}.", "Rename one.")
            found[metric.name] = metric
    return found


def find_axis(name: str) -> tuple[Meter, Axis] | None:
    """The meter and axis that ``name`` belongs to, or None."""
    for meter in meters().values():
        axis = meter.axis(name)
        if axis is not None:
            return meter, axis
    return None


def axis_names() -> list[str]:
    """The names of all declared axes, for messages and listings."""
    return [axis.name for meter in meters().values() for axis in meter.axes]


def vocabulary() -> Vocabulary:
    """The names a spec may use: what plug-ins declare, and where search spaces are."""
    from autopilot.spaces_folder import space_folder
    from autopilot.spec import Vocabulary

    def axis(name: str) -> Axis | None:
        found = find_axis(name)
        return found[1] if found else None

    return Vocabulary(
        axis=axis,
        axis_names=tuple(axis_names()),
        metric_names=tuple(metrics()),
        provider_names=tuple(providers()),
        space_folder=space_folder(),
        lower_is_better=frozenset(name for name, metric in metrics().items() if not metric.higher_is_better),
    )
