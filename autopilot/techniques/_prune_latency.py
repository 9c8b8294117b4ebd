"""How much of each group of channels to remove, from milliseconds that were measured on this machine.

NetAdapt (Yang et al. 2018) measures candidate widths on the device instead of counting operations; HALP (Shen et al.
2022) turns a table of such latencies into a knapsack: the least loss for the milliseconds asked for. Here the loss is
how far the answers move, settled and not trained, and since what groups save doesn't quite add up, the choice itself
is timed and the aim corrected.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopilot.artifact import sha256_file
from autopilot.cache.sealed import opened_json, replacing, sealed_json, used
from autopilot.contracts import BuildContext, Feed
from autopilot.errors import ModelError, Unsupported
from autopilot.recipe import digest
from autopilot.target import cpu_flags, cpu_model
from autopilot.techniques._interleaved import time_against
from autopilot.techniques._knapsack import cheapest
from autopilot.temporary import temporary_folder
from autopilot.torch_model.calling import Call
from autopilot.torch_model.prune import LARGEST_RATIO, NOTHING
from autopilot.torch_model.quick_export import export_for_timing
from autopilot.torch_model.trials import Trials

if TYPE_CHECKING:
    from torch import nn

    from autopilot.data import Split

_FORMAT = 1
# Widths that are tried of a group, evenly spread: kernels step by 8 or 16 channels, and each costs a build.
_WIDTHS = 5
# What making the candidates, and then timing them, may take; widths that don't fit in are left out.
_MAKING_S, _TIMING_S, _CHECKING_S = 90.0, 20.0, 3.0
# The choice is timed and corrected so often, or until it is so near to what was asked.
_CORRECTIONS, _NEAR = 3, 0.05


@dataclass(frozen=True, slots=True)
class Width:
    """``channels`` left of a group, ``saved_ms`` of a request of one sample, and ``divergence`` of the answers."""

    channels: int
    saved_ms: float
    divergence: float


@dataclass(frozen=True, slots=True)
class Table:
    """``whole_ms``: the model's own milliseconds a request; ``groups``: the widths measured of each, widest first."""

    whole_ms: float
    groups: Mapping[str, tuple[Width, ...]]


@dataclass(frozen=True, slots=True)
class Bench:
    """What candidates are timed with: how they are called, one sample, and the build's threads."""

    call: Call
    feed: Feed
    context: BuildContext

    def time(self, whole: nn.Module, others: list[nn.Module], seconds: float) -> tuple[float, tuple[float, ...]]:
        """Milliseconds of ``whole``, and by what share of them each other module is faster.

        Raises:
            Unsupported: one of them can't be written as ONNX.
        """
        with temporary_folder("widths") as folder:
            files = [folder / f"{i}.onnx" for i in range(len(others) + 1)]
            try:
                for module, file in zip([whole, *others], files, strict=True):
                    export_for_timing(module, self.feed, self.call, file)
            except ModelError as exc:
                raise Unsupported(exc.message, exc.hint) from exc
            timing = time_against(files[0], files[1:], self.feed, threads=self.context.threads, seconds=seconds)
        return timing.whole_ms, timing.saved


def pruned_for_latency(trials: Trials, call: Call, split: Split, source: Path, context: BuildContext) -> nn.Module:
    """A copy of the trials' module that is ``plan.ratio`` of its latency faster, settled and not trained.

    What was measured is kept in ``context.scratch`` for this content and kind of machine, the choice too.

    Raises:
        Unsupported: no channels can be removed, no width is faster, or a candidate can't be written as ONNX.
    """
    bench = Bench(call, split.feed([0]), context)
    key = _key(source, split, trials, context)
    path = context.scratch / "widths" / f"{key}.json"
    stored = _read(path)
    table = _table_of(stored) if stored is not None else _measure(trials, bench)
    for line in described(table, trials):
        context.tell(line)
    chosen_before = {} if stored is None else stored["chosen"]
    ratio = f"{trials.plan.ratio:g}"
    if ratio not in chosen_before:
        chosen = _choose(trials, table, bench)
        _write({**asdict(table), "chosen": {**chosen_before, ratio: chosen}}, path)
    else:
        chosen = chosen_before[ratio]
    trial = trials.cut(_ratios(chosen, trials))
    if trial is None:  # it was cut before, when it was chosen
        raise Unsupported("the chosen widths don't fit together.")
    return trial


def _key(source: Path, split: Split, trials: Trials, context: BuildContext) -> str:
    plan, versions = trials.plan, [metadata.version(n) for n in ("onnxruntime", "torch", "torch-pruning")]
    about = [_FORMAT, sha256_file(source), split.digest, plan.importance, plan.round_to, context.threads, versions]
    return digest([*about, context.metric_is_classification, cpu_model(), list(cpu_flags())])[:32]


