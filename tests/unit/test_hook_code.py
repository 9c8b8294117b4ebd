"""What a function of the user's is made of: found in the source, without running any of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest

from autopilot.data import hook_code as module
from autopilot.data.hook_code import hook_code, hook_digest
from autopilot.errors import DataError
from autopilot.search.prepare import identity
from autopilot.spec import MetricSpec
from autopilot.torch_model.load import code_digest
from tests.unit.search_support import setup_of


def written(folder: Path, files: Mapping[str, str]) -> str:
    """The reference of ``score.py:score`` among files that are made in ``folder``."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return f"{folder / 'score.py'}:score"


USUAL = {
    "score.py": "import json, norm\nfrom parts.deep import weigh\n\ndef score(*a):\n    import late\n",
    "norm.py": "from further import x\n",
    "further.py": "import score\nx = 1\n",
    "late.py": "y = 1\n",
    "parts/__init__.py": "",
    "parts/deep/__init__.py": "from . import weigh\nfrom .. import beside\n",
    "parts/deep/weigh.py": "",
    "parts/beside.py": "",
    "parts/unused.py": "",
    "train.py": "raise SystemExit\n",
}


def test_modules_that_are_imported_are_followed(tmp_path: Path) -> None:
    """Beside the file and in packages, inside functions, relative ones too, in circles; nothing that isn't imported."""
    found = hook_code(written(tmp_path, USUAL))

    deep = {"parts/__init__.py", "parts/beside.py", "parts/deep/__init__.py", "parts/deep/weigh.py"}
    assert set(found.files) == {"", "norm.py", "further.py", "late.py", *deep}
    assert found.libraries == {}


@pytest.mark.parametrize("name", [n for n in USUAL if n not in ("train.py", "parts/unused.py")])
def test_digest_changes_with_each_of_them(tmp_path: Path, name: str) -> None:
    """A score depends on all of it."""
    before = hook_digest(written(tmp_path, USUAL))

    assert hook_digest(written(tmp_path, {name: USUAL[name] + "z = 2\n"})) != before


@pytest.mark.parametrize("name", ["train.py", "parts/unused.py", "notes.py"])
def test_digest_stays_with_files_that_take_no_part(tmp_path: Path, name: str) -> None:
    """A study mustn't start anew since its folder has another script."""
    before = hook_digest(written(tmp_path, USUAL))

    assert hook_digest(written(tmp_path, {name: "z = 2\n"})) == before


def test_digest_is_the_same_in_another_folder(tmp_path: Path) -> None:
    """Files may lie elsewhere, on another machine even."""
    assert hook_digest(written(tmp_path / "a", USUAL)) == hook_digest(written(tmp_path / "b", USUAL))


def test_installed_packages_count_by_their_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under their own names, which differ from those of their modules; none of their files is read."""
    reference = written(
        tmp_path, {"score.py": "import numpy as np\nfrom sklearn import metrics\nimport no_such_thing\n"}
    )
    found = hook_code(reference)
    before = hook_digest(reference)

    assert set(found.files) == {""}
    assert found.libraries == {name: metadata.version(name) for name in ("numpy", "scikit-learn")}
    monkeypatch.setattr(module, "_versions", lambda name: {name: "99"})
    assert hook_digest(reference) != before


def test_own_code_in_pythonpath_counts_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no version that would tell."""
    reference = written(tmp_path, {"score.py": "import company_metrics.f1\n"})
    for name in ("__init__.py", "f1.py", "other.py"):
        path = tmp_path / "library" / "company_metrics" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "library")])

    assert set(hook_code(reference).files) == {"", "company_metrics/__init__.py", "company_metrics/f1.py"}
    assert "company_metrics" not in sys.modules


@pytest.mark.parametrize("text", ["def score(:\n", "\0", "from . import x\nfrom .. import y\nfrom ...z import w\n"])
def test_file_that_python_refuses_has_a_digest(tmp_path: Path, text: str) -> None:
    """What is wrong with it is told when it is loaded, with the line."""
    assert set(hook_code(written(tmp_path, {"score.py": text})).files) == {""}


def test_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """With what it should hold."""
    with pytest.raises(DataError, match=r"score\.py does not exist; it should hold the function 'score'"):
        hook_digest(f"{tmp_path / 'score.py'}:score")


@pytest.mark.parametrize("key", ["metric", "preprocess", "postprocess"])
def test_identity_of_a_study_has_what_its_functions_import(tmp_path: Path, key: str) -> None:
    """Trials that were scored by other code are not gone on with; the user reads which function changed."""
    reference = written(tmp_path, USUAL)
    for name in ("model.onnx", "valid.npz", "space.yaml"):
        (tmp_path / name).write_text(name)
    problem = setup_of(tmp_path).problem
    if key == "metric":
        problem = replace(problem, metric=MetricSpec("score", function=reference))
    else:
        problem = replace(problem, data=replace(problem.data, **{key: reference}))
    before = identity(problem, [tmp_path / "model.onnx"])
    written(tmp_path, {"parts/beside.py": "z = 2\n"})
    after = identity(problem, [tmp_path / "model.onnx"])

    assert [part for part in before if before[part] != after[part]] == [f"{key} function"]


def test_network_of_the_user_has_the_packages_that_it_imports(tmp_path: Path) -> None:
    """An export is kept under this name: a layer in a package beside it is part of the network."""
    reference = written(tmp_path, USUAL)
    before = code_digest(reference)
    written(tmp_path, {"parts/deep/weigh.py": "z = 2\n"})

    assert code_digest(reference) != before
