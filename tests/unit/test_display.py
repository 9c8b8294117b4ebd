"""What people see: tables that fit 80 columns, progress that fits a log or a terminal."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from autopilot.display import (
    PlainObserver,
    RichObserver,
    make_observer,
    render_check,
    render_result,
    render_samples,
)
from autopilot.errors import Failure
from autopilot.observer import NullObserver, Observer
from tests.unit import results


def shown(renderable: RenderableType, width: int = 80) -> str:
    """``renderable`` as plain text."""
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None, highlight=False).print(renderable)
    return stream.getvalue()


@dataclass
class Ended:
    """A finished trial."""

    number: int = 3
    state: str = "complete"
    failure: Failure | None = None
    reason: str = ""


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def watch(observer: Observer) -> None:
    """A short study."""
    observer.phase("measuring the model as given")
    observer.trial_started(3, 40, 125.0, "static_int8(per_channel=True)", "cpu, 1 thread")
    observer.doing("building static_int8")
    observer.trial_finished(Ended(), "latency_p50_ms 0.41, 40% of baseline", "latency_p50_ms in, quality_drop in")
    observer.note("the machine is noisy")
    observer.finished()


# ---- the result ------------------------------------------------------------------------------------


def test_result_says_everything_in_one_look() -> None:
    """Limits with value, interval and verdict, speedup, recipe, deployment, file, digest, MLflow version."""
    text = shown(render_result(results.result(), Path("runs/fashion-cpu")))

    assert "fashion-cpu: IN BUDGET" in text
    assert "2.51 times as fast as the baseline (2.44..2.58)" in text
    row = next(line for line in text.splitlines() if line.startswith("latency_p99_ms"))
    assert row.split() == ["latency_p99_ms", "<=", "2", "-", "0.81", "0.79..0.84", "in"]
    relative = next(line for line in text.splitlines() if line.startswith("latency_p50_ms"))
    assert relative.split()[-4:] == ["1.02", "0.4181", "40%..43%", "in"]
    assert "static_int8 (per_channel yes, activations uint8)" in text
    assert "cpu, 1 thread, batch 1, spinning no" in text
    assert "runs/fashion-cpu/best/model.onnx" in text
    assert "5" * 64 in text
    assert "model fashion-cpu version 2" in text
    assert "2% on every limit" in text


def test_axis_without_value_shows_no_number_but_the_reason() -> None:
    """A number is never made up, and the reason stands beneath the table."""
    text = shown(render_result(results.result()))

    row = next(line for line in text.splitlines() if line.startswith("energy_mj "))
    assert row.split() == ["energy_mj", "<=", "5", "-", "-", "not", "measurable"]
    assert "energy_mj: not measurable: no RAPL counter" in text


def test_explanation_is_shown_when_nothing_fits() -> None:
    """The nearest miss and what would admit it."""
    text = " ".join(shown(render_result(results.result("no_fit"))).split())

    assert "NOTHING FITS THE BUDGET" in text
    assert "nearest miss" in text
    assert "a limit of 2.4 would admit it" in text
    assert "nearest/model.onnx" in text


def test_result_without_any_candidate_is_shown() -> None:
    """Every trial failed: there is a baseline, and that is all."""
    text = shown(render_result(results.result("undecided", nearest=None, mlflow=None)))

    assert "UNDECIDED" in text
    assert "no variant could be measured" in text


def test_winning_baseline_is_called_so() -> None:
    """When the model as given is best, nobody should look for what was done to it."""
    best = results.candidate("in", "best/model.onnx") | {
        "recipe": [],
        "speedup": {"value": 1.0, "low": 1.0, "high": 1.0},
    }
    text = shown(render_result(results.result(best=best)), width=100)

    assert "the model as given is the best" in text
    assert "none: the model as given" in text


def test_unbounded_interval_is_shown() -> None:
    """result.json has null where an interval has no bound."""
    best = results.candidate("undecided", "best/model.onnx")
    best["measured"]["latency_p99_ms"] = results.measured(0.8) | {"low": 0.7, "high": None}
    best["measured"]["latency_p50_ms"]["ratio"] = {"value": 0.4, "low": None, "high": 0.5}

    text = shown(render_result(results.result(best=best)))

    assert "0.7 or more" in text
    assert "50% or less" in text


def test_lower_bound_of_zero_of_a_ratio_is_none() -> None:
    """Nothing runs in no time: 0% says that nothing is known on that side."""
    best = results.candidate("undecided", "best/model.onnx")
    best["measured"]["latency_p50_ms"]["ratio"] = {"value": 0.4, "low": 0.0, "high": 0.544}

    assert "54.4% or less" in shown(render_result(results.result(best=best)))


def test_speedup_without_bounds_is_said_to_have_none() -> None:
    """A bound of 0 would pretend that something is known of it."""
    best = results.candidate("in", "best/model.onnx") | {"speedup": {"value": 0.93, "low": 0.0, "high": None}}

    assert "0.93 times as fast as the baseline (no bounds)" in shown(render_result(results.result(best=best)))


@pytest.mark.parametrize("status", ["in_budget", "no_fit"])
def test_result_says_how_to_open_its_report_and_mlflows_page(tmp_path: Path, status: str) -> None:
    """Nobody looks for what they aren't told of; a report that isn't there is not named."""
    before = " ".join(shown(render_result(results.result(status), tmp_path), width=200).split())
    (tmp_path / "report.html").write_text("")
    text = " ".join(shown(render_result(results.result(status), tmp_path), width=200).split())
    server = results.result(status)
    server["mlflow"]["tracking_uri"] = "https://mlflow.here"

    assert "report.html" not in before
    assert f"report {tmp_path / 'report.html'}, a page for the browser" in text
    assert "to be seen with: autopilot ui" in text
    assert "to be seen at https://mlflow.here" in shown(render_result(server), width=200)


def test_figures_and_counts_read_as_people_write_them() -> None:
    """No exponents, and one trial is a trial."""
    noise = {"p50_percent": 0.3, "p99_percent": 724.0, "pairs": 4}
    whole = results.result(environment={"noise": noise}, trials=[{"number": 0}])

    text = shown(render_result(whole))

    assert "p99 720%, in 5 processes" in text
    assert "1 trial in 183 s" in text


@pytest.mark.parametrize("status", ["in_budget", "no_fit", "undecided"])
def test_result_fits_80_columns(status: str) -> None:
    """No line is longer, and no axis or limit is cut."""
    text = shown(render_result(results.result(status)), width=80)

    assert max(len(line) for line in text.splitlines()) <= 80
    assert "…" not in text
    assert "<= 60% of base" in text


def test_square_brackets_in_texts_are_no_markup() -> None:
    """A name like [bold] is a name."""
    assert "[bold]x[/]" in shown(render_result(results.result(name="[bold]x[/]")))


def test_check_shows_limits_and_verdict() -> None:
    """The gate's table has the model's own figures and no baseline column."""
    check = results.candidate("out", "m.onnx") | {"status": "no_fit", "model": "m.onnx", "budget": results.LIMITS}

    text = shown(render_check(check))

    assert "m.onnx: NOT IN BUDGET" in text
    assert "baseline" not in text.splitlines()[2]
    assert next(line for line in text.splitlines() if line.startswith("latency_p99_ms")).split()[-1] == "out"


@pytest.mark.parametrize(("verdict", "said"), [("undecided", True), ("in", False), ("out", False)])
def test_check_says_what_to_do_about_a_percentile_without_an_upper_bound(verdict: str, said: bool) -> None:
    """3,332 requests for the 368 that it takes look like enough: why they aren't, and what would be."""
    check = results.candidate(verdict, "m.onnx") | {"status": "undecided", "model": "m.onnx", "budget": results.LIMITS}
    check["measured"]["latency_p99_ms"] = results.measured(8.4, 7.3, None) | {"how": "3332 requests in 42 blocks"}

    text = " ".join(shown(render_check(check)).split())

    assert ("no upper bound: too few requests" in text) is said
    assert ("search.measure_cap" in text and "3332 requests in 42 blocks" in text) is said


