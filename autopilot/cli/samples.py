"""``autopilot show --samples``: a run's verdicts again, from its raw readings."""

from __future__ import annotations

from pathlib import Path

from autopilot.cli.output import print_json, print_table
from autopilot.errors import BadInput

# A verdict that its own readings don't support: the program (or what was done to the files) is at fault.
DIFFERS = 1


def show_samples(source: Path, trial: int | None, csv: Path | None, *, as_json: bool) -> int:
    """Recompute the run in the folder ``source`` (or the check in that file); 0 where all agree, else 1.

    Raises:
        BadInput: nothing can be recomputed there, or there is no such trial.
    """
    from autopilot.search import recompute_file, recompute_run

    if not source.exists():
        raise BadInput(f"{source} does not exist.", "Raw readings are in a run's folder; MLflow has none.")
    is_check = source.suffix == ".npz"
    found = recompute_file(source) if is_check else recompute_run(source if source.is_dir() else source.parent)
    if trial is not None and not is_check:
        found = found.of_trial(trial)
    if csv is not None:
        _write_requests(source, trial, csv, is_check=is_check)
    if as_json:
        print_json(found.to_json())
    else:
        from autopilot.display import render_samples

        print_table(render_samples(found.to_json(), figures=trial is not None or is_check))
    return 0 if found.agree else DIFFERS


def _write_requests(source: Path, trial: int | None, csv: Path, *, is_check: bool) -> None:
    from autopilot.search.samples import Samples, readings_in, samples_file, write_requests

    if trial is None and not is_check:
        raise BadInput("--csv needs --trial N.", "A file holds the requests of one trial.")
    path = source if is_check else samples_file(readings_in(source if source.is_dir() else source.parent), str(trial))
    write_requests(csv, Samples.load(path).profile)
