"""Form and provider are chosen together: what is tried on one provider need not be tried on another."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autopilot import plugins
from autopilot.contracts import ProviderFacts, Slot, Technique, facts_of
from autopilot.domain import Choice, Domain, Scalar
from autopilot.needs import Ask
from autopilot.recipe import Recipe, Variant
from autopilot.space import SearchSpace
from autopilot.space_file import SpaceRequest, build_space
from autopilot.target import Target
from autopilot.techniques._rules import integer_forms
from tests.unit.test_space import FakeProvider, technique

TARGET = replace(Target.detect(), machine="x86_64", cpu_flags=("avx2", "avx512_vnni"))
FAST_ON = {"cpu": ("unsigned",), "vino": ("signed", "unsigned")}
TECHNIQUES = {
    "int8": technique(
        "int8",
        Slot.PRECISION,
        parameters={"form": Choice(("unsigned", "signed")), "samples": Choice((32, 128))},
        sensible=lambda target: {"form": FAST_ON.get(target.provider, ("unsigned",))},
        prefer=lambda target: tuple({"form": form} for form in FAST_ON.get(target.provider, ())),
    ),
    "dynamic": technique(
        "dynamic", Slot.PRECISION, available=lambda target: "float there" if target.provider == "vino" else None
    ),
}


class FactualProvider(FakeProvider):
    """A provider that has a say in what its options are worth here."""

    facts = ProviderFacts(sensible=lambda target: {"level": ("basic",)})


PROVIDERS: dict[str, Any] = {
    "cpu": FakeProvider("cpu"),
    "vino": FactualProvider("vino"),
    "gpu": FakeProvider("gpu", "no"),
}


def space_of(folder: Path, *providers: str, text: str = "") -> SearchSpace:
    path = folder / "space.yaml"
    path.write_text(text)
    request = SpaceRequest(providers, 1, (1,))
    return build_space(path, request, target=TARGET, techniques=TECHNIQUES, providers=PROVIDERS)


def drawn(space: SearchSpace, seed: int) -> tuple[Variant, dict[str, Scalar]]:
    generator, asked = random.Random(seed), {}

    def suggest(name: str, domain: Domain) -> Scalar:
        value = generator.choice(domain.values) if isinstance(domain, Choice) else generator.randint(1, 4)
        assert asked.setdefault(name, (value, domain))[1] == domain
        asked[name] = (value, domain)
        return value

    variant = space.sample(suggest)
    return variant, {name: value for name, (value, _) in asked.items()}


@pytest.fixture
def both(tmp_path: Path) -> SearchSpace:
    """Two providers that are there and one that isn't."""
    return space_of(tmp_path, "cpu", "vino", "gpu")


def test_no_draw_pairs_a_form_with_a_provider_that_is_slow_on_it(both: SearchSpace) -> None:
    """A sampler would waste a trial on each such pair."""
    found = [drawn(both, seed)[0] for seed in range(300)]
    pairs = {
        (v.deployment.provider, step.technique, dict(step.params).get("form")) for v in found for step in v.recipe.steps
    }

    assert {(p, f) for p, t, f in pairs if t == "int8"} == {
        ("cpu", "unsigned"),
        ("vino", "signed"),
        ("vino", "unsigned"),
    }
    assert {p for p, t, _ in pairs if t == "dynamic"} == {"cpu"}


def test_one_name_is_asked_for_one_set_of_values(both: SearchSpace) -> None:
    """Optuna refuses a categorical parameter whose choices change."""
    domains: dict[str, Domain] = {}
    generator = random.Random(1)

    def suggest(name: str, domain: Domain) -> Scalar:
        assert domains.setdefault(name, domain) == domain
        return generator.choice(domain.values) if isinstance(domain, Choice) else domain.default

    for _ in range(300):
        both.sample(suggest)

    assert {"int8.form@vino", "precision", "precision@vino", "int8.samples"} <= set(domains)


@pytest.mark.parametrize("seed", range(40))
def test_names_give_the_variant_back_on_every_provider(both: SearchSpace, seed: int) -> None:
    """Warm starts rest on it."""
    variant, asked = drawn(both, seed)
    named = both.names_of(variant)

    assert {k: named[k] for k in asked} == asked
    assert both.sample(lambda name, domain: named[name]) == variant


def test_missing_provider_is_never_drawn_and_has_its_reason(both: SearchSpace) -> None:
    """It is told once, with the explanation."""
    assert "gpu" not in both.providers
    assert both.left_out == {"gpu": "no"}
    assert {drawn(both, seed)[0].deployment.provider for seed in range(60)} == {"cpu", "vino"}