def test_single_reading_is_called_so() -> None:
    """A figure read once has no interval, and none is shown."""
    best = results.candidate("in", "best/model.onnx")
    best["measured"]["quality_drop"] = results.measured(66.1, 66.1, 66.1) | {"n": 1}

    text = shown(render_result(results.result(best=best)))

    row = next(line for line in text.splitlines() if line.startswith("quality_drop"))
    assert row.split()[-4:] == ["66.1", "one", "reading", "in"]


def costs(sides: int, rows: int = 12) -> dict[str, Any]:
    """Stages and operators of a candidate, as result.json holds them."""
    operators = [
        {
            "operator": f"Operator{i}",
            "provider": "CPUExecutionProvider",
            "dtype": "uint8" if sides == 2 else "float32",
            "weights": "int8" if sides == 2 else "",
            "count": 2.0,
            "seconds": 0.001 / 2**i,
            "share": 2.0 ** -(i + 1) / (1 - 2.0**-rows),
        }
        for i in range(rows)
    ]
    stage = {"seconds": 0.0002, "share": {"value": 0.2, "low": 0.1, "high": 0.3}}
    inference = {"seconds": 0.0006, "share": {"value": 0.6, "low": 0.5, "high": 0.7}}
    stages = {"preprocess": stage, "inference": inference, "postprocess": stage}
    return {"operators": {"rows": operators, "covered": 0.95, "requests": 50}, "stages": stages}


