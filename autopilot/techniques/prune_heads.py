"""Heads and feed-forward neurons of transformers removed without training, the rest refitted by least squares."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autopilot.contracts import Array, BuildContext, Slot, Technique
from autopilot.domain import Choice, Domain, Float, Scalar
from autopilot.errors import Unsupported
from autopilot.recipe import Recipe
from autopilot.techniques import _gate, _onnx
from autopilot.techniques._rules import already_quantized
from autopilot.techniques._text import first_line
from autopilot.techniques._units import Block, Graph, NotUnits
from autopilot.techniques._units_choice import Options, choose, most_important, rearranged
from autopilot.techniques._units_cost import milliseconds, multiplications
from autopilot.techniques._units_cut import cut, mask_name, masked
from autopilot.techniques._units_fit import Fit, enough, refit
from autopilot.techniques._units_run import graph_of
from autopilot.techniques._units_trace import find_blocks
from autopilot.torch_model import INSTALL, from_onnx, missing
from autopilot.torch_model.export import ATOL, RTOL
from autopilot.torch_model.fisher import Gradients, Masked

if TYPE_CHECKING:
    from autopilot.data import Split
    from autopilot.target import Target

_NONE = "it has no attention heads or feed-forward neurons that can be removed without changing anything else."
_CHECKED = 8  # requests on which the pruned file is compared with the masked network
_LEAST_REQUESTS = 8  # below, neither what matters nor what is missing can be told


def apply(source: Path, target_folder: Path, params: Mapping[str, Scalar], context: BuildContext) -> None:
    """Write the pruned model.

    ``params``: keep, cost, parts, round_to, rearrange, refit, samples.

    Raises:
        Unsupported: torch or samples are missing, the model can't be converted, it is quantized, or has nothing
            that can be removed at this rounding.
        VariantFailed: WRONG_NUMERICS where the pruned file answers otherwise than the masked network.
    """
    lacking = missing("torch")
    if lacking is not None:
        raise Unsupported(lacking, INSTALL)
    model = _onnx.load(source)
    _onnx.refuse_quantized(model)
    _onnx.refuse_half(model)
    if _onnx.stored_bytes(model) > _onnx.EXTERNAL_ABOVE_BYTES:
        raise Unsupported("its weights need a file of their own, which this technique doesn't take apart.")
    samples = _Samples.of(source, context, int(str(params["samples"])))
    graph = graph_of(_onnx.prepare_for_quantization(model), samples.feed(0), context.threads)
    blocks = [b for b in find_blocks(graph) if params["parts"] in ("both", "heads" if b.is_attention else "neurons")]
    if not blocks:
        raise Unsupported(_NONE)
    context.tell(f"pruning: what each unit of {len(blocks)} blocks matters, on {len(samples)} requests")
    network = _network(graph, blocks, source, samples, context)
    felt = network.gradients(samples.labelled(), context.metric_is_classification, [b.inner for b in blocks])
    try:
        kept = _kept(graph, blocks, felt, params, samples.feed(0), context)
        pruned = cut(graph, blocks, kept)
    except NotUnits as exc:
        raise Unsupported(f"a shape in it doesn't follow the number of heads or neurons ({exc}).") from exc
    if all(len(k) == b.units for k, b in zip(kept, blocks, strict=True)):
        raise Unsupported(f"keeping {params['keep']} of the cost, in steps of {params['round_to']}, removes nothing.")
    target = target_folder / _onnx.MODEL
    _onnx.save(pruned, target)
    _check(target, network, [_mask(b, k) for b, k in zip(blocks, kept, strict=True)], samples, context)
    if params["refit"] != "none":
        context.tell("pruning: refitting what is left")
        left = [len(k) * b.inner for k, b in zip(kept, blocks, strict=True)]
        weights = [enough(_row_weights(g.rows), n) for g, n in zip(felt, left, strict=True)]
        refit(graph, blocks, kept, pruned, Fit(samples, weights, params["refit"] == "units", context.threads))
        _onnx.save(pruned, target)


@dataclass(frozen=True, slots=True)
class _Samples:
    """Requests of ``size`` samples each out of ``split``: ``count`` of them."""

    split: Split
    size: int
    count: int

    @classmethod
    def of(cls, source: Path, context: BuildContext, wanted: int) -> _Samples:
        split = context.train if context.train is not None else context.calibration
        if split is None:
            raise Unsupported("it takes samples to tell what matters, and there are none.", "Add data.train.")
        size = _gate.fixed_batch(_gate.session(source, context.threads), split) or 1
        count = min(wanted, split.n) // size
        if count < _LEAST_REQUESTS:
            raise Unsupported(f"it takes {_LEAST_REQUESTS} requests of {size} samples, there are {split.n} samples.")
        return cls(split, size, count)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Mapping[str, Array]]:
        return (self.feed(i) for i in range(self.count))

    def _indices(self, number: int) -> list[int]:
        return list(range(number * self.size, (number + 1) * self.size))

    def feed(self, number: int) -> Mapping[str, Array]:
        return self.split.feed(self._indices(number))

    def labelled(self) -> Iterator[tuple[Mapping[str, Array], Any]]:
        labels = self.split.labels
        return ((f, labels[self._indices(i)] if labels is not None else None) for i, f in enumerate(self))


def _network(graph: Graph, blocks: Sequence[Block], source: Path, samples: _Samples, context: BuildContext) -> Masked:
    """The model as a PyTorch network with masks, checked against the file."""
    names = [mask_name(i) for i in range(len(blocks))]
    with tempfile.TemporaryDirectory(dir=context.scratch) as folder:
        path = Path(folder) / _onnx.MODEL
        _onnx.save(masked(graph, blocks, [np.ones(b.width) for b in blocks]), path)
        network = Masked.of(from_onnx(path), names, graph.model.graph.output[0].name, context.threads)
    _same(source, network, samples, context, count=2)
    return network


def _kept(
    graph: Graph,
    blocks: Sequence[Block],
    felt: Sequence[Gradients],
    params: Mapping[str, Scalar],
    feed: Mapping[str, Array],
    context: BuildContext,
) -> list[Array]:
    """The units that stay, ascending int64 indices a block."""
    if params["cost"] == "milliseconds":
        costs = milliseconds(graph, blocks, feed, context.threads, context.tell)
    else:
        costs = multiplications(graph, blocks)
    importance = [(g.units**2).mean(0) for g in felt]
    step = int(str(params["round_to"]))
    options = [
        Options.of(i, c, 1 if b.is_attention else step) for b, i, c in zip(blocks, importance, costs, strict=True)
    ]
    counts = choose(options, float(str(params["keep"])) * sum(float(c[-1]) for c in costs))
    kept = [most_important(i, n) for i, n in zip(importance, counts, strict=True)]
    if not params["rearrange"]:
        return kept
    return [rearranged(g.units, k) for g, k in zip(felt, kept, strict=True)]


def _mask(block: Block, kept: Array) -> Array:
    return np.repeat(np.isin(np.arange(block.units), kept), block.inner).astype(np.float32)


def _row_weights(rows: Sequence[Array]) -> list[Array]:
    """How much a row (a token) counts: by what the loss feels of it, so that padding counts nothing."""
    return [np.sqrt(r) for r in rows]


def _check(target: Path, network: Masked, masks: Sequence[Array], samples: _Samples, context: BuildContext) -> None:
    network.put_on(masks)
    _same(target, network, samples, context, count=_CHECKED)


def _same(path: Path, network: Masked, samples: _Samples, context: BuildContext, *, count: int) -> None:
    """Raise unless the file answers as the network does."""
    runner = _gate.session(path, context.threads)
    names = _gate.tensor_outputs(runner)
    for number in range(min(count, len(samples))):
        feed = samples.feed(number)
        try:
            answers = network.answers(feed)
        except (RuntimeError, ValueError, IndexError, TypeError) as exc:
            raise Unsupported(f"the converted model doesn't run ({first_line(exc)}).") from exc
        for name, got in zip(names, runner.run(names, _gate.feed_for(runner, feed)), strict=True):
            _gate.difference(name, answers[name], got, RTOL, ATOL)


def available(target: Target) -> str | None:
    """None, or which package is missing."""
    return missing("torch")


def refuses(earlier: Recipe, params: Mapping[str, Scalar]) -> str | None:
    """Integer weights can't be refitted."""
    late = already_quantized(earlier)
    return f"{late}; pruning comes first" if late else None


PARAMETERS: Mapping[str, Domain] = {
    "keep": Float(0.2, 0.95, 0.75),
    "cost": Choice(("milliseconds", "multiplications")),
    "parts": Choice(("both", "heads", "neurons")),
    # int8 kernels take 16 columns at once; other widths are padded.
    "round_to": Choice((16, 32, 8, 1)),
    "rearrange": Choice((True, False)),
    "refit": Choice(("weights", "units", "none")),
    "samples": Choice((512, 128, 2048)),
}

TECHNIQUE = Technique(
    name="prune_heads",
    slot=Slot.STRUCTURE,
    version=1,
    parameters=PARAMETERS,
    apply=apply,
    summary="attention heads and feed-forward neurons removed, the rest refitted without training (needs torch)",
    libraries=("torch", "onnx", "onnxruntime"),
    needs_calibration=True,
    needs_training=True,
    on_by_default=False,
    machine_bound=True,
    available=available,
    prefer=lambda target: ({"keep": 0.75}, {"keep": 0.85}),
    refuses=refuses,
    # Gradients of hundreds of requests, timing of parts, a refit of each block.
    work=lambda params: 12.0,
)
