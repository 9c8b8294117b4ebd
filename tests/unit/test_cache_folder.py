"""Where the shared cache is, how large it may grow, and that it tidies nobody else's folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from autopilot.cache import cache_folder, check_folder, parse_size, size_limit
from autopilot.cache.compiled import compiled
from autopilot.cache.folder import DEFAULT_LIMIT_BYTES, DISK_SHARE, TAG, make_folder
from autopilot.errors import BadInput


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("10GB", 10**10),
        ("500 MB", 5 * 10**8),
        ("2GiB", 2**31),
        ("1.5k", 1500),
        ("0", 0),
        ("12", 12),
        ("3tb", 3 * 10**12),
    ],
)
def test_size_is_read_as_people_write_it(text: str, size_bytes: int) -> None:
    """Decimal units, binary ones with an i, plain bytes."""
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "lots", "-1GB", "10 GB free", "1e9", "GB", "١GB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    """The message shows what would be right."""
    with pytest.raises(ValueError, match="write 10GB"):
        parse_size(text)


def test_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own variable first, then XDG's where it is absolute, then the system's custom."""
    monkeypatch.setenv("HOME", str(tmp_path))
    both = {"AUTOPILOT_CACHE_DIR": "~/mine", "XDG_CACHE_HOME": "/xdg"}

    assert cache_folder(both) == tmp_path / "mine"
    assert cache_folder({"XDG_CACHE_HOME": "/xdg"}) == Path("/xdg/autopilot")
    assert cache_folder({"XDG_CACHE_HOME": "relative"}, platform="linux") == tmp_path / ".cache" / "autopilot"
    assert cache_folder({}, platform="darwin") == tmp_path / "Library" / "Caches" / "autopilot"


def test_folder_of_nobodys_home_is_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that was mistyped is no bug of the program, nor silently another folder."""
    monkeypatch.setenv("AUTOPILOT_CACHE_DIR", "~no-such-user-here/cache")

    for asked in (cache_folder, lambda: compiled("inductor")):
        with pytest.raises(BadInput, match="AUTOPILOT_CACHE_DIR: there is no home folder for ~no-such-user-here/cache"):
            asked()


def test_limit_is_the_variables_or_at_most_a_share_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a small disk the default is less; what the user says holds."""
    usage = shutil.disk_usage(tmp_path)
    small = usage._replace(total=1_000_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: small)

    assert size_limit(tmp_path / "not" / "there", {}) == int(DISK_SHARE * 1_000_000_000)
    assert size_limit(tmp_path, {"AUTOPILOT_CACHE_SIZE": "20GB"}) == 2 * DEFAULT_LIMIT_BYTES
    with pytest.raises(BadInput, match="AUTOPILOT_CACHE_SIZE: 'much' is no size"):
        size_limit(tmp_path, {"AUTOPILOT_CACHE_SIZE": "much"})


def test_folder_is_marked_and_found_again(tmp_path: Path) -> None:
    """A tag that backup programs know; making it twice is no error."""
    root = tmp_path / "a" / "cache"

    assert check_folder(root) is False
    make_folder(root)
    make_folder(root)

    assert check_folder(root) is True
    assert (root / TAG).read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55\n")
    assert [f.name for f in root.iterdir()] == [TAG]


def test_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    """A home folder named by mistake is neither filled nor emptied."""
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "thesis.txt").write_text("years of work")

    for act in (check_folder, make_folder):
        with pytest.raises(BadInput, match="holds no cache of autopilot"):
            act(tmp_path)
    assert (tmp_path / "scratch" / "thesis.txt").exists()


def test_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    """The message says what is needed."""
    (tmp_path / "cache").write_text("")

    with pytest.raises(BadInput, match="is a file; the cache needs a folder"):
        check_folder(tmp_path / "cache")
