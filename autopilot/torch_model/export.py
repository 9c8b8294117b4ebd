"""PyTorch -> ONNX through the dynamo exporter, with a free batch where the model allows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from autopilot.errors import ModelError
from autopilot.torch_model.calling import Call, module_call, named_outputs, program_call, run
from autopilot.torch_model.messages import first_line, root_line
from autopilot.torch_model.quiet import quiet

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import nn
    from torch.export import ExportedProgram

Array = npt.NDArray[Any]

# Opset 18 is the exporter's oldest; its later ones split fewer operators but fewer quantizers know those.
OPSET = 18
BATCH = "batch"
# Two float32 computations of the same, in another order: 1e-6 of the largest output is usual, 1e-1 is another graph.
RTOL, ATOL = 1e-4, 1e-5


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and what PyTorch itself answers to the samples it was written with.

    ``batch``: the fixed number of samples in a run, None where any number runs. ``feed`` and ``expected``:
    model inputs and outputs by name. ``note``: what the user should know, or empty.
    """

    batch: int | None
    feed: Mapping[str, Array]
    expected: Mapping[str, Array]
    note: str = ""


def export_onnx(
    model: nn.Module | ExportedProgram,
    feed: Mapping[str, Array],
    per_sample: tuple[str, ...],
    target: Path,
    *,
    call: Call | None = None,
) -> Exported:
    """Write ``model`` as the ONNX file ``target`` whose inputs are called as in ``feed``.

    ``feed``: real inputs, those of ``per_sample`` with the sample as first dimension; ``call`` says how a module
    or a program takes them where their names don't. Outputs are called
    by the keys of the dict that the model answers with, else ``output``, or ``output_0`` and so on.

    Raises:
        ModelError: the inputs don't fit ``forward``, it fails on them, or the exporter can't take the model.
    """
    from torch.export import ExportedProgram

    if isinstance(model, ExportedProgram):
        return _export_program(model, call or program_call(model, tuple(feed)), feed, per_sample, target)
    call = call or module_call(model, tuple(feed))
    samples = len(feed[per_sample[0]]) if per_sample else 1
    answer = named_outputs(run(call, model, feed))
    expected = {name: value.numpy() for name, value in answer.items()}
    one = rows(feed, per_sample, 1)
    alone = {name: value.numpy() for name, value in named_outputs(run(call, model, one)).items()}
    note = ""
    if per_sample and samples > 1:
        reason = _depends_on_batch(expected, alone, samples)
        if reason is None:
            reason = _attempt(model, call, rows(feed, per_sample, 2), per_sample, tuple(answer), target)
        if reason is None:
            return Exported(None, feed, expected)
        note = f"the export takes 1 sample a request, their number can't be left free: {reason.rstrip('.')}"
    reason = _attempt(model, call, one, (), tuple(answer), target)
    if reason is not None:
        raise _refused(reason)
    return Exported(1 if per_sample else None, one, alone, note)


def _depends_on_batch(together: Mapping[str, Array], alone: Mapping[str, Array], samples: int) -> str | None:
    """Why samples can't share a run: the model's own answer to the first one is another when it comes alone.

    A trace holds one of the two, whichever it was taken with, and the exporter doesn't complain.
    """
    for name, value in together.items():
        if value.shape[:1] == (samples,) and not _close(value[:1], alone[name]):
            return f"its output {name!r} for a sample depends on how many samples there are"
    return None


def _close(a: Array, b: Array) -> bool:
    if a.shape != b.shape or a.dtype.kind not in "fc":
        return a.shape == b.shape
    return bool(
        np.allclose(a, b, rtol=0.0, atol=ATOL + RTOL * float(np.nanmax(np.abs(a), initial=0.0)), equal_nan=True)
    )


def _attempt(
    model: nn.Module,
    call: Call,
    feed: Mapping[str, Array],
    per_sample: tuple[str, ...],
    outputs: tuple[str, ...],
    target: Path,
) -> str | None:
    """Trace ``model`` with a free first dimension of ``per_sample`` and write it; the reason where that fails."""
    program, reason = _traced(model, call, feed, per_sample)
    return _write(program, call, outputs, target) if program is not None else reason


