"""What a later result may add: fallbacks, relaxations, the price of each stage. Shown where it is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autopilot.profile import Interval
from autopilot.report.content import Content
from autopilot.report.html import Html, el
from autopilot.report.sections.parts import section, table
from autopilot.report.words import figure, setting, span
from autopilot.words import DASH

# Attribute of the result, heading, how it is to be read.
_PARTS = (
    ("fallbacks", "If the winner fails", "The next best variants that keep the budget, in order."),
    ("relaxations", "What would fit", "By how much each limit would have to give."),
    ("binding", "Which limits bind", ""),
    ("not_tried", "Not tried", ""),
    ("stages", "What each stage cost and turned away", ""),
)
# Long texts and nested records stand in the JSON; a table holds what can be read in one.
_LONGEST = 120


def extra_sections(content: Content) -> list[Html]:
    """A table for each part that this result has, whatever its fields are called."""
    found = []
    for name, heading, note in _PARTS:
        records = _records(getattr(content.result, name, None))
        if records:
            found.append(section(f"extra-{name}", heading, _table(records), note=note, is_wide=True))
    return found


def _records(value: Any) -> list[dict[str, Any]]:
    """``value`` as rows: a sequence of records, a mapping of names to records or figures, or nothing."""
    if isinstance(value, Mapping):
        return [{"name": k, **(_fields(v) or {"value": v})} for k, v in value.items()]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_fields(item) or {"value": item} for item in value]
    return []


def _fields(item: Any) -> dict[str, Any]:
    """A record's fields; empty for what is none."""
    as_json = getattr(item, "to_json", None)
    found = as_json() if callable(as_json) else item
    return {str(k): v for k, v in found.items()} if isinstance(found, Mapping) else {}


def _table(records: Sequence[Mapping[str, Any]]) -> Html:
    names = list(dict.fromkeys(name for record in records for name in record))
    cells = [[_text(record.get(name)) for name in names] for record in records]
    kept = [i for i in range(len(names)) if any(row[i] != DASH for row in cells)]
    return table([names[i].replace("_", " ") for i in kept], [[row[i] for i in kept] for row in cells])


def _text(value: Any) -> Html | str:
    """A field in words: an interval with its bounds, settings in a line; a dash for what is too long for a table."""
    if value is None:
        return DASH
    if isinstance(value, Mapping) and "value" in value:
        return _interval(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        text = _flat(value)
        return text if text and len(text) <= _LONGEST else DASH
    return figure(float(value))


def _interval(value: Mapping[str, Any]) -> Html | str:
    found = value["value"]
    if not isinstance(found, (int, float)):
        return DASH
    low, high = value.get("low"), value.get("high")
    if not isinstance(low, (int, float)) or not isinstance(high, (int, float)):
        return figure(found)
    return el("span", figure(found), el("small", span(Interval(found, low, high))))


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_flat(v)}" for k, v in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_flat(v) for v in value)
    return setting(value)