def test_known_good_takes_turns_and_tries_the_given_model_on_the_other_provider(both: SearchSpace) -> None:
    """The early trials must show which provider is faster, in the form that each does best."""
    known = list(both.known_good(TARGET))
    told = [(v.deployment.provider, [dict(s.params).get("form") for s in v.recipe.steps]) for v in known]

    assert told[:2] == [("cpu", ["unsigned"]), ("vino", ["signed"])]
    assert [v.recipe for v in known if v.deployment.provider == "vino"][1] == Recipe()
    for variant in known:
        named = both.names_of(variant)
        assert both.sample(lambda name, domain, named=named: named[name]) == variant


def test_techniques_that_time_things_come_after_the_others(tmp_path: Path) -> None:
    """One of them takes as long to build as several others: a short search must not begin with them."""
    timed = replace(technique("a_timed", Slot.PRECISION), machine_bound=True)
    path = tmp_path / "space.yaml"
    path.write_text("")
    request = SpaceRequest(("cpu", "vino"), 1, (1,))
    techniques = {"a_timed": timed, **TECHNIQUES}
    space = build_space(path, request, target=TARGET, techniques=techniques, providers=PROVIDERS)

    for provider, others in (("cpu", ["dynamic", "int8"]), ("vino", ["int8"])):
        recipes = [v.recipe for v in space.known_good(TARGET) if v.deployment.provider == provider]
        names = [r.steps[0].technique for r in recipes if len(r.steps) == 1]
        assert sorted(names[: len(others)]) == others
        assert names[len(others)] == "a_timed"


def test_single_provider_asks_under_plain_names(tmp_path: Path) -> None:
    """Studies of one provider keep the names that they had."""
    space = space_of(tmp_path, "vino")
    asked = {name for seed in range(60) for name in drawn(space, seed)[1]}

    assert not any("@" in name for name in asked)
    assert space.left_out == {"dynamic": "float there"}


def test_what_a_space_file_says_itself_holds_on_every_provider(tmp_path: Path) -> None:
    """A user who names a value gets it."""
    space = space_of(tmp_path, "cpu", "vino", text="techniques: {int8: {form: [signed]}}")

    assert {
        dict(v.recipe.steps[0].params)["form"] for v, _ in (drawn(space, s) for s in range(40)) if v.recipe.steps
    } == {"signed"}


def test_options_of_a_provider_are_narrowed_to_what_is_worth_it_here(tmp_path: Path) -> None:
    """Unless the space says otherwise, by name or by sensible_only."""
    assert space_of(tmp_path, "vino").providers["vino"]["level"] == Choice(("basic",))
    assert len(space_of(tmp_path, "vino", text="sensible_only: false").providers["vino"]["level"].values) == 2  # type: ignore[union-attr]
    named = space_of(tmp_path, "vino", text="deployment: {vino: {level: [all]}}")
    assert named.providers["vino"]["level"] == Choice(("all",))


@pytest.mark.parametrize("provider", ["cpu", "openvino", "tensorrt"])
@pytest.mark.parametrize("name", ["static_int8", "mixed_int8"])
def test_preferred_forms_are_inside_what_is_sensible_there(name: str, provider: str) -> None:
    """A recommendation that the same plug-in leaves out of the space would never be tried."""
    found: Technique = plugins.techniques()[name]
    there = TARGET.running(provider)
    sensible = found.sensible(there)

    assert found.prefer(there)
    for params in found.prefer(there):
        assert all(params[key] in values for key, values in sensible.items() if key in params)


def test_forms_follow_the_provider() -> None:
    """x86: unsigned on the CPU provider, both on OpenVINO, symmetric signed on TensorRT."""
    forms = {p: [f["activations"] for f in integer_forms(TARGET.running(p))] for p in ("cpu", "openvino", "tensorrt")}

    assert forms == {"cpu": ["uint8"], "openvino": ["uint8", "int8"], "tensorrt": ["int8"]}


def test_provider_is_no_part_of_the_machine() -> None:
    """Fingerprints and reports stay what they are."""
    there = TARGET.running("openvino")

    assert there.fingerprint == TARGET.fingerprint
    assert there.to_json() == TARGET.to_json()


