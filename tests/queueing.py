"""A queue with one server and known service times, computed exactly: what open-loop measurements are held against."""

from __future__ import annotations

import numpy as np

from autopilot.profile import Floats


def sojourn_s(due_s: Floats, service_s: Floats | float) -> Floats:
    """From due to done of each request, first come first served; float64, shape (n,).

    Lindley's recursion: a request starts when it comes or when the one before it is done.
    """
    service = np.broadcast_to(np.asarray(service_s, dtype=np.float64), due_s.shape)
    done = np.empty_like(due_s)
    free = -np.inf
    for i, (due, needed) in enumerate(zip(due_s, service, strict=True)):
        free = max(due, free) + needed
        done[i] = free
    return done - due_s


def mean_wait_s(rho: float, service_s: float) -> float:
    """The mean wait of M/D/1, a Poisson process served in constant time (Pollaczek and Khinchine)."""
    return rho * service_s / (2 * (1 - rho))
