"""A PostgreSQL server for a test, from Debian's packages or the PATH: on 127.0.0.1, in a temporary folder."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

USER = "tester"
PASSWORD = "hunter2 @/:"  # as a URL must not show it: with signs that have to be escaped there
_ESCAPED = "hunter2%20%40%2F%3A"
_START_S = 120.0


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """The URL of a server's empty database; skips the test where there is no server to start, and says why."""
    pytest.importorskip("psycopg", reason="the extra postgres (psycopg) isn't installed")
    binaries = _binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL server here: neither /usr/lib/postgresql/*/bin nor the PATH has initdb and postgres")
    with tempfile.TemporaryDirectory(prefix="autopilot-pg-", ignore_cleanup_errors=True) as name:
        folder, lead = Path(name), _as_plain_user(Path(name))
        secret = folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        made = [*lead, str(binaries / "initdb"), "-D", str(folder / "data"), "-U", USER, "--auth=scram-sha-256"]
        done = subprocess.run([*made, f"--pwfile={secret}"], capture_output=True, text=True, timeout=120, cwd="/")
        assert done.returncode == 0, done.stderr
        port = _free_port()
        options = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}", "-c", "fsync=off"]
        server = subprocess.Popen(
            [*lead, str(binaries / "postgres"), "-D", str(folder / "data"), "-p", str(port), *options],
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            url = f"postgresql://{USER}:{_ESCAPED}@127.0.0.1:{port}/postgres"
            _wait(url, server)
            yield url
        finally:
            server.send_signal(signal.SIGINT)  # ends it without waiting for its clients
            server.wait(120)


def _binaries() -> Path | None:
    """The folder of the newest server's programs."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name.split(".")[0]))
    on_path = shutil.which("initdb")
    folders = [*reversed(debian), *([Path(on_path).parent] if on_path else [])]
    return next((f for f in folders if (f / "initdb").is_file() and (f / "postgres").is_file()), None)


def _as_plain_user(folder: Path) -> list[str]:
    """What to begin a command with: PostgreSQL refuses to run as root, so there another user runs it, who gets
    ``folder``.
    """
    if os.geteuid() != 0:
        return []
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(name)
            break
    else:
        pytest.skip("PostgreSQL doesn't run as root, and there is no user postgres or nobody to run it as")
    if shutil.which("setpriv") is None:
        pytest.skip("PostgreSQL doesn't run as root, and setpriv, which would change the user, isn't there")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(url: str, server: subprocess.Popen[bytes]) -> None:
    """Until the server takes connections."""
    import psycopg

    deadline = time.monotonic() + _START_S
    while True:
        assert server.poll() is None, "the PostgreSQL server ended"
        try:
            psycopg.connect(url, connect_timeout=2).close()
            return
        except psycopg.OperationalError:
            assert time.monotonic() < deadline, "the PostgreSQL server doesn't answer"
            time.sleep(0.1)