def test_engine_key_follows_library_device_and_nothing_else() -> None:
    """An engine is used again exactly where it still holds."""
    facts = ProviderFacts(libraries=("openvino",), hardware=("cpu",))
    one = replace(TARGET, versions={"openvino": "1", "numpy": "1"}, cpu="a")

    assert facts.engine_key(one) == facts.engine_key(replace(one, versions={"openvino": "1", "numpy": "2"}))
    assert facts.engine_key(one) != facts.engine_key(replace(one, versions={"openvino": "2"}))
    assert facts.engine_key(one) != facts.engine_key(replace(one, cpu="b"))


def test_provider_without_facts_is_taken_for_one_like_the_cpus() -> None:
    """Plug-ins of others from before there were facts go on working."""
    assert facts_of(PROVIDERS["cpu"]) == ProviderFacts(sensible=facts_of(PROVIDERS["cpu"]).sensible)


class PlainProvider(FakeProvider):
    """A provider of float32 and ONNX's own operators."""

    facts = ProviderFacts(precisions=("float32",), operators=())


ASKING = {
    "blocks": technique("blocks", Slot.PRECISION, asks=(Ask("com.microsoft"),)),
    "fusing": technique(
        "fusing",
        Slot.GRAPH,
        parameters={"method": Choice(("big", "small")), "twice": Choice((False, True))},
        asks=(Ask("com.microsoft", "method", ("big",)),),
    ),
    "half": technique(
        "half",
        Slot.TRAINING,
        parameters={"scope": Choice(("compute",))},
        asks=(Ask("float16", "scope", ("compute",)),),
    ),
}


@pytest.mark.parametrize("text", ["", "sensible_only: false", "techniques: {blocks: {}, fusing: {}, half: {}}"])
def test_no_draw_pairs_a_file_with_a_provider_that_cant_take_it(tmp_path: Path, text: str) -> None:
    """Also where a space names everything: such a trial could only fail."""
    path = tmp_path / "space.yaml"
    path.write_text(text)
    made: dict[str, Any] = {"cpu": FakeProvider("cpu"), "plain": PlainProvider("plain")}
    space = build_space(path, SpaceRequest(("cpu", "plain"), 1, (1,)), target=TARGET, techniques=ASKING, providers=made)

    found = [drawn(space, seed)[0] for seed in range(300)]

    pairs = {(v.deployment.provider, s.technique, dict(s.params).get("method")) for v in found for s in v.recipe.steps}
    assert {(t, m) for p, t, m in pairs if p == "plain"} == {("fusing", "small")}
    assert {(t, m) for p, t, m in pairs if p == "cpu"} == {
        ("blocks", None),
        ("fusing", "big"),
        ("fusing", "small"),
        ("half", None),
    }


def test_technique_whose_files_no_provider_takes_is_left_out_with_the_reason(tmp_path: Path) -> None:
    """The reason names what the provider lacks."""
    path = tmp_path / "space.yaml"
    path.write_text("")
    space = build_space(
        path,
        SpaceRequest(("plain",), 1, (1,)),
        target=TARGET,
        techniques={"blocks": ASKING["blocks"]},
        providers={"plain": PlainProvider("plain")},  # type: ignore[dict-item]
    )

    assert space.left_out == {"blocks": "it makes files with com.microsoft, which plain doesn't take"}


def test_torch_compile_is_paired_with_nothing_outside_float32_and_onnx(tmp_path: Path) -> None:
    """The real plug-ins: what becomes a PyTorch module is tried there, and nothing else."""
    path = tmp_path / "space.yaml"
    path.write_text("techniques: [fuse, weight_only, float16, static_int8, dynamic_int8, mixed_int8]")
    provider = plugins.providers()["torch_compile"]
    usable = SimpleNamespace(
        name=provider.name, parameters=provider.parameters, facts=facts_of(provider), usable=lambda target: None
    )
    made: dict[str, Any] = {"cpu": FakeProvider("cpu"), "torch_compile": usable}
    request = SpaceRequest(("cpu", "torch_compile"), 1, (1,))
    space = build_space(path, request, target=TARGET, techniques=plugins.techniques(), providers=made)

    there = {slot: space.slot(slot, "torch_compile") for slot in Slot}
    assert there[Slot.GRAPH] == ("fuse",)
    assert there[Slot.PRECISION] == ("float16",)
    assert space.domains("fuse", "torch_compile")["method"] == Choice(("ort_basic", "onnxslim"))
    assert space.domains("float16", "torch_compile")["scope"] == Choice(("storage",))
    assert space.domains("fuse", "cpu")["method"] != space.domains("fuse", "torch_compile")["method"]
