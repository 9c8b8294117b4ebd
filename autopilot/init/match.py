"""Which stored array feeds which input, which one holds the labels, and what metric suits them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from autopilot.data.mapping import fits
from autopilot.data.sources import Header, Source
from autopilot.init.onehot import convert_text, is_one_hot
from autopilot.init.refusals import REFUSED, metric_name, shown_drop

if TYPE_CHECKING:
    from autopilot.model import ModelInfo, TensorInfo

# What people call their labels, the likeliest first.
LABELS = ("label", "labels", "y", "target", "targets", "class", "classes", "y_true", "output")
# Bytes to 0..1, as image libraries do it.
PIXEL_SCALE = 1 / 255


@dataclass(frozen=True, slots=True)
class Match:
    """How one model input is fed: ``entry`` is its line under ``inputs:``, None where none is needed.

    ``guess`` says what the user should look at, where the data leave it open.
    """

    entry: str | None
    comment: str = ""
    guess: str = ""


@dataclass(slots=True)
class Findings:
    """What was learned of the data; ``remarks`` are told to the user."""

    label: str = "label"
    batched: bool = True
    metric: str = "accuracy"
    metric_comment: str = ""
    drop: str = "0.01"
    drop_comment: str = ""
    inputs: list[tuple[str, Match]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def study(info: ModelInfo, source: Source) -> Findings:
    """Which stored array feeds which input, which one holds the labels, and what metric suits them."""
    found = Findings()
    headers = dict(source.headers)
    samples = _sample_count(info, headers)
    label = _label_name(info, headers, samples)
    free = {k: h for k, h in headers.items() if k != label}
    found.batched = not _unbatched(info, free)
    for tensor in info.inputs:
        chosen = _array_for(tensor, free, info, found.batched)
        if chosen is None:
            found.inputs.append((tensor.name, _unmatched(tensor)))
            found.remarks.append(f"no stored array fits the input {described(tensor)}: fill in its line under inputs")
            continue
        match = _mapping(tensor, free[chosen], source)
        found.inputs.append((tensor.name, match))
        if match.guess:
            found.remarks.append(f"{tensor.name}: {match.guess}")
        if chosen != tensor.name:
            del free[chosen]
    _choose_metric(found, info, source, label)
    name = metric_name(found)
    if name != "mae":  # its limit is in the labels' unit
        found.drop, found.drop_comment = shown_drop(name, samples)
    return found


def without_data(info: ModelInfo) -> Findings:
    """What a model alone tells."""
    wanted = "; ".join(described(t) for t in info.inputs)
    remark = f"the spec needs samples: save {wanted} and the labels as valid.npz, or run init again with --data FILE"
    return Findings(metric_comment="classes: argmax over the last axis; without labels: agreement", remarks=[remark])


def _sample_count(info: ModelInfo, headers: dict[str, Header]) -> int:
    named = [headers[t.name].shape[0] for t in info.inputs if t.name in headers and headers[t.name].shape]
    return max(named or [h.shape[0] for h in headers.values() if h.shape] or [0])


def _label_name(info: ModelInfo, headers: dict[str, Header], samples: int) -> str | None:
    """The label array: by its name, else the only array left over with one entry a sample."""
    inputs = {t.name for t in info.inputs}
    by_name = {name.lower(): name for name in headers if name not in inputs}
    for word in LABELS:
        if word in by_name:
            return by_name[word]
    rest = [h for h in headers.values() if h.name not in inputs and h.shape == (samples,)]
    # Where the inputs' own arrays go by other names, one of the rest may feed an input of rank 1.
    return rest[0].name if len(rest) == 1 and all(len(t.shape) > 1 for t in info.inputs) else None


def _unbatched(info: ModelInfo, headers: dict[str, Header]) -> bool:
    """Whether the arrays fit only when each sample is passed without the sample dimension."""
    named = [(t, headers[t.name].shape) for t in info.inputs if t.name in headers]
    with_batch = [s for t, s in named if t.shape and fits(s[1:], t.shape[1:])]
    return not with_batch and any(fits(s[1:], t.shape) for t, s in named if s)


def _array_for(tensor: TensorInfo, free: dict[str, Header], info: ModelInfo, batched: bool) -> str | None:
    """The stored array for an input: by name, by name without case, then the only one whose shape fits."""
    if tensor.name in free:
        return tensor.name
    by_case = [name for name in free if name.lower() == tensor.name.lower()]
    if by_case:
        return by_case[0]
    if not tensor.dtype:  # nothing is known of it but its name
        return None
    taken = {t.name for t in info.inputs}
    wanted = tensor.shape[1:] if batched else tensor.shape
    fitting = [n for n, h in free.items() if n not in taken and len(h.shape) > 0 and fits(h.shape[1:], wanted)]
    return fitting[0] if len(fitting) == 1 else None


def _unmatched(tensor: TensorInfo) -> Match:
    sizes = [d if isinstance(d, int) else 1 for d in tensor.shape]
    dtype = tensor.dtype or "float32"
    example = f"{{constant: 0, shape: {sizes}, dtype: {dtype}}}"
    return Match(f"{{from: FILL_IN, dtype: {dtype}}}", f"or, the same for every sample: {example}")


def _mapping(tensor: TensorInfo, header: Header, source: Source) -> Match:
    """The entry that turns ``header`` into ``tensor``; none where names and types agree already."""
    floating = tensor.dtype.startswith("float")
    renamed = header.name != tensor.name
    if floating and header.dtype == np.uint8 and len(header.shape) >= 3:
        return _image(tensor, header, source)
    if not renamed and np.can_cast(header.dtype, _dtype(tensor), "safe"):
        return Match(None)
    comment = "" if header.dtype.name == tensor.dtype else f"stored as {header.dtype.name}"
    return Match(f"{{from: {word(header.name)}, dtype: {tensor.dtype}}}", comment)


def _image(tensor: TensorInfo, header: Header, source: Source) -> Match:
    """Bytes onto a float input: pixels, as good as always."""
    entry = f"{{from: {word(header.name)}, dtype: {tensor.dtype}, scale: {PIXEL_SCALE!r}}}"
    most = _largest(source, header.name)
    if most > 128:
        return Match(entry, "x / 255: bytes become 0..1; change it if training did otherwise")
    guess = f"the stored bytes run to {most}, not to 255, so the scale is a guess: divide as training did"
    return Match(entry, f"x / 255, a guess: the stored bytes run to {most}", guess)


def _dtype(tensor: TensorInfo) -> np.dtype[Any]:
    try:
        return np.dtype(tensor.dtype)
    except TypeError:  # bfloat16 and the like: nothing casts to them safely
        return np.dtype("V1")


def _largest(source: Source, name: str) -> int:
    return max((int(chunk.max()) for chunk in source.chunks(name) if chunk.size), default=0)


def _choose_metric(found: Findings, info: ModelInfo, source: Source, label: str | None) -> None:
    """The metric that suits labels and first output, and a loss in it that most people would accept."""
    if label is None:
        found.metric = "agreement"
        found.metric_comment = "no label array was found: argmax equal to the baseline's"
        return
    found.label = label
    header = source.headers[label]
    if header.dtype.kind in "biu" and _gives_classes(info.outputs[0]):
        _given_classes(found, info)
        return
    rank, classes = len(info.outputs[0].shape), info.outputs[0].shape[-1:] or (1,)
    single = rank < 2 or classes == (1,)
    if not single and rank == len(header.shape) and is_one_hot(source, header):
        found.metric, found.metric_comment = "accuracy", "classes: argmax over the last axis; the labels are one-hot"
        found.remarks.append(f"{REFUSED}{convert_text(source, header)}")
    elif header.dtype.kind in "biu":
        _classes(found, header, source, single=single, classes=classes[0])
    elif header.dtype.kind == "f" and rank == 2 and not single and len(header.shape) == 1:
        # One number for several scores: a class, stored as what metrics don't take.
        found.metric, found.metric_comment = "accuracy", "classes: argmax over the last axis"
    elif header.dtype.kind == "f":
        _numbers(found, header, source)
    else:
        found.metric = "agreement"
        found.remarks.append(f"the label array {label!r} is {header.text}, which no metric takes: agreement is used")


def _gives_classes(tensor: TensorInfo) -> bool:
    """Whether an output is a whole number a sample: the class itself, as scikit-learn's classifiers give it first."""
    return tensor.dtype.startswith(("int", "uint")) and (len(tensor.shape) == 1 or tensor.shape[1:] == (1,))


