"""OpenVINO's errors, all of them RuntimeErrors, as ours and in a line that a user can read."""

from __future__ import annotations

import re
from typing import NoReturn

from autopilot.errors import Failure, Unsupported, VariantFailed

# Lines that name a place in OpenVINO's own source: three of them stand before what is wrong.
_PLACE = re.compile(r"(Exception from|Check '.*' failed at) \S+:\d+:?")
_NO_RULE = re.compile(r"No conversion rule found for operations: (.*)")
_CUT = 600


def refuse(exc: Exception, what: str, otherwise: Failure) -> NoReturn:
    """Raise ``exc`` as one of ours; ``otherwise`` is the failure where its text tells no other.

    Raises:
        Unsupported: an operator that OpenVINO doesn't know.
        VariantFailed: OOM, or ``otherwise``.
    """
    text = str(exc)
    message = f"{what}: {said(text)}"
    if isinstance(exc, MemoryError) or "bad_alloc" in text or "Failed to allocate" in text:
        raise VariantFailed(Failure.OOM, message, "Raise the memory limit or lower the batch size.") from exc
    if "No conversion rule found" in text or "OpConversionFailure" in text or "NotImplemented" in text:
        hint = "OpenVINO has no such operator: keep the standard ones (no fused ones), or take another provider."
        raise Unsupported(message, hint) from exc
    raise VariantFailed(otherwise, message) from exc


def said(text: str) -> str:
    """What OpenVINO says is wrong, without the places in its source, in at most 600 characters.

    >>> said("Exception from src/core.cpp:84:\\nCheck 'false' failed at src/a.cpp:7:\\nThe shapes differ.")
    'The shapes differ.'
    """
    unknown = _NO_RULE.search(text)
    if unknown:
        return f"no conversion rule for {unknown[1].strip()}."
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    flat = " ".join([line for line in lines if not _PLACE.fullmatch(line)] or lines)
    return flat if len(flat) <= _CUT else f"{flat[:_CUT]} …"
