"""The documentation names only what exists."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from autopilot import plugins
from autopilot.contracts import BuildContext
from autopilot.domain import Choice
from tests.models import cnn

_DOTTED = re.compile(r"`(autopilot(?:\.[A-Za-z_]\w*)+)(?:\([^`]*\))?`")
_FILE = re.compile(r"`((?:autopilot|tests|docs|examples|benchmarks|search_spaces)/[\w./-]+\.\w+)`")
_TARGET = re.compile(r"`make ([a-z-]+)`")
# What pip is told to install, over a line's end too; the clone itself is ``.`` or ``'.[extra]'``.
_INSTALLS_CLONE = re.compile(
    r"pip install((?:\s+-[-\w]+(?:\s+[\w./-]+\.txt)?)*)\s+['\"]?\.(?:\[[^\]]*\])?['\"]?(?=[\s`)\"]|$)"
)


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def checker(repository: Path) -> ModuleType:
    """docs/check_links.py as a module."""
    return _load(repository / "docs" / "check_links.py")


@pytest.fixture(scope="module")
def pages(repository: Path, checker: ModuleType) -> dict[str, str]:
    """Text of every Markdown file, by its path."""
    return {str(p.relative_to(repository)): p.read_text(encoding="utf-8") for p in checker.markdown_files(repository)}


def _exists(dotted: str) -> bool:
    """True when ``autopilot.a.b`` is a module or an attribute of one."""
    parts = dotted.split(".")
    thing: object = importlib.import_module(parts[0])
    for i, part in enumerate(parts[1:], 2):
        if not hasattr(thing, part):
            try:
                importlib.import_module(".".join(parts[:i]))
            except ModuleNotFoundError:
                return False
        thing = getattr(thing, part)
    return True


def test_links_lead_somewhere(repository: Path, checker: ModuleType) -> None:
    """Every relative link and anchor in the documentation resolves."""
    wrong = [line for file in checker.markdown_files(repository) for line in checker.broken_links(file)]

    assert wrong == []


def test_every_page_and_picture_is_linked(repository: Path, checker: ModuleType) -> None:
    """What no page links to is found by nobody."""
    assert checker.unlinked(checker.markdown_files(repository)) == []


def test_link_check_finds_what_nobody_links_to(tmp_path: Path, checker: ModuleType) -> None:
    """A page and a picture are missed; those that a page shows are not."""
    (tmp_path / "docs").mkdir()
    for name in ("shown.png", "lost.png", "lost.md", "read.md"):
        (tmp_path / "docs" / name).write_text("# Page\n", encoding="utf-8")
    (tmp_path / "README.md").write_text("[a](docs/read.md#page) ![b](docs/shown.png)\n", encoding="utf-8")

    wrong = checker.unlinked(checker.markdown_files(tmp_path), tmp_path)

    assert wrong == ["docs/lost.md: no page links to it", "docs/lost.png: no page links to it"]


def test_link_check_finds_a_missing_picture(tmp_path: Path, checker: ModuleType) -> None:
    """A picture is a link like another."""
    page = tmp_path / "page.md"
    page.write_text("![a](gone.png)\n", encoding="utf-8")

    assert checker.broken_links(page, tmp_path) == ["page.md:1: gone.png: no such file"]


def _options() -> set[str]:
    """Every option of every command of autopilot."""
    import typer.main

    from autopilot.cli.commands import app

    found, waiting = set(), [typer.main.get_command(app)]
    while waiting:
        command = waiting.pop()
        found |= {o for p in command.params for o in (*p.opts, *p.secondary_opts) if o.startswith("-")}
        waiting += getattr(command, "commands", {}).values()
    return found | {"--help"}


def test_named_options_and_commands_exist(pages: dict[str, str]) -> None:
    """Every `autopilot COMMAND --option` in the documentation can be typed; the changelog may name what is gone."""
    import typer.main

    from autopilot.cli.commands import app

    commands = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    lines = [
        (page, line)
        for page, text in pages.items()
        if page != "CHANGELOG.md"
        for line in re.findall(r"(?:`|^\$ )(autopilot [a-z][^`\n#]*)", text, re.MULTILINE)
    ]
    options = _options()

    assert sorted(f"{p}: {line}" for p, line in lines if line.split()[1] not in commands) == []
    typed = {(p, o) for p, line in lines for o in re.findall(r"(?<!\S)\[?(--?[a-z][\w-]*)", line)}
    assert sorted(f"{p}: {o}" for p, o in typed if o not in options) == []
    assert typed


def test_link_check_finds_a_broken_link(tmp_path: Path, checker: ModuleType) -> None:
    """The check itself isn't blind: a missing file, a missing heading and a fenced example are told apart."""
    page = tmp_path / "page.md"
    page.write_text("# One\n[a](gone.md) [b](#one) [c](#two)\n```\n[d](fenced.md)\n```\n", encoding="utf-8")

    wrong = checker.broken_links(page, tmp_path)

    assert wrong == ["page.md:2: gone.md: no such file", "page.md:2: #two: no such heading"]


