"""The search space: narrowing, sampling, warm starts."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopilot.contracts import Slot, Technique
from autopilot.domain import Choice, Domain, Float, Int, Scalar, narrow
from autopilot.errors import SpecError
from autopilot.recipe import Deployment, Recipe, Step, Variant
from autopilot.space import SearchSpace
from autopilot.space_file import SpaceRequest, build_space
from autopilot.target import Target


def technique(name: str, slot: Slot, **more: object) -> Technique:
    defaults: dict[str, object] = {
        "parameters": {"level": Int(1, 4, 2), "kind": Choice(("a", "b"))},
        "apply": lambda source, folder, params, context: None,
        "summary": "",
        "version": 1,
    }
    return Technique(name=name, slot=slot, **(defaults | more))  # type: ignore[arg-type]


class FakeProvider:
    """A provider that runs here unless told otherwise."""

    def __init__(self, name: str, reason: str | None = None) -> None:
        self.name = name
        self.parameters: dict[str, Domain] = {"arena": Choice((True, False)), "level": Choice(("all", "basic"))}
        self.thread_choices = True
        self.reason = reason

    def usable(self, target: Target) -> str | None:
        return self.reason

    def open(self, *args: object, **kwargs: object) -> object:
        raise AssertionError("never opened while sampling")


TECHNIQUES = {
    "slim": technique("slim", Slot.GRAPH),
    "int8": technique("int8", Slot.PRECISION, prefer=lambda target: ({"kind": "b"}, {"level": 4})),
    "half": technique("half", Slot.PRECISION, available=lambda target: "no half here"),
}
PROVIDERS = {"cpu": FakeProvider("cpu"), "gpu": FakeProvider("gpu", "no driver")}


def space_of(tmp_path: Path, text: str = "", threads: int = 2, providers: tuple[str, ...] = ("cpu",)) -> SearchSpace:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    request = SpaceRequest(providers, threads, (1,))
    return build_space(path, request, target=Target.detect(), techniques=TECHNIQUES, providers=PROVIDERS)


def drawn(space: SearchSpace, seed: int) -> tuple[Variant, dict[str, Scalar]]:
    rng = random.Random(seed)
    asked: dict[str, Scalar] = {}

    def suggest(name: str, domain: Domain) -> Scalar:
        assert not isinstance(domain, Float)
        value = rng.choice(domain.values) if isinstance(domain, Choice) else rng.randint(domain.low, domain.high)
        asked[name] = value
        return value

    return space.sample(suggest), asked


def test_space_leaves_out_what_cannot_run_and_says_why(tmp_path: Path) -> None:
    """Techniques and providers that can't run here are named with the reason."""
    space = space_of(tmp_path, providers=("cpu", "gpu"))

    assert set(space.techniques) == {"slim", "int8"}
    assert space.left_out == {"half": "no half here", "gpu": "no driver"}


@given(seed=st.integers(0, 10_000))
def test_names_of_gives_back_what_was_drawn(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Queued parameters and sampled parameters are each other's inverse."""
    space = space_of(tmp_path_factory.mktemp("space"))
    variant, asked = drawn(space, seed)

    named = space.names_of(variant)

    assert {k: named[k] for k in asked} == asked
    assert space.sample(lambda name, domain: named[name]) == variant


def test_known_good_starts_with_each_technique_then_pairs(tmp_path: Path) -> None:
    """Warm starts come in the plug-ins' order of preference and lie inside the space."""
    space = space_of(tmp_path)

    known = list(space.known_good(Target.detect()))

    assert [[s.technique for s in v.recipe.steps] for v in known[:3]] == [["int8"], ["slim"], ["slim", "int8"]]
    assert dict(known[0].recipe.steps[0].params)["kind"] == "b"
    assert all(v.deployment == space.default_deployment() for v in known)


def test_known_good_skips_sets_outside_a_narrowed_space(tmp_path: Path) -> None:
    """A recommendation that the space forbids is not tried."""
    space = space_of(tmp_path, "techniques: {int8: {kind: [a]}}")

    known = list(space.known_good(Target.detect()))

    assert known
    assert all(dict(v.recipe.steps[0].params)["kind"] == "a" for v in known)


def test_single_values_are_not_asked(tmp_path: Path) -> None:
    """A domain of one value is no question to the sampler."""
    space = space_of(tmp_path, "techniques: {int8: {kind: a}}", threads=1)

    _, asked = drawn(space, 1)

    assert "int8.kind" not in asked
    assert "threads" not in asked
    assert "batch" not in asked


def test_default_deployment_uses_all_threads_of_the_target(tmp_path: Path) -> None:
    """The baseline runs with what the target allows."""
    deployment = space_of(tmp_path, threads=4).default_deployment()

    assert deployment == Deployment("cpu", 4, 1, (("arena", True), ("level", "all")))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("techniques: {int9: {}}", "int9"),
        ("techniques: {int8: {kinds: [a]}}", "kinds"),
        ("techniques: {int8: {kind: [c]}}", "'c'"),
        ("techniques: {int8: {level: {min: 0}}}", "0..4"),
        ("techniqes: {}", "techniqes"),
        ("deployment: {threads: zero}", "threads"),
        ("deployment: {tpu: {}}", "tpu"),
        ("- a", "mapping"),
        ("a: [", "YAML"),
    ],
)
def test_space_refuses_what_plugins_do_not_declare(tmp_path: Path, text: str, said: str) -> None:
    """A typo in a space file is named, never ignored."""
    with pytest.raises(SpecError, match=said):
        space_of(tmp_path, text)


