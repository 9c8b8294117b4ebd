"""Runs a finished model in its own deployment; also the loader that MLflow calls."""

from __future__ import annotations

import difflib
import json
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autopilot.artifact import sha256_file
from autopilot.contracts import Array, Session
from autopilot.errors import BadInput, VariantFailed
from autopilot.recipe import Deployment

if TYPE_CHECKING:
    import pandas as pd

# numpy names under which a model's text inputs go.
_TEXT = ("str", "object", "string")


class Runner:
    """A loaded model: ``runner({"image": batch}) -> {"logits": array}``.

    ``inputs`` and ``outputs`` describe the tensors (``name``, ``dtype``, ``shape``), ``deployment``
    how it runs, ``variant`` is the whole of variant.json.
    """

    def __init__(self, session: Session, variant: Mapping[str, Any]) -> None:
        self._session = session
        self.variant = variant
        self.deployment = Deployment.from_json(variant["deployment"])
        self.inputs: tuple[Mapping[str, Any], ...] = tuple(variant["inputs"])
        self.outputs: tuple[Mapping[str, Any], ...] = tuple(variant["outputs"])
        self._constants = _constants(self.inputs, variant.get("preprocessing") or {})

    def __call__(self, feed: Mapping[str, Any]) -> dict[str, Array]:
        """All outputs by name.

        ``feed``: model inputs by name, as the model takes them (any mapping of stored arrays is
        done before). Arrays of a type that casts safely are cast; inputs that the spec gave as
        constants may be left out. Any batch size works where the model allows it.

        Raises:
            BadInput: an input is missing, unknown, of another type or of another shape.
            VariantFailed: the runtime failed on them.
        """
        given = {**self._constants, **self._known(feed)}
        missing = [t["name"] for t in self.inputs if t["name"] not in given]
        if missing:
            raise BadInput(f"input {missing[0]!r} is missing.", f"Give all of: {self._names()}.")
        arrays = {t["name"]: _fitting(t, given[t["name"]]) for t in self.inputs}
        return dict(zip(self._session.output_names, self._session.run(arrays), strict=True))

    def __repr__(self) -> str:
        d = self.deployment
        return f"<Runner {self.variant['name']}: {self._names()} on {d.provider}, {d.threads} thread(s)>"

    @property
    def required(self) -> tuple[str, ...]:
        """Names of the inputs that have no constant to fall back on."""
        return tuple(t["name"] for t in self.inputs if t["name"] not in self._constants)

    def _known(self, feed: Mapping[str, Any]) -> Mapping[str, Any]:
        if not isinstance(feed, Mapping):
            raise BadInput(
                f"a runner takes a mapping from input names to arrays, not {type(feed).__name__}.",
                f"Call it as runner({{{self.inputs[0]['name']!r}: array}})." if self.inputs else "",
            )
        known = [t["name"] for t in self.inputs]
        for name in feed:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1)
                hint = f"Did you mean {near[0]!r}?" if near else f"Its inputs are: {self._names()}."
                raise BadInput(f"the model has no input {name!r}.", hint)
        return feed

    def _names(self) -> str:
        return ", ".join(f"{t['name']} ({t['dtype']}, {_shape_text(t)})" for t in self.inputs)


def load(folder: Path | str, *, verify: bool = True) -> Runner:
    """The model of a ``best/`` or ``nearest/`` folder, loaded in the deployment it was measured in.

    ``verify`` compares the files with the digests in variant.json first. What the provider compiled and keeps in the
    cache stays there while the runner lives.

    Raises:
        BadInput: the folder isn't one of ours, or its files were changed.
        VariantFailed: this machine can't run the deployment (a provider that isn't installed).
    """
    from autopilot.cache.compiled import keeping
    from autopilot.plugins import providers

    folder = Path(folder)
    variant = _read_variant(folder)
    if verify:
        _verify(folder, variant)
    deployment = Deployment.from_json(variant["deployment"])
    provider = providers().get(deployment.provider)
    if provider is None:
        raise BadInput(
            f"{folder} was made for the provider {deployment.provider!r}, which this installation doesn't have.",
            f"It has: {', '.join(sorted(providers()))}. Install the package that brings it.",
        )
    try:
        with keeping() as keeper:
            session = provider.open(folder / variant["artifact"], deployment)
    except VariantFailed as exc:
        raise VariantFailed(exc.failure, f"{folder} can't be loaded: {exc.message}", exc.hint, exc.log) from exc
    runner = Runner(session, variant)
    weakref.finalize(runner, keeper.close)
    return runner


def _read_variant(folder: Path) -> dict[str, Any]:
    file = folder / "variant.json"
    hint = "Name a run's best/ or nearest/ folder, such as runs/NAME/best."
    if (folder / "best" / "variant.json").is_file() or (folder / "nearest" / "variant.json").is_file():
        inner = "best" if (folder / "best").is_dir() else "nearest"
        raise BadInput(f"{folder} is a run's folder, not a model's.", f"Load {folder / inner}.")
    try:
        variant = json.loads(file.read_text(encoding="utf-8"))
    except OSError as exc:
        raise BadInput(f"{file} can't be read: {exc.strerror}.", hint) from exc
    except ValueError as exc:
        raise BadInput(f"{file} is not valid JSON: {exc}.", hint) from exc
    wanted = {"name", "artifact", "deployment", "inputs", "outputs", "files"}
    if not isinstance(variant, dict) or not wanted <= variant.keys():
        raise BadInput(f"{file} is not a variant.json of autopilot.", hint)
    return variant