def test_named_symbols_exist(pages: dict[str, str]) -> None:
    """Every `autopilot.x.y` in the documentation can be imported."""
    named = {(page, match) for page, text in pages.items() for match in _DOTTED.findall(text)}

    # Entry-point groups look like modules, and are: autopilot.techniques and its like.
    assert sorted(f"{page}: {name}" for page, name in named if not _exists(name)) == []
    assert named


def test_named_files_exist(repository: Path, pages: dict[str, str]) -> None:
    """Every `autopilot/….py`, `search_spaces/….yaml` and the like in the documentation is there."""
    named = {(page, match) for page, text in pages.items() for match in _FILE.findall(text)}

    made = re.compile(r"examples/digits/\w+\.npz|NAME|my_")
    assert sorted(f"{p}: {n}" for p, n in named if not made.search(n) and not (repository / n).exists()) == []
    assert named


def test_example_technique_does_what_its_page_says(repository: Path, tmp_path: Path) -> None:
    """The technique printed in adding-a-technique.md runs: an unused weight is gone, the rest stays."""
    page = (repository / "docs" / "adding-a-technique.md").read_text(encoding="utf-8")
    (tmp_path / "strip.py").write_text(page.split("```python\n")[1].split("```")[0], encoding="utf-8")
    technique = _load(tmp_path / "strip.py").TECHNIQUE
    model = cnn()
    kept = [t.name for t in model.graph.initializer]
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(3, np.float32), "spare"))
    onnx.save(model, tmp_path / "given.onnx")

    technique.apply(tmp_path / "given.onnx", tmp_path, {"docs": True}, BuildContext(None, tmp_path, 1))

    assert [t.name for t in onnx.load(tmp_path / "model.onnx").graph.initializer] == kept


@pytest.mark.parametrize("name", sorted(plugins.techniques()))
def test_technique_is_described_with_all_its_parameters(repository: Path, name: str) -> None:
    """techniques.md has a section for every technique, and names each of its parameters and text values."""
    page = (repository / "docs" / "techniques.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    technique = plugins.techniques()[name]
    texts = [v for d in technique.parameters.values() if isinstance(d, Choice) for v in d.values if isinstance(v, str)]
    # mixed_int8 shares parameters with static_int8 and says so.
    text = sections[name] + (sections["static_int8"] if "as in static_int8" in sections[name] else "")

    assert [word for word in (*technique.parameters, *texts) if f"`{word}`" not in text] == []


def test_every_axis_and_metric_is_described(pages: dict[str, str]) -> None:
    """spec.md names every axis that a budget may limit and every metric."""
    page = pages["docs/spec.md"]
    # The percentiles between the first and the last of the list are written as an ellipsis.
    axes = [name for name in plugins.axis_names() if not name.startswith("latency_p9")]

    assert [name for name in (*axes, *plugins.metrics()) if f"`{name}`" not in page] == []


def test_named_make_targets_exist(repository: Path, pages: dict[str, str]) -> None:
    """Every `make TARGET` in the documentation is a target."""
    targets = set(re.findall(r"^([a-z-]+):", (repository / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {match for text in pages.values() for match in _TARGET.findall(text)}

    assert named
    assert named <= targets


def test_clone_is_installed_editable_wherever_a_command_is_printed(repository: Path, pages: dict[str, str]) -> None:
    """A plain install of the clone would put a copy in the place of ``make setup``'s, deaf to later edits."""
    texts = pages | {str(p.relative_to(repository)): p.read_text("utf-8") for p in repository.glob("autopilot/**/*.py")}
    found = {name: _INSTALLS_CLONE.findall(text) for name, text in texts.items()}
    frozen = [name for name, options in found.items() if any("-e" not in o.split() for o in options)]

    assert any(found.values()), "the pattern finds no command any more"
    assert _INSTALLS_CLONE.findall("`pip install -c constraints.txt\n'.[torch,inc]'`") == [" -c constraints.txt"]
    assert frozen == []
