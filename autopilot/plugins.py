"""The one loader of the plug-in folders, entry points and files; fails loudly on a broken plug-in."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopilot.cache.code import code_digest
from autopilot.contracts import Axis, Meter, Metric, Provider, Technique
from autopilot.errors import AutopilotError
from autopilot.plugin_files import forget_file, forget_module, load_file, name_file, named_files
from autopilot.recipe import DEPLOYMENT_KEYS, STEP_KEYS

if TYPE_CHECKING:
    from autopilot.spec import Vocabulary


def _scan(kind: str, attribute: str) -> dict[str, Any]:
    """Module name -> declared object, of one folder, of its entry-point group and of the files that are named."""
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
    for file in named_files():
        declared = getattr(load_file(file), attribute, None)
        if declared is None:
            continue
        name = file.stem if isinstance(declared, tuple) else declared.name
        if name in found:
            raise AutopilotError(f"two plug-ins in {kind} are called {name!r} ({file}).", "Rename one.")
        found[name] = declared
    return found


def _named_apart(found: dict[str, Any], kind: str, word: str, taken: tuple[str, ...]) -> dict[str, Any]:
    """``found``, whose parameters have no name that a recipe or a deployment has for itself.

    Raises:
        AutopilotError: one has: in ids, records and bundles its value would stand in the other's place.
    """
    for name, plugin in found.items():
        for parameter in plugin.parameters:
            if parameter in taken:
                raise AutopilotError(
                    f"the {kind} {name!r} has {word} called {parameter!r}, which would be taken for the "
                    f"{'deployment' if kind == 'provider' else 'step'}'s own.",
                    f"Rename it; these names are taken: {', '.join(taken)}.",
                )
    return found


def package_of(kind: str, name: str) -> str | None:
    """The distribution that brings the plug-in ``name``; None for our own, and for one in a file that is named."""
    for entry in entry_points(group=f"autopilot.{kind}"):
        if entry.name == name and entry.dist is not None:
            return entry.dist.name
    return None


def add_plugins(*files: str | Path) -> None:
    """Use the plug-ins that Python files declare, in this process and in all that it starts.

    Each file declares one or more of TECHNIQUE, PROVIDER, METER and METRICS. Adding a file again after
    it was edited uses what it says now.

    Raises:
        BadInput: a file can't be read or run, or declares no plug-in.
        AutopilotError: a plug-in's name is taken.
    """
    for file in (Path(f).resolve() for f in files):
        forget_module(file)
        load_file(file)
        name_file(file)
        try:
            _list_anew()
        except AutopilotError:
            forget_file(file)
            _list_anew()
            raise


def _list_anew() -> None:
    listings = (techniques, providers, meters, metrics)
    for listing in (*listings, code_digest):
        listing.cache_clear()
    for listing in listings:
        listing()


@cache
def techniques() -> dict[str, Technique]:
    """Every technique by name."""
    return _named_apart(_scan("techniques", "TECHNIQUE"), "technique", "a parameter", STEP_KEYS)


@cache
def providers() -> dict[str, Provider]:
    """Every provider by name."""
    return _named_apart(_scan("providers", "PROVIDER"), "provider", "an option", DEPLOYMENT_KEYS)


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
