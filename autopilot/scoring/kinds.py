"""Which Metric a spec means, user functions included, and which output it scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from autopilot.contracts import Metric
from autopilot.data.hooks import Hook, call_hook, load_hook, nearest, parse_hook
from autopilot.errors import DataError

if TYPE_CHECKING:
    from autopilot.spec import MetricSpec

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BoundedMetric(Metric):
    """A metric that is the mean of independent values a sample, each within ``sample_range``.

    Only these can reject a variant on a subset: the bound needs the range.
    """

    sample_range: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True, slots=True)
class SumMetric(Metric):
    """A metric that follows from sums over samples (F1 from hits and misses, a ratio from both its parts).

    ``parts(outputs, labels, options)``: float64, shape (n, k), the k figures of each sample.
    ``combine(sums)``: sums of shape (r, k) to scores of shape (r,). Resampling then adds rows up
    instead of scoring again, which for maps of many pixels is the difference of minutes.
    """

    parts: Callable[[Array, Array, Mapping[str, Any]], Floats] | None = None
    combine: Callable[[Floats], Floats] | None = None


@dataclass(frozen=True, slots=True)
class FunctionMetric(Metric):
    """A user's function; ``function`` takes all outputs by name and the labels, and returns a float."""

    function: Hook | None = None
    reference: str = ""

    def call(self, outputs: Mapping[str, Array], labels: Array | None) -> float:
        """The score.

        Raises:
            DataError: the function failed, or returned anything but a finite number.
        """
        assert self.function is not None
        value = call_hook(self.function, self.reference, dict(outputs), labels)
        path, name = parse_hook(self.reference)
        try:
            number = float(value)
        except (TypeError, ValueError) as exc:
            raise DataError(
                f"the metric {name}() in {path} returned {type(value).__name__}, not a number.", "Return a float."
            ) from exc
        if not np.isfinite(number):
            raise DataError(f"the metric {name}() in {path} returned {number}.", "Return a finite number.")
        return number


def _not_called(outputs: Array, labels: Array, options: Mapping[str, Any]) -> float:
    raise TypeError("a function metric takes all outputs: use autopilot.scoring.score")


def resolve_metric(spec: MetricSpec, metrics: Mapping[str, Metric]) -> Metric:
    """The metric that ``spec`` names, or its function wrapped as one.

    Raises:
        DataError: an unknown name or option, or a function that can't be loaded.
    """
    if spec.function is not None:
        return FunctionMetric(
            name=spec.name,
            higher_is_better=spec.direction != "minimize",
            score=_not_called,
            summary=f"{spec.function}, a function of the user",
            function=load_hook(spec.function),
            reference=spec.function,
        )
    metric = metrics.get(spec.name)
    if metric is None:
        raise DataError(f"there is no metric {spec.name!r}.", nearest(spec.name, metrics))
    for option in spec.options:
        if option not in metric.options:
            known = nearest(option, metric.options) or "It takes none."
            raise DataError(f"the metric {spec.name} has no option {option!r}.", known)
    return metric


def scored_output(spec: MetricSpec, output_names: Sequence[str]) -> int:
    """The index of the output that is scored: the one the spec names, else the first.

    Raises:
        DataError: the model has no output of that name.
    """
    if spec.output is None:
        return 0
    if spec.output not in output_names:
        raise DataError(f"metric.output: the model has no output {spec.output!r}.", nearest(spec.output, output_names))
    return list(output_names).index(spec.output)
