"""``autopilot init``: a commented starter spec from a model and, where given, its samples."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from autopilot.data.sources import open_source
from autopilot.errors import BadInput
from autopilot.init.match import Findings, described, study, without_data, word
from autopilot.init.refusals import MARGIN, refusals
from autopilot.init.torch_starter import torch_starter
from autopilot.model import inspect
from autopilot.spec import TorchSource

if TYPE_CHECKING:
    from autopilot.model import ModelInfo


def write_starter(model: Path | TorchSource, data: Path | None, output: Path, *, force: bool = False) -> list[str]:
    """Write a starter spec to ``output``; returns what the user has to look at, as sentences.

    Raises:
        BadInput: the model or the data can't be read, or ``output`` exists and ``force`` is not given.
    """
    if output.is_dir():
        raise BadInput(f"{output} is a folder.", "Name a file: -o spec.yaml.")
    if output.exists() and not force:
        raise BadInput(f"{output} exists already.", "Choose another with -o, or overwrite it with --force.")
    if not output.absolute().parent.is_dir():
        raise BadInput(f"the folder {output.parent} of -o does not exist.", "Make it first.")
    if isinstance(model, TorchSource):
        info, found = torch_starter(model, data)
    else:
        info = inspect(model)
        found = study(info, open_source(data)) if data is not None else without_data(info)
    if data is not None:
        found.remarks += refusals(info, open_source(data), found)
    text = spec_text(info, model, data, output, found)
    try:
        part = output.with_name(output.name + ".part")
        part.write_text(text, encoding="utf-8")
        part.replace(output)
    except OSError as exc:
        raise BadInput(f"{output} can't be written: {exc.strerror}.", "Choose another place with -o.") from exc
    return found.remarks


def _name(model: Path) -> str:
    """The model's file name as a study's name; its folder's where the file is just "model"."""
    stem = model.stem if model.stem.lower() != "model" else (model.absolute().parent.name or "model")
    return re.sub(r"[^\w.-]+", "-", stem).strip("-. ")[:100] or "model"


def _relative(path: Path, output: Path) -> str:
    """``path`` as the spec in ``output`` names it."""
    folder = output.absolute().parent
    try:
        return Path(os.path.relpath(path.absolute(), folder)).as_posix()
    except ValueError:  # another drive
        return path.absolute().as_posix()


def _model(model: Path | TorchSource, output: Path) -> str:
    """What follows ``model:``."""
    if not isinstance(model, TorchSource):
        return word(_relative(model, output))
    if model.program is not None:
        return word(_relative(model.program, output))
    assert model.code is not None
    assert model.weights is not None
    function = model.code.rpartition(":")[2]
    code = json.dumps(f"{_relative(model.path, output)}:{function}", ensure_ascii=False)
    return f"{{code: {code}, weights: {json.dumps(_relative(model.weights, output), ensure_ascii=False)}}}"


def spec_text(info: ModelInfo, model: Path | TorchSource, data: Path | None, output: Path, found: Findings) -> str:
    """The starter spec."""
    validation = word(_relative(data, output)) if data is not None else "valid.npz"
    lines = [
        f"# autopilot run {output.name}   (docs/spec.md says what every key means)",
        f"name: {word(_name(model.path if isinstance(model, TorchSource) else model))}",
        f"model: {_model(model, output)}",
        "data:",
        f"  validation: {validation}   # .npz or .parquet; the first dimension counts the samples",
        "  # test: test.npz     # for the last verification only; without it a third of validation is held back",
        "  # train: train.npz   # calibration samples; without it a part of validation is set aside",
        f"  label: {word(found.label)}",
    ]
    lines += ["  # the model's inputs:", *(f"  #   {described(t)}" for t in info.inputs)]
    entries = [(name, m) for name, m in found.inputs if m.entry is not None]
    if entries:
        lines.append("  inputs:   # x * scale + offset, or mean: and std:")
    lines += [f"    {word(name)}: {m.entry}" + (f"   # {m.comment}" if m.comment else "") for name, m in entries]
    if not found.batched:
        lines.append("  batched: false   # a request is one sample, passed without the sample dimension")
    comment = f"   # {found.metric_comment}" if found.metric_comment else ""
    lines += [f"metric: {found.metric}{comment}", *_rest(found)]
    return "\n".join(lines) + "\n"


def _rest(found: Findings) -> list[str]:
    why = f" ({found.drop_comment})" if found.drop_comment else ""
    return [
        "budget:   # every limit is hard; the best variant inside all of them wins",
        "  latency_p50_ms: 80% of baseline   # or in milliseconds: latency_p99_ms: 2.0",
        f"  quality_drop: {found.drop}   # at most this much worse in the metric than the model as given{why}",
        "  # size_mb: 50% of baseline",
        "  # peak_memory_mb: {max: 200, margin: 10%}",
        "objective: latency_p50_ms   # what to make as good as possible inside the budget",
        f"margin: {MARGIN:.0%}   # safety margin on every limit that sets none of its own",
        "traffic: {scenario: single_stream}   # or offline: whole batches; or {scenario: server, rate_rps: 200}",
        "target: {providers: [cpu], threads: 1}   # autopilot doctor lists the providers usable here",
        "space: cpu   # quick, cpu or thorough; train where data.train is given",
        "search: {trials: 40, timeout: 15m, seed: 0}",
    ]
