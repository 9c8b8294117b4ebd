"""A headless Chromium that is told what to do over a pipe (its DevTools protocol), in real time."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

FOUND = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
_OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-sync",
    "--disable-component-update",
    "--disable-background-networking",
    "--remote-debugging-pipe",
]


class Browser:
    """One page: ``open`` an address, ``wait`` until something is on it, ``shot`` it."""

    def __init__(self, folder: Path, size: tuple[int, int]) -> None:
        assert FOUND is not None
        to_read, self._to = os.pipe()
        self._from, to_write = os.pipe()

        def place() -> None:  # the browser reads commands from 3 and answers on 4
            os.dup2(to_read, 30)
            os.dup2(to_write, 31)
            os.dup2(30, 3)
            os.dup2(31, 4)

        line = [FOUND, *_OPTIONS, f"--window-size={size[0]},{size[1]}", f"--user-data-dir={folder / 'profile'}"]
        self._process = subprocess.Popen(
            line, preexec_fn=place, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(to_read)
        os.close(to_write)
        self._number, self._buffer, self._session = 0, b"", ""
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        width, height = size
        self._ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)

    def open(self, address: str) -> None:
        """Go there; what the page's address says after ``#`` alone would load nothing, so it is loaded anew."""
        self._ask("Page.navigate", url="about:blank")
        self._ask("Page.navigate", url=address)

    def run(self, script: str) -> Any:
        """What an expression gives on the page."""
        return self._ask("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def text(self) -> str:
        """What a reader sees, in one line."""
        return " ".join(str(self.run("document.body ? document.body.innerText : ''")).split())

    def wait(self, done: Callable[[], bool], seconds: float = 180.0) -> None:
        """Until ``done``, or fail with what is on the page."""
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, self.text()[:3000]
            time.sleep(0.3)

    def shot(self, file: Path) -> Path:
        """A picture of the window."""
        file.write_bytes(base64.b64decode(self._ask("Page.captureScreenshot", format="png")["data"]))
        return file

    def _ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return dict(answer["result"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            got = os.read(self._from, 1 << 16)
            assert got, "the browser ended"
            self._buffer += got
        first, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(first))
