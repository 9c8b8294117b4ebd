"""The trials of a study as nested runs of its parent run, and as points of the parent's charts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from autopilot.result import TrialRecord, TrialState
from autopilot.tracking import fields
from autopilot.tracking.experiment import source_tags
from autopilot.tracking.history import MARKER, Course, Goal

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

    from autopilot.recipe import Variant

# MLflow takes at most 1000 metrics at once.
_BATCH = 1000


class TrialRuns:
    """Writes the trials of the parent run ``run_id``; what couldn't be written waits for the next time.

    A trial is known by its number: writing it again changes nothing, or updates its run where the record has changed.
    """

    def __init__(
        self,
        client: MlflowClient,
        *,
        experiment_id: str,
        run_id: str,
        goals: Sequence[Goal],
        naming: Callable[[Variant], str] = fields.full_text,
    ) -> None:
        self.client = client
        self._experiment_id = experiment_id
        self._run_id = run_id
        self._course = Course(tuple(goals))
        self._points: dict[int, Mapping[str, float]] = {}  # of trials; not logged yet
        self._pointed: frozenset[int] = frozenset()  # trials whose points an earlier process logged
        self._runs: dict[int, tuple[str, str]] = {}  # trial number -> run id, digest of what it holds
        self._pending: dict[int, TrialRecord] = {}
        self._places: dict[int, str] = {}
        self._naming = naming

    def remember(self, records: Sequence[TrialRecord]) -> None:
        """Know trials that were written before: the charts go on from there."""
        self._points |= self._course.add(records)

    def add(self, records: Sequence[TrialRecord]) -> None:
        """Have ``records`` written the next time."""
        for record in records:
            self._pending[record.number] = record
        self.remember(records)

    def write(self) -> None:
        """Write all that waits; what MLflow raises leaves the rest waiting."""
        for number in sorted(self._pending):
            self._write_trial(self._pending[number])
            del self._pending[number]
        self._log_points()

    def place(self, places: Mapping[int, str]) -> None:
        """Tag each trial with its place in the result; a place of an earlier result that is no more is taken away."""
        for number, (run_id, _) in self._runs.items():
            now, before = places.get(number, ""), self._places.get(number, "")
            if before == fields.WINNER != now:
                self._star(run_id, wins=False)  # before its tag goes: cut off here, the next time still knows of it
            if now and now != before:
                self.client.set_tag(run_id, fields.PLACE_TAG, now)
            elif before and not now:
                self.client.delete_tag(run_id, fields.PLACE_TAG)
            if now == fields.WINNER:
                self._star(run_id, wins=True)
        self._places = dict(places)

    def _star(self, run_id: str, *, wins: bool) -> None:
        """Put the winner's star into a run's name, or take it out: the table shows tags far to the right."""
        before = self.client.get_run(run_id).info.run_name
        if (name := fields.starred(before, wins=wins)) != before:
            self.client.update_run(run_id, name=name)

    def recall(self) -> None:
        """Learn which trials and points the parent run holds already, half-written ones included."""
        token: str | None = None
        while True:
            found = self.client.search_runs(
                [self._experiment_id],
                f"tags.`mlflow.parentRunId` = '{self._run_id}'",
                max_results=1000,
                page_token=token,
            )
            for run in found:
                tags = run.data.tags
                if fields.NUMBER_TAG in tags:
                    number = int(tags[fields.NUMBER_TAG])
                    self._runs[number] = (run.info.run_id, _complete(run))
                    self._places[number] = tags.get(fields.PLACE_TAG, "")
            token = found.token
            if not token:
                break
        self._pointed = frozenset(m.step for m in self.client.get_metric_history(self._run_id, MARKER))

    def _write_trial(self, record: TrialRecord) -> None:
        tags = fields.trial_tags(record)
        run_id, logged = self._runs.get(record.number, ("", ""))
        if logged == tags[fields.RECORD_TAG]:
            return
        end_ms = int(time.time() * 1000)
        if not run_id:
            # What a cache saved was not spent.
            spent_s = sum(s for stage, s in record.seconds.items() if not stage.endswith("_saved"))
            start_ms = end_ms - int(1000 * spent_s)
            links = {"mlflow.parentRunId": self._run_id, **source_tags()}
            # All tags at once: each call to a database store costs two to four milliseconds. A run that is cut
            # off here is RUNNING, which tells it from a complete one.
            name = fields.run_name(record, self._naming)
            run = self.client.create_run(self._experiment_id, start_time=start_ms, tags=links | tags, run_name=name)
            run_id = run.info.run_id
            self._runs[record.number] = (run_id, "")
            logged_now: Mapping[str, str] = {}
        else:
            logged_now = tags
            held = self.client.get_run(run_id).data.tags
            for name in fields.PASSING_TAGS:
                if name in held and name not in tags:
                    self.client.delete_tag(run_id, name)
        params = fields.variant_params(record.variant.recipe, record.variant.deployment)
        log(self.client, run_id, metrics=fields.trial_metrics(record), params=params, tags=logged_now)
        status = "FAILED" if record.state is TrialState.FAILED else "FINISHED"
        if not logged:  # a trial that was verified later didn't last until then
            self.client.set_terminated(run_id, status, end_ms)
        self._runs[record.number] = (run_id, tags[fields.RECORD_TAG])

    def _log_points(self) -> None:
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        waiting = [
            (n, name, v) for n in sorted(self._points) if n not in self._pointed for name, v in self._points[n].items()
        ]
        for start in range(0, len(waiting), _BATCH):
            batch = [Metric(name, value, now_ms, n) for n, name, value in waiting[start : start + _BATCH]]
            self.client.log_batch(self._run_id, metrics=batch)
        self._points.clear()


def log(
    client: MlflowClient,
    run_id: str,
    *,
    metrics: Mapping[str, float] | None = None,
    params: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
    model_id: str | None = None,
) -> None:
    """Log all of it to a run at once; ``model_id``: the logged model whose metrics they are too."""
    from mlflow.entities import Metric, Param, RunTag

    now_ms = int(time.time() * 1000)
    client.log_batch(
        run_id,
        metrics=[Metric(k, v, now_ms, 0, model_id=model_id, run_id=run_id) for k, v in (metrics or {}).items()],
        params=[Param(k, v) for k, v in (params or {}).items()],
        tags=[RunTag(k, v) for k, v in (tags or {}).items()],
    )


def _complete(run: Run) -> str:
    """The digest of the record in a nested run; empty where the run was cut off while being written."""
    return str(run.data.tags.get(fields.RECORD_TAG, "")) if run.info.status != "RUNNING" else ""
