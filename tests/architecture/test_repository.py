"""The repository's own files: nothing from one machine, nothing too long, nothing broad."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.conftest import CLOCKED

# Put together here, so that this file doesn't hold what it looks for.
MACHINE_WORDS = re.compile(
    "|".join(["/wo" + "rk/", "/fa" + "rm/", "/ro" + "ot/", "/opt/(wh" + "eels|pypi)", "/home/[a-z]+/"])
)
LONGEST_FILE = 400
LONGEST_FUNCTION = 60


def tracked_files(repository: Path) -> list[Path]:
    """Files that git tracks or would track."""
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    return [p for line in done.stdout.splitlines() if (p := repository / line).is_file()]


def test_tracked_files_name_no_machine_path(repository: Path) -> None:
    """No text file names a path of the machine it was written on."""
    found = []
    for path in tracked_files(repository):
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(repository)}: {m.group(0)}" for m in MACHINE_WORDS.finditer(text)]

    assert found == []


def test_tracked_binary_files_name_no_machine_path(repository: Path) -> None:
    """The committed model carries no source paths of the machine that exported it."""
    model = (repository / "examples" / "digits" / "model.onnx").read_bytes()

    assert not MACHINE_WORDS.search(model.decode("latin-1"))
    assert len(model) < 1_000_000


def test_source_files_are_not_too_long(repository: Path) -> None:
    """A file over 400 lines hides a noun that wants a file of its own."""
    files = [p for p in tracked_files(repository) if p.suffix == ".py"]
    lengths = {str(p.relative_to(repository)): len(p.read_text(encoding="utf-8").splitlines()) for p in files}

    assert {name: n for name, n in lengths.items() if name.startswith("autopilot/") and n > LONGEST_FILE} == {}


def _functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def _body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of the body, docstring left out."""
    body = function.body
    first = body[1] if ast.get_docstring(function) is not None and len(body) > 1 else body[0]
    return (body[-1].end_lineno or body[-1].lineno) - first.lineno + 1


def test_functions_are_not_too_long(repository: Path) -> None:
    """A function body over 60 lines does more than one thing."""
    found = {}
    for path in sorted((repository / "autopilot").rglob("*.py")):
        for function in _functions(ast.parse(path.read_text(encoding="utf-8"))):
            lines = _body_lines(function)
            if lines > LONGEST_FUNCTION:
                found[f"{path.relative_to(repository)}:{function.name}"] = lines

    assert found == {}


def test_secrets_and_stores_are_ignored(repository: Path) -> None:
    """What runs leave is ignored by git; the README of the store is not."""
    done = subprocess.run(
        [
            "git",
            "check-ignore",
            "runs/digits/result.json",
            "mlruns/mlflow.db",
            "examples/digits/train.npz",
            "mlruns/README.md",
        ],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode > 1:
        pytest.skip("not a git checkout")

    assert done.stdout.split() == ["runs/digits/result.json", "mlruns/mlflow.db", "examples/digits/train.npz"]


def test_no_property_is_decided_by_the_speed_of_the_machine() -> None:
    """Neither by hypothesis's own 200 ms an example nor by how long it takes to draw one."""
    mine = settings(max_examples=1)

    assert mine.deadline is None
    assert HealthCheck.too_slow in mine.suppress_health_check


def test_modules_that_compare_times_exist(repository: Path) -> None:
    """A module that is renamed isn't left out of those that run one after the other."""
    there = {path.stem for path in (repository / "tests").glob("integration/test_*.py")}

    assert there >= CLOCKED