def test_costs_stand_side_by_side_and_add_up() -> None:
    """The dearest operators of either side, the rest in one row, in 80 columns."""
    best = results.candidate("in", "best/model.onnx") | costs(2)
    baseline = results.result()["baseline"] | costs(1)
    text = shown(render_result(results.result(best=best, baseline=baseline)))

    assert max(len(line) for line in text.splitlines()) <= 80
    lines = text.splitlines()
    assert next(line for line in lines if line.startswith("inference")).split() == [
        "inference", "0.6", "60.0%", "0.6", "60.0%",
    ]  # fmt: skip
    first = next(i for i, line in enumerate(lines) if line.startswith("operator (ms a request)"))
    rows = lines[first + 1 : first + 10]
    assert rows[0].split() == ["Operator0", "float32", "1", "50.0%", "2"]
    assert rows[1].split() == ["Operator0", "uint8*int8", "1", "50.0%", "2"]
    assert rows[8].startswith("16 others")
    shares = [float(word[:-1]) for row in rows for word in row.split() if word.endswith("%")]
    assert sum(shares) == pytest.approx(200, abs=1)
    assert "baseline 95.0%, winner 95.0%" in text


def test_result_without_costs_shows_no_empty_table() -> None:
    """Older results have neither key; a provider without a profiler leaves null."""
    for more in ({}, {"operators": None, "stages": None}):
        best = results.candidate("in", "best/model.onnx") | more
        text = shown(render_result(results.result(best=best)))

        assert "operator (ms" not in text
        assert "stage (ms" not in text


def test_provider_is_named_where_there_are_several() -> None:
    """Operators that fell back stand out."""
    taken = costs(1, rows=2)
    taken["operators"]["rows"][1]["provider"] = "CUDAExecutionProvider"
    check = results.candidate("in", "m.onnx") | taken | {"status": "in_budget", "model": "m", "budget": results.LIMITS}
    text = shown(render_check(check))

    assert "Operator0 float32 CPU" in text
    assert "Operator1 float32 CUDA" in text


def test_table_that_the_profiler_distorts_says_so() -> None:
    """Nodes of a microsecond take longer to time than to run."""
    taken = costs(1)
    taken["operators"]["covered"] = 4.2
    best = results.candidate("in", "best/model.onnx") | taken

    assert "far above 100%" in shown(render_result(results.result(best=best)))


def test_operators_are_held_against_the_mean_latency_which_is_told() -> None:
    """A busy machine's mean is far above the median in the table of limits: unsaid, the two tables contradict."""
    taken = costs(1)
    taken["operators"]["latency_s"] = 0.000664
    best = results.candidate("in", "best/model.onnx") | taken

    text = shown(render_result(results.result(best=best)))

    assert "operators over mean latency without profiler: winner 95.0% of 0.664 ms" in text


def test_baseline_that_is_chosen_has_one_column_of_operators() -> None:
    """Two passes over one model in one deployment differ by chance alone."""
    whole = results.result("no_fit")
    whole["baseline"] |= costs(1)
    whole["nearest"] = dict(whole["baseline"])

    text = shown(render_result(whole))

    (head,) = [line.split() for line in text.splitlines() if line.startswith("operator (")]
    assert head == ["operator", "(ms", "a", "request)", "baseline", "share", "runs"]


