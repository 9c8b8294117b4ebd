"""The space of a YAML file: what plug-ins declare, narrowed to what the file names and this machine can run."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from autopilot import space_deployment
from autopilot.contracts import Provider, Technique, facts_of
from autopilot.domain import Domain, Scalar, narrow
from autopilot.errors import SpecError
from autopilot.needs import Lack, NotTried, refused, taken, unmet
from autopilot.space import SearchSpace, fitting
from autopilot.target import Target


def load_space_file(path: Path) -> dict[str, Any]:
    """Read a search-space file.

    Raises:
        SpecError: missing, not YAML, or with keys that don't exist.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as exc:
        raise SpecError(f"{path}: can't be read ({exc}).", "Name a file of search_spaces/ or give a path.") from exc
    except yaml.YAMLError as exc:
        raise SpecError(f"{path}: is not YAML ({str(exc).splitlines()[0]}).", "See docs/spaces.md.") from exc
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise SpecError(f"{path}: should be a mapping with techniques: and deployment:.", "See docs/spaces.md.")
    _known(raw, ("techniques", "deployment", "sensible_only"), str(path))
    if not isinstance(raw.get("sensible_only", True), bool):
        raise SpecError(f"{path}: sensible_only should be true or false, not {raw['sensible_only']!r}.")
    return raw


def _mapping(value: Any, where: str) -> dict[Any, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise SpecError(f"{where}: should be a mapping of names to values, not {value!r}.", "See docs/spaces.md.")
    return dict(value or {})


def _known(given: Mapping[str, Any], allowed: tuple[str, ...], where: str) -> None:
    for key in given:
        if key not in allowed:
            near = difflib.get_close_matches(str(key), allowed, 1)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(allowed)}."
            raise SpecError(f"{where}: unknown name {key!r}.", hint)


@dataclass(frozen=True, slots=True)
class SpaceRequest:
    """What the spec and the model allow: the outer bounds of a space.

    ``serving``: requests come by themselves, so that several instances and waiting for a batch make sense.
    ``lacks``: what the spec doesn't give that some technique may need, and why.
    """

    providers: tuple[str, ...]
    threads: int
    batches: tuple[int, ...]
    serving: bool = False
    lacks: Mapping[Lack, str] = field(default_factory=dict)


def build_space(
    path: Path,
    request: SpaceRequest,
    *,
    target: Target,
    techniques: Mapping[str, Technique],
    providers: Mapping[str, Provider],
) -> SearchSpace:
    """The space of ``path``, narrowed to what the spec allows and this machine can run.

    Raises:
        SpecError: unknown names, values outside the declared domains, or no usable provider.
    """
    raw = load_space_file(path)
    wanted = raw.get("techniques")
    if wanted is None:
        wanted = {name: {} for name, t in techniques.items() if t.on_by_default}
    if isinstance(wanted, list):
        wanted = {str(name): {} for name in wanted}
    wanted = _mapping(wanted, f"{path}: techniques")
    _known(wanted, tuple(techniques), f"{path}: techniques")
    sensible_only = bool(raw.get("sensible_only", True))
    deployment = _mapping(raw.get("deployment"), f"{path}: deployment")
    threads = space_deployment.threads(deployment.pop("threads", "auto"), request.threads, str(path))
    batches = space_deployment.batches(deployment.pop("batch", None), request.batches, str(path))
    delays_ms = space_deployment.delays_ms(deployment.pop("max_delay_ms", None), str(path))
    instances = space_deployment.instances(deployment.pop("instances", "auto"), request.threads, str(path))
    if not request.serving:
        delays_ms, instances = (0.0,), (1,)
    threads = tuple(t for t in threads if fitting(instances, t, request.threads))
    if not threads:
        message = f"{path}: deployment.instances {list(instances)} need more than the {request.threads} cores allowed."
        raise SpecError(message, "Allow fewer instances or fewer threads.")
    _known(deployment, tuple(providers), f"{path}: deployment")
    usable, not_tried = _usable(request.providers, providers, target)
    if not usable:
        reasons = "; ".join(f"{gap.name}: {gap.reason}" for gap in not_tried)
        message = f"target.providers: none of them can run here ({reasons})."
        raise SpecError(message, "autopilot doctor lists those that can.")
    options: dict[str, Mapping[str, Domain]] = {}
    for name, provider in usable.items():
        where = f"{path}: deployment.{name}"
        worth = facts_of(provider).sensible(target) if sensible_only else {}
        options[name] = _narrowed(provider.parameters, _worth(worth, _mapping(deployment.get(name), where)), where)
    fits = {name: facts_of(p).takes for name, p in usable.items()}
    irrelevant = {name: f for name, p in usable.items() if (f := getattr(p, "irrelevant", None)) is not None}
    space = SearchSpace({}, options, threads, batches, not_tried, delays_ms, instances, request.threads, irrelevant)
    for name, settings in wanted.items():
        where = f"{path}: techniques.{name}"
        told = _mapping(settings, where)
        if (gap := unmet(name, techniques[name].needs, request.lacks)) is not None:
            space = replace(space, not_tried=(*space.not_tried, gap))
            continue
        space = _with(space, techniques[name], told, fits=fits, target=target, sensible_only=sensible_only, where=where)
    return space


