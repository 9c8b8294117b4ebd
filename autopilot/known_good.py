"""Where a search starts: what plug-ins recommend for this machine, provider by provider."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

from autopilot.contracts import Slot
from autopilot.domain import Scalar, nearest
from autopilot.recipe import Deployment, Recipe, Step, Variant, params_of

if TYPE_CHECKING:
    from autopilot.space import SearchSpace
    from autopilot.target import Target


def known_good(space: SearchSpace, target: Target) -> Iterator[Variant]:
    """Recommended variants, the best of each provider in turn: which of them is faster is what has to be found out.

    The model as given in its default deployment on the first provider is the baseline and not among them; on
    every other provider it is, after the first recipe: a search of few trials is for recipes.
    """
    first, *others = space.providers
    lists = [_on(space, target.running(first))]
    for name in others:
        best, *rest = (*_on(space, target.running(name)), None)
        given = Variant(Recipe(), space.default_deployment(name))
        lists.append(tuple(v for v in (best, given, *rest) if v is not None))
    for row in zip_longest(*lists):
        yield from (variant for variant in row if variant is not None)


def _on(space: SearchSpace, target: Target) -> tuple[Variant, ...]:
    """Variants for ``target.provider``: each technique's best first, then pairs, then each technique's others.

    Of techniques, and of pairs, those that time things while they build come last: the first of them takes as long
    as several others together, which a short search, or one over several providers, can't spare.

    Where requests may be batches, those of a middling size: they gain most of what batching gives.
    Where several instances may serve, also as many as there are cores for.
    """
    usual = space.default_deployment(target.provider)
    deployment = usual.with_(batch=space.batches[len(space.batches) // 2])
    given = [Variant(Recipe(), deployment)] if deployment != usual else []
    return (*given, *_instances(space, usual), *(Variant(r, deployment) for r in _recipes(space, target)))


def _instances(space: SearchSpace, usual: Deployment) -> Iterator[Variant]:
    fewest = min(space.threads)
    most = max(space.fitting(fewest))
    if most > usual.instances:
        yield Variant(Recipe(), usual.with_(threads=fewest, instances=most))


def _recipes(space: SearchSpace, target: Target) -> Iterable[Recipe]:
    singles = {name: _preferred(space, name, target) for name in space.techniques}
    quick, trained = _by_pace(space, target, singles)
    last = [name for name in quick if space.techniques[name][0].slot in (Slot.GRAPH, Slot.PRECISION)]
    precision = [name for name in last if space.techniques[name][0].slot is Slot.PRECISION]
    precision.sort(key=lambda n: space.techniques[n][0].machine_bound)
    graph = [name for name in last if name not in precision]
    early = [name for name in quick if name not in last]
    for name in sorted([*precision, *graph, *early], key=lambda n: space.techniques[n][0].machine_bound):
        yield Recipe((singles[name][0],))
    for name in sorted(trained, key=lambda n: space.techniques[n][0].work(dict(singles[n][0].params))):
        yield _topped(space, singles, name, precision)
    for first in graph:
        for second in precision:
            yield Recipe((singles[first][0], singles[second][0]))
    for name in [*precision, *graph]:
        for step in singles[name][1:]:
            yield Recipe((step,))


def parents(space: SearchSpace, target: Target) -> list[tuple[Step, ...]]:
    """What plug-ins recommend to do to the model before its graph is touched: each step, then all that go together.

    They take minutes where they train, so that a search starts with what comes after them alone, and puts them
    before what turned out to be good there.
    """
    found: list[tuple[Step, ...]] = []
    for slot in Slot:
        if slot is Slot.GRAPH:
            break
        steps = preferred(space, slot, target)
        found += [(*before, step) for before in [(), *found] for step in steps]
    return found


def preferred(space: SearchSpace, slot: Slot, target: Target) -> list[Step]:
    """What plug-ins recommend for one slot."""
    return [step for name in space.slot(slot, target.provider) for step in _preferred(space, name, target)]


def _by_pace(
    space: SearchSpace, target: Target, singles: Mapping[str, Sequence[Step]]
) -> tuple[Sequence[str], Sequence[str]]:
    """The techniques with something to recommend: those built in seconds, and those that train."""
    names = [n for slot in Slot for n in space.slot(slot, target.provider) if singles[n]]
    trained = [n for n in names if space.techniques[n][0].needs_training]
    return [n for n in names if n not in trained], trained


def _topped(space: SearchSpace, singles: Mapping[str, Sequence[Step]], name: str, precision: Sequence[str]) -> Recipe:
    """A trained step, with the best precision after it where its own slot isn't that one."""
    step = singles[name][0]
    if space.techniques[name][0].slot is Slot.PRECISION or not precision:
        return Recipe((step,))
    return Recipe((step, singles[precision[0]][0]))


def _preferred(space: SearchSpace, name: str, target: Target) -> list[Step]:
    """What a technique recommends, as far as the space has it; else what comes nearest to it there."""
    technique, _ = space.techniques[name]
    domains = space.domains(name, target.provider)
    steps: list[Step] = []
    beside: list[tuple[int, dict[str, Scalar]]] = []
    for wanted in technique.prefer(target):
        values = {k: d.default for k, d in domains.items()} | dict(wanted)
        outside = [k for k, v in values.items() if k not in domains or not domains[k].contains(v)]
        if outside:
            beside.append((len(outside), {k: nearest(d, values[k]) for k, d in domains.items()}))
            continue
        step = Step(name, params_of(technique.normalise(values)))
        if step not in steps:
            steps.append(step)
    if not steps and beside:  # a space that asks for other values wants the technique all the same: once
        values = min(beside, key=lambda found: found[0])[1]
        steps.append(Step(name, params_of(technique.normalise(values))))
    return steps
