"""Problem and its parts: what a spec says, as frozen records. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from autopilot.recipe import digest

if TYPE_CHECKING:
    from autopilot.budget import Budget
    from autopilot.contracts import Axis

PerChannel = float | tuple[float, ...]
Scenario = Literal["single_stream", "offline", "server"]
Direction = Literal["maximize", "minimize"]
AuditPolicy = Literal["fail", "warn"]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The words a spec may use, as the plug-ins declare them.

    ``axis`` gives the axis of a name or None; ``axis_names`` lists those worth suggesting;
    ``space_folder`` holds the search spaces that ``space:`` names; ``lower_is_better`` the metrics
    that are errors, which turn the direction of the axis ``quality``.
    """

    axis: Callable[[str], Axis | None]
    axis_names: tuple[str, ...]
    metric_names: tuple[str, ...]
    provider_names: tuple[str, ...]
    space_folder: Path
    lower_is_better: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class TorchSource:
    """A PyTorch model: an exported ``program`` (.pt2), or ``code`` and ``weights``.

    ``code`` is ``"ABSOLUTE_PATH.py:function"``; the function builds the network without its weights. ``student``
    names one that builds a smaller network, for distillation.
    """

    program: Path | None = None
    code: str | None = None
    weights: Path | None = None
    student: str | None = None

    @property
    def path(self) -> Path:
        """The file to name in messages."""
        if self.program is not None:
            return self.program
        return Path(str(self.code).rpartition(":")[0])

    def to_json(self) -> dict[str, Any]:
        return {
            "program": str(self.program) if self.program else None,
            "code": self.code,
            "weights": str(self.weights) if self.weights else None,
            **({"student": self.student} if self.student else {}),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TorchSource:
        program, weights = value["program"], value["weights"]
        return cls(
            Path(program) if program else None, value["code"], Path(weights) if weights else None, value.get("student")
        )


@dataclass(frozen=True, slots=True)
class InputSpec:
    """How one model input is made from a stored array, or the constant it always is.

    ``source`` is the stored array's name (None: the input's own). The input is
    ``(x * scale + offset - mean) / std`` as far as they are given; tuples hold one figure a channel.
    ``constant`` is a number or nested lists of them, spread to ``shape`` where that is given.
    """

    source: str | None = None
    dtype: str | None = None
    scale: PerChannel | None = None
    offset: PerChannel | None = None
    mean: PerChannel | None = None
    std: PerChannel | None = None
    constant: float | int | bool | list[Any] | None = None
    shape: tuple[int, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """Only what is set, under the spec's own keys."""
        pairs = {
            "from": self.source,
            "dtype": self.dtype,
            "scale": self.scale,
            "offset": self.offset,
            "mean": self.mean,
            "std": self.std,
            "constant": self.constant,
            "shape": self.shape,
        }
        return {k: list(v) if isinstance(v, tuple) else v for k, v in pairs.items() if v is not None}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> InputSpec:
        def channels(key: str) -> PerChannel | None:
            found = value.get(key)
            return tuple(float(v) for v in found) if isinstance(found, (list, tuple)) else found

        shape = value.get("shape")
        return cls(
            value.get("from"),
            value.get("dtype"),
            channels("scale"),
            channels("offset"),
            channels("mean"),
            channels("std"),
            value.get("constant"),
            tuple(int(v) for v in shape) if shape is not None else None,
        )


@dataclass(frozen=True, slots=True)
class DataSpec:
    """Where samples and labels are. Hooks are ``"ABSOLUTE_PATH.py:function"``."""

    validation: Path
    test: Path | None = None
    train: Path | None = None
    label: str = "label"
    inputs: Mapping[str, InputSpec] = field(default_factory=dict)
    batched: bool = True
    preprocess: str | None = None
    postprocess: str | None = None


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """What quality is: a metric by name, or the user's own ``function`` with its ``direction``."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    output: str | None = None
    function: str | None = None
    direction: Direction | None = None


@dataclass(frozen=True, slots=True)
class Traffic:
    """How requests come. ``arrivals``: ``poisson``, ``bursty``, ``diurnal`` or a trace's absolute path.

    ``rate_rps`` is the mean rate; None for a trace's own. Bursts of ``on_s`` seconds are followed by pauses
    of ``off_s``; a diurnal rate rises and falls once in ``period_s``.
    """

    scenario: Scenario = "single_stream"
    rate_rps: float | None = None
    arrivals: str = "poisson"
    on_s: float = 0.2
    off_s: float = 0.3
    period_s: float = 10.0

    @property
    def is_server(self) -> bool:
        """Whether requests come at scheduled times, whatever the server does."""
        return self.scenario == "server"

    @property
    def is_trace(self) -> bool:
        """Whether ``arrivals`` is a trace's path."""
        return self.arrivals not in ("poisson", "bursty", "diurnal")

    @property
    def cycle_s(self) -> float:
        """Seconds from one burst's start to the next one's."""
        return self.on_s + self.off_s


@dataclass(frozen=True, slots=True)
class TargetSpec:
    """What may be used: providers in order of preference, cores (None: all), and what an hour costs."""

    providers: tuple[str, ...] = ("cpu",)
    threads: int | None = None
    price_per_hour: float | None = None


@dataclass(frozen=True, slots=True)
class SearchSpec:
    """How long to look. ``step_timeout_s`` and ``memory_limit_mb`` hold for one child process, ``measure_cap_s`` for
    the requests of one latency pass. ``storage`` is the URL of a database that several runs share; None for none.
    """

    trials: int = 60
    timeout_s: float = 900.0
    seed: int = 0
    memory_limit_mb: float | None = None
    step_timeout_s: float = 600.0
    measure_cap_s: float = 30.0
    storage: str | None = field(default=None, repr=False)  # may hold a password


@dataclass(frozen=True, slots=True)
class Problem:
    """The user's whole question.

    ``model`` is an ONNX file, an MLflow URI as text, or a PyTorch model; ``raw`` the YAML as loaded.

    ``audit`` says whether a variant that isn't what it claims to be fails or is warned about;
    ``more_objectives`` are those after the first.
    """

    name: str
    path: Path
    model: Path | str | TorchSource
    data: DataSpec
    metric: MetricSpec
    budget: Budget
    objective: str
    traffic: Traffic
    target: TargetSpec
    space: Path
    search: SearchSpec
    version: int | None
    rationale: str
    raw: Mapping[str, Any] = field(repr=False)  # may hold the storage's password
    audit: AuditPolicy = "fail"
    more_objectives: tuple[str, ...] = ()

    @property
    def objectives(self) -> tuple[str, ...]:
        """The axes to make as good as possible; more than one asks for a Pareto front."""
        return (self.objective, *self.more_objectives)

    @property
    def digest(self) -> str:
        """Hex sha256 of everything a resume must find unchanged in the spec.

        How long to search and where trials are kept, the budget's version and why it changed may differ:
        more trials of the same question continue it. Files may lie elsewhere, on another machine even:
        what is in them counts, and has digests of its own.
        """
        kept = {k: v for k, v in self.raw.items() if k not in ("version", "rationale", "search")}
        search = self.raw.get("search") or {}
        kept["search"] = {k: v for k, v in search.items() if k not in ("trials", "timeout", "storage")}
        return digest(_without_paths(kept))

    def searching(
        self, *, trials: int | None = None, timeout_s: float | None = None, storage: str | None = None
    ) -> Problem:
        """The same question with another number of trials, time limit or storage, where one is given."""
        search = self.search
        if trials is not None:
            search = replace(search, trials=trials)
        if timeout_s is not None:
            search = replace(search, timeout_s=timeout_s)
        if storage is not None:
            search = replace(search, storage=storage)
        return replace(self, search=search)


# Where a spec names files, by the key's path; hooks name a function of theirs, which stays.
_FILES = (("model",), ("data", "validation"), ("data", "test"), ("data", "train"), ("space",), ("traffic", "arrivals"))
_HOOKS = (("data", "preprocess"), ("data", "postprocess"), ("metric", "function"))


def _without_paths(raw: Mapping[str, Any]) -> dict[str, Any]:
    """``raw`` with each file's name left out, and what stood there told only as far as it is no path."""
    out: dict[str, Any] = {k: dict(v) if isinstance(v, Mapping) else v for k, v in raw.items()}
    for keys, rest in (*((k, _kind) for k in _FILES), *((k, _function) for k in _HOOKS)):
        inner: Any = out
        for key in keys[:-1]:
            inner = inner.get(key)
        if isinstance(inner, dict) and isinstance(inner.get(keys[-1]), str):
            inner[keys[-1]] = rest(inner[keys[-1]])
    return out


def _kind(text: str) -> str:
    """A word (``poisson``, ``cpu``) as it is; nothing of a path."""
    return "" if "." in text or "/" in text or "\\" in text else text


def _function(text: str) -> str:
    return text.rpartition(":")[2]
