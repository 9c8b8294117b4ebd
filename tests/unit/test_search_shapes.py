"""First runs of every size of batch: counted apart, foreseen in what a trial should cost, ended by the study's time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autopilot import plugins
from autopilot.bench.child import ChildLimits
from autopilot.bench.live import Server
from autopilot.budget import Budget, Limit
from autopilot.errors import Failure, VariantFailed, WorkerDied
from autopilot.observer import NullObserver
from autopilot.recipe import Deployment, Recipe, Step, Variant, params_of
from autopilot.result import TrialRecord, TrialState
from autopilot.search.allowance import GRACE_S, Allowance
from autopilot.search.outcome import Outcome
from autopilot.search.proposer import Proposer
from autopilot.search.ranking import Ranking
from autopilot.search.shapes import ShapePrices, first_runs, meet_sizes, meets_sizes, open_traffic
from autopilot.search.stages import SHAPES, Screen, stage_costs
from tests.unit.search_support import BUDGET, artifact_of, info_of, setup_of

COMPILED = Deployment("torch_compile", batch=4, instances=2)
VARIANT = Variant(Recipe(), COMPILED)
CPU = Deployment("cpu", batch=4)


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class SlowServer:
    """A server that takes ``size_s`` seconds of ``clock`` for each size of batch."""

    def __init__(self, clock: Clock, deployment: Deployment = COMPILED, *, size_s: float = 20.0) -> None:
        self.deployment = deployment
        self.request_s: float | None = None
        self.allowed: list[float] = []
        self.for_memory: list[bool] = []
        self._clock = clock
        self._size_s = size_s

    def warm_up(self) -> None:
        self.request_s = 0.001

    def open_traffic(
        self, *, fixed: bool, before: Callable[[int, int], float], scored: str | None, for_memory: bool = False
    ) -> Path:
        self.for_memory.append(for_memory)
        total = self.deployment.batch * self.deployment.instances
        for done in range(total):
            self.allowed.append(before(done, total))
            self._clock.now_s += self._size_s
        return Path("queue")


class Saying(NullObserver):
    """Remembers what is being done."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def doing(self, text: str) -> None:
        self.said.append(text)


def opened(folder: Path, server: Any, allowance: Allowance, outcome: Outcome | None, observer: Any = None) -> None:
    observer = observer or NullObserver()
    open_traffic(server, setup_of(folder, scenario="server"), outcome, allowance=allowance, observer=observer)


def test_first_runs_are_those_of_providers_that_compile_for_each_shape(tmp_path: Path) -> None:
    """Sizes of batch times instances, under server traffic, unless one program takes all shapes or one size is run."""
    server = setup_of(tmp_path, scenario="server")

    assert first_runs(server, COMPILED) == 8
    assert first_runs(server, replace(COMPILED, options=params_of({"shapes": "dynamic"}))) == 0
    assert first_runs(server, replace(COMPILED, provider="cpu")) == 0
    assert first_runs(server, replace(COMPILED, provider="gone")) == 0
    assert first_runs(setup_of(tmp_path), COMPILED) == 0
    assert first_runs(setup_of(tmp_path, scenario="server", info=info_of(4)), COMPILED) == 2


def test_first_runs_of_all_providers_follow_what_these_declare(tmp_path: Path) -> None:
    """The child decides by the same rule as the search foresees by."""
    server = setup_of(tmp_path, scenario="server")
    for name, provider in plugins.providers().items():
        declared = getattr(provider, "facts", None)
        expected = 3 if declared is not None and declared.per_shape else 0
        assert first_runs(server, Deployment(name, batch=3)) == expected, name


def test_each_size_may_take_as_long_as_a_child_while_the_study_has_time(tmp_path: Path) -> None:
    """Eight sizes of 20 s are 160 s in all: no limit of 60 s is for the sum of them. And somebody is told."""
    clock, watcher = Clock(), Saying()
    server = SlowServer(clock)
    opened(tmp_path, server, Allowance(ChildLimits(60.0), clock), Outcome(VARIANT, artifact_of(Recipe())), watcher)

    assert server.allowed == [60.0] * 8
    assert watcher.said[3] == "first runs of each size of batch: 3 of 8 made"
    assert server.request_s is not None


