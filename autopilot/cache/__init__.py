"""The cache that all runs share: where it is, what it may take, who uses what, what goes first.

What is in it: ``builds/`` (``autopilot.build.cache``), ``scratch/`` (what techniques keep between builds),
``quality/`` (scores) and ``compiled/`` (kernels and engines that runtimes keep by themselves). Nothing in it is a
measurement of time or memory.
"""

from __future__ import annotations

from autopilot.cache.entries import Entry, Kind, scan
from autopilot.cache.eviction import Freed, clear, trim
from autopilot.cache.folder import CacheFolder, cache_folder, check_folder, parse_size, size_limit
from autopilot.cache.lease import Held, Lease, held
from autopilot.cache.shared import SharedCache

__all__ = [
    "CacheFolder",
    "Entry",
    "Freed",
    "Held",
    "Kind",
    "Lease",
    "SharedCache",
    "cache_folder",
    "check_folder",
    "clear",
    "held",
    "parse_size",
    "scan",
    "size_limit",
    "trim",
]
