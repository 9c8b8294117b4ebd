"""Outputs of a model on a range of samples, computed in a child process with all cores. Not timed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autopilot.bench.child import ChildLimits, run_child
from autopilot.bench.cores import server_cores
from autopilot.contracts import Array
from autopilot.profile import Kernel, Placement
from autopilot.recipe import Deployment
from autopilot.target import available_cores
from autopilot.temporary import temporary_folder

if TYPE_CHECKING:
    from autopilot.data import Split

_RECORD = "evaluation.json"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What ``evaluate`` left in ``folder``.

    ``output_names[i]`` is in ``folder/{i}.npy``, shape (samples, …); outputs that don't follow the
    batch dimension and text are not among them, but in ``left_out`` with the reason; ``all_names`` are
    those of all outputs in the model's (or the hook's) order. ``optimized`` is the graph that really
    ran, when asked for. ``non_finite``: some output holds NaN or infinity. ``padded``: outputs whose
    samples differ in one dimension; the shorter ones end in the type's lowest finite number (floats)
    or -1 (integers).
    """

    folder: Path
    output_names: tuple[str, ...]
    placement: Placement
    optimized: Path | None
    non_finite: bool
    padded: tuple[str, ...] = ()
    all_names: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    kernels: tuple[Kernel, ...] | None = None

    @classmethod
    def of(cls, folder: Path, answer: Mapping[str, Any]) -> Evaluation:
        """The record of one finished evaluation from the child's answer."""
        optimized = Path(answer["optimized"]) if answer["optimized"] else None
        placement = Placement(answer["placement"])
        names, padded = tuple(answer["output_names"]), tuple(answer["padded"])
        rest = (bool(answer["non_finite"]), padded, tuple(answer["all_names"]), answer["left_out"])
        told = answer.get("kernels")
        kernels = None if told is None else tuple(Kernel.from_json(kernel) for kernel in told)
        return cls(folder, names, placement, optimized, *rest, kernels=kernels)

    @classmethod
    def open(cls, folder: Path) -> Evaluation:
        """The record that an earlier ``evaluate`` left in ``folder``."""
        return cls.of(folder, json.loads((folder / _RECORD).read_text(encoding="utf-8")))

    def load(self) -> dict[str, Array]:
        """Outputs by name, memory-mapped, shape (samples, …)."""
        return {name: np.load(self.folder / f"{i}.npy", mmap_mode="r") for i, name in enumerate(self.output_names)}


def evaluate(
    artifact: Path,
    deployment: Deployment,
    *,
    split: Split,
    start: int,
    stop: int,
    batch: int,
    folder: Path,
    limits: ChildLimits,
    optimized: bool = False,
    sizes: Sequence[int] = (),
    scored: str | None = None,
) -> Evaluation:
    """Outputs of samples ``start..stop`` of ``split`` in files under ``folder``.

    Runs in groups of ``batch`` samples (the last one filled up and cut, so that fixed batch sizes
    work) on all usable cores; ``optimized`` also keeps the optimized graph as ``optimized.onnx``. The first samples
    of the split are run in groups of each of ``sizes`` too: they must get the same answers in the output ``scored``
    ("": the first; None: it isn't known which).

    Raises:
        VariantFailed: the model doesn't load or run, or the child process died; WRONG_NUMERICS: answers in
            groups of another size are others.
        DataError: a hook failed, or an output is of a kind that can't be scored.
        ValueError: an empty range, or one outside the split.
    """
    if not 0 <= start < stop <= split.n or batch < 1:
        raise ValueError(f"no samples {start}..{stop} in groups of {batch} in a split of {split.n}")
    folder.mkdir(parents=True, exist_ok=True)
    request = _request("evaluate", artifact, deployment, split)
    request |= {"start": start, "stop": stop, "batch": batch, "folder": str(folder.absolute()), "optimized": optimized}
    request |= {"sizes": list(sizes), "scored": scored}
    answer = run_child("autopilot.bench.scorer", request, limits, workdir=folder, threads=available_cores())
    (folder / _RECORD).write_text(json.dumps(answer), encoding="utf-8")
    return Evaluation.of(folder, answer)


def check_sizes(
    artifact: Path,
    deployment: Deployment,
    *,
    split: Split,
    batch: int,
    sizes: Sequence[int],
    scored: str | None,
    limits: ChildLimits,
) -> None:
    """What ``evaluate`` checks of ``sizes`` and ``scored``, alone: for outputs of groups of ``batch`` that are there.

    Raises:
        VariantFailed: see ``evaluate``.
    """
    request = _request("compare", artifact, deployment, split) | {
        "batch": batch,
        "sizes": list(sizes),
        "scored": scored,
    }
    with temporary_folder("sizes") as folder:
        run_child("autopilot.bench.scorer", request, limits, workdir=folder, threads=available_cores())


def probe_batching(
    artifact: Path, deployment: Deployment, split: Split, limits: ChildLimits, *, samples: int = 3
) -> bool:
    """Whether one run with several samples gives what single runs give; False when it fails.

    Shapes alone don't tell: a batch dimension may be fixed inside the graph, constants may not
    follow it, and a recurrent state may leak from one sample to the next.

    Raises:
        VariantFailed: the model doesn't load, or doesn't run on one sample.
    """
    request = _request("probe", artifact, deployment, split) | {"samples": samples}
    with temporary_folder("probe") as folder:
        answer = run_child("autopilot.bench.scorer", request, limits, workdir=folder, threads=available_cores())
    return bool(answer["batching"])


def _request(do: str, artifact: Path, deployment: Deployment, split: Split) -> dict[str, Any]:
    cores = available_cores()  # no more than a container's quota, where others are there to be seen
    return {
        "do": do,
        "artifact": str(artifact.absolute()),
        "deployment": deployment.with_(threads=1).to_json(),
        "split": str(split.folder.absolute()),
        "cores": server_cores(cores),
    }
