"""SearchSpace: what plug-ins declare, narrowed by a YAML file, and how a Variant is drawn from it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from autopilot.contracts import Provider, Slot, Technique
from autopilot.domain import Choice, Domain, Float, Int, Scalar
from autopilot.errors import SpecError
from autopilot.needs import Lack, NotTried, refused, unmet
from autopilot.recipe import Deployment, Recipe, Step, Variant, params_of
from autopilot.target import Target

NONE = "none"
# Waiting for a batch to fill, in milliseconds: none, and what a request of some milliseconds can spare.
DELAYS_MS = (0.0, 1.0, 2.0, 5.0)

# Asks somebody (a sampler, a test) for a value of a named domain.
Suggest = Callable[[str, Domain], Scalar]


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """Everything that may be combined for one model on one machine.

    ``techniques``: name -> plug-in and its narrowed parameters. ``providers``: name -> narrowed
    deployment options. ``not_tried``: what can't be tried here, and why.
    ``instances`` go with a thread count only where all their threads fit into ``cores``. ``irrelevant``:
    each provider's word on the options that change nothing in a deployment.
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

    @property
    def left_out(self) -> dict[str, str]:
        """Why each technique or provider that can't be tried is left out."""
        return {gap.name: gap.reason for gap in self.not_tried}

    def slot(self, slot: Slot) -> tuple[str, ...]:
        """Names of the techniques that fill ``slot``."""
        return tuple(name for name, (t, _) in self.techniques.items() if t.slot is slot)

    def sample(self, suggest: Suggest) -> Variant:
        """Draw one variant; every free choice is asked of ``suggest`` under a stable name."""
        steps = []
        for slot in Slot:
            names = self.slot(slot)
            if not names:
                continue
            chosen = _ask(suggest, slot.value, Choice((NONE, *names)))
            if chosen != NONE:
                steps.append(self._step(str(chosen), suggest))
        return Variant(Recipe(tuple(steps)), self._deployment(suggest))

    def _step(self, name: str, suggest: Suggest) -> Step:
        technique, domains = self.techniques[name]
        values = {key: _ask(suggest, f"{name}.{key}", domain) for key, domain in domains.items()}
        return Step(name, params_of(technique.normalise(values)))

    def _deployment(self, suggest: Suggest) -> Deployment:
        provider = str(_ask(suggest, "provider", Choice(tuple(self.providers))))
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
        """Variants that plug-ins recommend for this machine: each technique's best first, then pairs.

        Where requests may be batches, those of a middling size: they gain most of what batching gives.
        Where several instances may serve, also as many as there are cores for.
        """
        usual = self.default_deployment()
        deployment = usual.with_(batch=self.batches[len(self.batches) // 2])
        if deployment != usual:
            yield Variant(Recipe(), deployment)
        fewest = min(self.threads)
        if max(self.fitting(fewest)) > usual.instances:
            yield Variant(Recipe(), usual.with_(threads=fewest, instances=max(self.fitting(fewest))))
        singles = {name: self._preferred(name, target) for name in self.techniques}
        precision = [n for n in self.slot(Slot.PRECISION) if singles[n]]
        graph = [n for n in self.slot(Slot.GRAPH) if singles[n]]
        for name in [*precision, *graph]:
            yield Variant(Recipe((singles[name][0],)), deployment)
        for first in graph:
            for second in precision:
                yield Variant(Recipe((singles[first][0], singles[second][0])), deployment)
        for name in [*precision, *graph]:
            for step in singles[name][1:]:
                yield Variant(Recipe((step,)), deployment)

    def _preferred(self, name: str, target: Target) -> list[Step]:
        technique, domains = self.techniques[name]
        steps: list[Step] = []
        for wanted in technique.prefer(target):
            values = {k: d.default for k, d in domains.items()} | dict(wanted)
            inside = all(k in domains and domains[k].contains(v) for k, v in values.items())
            step = Step(name, params_of(technique.normalise(values)))
            if inside and step not in steps:
                steps.append(step)
        return steps

    def names_of(self, variant: Variant) -> dict[str, Scalar]:
        """The choices that give ``variant`` back through ``sample``: parameters for a warm start."""
        given = {step.technique: dict(step.params) for step in variant.recipe.steps}
        by_slot = {self.techniques[name][0].slot: name for name in given}
        out: dict[str, Scalar] = {slot.value: by_slot.get(slot, NONE) for slot in Slot if self.slot(slot)}
        for name, params in given.items():
            for key, domain in self.techniques[name][1].items():
                out[f"{name}.{key}"] = params.get(key, domain.default)
        d = variant.deployment
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


def narrow(domain: Domain, wanted: Any, where: str) -> Domain:
    """``domain`` restricted to ``wanted``: a value, a list of values, or {min, max} of a number.

    Raises:
        SpecError: a value outside what the plug-in declares.
    """
    if isinstance(wanted, Mapping):
        if isinstance(domain, Choice) or set(wanted) - {"min", "max"}:
            raise SpecError(f"{where}: {dict(wanted)!r} doesn't fit {_describe(domain)}.", "Write a list of values.")
        low, high = wanted.get("min", domain.low), wanted.get("max", domain.high)
        if not (domain.contains(low) and domain.contains(high) and low <= high):
            raise SpecError(f"{where}: {low}..{high} is not inside {_describe(domain)}.", "Narrow, don't widen.")
        default = min(max(domain.default, low), high)
        if isinstance(domain, Int):
            return Int(int(low), int(high), int(default), domain.log, domain.step)
        return Float(float(low), float(high), float(default), domain.log)
    listed = wanted if isinstance(wanted, (list, tuple)) else (wanted,)
    values = tuple(v for i, v in enumerate(listed) if v not in listed[:i])
    bad = [v for v in values if not domain.contains(v)]
    if bad or not values:
        shown = repr(bad[0]) if bad else "an empty list"
        raise SpecError(f"{where}: {shown} is not inside {_describe(domain)}.", "Narrow, don't widen.")
    default = domain.default
    # The declared default stays the default where it is still allowed.
    ordered = sorted(values, key=lambda v: v != default) if default in values else list(values)
    return Choice(tuple(ordered))


def _describe(domain: Domain) -> str:
    if isinstance(domain, Choice):
        return "one of " + ", ".join(str(v) for v in domain.values)
    return f"{domain.low}..{domain.high}"


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
    not_tried: list[NotTried] = []
    chosen: dict[str, tuple[Technique, Mapping[str, Domain]]] = {}
    for name, settings in wanted.items():
        technique = techniques[name]
        gap = unmet(name, technique.needs, request.lacks)
        if gap is None and (reason := technique.available(target)) is not None:
            gap = refused("technique", name, reason)
        if gap is not None:
            not_tried.append(gap)
            continue
        told = _mapping(settings, f"{path}: techniques.{name}")
        if raw.get("sensible_only", True):
            told = {k: list(v) for k, v in technique.sensible(target).items()} | told
        chosen[name] = (technique, _narrowed(technique.parameters, told, f"{path}: techniques.{name}"))
    deployment = _mapping(raw.get("deployment"), f"{path}: deployment")
    threads = _threads(deployment.pop("threads", "auto"), request.threads, str(path))
    batches = _batches(deployment.pop("batch", None), request.batches, str(path))
    delays_ms = _delays_ms(deployment.pop("max_delay_ms", None), str(path))
    instances = _instances(deployment.pop("instances", "auto"), request.threads, str(path))
    if not request.serving:
        delays_ms, instances = (0.0,), (1,)
    threads = tuple(t for t in threads if fitting(instances, t, request.threads))
    if not threads:
        message = f"{path}: deployment.instances {list(instances)} need more than the {request.threads} cores allowed."
        raise SpecError(message, "Allow fewer instances or fewer threads.")
    _known(deployment, tuple(providers), f"{path}: deployment")
    usable: dict[str, Mapping[str, Domain]] = {}
    for name in request.providers:
        if name not in providers:
            raise SpecError(f"target.providers: no provider is called {name!r}.", f"There are: {', '.join(providers)}.")
        reason = providers[name].usable(target)
        if reason is not None:
            not_tried.append(refused("provider", name, reason))
            continue
        settings = _mapping(deployment.get(name), f"{path}: deployment.{name}")
        usable[name] = _narrowed(providers[name].parameters, settings, f"{path}: deployment.{name}")
    if not usable:
        reasons = "; ".join(f"{gap.name}: {gap.reason}" for gap in not_tried if gap.kind == "provider")
        message = f"target.providers: none of them can run here ({reasons})."
        raise SpecError(message, "autopilot doctor lists those that can.")
    irrelevant = {name: f for name in usable if (f := getattr(providers[name], "irrelevant", None)) is not None}
    return SearchSpace(
        chosen, usable, threads, batches, tuple(not_tried), delays_ms, instances, request.threads, irrelevant
    )


def _narrowed(declared: Mapping[str, Domain], settings: Mapping[str, Any], where: str) -> dict[str, Domain]:
    _known(settings, tuple(declared), where)
    return {k: narrow(d, settings[k], f"{where}.{k}") if k in settings else d for k, d in declared.items()}


def _threads(wanted: Any, most: int, where: str) -> tuple[int, ...]:
    """Thread counts to try, the target's own first: it is the default deployment's."""
    if wanted == "auto":
        powers = [1 << i for i in range(most.bit_length()) if 1 << i < most]
        return (most, *reversed(powers))
    counts = _counts(wanted, f"{where}: deployment.threads should be auto or a list of counts")
    return tuple(sorted((v for v in counts if v <= most), reverse=True)) or (most,)


def _batches(wanted: Any, allowed: tuple[int, ...], where: str) -> tuple[int, ...]:
    if wanted is None:
        return allowed
    counts = _counts(wanted, f"{where}: deployment.batch should be a list of batch sizes")
    return allowed if len(allowed) == 1 else tuple(sorted(counts))


def _counts(wanted: Any, right: str) -> set[int]:
    values = wanted if isinstance(wanted, list) else [wanted]
    if not values or not all(isinstance(v, int) and not isinstance(v, bool) and v >= 1 for v in values):
        raise SpecError(f"{right}, not {wanted!r}.")
    return set(values)


def _delays_ms(wanted: Any, where: str) -> tuple[float, ...]:
    """How long the oldest waiting request may wait for others, in milliseconds, ascending."""
    if wanted is None:
        return DELAYS_MS
    values = wanted if isinstance(wanted, list) else [wanted]
    good = all(isinstance(v, (int, float)) and not isinstance(v, bool) and 0 <= v < math.inf for v in values)
    if not values or not good:
        raise SpecError(f"{where}: deployment.max_delay_ms should be a list of milliseconds, not {wanted!r}.")
    return tuple(sorted({float(v) for v in values}))


def _instances(wanted: Any, most: int, where: str) -> tuple[int, ...]:
    """Copies of the model in one server, ascending."""
    if wanted == "auto":
        return tuple(1 << i for i in range(most.bit_length()))
    return tuple(sorted(_counts(wanted, f"{where}: deployment.instances should be auto or a list of counts")))
