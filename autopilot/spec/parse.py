"""A spec's raw mapping -> Problem: names resolved, paths absolute, limits parsed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from autopilot.budget import Budget, Limit, parse_fraction
from autopilot.spec.parse_data import DataParser
from autopilot.spec.parse_model import ModelParser
from autopilot.spec.problem import MetricSpec, Problem, SearchSpec, TargetSpec, Traffic, Vocabulary
from autopilot.spec.shape import SpecShape, TrafficShape, checked
from autopilot.spec.source import KeyPath, Source, nearest, short
from autopilot.spec.units import parse_duration

# MLflow refuses / and : in names of registered models, and the name is a folder under runs/ too.
_NAME = re.compile(r"\w(?:[\w .-]{0,98}\w)?")
_ARRIVALS = ("poisson", "bursty", "diurnal")
# Axes of server traffic alone.
_SERVER_AXES = ("max_rate_rps", "dropped_share")


def parse(source: Source, folder: Path, vocabulary: Vocabulary, *, path: Path) -> Problem:
    """The Problem that ``source`` asks; relative paths are taken from ``folder``.

    Raises:
        SpecError: the first thing that is wrong, with its line where there is one.
        ModelError: a model that this version does not take.
    """
    return _Parser(source, folder, vocabulary).problem(path)


class _Parser(DataParser, ModelParser):
    """The steps that make a Problem."""

    def problem(self, path: Path) -> Problem:
        shape = checked(SpecShape, self.source.raw, self.source)
        if not _NAME.fullmatch(shape.name):
            hint = "Use letters, digits, -, _, . and spaces, at most 100."
            raise self.error(("name",), f"name {short(shape.name)} can't name a folder and an MLflow model", hint)
        metric = self.metric(shape.metric)
        budget = self.budget(shape, metric)
        target = self.target(shape)
        objectives = self.objectives(shape, budget)
        traffic = self.traffic(shape.traffic)
        self.check_price(budget, objectives, target)
        self.check_traffic(budget, objectives, traffic)
        return Problem(
            name=shape.name,
            path=path,
            model=self.model(shape.model),
            data=self.data(shape.data),
            metric=metric,
            budget=budget,
            objective=objectives[0],
            more_objectives=objectives[1:],
            traffic=traffic,
            target=target,
            space=self.space(shape.space),
            search=self.search(shape),
            version=shape.version,
            rationale=shape.rationale,
            raw=self.source.raw,
            audit=shape.audit,
        )

    def budget(self, shape: SpecShape, metric: MetricSpec) -> Budget:
        try:
            margin = parse_fraction(shape.margin)
        except ValueError as exc:
            raise self.error(("margin",), str(exc)) from exc
        limits: list[Limit] = []
        for name, raw in shape.budget.items():
            at = ("budget", name)
            canonical = self.axis(at, name)
            if any(limit.axis == canonical for limit in limits):
                raise self.error(at, f"budget limits {canonical} twice", "Keep one of them.")
            axis = self.vocabulary.axis(name)
            assert axis is not None  # self.axis has refused it otherwise
            if axis.name == "quality":  # an error such as mae has its limit above
                axis = replace(axis, higher_is_better=self.higher_is_better(metric))
            try:
                limits.append(Limit.parse(axis, raw, margin))
            except ValueError as exc:
                raise self.error(at, f"budget: {exc}") from exc
        return Budget(tuple(limits))

    def higher_is_better(self, metric: MetricSpec) -> bool:
        if metric.function is not None:
            return metric.direction != "minimize"
        return metric.name not in self.vocabulary.lower_is_better

    def objectives(self, shape: SpecShape, budget: Budget) -> tuple[str, ...]:
        """The axes to improve; default: the first latency axis among the limits, else the first limit."""
        raw, at = shape.objective, ("objective",)
        if raw is None:
            return (next((a for a in budget.axes if a.startswith("latency_")), budget.axes[0]),)
        right = "Write objective: latency_p50_ms, or several: [latency_p50_ms, quality]."
        listed = raw if isinstance(raw, list) else [raw]
        if not listed:
            raise self.error(at, "objective is an empty list", right)
        found: dict[str, str] = {}  # what is compared -> the axis as it was named
        for i, name in enumerate(listed):
            here: KeyPath = (*at, i) if isinstance(raw, list) else at
            if not isinstance(name, str):
                raise self.error(here, f"objective should name one axis, or list several, not {short(name)}", right)
            axis = self.axis(here, name)
            same = "quality" if axis == "quality_drop" else axis
            if same in found:
                twice = "twice" if found[same] == axis else f"and {axis}, which order variants alike"
                raise self.error(here, f"objective names {found[same]} {twice}", "Keep one of them.")
            found[same] = axis
        return tuple(found.values())

    def check_price(self, budget: Budget, objectives: Sequence[str], target: TargetSpec) -> None:
        """Cost can never be known without a price: say so before the search, not after it."""
        axis = "cost_per_million"
        if target.price_per_hour is None and (axis in objectives or axis in budget.axes):
            at: KeyPath = ("budget", axis) if axis in budget.axes else ("objective",)
            raise self.error(at, f"{axis} needs a price", "Add price_per_hour: under target:.")

    def traffic(self, shape: TrafficShape) -> Traffic:
        at: KeyPath = ("traffic",)
        if shape.scenario != "server":
            for key in ("rate_rps", "arrivals", "burst", "period_s"):
                if key in shape.model_fields_set:
                    message = f"traffic.{key} has no meaning in {shape.scenario}"
                    raise self.error((*at, key), message, "It belongs to scenario: server.")
            return Traffic(shape.scenario)
        arrivals = self.arrivals(shape)
        is_trace = arrivals not in _ARRIVALS
        if shape.rate_rps is None and not is_trace:
            raise self.error(
                at, "traffic in scenario server needs rate_rps", "Write {scenario: server, rate_rps: 200}."
            )
        rate_rps = float(shape.rate_rps) if shape.rate_rps is not None else None
        on_s, off_s = float(shape.burst.on_s), float(shape.burst.off_s)
        return Traffic("server", rate_rps, arrivals, on_s, off_s, float(shape.period_s))

    def arrivals(self, shape: TrafficShape) -> str:
        """A kind of arrivals, or a trace's path; keys that only another kind knows are refused."""
        at: KeyPath = ("traffic",)
        arrivals = shape.arrivals
        if arrivals.lower().endswith(".csv"):
            arrivals = str(self.file((*at, "arrivals"), arrivals))
        elif arrivals not in _ARRIVALS:
            hint = nearest(arrivals, _ARRIVALS) + " A trace is a .csv file."
            raise self.error((*at, "arrivals"), f"unknown arrivals {arrivals!r}", hint)
        for key, kind in (("burst", "bursty"), ("period_s", "diurnal")):
            if key in shape.model_fields_set and arrivals != kind:
                message = f"traffic.{key} has no meaning with arrivals: {shape.arrivals}"
                raise self.error((*at, key), message, f"It belongs to arrivals: {kind}.")
        return arrivals

    def check_traffic(self, budget: Budget, objectives: Sequence[str], traffic: Traffic) -> None:
        """Figures that no variant can have in this traffic: say so before the search, not after it."""
        named = (*objectives, *budget.axes)
        for axis in _SERVER_AXES:
            if axis in named and not traffic.is_server:
                at: KeyPath = ("budget", axis) if axis in budget.axes else ("objective",)
                message = f"{axis} has no meaning in {traffic.scenario}"
                raise self.error(at, message, "It belongs to traffic: {scenario: server, rate_rps: ...}.")
        latency = [x for x in budget.limits if x.axis.startswith("latency_") and not x.relative]
        if "max_rate_rps" in named and not latency:
            at = ("budget",)
            message = (
                "max_rate_rps is the highest rate that keeps the latency limits, and there is none in milliseconds"
            )
            raise self.error(at, message, "Add one such as latency_p99_ms: 20.")
        limit, rate_rps = budget.limit("throughput_rps"), traffic.rate_rps
        if limit is None or limit.relative or not traffic.is_server or rate_rps is None:
            return
        if limit.effective > rate_rps:
            at = ("budget", "throughput_rps")
            message = f"throughput_rps {limit.text} can't be met: only {rate_rps:g} requests a second come"
            raise self.error(at, message, "Lower it, raise traffic.rate_rps, or limit max_rate_rps.")

    def target(self, shape: SpecShape) -> TargetSpec:
        given, at = shape.target, ("target", "providers")
        for i, name in enumerate(given.providers):
            if name not in self.vocabulary.provider_names:
                hint = f"{nearest(name, self.vocabulary.provider_names)} autopilot doctor says which can run here."
                raise self.error((*at, i), f"target.providers: unknown provider {name!r}", hint)
            if name in given.providers[:i]:
                raise self.error((*at, i), f"target.providers names {name!r} twice", "Keep one of them.")
        price = float(given.price_per_hour) if given.price_per_hour is not None else None
        return TargetSpec(tuple(given.providers), given.threads, price)

    def space(self, raw: str) -> Path:
        """The YAML file of a search space: one of the shipped ones by name, or a path."""
        folder = self.vocabulary.space_folder
        if Path(raw).suffix.lower() in (".yaml", ".yml") or "/" in raw or "\\" in raw:
            return self.file(("space",), raw)
        found = folder / f"{raw}.yaml"
        if not found.is_file():
            names = [p.stem for p in folder.glob("*.yaml")]
            raise self.error(("space",), f"unknown search space {raw!r}", nearest(raw, names))
        return found

    def search(self, shape: SpecShape) -> SearchSpec:
        given = shape.search
        return SearchSpec(
            trials=given.trials,
            timeout_s=self.duration("timeout", given.timeout),
            seed=given.seed,
            memory_limit_mb=float(given.memory_limit_mb) if given.memory_limit_mb is not None else None,
            step_timeout_s=self.duration("step_timeout", given.step_timeout),
            measure_cap_s=self.duration("measure_cap", given.measure_cap),
            storage=self.storage(given.storage),
        )

    def storage(self, url: str | None) -> str | None:
        """The URL of a shared database; the file of an SQLite one relative to the spec, as all paths in it."""
        lead = "sqlite:///"
        if url is None or not url.startswith(lead) or url == lead:
            return url
        return lead + (self.folder / url.removeprefix(lead)).as_posix()

    def duration(self, key: str, raw: Any) -> float:
        try:
            return parse_duration(raw)
        except ValueError as exc:
            raise self.error(("search", key), f"search.{key}: {exc}") from exc
