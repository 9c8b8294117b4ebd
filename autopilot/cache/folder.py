"""Where the shared cache is and how large it may grow."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autopilot.errors import BadInput

DIR_VARIABLE, SIZE_VARIABLE = "AUTOPILOT_CACHE_DIR", "AUTOPILOT_CACHE_SIZE"
# The builds of some hundred recipes of a model of 100 MB (int8 variants take a quarter of that, float ones all of it).
DEFAULT_LIMIT_BYTES = 10_000_000_000
# On a small disk less: as journald does, a cache that nobody set up leaves nine tenths to others.
DISK_SHARE = 0.1
# Programs that make backups leave a folder with this file out (https://bford.info/cachedir/); the second line is
# how we know that a folder is ours and may be tidied.
TAG = "CACHEDIR.TAG"
_TAG_TEXT = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# The cache of autopilot: builds and scores. `autopilot cache` shows it, `autopilot cache clear` empties it.\n"
)
_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[KMGT]i?)?B?", re.IGNORECASE | re.ASCII)
_FACTORS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


@dataclass(frozen=True, slots=True)
class CacheFolder:
    """The parts of a cache under ``root``."""

    root: Path

    @property
    def builds(self) -> Path:
        """A folder a step that was built (or failed), and one a build under way."""
        return self.root / "builds"

    @property
    def scratch(self) -> Path:
        """What techniques keep between builds, keyed by themselves: a folder a kind."""
        return self.root / "scratch"

    @property
    def quality(self) -> Path:
        """A file a score."""
        return self.root / "quality"

    @property
    def compiled(self) -> Path:
        """What runtimes compiled and keep by themselves: a folder a kind, in it one a model and its settings."""
        return self.root / "compiled"

    @property
    def leases(self) -> Path:
        """A file a process that uses the cache: what it uses."""
        return self.root / "leases"


def parse_size(text: str) -> int:
    """Bytes in ``10GB``, ``500 MB``, ``2GiB``, ``0``; a kB is 1000 bytes.

    Raises:
        ValueError: anything else; the message is a plain sentence.

    >>> parse_size("1.5GB")
    1500000000
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no size; write 10GB, 500MB, 2GiB or a number of bytes")
    return int(float(match["number"]) * _FACTORS[(match["unit"] or "").lower()])


def cache_folder(environment: Mapping[str, str] = os.environ, *, platform: str = sys.platform) -> Path:
    """The folder that ``AUTOPILOT_CACHE_DIR`` names, else ``autopilot`` in the user's cache folder.

    That is ``XDG_CACHE_HOME`` where it is set, else the system's: ``~/.cache``, ``~/Library/Caches`` on macOS.

    Raises:
        BadInput: there is no home folder and neither variable is set, or the first begins with nobody's.
    """
    if named := environment.get(DIR_VARIABLE):
        try:
            return Path(named).expanduser().absolute()
        except RuntimeError as exc:  # ~somebody/cache
            raise BadInput(f"{DIR_VARIABLE}: there is no home folder for {named}.", "Name a whole path.") from exc
    base = environment.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):  # the XDG specification: a relative path is invalid and to be ignored
        return Path(base) / "autopilot"
    try:
        home = Path.home()
    except RuntimeError as exc:
        raise BadInput("there is no home folder to keep the cache in.", f"Name a folder in {DIR_VARIABLE}.") from exc
    return home / ("Library/Caches" if platform == "darwin" else ".cache") / "autopilot"


def size_limit(folder: Path, environment: Mapping[str, str] = os.environ) -> int:
    """Bytes that the cache in ``folder`` may take: ``AUTOPILOT_CACHE_SIZE``, else the default.

    Raises:
        BadInput: the variable holds no size.
    """
    if text := environment.get(SIZE_VARIABLE):
        try:
            return parse_size(text)
        except ValueError as exc:
            raise BadInput(f"{SIZE_VARIABLE}: {exc}.") from exc
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    return min(DEFAULT_LIMIT_BYTES, int(DISK_SHARE * shutil.disk_usage(existing).total))


def check_folder(folder: Path) -> bool:
    """Whether there is a cache in ``folder``; False where there is nothing yet.

    Raises:
        BadInput: it is a file, or a folder that holds something else and so must not be tidied.
    """
    if not folder.exists():
        return False
    if not folder.is_dir():
        raise BadInput(f"{folder} is a file; the cache needs a folder.", f"Name another one in {DIR_VARIABLE}.")
    try:
        if (folder / TAG).read_text(encoding="utf-8") == _TAG_TEXT:
            return True
    except (FileNotFoundError, UnicodeDecodeError):
        pass
    if any(not item.name.startswith(TAG) for item in folder.iterdir()):
        raise BadInput(
            f"{folder} is not empty and holds no cache of autopilot, so nothing is put or removed there.",
            f"Name an empty or new folder in {DIR_VARIABLE}.",
        )
    return False


def make_folder(folder: Path) -> CacheFolder:
    """An existing, marked cache folder, made where it wasn't there.

    Raises:
        BadInput: see ``check_folder``.
        OSError: it can't be made or written.
    """
    if not check_folder(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = folder / f"{TAG}.{os.getpid()}"
        part.write_text(_TAG_TEXT, encoding="utf-8")
        part.replace(folder / TAG)
    return CacheFolder(folder)
