"""Any frozen record (a Profile, with all that hangs on it) in one compressed npz file, and back, without loss.

The walk follows the dataclasses' own fields and annotations, so that a new field is carried without a
change here. Arrays become members of the file; everything else stands in a JSON header. A file written
by a later version is read as far as this one knows its fields; fields it lacks take their defaults.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import types
import zipfile
import zlib
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from autopilot.errors import BadInput
from autopilot.profile.packing import Array, pack, unpack

T = TypeVar("T")

# Raised when a file written anew could no longer be read by an older version.
FORMAT = 1
_HEADER = "header"
_DAMAGED = (OSError, EOFError, KeyError, TypeError, ValueError, AttributeError, zipfile.BadZipFile, zlib.error)


def save_record(path: Path, record: Any) -> None:
    """Write ``record``, a dataclass instance, to ``path``; the file appears whole or not at all.

    Raises:
        TypeError: a field holds what no record may hold (an open file, an array of objects).
    """
    content = record_bytes(record)
    scratch = path.with_name(f".{path.name}.part")
    scratch.write_bytes(content)
    os.replace(scratch, path)


def record_bytes(record: Any) -> bytes:
    """The file that ``save_record`` writes.

    Raises:
        TypeError: see ``save_record``.
    """
    arrays: dict[str, Array] = {}
    tree = _encode(record, "", arrays)
    header = json.dumps({"format": FORMAT, "record": tree}, ensure_ascii=False, allow_nan=False)
    arrays[_HEADER] = np.frombuffer(header.encode(), dtype=np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def load_record(path: Path | io.BytesIO, kind: type[T]) -> T:
    """The record of class ``kind`` that ``save_record`` wrote to ``path`` (or its bytes). Nothing is unpickled.

    Raises:
        BadInput: there is no such file, it is damaged, or it holds something else.
    """
    hint = "Name a file that autopilot wrote: check --samples FILE, or .autopilot/samples/ of a run's folder."
    try:
        with np.load(path, allow_pickle=False) as members:
            if _HEADER not in members.files:
                raise BadInput(f"{path} holds no readings that can be recomputed (no header).", hint)
            header = json.loads(members[_HEADER].tobytes().decode())
            if header["format"] > FORMAT:
                raise BadInput(f"{path} was written by a later version (format {header['format']}).", "Update.")
            arrays = {name: members[name] for name in members.files if name != _HEADER}
        value: T = _Decoder(arrays).decode(header["record"], kind)
    except _DAMAGED as exc:
        raise BadInput(f"{path} can't be read as readings ({type(exc).__name__}: {exc}).", hint) from exc
    return value


# ---- writing ---------------------------------------------------------------------------------------


def _encode(value: Any, where: str, arrays: dict[str, Array]) -> Any:
    """``value`` as JSON can hold it; arrays are put into ``arrays`` under the path ``where``.

    Plain JSON values stand for themselves and a JSON list for a tuple; all else is an object with
    one marked key.
    """
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.ndarray):
        stored, note = pack(value, where)
        arrays[where] = stored
        return {"$array": where, **note}
    if isinstance(value, (tuple, list, set, frozenset)):
        items = [_encode(v, f"{where}.{i}", arrays) for i, v in enumerate(_in_order(value))]
        return items if isinstance(value, tuple) else {f"${type(value).__name__}": items}
    if isinstance(value, Mapping):
        pairs = enumerate(value.items())
        return {"$map": [[_encode(k, "", arrays), _encode(v, f"{where}.{i}", arrays)] for i, (k, v) in pairs]}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        dot = f"{where}." if where else ""
        known = [f for f in dataclasses.fields(value) if f.init]
        fields = {f.name: _encode(getattr(value, f.name), dot + f.name, arrays) for f in known}
        return {"$type": type(value).__name__, "fields": fields}
    raise TypeError(f"{where or 'the record'}: {type(value).__name__} can't be stored; use numbers, text or arrays")


def _in_order(value: Any) -> Any:
    return sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value


# ---- reading ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class _Decoder:
    """Header nodes back to values; annotations say which class a node is."""

    arrays: Mapping[str, Array]

    def decode(self, node: Any, hint: Any) -> Any:
        if isinstance(node, list):
            return tuple(self._items(node, hint))
        if not isinstance(node, dict):
            return _scalar(node, hint)
        kind = next(key for key in node if key.startswith("$"))
        if kind == "$type":
            return self._record(node, hint)
        if kind == "$array":
            return unpack(self.arrays[node["$array"]], node)
        if kind == "$float":
            return float(node["$float"])
        if kind == "$map":
            key, value = _inner(hint, dict, Mapping) or (Any, Any)
            return {self.decode(k, key): self.decode(v, value) for k, v in node["$map"]}
        made = {"$list": list, "$set": set, "$frozenset": frozenset}[kind]
        return made(self._items(node[kind], hint))

    def _items(self, nodes: list[Any], hint: Any) -> list[Any]:
        hints = _inner(hint, tuple, list, set, frozenset)
        if not hints:
            hints = (Any,)
        if len(hints) != len(nodes) or hints[-1] is Ellipsis:
            hints = (hints[0],) * len(nodes)
        return [self.decode(n, h) for n, h in zip(nodes, hints, strict=True)]

    def _record(self, node: Mapping[str, Any], hint: Any) -> Any:
        name = node["$type"]
        cls = next((c for c in _classes(hint) if c.__name__ == name), None)
        if cls is None:
            raise ValueError(f"a record {name} where {hint} is expected")
        hints = get_type_hints(cls)
        known = [f.name for f in dataclasses.fields(cls) if f.init and f.name in node["fields"]]
        return cls(**{n: self.decode(node["fields"][n], hints[n]) for n in known})


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """The members of a union; else the hint alone."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _classes(hint: Any) -> list[type[Any]]:
    """The dataclasses that a value of ``hint`` may be of, subclasses included."""
    found: list[type[Any]] = []
    todo = [h for h in _alternatives(hint) if isinstance(h, type) and get_origin(h) is None]
    while todo:
        cls = todo.pop()
        if dataclasses.is_dataclass(cls):
            found.append(cls)
        todo += [] if cls is object else type.__subclasses__(cls)
    return found


def _inner(hint: Any, *containers: Any) -> tuple[Any, ...]:
    """What the annotation says is inside of one of ``containers``; nothing where it says nothing."""
    return next((get_args(h) for h in _alternatives(hint) if get_origin(h) in containers), ())


def _scalar(node: Any, hint: Any) -> Any:
    for one in _alternatives(hint):
        if isinstance(one, type) and issubclass(one, Enum) and node is not None:
            return one(node)
    return node
