"""Raw readings on disk, so that a verdict can be computed again."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from autopilot.contracts import Array
from autopilot.profile import LatencyReading, Profile

FOLDER = "samples"


def save_samples(work: Path, name: str, profile: Profile | None) -> None:
    """Write the timed requests of ``profile``, and the baseline's beside them, to ``work/samples/NAME.npz``."""
    if profile is None or profile.latency is None:
        return
    arrays = _arrays("", profile.latency)
    if profile.baseline_latency is not None:
        arrays |= _arrays("baseline_", profile.baseline_latency)
    folder = work / FOLDER
    folder.mkdir(exist_ok=True)
    np.savez_compressed(folder / f"{name}.npz", **arrays)  # type: ignore[arg-type]


def _arrays(prefix: str, reading: LatencyReading) -> dict[str, Array]:
    traffic = reading.traffic
    scheduled = ("offered", "answered", "dropped", "unanswered", "busy_s", "full_runs_s", "send_lag_s")
    return ({f"{prefix}{name}": getattr(traffic, name) for name in scheduled} if traffic is not None else {}) | {
        f"{prefix}latency_s": reading.latency_s,
        f"{prefix}block": reading.block,
        f"{prefix}block_wall_s": reading.block_wall_s,
        f"{prefix}block_cpu_s": reading.block_cpu_s,
        f"{prefix}samples_per_request": np.array(reading.samples_per_request),
    }


def drop_samples(work: Path, first: int) -> None:
    """Remove the readings of trial ``first`` and later: a kill left them without a record."""
    for path in (work / FOLDER).glob("*.npz"):
        number = path.stem.partition("-")[0]
        if number.isdigit() and int(number) >= first:
            path.unlink(missing_ok=True)