def test_warnings_of_the_result_are_shown() -> None:
    """What the page warns of is on the terminal too, as far as there is room."""
    warnings = [f"machine was slower during trial {i}" for i in range(5)]

    text = shown(render_result(results.result(warnings=warnings)))

    assert [line.split()[-1] for line in text.splitlines() if line.startswith("warning ")] == ["0", "1", "2"]
    assert "2 more in the report" in text


def test_recomputed_figures_lose_no_digit_in_80_columns() -> None:
    """Where columns are too wide they are folded: a figure that ends in dots says nothing."""
    ratio = {"value": 0.0214, "low": 0.0193, "high": 0.0243}
    figures = {
        "latency_p95_ms": {"n": 5880, "value": 0.179611, "low": 0.16, "high": 0.2, "how": "", "ratio": ratio},
        "provider_node_share": {"n": 1, "value": 1.0, "low": 1.0, "high": 1.0, "how": "", "ratio": ratio},
        "quality_drop": {"n": 3078, "value": -0.000324886, "low": -0.00225, "high": 0.00297, "how": ""},
        "throughput_rps": {"n": 5880, "value": 3043.92, "low": 2741.0, "high": 3851.0, "how": "", "ratio": ratio},
    }
    said = {"overall": "in", "verdict": {}}
    row = {"what": "trial", "trial": 7, "stored": said, "recomputed": said, "agrees": True, "deviation": 0.0}
    row |= {"axis": None, "note": None, "bytes": 24000, "measured": figures}

    text = shown(render_samples({"rows": [row], "agree": True, "text": ""}, figures=True))

    assert "…" not in text
    for figure in ("provider_node_share", "-0.000324886", "2.74e+03..3.85e+03", "(0.0193..0.0243)"):
        assert figure in text


@pytest.mark.parametrize("width", [30, 50, 60])
def test_narrow_terminal_cuts_no_figure(width: int) -> None:
    """A row becomes a paragraph where the table doesn't fit; no figure ends in dots."""
    best = results.candidate("in", "best/model.onnx") | costs(2)
    whole = results.result(best=best)
    whole["baseline"] |= costs(1)

    text = shown(render_result(whole), width)

    assert "…" not in text
    assert max(len(line) for line in text.splitlines()) <= width
    flat = " ".join(text.split())
    for part in (
        "latency_p99_ms limit <= 2, baseline -, winner 0.81, 95% interval 0.79..0.84, verdict in",
        "Operator0",
    ):
        assert part in flat


def test_single_reading_with_bounds_shows_them() -> None:
    """One process's memory is judged on the spread of starts: those bounds decide, so they are shown."""
    best = results.candidate("in", "best/model.onnx")
    best["measured"]["quality_drop"] = results.measured(66.1, 65.6, 66.6) | {"n": 1}

    text = shown(render_result(results.result(best=best)))

    row = next(line for line in text.splitlines() if line.startswith("quality_drop"))
    assert row.split()[-3:] == ["66.1", "65.6..66.6", "in"]


# ---- progress --------------------------------------------------------------------------------------


def test_plain_observer_writes_one_line_an_event() -> None:
    """What happens inside a trial is left to the live display."""
    stream = io.StringIO()

    watch(PlainObserver(stream))

    assert stream.getvalue().splitlines() == [
        "measuring the model as given",
        "trial 3 (3 of 40 done, 2m5s left): static_int8(per_channel=True) on cpu, 1 thread",
        "trial 3: latency_p50_ms in, quality_drop in; best so far: latency_p50_ms 0.41, 40% of baseline",
        "note: the machine is noisy",
    ]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (Ended(failure=Failure.OOM, state="pruned", reason="needed\nmore"), "failed (oom): needed more"),
        (Ended(state="duplicate"), "the same as an earlier trial"),
        (Ended(state="duplicate", reason="the same as trial 1"), "the same as trial 1"),
        (Ended(state="pruned"), "ended early: size_mb out"),
        (Ended(state="pruned", reason="hopeless"), "ended early (hopeless): size_mb out"),
    ],
)
def test_end_of_a_trial_is_told_in_one_line(record: Ended, expected: str) -> None:
    """Failures name their class and reason, early ends the limit."""
    stream = io.StringIO()

    PlainObserver(stream).trial_finished(record, None, "size_mb out")

    assert stream.getvalue() == f"trial 3: {expected}\n"


