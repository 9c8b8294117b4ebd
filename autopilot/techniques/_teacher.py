"""The teacher: what the model as given answers to the training samples, worked out once and kept by content."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autopilot.artifact import sha256_file
from autopilot.contracts import Array, BuildContext
from autopilot.errors import Failure, VariantFailed
from autopilot.recipe import digest
from autopilot.techniques import _gate
from autopilot.torch_model.distil import RESERVE_S

if TYPE_CHECKING:
    from autopilot.data import Split

# Answers of one call: enough for the cores, little enough for the activations of any model.
_BATCH = 64
_VERSION = 1
# In seconds: what a kill loses of it, and how often it says how far it is.
_SAVE_EVERY_S = 10.0


def answers(model: Path, output: str, split: Split, context: BuildContext, *, classes: bool) -> Array:
    """What ``model``, run by ONNX Runtime, gives as ``output`` for every sample of ``split``, shape (n, …).

    Scores of classes as float16, which softening blurs far more than rounding does; other outputs as float32.
    """
    key = digest([_VERSION, sha256_file(model), output, split.digest, classes])
    path = context.scratch / "teacher" / f"{key[:32]}.npy"
    try:
        found: Array = np.load(path, allow_pickle=False)
        return found
    except (OSError, ValueError):
        pass  # not there, or damaged
    made = _run(model, output, split, context, path, np.float16 if classes else np.float32)
    _write(path, made)
    _partial(path).unlink(missing_ok=True)
    return made


def _write(path: Path, values: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        with part.open("wb") as file:
            np.save(file, values)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _partial(path: Path) -> Path:
    """The first answers of a run that was stopped."""
    return path.with_suffix(".first.npy")


def _run(model: Path, output: str, split: Split, context: BuildContext, path: Path, dtype: Any) -> Array:
    runner = _gate.session(model, context.threads)
    size = _gate.fixed_batch(runner, split) or (_BATCH if _gate.takes_batches(runner, split) else 1)
    parts = [*_begun(_partial(path))]
    start, begun, saved = sum(map(len, parts)), sum(map(len, parts)), time.monotonic()
    first = saved
    while start < split.n:
        feed = split.feed([i % split.n for i in range(start, start + size)])
        answer = np.asarray(runner.run([output], _gate.feed_for(runner, feed))[0])[: split.n - start]
        parts.append(answer.astype(dtype))
        start += len(answer)
        now = time.monotonic()
        late = context.left_s < RESERVE_S
        if now - saved > _SAVE_EVERY_S or late:
            _write(_partial(path), np.concatenate(parts))
            left_s = (now - first) / (start - begun) * (split.n - start)
            context.tell(f"the teacher's answers: {start} of {split.n} samples, about {left_s:.0f} s left")
            saved = now
        if late and start < split.n:
            what = f"the time was up after the teacher's answers to {start} of {split.n} samples, which are kept."
            raise VariantFailed(Failure.TIMEOUT, what, "Run the study again, or give it more time.")
    return np.concatenate(parts)


def _begun(path: Path) -> list[Array]:
    try:
        return [np.load(path, allow_pickle=False)]
    except (OSError, ValueError):
        return []
