"""What a study's speedups and relative limits are against, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class BaselineChoice:
    """Whether the baseline is the model as given or another plain way of running it.

    ``name``: what that is called, empty for the model as given. ``reason``: in a sentence, why it is the baseline;
    empty where there was nothing to choose from.
    """

    name: str = ""
    reason: str = ""

    @property
    def as_given(self) -> bool:
        return not self.name

    @property
    def text(self) -> str:
        """The baseline in the middle of a sentence.

        >>> BaselineChoice().text, BaselineChoice("float16").text
        ('the model as given', 'the baseline (float16)')
        """
        return f"the baseline ({self.name})" if self.name else "the model as given"

    def to_json(self) -> dict[str, Any]:
        return {"as_given": self.as_given, "name": self.name or None, "reason": self.reason or None}

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | None) -> BaselineChoice:
        """The choice in a result; one without (of an earlier version) had the model as given."""
        value = value or {}
        return cls(str(value.get("name") or ""), str(value.get("reason") or ""))
