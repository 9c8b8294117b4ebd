"""What ``run`` would refuse of the data, known from names, shapes, types and labels; and what a limit needs of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from autopilot.data.preparation import MIN_VALIDATION
from autopilot.data.resolve import plan_file
from autopilot.errors import DataError
from autopilot.plugins import metrics, vocabulary
from autopilot.scoring import least_drop, samples_for
from autopilot.spec import parse_spec

if TYPE_CHECKING:
    from autopilot.data.sources import Source
    from autopilot.init.match import Findings
    from autopilot.model import ModelInfo
    from autopilot.spec import DataSpec

# How a remark begins that is about what a run refuses.
REFUSED = "run would refuse this: "
# The loss that most people would accept, and the margin of the starter spec.
USUAL_DROP, MARGIN = 0.01, 0.02
# Times the least that can be shown: about what one lost prediction takes, so that a variant with one may pass.
_ROOM = 1.5


def data_spec(data: Path, found: Findings) -> DataSpec:
    """``data:`` as the starter spec will have it.

    Raises:
        BadInput: an input that nothing feeds yet.
    """
    inputs: dict[str, Any] = {n: yaml.safe_load(m.entry) if m.entry else {"from": n} for n, m in found.inputs}
    section = {"validation": str(data.absolute()), "label": found.label, "inputs": inputs, "batched": found.batched}
    raw = {"name": "init", "model": str(data.absolute()), "data": section, "metric": "accuracy"}
    return parse_spec(raw | {"budget": {"size_mb": 1.0}}, data.absolute().parent, vocabulary()).data


def refusals(info: ModelInfo, source: Source, found: Findings) -> list[str]:
    """What ``run`` would end with, in its own words; inputs that nothing feeds yet are remarked on already."""
    if any(not t.dtype for t in info.inputs) or any("FILL_IN" in (m.entry or "") for _, m in found.inputs):
        return []
    try:
        n = plan_file(source, data_spec(source.path, found), info, metric_needing_labels=None).n
    except DataError as exc:
        return [f"{REFUSED}{exc}"]
    few = f"{REFUSED}{source.path} holds {n} samples; a run needs at least {MIN_VALIDATION}"
    return [few] if n < MIN_VALIDATION else _misfit(info, source, found)


def _misfit(info: ModelInfo, source: Source, found: Findings) -> list[str]:
    """What the metric says of the labels, beside an output of zeros in the model's shape; nothing where that is open.

    What is remarked on already isn't said again.
    """
    metric = metrics()[metric_name(found)]
    is_told = any(remark.startswith(REFUSED) for remark in found.remarks)
    if is_told or metric.against_baseline or not found.batched or not info.outputs:
        return []
    shape = info.outputs[0].shape[1:]
    whole = tuple(d for d in shape if isinstance(d, int))
    if len(whole) < len(shape) or not info.outputs[0].dtype.startswith(("float", "int", "uint", "bool")):
        return []
    labels = np.concatenate(list(source.chunks(found.label)))
    outputs = np.broadcast_to(np.zeros((), info.outputs[0].dtype), (len(labels), *whole))
    try:
        metric.check(outputs, labels, metric.options)
    except DataError as exc:
        return [f"{REFUSED}{source.path}: {exc}"]
    return []


def metric_name(found: Findings) -> str:
    """The name in ``metric:``, which may have options beside it."""
    return found.metric if found.metric.isidentifier() else str(yaml.safe_load(found.metric)["name"])


def shown_drop(metric: str, samples: int) -> tuple[str, str]:
    """A limit on the loss of quality that ``samples`` can show, a third of them held back; and why it isn't the usual.

    >>> shown_drop("accuracy", 900)
    ('0.02', '0.01 takes 389 held-back samples, here are 300')
    >>> shown_drop("accuracy", 6000)
    ('0.01', '')
    """
    known, held = metrics()[metric], max(1, samples // 3)
    least = least_drop(known, held) / (1 - MARGIN)
    if least <= USUAL_DROP:
        return f"{USUAL_DROP:g}", ""
    drop = _rounded_up(min(_ROOM * least, 1.0))
    needed = samples_for(known, USUAL_DROP * (1 - MARGIN))
    return f"{drop:g}", f"{USUAL_DROP:g} takes {needed} held-back samples, here are {held}"


def _rounded_up(value: float) -> float:
    """``value`` to two digits, never less than it."""
    digits = 1 - math.floor(math.log10(value))
    scale: float = 10.0**digits
    return math.ceil(value * scale - 1e-9) / scale
