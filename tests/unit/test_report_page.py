"""The page: whole for every ending and every missing piece, and closed to what names and logs bring."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from autopilot.errors import BadInput
from autopilot.profile import Interval, StageShare, StageShares
from autopilot.report import Content, Readings, render_page, write_report
from autopilot.result import Status, StudyResult
from autopilot.search.reporting import seen_from
from autopilot.testing import fake_result, unbounded
from tests.report_support import HOSTILE, HOSTILE_NAME, Page, duplicate, hostile, readings, searched


def page_of(result: StudyResult, given: Readings | None = None) -> Page:
    """The parsed page; it is well formed."""
    page = Page(render_page(Content(result, given or readings())))
    assert (page.wrong, page.unclosed) == ([], [])
    return page


def endings() -> list[StudyResult]:
    """Results of all kinds, down to one with nothing in it."""
    whole = [fake_result(status) for status in Status]
    bare = replace(whole[1], best=None, nearest=None, trials=(), pareto=(), environment={}, explanation="")
    given = replace(whole[0], best=whole[0].baseline)
    unmeasured = replace(whole[1], trials=tuple(replace(t, measured={}, verdict=None) for t in whole[1].trials))
    noise = {"p50_percent": 0.3, "p99_percent": 724.0, "pairs": 4}
    one = replace(whole[1], trials=whole[1].trials[:1], environment={"noise": noise})
    return [*whole, bare, given, unmeasured, one, unbounded(whole[0]), duplicate(whole[0]), searched(12)]


@pytest.mark.parametrize("result", endings(), ids=range(len(endings())))
@pytest.mark.parametrize(
    "given", [readings(), readings(1), Readings(note="none were kept")], ids=["many", "one", "none"]
)
def test_page_is_well_formed_and_whole_whatever_is_missing(result: StudyResult, given: Readings) -> None:
    """Every element closes, the main sections stand, and no figure reads as Python's nan, inf or None."""
    page = page_of(result, given)

    ids = {attributes.get("id") for _, attributes in page.tags}
    assert {"budget", "latency", "trials", "environment", "reproduce"} <= ids
    assert not re.search(r"\b(nan|inf|None)\b", page.text)
    assert not re.search(r"\b1 (?:trials|others|runs|limits|readings|samples|processes)\b|\de[+-]\d+%", page.text)
    assert not [a for _, attributes in page.tags for a in attributes.values() if a and re.search(r"\b(nan|inf)\b", a)]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (Status.IN_BUDGET, ["The budget is met: trial 1 keeps all 3 limits", "2.50 times as fast"]),
        (
            Status.NO_FIT,
            ["Nothing that was tried fits the budget", "trial 1, breaks latency_p50_ms (<= 70% of baseline)"],
        ),
        (Status.UNDECIDED, ["Undecided", "too near the limit to tell on latency_p50_ms"]),
    ],
)
def test_verdict_is_a_sentence(status: Status, words: list[str]) -> None:
    """It names the trial, what it keeps or breaks, and what was won."""
    text = page_of(fake_result(status)).text

    assert all(word in text for word in words), text[:400]


def test_model_as_given_as_winner_is_said_so() -> None:
    """Nothing is claimed to be faster than itself."""
    result = fake_result()

    text = page_of(replace(result, best=result.baseline)).text

    assert "The budget is met by the model as given" in text
    assert "times as fast" not in text


def test_no_text_from_outside_becomes_markup() -> None:
    """Names, recipes, reasons and logs add no element, no attribute and no script, and stay readable."""
    page = page_of(hostile())

    plain = page_of(fake_result())
    assert page.count("script") == plain.count("script") == 1
    assert page.count("img") == 0
    assert not [a for _, attributes in page.tags for a in attributes if a.startswith("on")]
    assert page.text.count("<script>alert(1)</script>") > 10


def test_page_can_be_encoded_whatever_a_text_holds() -> None:
    """Lone surrogates, control characters and direction marks are replaced."""
    text = render_page(Content(hostile(), readings(), folder=HOSTILE))

    text.encode("utf-8")
    assert not re.search("[\x00\x1b\ud800\u202e]", text)
    assert Page(text).count("script") == 1


def test_name_can_not_close_title_or_style() -> None:
    """The head holds text from outside too."""
    page = page_of(replace(fake_result(), name=HOSTILE_NAME))

    assert page.count("style") == 1
    assert page.count("script") == 1


