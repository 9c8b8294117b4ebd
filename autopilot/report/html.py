"""HTML and SVG as text: whatever isn't markup already is escaped when it is put into an element."""

from __future__ import annotations

import html
import re
from typing import Any

# Characters that have no place in a page: control characters, halves of surrogate pairs (they can't be
# encoded), and marks that turn the direction of text, with which a name could pretend to be another.
_FORBIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
_REPLACEMENT = "\ufffd"
_VOID = frozenset({"meta", "input", "br", "hr", "link", "img", "col"})


class Html(str):
    """Text that is markup and needs no escaping. Made by ``el``, ``escaped`` and ``joined`` only."""

    __slots__ = ()


def clean(text: object) -> str:
    """``text`` without characters that no page may hold; each becomes U+FFFD.

    >>> clean("a\\x00b") == "a\\ufffdb"
    True
    """
    return _FORBIDDEN.sub(_REPLACEMENT, str(text))


def escaped(text: object) -> Html:
    """``text`` as markup: itself where it is markup, else escaped.

    >>> escaped("<b>")
    '&lt;b&gt;'
    """
    return text if isinstance(text, Html) else Html(html.escape(clean(text), quote=True))


def joined(*parts: object, between: str = "") -> Html:
    """All parts, escaped where needed, one after the other; None is left out."""
    return Html(str(escaped(between)).join(escaped(p) for p in parts if p is not None))


def el(tag: str, *children: object, **attributes: Any) -> Html:
    """One element. Children that aren't markup are escaped; None is left out.

    A trailing underscore of an attribute's name is dropped and others become hyphens (``class_``,
    ``data_v``); True gives a bare attribute, None and False none at all.

    >>> el("a", "x < y", href="#t", data_v=1.5, hidden=False)
    '<a href="#t" data-v="1.5">x &lt; y</a>'
    """
    said = "".join(_attribute(name, value) for name, value in attributes.items())
    if tag in _VOID:
        return Html(f"<{tag}{said}>")
    return Html(f"<{tag}{said}>{joined(*children)}</{tag}>")


def _attribute(name: str, value: Any) -> str:
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    text = f"{value:.6g}" if isinstance(value, float) else value
    return f' {name}="{escaped(str(text))}"'
