"""What happened to requests that came at scheduled times."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autopilot.profile.measurement import Floats, Ints


@dataclass(frozen=True, slots=True)
class RateReading:
    """The highest rate at which every latency limit held, by bisection; requests a second.

    ``low`` is the highest rate at which they certainly held (0 for none), ``high`` the lowest at which one
    was certainly broken (infinite for none); ``probes`` is how many rates were tried.
    """

    rate_rps: float
    low: float
    high: float
    probes: int


@dataclass(frozen=True, slots=True)
class TrafficReading:
    """Windows of scheduled requests, their ramps excluded; a window is a block of the LatencyReading beside it.

    rate_rps: the mean rate that the traffic asks for.
    offered, answered, dropped, unanswered: int32, shape (n_windows,). Requests due in a window; answers
        that left in it, to requests of its ramp too; requests refused by a full queue; requests without an
        answer when the wait after the window ended.
    busy_s: float64, shape (n_windows,), seconds a window in which instances ran the model, summed over instances.
    batch_sizes: int32, shape (largest + 1,), how many runs held so many requests.
    full_runs_s: float64, shape (n_full,), how long each run took that held as many requests as one may: what
        the server could do if it had as much to do as it can take.
    queue_s, service_s: float64, shape (n_answered,), from sent to the start of the run, and the run itself.
    send_lag_s: float64, shape (n_requests,), how late requests left the generator; part of their latency.
    lost_from_s: the smallest latency counted for a request without an answer, infinite where all had one.
    """

    rate_rps: float
    window_s: float
    instances: int
    batch: int
    offered: Ints
    answered: Ints
    dropped: Ints
    unanswered: Ints
    busy_s: Floats
    batch_sizes: Ints
    full_runs_s: Floats
    queue_s: Floats
    service_s: Floats
    send_lag_s: Floats
    lost_from_s: float = float("inf")
    max_rate: RateReading | None = None

    @property
    def lost(self) -> int:
        """Requests without an answer."""
        return int(self.dropped.sum() + self.unanswered.sum())

    @property
    def growth(self) -> Floats:
        """By how much the queue grew in each window, as a share of the mean number of requests in one."""
        mean = float(self.offered.mean()) or 1.0
        return np.asarray((self.offered - self.answered) / mean, dtype=np.float64)

    @property
    def busy_share(self) -> float:
        """The share of the instances' time in which they ran the model."""
        return float(self.busy_s.mean() / (self.window_s * self.instances))

    @property
    def needed_s(self) -> Floats:
        """Seconds of all instances' time that come a second, by each full run: above 1 the queue grows without end."""
        return np.asarray(self.full_runs_s * (self.rate_rps / (self.batch * self.instances)), dtype=np.float64)

    @property
    def mean_batch(self) -> float:
        """Requests in a run."""
        runs = int(self.batch_sizes.sum())
        return float(self.batch_sizes @ np.arange(self.batch_sizes.size) / runs) if runs else 0.0
