"""The user's own functions: loaded from a file by path, called with errors that name file and function."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autopilot.errors import DataError

Array = npt.NDArray[Any]
Hook = Callable[..., Any]


def nearest(word: str, words: Iterable[str]) -> str:
    """A sentence naming the closest of ``words``, else listing up to ten of them; empty without words.

    >>> nearest("lable", ["label", "image"])
    "Did you mean 'label'?"
    """
    known = list(words)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"Did you mean {close[0]!r}?"
    listed = ", ".join(known[:10]) + (", ..." if len(known) > 10 else "")
    return f"There is: {listed}." if known else ""


def parse_hook(reference: str) -> tuple[Path, str]:
    """``"/folder/steps.py:preprocess"`` as (file, function name).

    Raises:
        DataError: the text is not FILE.py:FUNCTION.
    """
    path, colon, function = reference.rpartition(":")
    if not colon or not path.endswith(".py") or not function.isidentifier():
        raise DataError(f"{reference!r} does not name a function.", "Write it as FILE.py:FUNCTION.")
    return Path(path), function


def user_error(exc: BaseException, path: Path) -> str:
    """The last line of a traceback, with the line in the user's own file where it has one."""
    last = traceback.format_exception_only(exc)[-1].strip()
    frames = [f for f in traceback.extract_tb(exc.__traceback__) if f.filename == str(path)]
    return f"{last} (line {frames[-1].lineno})" if frames else last


def load_hook(reference: str) -> Hook:
    """The function that ``"ABSOLUTE.py:function"`` names.

    The file runs as a module of its own; its folder is appended to ``sys.path`` so that it can
    import what lies beside it.

    Raises:
        DataError: no such file, the file raises while it runs, or it has no such function.
    """
    path, function = parse_hook(reference)
    if not path.is_file():
        raise DataError(f"{path} does not exist; it should hold the function {function!r}.")
    name = f"autopilot_hook_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise DataError(f"{path} can't be loaded as a Python module.")
    module = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    sys.modules[name] = module  # dataclasses and pickling look their module up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as exc:  # the user's module may raise anything
        del sys.modules[name]
        raise DataError(f"{path} (for the function {function!r}) fails when loaded: {user_error(exc, path)}.") from exc
    found = getattr(module, function, None)
    if not callable(found):
        names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise DataError(f"{path} has no function {function!r}.", nearest(function, names))
    return found  # type: ignore[no-any-return]


def call_hook(hook: Hook, reference: str, *arguments: Any) -> Any:
    """What ``hook(*arguments)`` returns.

    Raises:
        DataError: the hook raised; the message ends with the user's own error and line.
    """
    path, function = parse_hook(reference)
    try:
        return hook(*arguments)
    except Exception as exc:  # the user's code may raise anything
        raise DataError(f"{function}() in {path} failed: {user_error(exc, path)}.") from exc


def as_arrays(value: Any, reference: str) -> dict[str, Array]:
    """A hook's answer as named arrays; one array alone is called ``output``.

    Raises:
        DataError: it is neither an array nor a mapping of names to arrays.
    """
    named = value if isinstance(value, Mapping) else {"output": value}
    arrays = {str(k): np.asarray(v) for k, v in named.items()}
    bad = [k for k, v in arrays.items() if v.dtype.hasobject]
    if bad or not arrays:
        path, function = parse_hook(reference)
        what = f"no numeric array for {bad[0]!r}" if bad else "nothing"
        raise DataError(f"{function}() in {path} returned {what}.", "Return a dict of names to arrays.")
    return arrays


def apply_postprocess(hook: Hook, reference: str, outputs: Mapping[str, Array]) -> dict[str, Array]:
    """``outputs`` (name -> array, shape (n, ...)) after the user's postprocess hook."""
    return as_arrays(call_hook(hook, reference, dict(outputs)), reference)
