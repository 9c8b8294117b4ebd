"""What other libraries say, cut to what a user can read."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator


def first_line(exc: BaseException) -> str:
    """The first non-empty line of a message, without the long tails some libraries add."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return (lines[0] if lines else type(exc).__name__)[:300]


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
