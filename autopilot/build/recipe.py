"""The parent's part of building: what is cached already, one child process for the rest."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from autopilot import plugins
from autopilot.artifact import Artifact
from autopilot.bench.child import ChildLimits, run_child
from autopilot.build.cache import Cache, complete, step_key
from autopilot.build.training import NO_TRAINING, Training
from autopilot.contracts import Technique
from autopilot.errors import Unsupported
from autopilot.recipe import Recipe, Step

if TYPE_CHECKING:
    from autopilot.data import Split


def build(
    recipe: Recipe,
    model: Artifact,
    *,
    calibration: Split | None,
    cache: Cache,
    threads: int,
    limits: ChildLimits,
    progress: Callable[[str], None] | None = None,
    reused: Callable[[float], None] | None = None,
    metric_is_classification: bool = False,
    training: Training = NO_TRAINING,
) -> Artifact:
    """The artifact of ``recipe`` applied to ``model``, each step from ``cache`` where it was built before.

    All missing steps run in one child process of ``threads`` threads under ``limits``. An empty
    recipe gives ``model`` itself. ``progress`` receives the name of each step as it starts, ``reused`` the
    seconds that each step which wasn't built now once took. ``training`` is what steps that train work with.

    Raises:
        VariantFailed: unsupported, build_error or wrong_numerics (remembered where they would
            repeat), oom, timeout or crash (tried again the next time).
    """
    steps = [_completed(step) for step in recipe.steps]
    artifact = model
    for position, (technique, step) in enumerate(steps):
        key = step_key(
            technique,
            step,
            parent=artifact.sha256,
            calibration=calibration.digest if calibration is not None else None,
            is_classification=metric_is_classification,
            training=training.key_with(model.sha256),
        )
        known = cache.take(key, parent=artifact.sha256, step=step)
        if known is None:
            missing = [s for _, s in steps[position:]]
            request = _request(missing, artifact, calibration, cache, threads, metric_is_classification)
            request |= training.to_json()
            request |= {"model": str(model.path.absolute()), "model_sha256": model.sha256, "wall_s": limits.wall_s}
            return _in_child(request, cache, limits, threads, progress)
        if reused is not None:
            reused(cache.price_s(key))
        artifact = known
    return artifact


def _completed(step: Step) -> tuple[Technique, Step]:
    technique = plugins.techniques().get(step.technique)
    if technique is None:
        names = ", ".join(plugins.techniques())
        raise Unsupported(f"there is no technique called {step.technique!r}.", f"There are: {names}.")
    return technique, complete(technique, step)


def _request(
    steps: list[Step], source: Artifact, calibration: Split | None, store: Cache, threads: int, is_classification: bool
) -> dict[str, Any]:
    """What ``build_worker`` receives: paths and plain data only, so that it could run elsewhere."""
    return {
        "steps": [s.to_json() for s in steps],
        "source": {**source.to_json(), "path": str(source.path.absolute())},
        "calibration": str(calibration.folder.absolute()) if calibration is not None else None,
        "cache": str(store.root.absolute()),
        "lease": str(store.lease.path) if store.lease is not None else None,
        "asked_s": time.time(),
        "threads": threads,
        "classification": is_classification,
    }


def _in_child(
    request: dict[str, Any],
    store: Cache,
    limits: ChildLimits,
    threads: int,
    progress: Callable[[str], None] | None,
) -> Artifact:
    with store.staging() as folder:
        request["staging"] = str(folder)
        answer = run_child("autopilot.build_worker", request, limits, workdir=folder, on_line=progress, threads=threads)
    store.tidy()
    return Artifact.from_json(answer["artifact"])
