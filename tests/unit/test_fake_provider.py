"""The contract of providers can be kept and can be broken: a fake one is held to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from autopilot.contracts import Provider, Session, facts_of
from autopilot.doctor import usable_providers
from autopilot.errors import VariantFailed
from autopilot.profile import Placement, Profile
from autopilot.recipe import Deployment
from autopilot.search.audit import provider_fallback
from autopilot.target import Target
from autopilot.testing import FakeProvider, FakeSession, double
from tests.contract import test_providers as contract

FAKE = FakeProvider()


@dataclass(frozen=True)
class Torn(FakeSession):
    """A session of which the runtime put a part elsewhere."""

    def placement(self) -> Placement:
        return Placement({"FakeExecutionProvider": 3, "CPUExecutionProvider": 1})


class Careless(FakeProvider):
    """Ignores what it doesn't know."""

    def open(
        self,
        artifact: Path,
        deployment: Deployment,
        *,
        optimized_model: Path | None = None,
        profile_to: Path | None = None,
    ) -> Session:
        return self.session


def test_fake_provider_keeps_the_contract(tmp_path: Path) -> None:
    """What the suite asks of every provider that needs no real model."""
    contract.test_provider_is_called_like_its_module("fake", FAKE)
    contract.test_provider_says_why_it_is_not_usable("fake", FAKE)
    contract.test_parameters_contain_their_defaults("fake", FAKE)
    contract.test_facts_name_options_that_exist("fake", FAKE)
    contract.test_placement_counts_the_nodes("fake", FAKE, tmp_path)
    contract.test_kernels_of_a_session_that_does_not_count_them_are_unknown("fake", FAKE, tmp_path)
    contract.test_unknown_option_is_refused("fake", FAKE, tmp_path)
    contract.test_a_value_outside_the_choice_is_refused("fake", FAKE, tmp_path)


def test_contract_catches_a_provider_that_ignores_options(tmp_path: Path) -> None:
    """The suite can fail."""
    with pytest.raises(pytest.fail.Exception):
        contract.test_unknown_option_is_refused("fake", Careless(), tmp_path)


def test_contract_catches_facts_about_options_that_do_not_exist() -> None:
    """Quality would be scored once for all values of an option that changes answers."""
    wrong = replace(FAKE, facts=replace(FAKE.facts, numerics=("lvl",)))

    with pytest.raises(AssertionError):
        contract.test_facts_name_options_that_exist("fake", wrong)


def test_missing_provider_tells_the_doctor_and_refuses_to_open(tmp_path: Path) -> None:
    """The same words in both places."""
    missing: Provider = FakeProvider(reason="no driver; run install-driver")

    told = usable_providers(Target.detect(), {"fake": missing})["fake"]
    assert (told["usable"], told["reason"]) == (False, "no driver; run install-driver")
    with pytest.raises(VariantFailed, match="install-driver"):
        missing.open(tmp_path, Deployment("fake"))


def test_part_that_lands_elsewhere_is_told_by_node_share() -> None:
    """Under the default policy that fails the variant: tests/unit/test_search_evaluator.py."""
    session = FakeProvider(session=Torn(double)).open(Path("none"), Deployment("fake"))
    profile = Profile("v", placement=session.placement(), environment={"execution_provider": FAKE.execution_provider})

    assert provider_fallback(profile) == (
        "1 of 4 nodes (25.0%) run on CPUExecutionProvider, not on FakeExecutionProvider as asked."
    )


def test_reason_why_int8_cannot_be_told_reaches_the_measurement() -> None:
    """Not measurable with the provider's own words, no fake int8."""
    from autopilot.meters.placement import METER

    profile = Profile("v", environment={"int8_unaudited": facts_of(FAKE).unaudited})

    assert METER.summarise(profile, "int8_node_share").reason == "the fake runs nothing"
