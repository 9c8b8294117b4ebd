"""Matching named inputs to what a module's ``forward`` or an exported program takes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from autopilot.errors import ModelError
from autopilot.torch_model.messages import first_line

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram

Array = npt.NDArray[Any]
_KINDS = inspect.Parameter


_VARIADIC = (_KINDS.VAR_POSITIONAL, _KINDS.VAR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Call:
    """How inputs reach the model, in its own order.

    ``names`` are the spec's, ``parameters`` what the model calls them; the first ``positional`` of them are
    passed by place, the rest by name.
    """

    names: tuple[str, ...]
    parameters: tuple[str, ...]
    positional: int

    def arguments(self, feed: Mapping[str, Array]) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """Positional and keyword arguments of one call."""
        import torch

        tensors = [torch.from_numpy(np.ascontiguousarray(feed[name])) for name in self.names]
        return tuple(tensors[: self.positional]), dict(
            zip(self.parameters[self.positional :], tensors[self.positional :], strict=True)
        )


def module_call(module: nn.Module, names: tuple[str, ...]) -> Call:
    """How ``forward`` takes inputs called ``names``: by name, or the only one whatever it is called.

    Raises:
        ModelError: names that it doesn't have, or arguments that nothing is given for.
    """
    parameters = inspect.signature(module.forward).parameters
    named = {n: p for n, p in parameters.items() if p.kind in (_KINDS.POSITIONAL_OR_KEYWORD, _KINDS.KEYWORD_ONLY)}
    required = [n for n, p in parameters.items() if p.default is p.empty and p.kind not in _VARIADIC]
    if set(names) <= set(named) and set(required) <= set(names):
        ordered = tuple(n for n in named if n in names)
        return Call(ordered, ordered, 0)
    if len(names) == 1 and len(required) <= 1 and parameters:
        return Call(names, tuple(named)[:1] or names, 1)
    raise _mismatch(f"forward() of {type(module).__name__} takes", tuple(named), names)


def program_call(program: ExportedProgram, names: tuple[str, ...]) -> Call:
    """As ``module_call``, for an exported program."""
    own = tuple(str(n) for n in program.graph_signature.user_inputs)
    plain, keywords = program.call_spec.in_spec.children()
    if plain.num_leaves + keywords.num_leaves != len(own) or len(keywords.children()) != keywords.num_leaves:
        raise ModelError(
            "the exported program takes nested or non-tensor arguments.", "Export it with one tensor an argument."
        )
    if set(own) == set(names):
        return Call(own, own, plain.num_leaves)
    if len(names) == len(own) == 1:
        return Call(names, own, plain.num_leaves)
    raise _mismatch("the exported program takes", own, names)


def _mismatch(who: str, wanted: tuple[str, ...], names: tuple[str, ...]) -> ModelError:
    return ModelError(
        f"{who} {', '.join(wanted) or 'nothing'}; the spec's inputs are {', '.join(names)}.",
        "Name them so under data.inputs, such as data.inputs: {"
        + ", ".join(f"{n}: {{from: ARRAY}}" for n in wanted[:3])
        + "}.",
    )


def run(call: Call, callable_: Any, feed: Mapping[str, Array]) -> Any:
    """What the model answers to ``feed``.

    Raises:
        ModelError: it fails on real samples.
    """
    import torch

    plain, keywords = call.arguments(feed)
    try:
        with torch.inference_mode():
            return callable_(*plain, **keywords)
    except Exception as exc:  # the user's own code may raise anything
        shown = ", ".join(f"{n}: {feed[n].dtype.name}{list(feed[n].shape)}" for n in call.names)
        raise ModelError(
            f"the model fails on the first samples ({shown}): {type(exc).__name__}: {first_line(exc)}.",
            "Check data.inputs: dtype, scale and which array feeds which input.",
        ) from exc


def named_outputs(answer: Any) -> dict[str, Any]:
    """The tensors of an answer by name: a mapping's keys, or ``output`` (``output_0`` … where there are several).

    Raises:
        ModelError: something else than tensors, or nested.
    """
    import torch

    if isinstance(answer, torch.Tensor):
        return {"output": answer}
    if isinstance(answer, Mapping):
        found = {str(k): v for k, v in answer.items() if v is not None}
    elif isinstance(answer, (tuple, list)):
        found = {f"output_{i}": v for i, v in enumerate(v for v in answer if v is not None)}
        found = {"output": answer[0]} if len(found) == 1 and answer[0] is not None else found
    else:
        found = {}
    if not found or not all(isinstance(v, torch.Tensor) for v in found.values()):
        raise ModelError(
            f"the model answers with a {type(answer).__name__} that is no tensor, tuple or dict of tensors.",
            "Wrap it in a module whose forward() returns tensors.",
        )
    return found
