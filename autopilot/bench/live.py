"""The parent's side of one serving process: start it, ask it, always reap it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from autopilot.bench.asking import LOG, Asked
from autopilot.bench.child import ChildLimits, spawn, write_request
from autopilot.bench.cores import server_cores
from autopilot.errors import Failure, WorkerDied
from autopilot.profile import Floats, Placement
from autopilot.recipe import Deployment
from autopilot.temporary import temporary_folder

if TYPE_CHECKING:
    from autopilot.data import Split

# Distinct samples kept in the server: enough variety to defeat value-dependent luck, small beside a model.
REQUEST_BYTES = 16_000_000
WARM_UP_CAP_S = 5.0
# Above its threads by this many cores, a server did more than the deployment allows it.
THREAD_SLACK = 0.3

# Asked before a provider meets a size of batch, with how many it has met and how many there are: the seconds that
# this one may take.
BeforeRun = Callable[[int, int], float]


@dataclass(frozen=True, slots=True)
class Block:
    """Timed requests that ran back to back.

    latency_s: float64, shape (n,), seconds. wall_s, cpu_s: seconds of the whole block.
    preprocess_s, postprocess_s: float64, shape (n,), None without that hook's stages.
    """

    latency_s: Floats
    wall_s: float
    cpu_s: float
    preprocess_s: Floats | None = None
    postprocess_s: Floats | None = None


class Server:
    """A live serving process; a context manager. Start it with ``Server.start``.

    The thread that starts a server must outlive it: on Linux the kernel ends the process with its starter.
    """

    def __init__(self, process: Asked, deployment: Deployment) -> None:
        self.deployment = deployment
        self.request_s: float | None = None
        self.cores: tuple[int, ...] = ()
        self.output_names: tuple[str, ...] = ()
        self.placement = Placement()
        self.load_s = float("nan")
        self._process = process
        self._wall_total = self._cpu_total = 0.0
        self._stages: dict[str, list[float]] = {}

    @classmethod
    def start(
        cls, artifact: Path, deployment: Deployment, *, split: Split, limits: ChildLimits, requests: int = 256
    ) -> Server:
        """A server that has loaded ``artifact`` and answered its first request.

        Args:
            artifact: the model file.
            deployment: how it is run; the process is pinned to ``deployment.cores`` cores.
            split: real samples; a prefix of it is served in turn.
            limits: ``wall_s`` bounds the start and every later command.
            requests: how many different requests to hold at most (bounded to some MB as well).

        Raises:
            VariantFailed: it doesn't load or answer (WorkerDied when the process ended).
        """
        wanted = {"artifact": str(artifact.absolute()), "split": str(split.folder.absolute()), "requests": requests}
        return cls._launch(wanted, deployment, limits)

    @classmethod
    def start_empty(
        cls, deployment: Deployment, limits: ChildLimits, *, split: Split | None = None, requests: int = 0
    ) -> Server:
        """The same process with no model: what its memory is compared with.

        It imports the same, holds the same requests of ``split`` and has brought the same runtime up.
        """
        folder = None if split is None else str(split.folder.absolute())
        return cls._launch({"artifact": None, "split": folder, "requests": requests}, deployment, limits)

    @classmethod
    def _launch(cls, wanted: Mapping[str, Any], deployment: Deployment, limits: ChildLimits) -> Server:
        folder = temporary_folder("server")
        request = {
            **wanted,
            "deployment": deployment.to_json(),
            "cores": server_cores(deployment.cores),
            "limit_bytes": REQUEST_BYTES,
        }
        path = write_request(folder.path, request, limits)
        with (folder.path / LOG).open("wb") as log:
            started = time.monotonic_ns()
            process = spawn(
                "autopilot.bench.server",
                path,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                threads=deployment.threads,
            )
        server = cls(Asked(process, folder, limits.wall_s), deployment)
        server._ready(server._process.read(), started)
        return server

    def _ready(self, reply: Mapping[str, Any], started_ns: int) -> None:
        self.cores = tuple(reply["cores"])
        if "first_answer_ns" in reply:
            # The monotonic clock is the system's: both processes read the same one.
            self.load_s = (reply["first_answer_ns"] - started_ns - reply["preparing_ns"]) / 1e9
            self.output_names = tuple(reply["output_names"])
            self.placement = Placement(reply["placement"], tuple((name, kind) for name, kind in reply["host_nodes"]))

    def warm_up(self, cap_s: float = WARM_UP_CAP_S) -> None:
        """Serve requests until latency is steady or ``cap_s`` seconds are over; sets ``request_s``."""
        self.request_s = float(self._ask({"do": "warm_up", "cap_s": cap_s})["request_s"])

    def block(self, n: int) -> Block:
        """``n`` timed requests, each another sample than the one before."""
        reply = self._ask({"do": "block", "n": n})
        stages = {k: np.array(reply[f"{k}_ns"]) / 1e9 for k in ("preprocess", "postprocess") if f"{k}_ns" in reply}
        block = Block(
            np.array(reply["latency_ns"], dtype=np.float64) / 1e9,
            reply["wall_ns"] / 1e9,
            reply["cpu_ns"] / 1e9,
            stages.get("preprocess"),
            stages.get("postprocess"),
        )
        for name, seconds in stages.items():
            self._stages.setdefault(name, []).extend(seconds.tolist())
        self._wall_total += block.wall_s
        self._cpu_total += block.cpu_s
        return block

    def open_traffic(
        self,
        *,
        fixed: bool = False,
        before: BeforeRun | None = None,
        for_memory: bool = False,
        scored: str | None = None,
    ) -> Path:
        """Get ready for scheduled requests of one sample each; the pipe they are written to.

        A provider that compiles for each set of shapes runs every size of batch in every instance now, and not when it
        is asked again.

        Args:
            fixed: the model runs whole batches only, so that smaller ones are filled up.
            before: called before each of these runs with how many were made and how many there are; gives the seconds
                that the run may take. Without it each may take what any command may.
            for_memory: every size is run whatever the provider, and no more samples are held than before.
            scored: the output of the session in which sizes must agree; "" is the first, None is not known.

        Raises:
            WorkerDied: the process ended, or one of the runs took longer.
        """
        d = self.deployment
        told = {"batch": d.batch, "max_delay_ms": d.max_delay_ms, "fixed": fixed, "every_size": for_memory}
        requests = 1 if for_memory else 256
        reply = self._ask(
            {"do": "open_traffic", "requests": requests, "limit_bytes": REQUEST_BYTES, "scored": scored, **told}
        )
        if reply["per_shape"]:
            doing = f"provider {d.provider} compiles for each size of batch in each instance"
        else:
            doing = "running each size of batch twice in each instance, to read memory"
        total = reply["unmet"]
        for done in range(total):
            wall_s = None if before is None else before(done, total)
            self._meet_size(f"{doing}: {done} of {total} were ready", wall_s)
        return Path(reply["queue"])

    def _meet_size(self, state: str, wall_s: float | None) -> None:
        """``state``: what is done and how far it is, for the message where this size takes too long."""
        try:
            self._ask({"do": "meet_size"}, wall_s)
        except WorkerDied as exc:
            if exc.failure is not Failure.TIMEOUT:
                raise
            text = f"{state}, and the next took longer than it may: {exc.message}"
            raise WorkerDied(Failure.TIMEOUT, text, "Raise search.step_timeout.", exc.log) from exc

    def window(self, number: int, *, count_ns: int, stop_ns: int, drain_ns: int) -> Mapping[str, Any]:
        """Serve one window of scheduled requests; all times on CLOCK_MONOTONIC.

        Args:
            number: the one that its requests carry.
            count_ns: the end of the ramp; processor time is counted from here to ``stop_ns``.
            stop_ns: no request is due from here on.
            drain_ns: what isn't started by then is left unanswered.

        Returns:
            ``runs`` (request numbers, start ns, end ns), ``cpu_ns`` and ``ended_ns``.

        Raises:
            WorkerDied: the process ended, or gave no answer long after the window.
        """
        told = {"number": number, "count_ns": count_ns, "stop_ns": stop_ns, "drain_ns": drain_ns}
        reply = self._ask({"do": "window", **told})
        self._wall_total += (stop_ns - count_ns) / 1e9
        self._cpu_total += reply["cpu_ns"] / 1e9
        return reply

    @property
    def is_alive(self) -> bool:
        """Whether the process is there to be asked."""
        return self._process.is_alive

    def settle(self) -> None:
        """Return when the server's worker threads no longer spin, so that another one has the cores to itself."""
        if self.deployment.threads > 1:
            self._ask({"do": "settle"})

    def serve_for(self, seconds: float) -> int:
        """Serve for so long, at least one request and none of them timed; how many samples were answered."""
        return int(self._ask({"do": "serve_for", "seconds": seconds})["requests"]) * self.deployment.batch

    def peak_memory_bytes(self) -> int | None:
        """The kernel's high-water mark of the process's resident memory since its start; None where it tells none."""
        return self._memory("peak_memory_bytes")

    def resident_memory_bytes(self) -> int | None:
        """What is resident of the process now, shared libraries included; None where the system doesn't tell."""
        return self._memory("resident_memory_bytes")

    def _memory(self, name: str) -> int | None:
        found = self._ask({"do": "memory"}).get(name)
        return None if found is None else int(found)

    def modules(self) -> frozenset[str]:
        """Names of the Python modules that the process has loaded."""
        return frozenset(self._ask({"do": "modules"})["modules"])

    @property
    def pid(self) -> int:
        """The process's number in this namespace."""
        return self._process.pid

    @property
    def stages_s(self) -> dict[str, float]:
        """Mean seconds a request spent in the preprocess and postprocess hooks; empty without hooks."""
        return {name: float(np.mean(values)) for name, values in self._stages.items()}

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was odd about the process: cores it could not be bound to, threads it didn't keep to."""
        found = []
        threads = self.deployment.cores
        if len(self.cores) != threads:
            held = f"{len(self.cores)} cores" if self.cores else "no particular cores"
            found.append(f"the server was bound to {held}, not to its {threads} threads' worth")
        used = self._cpu_total / self._wall_total if self._wall_total else 0.0
        if used > threads + THREAD_SLACK:
            found.append(f"provider {self.deployment.provider} used {used:.1f} cores, not its {threads} threads")
        return tuple(found)

    def _ask(self, command: Mapping[str, Any], wall_s: float | None = None) -> dict[str, Any]:
        return self._process.ask(command, wall_s)

    def close(self) -> None:
        """End the process and remove its files; safe to call again."""
        self._process.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
