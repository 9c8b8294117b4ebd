"""Providers that turn out not to run here, whatever ``usable`` said: found out once, and believed by this run alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from autopilot.contracts import Stage
from autopilot.domain import Scalar
from autopilot.errors import Failure
from autopilot.needs import NotTried, refused
from autopilot.recipe import Deployment, Recipe, Variant
from autopilot.result import TrialRecord

# What a provider runs on where there are several: one that isn't there says nothing of the others.
_DEVICE = "device"

# Findings about answers: what gave them was started.
STARTED = frozenset({Failure.WRONG_NUMERICS, Failure.FAKE_INT8, Failure.PROVIDER_FALLBACK})

Place = tuple[str, Scalar]


def place_of(deployment: Deployment) -> Place:
    """The provider, and its device where it has a choice of them."""
    return deployment.provider, dict(deployment.options).get(_DEVICE)


@dataclass(slots=True)
class Absent:
    """What this run found of providers that could not be loaded.

    A provider's failure to start may be one variant's (an engine that can't be built), so that the model as given
    decides: where that doesn't start either, nothing else is tried there. Nothing of it is recorded as a trial:
    other runs of a study, and this one when it goes on, may find the provider in order.
    """

    _answered: set[Place] = field(default_factory=set)
    _doubted: dict[str, Place] = field(default_factory=dict)  # ids that may be tried again once their place answers
    _gone: dict[Place, str] = field(default_factory=dict)

    def saw(self, records: Iterable[TrialRecord]) -> None:
        """Trials of ``records`` were run: their providers are there, so that what failed was the variants' own."""
        for record in records:
            if started(record):
                self.answered(record.variant)

    def answered(self, variant: Variant) -> None:
        """The place of ``variant`` is there, whatever became of it."""
        self._answered.add(place_of(variant.deployment))
        self._doubted.clear()

    def is_ours(self, variant: Variant) -> bool:
        """Whether a failure to start says something of ``variant`` itself: others were measured in its place."""
        return place_of(variant.deployment) in self._answered

    def doubt(self, variant: Variant) -> None:
        """``variant`` could not start, and it isn't known yet whether anything can in its place."""
        self._doubted[variant.id] = place_of(variant.deployment)

    def doubts_one_alone(self, variant: Variant) -> bool:
        """Whether ``variant`` is all that this run saw not to start in its place."""
        return list(self._doubted.values()).count(place_of(variant.deployment)) == 1

    def doubts(self, variant: Variant) -> bool:
        """Whether this run saw that ``variant`` could not start, and nothing that could in its place since."""
        return variant.id in self._doubted

    def drop(self, variant: Variant, reason: str) -> str:
        """Nothing starts in the place of ``variant``; what the user is told."""
        place = place_of(variant.deployment)
        self._gone[place] = reason
        return f"provider {_text(place)} is left out from here on: {reason}"

    def bars(self, variant: Variant) -> bool:
        """Whether ``variant`` isn't worth trying now."""
        return place_of(variant.deployment) in self._gone or self.doubts(variant)

    @property
    def not_tried(self) -> tuple[NotTried, ...]:
        """What was left out, for the result."""
        return tuple(refused("provider", _text(place), reason) for place, reason in self._gone.items())


def plain(variant: Variant, usual: Deployment) -> Variant:
    """The model as given in the place of ``variant``; ``usual`` is its provider's default deployment."""
    device = dict(variant.deployment.options).get(_DEVICE)
    options = tuple((k, device if k == _DEVICE else v) for k, v in usual.options)
    return Variant(Recipe(), usual.with_(options=options))


def started(record: TrialRecord | None) -> bool:
    """Whether a trial, of whichever run of a study, got as far as being run where its provider is."""
    if record is None or record.stage == Stage.BUILD.value:
        return False
    return bool(record.measured) or record.failure in STARTED


def _text(place: Place) -> str:
    provider, device = place
    return provider if device is None else f"{provider} (device {device})"
