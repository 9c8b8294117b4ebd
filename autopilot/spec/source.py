"""The spec's text: YAML read safely, with the line of every key."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from autopilot.errors import SpecError

KeyPath = tuple[str | int, ...]

# A spec is a page of text. More is another file given by mistake, or one made to exhaust memory.
MAX_BYTES = 1 << 20
MAX_NODES = 20_000
MAX_DEPTH = 50
STARTER = "autopilot init MODEL writes a starter spec."


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, but dates stay text and 1e-3 is a number, as everybody expects."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - the base class's own attribute
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


@dataclass(frozen=True, slots=True)
class Source:
    """A spec as loaded: ``raw`` holds nothing that JSON couldn't, ``lines`` where each key stands."""

    name: str
    raw: dict[str, Any]
    lines: Mapping[KeyPath, int] = field(default_factory=dict)

    def line(self, path: KeyPath) -> int:
        """The line of ``path``, or of the nearest key around it; 0 where lines aren't known."""
        known = (self.lines[path[:end]] for end in range(len(path), -1, -1) if path[:end] in self.lines)
        return next(known, 0)

    def where(self, path: KeyPath) -> str:
        """``FILE:LINE``, or the name alone where lines aren't known."""
        line = self.line(path)
        return f"{self.name}:{line}" if line else self.name

    def error(self, path: KeyPath, message: str, hint: str = "") -> SpecError:
        """A SpecError that starts with file and line."""
        return SpecError(f"{self.where(path)}: {message.rstrip('.')}.", hint)


def dotted(path: KeyPath) -> str:
    """``data.inputs.image`` for people."""
    return ".".join(str(p) for p in path)


def nearest(word: object, words: Iterable[str]) -> str:
    """A hint naming the closest of ``words``, else listing them.

    >>> nearest("latncy_p50_ms", ["latency_p50_ms", "size_mb"])
    "Did you mean 'latency_p50_ms'?"
    """
    known = sorted(words)
    asked = str(word).lower()
    by_case = {k.lower(): k for k in known}
    close = difflib.get_close_matches(asked, by_case, n=4, cutoff=0.55)
    if not close:
        return f"There are: {', '.join(known)}." if known else ""

    def likeness(candidate: str) -> tuple[float, int]:
        # Equally similar words (p5O: p50 or p95?) are told apart by the letters in place.
        in_place = sum(a == b for a, b in zip(asked, candidate, strict=False))
        return difflib.SequenceMatcher(None, asked, candidate).ratio(), in_place

    return f"Did you mean {by_case[max(close, key=likeness)]!r}?"


