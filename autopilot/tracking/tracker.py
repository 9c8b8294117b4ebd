"""Tracker: one parent run a study, one nested run a trial."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from autopilot.budget import Budget
from autopilot.contracts import Array
from autopilot.errors import AutopilotError
from autopilot.recipe import Variant, canonical
from autopilot.result import MlflowRef, StudyResult, TrialRecord, places, trials_csv
from autopilot.result.jsonable import plain
from autopilot.temporary import temporary_folder
from autopilot.tracking import fields
from autopilot.tracking.champion import Champion, Ruling, champion_of, crown
from autopilot.tracking.experiment import open_experiment, open_run, parent_name, start_tags
from autopilot.tracking.history import Goal
from autopilot.tracking.registry import Entry, log_model, place_fallbacks, register, registered_version
from autopilot.tracking.store import Store, translated
from autopilot.tracking.trial_runs import TrialRuns, log
from autopilot.tracking.views import VIEW_TAG, view_state

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

# After a failure the store is left alone for so long; what was missed is caught up on later.
COOL_DOWN_S = 60.0
UNOPPOSED = Ruling(True, "no champion to compare with")


class Tracker:
    """Logs one study; made by ``Tracker.start``.

    A trial is known by its number: logging it again changes nothing, or updates its run where the
    record has changed (a finalist that was verified). MLflow's own global state is as before afterwards.
    As a context manager it marks a run that didn't finish as KILLED; it can be resumed all the same.
    """

    def __init__(
        self, client: MlflowClient, store: Store, *, name: str, experiment_id: str, trials: TrialRuns, run_id: str
    ) -> None:
        self.name = name
        self.run_id = run_id
        self.store = store
        self._spec_sha256 = ""
        self._client = client
        self._experiment_id = experiment_id
        self._trials = trials
        self._retry_at = 0.0
        self._finished = False

    @classmethod
    def start(
        cls,
        name: str,
        *,
        spec_text: str,
        budget: Budget,
        environment: Mapping[str, Any],
        goals: Sequence[Goal] = (),
        run_id: str | None = None,
        store: Store | None = None,
        naming: Callable[[Variant], str] = fields.full_text,
    ) -> Tracker:
        """Open or make the experiment ``name`` and its parent run.

        ``goals`` are the objectives: the parent run's charts show how they improve, trial by trial.
        ``run_id`` is the run of an interrupted study: it is opened again, and its trials are known.
        Where the store has no such run (any more), a new one is made. ``naming`` says what a trial's run is called,
        after its number: what tells it from others, at best.

        Raises:
            AutopilotError: the store can't be reached or opened.
        """
        store = store or Store.current()
        client = store.client()
        spec_sha256 = hashlib.sha256(spec_text.encode()).hexdigest()
        with translated(f"opening the experiment {name!r}"):
            run = open_run(client, run_id)
            known = run is not None
            if run is None:
                experiment_id = open_experiment(client, store, name)
                run = client.create_run(
                    experiment_id, run_name=parent_name(name), tags=start_tags(environment, spec_sha256)
                )
            info = run.info
            at = {"experiment_id": info.experiment_id, "run_id": info.run_id}
            tracker = cls(client, store, name=name, trials=TrialRuns(client, goals=goals, naming=naming, **at), **at)
            tracker._spec_sha256 = spec_sha256
            client.set_experiment_tag(info.experiment_id, VIEW_TAG, view_state(goals, budget.axes, info.run_id))
            if known:
                tracker._trials.recall()
            else:
                log(client, tracker.run_id, params={f"budget.{limit.axis}": limit.text for limit in budget.limits})
                client.log_text(tracker.run_id, spec_text, "spec.yaml")
                client.log_text(tracker.run_id, canonical(budget.to_json()), "budget.json")
                client.log_text(tracker.run_id, canonical(plain(environment)), "environment.json")
        return tracker

    def remember(self, records: Sequence[TrialRecord]) -> None:
        """Know trials that were logged before (by an interrupted run): the charts go on from there."""
        self._trials.remember(records)

    def log_trial(self, record: TrialRecord) -> None:
        """Log a trial as a nested run, or update the run that it has.

        After a failure the store is left alone for a minute and nothing is raised meanwhile; what
        was missed is logged with a later trial, at the latest by ``finish``.

        Raises:
            AutopilotError: MLflow failed; the record is kept for later.
        """
        self._trials.add([record])
        if time.monotonic() >= self._retry_at:
            self._flush()

    def champion(self, result: StudyResult) -> Champion | None:
        """The version that is champion under the study's name now, if any.

        Raises:
            AutopilotError: MLflow failed.
        """
        with translated(f"looking up the champion of {result.registered_name!r}"):
            return champion_of(self._client, result.registered_name)

    def fetch(self, champion: Champion, folder: Path) -> Path:
        """A champion's bundle as a folder under ``folder``.

        Raises:
            BadInput: its files are gone, or hold no ONNX model.
        """
        return champion.fetch(self._client, self.store, folder)

    def finish(
        self,
        result: StudyResult,
        out: Path,
        best: Path | None = None,
        *,
        ruling: Ruling = UNOPPOSED,
        example: Mapping[str, Array] | None = None,
    ) -> MlflowRef:
        """Log the result and its files and end the parent run; where all of it is to be found.

        ``out`` is the run folder (``report.html`` is taken along where it exists). ``best``, the
        folder of a winner, is logged as a model with signature and registered under the study's
        name. In budget, and where the ``ruling`` says so, it gets the alias ``champion`` and the one before
        becomes ``previous``, and its fallbacks are registered as ``fallback-1``, ``fallback-2``, ….
        ``example``: one request's inputs by name, kept with the model.

        Raises:
            AutopilotError: MLflow failed.
        """
        self._trials.add(result.trials)
        self._flush()
        with translated(f"logging the study {self.name!r}"):
            self._trials.place(places(result))
            ref = MlflowRef(self.store.shown, self.name, self.run_id)
            metrics = fields.study_metrics(result)
            model_id = None
            if best is not None and result.chosen is not None:
                model_id, version = self._register(Entry(result, best, None, self._spec_sha256, example))
                ref = replace(ref, model=result.registered_name, version=version)
                if result.best is not None:
                    ref = self._rule(result, out, ref, ruling)
            log(self._client, self.run_id, metrics=metrics, tags=fields.study_tags(result), model_id=model_id)
            self._log_files(replace(result, mlflow=ref), out)
            self._client.set_terminated(self.run_id, "FINISHED")
        self.store.settle()
        self._finished = True
        return ref

    def _rule(self, result: StudyResult, out: Path, ref: MlflowRef, ruling: Ruling) -> MlflowRef:
        """Move the aliases, or leave them, as was ruled; why stands in the version's tags."""
        assert ref.version is not None
        name = result.registered_name
        said = ("crowned: " if ruling.crown else "not champion: ") + ruling.reason
        self._client.set_model_version_tag(name, str(ref.version), "champion", fields.cut(said))
        if ruling.crown:
            crown(self._client, name, ref.version, keeps_previous=ruling.keeps_previous)
            ref = replace(ref, fallbacks=self._register_fallbacks(result, out))
        return replace(ref, champion=ruling.crown, ruling=ruling.reason)

    def _register(self, entry: Entry) -> tuple[str | None, int]:
        """The logged model of an entry (None where this run had it registered before) and its version."""
        version = registered_version(self._client, self.run_id, entry)
        if version is not None:
            return None, version
        model_id = log_model(self._client, self._experiment_id, self.run_id, entry)
        return model_id, register(self._client, self.run_id, model_id, entry)

    def _register_fallbacks(self, result: StudyResult, out: Path) -> tuple[int, ...]:
        """Versions of the ladder below a winner, under their aliases."""
        places = range(1, len(result.fallbacks) + 1)
        versions = [
            self._register(Entry(result, out / "fallbacks" / str(place), place, self._spec_sha256))[1]
            for place in places
        ]
        place_fallbacks(self._client, result.registered_name, versions)
        return tuple(versions)

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._finished and time.monotonic() >= self._retry_at:
            with translated("marking the run as stopped"):
                self._client.set_terminated(self.run_id, "KILLED")

    def _flush(self) -> None:
        try:
            with translated(f"logging trials of {self.name!r}"):
                self._trials.write()
        except AutopilotError:
            self._retry_at = time.monotonic() + COOL_DOWN_S
            raise
        self._retry_at = 0.0

    def _log_files(self, result: StudyResult, out: Path) -> None:
        with temporary_folder("mlflow") as folder:
            (folder / "result.json").write_text(result.text(), encoding="utf-8")
            (folder / "trials.csv").write_text(trials_csv(result), encoding="utf-8")
            operators = fields.operator_table(result)
            if operators["data"]:
                (folder / "operators.json").write_text(canonical(operators), encoding="utf-8")
            self._client.log_artifacts(self.run_id, str(folder))
        if (out / "report.html").is_file():
            self._client.log_artifact(self.run_id, str(out / "report.html"))
        for name in ("best", "nearest", "fallbacks"):
            if (out / name).is_dir():
                self._client.log_artifacts(self.run_id, str(out / name), name)
