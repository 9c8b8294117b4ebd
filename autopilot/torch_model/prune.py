"""Structured channel pruning with Torch-Pruning: which groups can be pruned, how much of each, and doing it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from autopilot.errors import Unsupported
from autopilot.torch_model.messages import first_line
from autopilot.torch_model.quiet import quiet
from autopilot.torch_model.trials import Known, Trials, parameters

if TYPE_CHECKING:
    from torch import Tensor, nn

# With fewer channels left in a layer than this share, a network was never seen to recover.
LARGEST_RATIO = 0.9
# A divergence of nothing would ask for all channels of a group.
_LEAST_DIVERGENCE = 1e-6
# Scopes that give every group a ratio of its own.
APART = ("sensitive", "latency")
NOTHING = "it has no channels that can be removed without changing its inputs or outputs."


@dataclass(frozen=True, slots=True)
class Plan:
    """What to prune: ``ratio`` of all channels on average (of the latency, where that is the scope).

    ``importance``: taylor, magnitude or bn_scale. ``scope``: uniform (the ratio in every group), global
    (channels of all groups in one ranking), isomorphic (one ranking a kind of group) sensitive (more where
    the answers change less) or latency (each group as it was measured). Channels left are a multiple of ``round_to``.
    """

    ratio: float
    importance: str
    scope: str
    round_to: int


@dataclass(frozen=True, slots=True)
class Pruner:
    """Prunes modules: ``inputs`` are the arguments of one call with two real samples, by place or by name.

    ``answers(module)`` gives the first output on some samples, shape (n, …); ``shapes(module)`` those of all
    outputs; ``settle(module)`` re-estimates batch-norm statistics; ``gradients(module)`` leaves the gradients of
    the loss in the parameters.
    """

    inputs: tuple[Any, ...] | Mapping[str, Any]
    answers: Callable[[nn.Module], Tensor]
    shapes: Callable[[nn.Module], Any]
    settle: Callable[[nn.Module], None]
    gradients: Callable[[nn.Module], None]

    def open(self, module: nn.Module, plan: Plan) -> Trials:
        """Copies of ``module`` to be cut as ``plan`` says.

        Raises:
            Unsupported: no group of channels can be removed, or Torch-Pruning can't trace the module.
        """
        if not any(isinstance(m, _prunable()) for m in module.modules()):
            raise Unsupported(NOTHING)
        known = Known(self._groups(module), self._gradients(module, plan))
        return Trials(self, module, plan, known, self.answers(module), self.shapes(module))

    def prune(self, module: nn.Module, plan: Plan) -> nn.Module:
        """A pruned copy of ``module``, neither trained nor with settled statistics.

        Raises:
            Unsupported: no group of channels can be removed, or none is left to remove at this rounding.
        """
        trials = self.open(module, plan)
        sensitivity = _sensitivity(trials)
        if not sensitivity:
            raise Unsupported(NOTHING)
        out = copy.deepcopy(module)
        self.step(out, plan, _ratios(sensitivity, plan), trials.known)
        if parameters(out) == parameters(module):
            raise Unsupported(f"a ratio of {plan.ratio:g} removes no {plan.round_to} channels of any layer.")
        out.zero_grad(set_to_none=True)
        return out

    def _gradients(self, module: nn.Module, plan: Plan) -> Mapping[str, Tensor]:
        """The loss's gradients by parameter, where the importance needs them; copies of a module don't keep theirs."""
        if plan.importance != "taylor":
            return {}
        self.gradients(module)
        found = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
        module.zero_grad(set_to_none=True)
        return found

    def _groups(self, module: nn.Module) -> dict[str, set[str]]:
        """The layers whose channels go together, all by name, by the first layer of each group.

        Raises:
            Unsupported: Torch-Pruning can't trace the module.
        """
        import torch_pruning

        names = {m: name for name, m in module.named_modules()}
        try:
            with quiet():
                graph = torch_pruning.DependencyGraph().build_dependency(module, self.inputs)
                groups = list(graph.get_all_groups(root_module_types=_prunable()))
        except (RuntimeError, ValueError, TypeError, AttributeError, KeyError, IndexError, AssertionError) as exc:
            raise Unsupported(f"Torch-Pruning can't follow its channels ({first_line(exc)}).") from exc
        found: dict[str, set[str]] = {}
        for group in groups:
            along = {dep.target.module for dep, _ in group if graph.is_out_channel_pruning_fn(dep.handler)}
            found[names[group[0].dep.target.module]] = {names[m] for m in along if m in names}
        return found

    def step(self, module: nn.Module, plan: Plan, ratios: Mapping[str, float], known: Known) -> None:
        """Prune ``module``, a fresh copy, in place: the groups of ``ratios`` only."""
        import torch_pruning

        layers = dict(module.named_modules())
        for name, parameter in module.named_parameters():
            parameter.grad = known.gradients[name].clone() if name in known.gradients else None
        # Layers that are pruned along with a chosen one can't be ignored.
        kept = {name for root in ratios for name in known.groups[root]} | set(ratios)
        ignored = [m for name, m in layers.items() if isinstance(m, _prunable()) and name not in kept]
        with quiet():
            pruner = torch_pruning.pruner.BasePruner(
                module,
                self.inputs,
                importance=_importance(plan.importance, module),
                global_pruning=plan.scope in ("global", "isomorphic"),
                isomorphic=plan.scope == "isomorphic",
                pruning_ratio=plan.ratio,
                pruning_ratio_dict={layers[n]: r for n, r in ratios.items()} if plan.scope in APART else {},
                max_pruning_ratio=LARGEST_RATIO,
                round_to=plan.round_to if plan.round_to > 1 else None,
                ignored_layers=ignored,
                # Torch-Pruning's defaults are dicts shared by all pruners, which would keep every copy alive.
                in_channel_groups={},
                out_channel_groups={},
                num_heads={},
            )
            pruner.step()


def _prunable() -> tuple[type, ...]:
    from torch import nn

    return (nn.modules.conv._ConvNd, nn.Linear)


def _importance(kind: str, module: nn.Module) -> Any:
    import torch_pruning
    from torch import nn

    if kind == "taylor":
        return torch_pruning.importance.GroupTaylorImportance()
    if kind == "magnitude":
        return torch_pruning.importance.GroupMagnitudeImportance(p=2)
    if not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in module.modules()):
        raise Unsupported("it has no batch norm whose scale could tell what matters (an ONNX export folds them).")
    return torch_pruning.importance.BNScaleImportance()


def _sensitivity(trials: Trials) -> dict[str, float]:
    """How far the answers move, by the name of a group's first layer, when that group alone is pruned.

    Groups whose removal breaks the network or changes its outputs are left out.
    """
    found: dict[str, float] = {}
    for name in trials.groups:
        trial = trials.cut({name: trials.plan.ratio})
        moved = None if trial is None else trials.divergence(trial)
        if moved is not None:
            found[name] = moved
    return found


def _ratios(sensitivity: Mapping[str, float], plan: Plan) -> dict[str, float]:
    """The share to remove of each group: one for all, or more where pruning changes the answers less.

    >>> _ratios({"a": 0.1, "b": 0.1}, Plan(0.5, "taylor", "sensitive", 1))
    {'a': 0.5, 'b': 0.5}
    """
    names = list(sensitivity)
    if plan.scope != "sensitive":
        return dict.fromkeys(names, plan.ratio)
    weights = np.array([1.0 / np.sqrt(max(sensitivity[n], _LEAST_DIVERGENCE)) for n in names])
    shares = np.full(len(names), plan.ratio)
    for _ in range(20):  # what the cap takes from one group goes to the others
        free = shares < LARGEST_RATIO
        left = plan.ratio * len(names) - shares[~free].sum()
        if not free.any() or not np.any(weights[free]):
            break
        fresh = shares.copy()
        fresh[free] = left * weights[free] / weights[free].sum()
        fresh = np.clip(fresh, 0.0, LARGEST_RATIO)
        if np.allclose(fresh, shares):
            break
        shares = fresh
    return {n: float(s) for n, s in zip(names, shares, strict=True)}
