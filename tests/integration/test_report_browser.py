"""The page in a real browser: on a phone, on a desktop, in the dark, on paper, with its script at work.

Screenshots stay in the test's folder (``pytest --basetemp``), to be looked at.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from autopilot.report import Content, Readings, write_report
from autopilot.result import Status
from autopilot.testing import fake_result
from tests.report_support import Page, hostile, readings, searched

pytestmark = pytest.mark.integration

_FOUND = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
needs_browser = pytest.mark.skipif(_FOUND is None, reason="no Chromium here: the page is not looked at in a browser")
# A page's script has run by then; the browser's own clock, so a slow machine waits no less.
_SETTLED = "--virtual-time-budget=3000"


def browse(page: Path, folder: Path, *options: str) -> str:
    """Open ``page`` in a fresh headless browser without a network; what it printed."""
    assert _FOUND is not None
    profile = folder / "profile"
    shutil.rmtree(profile, ignore_errors=True)
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    quiet += ["--disable-background-networking", "--disable-component-update", "--hide-scrollbars"]
    line = [_FOUND, *quiet, f"--user-data-dir={profile}", *options, page.as_uri()]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def shot(page: Path, folder: Path, name: str, *options: str, size: tuple[int, int]) -> Path:
    """A screenshot of ``page``, a PNG of ``size`` that isn't one plain colour."""
    picture = folder / f"{name}.png"
    browse(page, folder, f"--screenshot={picture}", f"--window-size={size[0]},{size[1]}", *options)
    raw = picture.read_bytes()
    assert struct.unpack(">II", raw[16:24]) == size
    # An empty page of this size compresses to some 10 kB.
    assert len(raw) > 30_000
    return picture


def in_frame(page: Path, width: int, height: int) -> Path:
    """A page that shows ``page`` as a window of ``width`` would: browsers' own windows can't be that narrow."""
    outer = page.with_name(f"{width}-{page.name}")
    outer.write_text(
        f'<body style="margin:0"><iframe src="{page.name}" width="{width}" height="{height}" style="border:0"></iframe>'
    )
    return outer


def with_probe(page: Path, script: str) -> Path:
    """A copy of ``page`` that also runs ``script``: its own policy would forbid that, so it is left out."""
    text = page.read_text(encoding="utf-8")
    start = text.index("<meta http-equiv=")
    text = text[:start] + text[text.index(">", start) + 1 :]
    probe = page.with_name("probe.html")
    probe.write_text(text.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    return probe


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """The report of a search of forty trials."""
    return write_report(Content(searched(40), readings()), tmp_path / "report.html")


@needs_browser
@pytest.mark.parametrize("status", Status)
def test_page_is_drawn_on_a_desktop_in_the_dark_and_on_a_phone(tmp_path: Path, status: Status) -> None:
    """Three pictures that differ, for each ending."""
    page = write_report(Content(fake_result(status), readings()), tmp_path / "report.html")

    light = shot(page, tmp_path, "desktop", size=(1280, 2400))
    dark = shot(page, tmp_path, "dark", "--blink-settings=preferredColorScheme=0", size=(1280, 2400))
    phone = shot(in_frame(page, 390, 3600), tmp_path, "phone", size=(390, 3600))

    assert len({p.read_bytes() for p in (light, dark, phone)}) == 3


@needs_browser
@pytest.mark.parametrize("width", [390, 820, 1280])
def test_page_is_never_wider_than_its_window(page: Path, tmp_path: Path, width: int) -> None:
    """Nothing runs out of the window to the right, on a phone either; wide tables scroll in their own box."""
    probe = with_probe(page, "parent.document.title = document.documentElement.scrollWidth")
    outer = in_frame(probe, width, 3000)

    told = browse(outer, tmp_path, "--dump-dom", _SETTLED, "--allow-file-access-from-files")

    assert f"<title>{width}</title>" in told


@needs_browser
def test_trials_sort_and_filter(page: Path, tmp_path: Path) -> None:
    """A click sorts by the figures and another one turns it round; a word leaves the trials that say it."""
    script = """
      const table = document.getElementById('trials-table');
      const shown = () => [...table.tBodies[0].rows].filter((row) => !row.hidden);
      const numbers = () => shown().map((row) => parseInt(row.cells[0].textContent));
      const head = [...table.tHead.rows[0].cells].find((c) => c.title === 'latency_p50_ms');
      const said = {};
      head.querySelector('button').click(); said.up = numbers();
      head.querySelector('button').click(); said.down = numbers();
      const filter = document.getElementById('trials-filter');
      filter.value = 'dynamic_int8'; filter.dispatchEvent(new Event('input')); said.filtered = numbers();
      said.count = document.getElementById('trials-count').textContent;
      document.title = JSON.stringify(said);
    """
    told = browse(with_probe(page, script), tmp_path, "--dump-dom", _SETTLED)

    import json

    title = told[told.index("<title>") + 7 : told.index("</title>")]
    said = json.loads(title)
    ratios = {t.number: t.measured["latency_p50_ms"].ratio for t in searched(40).trials}
    fastest = sorted(ratios, key=lambda n: ratios[n].value if ratios[n] else 0.0)  # type: ignore[union-attr]
    assert said["up"] == fastest
    assert said["down"] == fastest[::-1]
    assert sorted(said["filtered"]) == [n for n in range(1, 40) if n % 2]
    assert said["count"] == "20 of 40 trials"


@needs_browser
def test_page_prints(page: Path, tmp_path: Path) -> None:
    """A PDF of a few pages, light even where the screen is dark."""
    pdf = tmp_path / "report.pdf"

    browse(page, tmp_path, f"--print-to-pdf={pdf}", "--no-pdf-header-footer")

    assert pdf.read_bytes().startswith(b"%PDF")
    assert 3 <= pdf.read_bytes().count(b"/Type /Page\n") + pdf.read_bytes().count(b"/Type /Page ") <= 14


@needs_browser
def test_hostile_text_runs_nothing_in_a_browser(tmp_path: Path) -> None:
    """No dialog, no element: the page is as the parser of the unit tests sees it, and its own script works."""
    page = write_report(Content(hostile(), Readings()), tmp_path / "report.html")

    told = browse(page, tmp_path, "--dump-dom", _SETTLED)

    parsed = Page(told)
    assert parsed.count("script") == 1
    assert parsed.count("img") == 0
    assert "3 of 3 trials" in told