def test_page_loads_nothing_from_anywhere() -> None:
    """No address of another file, and a policy that forbids one; only the page's own script may run."""
    text = render_page(Content(searched(), readings()))
    page = Page(text)

    links = [a for _, attributes in page.tags for a in attributes if a in ("src", "href", "srcset", "data", "action")]
    assert links == []
    assert "url(" not in text
    assert "http://" not in text
    assert "https://" not in text
    policy = next(a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "script-src 'sha256-" in policy


def test_seconds_of_a_trial_are_those_that_were_spent() -> None:
    """What came from a cache was paid for in another run: the hours it saved are no part of this one's."""
    result = fake_result(Status.IN_BUDGET)
    spent = {"build": 1.5, "build_saved": 7000.0, "shapes": 20.0, "profile": 2.25}
    page = page_of(replace(result, trials=tuple(replace(t, seconds=spent) for t in result.trials)))

    shown = [a["data-v"] for tag, a in page.tags if tag == "td" and a.get("data-v")]
    assert shown.count("23.75") == len(result.trials)


def test_page_of_sixty_trials_is_small() -> None:
    """A page to mail: a small share of what an inlined chart library alone would take (4.5 MB)."""
    assert len(render_page(Content(searched(60), readings(100_000)))) < 500_000


def test_every_trial_has_a_row_and_a_sortable_figure() -> None:
    """The table is whole without its script; figures carry their value for sorting."""
    page = page_of(searched(20))

    rows = [a for t, a in page.tags if t == "tr" and "data-verdict" in a]
    values = [a["data-v"] for t, a in page.tags if t == "td" and a.get("class") == "n" and "data-v" in a]
    assert len(rows) == 20
    assert len([v for v in values if v is not None and float(v) > 0]) >= 20


def test_readings_that_are_missing_are_said_to_be() -> None:
    """With the reason; nothing is drawn in their place."""
    page = page_of(fake_result(), Readings(note="they were removed"))

    assert "Not shown: they were removed." in page.text
    assert "tail" not in {attributes.get("id") for _, attributes in page.tags}


def test_failures_are_grouped_by_class_with_their_logs() -> None:
    """Class, trial, reason, last lines."""
    text = page_of(fake_result()).text

    assert "Failures by class" in text
    assert "trial 2 : the quantizer raised" in text
    assert "Traceback: boom" in text


def test_stages_are_shown_where_a_spec_has_hooks() -> None:
    """Milliseconds and share of each."""
    share = StageShare(0.002, Interval(0.25, 0.2, 0.3))
    result = fake_result()
    assert result.best is not None

    text = page_of(replace(result, best=replace(result.best, stages=StageShares(share, share, share)))).text

    assert "preprocess" in text
    assert "25%" in text


def test_report_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """The file is the page; a folder that isn't there is bad input and leaves nothing."""
    path = write_report(Content(fake_result()), tmp_path / "page.html")

    assert path.read_text(encoding="utf-8") == render_page(Content(fake_result()))
    with pytest.raises(BadInput, match="can't be written"):
        write_report(Content(fake_result()), tmp_path / "gone" / "page.html")
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_commands_to_reproduce_name_the_spec_and_the_folder_as_they_were_given() -> None:
    """They can be copied into a shell as they stand, whatever is in a path."""
    result = replace(fake_result(), spec="my examples/digits/spec.yaml")

    text = Page(render_page(Content(result, folder=f"runs/{result.name}"))).text
    elsewhere = Page(render_page(Content(result, folder="out dir"))).text
    unknown = Page(render_page(Content(fake_result()))).text

    assert f"autopilot run 'my examples/digits/spec.yaml' --out runs/{result.name}-again every" in text
    assert "--fresh" not in text  # it would remove the result that the page is of
    assert f"autopilot check runs/{result.name}/best 'my examples/digits/spec.yaml'" in text
    assert "autopilot run 'my examples/digits/spec.yaml' --out 'out dir-again'" in elsewhere
    assert f"autopilot check runs/{result.name}/best SPEC" in unknown
    assert "SPEC is its spec" in unknown
    assert "spec.yaml" not in unknown


@pytest.mark.parametrize(
    ("given", "shown"),
    [("examples/spec.yaml", "examples/spec.yaml"), ("../spec.yaml", "../spec.yaml"), ("no.yaml", "")],
)
def test_spec_is_named_as_seen_from_where_the_run_was_started(tmp_path: Path, given: str, shown: str) -> None:
    """The path that a user typed; nothing for a spec that is no file."""
    work = tmp_path / "work"
    (work / "examples").mkdir(parents=True)
    for file in (work / "examples" / "spec.yaml", tmp_path / "spec.yaml"):
        file.write_text("name: x")

    assert seen_from(work, work / given) == shown