def _usable(
    wanted: Iterable[str], providers: Mapping[str, Provider], target: Target
) -> tuple[dict[str, Provider], tuple[NotTried, ...]]:
    """Of the providers ``wanted``, those that can run here; and why the others can't."""
    usable: dict[str, Provider] = {}
    not_tried: list[NotTried] = []
    for name in wanted:
        if name not in providers:
            raise SpecError(f"target.providers: no provider is called {name!r}.", f"There are: {', '.join(providers)}.")
        reason = providers[name].usable(target)
        if reason is None:
            usable[name] = providers[name]
        else:
            not_tried.append(refused("provider", name, reason))
    return usable, tuple(not_tried)


def _with(
    space: SearchSpace,
    technique: Technique,
    settings: Mapping[str, Any],
    *,
    fits: Mapping[str, Callable[[str], bool]],
    target: Target,
    sensible_only: bool,
    where: str,
) -> SearchSpace:
    """``space`` with ``technique`` on those of its providers that it is of use on; ``fits``: what each takes."""
    found: dict[str, Mapping[str, Domain]] = {}
    reasons: dict[str, str] = {}
    for provider in space.providers:
        there = target.running(provider)
        if (reason := technique.available(there)) is not None:
            reasons[provider] = reason
            continue
        worth = technique.sensible(there) if sensible_only else {}
        domains = _narrowed(technique.parameters, _worth(worth, settings), where)
        domains, lacking = taken(domains, technique.asks, fits[provider])
        if lacking:
            reasons[provider] = f"it makes files with {lacking}, which {provider} doesn't take"
        else:
            found[provider] = domains
    name = technique.name
    if not found:
        gap = refused("technique", name, next(iter(reasons.values())))
        return replace(space, not_tried=(*space.not_tried, gap))
    first = next(iter(found.values()))
    apart = {p: {k: d for k, d in domains.items() if d != first[k]} for p, domains in found.items()}
    return replace(
        space,
        techniques={**space.techniques, name: (technique, first)},
        apart={p: {**space.apart.get(p, {}), name: apart.get(p, {})} for p in space.providers},
        barred={p: space.barred.get(p, frozenset()) | ({name} if p in reasons else set()) for p in space.providers},
    )


def _worth(sensible: Mapping[str, tuple[Scalar, ...]], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a plug-in takes for worth trying, where the space's file says nothing itself."""
    return {**{key: list(values) for key, values in sensible.items()}, **settings}


def _narrowed(declared: Mapping[str, Domain], settings: Mapping[str, Any], where: str) -> dict[str, Domain]:
    _known(settings, tuple(declared), where)
    return {k: narrow(d, settings[k], f"{where}.{k}") if k in settings else d for k, d in declared.items()}
