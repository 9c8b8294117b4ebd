"""Who runs a trial: a process on a machine, and whether it is gone."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

# A process id is used again some day; two processes with one id don't start in the same second.
_SAME_START_S = 1.0


@dataclass(frozen=True, slots=True)
class Worker:
    """One `autopilot run`.

    ``place`` is where its process id means something, ``started`` when the process did (seconds since the epoch),
    ``run`` tells runs of one process apart.
    """

    place: str
    pid: int
    started: float
    run: str = ""

    @classmethod
    def here(cls) -> Worker:
        """A new run in this process."""
        return cls(_place(), os.getpid(), psutil.Process().create_time(), uuid.uuid4().hex)

    @property
    def is_here(self) -> bool:
        """Whether its process id can be looked up from this process."""
        return self.place == _place()

    @property
    def is_gone(self) -> bool:
        """Whether it certainly runs no more; False where that can't be told from here."""
        if not self.is_here:
            return False
        try:
            process = psutil.Process(self.pid)
            # Killed and not yet waited for: it will do nothing any more.
            is_dead = process.status() == psutil.STATUS_ZOMBIE
            return is_dead or abs(process.create_time() - self.started) > _SAME_START_S
        except psutil.NoSuchProcess:
            return True
        except psutil.AccessDenied:
            return False

    @property
    def host(self) -> str:
        """Its machine's name."""
        return self.place.partition(" ")[0]

    def to_json(self) -> dict[str, Any]:
        return {"place": self.place, "pid": self.pid, "started": self.started, "run": self.run}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Worker:
        return cls(str(value["place"]), int(value["pid"]), float(value["started"]), str(value["run"]))


def _place() -> str:
    """Host name, boot and namespace of process ids: containers of one host don't see each other's processes."""
    parts = [socket.gethostname().replace(" ", "-")]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    except OSError:  # not Linux: there the host's name has to do
        pass
    return " ".join(parts)
