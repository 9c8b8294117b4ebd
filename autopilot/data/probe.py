"""A last check before a split counts: a few real requests, through the hook, against the model's inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from autopilot.data.mapping import fits
from autopilot.data.split import Split
from autopilot.errors import DataError

if TYPE_CHECKING:
    from autopilot.model import ModelInfo

PROBED = 8  # requests; hooks that fail on rare samples fail in the evaluation, which names them too


def probe(split: Split, model: ModelInfo) -> None:
    """Feed a few samples and compare with the model's inputs.

    Raises:
        DataError: an input of the wrong shape, or values that are not finite after mapping or preprocess.
    """
    by = "data.preprocess" if split.preprocess is not None else "data.inputs"
    requests = [slice(0, min(PROBED, split.n))] if split.batched else [[i] for i in range(min(PROBED, split.n))]
    for request in requests:
        for name, array in split.feed(request).items():
            tensor = next(t for t in model.inputs if t.name == name)
            wanted = tensor.shape
            free = (None, *wanted[1:]) if split.batched and wanted else wanted
            if not fits(array.shape, free):
                takes = ", ".join("?" if d is None else str(d) for d in wanted)
                raise DataError(f"{by} makes {name!r} of shape {list(array.shape)}, the model takes [{takes}].")
            if array.dtype.kind == "f" and not np.all(np.isfinite(array)):
                raise DataError(f"{by} makes NaN or infinite values for {name!r}, seen in the first {PROBED} samples.")
            rows = array.shape[0] if array.ndim else 0
            if split.preprocess is not None and split.batched and rows not in (1, min(PROBED, split.n)):
                raise DataError(f"{by} returns {rows} rows of {name!r} for {min(PROBED, split.n)} samples.")
