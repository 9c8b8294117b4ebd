"""The notebooks run from top to bottom, and what is committed of them is fit to be read."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.integration.run_support import new_store

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

NAMES = ("01_first_budget.ipynb", "02_explore_trials.ipynb", "03_custom_technique.ipynb")
# A page of text and pictures; a copy of plotly's script alone has 4 MB.
LARGEST_BYTES = 300_000
# A search of two trials shows that a cell runs as well as one of seven, and a second of measuring as well as thirty.
# They are to be over before the time is, on a slow machine too.
FEWER = (
    (re.compile(r"\btimeout_s=\d+"), "timeout_s=400"),
    (re.compile(r"\btimeout: \d+\w"), "timeout: 400s"),
    (re.compile(r"\btrials=\d+"), "trials=2"),
    (re.compile(r"\btrials: \d+"), "trials: 2, measure_cap: 1s"),
)
# Folders at the root of a file system, a user's own folder, temporary ones.
MACHINE_PATH = re.compile(r"(?<![\w.~])/(?:home|root|tmp|Users|work|opt|usr|var|mnt|private)/")


def shorter(text: str) -> str:
    """A cell or a spec that searches for less long."""
    for found, wanted in FEWER:
        text = found.sub(wanted, text)
    return text


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_every_notebook_is_tested(repository: Path) -> None:
    """A notebook that is added is named here."""
    assert sorted(p.name for p in (repository / "notebooks").glob("*.ipynb")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_committed_notebook_has_all_its_outputs_and_no_path_of_a_machine(repository: Path, name: str) -> None:
    """It was run once from top to bottom, without errors or complaints, and tells nothing of where."""
    file = repository / "notebooks" / name
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    outputs = [output for cell in cells for output in cell.outputs]

    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert sum(bool(cell.outputs) for cell in cells) >= len(cells) - 1
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert MACHINE_PATH.findall(file.read_text(encoding="utf-8")) == []
    assert file.stat().st_size < LARGEST_BYTES


@pytest.mark.parametrize("name", NAMES)
def test_committed_notebook_shows_a_search_that_found_something(repository: Path, name: str) -> None:
    """What a reader sees first is a winner, not a run on a busy machine that ended before its first trial."""
    notebook = nbformat.read(repository / "notebooks" / name, as_version=4)
    told = "".join(str(o.get("data", {}).get("text/plain", "")) for c in code_cells(notebook) for o in c.outputs)

    assert re.search(r"\bbest: trial [1-9]", told)
    assert "no_fit" not in told


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", NAMES)
def test_notebook_runs_in_a_fresh_kernel(
    repository: Path, tmp_path: Path, digits_folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Every cell runs, in a copy of the repository's layout, and progress is one output updated in place."""
    monkeypatch.setenv("PYTHONPATH", str(repository))
    monkeypatch.delenv("AUTOPILOT_PLUGINS", raising=False)
    shutil.copytree(digits_folder, tmp_path / "examples" / "digits")
    shutil.copy(repository / "examples" / "digits" / "data.py", tmp_path / "examples" / "digits")
    (tmp_path / "notebooks").mkdir()
    notebook = nbformat.read(repository / "notebooks" / name, as_version=4)
    for cell in code_cells(notebook):
        cell.source = shorter(cell.source)
    spec = tmp_path / "examples" / "digits" / "spec.yaml"
    spec.write_text(shorter(spec.read_text()))
    new_store(tmp_path)
    there = {"metadata": {"path": str(tmp_path / "notebooks")}}
    client = nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=there)

    asyncio.run(client.async_execute())  # raises on the first cell that fails

    run = next(cell for cell in code_cells(notebook) if "autopilot.progress()" in cell.source)
    shown = [(o.output_type, sorted(o.data)) for o in run.outputs if o.output_type != "execute_result"]
    assert shown == [("display_data", ["text/html", "text/plain"])]
    assert run.outputs[0].data["text/plain"].startswith("done: ")