def test_first_runs_end_with_the_studys_time(tmp_path: Path) -> None:
    """50 s are left, of 160 that they would take: the study ends late by what was under way alone."""
    clock = Clock()
    allowance = Allowance(ChildLimits(600.0), clock)
    allowance.deadline = clock() + 50.0
    server = SlowServer(clock)

    with pytest.raises(VariantFailed, match="time was up when 3 of 8 first runs") as caught:
        opened(tmp_path, server, allowance, None)

    assert caught.value.failure is Failure.TIMEOUT
    assert server.allowed == [50.0, GRACE_S, GRACE_S]
    assert clock() - allowance.deadline == 10.0


def test_seconds_of_first_runs_stand_beside_those_of_the_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They add up, so that no second is counted twice; a failure in the middle leaves what was spent."""
    clock = Clock()
    monkeypatch.setattr("autopilot.search.outcome.time.perf_counter", clock)
    outcome = Outcome(VARIANT, artifact_of(Recipe()))
    with outcome.timed("profile"):
        opened(tmp_path, SlowServer(clock), Allowance(ChildLimits(60.0), clock), outcome)
        clock.now_s += 5.0

    assert outcome.seconds == {SHAPES: 160.0, "profile": 5.0}


def test_provider_without_first_runs_has_no_such_seconds(tmp_path: Path) -> None:
    """A row of zeros would say that something was measured."""
    clock = Clock()
    deployment = Deployment("cpu", batch=1)
    outcome = Outcome(Variant(Recipe(), deployment), artifact_of(Recipe()))
    opened(tmp_path, SlowServer(clock, deployment, size_s=0.0), Allowance(ChildLimits(60.0), clock), outcome)

    assert outcome.seconds == {}


MEMORY = Budget((Limit("model_memory_mb", 100.0),))


@pytest.mark.parametrize("scenario", ["server", "single_stream", "offline"])
def test_sizes_are_met_before_memory_is_read_where_requests_are_scheduled(tmp_path: Path, scenario: str) -> None:
    """Whatever the provider: a serving process holds the buffers of all sizes in all instances. Else there is one."""
    setup = setup_of(tmp_path, scenario=scenario, budget=MEMORY)

    assert meets_sizes(setup, Deployment("cpu", batch=4, instances=2)) is (scenario == "server")
    assert meets_sizes(setup, COMPILED) is (scenario == "server")


def test_sizes_that_nobody_compiles_for_are_met_only_where_memory_is_asked_for(tmp_path: Path) -> None:
    """A slow model would spend minutes at every start, for a figure that decides nothing."""
    server = setup_of(tmp_path, scenario="server")

    assert not meets_sizes(server, Deployment("cpu", batch=4))
    assert meets_sizes(server, COMPILED)
    assert meets_sizes(replace(server, problem=replace(server.problem, more_objectives=("gpu_memory_mb",))), CPU)


@pytest.mark.parametrize(("deployment", "seconds"), [(COMPILED, {SHAPES: 160.0, "load": 5.0}), (CPU, {"load": 85.0})])
def test_sizes_met_for_memory_are_first_runs_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deployment: Deployment, seconds: dict[str, float]
) -> None:
    """The first to meet them pays most, where what was compiled is kept on disk: it is no part of loading."""
    clock = Clock()
    monkeypatch.setattr("autopilot.search.outcome.time.perf_counter", clock)
    outcome = Outcome(Variant(Recipe(), deployment), artifact_of(Recipe()))
    server: Any = SlowServer(clock, deployment)
    setup, allowance = setup_of(tmp_path, scenario="server", budget=MEMORY), Allowance(ChildLimits(600.0), clock)
    with outcome.timed("load"):
        meet_sizes(server, setup=setup, outcome=outcome, allowance=allowance, observer=NullObserver())
        clock.now_s += 5.0

    assert outcome.seconds == seconds
    assert server.for_memory == [True]


def asking(
    answer: Callable[[int], dict[str, Any]], wall_s: float = 60.0, *, per_shape: bool = True
) -> tuple[Server, list[tuple[str, float]]]:
    """The parent's side of a server that has 3 sizes to meet; what it was asked, and how long it was waited for."""
    asked: list[tuple[str, float]] = []
    server = object.__new__(Server)
    server.deployment, server._wall_s = COMPILED, wall_s

    def ask(command: dict[str, Any], limit_s: float | None = None) -> dict[str, Any]:
        asked.append((command["do"], wall_s if limit_s is None else limit_s))
        opened = {"queue": "q", "unmet": 3, "per_shape": per_shape}
        return opened if command["do"] == "open_traffic" else answer(len(asked) - 1)

    server._ask = ask  # type: ignore[method-assign, assignment]
    return server, asked


