"""Where the ledger is kept: URLs, what is wrong with them, and passwords that nobody sees."""

from __future__ import annotations

import builtins
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autopilot.errors import AutopilotError, BadInput
from autopilot.search.storage import logged_spec, masked, open_storage, translated
from tests.unit.search_support import setup_of


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("postgresql://me:se@cret@host/db", "postgresql://me:***@host/db"),
        ("postgresql+psycopg://host/db?user=me&password=secret", "postgresql+psycopg://host/db?user=me&password=***"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("sqlite:////tmp/a.db", "sqlite:////tmp/a.db"),
        ("no url", "no url"),
    ],
)
def test_masked_hides_the_password_and_nothing_else(url: str, shown: str) -> None:
    """What is shown still says which database it is."""
    assert masked(url) == shown


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("no url", "no database URL"),
        ("mysql://me:hunter2@host/db", "of a kind"),
        ("sqlite://", "in memory"),
        ("sqlite:////no/such/folder/a.db", "can't be reached"),
    ],
)
def test_open_storage_says_what_is_wrong(url: str, said: str) -> None:
    """Exit code 2, one sentence, no password."""
    with pytest.raises(BadInput, match=said) as caught:
        open_storage(url)

    assert "hunter2" not in str(caught.value)


def test_open_storage_names_the_extra_where_the_driver_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install is said, not what failed to be imported somewhere deep."""
    imported = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "psycopg":
            raise ModuleNotFoundError("No module named 'psycopg'")
        return imported(name, *args, **kwargs)

    for name in [n for n in sys.modules if n.split(".")[0] == "psycopg"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)

    with pytest.raises(BadInput, match="postgres") as caught:
        open_storage("postgresql://me:hunter2@host/db")
    assert "hunter2" not in str(caught.value)
    assert "from a clone: pip install -e '.[postgres]'" in caught.value.hint  # the package is on no index


def test_open_storage_says_that_nobody_answers() -> None:
    """A server that isn't there is bad input, found before anything is measured."""
    pytest.importorskip("psycopg", reason="the extra postgres isn't installed")

    with pytest.raises(BadInput, match="can't be reached") as caught:
        open_storage("postgresql://me:hunter2@127.0.0.1:1/db")
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_errors_of_the_database_hold_no_password() -> None:
    """Even where the driver repeats what it was given."""
    from sqlalchemy.exc import OperationalError

    problem = OperationalError("select", {}, Exception("can't connect as me with 'hunter2' (password=hunter2)"))

    with pytest.raises(AutopilotError, match="failed") as caught, translated("postgresql://me:hunter2@host/db"):
        raise problem
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("written", ["{url}", "'{url}'", '"{escaped}"'])
def test_logged_spec_holds_no_password(tmp_path: Path, written: str) -> None:
    """What goes to MLflow is the spec but for the password, however it was written."""
    url = "postgresql://me:hunter2@host/db"
    text = "name: x\nsearch:\n  storage: " + written.format(url=url, escaped=url.replace("hunter2", "hunter\\x32"))
    problem = replace(setup_of(tmp_path).problem, raw={"name": "x", "search": {"storage": url}})
    problem.path.write_text(text)

    logged = logged_spec(problem)

    assert "hunter" not in logged
    assert "postgresql://me:***@host/db" in logged
    assert "hunter2" not in repr(problem.searching(storage=url))