def test_space_without_a_usable_provider_is_refused_with_the_reason(tmp_path: Path) -> None:
    """No fallback to another provider in silence."""
    with pytest.raises(SpecError, match="no driver"):
        space_of(tmp_path, providers=("gpu",))


def test_refusal_names_the_technique(tmp_path: Path) -> None:
    """Order rules are asked of the plug-in."""
    refusing = {"int8": technique("int8", Slot.PRECISION, refuses=lambda earlier, params: "not now")}
    path = tmp_path / "s.yaml"
    path.write_text("")
    space = build_space(
        path, SpaceRequest(("cpu",), 1, (1,)), target=Target.detect(), techniques=refusing, providers=PROVIDERS
    )

    assert space.refusal(Recipe((Step("int8"),))) == "int8: not now"
    assert space.refusal(Recipe()) is None


@given(low=st.integers(0, 10), high=st.integers(0, 10))
def test_narrowing_never_widens(low: int, high: int) -> None:
    """Every value of a narrowed domain was in the declared one."""
    declared = Int(2, 8, 4)
    try:
        found = narrow(declared, {"min": low, "max": high}, "here")
    except SpecError:
        assert low < 2 or high > 8 or low > high
    else:
        assert isinstance(found, Int)
        assert 2 <= found.low <= found.default <= found.high <= 8


def test_narrowing_keeps_the_declared_default_first() -> None:
    """The default stays the default where it is allowed."""
    assert narrow(Choice(("a", "b", "c")), ["c", "a"], "x") == Choice(("a", "c"))
    assert narrow(Float(0.0, 1.0, 0.5), {"min": 0.6}, "x") == Float(0.6, 1.0, 0.6)


@pytest.mark.parametrize(
    "text",
    [
        "techniques: 3",
        "techniques: quick",
        "techniques: {int8: [1, 2]}",
        "techniques: {int8: 5}",
        "deployment: cpu",
        "deployment: [1]",
        "deployment: {cpu: 4}",
        "deployment: {batch: x}",
    ],
)
def test_build_space_refuses_values_of_the_wrong_kind(tmp_path: Path, text: str) -> None:
    """A list where names belong is bad input, not a traceback."""
    with pytest.raises(SpecError):
        space_of(tmp_path, text)


def test_narrow_counts_a_repeated_value_once() -> None:
    """Twice the same choice would be drawn twice as often, and be two variants."""
    assert narrow(Choice(("a", "b")), ["b", "b"], "here") == Choice(("b",))


def test_known_good_starts_with_a_batch_where_requests_may_be_batches(tmp_path: Path) -> None:
    """Throughput comes from batching first: the search must not spend its first half on single samples."""
    path = tmp_path / "space.yaml"
    path.write_text("")
    request = SpaceRequest(("cpu",), 1, (1, 2, 4, 8, 16))
    space = build_space(path, request, target=Target.detect(), techniques=TECHNIQUES, providers=PROVIDERS)

    known = list(space.known_good(Target.detect()))

    assert known[0] == Variant(Recipe(), space.default_deployment().with_(batch=4))
    assert {v.deployment.batch for v in known} == {4}