def test_server_is_asked_for_one_size_at_a_time() -> None:
    """Each with a limit of its own, the usual one where nobody says another."""
    server, asked = asking(lambda n: {"unmet": 3 - n})
    server.open_traffic()
    server.open_traffic(before=lambda done, total: 10.0 * (total - done))

    opening = ("open_traffic", 60.0)
    usual = ("meet_size", 60.0)
    assert asked == [opening, *[usual] * 3, opening, ("meet_size", 30.0), ("meet_size", 20.0), ("meet_size", 10.0)]


def test_size_that_takes_too_long_is_named() -> None:
    """Nobody would know from "gave no answer" that many sizes are compiled, and how far that was."""

    def hangs(n: int) -> dict[str, Any]:
        if n == 2:
            raise WorkerDied(Failure.TIMEOUT, "the serving process gave no answer in 60 s.", log="compiling")
        return {"unmet": 3 - n}

    server, _ = asking(hangs)

    with pytest.raises(WorkerDied, match=r"torch_compile compiles .*: 1 of 3 were ready.* 60 s") as caught:
        server.open_traffic()

    assert (caught.value.failure, caught.value.log) == (Failure.TIMEOUT, "compiling")
    assert "step_timeout" in caught.value.hint

    server, _ = asking(hangs, per_shape=False)
    with pytest.raises(WorkerDied, match=r"^running each size of batch twice .* to read memory: 1 of 3 .* 60 s"):
        server.open_traffic(for_memory=True)


# ---- what a trial should cost ----------------------------------------------------------------------


def trial(number: int, deployment: Deployment, **seconds: float) -> TrialRecord:
    variant = Variant(Recipe((Step("slim", params_of({"n": number})),)), deployment)
    return TrialRecord(
        variant.id, number, TrialState.COMPLETE, None, "", "quality", variant, seconds={"load": 1.0, **seconds}
    )


def runs(deployment: Deployment) -> int:
    return 0 if deployment.provider == "cpu" else deployment.batch * deployment.instances


def test_price_of_first_runs_is_learned_for_each_provider() -> None:
    """8 of them took 160 s: 4 take 80 s. One that nobody tried is taken for one like those that were."""
    records = [
        trial(0, Deployment("slow", batch=8), shapes=160.0),
        trial(1, Deployment("quick", batch=4, instances=2), shapes=8.0),
        trial(2, Deployment("cpu", batch=16)),
    ]
    prices = ShapePrices.learn(records, runs)

    assert prices.seconds(Deployment("slow", batch=4)) == 80.0
    assert prices.seconds(Deployment("quick", batch=2)) == 2.0
    assert prices.seconds(Deployment("new", batch=2)) == 2 * 168.0 / 16
    assert prices.seconds(Deployment("cpu", batch=16)) == 0.0
    assert ShapePrices.learn([], runs).seconds(Deployment("slow")) == 0.0


