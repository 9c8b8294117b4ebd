"""SearchSpace: everything that may be combined, and how a Variant is drawn from it; ``space_file`` makes one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from autopilot.contracts import Slot, Technique
from autopilot.domain import Choice, Domain, Scalar
from autopilot.known_good import known_good
from autopilot.needs import NotTried
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
