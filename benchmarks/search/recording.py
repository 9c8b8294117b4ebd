"""A recorded space: every variant of it measured once, in a compact file that searches are replayed against."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autopilot import plugins
from autopilot.recipe import Recipe, Step, Variant, params_of

Floats = npt.NDArray[np.float64]
# Percentiles of the requests of each block that are kept.
PERCENTILES = (50.0, 95.0)
_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Recorded:
    """What measuring one variant to the end gave.

    artifact: name of what its recipe builds, equal for equal bytes; "" where it failed before.
    seconds: wall time of ``build`` (its last step alone), ``load``, ``profile`` and ``evaluate``; a pass
        that an earlier variant had paid for is not there.
    figures: axis -> value, of the axes known without requests (size, memory, load time).
    own, beside: float64, shape (blocks, len(PERCENTILES)), milliseconds, of the variant's requests and of the
        baseline's in the block next to it.
    right: float64, shape (samples,), each sample's score; empty where it was not scored.
    failure: the failure class, "" where there is none.
    processes: how many processes, one after the other, the blocks were read in; ``seconds`` are of one.
    """

    variant: Variant
    artifact: str
    seconds: Mapping[str, float]
    figures: Mapping[str, float]
    own: Floats
    beside: Floats
    right: Floats
    failure: str = ""
    processes: int = 1

    def to_json(self) -> dict[str, Any]:
        return {
            "variant": self.variant.to_json(),
            "artifact": self.artifact,
            "seconds": dict(self.seconds),
            "figures": dict(self.figures),
            "own": self.own.tolist(),
            "beside": self.beside.tolist(),
            "right": self.right.tolist(),
            "failure": self.failure,
            "processes": self.processes,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Recorded:
        arrays = {key: np.asarray(value[key], dtype=np.float64) for key in ("own", "beside", "right")}
        return cls(
            _of_today(Variant.from_json(value["variant"])),
            str(value["artifact"]),
            dict(value["seconds"]),
            dict(value["figures"]),
            failure=str(value["failure"]),
            processes=int(value.get("processes", 1)),
            **arrays,
        )


def _of_today(variant: Variant) -> Variant:
    """``variant`` with what its techniques can do since, at the defaults: as it was recorded."""
    declared = plugins.techniques()
    steps = []
    for step in variant.recipe.steps:
        defaults = {k: d.default for k, d in declared[step.technique].parameters.items()}
        steps.append(Step(step.technique, params_of(defaults | dict(step.params))))
    return Variant(Recipe(tuple(steps)), variant.deployment)


@dataclass(frozen=True, slots=True)
class Recording:
    """All variants of one workload's space.

    about: the spec (budget, objective), the machine, the versions, the date.
    baseline_right: float64, shape (samples,), the baseline's score of each sample.
    """

    name: str
    about: Mapping[str, Any]
    baseline_right: Floats
    variants: Sequence[Recorded]

    def save(self, path: Path) -> None:
        """Write one compressed file; scores as float32, equal rows once."""
        rows, which = _distinct([r.right for r in self.variants])
        plain = [
            {**r.to_json(), "own": None, "beside": None, "right": i} for r, i in zip(self.variants, which, strict=True)
        ]
        head = {"schema": _SCHEMA, "name": self.name, "about": dict(self.about), "variants": plain}
        blocks = np.array([len(r.own) for r in self.variants], dtype=np.int32)
        np.savez_compressed(
            path,
            head=np.frombuffer(json.dumps(head).encode(), dtype=np.uint8),
            blocks=blocks,
            own=np.concatenate([r.own.reshape(-1, len(PERCENTILES)) for r in self.variants]).astype(np.float32),
            beside=np.concatenate([r.beside.reshape(-1, len(PERCENTILES)) for r in self.variants]).astype(np.float32),
            right=np.array(rows, dtype=np.float32),
            baseline_right=self.baseline_right.astype(np.float32),
        )

    @classmethod
    def load(cls, path: Path) -> Recording:
        """Read what ``save`` wrote.

        Raises:
            ValueError: another schema.
        """
        with np.load(path, allow_pickle=False) as stored:
            head = json.loads(stored["head"].tobytes())
            arrays = {key: stored[key].astype(np.float64) for key in ("own", "beside", "right", "baseline_right")}
            ends = np.cumsum(stored["blocks"])
        if head["schema"] != _SCHEMA:
            raise ValueError(f"{path}: schema {head['schema']}, this version reads {_SCHEMA}; record it again")
        variants = []
        for raw, end, start in zip(head["variants"], ends, [0, *ends[:-1]], strict=True):
            right = arrays["right"][raw["right"]] if raw["right"] >= 0 else np.empty(0)
            own, beside = arrays["own"][start:end], arrays["beside"][start:end]
            variants.append(Recorded.from_json({**raw, "own": own, "beside": beside, "right": right}))
        return cls(str(head["name"]), head["about"], arrays["baseline_right"], tuple(variants))


def _distinct(rows: Sequence[Floats]) -> tuple[list[Floats], list[int]]:
    """The different rows, and which of them each is; -1 for an empty one."""
    found: dict[bytes, int] = {}
    kept: list[Floats] = []
    which = []
    for row in rows:
        key = row.tobytes()
        if row.size and key not in found:
            found[key] = len(kept)
            kept.append(row)
        which.append(found[key] if row.size else -1)
    return kept, which
