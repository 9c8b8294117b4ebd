"""What a technique or provider needs besides the model, and what was left untried for want of it. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from typing import Any

from autopilot.domain import Choice, Domain, Scalar

_COMMAND = re.compile(r"pip install (?:-c \S+ )?(?:-e )?(?:'[^']*'|\"[^\"]*\"|\S+)")


class Lack(StrEnum):
    """What may be missing."""

    LIBRARY = "library"
    PROVIDER = "provider"
    TRAINING_DATA = "training_data"
    TORCH_MODEL = "torch_model"
    MACHINE = "machine"  # an instruction set, a device: what no command installs
    SEARCH = "search"  # nothing was: the search ended before


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that a technique can't do without.

    ``name`` is what ``import`` calls a library; ``install`` the command that brings it. Whether training data
    and a torch model are there is the spec's to say.
    """

    lack: Lack
    name: str = ""
    install: str = ""


@dataclass(frozen=True, slots=True)
class Ask:
    """What the files of a technique ask of a provider, beside float32 and ONNX's own operators.

    ``what``: a type that is computed in, or a set of operators (``com.microsoft``); with ``parameter`` only where
    that has one of ``values``.
    """

    what: str
    parameter: str = ""
    values: tuple[Scalar, ...] = ()


@dataclass(frozen=True, slots=True)
class NotTried:
    """A technique or provider that a search left out: what was missing, why, and what would install it."""

    kind: str
    name: str
    missing: Lack
    reason: str
    install: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "name": self.name,
            "missing": self.missing.value,
            "reason": self.reason,
            "install": self.install or None,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> NotTried:
        install = value.get("install") or ""
        return cls(str(value["kind"]), str(value["name"]), Lack(value["missing"]), str(value["reason"]), str(install))


def unmet(technique: str, needs: Iterable[Need], lacks: Mapping[Lack, str]) -> NotTried | None:
    """The first of a technique's ``needs`` that isn't met; ``lacks`` says what the spec lacks, and why.

    >>> unmet("prune", [Need(Lack.LIBRARY, "json")], {}) is None
    True
    >>> unmet("prune", [Need(Lack.LIBRARY, "no_such_thing", "pip install thing")], {}).reason
    'no_such_thing is not installed; run pip install thing'
    """
    for need in needs:
        if need.lack is Lack.LIBRARY:
            if not _installed(need.name):
                how = f"; run {need.install}" if need.install else ""
                reason = f"{need.name} is not installed{how}"
                return NotTried("technique", technique, need.lack, reason, need.install)
        elif need.lack in lacks:
            return NotTried("technique", technique, need.lack, lacks[need.lack], need.install)
    return None


def taken(
    domains: Mapping[str, Domain], asks: Iterable[Ask], takes: Callable[[str], bool]
) -> tuple[dict[str, Domain], str]:
    """``domains`` without values whose files a provider can't take; and what it lacks where none would be left.

    >>> taken({"method": Choice(("big", "small"))}, [Ask("com.microsoft", "method", ("big",))], lambda what: False)
    ({'method': Choice(values=('small',))}, '')
    >>> taken({}, [Ask("com.microsoft")], lambda what: False)
    ({}, 'com.microsoft')
    """
    left = dict(domains)
    for ask in asks:
        if takes(ask.what):
            continue
        domain = left.get(ask.parameter)
        values = tuple(v for v in domain.values if v not in ask.values) if isinstance(domain, Choice) else ()
        if not values:
            return left, ask.what
        left[ask.parameter] = Choice(values)
    return left, ""


def refused(kind: str, name: str, reason: str) -> NotTried:
    """A plug-in that said itself, in words, why it can't be used here.

    The command that would change that is the one in its own words, if there is one.

    >>> refused("provider", "openvino", "it is not installed; run pip install onnxruntime-openvino").install
    'pip install onnxruntime-openvino'
    >>> refused("provider", "torch_compile", "from a clone: pip install -c constraints.txt -e '.[torch]' (…)").install
    "pip install -c constraints.txt -e '.[torch]'"
    """
    command = _COMMAND.search(reason)
    missing = Lack.PROVIDER if kind == "provider" else Lack.LIBRARY if command else Lack.MACHINE
    return NotTried(kind, name, missing, reason, command.group().rstrip(".,;)") if command else "")


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it is missing
        return False