def test_live_display_shows_trial_time_best_and_phase() -> None:
    """How many of N are done, time left, what is being done now, the best so far."""
    clock = [0.0]
    observer = RichObserver(Console(file=io.StringIO(), force_terminal=True, width=80), clock=lambda: clock[0])
    observer.trial_started(3, 40, 125.0, "fuse", "cpu")
    observer.trial_finished(Ended(), "latency_p50_ms 0.41", "latency_p50_ms in")
    observer.trial_started(4, 40, 100.0, "static_int8", "cpu")
    clock[0] = 40.0
    observer.doing("scoring")

    text = shown(observer.renderable())
    observer.finished()

    for words in ("4 of 40 done", "1m left", "scoring", "static_int8 on cpu", "latency_p50_ms 0.41"):
        assert words in text
    assert "trial 3: latency_p50_ms in" in text


def test_live_display_starts_no_thread() -> None:
    """A timer's thread would run beside the requests that are being timed."""
    import threading

    before = threading.active_count()
    observer = RichObserver(Console(file=Terminal(), force_terminal=True))
    observer.phase("measuring")

    assert threading.active_count() == before
    observer.finished()
    observer.finished()


@pytest.mark.parametrize(
    ("quiet", "stream", "kind"),
    [(True, Terminal(), NullObserver), (False, io.StringIO(), PlainObserver), (False, Terminal(), RichObserver)],
)
def test_observer_suits_the_stream(
    quiet: bool, stream: io.StringIO, kind: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Live on a terminal, plain lines in a file, nothing when quiet."""
    monkeypatch.setenv("TERM", "xterm")

    assert type(make_observer(quiet, stream)) is kind


def test_every_observer_takes_every_event() -> None:
    """The search may tell any of them anything."""
    for observer in (NullObserver(), PlainObserver(io.StringIO()), RichObserver(Console(file=Terminal()))):
        watch(observer)


def test_front_is_a_table_that_says_what_is_sure() -> None:
    """A row a member with value and interval of each objective; what is open or not verified is said so."""
    member = {
        "id": "abcdef012345",
        "number": 7,
        "certain": False,
        "verified": False,
        "measured": {
            "latency_p50_ms": results.measured(0.4181, 0.41, 0.43, **results.RATIO),
            "quality": results.measured(0.934, 0.93, 0.94),
            "quality_drop": results.measured(0.001, -0.002, 0.004),
        },
    }
    trial = {"number": 7, "recipe": [{"technique": "fuse"}, {"technique": "static_int8"}]}
    whole = results.result(objective=["latency_p50_ms", "quality"], front=[member], trials=[trial])
    text = shown(render_result(whole), width=120)

    assert "objectives latency_p50_ms, quality: 1 on the front; latency_p50_ms 2.51 times as fast" in text
    row = next(line for line in text.splitlines() if line.strip().startswith("7 "))
    assert "0.4181 (0.41..0.43)" in row
    assert "0.934 (loss -0.002..0.004)" in row
    assert "open, screened" in row
    assert "fuse > static_int8" in row
    assert "another variant may be as good" in text


def test_fallbacks_and_comparisons_are_a_line_each() -> None:
    """What a service may degrade to, where it lies, and under which version."""
    rung = results.candidate("in", "fallbacks/1/model.onnx") | {"number": 9, "verified": False, "reason": "1.3 times"}
    ratio = {"value": 0.97, "low": 0.96, "high": 0.98}
    compared = {"faster": 7, "simpler": 5, "ratio": ratio, "verdict": "faster", "rounds": 6, "requests": [9, 9]}
    whole = results.result(fallbacks=[rung], comparisons=[compared])
    whole["mlflow"] |= {"fallbacks": [3]}
    text = " ".join(shown(render_result(whole, Path("runs/x")), width=100).split())

    assert "fallback-1 trial 9, static_int8: 1.3 times (screened, not measured again); runs/x/fallbacks/1/model" in text
    assert "trial 7 takes 0.970 (0.960..0.980) of trial 5's latency_p50_ms" in text
    assert "version 2, fallback-1 3" in text


def test_speedup_of_a_study_of_size_is_called_latency() -> None:
    """Of an objective that is no time the speedup is the median latency's."""
    text = " ".join(shown(render_result(results.result(objective="size_mb")), width=100).split())

    assert "objective size_mb; latency_p50_ms 2.51 times as fast as the baseline" in text
