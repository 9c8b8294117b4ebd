"""The teacher: what the model as given answers to the training samples, worked out once and kept by content."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from autopilot.artifact import sha256_file
from autopilot.contracts import Array, BuildContext
from autopilot.recipe import digest
from autopilot.techniques import _gate

if TYPE_CHECKING:
    from autopilot.data import Split

# Answers of one call: enough for the cores, little enough for the activations of any model.
_BATCH = 64
_VERSION = 1


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
    made = _run(model, output, split, context).astype(np.float16 if classes else np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        with part.open("wb") as file:
            np.save(file, made)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return made


def _run(model: Path, output: str, split: Split, context: BuildContext) -> Array:
    runner = _gate.session(model, context.threads)
    size = _gate.fixed_batch(runner, split) or (_BATCH if _gate.takes_batches(runner, split) else 1)
    parts = []
    for start in range(0, split.n, size):
        feed = split.feed([i % split.n for i in range(start, start + size)])
        parts.append(np.asarray(runner.run([output], _gate.feed_for(runner, feed))[0])[: split.n - start])
        if start // size % 50 == 0:
            context.tell(f"the teacher's answers: {start} of {split.n} samples")
    return np.concatenate(parts)
