"""Step, Recipe, Deployment, Variant: what one candidate is, as pure data with a stable digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from autopilot.domain import Scalar

Params = tuple[tuple[str, Scalar], ...]


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: the same data always gives the same text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """Hex sha256 of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def params_of(values: Mapping[str, Scalar]) -> Params:
    """Parameters as a sorted tuple, so that records stay hashable."""
    return tuple(sorted(values.items()))


@dataclass(frozen=True, slots=True)
class Step:
    """One technique with its parameters."""

    technique: str
    params: Params = ()

    def to_json(self) -> dict[str, Scalar]:
        return {"technique": self.technique, **dict(self.params)}

    @classmethod
    def from_json(cls, value: Mapping[str, Scalar]) -> Step:
        rest = {k: v for k, v in value.items() if k != "technique"}
        return cls(str(value["technique"]), params_of(rest))


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is done to the model, in order; empty means the model as given."""

    steps: tuple[Step, ...] = ()

    def to_json(self) -> list[dict[str, Scalar]]:
        return [s.to_json() for s in self.steps]

    @classmethod
    def from_json(cls, value: list[Mapping[str, Scalar]]) -> Recipe:
        return cls(tuple(Step.from_json(v) for v in value))

    @property
    def digest(self) -> str:
        return digest(self.to_json())


@dataclass(frozen=True, slots=True)
class Deployment:
    """How a built model is run.

    ``threads`` is the intra-op thread count and the number of cores the server is pinned to;
    ``batch`` the samples in one request; ``options`` belong to the provider
    (``graph_optimization``, ``spinning`` …).
    """

    provider: str
    threads: int = 1
    batch: int = 1
    options: Params = field(default=())

    def to_json(self) -> dict[str, Scalar]:
        return {"provider": self.provider, "threads": self.threads, "batch": self.batch, **dict(self.options)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Deployment:
        rest = {k: v for k, v in value.items() if k not in ("provider", "threads", "batch")}
        return cls(str(value["provider"]), int(value["threads"]), int(value["batch"]), params_of(rest))

    def with_(self, **changes: Any) -> Deployment:
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class Variant:
    """Recipe + deployment: one candidate."""

    recipe: Recipe
    deployment: Deployment

    def to_json(self) -> dict[str, Any]:
        return {"recipe": self.recipe.to_json(), "deployment": self.deployment.to_json()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Variant:
        return cls(Recipe.from_json(value["recipe"]), Deployment.from_json(value["deployment"]))

    @property
    def id(self) -> str:
        """First 12 hex digits of the digest: the ``id`` of result.json."""
        return digest(self.to_json())[:12]