def _given_classes(found: Findings, info: ModelInfo) -> None:
    """Score the output beside it that has a number a class; say so where there is none."""
    first = info.outputs[0].name
    scores = [t.name for t in info.outputs[1:] if t.dtype.startswith("float") and len(t.shape) == 2]
    if scores:
        found.metric = f"{{name: accuracy, output: {word(scores[0])}}}"
        found.metric_comment = f"classes: argmax over the last axis; {word(first)} is the class itself"
        return
    found.metric, found.metric_comment = "r2", "of class numbers, which says little: see docs/spec.md for a function"
    found.remarks.append(
        f"the output {first!r} is the class itself and no output has a number a class, which accuracy takes: export "
        "the model with its scores (skl2onnx: options={'zipmap': False}), or score it by a function of your own"
    )


def _classes(found: Findings, header: Header, source: Source, *, single: bool, classes: int | str | None) -> None:
    if len(header.shape) > 1 and header.shape[1:] != (1,):
        found.metric, found.metric_comment = "token_accuracy", "share of positions with the right class"
    elif not single:
        found.metric, found.metric_comment = "accuracy", "classes: argmax over the last axis"
        _check_classes(found, header, source, classes)
    elif header.dtype == np.bool_ or _largest(source, header.name) <= 1:
        found.metric = "{name: f1_binary, threshold: 0.5}"
        found.metric_comment = "one output a sample; for logits set threshold: 0"
    else:
        _numbers(found, header, source)


