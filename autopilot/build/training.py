"""What steps that train work with: the training data and the PyTorch model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopilot.recipe import digest

if TYPE_CHECKING:
    from autopilot.data import Split
    from autopilot.spec import TorchSource


@dataclass(frozen=True, slots=True)
class Training:
    """``split``: the training data, if there are any; ``source``: the PyTorch model that the model as given comes from.

    ``digest`` is that of both.
    """

    split: Split | None = None
    source: TorchSource | None = None
    digest: str | None = None

    @classmethod
    def of(cls, split: Split | None, source: TorchSource | None) -> Training:
        """With the digest worked out: the split's own, and that of the source's files."""
        from autopilot.build.torch_export import source_digest, student_digest

        if split is None and source is None:
            return cls()
        parts = [split.digest if split is not None else None, source_digest(source) if source is not None else None]
        if source is not None and source.student is not None:
            parts.append(student_digest(source))
        return cls(split, source, digest(parts))

    def key_with(self, model: str) -> str | None:
        """What a step that trains depends on beside its parent; ``model``: sha256 of the model as given."""
        return digest([self.digest, model]) if self.digest is not None else None

    def to_json(self) -> dict[str, Any]:
        """Paths and plain data, as keys of a build request."""
        return {
            "train": str(self.split.folder.absolute()) if self.split is not None else None,
            "torch_source": self.source.to_json() if self.source is not None else None,
            "training": self.digest,
        }

    @classmethod
    def from_json(cls, request: Mapping[str, Any]) -> Training:
        """Out of a build request; one without such keys trains on nothing."""
        from autopilot.data import Split
        from autopilot.spec import TorchSource

        folder, source = request.get("train"), request.get("torch_source")
        split = Split.load(Path(folder)) if folder else None
        return cls(split, TorchSource.from_json(source) if source else None, request.get("training"))


NO_TRAINING = Training()
