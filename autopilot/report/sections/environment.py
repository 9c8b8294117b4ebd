"""The machine that measured, and how to do it again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from autopilot.report.content import Content
from autopilot.report.html import Html, clean, el
from autopilot.report.sections.parts import facts, section
from autopilot.report.words import setting
from autopilot.words import counted, percent

_GIB = 2**30
# Told in words of their own, or of no use to a reader.
_OWN_WORDS = ("noise", "versions", "memory_bytes")


def warnings_section(content: Content) -> Html | None:
    """What a reader should know before believing the figures."""
    warnings = content.result.warnings
    if not warnings:
        return None
    return section("warnings", "Warnings", el("ul", *(el("li", w) for w in warnings)), is_wide=True)


def environment_section(content: Content) -> Html:
    """Machine, versions, noise."""
    given = content.result.environment
    rows = [(name.replace("_", " "), _said(value)) for name, value in given.items() if name not in _OWN_WORDS]
    memory = given.get("memory_bytes")
    if isinstance(memory, (int, float)):
        rows.append(("memory", f"{memory / _GIB:.1f} GiB"))
    noise = given.get("noise")
    if isinstance(noise, Mapping):
        rows.append(("noise", _noise(noise)))
    versions = given.get("versions")
    if isinstance(versions, Mapping):
        rows.append(("versions", ", ".join(f"{k} {v}" for k, v in versions.items())))
    told = facts((name, value) for name, value in rows if value)
    return section(
        "environment", "Measured on", told, note="The figures hold for this machine: search where you serve."
    )


def _said(value: Any) -> str:
    """A fact in a line; empty where there is nothing to say."""
    if isinstance(value, Mapping):
        if set(value) == {"source", "reason"}:
            return str(value["source"] or f"none: {value['reason']}")
        return ", ".join(f"{k} {_said(v)}" for k, v in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_said(v) for v in value) or "none"
    return "" if value in (None, "") else setting(value)


def _noise(noise: Mapping[str, Any]) -> str:
    """What the control found, in a sentence; the fields as they are where they aren't those of this version."""
    try:
        median, p99, pairs = float(noise["p50_percent"]) / 100, float(noise["p99_percent"]) / 100, int(noise["pairs"])
    except (KeyError, TypeError, ValueError):
        return _said(noise)
    apart = f"medians up to {percent(median, 2)} apart, p99 up to {percent(p99, 2)}"
    return f"the same model in {counted(pairs + 1, 'process', 'processes')} had {apart}; every interval carries that"


def reproduce_section(content: Content) -> Html:
    """The commands that show, check and load this result again."""
    result, folder = content.result, content.folder or f"runs/{content.result.name}"
    where, spec = _quoted(folder), _quoted(result.spec) if result.spec else "SPEC"
    # In this folder it would go on with this result, or take its place.
    again = _quoted(f"{folder.rstrip('/')}-again")
    lines = [("search again with the same spec, in another folder", f"autopilot run {spec} --out {again}")]
    lines.append(("every verdict again from the raw readings", f"autopilot show {where} --samples"))
    if content.chosen is not None:
        bundle = _quoted(f"{folder}/{content.chosen.artifact.rpartition('/')[0] or 'best'}")
        lines.append((f"measure the {content.chosen_name} again", f"autopilot check {bundle} {spec}"))
        lines.append(("load it", f"python -c 'import autopilot; runner = autopilot.load({_python(bundle)})'"))
    shown = [el("li", text, el("pre", el("code", line))) for text, line in lines]
    rows: list[tuple[str, object]] = []
    if result.mlflow is not None:
        model = (
            f"model {result.mlflow.model} version {result.mlflow.version}, "
            if result.mlflow.version is not None
            else ""
        )
        rows.append(("MLflow", f"{model}experiment {result.mlflow.experiment}, run {result.mlflow.run_id}"))
        rows.append(("tracking store", result.mlflow.tracking_uri))
    note = "Paths are as seen from the folder in which the run was started." + " SPEC is its spec." * (not result.spec)
    parts = (el("ul", *shown, class_="steps"), facts(rows) if rows else None)
    return section("reproduce", "How to reproduce it", *parts, note=note)


def _quoted(path: str) -> str:
    return shlex.quote(clean(path))


def _python(quoted: str) -> str:
    """A shell-quoted path as a Python string inside of single quotes of the shell."""
    plain = shlex.split(quoted)[0]
    text = plain.replace("\\", "\\\\").replace('"', '\\"').replace("'", "\\x27")
    return f'"{text}"'