def _check_classes(found: Findings, header: Header, source: Source, classes: int | str | None) -> None:
    """Remark on labels that the model has no output for."""
    most = _largest(source, header.name)
    if isinstance(classes, int) and most >= classes:
        found.remarks.append(
            f"{REFUSED}the labels {header.name!r} in {source.path} run to {most}, and the model's output has {classes} "
            f"classes, 0 to {classes - 1}"
        )


def _numbers(found: Findings, header: Header, source: Source) -> None:
    if len(header.shape) == 1 or header.shape[1:] == (1,):
        found.metric, found.metric_comment = "r2", "numbers: share of the variance explained"
        return
    found.metric, found.metric_comment = "mae", "numbers: mean absolute error, in the labels' unit"
    spread = _spread(source, header.name)
    if spread > 0:
        found.drop = f"{0.01 * spread:.2g}"


def _spread(source: Source, name: str) -> float:
    """The standard deviation of the first chunk of an array; 0 where it is no number."""
    first = next(iter(source.chunks(name)), None)
    spread = float(np.std(first.astype(np.float64))) if first is not None and first.size else 0.0
    return spread if np.isfinite(spread) else 0.0


def described(tensor: TensorInfo) -> str:
    """Name, type and shape; the name alone of an input that code names without saying what it takes."""
    if not tensor.dtype:
        return tensor.name
    return f"{tensor.name} ({tensor.dtype}[{', '.join('?' if d is None else str(d) for d in tensor.shape)}])"


def word(text: str) -> str:
    """``text`` as a YAML scalar, quoted where YAML would read something else."""
    plain = re.fullmatch(r"[\w./][\w./ +-]*", text) is not None and text == text.strip()
    try:
        same = plain and yaml.safe_load(text) == text
    except yaml.YAMLError:
        same = False
    return text if same else json.dumps(text)
