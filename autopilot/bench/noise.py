"""How noisy is this machine? One model against itself: what differs is noise."""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autopilot.bench.child import ChildLimits
from autopilot.bench.control import PAIR_S, Pairs, read_pairs
from autopilot.bench.control import summarise as control_of
from autopilot.bench.live import Server
from autopilot.data import Split
from autopilot.data.mapping import InputMap
from autopilot.data.split import seal
from autopilot.profile import Floats, LatencyReading
from autopilot.recipe import Deployment
from autopilot.temporary import temporary_folder

# Eight times MatMul with a constant 256 x 256 matrix and ReLU, x (n, 256) -> y (n, 256): zlib, base64.
_MODEL = (
    "eNpl0E1Lw0AQBuCdJLXLQOsyUsFrjrlovsHe6q1QhPbmLUJEIabSJNbe+lO89W92YIrs4lxm3pfnNFo/nny8R+gI9uH107bt+qrtn98279VXHd"
    "3i6LtqhjpCDQaWgVLH+S8ESAg/CHvyPh/Cq1XVr4YGp8iJvF0cBuu6GfAG+RYUOyhmlFgoEZQ4KGGUWigVlDooZZRZKBOUOShjlFsoF5Q7KGdU"
    "WKgQVDioYFRaqBRU/qEJo5LgIIZG7fajq6M77ZnxArqlUaBkLvtlxn8kg1MNhOgTtOjro/fK9eF/vQhQmckZcFRTPQ=="
)
_WIDTH = 256
# With 16 samples a request takes some tenths of a millisecond: as long as a small model's.
_BATCH = 16
_SAMPLES = 512
_LIMITS = ChildLimits(wall_s=60.0)


@dataclass(frozen=True, slots=True)
class NoiseReading:
    """A/A: ``processes`` of one model, interleaved.

    ``p50_percent``, ``p99_percent``: how far two of them differed at most. ``spread_percent``: how far single
    blocks' medians lie from their process's median (the 90th percentile of that). ``requests``: timed, of all;
    ``seconds`` it took them.
    """

    p50_percent: float
    p99_percent: float
    spread_percent: float
    requests: int
    seconds: float
    processes: int = 2

    def to_json(self) -> dict[str, Any]:
        return {
            "p50_percent": self.p50_percent,
            "p99_percent": self.p99_percent,
            "spread_percent": self.spread_percent,
            "requests": self.requests,
            "seconds": self.seconds,
            "processes": self.processes,
        }


def measure_noise(pair_s: float = PAIR_S) -> NoiseReading:
    """Serve the same model from several processes in turn, ``pair_s`` seconds a pair, on one core.

    Raises:
        VariantFailed: the CPU provider doesn't run here.
    """
    deployment = Deployment("cpu", threads=1, batch=_BATCH)
    with temporary_folder("noise") as folder:
        model, split = _material(folder)

        def start() -> Server:
            return Server.start(model, deployment, split=split, limits=_LIMITS)

        with start() as live:
            return summarise(read_pairs(live, start, pair_s=pair_s))


def summarise(pairs: Pairs) -> NoiseReading:
    """The noise that readings of one model show."""
    control = control_of(pairs)
    readings = [reading for pair in pairs for reading in pair]
    return NoiseReading(
        p50_percent=control.p50_percent,
        p99_percent=control.p99_percent,
        spread_percent=100 * float(np.percentile(np.concatenate([_off(r) for r in readings]), 90)),
        requests=sum(r.latency_s.size for r in readings),
        seconds=float(sum(r.block_wall_s.sum() for r in readings)),
        processes=len(pairs) + 1,
    )


def _off(reading: LatencyReading) -> Floats:
    """How far each block's median lies from their own median, as shares."""
    medians = np.array([np.median(reading.latency_s[reading.block == k]) for k in np.unique(reading.block)])
    return np.asarray(np.abs(medians / np.median(medians) - 1), dtype=np.float64)


def _material(folder: Path) -> tuple[Path, Split]:
    model = folder / "model.onnx"
    model.write_bytes(zlib.decompress(base64.b64decode(_MODEL)))
    data = folder / "data"
    data.mkdir()
    np.save(data / "x.npy", np.random.default_rng(0).random((_SAMPLES, _WIDTH), dtype=np.float32))
    meta = {
        "name": "noise",
        "n": _SAMPLES,
        "batched": True,
        "inputs": [InputMap(name="x", dtype="float32", source="x").to_json()],
        "arrays": {"x": "x.npy"},
        "shared": {},
        "label": None,
        "model_inputs": {"x": "float32"},
        "preprocess": None,
        "postprocess": None,
    }
    seal(data, meta, [])
    return model, Split.load(data)
