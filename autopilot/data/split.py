"""Split: one part of the data on disk, memory-mapped. Imports numpy and the standard library only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autopilot.data.hooks import Hook, as_arrays, call_hook, load_hook
from autopilot.data.mapping import InputMap
from autopilot.errors import DataError

Array = npt.NDArray[Any]


class Split:
    """The samples of one part (calibration, validation, test, train), in a fixed random order.

    A prefix is a random subset. ``n`` samples; ``digest`` is the sha256 of the arrays, the mapping
    and the hooks; ``batched`` False means a request is one sample without its sample dimension.
    """

    def __init__(self, folder: Path, meta: Mapping[str, Any]) -> None:
        self.folder = folder
        self.name: str = meta["name"]
        self.n: int = meta["n"]
        self.digest: str = meta["digest"]
        self.batched: bool = meta["batched"]
        self.inputs = tuple(InputMap.from_json(m) for m in meta["inputs"])
        self._meta = meta

    @classmethod
    def load(cls, folder: Path) -> Split:
        """The split written in ``folder``; arrays are mapped at first use.

        Raises:
            DataError: the folder holds no whole split.
        """
        try:
            return cls(folder, json.loads((folder / "split.json").read_text()))
        except (OSError, ValueError, KeyError) as exc:
            raise DataError(f"{folder} holds no prepared data: {exc}.", "Run the study again with --fresh.") from exc

    @cached_property
    def _arrays(self) -> dict[str, Array]:
        return {k: np.load(self.folder / f, mmap_mode="r") for k, f in self._meta["arrays"].items()}

    @cached_property
    def _shared(self) -> dict[str, Array]:
        return {k: np.load(self.folder / f) for k, f in self._meta["shared"].items()}

    @property
    def labels(self) -> Array | None:
        """The label array as stored, shape (n, ...), memory-mapped; None where the file had none."""
        name = self._meta["label"]
        return self._arrays[name] if name is not None else None

    def whole_numbers(self) -> dict[str, Array]:
        """Stored input arrays of integers, shape (n, ...) each, memory-mapped: what may be indices into a table.

        Pixels (bytes of three dimensions or more) are none.
        """
        label, used = self._meta["label"], {m.source for m in self.inputs}
        mine = {k: a for k, a in self._arrays.items() if k != label or k in used}
        return {k: a for k, a in mine.items() if a.dtype.kind in "iu" and (a.dtype.itemsize > 1 or a.ndim < 3)}

    @cached_property
    def preprocess(self) -> Hook | None:
        reference = self._meta["preprocess"]
        return load_hook(reference) if reference else None

    @cached_property
    def postprocess(self) -> Hook | None:
        reference = self._meta["postprocess"]
        return load_hook(reference) if reference else None

    @property
    def postprocess_reference(self) -> str | None:
        """The hook's ``FILE.py:function``, for messages."""
        reference: str | None = self._meta["postprocess"]
        return reference

    def raw(self, indices: slice | Sequence[int] | int) -> dict[str, Array]:
        """Stored input arrays before mapping and preprocess (the label left out).

        With the sample dimension first, or of one sample without it where ``batched`` is False;
        arrays shared by all samples as they are.
        """
        picked = [indices] if isinstance(indices, int) else indices
        label = self._meta["label"]
        used = {m.source for m in self.inputs}
        out = {k: np.array(a[picked]) for k, a in self._arrays.items() if k != label or k in used}
        if not self.batched:
            count = len(range(self.n)[picked]) if isinstance(picked, slice) else len(picked)
            if count != 1:
                raise ValueError(f"a request of {self.name} is one sample, {count} were asked for")
            # Indexing with () keeps a 0-d result an array.
            out = {k: np.asarray(a[0]) for k, a in out.items()}
        return {**out, **self._shared}

    def feed(self, indices: slice | Sequence[int] | int) -> dict[str, Array]:
        """Model inputs by name: mapped (or preprocessed), cast, contiguous, own memory."""
        raw = self.raw(indices)
        if self.preprocess is None:
            return {m.name: m.apply(raw) for m in self.inputs}
        return self.preprocessed(raw)

    def preprocessed(self, raw: dict[str, Array]) -> dict[str, Array]:
        """``raw`` through the preprocess hook, cast safely to the model's types.

        Raises:
            DataError: the hook failed, misses an input, or returns a type that doesn't cast safely.
        """
        reference = self._meta["preprocess"]
        assert self.preprocess is not None
        made = as_arrays(call_hook(self.preprocess, reference, raw), reference)
        out = {}
        for name, dtype in self._meta["model_inputs"].items():
            if name not in made:
                returned = ", ".join(made)
                raise DataError(f"{reference} returns no {name!r}, an input of the model; it returns: {returned}.")
            target = made[name].dtype if dtype in ("object", "str") else np.dtype(dtype)
            if not np.can_cast(made[name].dtype, target, "safe"):
                raise DataError(
                    f"{reference} returns {name!r} as {made[name].dtype.name}, the model takes {dtype}.",
                    f"Return it .astype({dtype!r}).",
                )
            out[name] = np.array(made[name], dtype=target, order="C")
        return out

    def has_shared_inputs(self) -> bool:
        """True when an input is the same for all samples and its shape may depend on the batch size."""
        return any(m.shared and m.varying for m in self.inputs)


def seal(folder: Path, meta: dict[str, Any], hook_digests: Sequence[str]) -> str:
    """Write ``split.json`` beside the arrays already in ``folder``; returns the content digest."""
    h = hashlib.sha256()
    described = {k: v for k, v in meta.items() if k not in ("preprocess", "postprocess")}
    h.update(json.dumps([described, list(hook_digests)], sort_keys=True).encode())
    for file in [*meta["arrays"].values(), *meta["shared"].values()]:
        with (folder / file).open("rb") as f:
            while block := f.read(1 << 20):
                h.update(block)
    digest = h.hexdigest()
    (folder / "split.json").write_text(json.dumps({**meta, "digest": digest}))
    return digest
