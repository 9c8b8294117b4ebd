"""A study's report from the command line, in a run, in a notebook."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from autopilot.budget import Limit
from autopilot.cli import main
from autopilot.contracts import Stage
from autopilot.needs import Lack, NotTried
from autopilot.profile import LatencyReading, Profile
from autopilot.profile.storage import save_record
from autopilot.report import Content, render_page
from autopilot.report.html import escaped
from autopilot.result import Binding, Fallback, Relaxation, StageCost, Status, StudyResult
from autopilot.search import Study
from autopilot.search import reporting as subject
from autopilot.search.samples import WORK, Samples, samples_file
from autopilot.testing import fake_measurement, fake_result
from tests.report_support import HOSTILE, Page, hostile, readings, searched


def run_folder(folder: Path) -> Path:
    """A finished run's folder without readings."""
    folder.mkdir()
    (folder / "result.json").write_text(fake_result().text())
    return folder


def keep_latency(folder: Path, name: str, factor: float) -> None:
    """Readings of the winner and of the baseline beside it, under ``name``."""
    given = readings(50)
    assert given.chosen_s is not None
    assert given.baseline_s is not None
    block = (given.chosen_s * 0).astype("int32")
    wall = given.chosen_s[:1]
    own = LatencyReading(given.chosen_s * factor, block, wall, wall)
    beside = LatencyReading(given.baseline_s * factor, block, wall, wall)
    path = samples_file(folder / WORK, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_record(path, Samples(Profile("v", latency=own, baseline_latency=beside), Stage.QUALITY))


def test_report_command_writes_the_page_into_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And says where; exit code 0 whatever the verdict."""
    folder = run_folder(tmp_path / "run")

    assert main(["report", str(folder)]) == 0

    assert capsys.readouterr().out == f"wrote {folder / 'report.html'}\n"
    assert "The budget is met" in (folder / "report.html").read_text()


def test_report_command_takes_another_file(tmp_path: Path) -> None:
    """-o names it, and result.json itself names a run too."""
    folder = run_folder(tmp_path / "run")

    assert main(["report", str(folder / "result.json"), "-o", str(tmp_path / "page.html")]) == 0

    assert (tmp_path / "page.html").is_file()
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize("arguments", [["gone/folder"], ["run", "-o", "gone/page.html"]])
def test_report_command_names_what_is_missing(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No such run, or a folder to write into that isn't there: exit 2, one paragraph."""
    monkeypatch.chdir(tmp_path)
    run_folder(tmp_path / "run")

    assert main(["report", *arguments]) == 2

    assert "gone" in capsys.readouterr().err


def test_verified_readings_come_before_the_search_s(tmp_path: Path) -> None:
    """The page draws what the verdict rests on, where it was kept."""
    result = fake_result()
    keep_latency(tmp_path, "1", 1.0)
    searching = subject.readings_of(result, tmp_path)
    keep_latency(tmp_path, "1-verify", 2.0)
    verified = subject.readings_of(result, tmp_path)

    assert (searching.verified, verified.verified) == (False, True)
    assert verified.curves["chosen"][0] == pytest.approx(2 * searching.curves["chosen"][0])
    assert set(verified.curves) == {"baseline", "chosen"}


def test_readings_of_an_earlier_second_measurement_are_not_drawn(tmp_path: Path) -> None:
    """A trial that this result didn't measure again is drawn with the readings of the search."""
    result = fake_result()
    result = replace(result, trials=tuple(replace(t, stage="quality") for t in result.trials))
    keep_latency(tmp_path, "1", 1.0)
    keep_latency(tmp_path, "1-verify", 2.0)

    assert not subject.readings_of(result, tmp_path).verified


def test_missing_or_damaged_readings_leave_a_reason(tmp_path: Path) -> None:
    """The page is drawn without them."""
    result = fake_result()
    (tmp_path / WORK / "samples").mkdir(parents=True)
    assert subject.readings_of(result, tmp_path).note
    samples_file(tmp_path / WORK, "1").write_bytes(b"no readings")

    assert subject.readings_of(result, tmp_path).note
    assert subject.readings_of(result, None).note
    assert subject.readings_of(replace(result, best=None), tmp_path).note


def test_trouble_with_the_page_is_told_and_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in the page becomes a line; a page of an earlier run doesn't stay behind as if it were this one's."""

    def broken(content: object, path: Path) -> Path:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(subject, "write_report", broken)
    (tmp_path / "report.html").write_text("an old page")

    told = subject.try_report(fake_result(), tmp_path)

    assert told == "no report was written: ZeroDivisionError: a bug"
    assert not (tmp_path / "report.html").exists()


def test_study_writes_its_page_and_shows_itself(tmp_path: Path) -> None:
    """``report`` and the notebook display; text from outside stays text there too."""
    study = Study(fake_result(), tmp_path)

    page = study.report()

    assert page == tmp_path / "report.html"
    shown = Study(hostile(), tmp_path)._repr_html_()
    assert "<script>" not in shown
    assert "<img" not in shown
    assert "The budget is met" in study._repr_html_()


@pytest.mark.parametrize("plot", ["plot_pareto", "plot_history", "plot_importance", "plot_budget"])
def test_plots_are_figures_of_the_trials(plot: str, tmp_path: Path) -> None:
    """Each has marks, serialises, and doesn't take markup from names."""
    pytest.importorskip("plotly", reason="plotly is not installed: a study's plots are not looked at")
    for result in (searched(40), fake_result(), hostile(), replace(fake_result(), trials=(), best=None)):
        figure = getattr(Study(result, tmp_path), plot)()

        told = json.loads(figure.to_json())
        texts = json.dumps(told, ensure_ascii=False)
        assert "<script>" not in texts
        assert "<img" not in texts
    figure = getattr(Study(searched(40), tmp_path), plot)()
    assert sum(len(trace.x) for trace in figure.data if trace.x is not None) >= 3


def test_pareto_takes_any_two_axes(tmp_path: Path) -> None:
    """As the interface promises."""
    pytest.importorskip("plotly", reason="plotly is not installed: a study's plots are not looked at")

    figure = Study(searched(40), tmp_path).plot_pareto("latency_p50_ms", "size_mb")

    assert figure.layout.xaxis.title.text == "latency p50 (ms), less is better"
    assert sum(len(t.x) for t in figure.data if t.mode == "markers") == 40


def found_besides() -> StudyResult:
    """A result in which nothing fits, with all that may be found besides a winner, and hostile names in it."""
    result = fake_result(Status.NO_FIT)
    assert result.nearest is not None
    limits = [Limit("size_mb", 1.0), Limit("quality_drop", 0.0)]
    needed = [Limit("size_mb", 1.25), Limit("quality_drop", 0.02)]
    ways = tuple(
        Relaxation(now, then, "abc", i, {"latency_p50_ms": fake_measurement("latency_p50_ms", 0.4)}, i == 1)
        for i, (now, then) in enumerate(zip(limits, needed, strict=True), 1)
    )
    return replace(
        result,
        fallbacks=(Fallback(result.nearest, False, HOSTILE),),
        binding=(Binding("size_mb", 5, 2, 3),),
        relaxations=ways,
        not_tried=(NotTried("technique", HOSTILE, Lack.LIBRARY, HOSTILE, "pip install it"),),
        stages=(StageCost("build", 4, 8.0, 1, 2.0), StageCost("energy")),
        explanation=f"All was out. Any one of these would do: {'; '.join(w.text for w in ways)}. Not tried: a.",
    )


def test_page_tells_what_was_found_besides_in_plain_words() -> None:
    """A table with a sentence for each, without words of the program's own; a result without them has none."""
    page = Page(render_page(Content(found_besides())))

    for words in (
        "If the winner is too slow",
        "would have to be",
        "25% higher",
        "break it and keep all others",
        "building the file 4 2.5 2 s of 4 trials from the cache 1 (25%)",
        "pip install it",
        "could not be used here, or had no turn before the search ended",
    ):
        assert words in page.text, words
    for word in ("kill", "sole", "price", "binding", "reading energy"):
        assert word not in page.text.lower(), word
    assert page.count("script") == 1
    assert "extra-" not in render_page(Content(fake_result()))


def test_ways_out_are_a_list_in_the_explanation() -> None:
    """Each can be read by itself; what stands before and after them stays."""
    result = found_besides()

    text = render_page(Content(result))

    items = [f"<li>{escaped(way.text)}</li>" for way in result.relaxations]
    assert (
        f'Any one of these would do:</p><ul class="note">{"".join(items)}</ul><p class="note">Not tried: a.</p>' in text
    )
