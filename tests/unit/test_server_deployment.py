"""Batching delay and instances: where they are searched, how they are written, shown and refused."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autopilot.bench.cores import server_cores
from autopilot.domain import Choice, Domain, Scalar
from autopilot.errors import SpecError
from autopilot.recipe import Deployment, Recipe, Variant
from autopilot.result.rows import trials_csv
from autopilot.search.index import deployment_text as key_text
from autopilot.search.texts import deployment_text
from autopilot.space import SearchSpace
from autopilot.space_file import SpaceRequest, build_space
from autopilot.target import Target
from autopilot.testing import fake_measured, fake_result, fake_trial, fake_variant
from tests.unit.test_space import PROVIDERS, TECHNIQUES

USUAL = Deployment("cpu", 1, 1)
SERVING = Deployment("cpu", 2, 8, (("arena", True),), max_delay_ms=2.0, instances=3)
BATCHES = (1, 2, 4, 8, 16)


def space_of(folder: Path, text: str = "", *, threads: int = 4, serving: bool = True) -> SearchSpace:
    """A space of a server's choices."""
    path = folder / "space.yaml"
    path.write_text(text)
    request = SpaceRequest(("cpu",), threads, BATCHES if serving else (1,), serving=serving)
    return build_space(path, request, target=Target.detect(), techniques=TECHNIQUES, providers=PROVIDERS)


def drawn(space: SearchSpace, seed: int) -> tuple[Variant, dict[str, Scalar]]:
    """A random variant and the choices that made it."""
    generator, asked = random.Random(seed), {}

    def suggest(name: str, domain: Domain) -> Scalar:
        assert isinstance(domain, Choice) or domain.low < domain.high
        asked[name] = generator.choice(domain.values) if isinstance(domain, Choice) else domain.default
        return asked[name]

    return space.sample(suggest), asked


def test_defaults_are_not_written_so_that_ids_stay() -> None:
    """A deployment from before there were such settings has the same digest."""
    assert USUAL.to_json() == {"provider": "cpu", "threads": 1, "batch": 1}
    assert Variant(Recipe(), USUAL).id == Variant(Recipe(), replace(USUAL, max_delay_ms=0.0, instances=1)).id


def test_settings_survive_json_and_are_no_options_of_the_provider() -> None:
    """They belong to the server."""
    written = json.loads(json.dumps(SERVING.to_json()))

    assert Deployment.from_json(written) == SERVING
    assert dict(SERVING.options) == {"arena": True}
    assert SERVING.cores == 6


def test_server_has_a_core_for_every_thread_of_every_instance() -> None:
    """As far as there are any."""
    cores = server_cores(Deployment("cpu", 1, instances=2).cores)

    assert len(cores) <= 2
    assert cores == server_cores(2)


@pytest.mark.parametrize("seed", range(30))
def test_every_draw_fits_the_cores_and_comes_back_from_its_names(tmp_path: Path, seed: int) -> None:
    """Warm starts rest on it; a delay without a batch to fill is no choice."""
    space = space_of(tmp_path)
    variant, asked = drawn(space, seed)
    named = space.names_of(variant)

    assert variant.deployment.cores <= 4
    assert variant.deployment.batch > 1 or variant.deployment.max_delay_ms == 0.0
    assert {k: v for k, v in named.items() if k in asked} == asked
    assert space.sample(lambda name, domain: named[name]) == variant


def test_default_deployment_serves_one_request_after_the_other(tmp_path: Path) -> None:
    """The baseline is what it is in other traffic."""
    assert space_of(tmp_path).default_deployment().to_json() == {
        "provider": "cpu", "threads": 4, "batch": 1, "arena": True, "level": "all",
    }  # fmt: skip


def test_other_traffic_has_no_such_choices(tmp_path: Path) -> None:
    """Also where a space file names some: the same file serves all scenarios."""
    text = "deployment: {max_delay_ms: [1, 2], instances: [1, 2], batch: [1, 8]}"
    space = space_of(tmp_path, text, serving=False)
    deployments = {drawn(space, seed)[0].deployment for seed in range(20)}

    assert {(d.batch, d.max_delay_ms, d.instances) for d in deployments} == {(1, 0.0, 1)}


def test_space_file_narrows_what_a_server_may_do(tmp_path: Path) -> None:
    """Single values are fixed."""
    space = space_of(tmp_path, "deployment: {batch: [8], max_delay_ms: 3, instances: [2], threads: [1, 2, 4]}")
    deployment = space.default_deployment()

    assert (deployment.batch, deployment.max_delay_ms, deployment.instances) == (8, 3.0, 2)
    assert space.threads == (2, 1)  # two instances of four threads don't fit
    assert "max_delay_ms" not in drawn(space, 1)[1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("deployment: {max_delay_ms: soon}", "max_delay_ms"),
        ("deployment: {max_delay_ms: [-1]}", "max_delay_ms"),
        ("deployment: {max_delay_ms: []}", "max_delay_ms"),
        ("deployment: {instances: 0}", "instances"),
        ("deployment: {instances: [8]}", "more than the 4 cores"),
        ("deployment: {instance: [1]}", "instance"),
    ],
)
def test_bad_settings_are_named(tmp_path: Path, text: str, said: str) -> None:
    """Before anything is measured."""
    with pytest.raises(SpecError, match=said):
        space_of(tmp_path, text)


def test_known_good_tries_an_instance_a_core_early(tmp_path: Path) -> None:
    """Beside a middling batch; none of them exceeds the cores."""
    known = list(space_of(tmp_path).known_good(Target.detect()))

    assert [(v.deployment.batch, v.deployment.threads, v.deployment.instances) for v in known[:2]] == [
        (4, 4, 1),
        (1, 1, 4),
    ]
    assert all(v.deployment.cores <= 4 for v in known)


def test_space_with_instances_to_choose_is_not_single(tmp_path: Path) -> None:
    """There is something to search."""
    fixed = "techniques: []\ndeployment: {threads: 1, batch: 1, instances: %s, cpu: {arena: true, level: all}}"

    assert not space_of(tmp_path, fixed % "[1, 2]").is_single
    assert space_of(tmp_path, fixed % "1").is_single


def test_texts_name_what_is_unusual() -> None:
    """Progress lines for people; keys of equal artifacts tell deployments apart."""
    assert deployment_text(SERVING, SERVING) == "cpu, 3 instances, 2 threads, batch 8, up to 2 ms of delay"
    assert deployment_text(USUAL, USUAL) == "cpu, 1 thread"
    keys = {key_text(Variant(Recipe(), d)) for d in (USUAL, replace(USUAL, instances=2), replace(USUAL, batch=2))}
    assert len(keys) == 3


def test_trials_csv_has_columns_for_them_where_a_trial_has_them() -> None:
    """And none in other studies."""
    usual = fake_trial(0, fake_variant(), fake_measured(latency_ms=1.0))
    variant = replace(fake_variant(), deployment=SERVING)
    result: Any = replace(fake_result(), trials=(usual, fake_trial(1, variant, fake_measured(latency_ms=1.0))))

    assert "max_delay_ms,instances" in trials_csv(result).splitlines()[0]
    assert "instances" not in trials_csv(replace(result, trials=(usual,))).splitlines()[0]