def short(value: object) -> str:
    """``value`` for a message, cut to a readable length."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def mapping_source(raw: Mapping[str, Any], name: str) -> Source:
    """A spec that never was a file.

    Raises:
        SpecError: it is no mapping, or holds something that YAML couldn't say.
    """
    if not isinstance(raw, Mapping):
        raise SpecError(f"{name}: a spec is a mapping of keys to values, not {short(raw)}.", STARTER)
    source = Source(name, {})
    return Source(name, _plain(source, (), raw))


def read_source(path: Path) -> Source:
    """The spec file ``path``.

    Raises:
        SpecError: missing, unreadable, not text, not YAML, not a mapping, or with keys given twice.
    """
    text = _read_text(path)
    try:
        lines, raw = _load(str(path), text)
        source = Source(str(path), {}, lines)
        return Source(source.name, _plain(source, (), raw), lines)
    except yaml.YAMLError as exc:
        raise _yaml_error(path, exc) from exc
    except RecursionError as exc:
        raise SpecError(f"{path}: is nested too deeply for a spec.", STARTER) from exc
    except (ValueError, KeyError, AttributeError, TypeError, OverflowError) as exc:
        # What PyYAML lets through for values that contradict an explicit tag, such as "!!int x".
        message = f"{path}: holds a value that YAML can't read ({short(str(exc))})."
        raise SpecError(message, "Remove tags (!!...).") from exc


def _load(name: str, text: str) -> tuple[Mapping[KeyPath, int], Any]:
    """Lines by key, and the value, of one YAML document."""
    loader = _Loader(text)
    root = loader.get_single_node()
    if root is None:
        raise SpecError(f"{name}: the file is empty.", STARTER)
    if not isinstance(root, yaml.MappingNode):
        kind = "a list" if isinstance(root, yaml.SequenceNode) else "one value"
        raise SpecError(f"{name}:1: a spec is a mapping of keys to values, but this file holds {kind}.", STARTER)
    lines = _Lines(name)
    lines.walk(root, (), frozenset())
    return lines.found, loader.construct_document(root)


def _read_text(path: Path) -> str:
    if path.is_dir():
        raise SpecError(f"{path} is a folder; the spec is one YAML file.", STARTER)
    try:
        with path.open("rb") as f:
            content = f.read(MAX_BYTES + 1)
    except FileNotFoundError as exc:
        raise SpecError(f"spec file {path} does not exist.", STARTER) from exc
    except (OSError, ValueError) as exc:
        reason = (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
        raise SpecError(f"spec file {path} can't be read: {reason}.") from exc
    if len(content) > MAX_BYTES:
        raise SpecError(
            f"{path} is larger than 1 MiB: that is no spec.",
            "The order is: autopilot run SPEC, autopilot check MODEL SPEC.",
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise SpecError(f"{path}:{line}: is not UTF-8 text.", "SPEC is a YAML file; the model is named in it.") from exc


def _yaml_error(path: Path, exc: yaml.YAMLError) -> SpecError:
    mark = getattr(exc, "problem_mark", None) or getattr(exc, "context_mark", None)
    where = f"{path}:{mark.line + 1}" if mark is not None else str(path)
    problem = str(getattr(exc, "problem", None) or getattr(exc, "reason", None) or "unreadable")
    hint = "Check the indentation and the colons on this line and the one before."
    if "\\t" in problem:
        hint = "YAML is indented with spaces, never with tabs."
    elif "expected a single document" in str(exc):
        hint = "A spec is one document: remove the line '---' between two of them."
    elif "could not determine a constructor" in problem:
        hint = "Tags (!...) are not used in specs; write plain values."
    return SpecError(f"{where}: is not valid YAML: {problem}.", hint)


class _Lines:
    """Lines of all keys, found on the way through the YAML nodes; refuses what a spec never needs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.found: dict[KeyPath, int] = {}
        self.count = 0

    def walk(self, node: yaml.Node, path: KeyPath, above: frozenset[int]) -> None:
        """Note the lines under ``node``; ``above`` are the nodes it stands in, against self-reference."""
        line = node.start_mark.line + 1
        self.found.setdefault(path, line)
        self.count += 1
        if id(node) in above or self.count > MAX_NODES or len(path) > MAX_DEPTH:
            raise SpecError(f"{self.name}:{line}: this is nested too deeply or too large for a spec.", STARTER)
        inside = above | {id(node)}
        if isinstance(node, yaml.SequenceNode):
            for i, item in enumerate(node.value):
                self.walk(item, (*path, i), inside)
        elif isinstance(node, yaml.MappingNode):
            self._mapping(node, path, inside)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath, inside: frozenset[int]) -> None:
        first: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # refused by the constructor or as a key that is no text
            line = key.start_mark.line + 1
            if key.tag == "tag:yaml.org,2002:merge":
                self.walk(value, path, inside)
                continue
            if key.value in first:
                message = (
                    f"{self.name}:{line}: the key {key.value!r} is given twice (first on line {first[key.value]})."
                )
                raise SpecError(message, "Keep one of them.")
            first[key.value] = line
            self.found[(*path, key.value)] = line
            self.walk(value, (*path, key.value), inside)


def _plain(source: Source, path: KeyPath, value: Any) -> Any:
    """``value`` as plain dict, list and scalars.

    Raises:
        SpecError: a key that is no text, a number that is not finite, or a kind that JSON hasn't.
    """
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise source.error((*path, str(key)), f"the key {short(key)} is not text", "Put it in quotes.")
        return {key: _plain(source, (*path, key), item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(source, (*path, i), item) for i, item in enumerate(value)]
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, Path):
        return str(value)
    at = dotted(path) or "the spec"
    raise source.error(
        path, f"{at} is {short(value)}, which has no meaning in a spec", "Write text or a finite number."
    )
