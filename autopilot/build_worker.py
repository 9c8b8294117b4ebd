"""The build child: runs the missing steps of a recipe (``python -m autopilot.build_worker REQUEST.json``)."""

from __future__ import annotations

import os
import tempfile
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopilot.artifact import Artifact
from autopilot.bench.childside import child_main, progress
from autopilot.errors import AutopilotError, Failure, VariantFailed
from autopilot.recipe import Step

if TYPE_CHECKING:
    from autopilot.build.cache import Cache
    from autopilot.contracts import BuildContext, Technique

# Failures that come again with the same input; a wrong answer only where the data are part of the key.
_REPEATS = frozenset({Failure.UNSUPPORTED, Failure.BUILD_ERROR})


def handle(request: Mapping[str, Any]) -> dict[str, Any]:
    """Build every step of ``request["steps"]`` on top of ``request["source"]``; answers with the last artifact."""
    from autopilot import plugins
    from autopilot.build.cache import Cache, step_key
    from autopilot.build.training import Training
    from autopilot.cache import Lease
    from autopilot.contracts import BuildContext
    from autopilot.data import Split

    root = Path(request["cache"])
    cache = Cache(root, Lease.join(root, Path(request["lease"])) if request["lease"] else None)
    split = Split.load(Path(request["calibration"])) if request["calibration"] else None
    cache.scratch.mkdir(parents=True, exist_ok=True)
    training = Training.from_json(request)
    context = BuildContext(
        split,
        cache.scratch,
        int(request["threads"]),
        bool(request["classification"]),
        train=training.split,
        torch_source=training.source,
        tell=progress,
        model=Path(request["model"]),
        deadline_s=time.monotonic() + float(request["asked_s"]) + float(request["wall_s"]) - time.time(),
    )
    artifact = Artifact.from_json(request["source"])
    # The first step that is built bears what starting this process took: whoever reuses it is spared that too.
    before_s = max(0.0, time.time() - float(request["asked_s"]))
    for raw in request["steps"]:
        step = Step.from_json(raw)
        technique = plugins.techniques()[step.technique]
        key = step_key(
            technique,
            step,
            parent=artifact.sha256,
            calibration=split.digest if split is not None else None,
            is_classification=context.metric_is_classification,
            training=training.key_with(request["model_sha256"]),
        )
        known = cache.take(key, parent=artifact.sha256, step=step)
        if known is None:
            progress(f"building {step.technique}")
            folder = Path(tempfile.mkdtemp(prefix="step-", dir=request["staging"]))
            started = time.perf_counter() - before_s
            _build(cache, key, artifact, technique, step, context, folder)
            took_s = time.perf_counter() - started
            known = cache.put(key, folder, parent=artifact.sha256, step=step, took_s=took_s)
            before_s = 0.0
        artifact = known
    return {"artifact": artifact.to_json()}


def _build(
    cache: Cache, key: str, source: Artifact, technique: Technique, step: Step, context: BuildContext, folder: Path
) -> None:
    """Apply one step into ``folder`` and try the result; a failure that would repeat is remembered."""
    from autopilot.techniques._smoke import check_built, refuse_unchanged

    try:
        _apply(technique, source.path, folder, step, context)
        check_built(source.path, folder / "model.onnx", context)
        refuse_unchanged(source.path, folder / "model.onnx")
    except VariantFailed as error:
        error.message = f"{technique.name}: {error.message}"
        wrong_on_data = error.failure is Failure.WRONG_NUMERICS and technique.needs_calibration
        if error.failure in _REPEATS or wrong_on_data:
            cache.put_failure(key, error, parent=source.sha256, step=step)
        raise


def _apply(technique: Technique, source: Path, folder: Path, step: Step, context: BuildContext) -> None:
    """``technique.apply``; what its libraries raise becomes a typed failure (or MemoryError)."""
    from autopilot.build.cache import NO_ROOM, no_room
    from autopilot.techniques._text import first_line, pass_on_memory

    try:
        technique.apply(source, folder, dict(step.params), context)
    except AutopilotError:
        raise
    except Exception as exc:  # plug-ins and the libraries under them raise anything; a build error it is
        pass_on_memory(exc)
        traceback.print_exc()
        if isinstance(exc, OSError) and exc.errno in NO_ROOM:
            raise no_room(folder.parent, exc) from exc
        message = f"failed ({type(exc).__name__}: {first_line(exc)})."
        raise VariantFailed(Failure.BUILD_ERROR, message) from exc


if __name__ == "__main__":
    # Before torch loads its OpenMP: threads that spin while they wait take the cores from those they wait for. On two
    # cores that others used too, a training was eight times slower so; on idle ones as fast.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    child_main(handle)
