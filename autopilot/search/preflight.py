"""What can be known before anything is timed: the model runs, and the metric fits outputs and labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from autopilot.bench.launcher import Evaluation, evaluate
from autopilot.errors import AutopilotError, BaselineFailed, DataError, Failure, ModelError, VariantFailed
from autopilot.model import ModelInfo
from autopilot.scoring import scored_output
from autopilot.temporary import temporary_folder

if TYPE_CHECKING:
    from autopilot.search.prepare import Setup
    from autopilot.spec import MetricSpec

# Samples run to see what the outputs look like; as many as the smallest validation file is allowed to have.
TRIED = 30


def check_metric(setup: Setup) -> None:
    """Run a few samples and hold the metric's own check against the labels of every scored split.

    Labels of the held-back data are scored last of all: found wrong only then, a whole search would
    be lost. The check looks at shapes, types and the labels' values, so the outputs of a few samples
    stand for all.

    Raises:
        DataError: the metric fits neither these outputs nor these labels, or the output isn't there.
        VariantFailed: the model can't be run.
    """
    spec, metric, splits = setup.problem.metric, setup.metric, setup.splits
    stop = min(TRIED, splits.validation.n)
    deployment = setup.given.deployment
    batch = setup.scoring_batch(deployment, setup.info)
    with temporary_folder("try") as folder:
        found = evaluate(
            setup.model.path,
            deployment,
            split=splits.validation,
            start=0,
            stop=stop,
            batch=batch,
            folder=folder,
            limits=setup.limits,
        )
        name = scored_name(spec, found)
        outputs = np.array(found.load()[name])
    if name in found.padded:
        return  # its longest sample may not be among these, so that shapes tell nothing yet
    for split in (splits.validation, splits.test):
        tiled = outputs[np.arange(split.n) % stop]
        reference = tiled if metric.against_baseline else split.labels
        if reference is None:
            continue
        try:
            metric.check(tiled, reference, {**metric.options, **spec.options})
        except DataError as exc:
            data = setup.problem.data
            path = data.test if split.name == "test" and data.test is not None else data.validation
            raise DataError(f"{path}: {exc.message}", exc.hint) from exc


def scored_name(spec: MetricSpec, found: Evaluation) -> str:
    """The output that the metric scores: the one ``metric.output`` names, else the model's first.

    Chosen among all outputs, so that it doesn't change where one is left out (a carried state in runs
    of several samples). A function is given all that are there and chooses itself.

    Raises:
        DataError: there is no such output, or it can't be scored.
    """
    if spec.function is not None and spec.output is None:
        return found.output_names[0]
    name = found.all_names[scored_output(spec, found.all_names)]
    if name in found.left_out:
        raise DataError(
            f"the metric {spec.name} can't score the output {name!r}: it {found.left_out[name]}.",
            f"Set metric.output to one of: {', '.join(found.output_names)}.",
        )
    return name


def baseline_error(exc: VariantFailed, info: ModelInfo, name: str = "the model as given") -> AutopilotError:
    """The model as given doesn't run: bad input where the runtime refuses it, else our failure."""
    message = f"{info.path}: {name} can't be measured ({exc.failure.value}): {exc.message}"
    if exc.failure in (Failure.UNSUPPORTED, Failure.WRONG_NUMERICS, Failure.BUILD_ERROR):
        return ModelError(message, exc.hint)
    # A Python traceback says no more to a user than its last line, which is in the message already.
    log = f"\n{exc.log}" if exc.log and "Traceback (most recent" not in exc.log else ""
    hint = exc.hint or "Run it once with onnxruntime alone to see whether it works there."
    return BaselineFailed(message + log, hint)


def scored_for_sure(spec: MetricSpec) -> str | None:
    """The name of the scored output before anything ran, "" for the first; None where a function chooses itself."""
    return spec.output or (None if spec.function is not None else "")
