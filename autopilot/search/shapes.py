"""First runs under scheduled traffic: some runtimes compile for each size of batch, before the first timed window.

A trial meets all sizes twice: in the process whose memory is read, and in the one that is timed. They can take longer
than all the rest of a trial: a minute for each of 16 sizes in two instances is half an hour. So their time is kept
apart from the passes' own (``seconds["shapes"]`` of a trial), foreseen in what a trial should cost, and ended by the
study's time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial

from autopilot import plugins
from autopilot.bench.live import BeforeRun, Server
from autopilot.contracts import meets_each_shape
from autopilot.errors import Failure, VariantFailed
from autopilot.meters.memory import MemoryMeter
from autopilot.observer import Observer
from autopilot.recipe import Deployment
from autopilot.result import TrialRecord
from autopilot.search.allowance import Allowance
from autopilot.search.outcome import Outcome
from autopilot.search.preflight import scored_for_sure
from autopilot.search.prepare import Setup
from autopilot.search.stages import SHAPES, Screen

# How many first runs a deployment makes before it is timed.
FirstRuns = Callable[[Deployment], int]


def first_runs(setup: Setup, deployment: Deployment) -> int:
    """Sizes of batch times instances where the provider compiles for each; 0 elsewhere, and without server traffic."""
    if not setup.problem.traffic.is_server:
        return 0
    provider = plugins.providers().get(deployment.provider)
    if provider is None or not meets_each_shape(provider, deployment):
        return 0
    return deployment.instances * (1 if setup.fixed_batch is not None else deployment.batch)


def open_traffic(
    server: Server, setup: Setup, outcome: Outcome | None, *, allowance: Allowance, observer: Observer
) -> None:
    """Make ``server`` ready for scheduled requests, first runs included.

    Their seconds are put into ``outcome``; None where they are not its own.

    Raises:
        VariantFailed: one of them failed or took too long, or the study's time was up before the last.
    """
    if server.request_s is None:
        server.warm_up()
    opened = partial(
        server.open_traffic,
        fixed=setup.fixed_batch is not None,
        before=_before(allowance, observer),
        scored=_scored(setup),
    )
    if outcome is None or not first_runs(setup, server.deployment):
        opened()
        return
    with outcome.timed(SHAPES, out_of="profile"):
        opened()


def meets_sizes(setup: Setup, deployment: Deployment) -> bool:
    """Whether every size is to be met before memory is read.

    Under scheduled requests each instance has buffers of its own for the sizes that it has met, whatever the provider.
    Where none is compiled for, running them all is worth it only if somebody asks for memory.
    """
    if first_runs(setup, deployment):
        return True
    asked = {*setup.problem.budget.axes, *setup.problem.objectives}
    return setup.problem.traffic.is_server and not asked.isdisjoint(axis.name for axis in MemoryMeter.axes)


def meet_sizes(server: Server, *, setup: Setup, outcome: Outcome, allowance: Allowance, observer: Observer) -> None:
    """Have a server of ``outcome`` that is watched for its memory hold what it will under scheduled requests.

    What compiling took is put into ``outcome`` beside what the latency pass will take for the same sizes: the first
    to meet them pays most, where what was compiled is kept on disk.

    Raises:
        VariantFailed: as ``open_traffic``.
    """
    before, fixed = _before(allowance, observer), setup.fixed_batch is not None
    is_compiled = first_runs(setup, server.deployment) > 0
    with outcome.timed(SHAPES, out_of="load") if is_compiled else nullcontext():
        server.open_traffic(fixed=fixed, before=before, for_memory=True, scored=_scored(setup))


def _scored(setup: Setup) -> str | None:
    """The session's output that is scored; None where a hook makes others of them."""
    return None if setup.problem.data.postprocess else scored_for_sure(setup.problem.metric)


def _before(allowance: Allowance, observer: Observer) -> BeforeRun:
    """What is asked before each first run: how long it may take, if there is time for it at all."""

    def before(done: int, total: int) -> float:
        observer.doing(f"first runs of each size of batch: {done} of {total} made")
        if allowance.left_s <= 0:
            message = f"the study's time was up when {done} of {total} first runs of a size of batch were made."
            raise VariantFailed(Failure.TIMEOUT, message, "Give the study more time (search.timeout).")
        return allowance.limits.wall_s

    return before


def _is_whole(record: TrialRecord) -> bool:
    """Whether the first runs of a trial are those of both its passes, or took all the time that they might."""
    return record.failure is Failure.TIMEOUT or Screen.LATENCY in record.seconds


@dataclass(slots=True)
class ShapePrices:
    """Seconds of a first run, provider by provider, from the finished trials."""

    runs: FirstRuns
    _spent: dict[str, tuple[float, int]] = field(default_factory=dict)  # seconds, first runs

    @classmethod
    def learn(cls, records: Sequence[TrialRecord], runs: FirstRuns) -> ShapePrices:
        """What the first runs of a trial took, or at least took, where they were more than the time allowed.

        A trial that ended before its latency pass met the sizes once, of twice: it counts where no other tells.
        """
        prices = cls(runs)
        told = [r for r in records if SHAPES in r.seconds and r.failure in (None, Failure.TIMEOUT)]
        whole = {r.variant.deployment.provider for r in told if _is_whole(r)}
        for record in told:
            provider, count = record.variant.deployment.provider, runs(record.variant.deployment)
            if count and (_is_whole(record) or provider not in whole):
                seconds, counted = prices._spent.get(provider, (0.0, 0))
                prices._spent[provider] = (seconds + record.seconds[SHAPES], counted + count)
        return prices

    def seconds(self, deployment: Deployment) -> float:
        """What the first runs of ``deployment`` should take: 0 where nothing is known of any provider's."""
        count = self.runs(deployment)
        if not count:
            return 0.0
        seconds, counted = self._spent.get(deployment.provider, (0.0, 0))
        if not counted:  # of a provider that wasn't seen: what those took that were
            seconds, counted = sum(s for s, _ in self._spent.values()), sum(n for _, n in self._spent.values())
        return count * seconds / counted if counted else 0.0
