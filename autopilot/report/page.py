"""The page: sections in the order in which questions come up, with style and script inlined."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from autopilot.report.content import Content
from autopilot.report.html import Html, el, joined
from autopilot.report.sections.budget import budget_section, comparison_section
from autopilot.report.sections.costs import costs_section, latency_sections
from autopilot.report.sections.environment import environment_section, reproduce_section, warnings_section
from autopilot.report.sections.extras import extra_sections
from autopilot.report.sections.search import history_section, knobs_sections, trade_off_section
from autopilot.report.sections.trials import failures_section, trials_section
from autopilot.report.sections.verdict import header


def render_page(content: Content) -> str:
    """The whole report as HTML: one file that loads nothing from anywhere."""
    style, script = _asset("style.css"), _asset("page.js")
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=_policy(script)),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", f"{content.result.name}: autopilot report"),
        el("style", Html(style)),
    )
    body = el(
        "body", el("main", header(content), el("div", *_sections(content), class_="grid")), el("script", Html(script))
    )
    return joined(Html("<!doctype html>\n"), el("html", head, body, lang="en"), Html("\n"))


def _sections(content: Content) -> list[Html | None]:
    return [
        budget_section(content),
        warnings_section(content),
        comparison_section(content),
        trade_off_section(content),
        history_section(content),
        *latency_sections(content),
        *knobs_sections(content),
        costs_section(content),
        *extra_sections(content),
        trials_section(content),
        failures_section(content),
        environment_section(content),
        reproduce_section(content),
    ]


def _asset(name: str) -> str:
    return (resources.files("autopilot.report") / "assets" / name).read_text(encoding="utf-8")


def _policy(script: str) -> str:
    """Nothing is loaded and no script runs but the page's own, whatever a name or a log holds."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
