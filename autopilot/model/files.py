"""The files of a model: parsed without their external data, which is checked before anything reads it."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING

from autopilot.errors import ModelError
from autopilot.model.graph import tensors

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

_MAKE_WHOLE = "Export the model again, or copy all of its files into one folder."

_PROTOBUF_LIMIT = 1 << 31
# Element types that share bytes, by their width in bits.
_PACKED_BITS = {4: ("UINT4", "INT4", "FLOAT4E2M1"), 2: ("UINT2", "INT2")}


def parse(path: Path) -> ModelProto:
    """The model as written in ``path``; external data stays unread.

    Raises:
        ModelError: the file is missing, is no ONNX model or is cut short.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    if not path.exists():
        raise ModelError(f"{path}: there is no such model file.", "Check model: in the spec; paths are relative to it.")
    if not path.is_file():
        raise ModelError(f"{path}: is a folder, not a model file.", "Name the .onnx file inside it.")
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise ModelError(f"{path}: can't be read ({exc.strerror}).", "Check the file's permissions.") from exc
    if not data:
        raise ModelError(f"{path}: is empty (0 bytes).", _MAKE_WHOLE)
    if len(data) >= _PROTOBUF_LIMIT:
        hint = "Save it with its weights as external data (onnx.save_model(..., save_as_external_data=True))."
        raise ModelError(f"{path}: has {len(data)} bytes, one ONNX file holds less than 2 GiB.", hint)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as exc:
        if "alloc" in str(exc):  # "Arena alloc failed": the file may be good
            raise MemoryError(str(exc)) from exc
        reason = "is not an ONNX model, or is cut short: its bytes don't parse"
        raise ModelError(f"{path}: {reason} ({len(data)} bytes).", _MAKE_WHOLE) from exc
    if not model.HasField("graph") or not model.opset_import or not (model.graph.node or model.graph.output):
        # Protobuf skips unknown fields, so that arbitrary bytes sometimes parse as an empty model.
        raise ModelError(f"{path}: is not an ONNX model: it holds no graph or no opset.", _MAKE_WHOLE)
    return model


def external_files(model: ModelProto, path: Path) -> tuple[Path, ...]:
    """The external-data files of a parsed model, in order of first use, checked but not read.

    Raises:
        ModelError: a location outside the model's folder (absolute, ``..``, a symlink that leaves
            it), a file that is missing, or a piece that ends behind the file's end.
    """
    found: dict[str, Path] = {}
    for tensor in tensors(model):
        if tensor.data_location == tensor.EXTERNAL:
            entries = {e.key: e.value for e in tensor.external_data}
            location = entries.get("location", "")
            if location not in found:
                found[location] = _inside(path, location, tensor.name)
            _fits(path, found[location], tensor, entries)
        else:
            _holds_data(path, tensor)
    return tuple(found.values())


def _inside(path: Path, location: str, tensor: str) -> Path:
    where = f"{path}: the external data of {tensor!r}"
    relative = Path(location)
    windows = PureWindowsPath(location)
    if not location or relative.is_absolute() or windows.drive or windows.root or ".." in windows.parts:
        raise ModelError(f"{where} is at {location!r}, outside the model's folder.", _MAKE_WHOLE)
    folder, file = path.parent.resolve(), path.parent / relative
    try:
        real = file.resolve(strict=True)
    except (OSError, RuntimeError) as exc:
        raise ModelError(f"{where} is missing: there is no file {location!r} beside it.", _MAKE_WHOLE) from exc
    if not real.is_relative_to(folder):
        raise ModelError(f"{where} is a link, {location!r}, that leaves the model's folder.", _MAKE_WHOLE)
    if not real.is_file():
        raise ModelError(f"{where}: {location!r} is not a regular file.", _MAKE_WHOLE)
    return file


def _fits(path: Path, file: Path, tensor: TensorProto, entries: dict[str, str]) -> None:
    size = file.stat().st_size
    where = f"{path}: the external data of {tensor.name!r} in {file.name!r}"
    try:
        offset = int(entries.get("offset", "0"))
        length = int(entries["length"]) if "length" in entries else size - offset
    except ValueError as exc:
        raise ModelError(f"{where} has an offset or length that is no number.", _MAKE_WHOLE) from exc
    if offset < 0 or length < 0 or offset + length > size:
        raise ModelError(f"{where} should span bytes {offset}..{offset + length}, the file has {size}.", _MAKE_WHOLE)
    wanted = expected_bytes(tensor)
    if wanted is not None and length < wanted:
        raise ModelError(f"{where} has {length} bytes, its shape and type need {wanted}.", _MAKE_WHOLE)


def _holds_data(path: Path, tensor: TensorProto) -> None:
    wanted = expected_bytes(tensor)
    if wanted is None:
        return
    raw = len(tensor.raw_data)
    typed = any(
        len(getattr(tensor, name))
        for name in ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
    )
    if wanted and raw != wanted and not typed:
        what = f"holds {raw} bytes, its shape and type need {wanted}"
        raise ModelError(f"{path}: the model is cut short or damaged: tensor {tensor.name!r} {what}.", _MAKE_WHOLE)


def expected_bytes(tensor: TensorProto) -> int | None:
    """Bytes a tensor's shape and type need; None for strings and types this onnx doesn't know."""
    from onnx import TensorProto, helper

    if tensor.data_type not in TensorProto.DataType.values():
        return None
    count = 1
    for d in tensor.dims:
        count *= max(int(d), 0)
    if tensor.data_type == tensor.STRING:
        return None
    bits = next((b for b, types in _PACKED_BITS.items() if TensorProto.DataType.Name(tensor.data_type) in types), None)
    if bits is not None:
        return (count * bits + 7) // 8
    try:
        return count * int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    except (KeyError, ValueError):
        return None