def _verify(folder: Path, variant: Mapping[str, Any]) -> None:
    for entry in variant["files"]:
        file = folder / entry["name"]
        if not file.is_file():
            raise BadInput(f"{file} is missing: the model's folder is not whole.", "Copy the folder again.")
        if sha256_file(file) != entry["sha256"]:
            raise BadInput(
                f"{file} is not the file that was measured: its sha256 differs from variant.json.",
                "Copy the folder again, or measure the changed model with `autopilot check`.",
            )


def _constants(inputs: Sequence[Mapping[str, Any]], preprocessing: Mapping[str, Any]) -> dict[str, Array]:
    """Inputs that the spec gave as constants, ready to feed."""
    found: dict[str, Array] = {}
    mapping: Mapping[str, Any] = preprocessing.get("inputs") or {}
    for tensor in inputs:
        spec = mapping.get(tensor["name"]) or {}
        if spec.get("constant") is not None:
            values = np.asarray(spec["constant"], dtype=tensor["dtype"])
            fixed = [d for d in tensor["shape"] if isinstance(d, int)]
            shape = spec.get("shape") or (values.shape if values.ndim else fixed)
            found[tensor["name"]] = np.array(
                np.broadcast_to(values, shape) if values.ndim == 0 else values.reshape(shape)
            )
    return found


def _fitting(tensor: Mapping[str, Any], value: Any) -> Array:
    """``value`` as the model takes it: a contiguous array of its type and of a shape that it allows."""
    array = _cast(tensor, value)
    wanted = tensor["shape"]
    fits = len(wanted) == array.ndim and all(
        not isinstance(w, int) or w == d for w, d in zip(wanted, array.shape, strict=True)
    )
    if not fits:
        hint = "A single sample becomes a batch of one as array[None]." if array.ndim == len(wanted) - 1 else ""
        what = f"input {tensor['name']!r} has shape {list(array.shape)}, the model takes {_shape_text(tensor)}."
        raise BadInput(what, hint)
    return np.ascontiguousarray(array) if array.ndim else array


def _cast(tensor: Mapping[str, Any], value: Any) -> Array:
    name, dtype = tensor["name"], tensor["dtype"]
    try:
        array = np.asarray(value)
    except ValueError as exc:
        raise BadInput(f"input {name!r} is no array: {exc}.", "Give rows of equal shape.") from exc
    if dtype in _TEXT or array.dtype == np.dtype(dtype):
        return array
    typed = isinstance(value, (np.ndarray, np.generic))
    # Python numbers carry no width of their own: they take the model's, if they fit it.
    allowed = np.can_cast(array.dtype, dtype, "safe" if typed else "same_kind") or (
        not typed and array.dtype.kind == "i" and _holds(array, np.dtype(dtype))
    )
    if not allowed:
        what = f"input {name!r} is {array.dtype}, the model takes {dtype}."
        raise BadInput(what, f"Convert it first: array.astype({dtype!r}).")
    return array.astype(dtype)


def _holds(array: Array, dtype: np.dtype[Any]) -> bool:
    return bool(dtype.kind in "iub" and np.array_equal(array.astype(dtype), array))


def _shape_text(tensor: Mapping[str, Any]) -> str:
    return "[" + ", ".join("?" if d is None else str(d) for d in tensor["shape"]) + "]"


class PyfuncModel:
    """What ``mlflow.pyfunc.load_model`` wraps: ``predict`` takes what MLflow hands over."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> dict[str, Array]:
        """All outputs by name, from a dict of arrays, a DataFrame (a column an input), or one array.

        ``params`` is MLflow's; the model has none.

        Raises:
            BadInput: what ``Runner`` refuses, or one array for a model of several inputs.
        """
        if isinstance(model_input, Mapping):
            return self.runner(model_input)
        if hasattr(model_input, "columns"):
            return self.runner(self._columns(model_input))
        required = self.runner.required
        if len(required) != 1:
            raise BadInput(
                f"the model has {len(required)} inputs ({', '.join(required)}); one array is not enough.",
                "Give a dict of arrays by input name.",
            )
        return self.runner({required[0]: model_input})

    def _columns(self, frame: pd.DataFrame) -> dict[str, Any]:
        """Each input from the column of its name; a frame without such a column is one input's table."""
        tensors = {t["name"]: t for t in self.runner.inputs}
        required = self.runner.required
        if len(required) == 1 and not set(tensors) & set(frame.columns):
            return {required[0]: frame.to_numpy().tolist()}
        return {str(c): _stacked(frame[c].tolist(), tensors.get(str(c))) for c in frame.columns}


def _stacked(rows: list[Any], tensor: Mapping[str, Any] | None) -> Any:
    """A column's rows as one array, or as a list where they are plain numbers (so that they take the model's type)."""
    if tensor is None:
        return rows
    if rows and isinstance(rows[0], np.ndarray):
        try:
            return np.stack(rows)
        except ValueError as exc:
            raise BadInput(f"column {tensor['name']!r} holds arrays of different shapes.", "Give equal ones.") from exc
    shape = tensor["shape"]
    if len(shape) == 2 and shape[1] in (1, None) and rows and not isinstance(rows[0], (list, tuple)):
        return [[row] for row in rows]
    return rows


def _load_pyfunc(data_path: str) -> PyfuncModel:
    """MLflow's entry point (``loader_module``): the model of the folder ``data_path``."""
    return PyfuncModel(load(data_path))
