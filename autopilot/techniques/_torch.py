"""What techniques on PyTorch modules share: getting the module, writing it as ONNX, and the numerical check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopilot.artifact import sha256_file
from autopilot.contracts import Array, BuildContext
from autopilot.errors import ModelError, Unsupported
from autopilot.techniques import _gate
from autopilot.techniques._text import first_line
from autopilot.torch_model import INSTALL, export_onnx, from_onnx, load_source, missing, records
from autopilot.torch_model.calling import Call, module_call, named_outputs
from autopilot.torch_model.export import ATOL, RTOL, Exported

if TYPE_CHECKING:
    from torch import nn

    from autopilot.data import Split
    from autopilot.spec import TorchSource

# Samples that a new module is written and checked with.
_SAMPLES = 16


@dataclass(frozen=True, slots=True)
class Source:
    """The module that a technique starts from, and how it takes the model's inputs."""

    module: nn.Module
    call: Call


def training_data(context: BuildContext) -> Split:
    """The training split.

    Raises:
        Unsupported: there is none, or its samples don't come in batches.
    """
    if context.train is None:
        raise Unsupported("it trains, and the spec names no training data.", "Add data.train.")
    if not context.train.batched:
        raise Unsupported("it trains in batches, and data.batched is false.")
    return context.train


def module_of(source: Path, context: BuildContext, *needed: str) -> Source:
    """The module that ``source`` was exported from: the user's own, or what a structural step made of it.

    The user's code builds the model as given; of a file that ``write`` made with a context there is a record how
    its module differs. Everything else is made of the ONNX file itself, in which batch norms are folded.

    Raises:
        Unsupported: torch (or one of ``needed``) isn't installed, or the ONNX file can't be converted.
        VariantFailed: WRONG_NUMERICS where what was converted answers otherwise.
    """
    lacking = missing("torch", "onnxscript", *needed)
    if lacking is not None:
        raise Unsupported(lacking, INSTALL)
    _limit_threads(context)
    split = training_data(context)
    if context.torch_source is not None and context.torch_source.code is not None:
        own = _own(source, context, context.torch_source, split)
        if own is not None:
            return own
    return converted(source, split, context)


def converted(source: Path, split: Split, context: BuildContext) -> Source:
    """The module made of the ONNX file alone: whoever has the file gets the same; ``split`` only checks its answers.

    Raises:
        Unsupported: the file can't be converted, or what it becomes doesn't run.
        VariantFailed: WRONG_NUMERICS where it answers otherwise.
    """
    _limit_threads(context)
    made = from_onnx(source)
    _check_converted(source, made.outputs, split, context)
    return Source(made.module, made.call)


def _limit_threads(context: BuildContext) -> None:
    import importlib

    importlib.import_module("torch").set_num_threads(context.threads)


def is_given(source: Path, context: BuildContext) -> bool:
    """Whether ``source`` is the model as given; a context that names none has no other."""
    return context.model is None or sha256_file(source) == sha256_file(context.model)


def _own(source: Path, context: BuildContext, code: TorchSource, split: Split) -> Source | None:
    """The user's own module, as it is or as recorded; None where no record tells how ``source`` came about."""
    if is_given(source, context):
        module = load_source(code)
        return Source(module, module_call(module, tuple(split.feed([0]))))
    path = records.home(context.scratch, sha256_file(source))
    if not path.is_file():
        return None
    module = records.rebuild(load_source(code), path)
    if module is None:
        return None
    call = module_call(module, tuple(split.feed([0])))

    def outputs(feed: Mapping[str, Array]) -> Mapping[str, Any]:
        plain, keywords = call.arguments(feed)
        return named_outputs(module(*plain, **keywords))

    _check_converted(source, outputs, split, context)
    return Source(module, call)


def _check_converted(source: Path, outputs: Any, split: Split, context: BuildContext) -> None:
    """Refuse a conversion that doesn't answer as the file does, with several samples at once."""
    runner = _gate.session(source, context.threads)
    names = _gate.tensor_outputs(runner)
    size = _gate.fixed_batch(runner, split) or 2
    feed = split.feed([i % split.n for i in range(size)])
    try:
        answers = {name: value.detach().numpy() for name, value in outputs(feed).items()}
    except (RuntimeError, ValueError, IndexError, TypeError) as exc:
        raise Unsupported(f"the converted model doesn't run ({first_line(exc)}).") from exc
    for name, expected in zip(names, runner.run(names, _gate.feed_for(runner, feed)), strict=True):
        _gate.difference(name, expected, answers[name], RTOL, ATOL)


def write(module: nn.Module, call: Call, split: Split, target: Path, context: BuildContext | None = None) -> None:
    """Write ``module`` as ``target``, checked against itself.

    With ``context`` a record of the module is kept beside its scratch, so that a later step goes on with it.

    Raises:
        Unsupported: it can't be exported.
        VariantFailed: WRONG_NUMERICS where the file answers otherwise.
    """
    count = min(_SAMPLES, split.n)
    feed = split.feed(list(range(count)))
    one = split.feed([0])
    per_sample = tuple(n for n, v in feed.items() if v.shape[:1] != one[n].shape[:1] or v.shape[:1] == (count,))
    try:
        exported = export_onnx(module, feed, per_sample, target, call=call)
        check_export(target, exported, per_sample)
    except ModelError as exc:
        raise Unsupported(exc.message, exc.hint) from exc
    code = context.torch_source.code if context is not None and context.torch_source is not None else None
    if context is not None and code is not None and not records.is_graph(module):
        records.keep(module, records.home(context.scratch, sha256_file(target)))


def check_export(target: Path, exported: Exported, per_sample: tuple[str, ...]) -> None:
    """Compare ONNX Runtime's answers with PyTorch's, all samples at once and, with a free batch, the first two alone.

    Raises:
        ModelError: an input is missing.
        VariantFailed: WRONG_NUMERICS where an output differs by more than the tolerances.
    """
    runner = _gate.session(target)
    lost = set(exported.feed) - {i.name for i in runner.get_inputs()}
    if lost:
        raise ModelError(f"the exported model lost its input {sorted(lost)[0]!r}.", "Does forward() use it?")
    names = list(exported.expected)
    requests: list[tuple[slice, Mapping[str, Array]]] = [(slice(None), exported.feed)]
    if per_sample and exported.batch is None:
        requests += [(slice(i, i + 1), _picked(exported.feed, per_sample, i)) for i in range(2)]
    samples = len(exported.feed[per_sample[0]]) if per_sample else None
    for rows, feed in requests:
        whole = rows == slice(None)
        for name, got in zip(names, runner.run(names, dict(feed)), strict=True):
            expected = exported.expected[name]
            if whole:
                _gate.difference(name, expected, got, RTOL, ATOL)
            elif expected.shape[:1] == (samples,):  # other outputs have no row a sample
                _gate.difference(name, expected[rows], got, RTOL, ATOL)


def _picked(feed: Mapping[str, Array], per_sample: tuple[str, ...], index: int) -> dict[str, Array]:
    return {name: v[index : index + 1] if name in per_sample else v for name, v in feed.items()}
