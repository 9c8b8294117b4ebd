"""What a function of the user's is made of: its file, what that imports of their own, and the libraries' versions.

Read from the source, without running it: a digest is asked for before anything of the user's is loaded. Modules that
are imported by a name worked out while running, and files that code reads, can't be seen so.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from importlib.machinery import ModuleSpec
from pathlib import Path

from autopilot.artifact import sha256_file
from autopilot.data.hooks import parse_hook
from autopilot.errors import DataError
from autopilot.recipe import digest

# Folders of installed packages: those count by their versions.
_INSTALLED = frozenset({"site-packages", "dist-packages"})
# Python's own count by nothing: another one is another environment. This package is told wherever code counts.
_LEFT_OUT = sys.stdlib_module_names | {"autopilot"}

Dotted = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HookCode:
    """``files``: sha256 by path, as seen from the folder that each is imported from, the function's own under "".

    ``libraries``: version by name.
    """

    files: Mapping[str, str]
    libraries: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Source:
    """A Python file, the folder that its module's name begins in, and the package it is in."""

    path: Path
    root: Path
    package: Dotted

    @property
    def label(self) -> str:
        return self.path.relative_to(self.root).as_posix()


def hook_digest(reference: str) -> str:
    """Hex sha256 of a hook's function name and of its ``hook_code``.

    Raises:
        DataError: its file can't be read.
    """
    code = hook_code(reference)
    return digest([code.files, code.libraries, parse_hook(reference)[1]])


def hook_code(reference: str) -> HookCode:
    """What ``"FILE.py:FUNCTION"`` is made of; modules of the user's own are followed wherever they lie.

    What lies beside the file goes before what is installed: where both are there, both may count.

    Raises:
        DataError: the file can't be read.
    """
    path, function = parse_hook(reference)
    if not path.is_file():
        raise DataError(f"{path} does not exist; it should hold the function {function!r}.")
    first = _Source(path, path.parent, ())
    seen, waiting, libraries = {path.resolve(): first}, [first], dict[str, str]()
    while waiting:
        source = waiting.pop()
        for dotted in _imports(source):
            found = _own(dotted, source.root) or _elsewhere(dotted)
            if not found:
                libraries.update(_versions(dotted[0]))
            for one in found:
                if one.path.resolve() not in seen:
                    seen[one.path.resolve()] = one
                    waiting.append(one)
    files = {"" if source is first else source.label: sha256_file(source.path) for source in seen.values()}
    return HookCode(files, libraries)


def _imports(source: _Source) -> Iterator[Dotted]:
    """What a file may import, wherever in it; nothing of one that Python can't read, which is told when it is loaded.

    A name that is imported from a package may be a module or something in one: both are given.
    """
    try:
        tree = ast.parse(source.path.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = source.package[: len(source.package) + 1 - node.level] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            found = [base, *((*base, alias.name) for alias in node.names)]
        else:
            continue
        yield from (dotted for dotted in found if dotted and dotted[0] not in _LEFT_OUT)


def _own(dotted: Dotted, root: Path) -> list[_Source]:
    """The files of the user's under ``root`` that importing ``dotted`` runs; none where it isn't there."""
    found: list[_Source] = []
    if _INSTALLED.intersection(root.parts):
        return found
    for depth, name in enumerate(dotted):
        folder = root.joinpath(*dotted[:depth])
        package, module = folder / name / "__init__.py", folder / f"{name}.py"
        if package.is_file():
            found.append(_Source(package, root, dotted[: depth + 1]))
        elif module.is_file():
            return [*found, _Source(module, root, dotted[:depth])]
        elif not (folder / name).is_dir():  # a function, a class
            break
    return found


def _elsewhere(dotted: Dotted) -> list[_Source]:
    """The same where the interpreter finds it: in PYTHONPATH, or installed so that it is edited in place."""
    spec = _spec(dotted[0])
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        return [s for place in spec.submodule_search_locations for s in _own(dotted, Path(place).parent)]
    return _own(dotted, Path(spec.origin).parent) if spec.origin else []


def _spec(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):  # it is loaded, and doesn't tell from where
        return None


@cache
def _versions(name: str) -> Mapping[str, str]:
    """Versions of the packages that bring the module ``name``; of most the package has its name."""
    try:
        return {name: metadata.version(name)}
    except metadata.PackageNotFoundError:
        return {p: metadata.version(p) for p in sorted(set(_packages().get(name, ())))}


@cache
def _packages() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()
