"""``autopilot cache``: what it shows and removes, and what it refuses."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from autopilot.cache import Lease, scan
from autopilot.cli import main
from autopilot.display.cache import bytes_text
from autopilot.errors import Unsupported
from tests.cache_support import STEP, Cache, key_of, new_root, put, put_score


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache that the command finds."""
    root = new_root(tmp_path)
    monkeypatch.setenv("AUTOPILOT_CACHE_DIR", str(root))
    monkeypatch.setenv("AUTOPILOT_CACHE_SIZE", "1MB")
    return root


def filled(root: Path) -> Lease:
    """Two builds, one of them in use, a failure and a score."""
    lease = Lease.hold(root)
    put(root, "used", size=100_000, lease=lease)
    put(root, "old", size=50_000, used_s=time.time() - 40 * 86400)
    put_score(root, "used", used_s=time.time() - 3600)
    Cache(root).put_failure(key_of("bad"), Unsupported("no weights.", "h"), parent="q" * 64, step=STEP)
    return lease


def test_empty_cache_is_shown_and_cleared(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing there is no error."""
    assert main(["cache"]) == 0
    shown = capsys.readouterr().out
    assert main(["cache", "clear"]) == 0

    assert "nothing in it yet" in shown
    assert "0 bytes of 1 MB" in shown
    assert capsys.readouterr().out == "removed 0 entries, 0 bytes\n"


def test_cache_that_was_never_made_is_not_made_by_looking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Showing and clearing write nothing."""
    monkeypatch.setenv("AUTOPILOT_CACHE_DIR", str(tmp_path / "none"))

    assert main(["cache"]) == 0
    assert main(["cache", "clear"]) == 0
    assert not (tmp_path / "none").exists()


def test_shown_by_kind(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Folder, size, limit, use, and a line a kind."""
    lease = filled(root)

    assert main(["cache"]) == 0

    out = capsys.readouterr().out
    assert f"{root}" in out.replace("\n", "").replace(" ", "")
    assert "151 kB of 1 MB (15%)" in out
    assert "1 of 4 entries" in out
    assert [line.split()[:2] for line in out.splitlines()[5:8]] == [
        ["builds", "2"],
        ["failures", "1"],
        ["quality", "1"],
    ]
    lease.close()


def test_json_holds_all_of_it(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bytes, ISO times, and each entry where asked; the one used last first."""
    lease = filled(root)

    assert main(["cache", "--list", "--json"]) == 0

    found = json.loads(capsys.readouterr().out)
    assert found["folder"] == str(root)
    assert (found["limit_bytes"], found["entries"], found["in_use"]) == (1_000_000, 4, 1)
    assert found["size_bytes"] == sum(e.size_bytes for e in scan(root))
    assert found["kinds"]["builds"]["entries"] == 2
    assert found["oldest_use"] == found["list"][-1]["used"] < found["newest_use"]
    assert {e["what"]: e["in_use"] for e in found["list"]} == {
        "toy of pppppppp": False,  # the older of two that are called so
        "toy of qqqqqqqq: unsupported, no weights.": False,
        "accuracy of used": False,
    }
    assert [e["in_use"] for e in found["list"] if e["kind"] == "builds"] == [True, False]
    lease.close()


def test_list_says_what_each_entry_is(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The step, the score, the reason why a step fails, and which are in use."""
    lease = filled(root)

    assert main(["cache", "--list"]) == 0

    out = " ".join(capsys.readouterr().out.split())
    for text in ("toy of pppppppp (in use)", "accuracy of used", "unsupported, no weights."):
        assert text in out
    lease.close()


def test_clear_leaves_what_is_in_use_and_says_so(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It asks nothing; what was freed is told."""
    lease = filled(root)

    assert main(["cache", "clear"]) == 0

    out = capsys.readouterr().out
    assert out.startswith("removed 3 entries, 5")
    assert out.endswith("; kept 1 entry (100 kB) in use now\n")
    assert [e.name for e in scan(root)] == [key_of("used")]
    lease.close()


def test_clear_by_age(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only what wasn't used for so long goes."""
    filled(root).close()

    assert main(["cache", "clear", "--older-than", "30d", "--json"]) == 0

    found = json.loads(capsys.readouterr().out)
    assert (found["folder"], found["entries"], found["kept_entries"]) == (str(root), 1, 0)
    assert len(scan(root)) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["cache", "clear", "--older-than", "long"], "--older-than: 'long' is no duration"),
        (["cache", "empty"], "No such command 'empty'"),
        (["cache", "--json", "clear"], "Write: autopilot cache clear --json."),
    ],
)
def test_bad_command_line_is_one_paragraph(
    root: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    """Exit code 2, and what would be right."""
    assert main(arguments) == 2

    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_folder_that_is_no_cache_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`cache clear` on a home folder is bad input."""
    (tmp_path / "builds").mkdir()
    monkeypatch.setenv("AUTOPILOT_CACHE_DIR", str(tmp_path))

    assert main(["cache", "clear"]) == 2
    assert "holds no cache of autopilot" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (999_700, "1 MB"), (1_500, "1.5 kB"), (10**13, "10 TB")],
)
def test_sizes_have_three_digits_and_a_unit(size_bytes: int, text: str) -> None:
    """Rounding goes on to the next unit."""
    assert bytes_text(size_bytes) == text
