"""What sections are made of: headings, tables, verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from autopilot.budget import Judgement
from autopilot.report.html import Html, el
from autopilot.report.words import JUDGED


def section(name: str, heading: str, *body: object, note: str = "", is_wide: bool = False) -> Html:
    """One card of the page; ``note`` says below the heading how it is to be read."""
    head = el("h2", heading, id=f"{name}-h")
    said = el("p", note, class_="note") if note else None
    classes = "card wide-card" if is_wide else "card"
    return el("section", head, said, *body, id=name, class_=classes, aria_labelledby=f"{name}-h")


def verdict(judgement: Judgement | None) -> Html | None:
    """A verdict as sign and word."""
    if judgement is None:
        return None
    sign, word = JUDGED[judgement]
    return el("span", el("span", sign, aria_hidden="true"), " ", word, class_=f"verdict {judgement.value}")


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], *, classes: str = "") -> Html:
    """A table whose rows become blocks with labels on a phone; a cell that is markup of a ``td`` is taken as it is."""
    head = el("tr", *(el("th", h, scope="col") for h in heads))
    body = [el("tr", *(_cell(c, h) for c, h in zip(row, heads, strict=True))) for row in rows]
    return el("table", el("thead", head), el("tbody", *body), class_=f"stacks {classes}".strip())


def _cell(content: object, head: str) -> Html:
    return el("td", content, data_label=head)


def facts(rows: Iterable[tuple[str, object]]) -> Html:
    """Names with what they stand for."""
    return el("dl", *(part for name, value in rows for part in (el("dt", name), el("dd", value))), class_="facts")


def number(text: object, below: object = None) -> Html:
    """A figure, with something smaller below it."""
    return el("span", text, el("small", below) if below else None, class_="num")
