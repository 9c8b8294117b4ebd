"""Reading back from MLflow: a study's result, and the ONNX file behind a model URI."""

from __future__ import annotations

import json
import shutil
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from autopilot.errors import AutopilotError, BadInput
from autopilot.temporary import temporary_folder
from autopilot.tracking.store import Store, global_store, translated

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_FORMS = "Write models:/NAME@ALIAS, models:/NAME/VERSION or runs:/RUN/PATH."


def load_result(run_id: str) -> dict[str, Any]:
    """The result.json that the study of run ``run_id`` logged.

    Raises:
        BadInput: there is no such run, or it holds no result.
    """
    client, store = _open(f"the run {run_id!r}")
    with temporary_folder("mlflow") as scratch:
        try:
            with translated(f"reading result.json of the run {run_id!r}"):
                path = client.download_artifacts(run_id, "result.json", str(scratch))
            value: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        except (AutopilotError, ValueError) as exc:
            raise BadInput(
                f"the run {run_id!r} in {store.shown} has no result.json that can be read.",
                "Give a study's parent run, or the folder of a run; a study that was interrupted has none yet.",
            ) from exc
    return value


def resolve_model(uri: str, target_folder: Path) -> Path:
    """The main ONNX file behind ``models:/NAME@ALIAS``, ``models:/NAME/VERSION`` or ``runs:/RUN/PATH``.

    The files are copied into ``target_folder``, external data included; what was there goes.

    Raises:
        BadInput: no such model, version, run or path, or not exactly one ONNX model in it.
    """
    kind, _, rest = uri.partition(":/")
    if kind not in ("models", "runs") or not rest.strip("/"):
        raise BadInput(f"{uri!r} names no model in MLflow.", _FORMS)
    client, store = _open(uri)
    return fetch_model(client, store, uri, target_folder)


def fetch_model(client: MlflowClient, store: Store, uri: str, target_folder: Path) -> Path:
    """The same from a store that is open.

    Raises:
        BadInput: no such model, version, run or path, or not exactly one ONNX model in it.
    """
    kind, _, rest = uri.partition(":/")
    shutil.rmtree(target_folder, ignore_errors=True)
    target_folder.mkdir(parents=True)
    single = kind == "runs" and rest.endswith(".onnx")
    try:
        with translated(f"fetching {uri}"):
            got = _download(client, store, uri, target_folder)
    except AutopilotError as exc:
        raise BadInput(f"{uri} is not to be found in {store.shown}: {_reason(exc)}.", _FORMS) from exc
    return _named(got, PurePosixPath(rest).name, uri) if single else _only_model(got, uri)


def _download(client: MlflowClient, store: Store, uri: str, target: Path) -> Path:
    """What ``uri`` names as a local file or folder; for an ONNX file of a run the folder it lies in.

    An ONNX file may have its weights beside it, so the file alone is not enough.
    """
    from mlflow.artifacts import download_artifacts

    kind, _, rest = uri.partition(":/")
    if kind == "runs" and rest.endswith(".onnx"):
        folder = PurePosixPath(rest.lstrip("/")).parent
        if len(folder.parts) < 2:
            return Path(client.download_artifacts(str(folder), "", str(target)))
        uri = f"runs:/{folder}"
    with global_store(store.uri):
        return Path(download_artifacts(artifact_uri=uri, dst_path=str(target)))


def _open(what: str) -> tuple[MlflowClient, Store]:
    store = Store.current()
    if store.database is not None and not store.database.is_file():
        raise BadInput(
            f"{what} can't be looked up: there is no MLflow store {store.shown} (looked at {store.database}).",
            "Go to the folder the study ran in, or set MLFLOW_TRACKING_URI.",
        )
    return store.client(create=False), store


def _reason(exc: AutopilotError) -> str:
    return exc.message.partition(" failed: ")[2].rstrip(".") or exc.message


def _named(folder: Path, name: str, uri: str) -> Path:
    file = folder / name
    if not file.is_file():
        raise BadInput(f"{uri}: there is no {name} in that folder of the run.", _FORMS)
    return file


def _only_model(got: Path, uri: str) -> Path:
    """The one ONNX file of a model folder; ``model.onnx`` nearest to the top where there are several."""
    if got.is_file():
        if got.suffix != ".onnx":
            raise BadInput(f"{uri} is {got.name}, not an ONNX file.", _FORMS)
        return got
    found = sorted(got.rglob("*.onnx"), key=lambda p: (p.name != "model.onnx", len(p.parts), p))
    if not found:
        raise BadInput(f"{uri} holds no ONNX file.", "Name a model that was logged with an .onnx file in it.")
    equal = [p for p in found if (p.name, len(p.parts)) == (found[0].name, len(found[0].parts))]
    if len(equal) > 1 or (len(found) > 1 and found[0].name != "model.onnx"):
        names = ", ".join(str(p.relative_to(got)) for p in found[:5])
        raise BadInput(f"{uri} holds several ONNX files ({names}).", "Name one: runs:/RUN/PATH/FILE.onnx.")
    return found[0]