def candidate_widths(width: int, round_to: int) -> tuple[int, ...]:
    """Widths to try of a group of ``width`` channels, the widest first: multiples of ``round_to``, evenly spread.

    >>> candidate_widths(48, 8)
    (40, 32, 24, 16, 8)
    >>> candidate_widths(16, 16)
    ()
    """
    least = max(round_to, width - int(LARGEST_RATIO * width))
    every = [w for w in range(round_to, width, round_to) if w >= least][::-1]
    if len(every) <= _WIDTHS:
        return tuple(every)
    return tuple(dict.fromkeys(every[round(i * (len(every) - 1) / (_WIDTHS - 1))] for i in range(_WIDTHS)))


def _ratios(widths: Mapping[str, int], trials: Trials) -> dict[str, float]:
    """The share of each group's channels to remove so that ``widths`` are left; half a channel keeps a floor there."""
    return {name: 1.0 - (left + 0.5) / trials.width(name) for name, left in widths.items()}


def _measure(trials: Trials, bench: Bench) -> Table:
    """Cut every group to some widths and time them all in turns; middling widths of all groups come first."""
    begun = time.monotonic()
    wanted = [(n, w) for n in trials.groups for w in candidate_widths(trials.width(n), trials.plan.round_to)]
    wanted.sort(key=lambda item: abs(item[1] / trials.width(item[0]) - 0.5))
    made: list[tuple[str, int, float, Any]] = []
    broken: set[str] = set()
    for name, left in wanted:
        if name in broken:
            continue
        if time.monotonic() - begun > _MAKING_S:
            bench.context.tell(f"latency table: {len(made)} of {len(wanted)} widths made in {_MAKING_S:.0f} s")
            break
        trial = trials.cut(_ratios({name: left}, trials))
        moved = None if trial is None else trials.divergence(trial)
        if moved is None:
            broken.add(name)
        else:
            made.append((name, left, moved, trial))
    if not made:
        raise Unsupported(NOTHING)
    whole_ms, saved = bench.time(trials.module, [trial for *_, trial in made], _TIMING_S)
    groups: dict[str, list[Width]] = {}
    for (name, left, moved, _), share in zip(made, saved, strict=True):
        groups.setdefault(name, []).append(Width(left, share * whole_ms, moved))
    ordered = {n: tuple(sorted(groups[n], key=lambda w: -w.channels)) for n in trials.groups if n in groups}
    return Table(whole_ms, ordered)


def picked(table: Table, wanted_ms: float) -> dict[str, int]:
    """The channels left of each group that is cut, so that ``wanted_ms`` go at the least movement of the answers."""
    items = [[(w.saved_ms, w.divergence) for w in widths] for widths in table.groups.values()]
    chosen = cheapest(items, wanted_ms)
    return {n: ws[i].channels for (n, ws), i in zip(table.groups.items(), chosen, strict=True) if i is not None}


def _choose(trials: Trials, table: Table, bench: Bench) -> dict[str, int]:
    """Widths whose measured saving together is nearest to the share asked for."""
    asked = trials.plan.ratio
    aim, tried = asked, dict[float, dict[str, int]]()
    for _ in range(_CORRECTIONS):
        widths = picked(table, aim * table.whole_ms)
        trial = trials.cut(_ratios(widths, trials)) if widths and widths not in tried.values() else None
        if trial is None:
            break
        (share,) = bench.time(trials.module, [trial], _CHECKING_S)[1]
        tried[abs(share - asked)] = widths
        said = ", ".join(f"{n} to {w}" for n, w in widths.items())
        bench.context.tell(f"latency: {said} saves {share:.0%} where {asked:.0%} is asked")
        if abs(share - asked) <= _NEAR * asked or share <= 0:
            break
        aim *= min(2.0, max(0.5, asked / share))
    if not tried:
        raise Unsupported("no narrower group of channels was measured to be faster on this machine.")
    return tried[min(tried)]


def described(table: Table, trials: Trials) -> list[str]:
    """The table in words: a line a group."""
    lines = [
        f"latency: {table.whole_ms:.3g} ms a request of one sample as float, {len(table.groups)} groups of channels"
    ]
    for name, widths in table.groups.items():
        told = (f"{w.channels} saves {w.saved_ms:.3g} ms (answers move by {w.divergence:.2g})" for w in widths)
        lines.append(f"latency: {name}, {trials.width(name)} channels: {', '.join(told)}")
    return lines


def _write(content: Mapping[str, Any], path: Path) -> None:
    with replacing(path) as f:
        f.write(sealed_json(content).encode())


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = opened_json(path)
    except OSError:
        return None
    if found is not None:
        used(path)
    return found


def _table_of(stored: Mapping[str, Any]) -> Table:
    groups = {n: tuple(Width(**w) for w in widths) for n, widths in stored["groups"].items()}
    return Table(float(stored["whole_ms"]), groups)
