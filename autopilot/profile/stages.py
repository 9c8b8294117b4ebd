"""Stages: how a request's time is divided between the hooks and the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autopilot.profile.measurement import Interval


@dataclass(frozen=True, slots=True)
class StageShare:
    """One stage: mean ``seconds`` a request, and its ``share`` (0..1) of the mean latency."""

    seconds: float
    share: Interval

    def to_json(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "share": self.share.to_json()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> StageShare:
        share = value["share"]
        return cls(float(value["seconds"]), Interval(float(share["value"]), float(share["low"]), float(share["high"])))


@dataclass(frozen=True, slots=True)
class StageShares:
    """The stages of a request whose spec has hooks; seconds sum to the mean latency, shares to 1."""

    preprocess: StageShare
    inference: StageShare
    postprocess: StageShare

    @property
    def total_s(self) -> float:
        """Mean seconds of a request."""
        return self.preprocess.seconds + self.inference.seconds + self.postprocess.seconds

    def to_json(self) -> dict[str, Any]:
        return {
            "preprocess": self.preprocess.to_json(),
            "inference": self.inference.to_json(),
            "postprocess": self.postprocess.to_json(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> StageShares:
        return cls(*(StageShare.from_json(value[name]) for name in ("preprocess", "inference", "postprocess")))