def test_trial_that_met_its_sizes_once_tells_only_where_no_other_does() -> None:
    """A whole trial meets them twice: the one that ended over its memory limit paid for the first time alone."""
    half = trial(1, Deployment("slow", batch=8), shapes=160.0)
    whole = trial(2, Deployment("slow", batch=8), shapes=176.0, profile=5.0)

    assert ShapePrices.learn([half], runs).seconds(Deployment("slow", batch=4)) == 80.0
    assert ShapePrices.learn([half, whole], runs).seconds(Deployment("slow", batch=4)) == 88.0


def test_first_runs_that_took_more_than_the_time_allowed_are_a_price_too() -> None:
    """Else every further deployment of that provider would be tried for as long; a crash tells none."""
    cut = replace(trial(0, Deployment("slow", batch=8), shapes=600.0), state=TrialState.FAILED)

    timed_out, crashed = (replace(cut, failure=failure) for failure in (Failure.TIMEOUT, Failure.CRASH))
    assert ShapePrices.learn([timed_out], runs).seconds(Deployment("slow", batch=4)) == 300.0
    assert ShapePrices.learn([crashed], runs).seconds(Deployment("slow", batch=4)) == 0.0


def test_trial_that_hung_makes_no_others_seem_too_long() -> None:
    """Ten minutes of one that gave no answer, and two minutes left: others take a second."""
    hung = replace(trial(1, Deployment("cpu"), profile=600.0), state=TrialState.FAILED, failure=Failure.TIMEOUT)
    records = [trial(0, Deployment("cpu")), hung, trial(2, Deployment("cpu"), profile=1.0)]
    wanted = Variant(Recipe(), Deployment("cpu", batch=2))
    proposer = Proposer(Offered([wanted], [wanted]), Ranking("latency_p50_ms", maximize=False), BUDGET.axes)

    assert proposer.next(records, lambda v: True, 120.0).variant == wanted


def test_stages_of_the_result_tell_the_whole_pass_and_proposals_go_by_the_pass_alone() -> None:
    """What a deployment pays for its sizes is no reason to take others for dear."""
    records = [
        trial(1, Deployment("slow", batch=8), shapes=160.0, profile=6.0),
        trial(2, Deployment("cpu"), profile=4.0),
    ]

    told = {c.stage: c.seconds for c in stage_costs(records)}
    alone = {c.stage: c.seconds for c in stage_costs(records, first_runs=False)}

    assert (told[Screen.LATENCY], alone[Screen.LATENCY]) == (170.0, 10.0)
    over = {c.stage: c.seconds for c in stage_costs([trial(1, Deployment("slow", batch=8), shapes=80.0)])}
    assert (over[Screen.LOAD], over[Screen.LATENCY]) == (81.0, 0.0)


class Offered:
    """Candidates that are there as they were given."""

    def __init__(self, known: list[Variant], pool: list[Variant]) -> None:
        self._known, self._pool = known, pool

    def known_good(self) -> list[Variant]:
        return self._known

    def pool(self, records: Any) -> list[Variant]:
        return self._pool

    def names_of(self, variant: Variant) -> dict[str, Any]:
        return {"provider": variant.deployment.provider, "batch": variant.deployment.batch}


def test_deployment_whose_sizes_would_not_be_ready_in_time_is_not_proposed() -> None:
    """16 sizes at 20 s each with two minutes left: neither as a recommended variant nor as one of the model's."""
    large, small = (Variant(Recipe(), Deployment("slow", batch=n)) for n in (16, 1))
    records = [trial(0, Deployment("cpu")), trial(1, Deployment("slow", batch=2), shapes=40.0, profile=2.0)]

    def proposed(known: list[Variant], pool: list[Variant], left_s: float) -> Variant | None:
        proposer = Proposer(
            Offered(known, pool), Ranking("latency_p50_ms", maximize=False), BUDGET.axes, first_runs=runs
        )
        return proposer.next(records, lambda v: True, left_s).variant

    assert proposed([large, small], [], 1000.0) == large
    assert proposed([large, small], [], 120.0) == small
    assert proposed([], [large, small], 120.0) == small
    assert proposed([large], [large], 120.0) is None
