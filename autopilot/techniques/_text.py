"""What other libraries say, cut to what a user can read."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator

# How protobuf, C++ libraries, ONNX Runtime and the system say that memory ran out.
_MEMORY_SIGNS = (
    "Arena alloc failed",
    "bad_alloc",
    "Failed to allocate memory",
    "Cannot allocate memory",
    "MemoryError",
)


def first_line(exc: BaseException) -> str:
    """The first non-empty line of a message, without the long tails some libraries add."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return (lines[0] if lines else type(exc).__name__)[:300]


def pass_on_memory(exc: BaseException) -> None:
    """Raise MemoryError where ``exc`` is about memory: no reason to call a model unsupported for good.

    Raises:
        MemoryError: from ``exc``.
    """
    if isinstance(exc, MemoryError) or any(sign in str(exc) for sign in _MEMORY_SIGNS):
        raise MemoryError(first_line(exc)) from exc


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop the libraries' prints and log lines: advice that users can't follow, several lines a model."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)