def _export_program(
    program: ExportedProgram, call: Call, feed: Mapping[str, Array], per_sample: tuple[str, ...], target: Path
) -> Exported:
    batch = _program_batch(program, call, per_sample)
    taken = rows(feed, per_sample, batch) if batch is not None else feed
    answer = named_outputs(run(call, program.module(), taken))
    reason = _write(program, call, tuple(answer), target)
    if reason is not None:
        raise _refused(reason)
    expected = {name: value.detach().numpy() for name, value in answer.items()}
    note = f"the program was exported for {batch} samples a request; only so many run" if batch is not None else ""
    return Exported(batch, taken, expected, note)


def _program_batch(program: ExportedProgram, call: Call, per_sample: tuple[str, ...]) -> int | None:
    """The number of samples that an exported program is fixed to; None where it is free."""
    shapes = {n.name: n.meta["val"].shape for n in program.graph.nodes if n.op == "placeholder" and "val" in n.meta}
    for name, parameter in zip(call.names, call.parameters, strict=True):
        if name in per_sample and isinstance(shapes[parameter][0], int):
            return int(shapes[parameter][0])
    return None


def rows(feed: Mapping[str, Array], per_sample: tuple[str, ...], count: int) -> dict[str, Array]:
    """``feed`` with exactly ``count`` samples, from the first on, taken again where there are fewer."""
    return {n: np.resize(v, (count, *v.shape[1:])) if n in per_sample else v for n, v in feed.items()}


def _traced(
    model: nn.Module, call: Call, feed: Mapping[str, Array], per_sample: tuple[str, ...]
) -> tuple[ExportedProgram | None, str | None]:
    """The traced program with a free first dimension of ``per_sample``, or why there is none."""
    import torch

    plain, keywords = call.arguments(feed)
    batch = torch.export.Dim(BATCH)
    free = {p: {0: batch} if n in per_sample else None for n, p in zip(call.names, call.parameters, strict=True)}
    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(model, plain, keywords, dynamic_shapes=free if per_sample else None)
    except Exception as exc:  # tracing runs the user's code and raises whatever it or torch can't do
        return None, first_line(exc)
    return program, None


def _write(program: ExportedProgram, call: Call, outputs: tuple[str, ...], target: Path) -> str | None:
    """Write the program as ONNX; the reason where the exporter fails."""
    import torch

    try:
        with quiet():
            written = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=list(call.names),
                output_names=list(outputs),
            )
        assert written is not None
        written.save(str(target), external_data=False)
    except Exception as exc:  # the exporter's own types, and those of the graph passes that it runs
        return root_line(exc)
    _tidy(target)
    return None


def _tidy(target: Path) -> None:
    """Name the free dimension, and drop traces of this machine's source files and stale shapes."""
    import onnx

    model = onnx.load_model(str(target), load_external_data=False)
    _name_batch(model)
    for holder in (model, model.graph, *model.graph.node, *model.graph.initializer, *model.graph.input):
        del holder.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
    del model.graph.value_info[:]
    target.write_bytes(model.SerializeToString(deterministic=True))


def _name_batch(model: ModelProto) -> None:
    """Call the one symbol that stands first in an input ``batch``, wherever it stands."""
    symbols = {i.type.tensor_type.shape.dim[0].dim_param for i in model.graph.input if i.type.tensor_type.shape.dim}
    symbols -= {""}
    if len(symbols) != 1:
        return
    (symbol,) = symbols
    for info in (*model.graph.input, *model.graph.output):
        for dim in info.type.tensor_type.shape.dim:
            if dim.dim_param == symbol:
                dim.dim_param = BATCH


def _refused(reason: str) -> ModelError:
    return ModelError(
        f"the PyTorch model can't be exported to ONNX: {reason.rstrip('.')}.",
        "torch.export takes no control flow that depends on values: see docs/torch-models.md.",
    )
