"""What a process reads of its own memory."""

from __future__ import annotations

from pathlib import Path

from autopilot.bench import footprint


def test_status_gives_both_figures_in_bytes(tmp_path: Path) -> None:
    """The kernel writes kibibytes."""
    (tmp_path / "status").write_text("Name:\tpython\nVmHWM:\t  2000 kB\nVmRSS:\t  1500 kB\n")

    found = footprint._of_status(tmp_path / "status")

    assert found == {"peak_memory_bytes": 2_048_000, "resident_memory_bytes": 1_536_000}


def test_status_without_high_water_mark_gives_no_peak(tmp_path: Path) -> None:
    """Some sandboxes leave it out: what is resident now must not stand for it."""
    (tmp_path / "status").write_text("VmRSS:\t  1500 kB\n")

    assert footprint._of_status(tmp_path / "status") == {"resident_memory_bytes": 1_536_000}
    assert footprint._of_status(tmp_path / "nothing") == {}
