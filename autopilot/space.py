"""SearchSpace: what plug-ins declare, narrowed by a YAML file, and how a Variant is drawn from it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from autopilot import space_deployment
from autopilot.contracts import Provider, Slot, Technique, facts_of
from autopilot.domain import Choice, Domain, Scalar, narrow
from autopilot.errors import SpecError
from autopilot.known_good import known_good
from autopilot.needs import Lack, NotTried, refused, taken, unmet
from autopilot.recipe import Deployment, Recipe, Step, Variant, params_of
from autopilot.target import Target

NONE = "none"

# Asks somebody (a sampler, a test) for a value of a named domain.
Suggest = Callable[[str, Domain], Scalar]


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """Everything that may be combined for one model on one machine.

    ``techniques``: name -> plug-in and its narrowed parameters. ``providers``: name -> narrowed
    deployment options. ``not_tried``: what can't be tried here, and why.
    ``instances`` go with a thread count only where all their threads fit into ``cores``. ``irrelevant``:
    each provider's word on the options that change nothing in a deployment.
    What goes with one provider need not go with another: ``apart`` holds, by provider and technique, the
    parameters whose values differ from those in ``techniques``; ``barred``, by provider, what isn't tried on it.
    """

    techniques: Mapping[str, tuple[Technique, Mapping[str, Domain]]]
    providers: Mapping[str, Mapping[str, Domain]]
    threads: tuple[int, ...]
    batches: tuple[int, ...]
    not_tried: tuple[NotTried, ...] = ()
    max_delays_ms: tuple[float, ...] = (0.0,)
    instances: tuple[int, ...] = (1,)
    cores: int | None = None
    irrelevant: Mapping[str, Callable[[Deployment], tuple[str, ...]]] = field(default_factory=dict)
    apart: Mapping[str, Mapping[str, Mapping[str, Domain]]] = field(default_factory=dict)
    barred: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @property
    def left_out(self) -> dict[str, str]:
        """Why each technique or provider that can't be tried is left out."""
        return {gap.name: gap.reason for gap in self.not_tried}

    def slot(self, slot: Slot, provider: str | None = None) -> tuple[str, ...]:
        """Names of the techniques that fill ``slot``; with ``provider``, those that may run on it."""
        barred = self.barred.get(provider, frozenset()) if provider else frozenset()
        return tuple(name for name, (t, _) in self.techniques.items() if t.slot is slot and name not in barred)

    def domains(self, technique: str, provider: str) -> Mapping[str, Domain]:
        """The parameters of ``technique`` for a variant that runs on ``provider``."""
        return {**self.techniques[technique][1], **self.apart.get(provider, {}).get(technique, {})}

    def sample(self, suggest: Suggest) -> Variant:
        """Draw one variant; every free choice is asked of ``suggest`` under a stable name.

        A choice among other values than the first provider's has a name of its own: a sampler takes one name for
        one set of values.
        """
        provider = str(_ask(suggest, "provider", Choice(tuple(self.providers))))
        steps = []
        for slot in Slot:
            names = self.slot(slot, provider)
            if not names:
                continue
            chosen = _ask(suggest, self._slot_name(slot, provider), Choice((NONE, *names)))
            if chosen != NONE:
                steps.append(self._step(str(chosen), provider, suggest))
        return Variant(Recipe(tuple(steps)), self._deployment(provider, suggest))

    def _step(self, name: str, provider: str, suggest: Suggest) -> Step:
        values = {
            key: _ask(suggest, self._name(name, key, provider), domain)
            for key, domain in self.domains(name, provider).items()
        }
        return Step(name, params_of(self.techniques[name][0].normalise(values)))

    def _name(self, technique: str, key: str, provider: str) -> str:
        own = key in self.apart.get(provider, {}).get(technique, {})
        return f"{technique}.{key}@{provider}" if own else f"{technique}.{key}"

    def _slot_name(self, slot: Slot, provider: str) -> str:
        return slot.value if self.slot(slot, provider) == self.slot(slot) else f"{slot.value}@{provider}"

    def _deployment(self, provider: str, suggest: Suggest) -> Deployment:
        threads = int(_ask(suggest, "threads", Choice(self.threads)) or 1)
        batch = int(_ask(suggest, "batch", Choice(self.batches)) or 1)
        # Without a batch to fill there is nothing to wait for.
        delay_ms = _ask(suggest, "max_delay_ms", Choice(self.max_delays_ms)) if batch > 1 else 0.0
        instances = _ask(suggest, _instances_at(threads), Choice(self.fitting(threads)))
        options = {k: _ask(suggest, f"{provider}.{k}", d) for k, d in self.providers[provider].items()}
        found = Deployment(provider, threads, batch, params_of(options), float(delay_ms or 0.0), int(instances or 1))
        return self.settled(found)

    def settled(self, deployment: Deployment) -> Deployment:
        """``deployment`` with the options that change nothing in it at their defaults."""
        domains = self.providers[deployment.provider]
        irrelevant = self.irrelevant.get(deployment.provider, _nothing)(deployment)
        usual = {name: domains[name].default for name in irrelevant if name in domains}
        return deployment.with_(options=params_of({**dict(deployment.options), **usual}))

    def fitting(self, threads: int) -> tuple[int, ...]:
        """The numbers of instances that may have ``threads`` threads each."""
        cores = self.cores or max(self.threads)
        return fitting(self.instances, threads, cores) or self.instances[:1]

    def knows(self, recipe: Recipe) -> bool:
        """Whether every step's technique is part of this space."""
        return all(step.technique in self.techniques for step in recipe.steps)

    def refusal(self, recipe: Recipe) -> str | None:
        """Why a recipe makes no sense before anything is built, or None."""
        for i, step in enumerate(recipe.steps):
            technique, _ = self.techniques[step.technique]
            reason = technique.refuses(Recipe(recipe.steps[:i]), dict(step.params))
            if reason is not None:
                return f"{step.technique}: {reason}"
        return None

    def default_deployment(self, provider: str | None = None) -> Deployment:
        """The declared defaults of ``provider`` (the first one allowed), all threads; one request after the other."""
        name = provider or next(iter(self.providers))
        options = {key: domain.default for key, domain in self.providers[name].items()}
        threads, batch = max(self.threads), min(self.batches)
        delay_ms = min(self.max_delays_ms) if batch > 1 else 0.0
        return Deployment(name, threads, batch, params_of(options), delay_ms, min(self.fitting(threads)))

    def known_good(self, target: Target) -> Iterator[Variant]:
        """Variants that plug-ins recommend for this machine, the best of each provider first."""
        return known_good(self, target)

    def names_of(self, variant: Variant) -> dict[str, Scalar]:
        """The choices that give ``variant`` back through ``sample``: parameters for a warm start."""
        given = {step.technique: dict(step.params) for step in variant.recipe.steps}
        by_slot = {self.techniques[name][0].slot: name for name in given if name in self.techniques}
        d = variant.deployment
        out: dict[str, Scalar] = {
            self._slot_name(slot, d.provider): by_slot.get(slot, NONE) for slot in Slot if self.slot(slot, d.provider)
        }
        for name, params in given.items():
            if name not in self.techniques:  # a baseline may hold what this space doesn't
                out[name] = True
                continue
            for key, domain in self.domains(name, d.provider).items():
                out[self._name(name, key, d.provider)] = params.get(key, domain.default)
        out |= {"provider": d.provider, "threads": d.threads, "batch": d.batch}
        if len(self.max_delays_ms) > 1 and d.batch > 1:
            out["max_delay_ms"] = d.max_delay_ms
        if len(self.fitting(d.threads)) > 1:
            out[_instances_at(d.threads)] = d.instances
        return out | {f"{d.provider}.{key}": value for key, value in d.options}

    @property
    def is_single(self) -> bool:
        """True when there is nothing to choose: the model as given in one deployment."""
        free = [*self.threads[1:], *self.batches[1:], *list(self.providers)[1:], *self.techniques]
        free += [*self.fitting(self.threads[0])[1:], *(self.max_delays_ms[1:] if self.batches[0] > 1 else ())]
        return not free and all(_fixed(d) is not None for p in self.providers.values() for d in p.values())


def _nothing(deployment: Deployment) -> tuple[str, ...]:
    return ()


def _instances_at(threads: int) -> str:
    """The name of the choice of instances: a name of its own for each thread count, which allows others."""
    return f"instances_at_{threads}_threads"


def fitting(instances: Iterable[int], threads: int, cores: int) -> tuple[int, ...]:
    """Those of ``instances`` whose ``threads`` threads each fit into ``cores``."""
    return tuple(i for i in instances if i * threads <= cores)


def _fixed(domain: Domain) -> tuple[Scalar] | None:
    if isinstance(domain, Choice):
        return (domain.values[0],) if len(domain.values) == 1 else None
    return (domain.low,) if domain.low == domain.high else None


def _ask(suggest: Suggest, name: str, domain: Domain) -> Scalar:
    """A domain of one value is no question."""
    fixed = _fixed(domain)
    return fixed[0] if fixed is not None else suggest(name, domain)


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
