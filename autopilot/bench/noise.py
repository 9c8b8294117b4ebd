"""How noisy is this machine? One model against itself: what differs is noise."""

from __future__ import annotations

import base64
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autopilot import stats
from autopilot.bench.child import ChildLimits
from autopilot.bench.launcher import Server, measure_latency
from autopilot.data import Split
from autopilot.data.mapping import InputMap
from autopilot.data.split import seal
from autopilot.profile import LatencyReading
from autopilot.recipe import Deployment

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
    """A/A: two processes of one model, interleaved.

    ``p50_percent``, ``p99_percent``: how far the two differ. ``spread_percent``: how far single blocks'
    medians lie from their own median (the 90th percentile of that). ``requests``: timed, of
    each; ``seconds`` it took them.
    """

    p50_percent: float
    p99_percent: float
    spread_percent: float
    requests: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {
            "p50_percent": self.p50_percent,
            "p99_percent": self.p99_percent,
            "spread_percent": self.spread_percent,
            "requests": self.requests,
            "seconds": self.seconds,
        }


def measure_noise(seconds: float = 3.0) -> NoiseReading:
    """Serve the same model from two processes in turn for ``seconds``, on one core.

    Raises:
        VariantFailed: the CPU provider doesn't run here.
    """
    deployment = Deployment("cpu", threads=1, batch=_BATCH)
    with tempfile.TemporaryDirectory(prefix="autopilot-noise-") as name:
        model, split = _material(Path(name))
        with (
            Server.start(model, deployment, split=split, limits=_LIMITS) as a,
            Server.start(model, deployment, split=split, limits=_LIMITS) as b,
        ):
            first, second = measure_latency(a, b, decided=lambda *_: False, cap_s=seconds)
    assert second is not None
    return summarise(first, second)


def summarise(a: LatencyReading, b: LatencyReading) -> NoiseReading:
    """The noise that two readings of one model show."""
    medians = np.array([np.median(a.latency_s[a.block == k]) for k in np.unique(a.block)])
    off = np.abs(medians / np.median(medians) - 1)
    return NoiseReading(
        p50_percent=_difference(a, b, 50.0),
        p99_percent=_difference(a, b, 99.0),
        spread_percent=100 * float(np.percentile(off, 90)),
        requests=a.latency_s.size,
        seconds=float(a.block_wall_s.sum() + b.block_wall_s.sum()),
    )


def _difference(a: LatencyReading, b: LatencyReading, q: float) -> float:
    ratio = stats.ratio_interval(a.latency_s, a.block, b.latency_s, b.block, q=q).value
    return 100 * max(ratio - 1, 1 / ratio - 1)


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
