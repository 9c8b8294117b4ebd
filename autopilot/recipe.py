"""Step, Recipe, Deployment, Variant: what one candidate is, as pure data with a stable digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from autopilot.domain import Scalar

# Keys of a recipe's step and of a deployment that are their own: a parameter of that name would overwrite them.
STEP_KEYS = ("technique",)
DEPLOYMENT_KEYS = ("provider", "threads", "batch", "max_delay_ms", "instances")

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
        rest = {k: v for k, v in value.items() if k not in STEP_KEYS}
        return cls(str(value["technique"]), params_of(rest))


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is done to the model, in order; empty means the model as given."""

    steps: tuple[Step, ...] = ()
    # A search asks for it thousands of times.
    _digest: list[str] = field(default_factory=list, init=False, repr=False, compare=False)

    def to_json(self) -> list[dict[str, Scalar]]:
        return [s.to_json() for s in self.steps]

    @classmethod
    def from_json(cls, value: list[Mapping[str, Scalar]]) -> Recipe:
        return cls(tuple(Step.from_json(v) for v in value))

    @property
    def digest(self) -> str:
        if not self._digest:
            self._digest.append(digest(self.to_json()))
        return self._digest[0]


@dataclass(frozen=True, slots=True)
class Deployment:
    """How a built model is run.

    ``threads`` is the intra-op thread count of one instance; ``batch`` the samples in one run: exactly so
    many where requests come as batches, at most so many where the server makes them of single requests.
    ``max_delay_ms`` is how long the oldest waiting request may wait for a batch to fill, ``instances``
    how many copies of the model one serving process holds; both have a meaning in server traffic only.
    ``options`` belong to the provider (``graph_optimization``, ``spinning`` …).
    """

    provider: str
    threads: int = 1
    batch: int = 1
    options: Params = field(default=())
    max_delay_ms: float = 0.0
    instances: int = 1

    @property
    def cores(self) -> int:
        """The number of cores the serving process is pinned to."""
        return self.threads * self.instances

    def serving_json(self) -> dict[str, Scalar]:
        """``max_delay_ms`` and ``instances`` where they aren't at their defaults.

        Left out there, so that ids from before there were such settings still hold.
        """
        out: dict[str, Scalar] = {}
        if self.max_delay_ms:
            out["max_delay_ms"] = self.max_delay_ms
        if self.instances != 1:
            out["instances"] = self.instances
        return out

    def to_json(self) -> dict[str, Scalar]:
        head: dict[str, Scalar] = {"provider": self.provider, "threads": self.threads, "batch": self.batch}
        return {**head, **self.serving_json(), **dict(self.options)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Deployment:
        rest = {k: v for k, v in value.items() if k not in DEPLOYMENT_KEYS}
        delay_ms, instances = float(value.get("max_delay_ms", 0.0)), int(value.get("instances", 1))
        return cls(
            str(value["provider"]), int(value["threads"]), int(value["batch"]), params_of(rest), delay_ms, instances
        )

    def with_(self, **changes: Any) -> Deployment:
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class Variant:
    """Recipe + deployment: one candidate."""

    recipe: Recipe
    deployment: Deployment
    _id: list[str] = field(default_factory=list, init=False, repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        return {"recipe": self.recipe.to_json(), "deployment": self.deployment.to_json()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Variant:
        return cls(Recipe.from_json(value["recipe"]), Deployment.from_json(value["deployment"]))

    @property
    def id(self) -> str:
        """First 12 hex digits of the digest: the ``id`` of result.json."""
        if not self._id:
            self._id.append(digest(self.to_json())[:12])
        return self._id[0]


@dataclass(frozen=True, slots=True)
class Rival:
    """Another plain way of running the model as given, which a speedup has to be against where it is faster.

    ``name`` is what people call it (``float16``); ``steps`` and ``options`` (of the provider) are what is done
    and set for it beyond the model as given.
    """

    name: str
    steps: tuple[Step, ...] = ()
    options: Params = ()

    def beside(self, given: Variant) -> Variant:
        """The rival of the variant ``given``: the same deployment but for ``options``."""
        options = params_of({**dict(given.deployment.options), **dict(self.options)})
        return Variant(Recipe((*given.recipe.steps, *self.steps)), given.deployment.with_(options=options))
