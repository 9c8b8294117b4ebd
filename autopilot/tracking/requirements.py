"""What an environment needs that loads a model from MLflow: the provider's libraries, as they were measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import autopilot
from autopilot import plugins
from autopilot.contracts import Provider, facts_of
from autopilot.target import installed_versions, version_of_installed, without_shadowed

_PLAIN, _GPU = "onnxruntime", "onnxruntime-gpu"


def requirements(provider: str) -> list[str]:
    """What loading a model that runs on ``provider`` needs, at the versions it was measured with.

    Not onnxruntime-gpu: model-autopilot requires onnxruntime, which installs the same module, and where both are
    required pip unpacks onnxruntime last (tried with pip 23.2), so that no device is found. See ``by_hand``.
    """
    found = _versions(provider)
    found.pop(_GPU, None)
    return [f"{name}=={_public(told)}" for name, told in found.items()]


def by_hand(provider: str) -> str | None:
    """The command that is to follow once ``requirements`` are installed; None where nothing is left to do."""
    told = _versions(provider).get(_GPU)
    return f"pip uninstall -y {_PLAIN} && pip install {_GPU}=={_public(told)}" if told else None


def say_by_hand(provider: str, model: Path) -> None:
    """Write that command into requirements.txt of the saved ``model``, as a comment: pip has no way to say it."""
    command = by_hand(provider)
    if command is None:
        return
    with (model / "requirements.txt").open("a", encoding="utf-8") as file:
        file.write(f"\n# It was measured with {_GPU} in place of {_PLAIN}. After the above:\n# {command}\n")


def _versions(provider: str) -> dict[str, str]:
    """Installed versions by distribution: this package first, then the provider's libraries and its own package."""
    known = plugins.providers().get(provider)
    here = without_shadowed(installed_versions())
    found = {"model-autopilot": autopilot.__version__}
    for name in _distributions(provider, known, here):
        if told := here.get(name) or version_of_installed(name):
            found.setdefault(name, told)
    return found


def _distributions(provider: str, known: Provider | None, here: Mapping[str, str]) -> Iterator[str]:
    for name in facts_of(known).libraries if known is not None else ():
        # The module's owner is what was measured, whichever of the two a provider names.
        yield _GPU if name == _PLAIN and _PLAIN not in here and _GPU in here else name
    if (package := plugins.package_of("providers", provider)) is not None:
        yield package
    yield "numpy"


def _public(version: str) -> str:
    """``version`` without what a builder added (``2.13.0+cpu``): no index has that, and ``==`` matches it anyway."""
    return version.partition("+")[0]
