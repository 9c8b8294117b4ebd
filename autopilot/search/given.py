"""The model as given: how it is run, and whether its provider takes it."""

from __future__ import annotations

from pathlib import Path

from autopilot import plugins
from autopilot.contracts import ProviderFacts, facts_of
from autopilot.errors import SpecError, Unsupported
from autopilot.recipe import Deployment, params_of
from autopilot.space import SearchSpace

ONNX = ".onnx"


def given_deployment(space: SearchSpace) -> Deployment:
    """How the model as given is run: the first provider's defaults, but computed in the model's own types.

    What other variants lose is told against the answers that it gives so.
    """
    usual = space.default_deployment()
    exact = dict(provider_facts(usual.provider).exact)
    return usual.with_(options=params_of({**dict(usual.options), **exact}))


def provider_facts(name: str) -> ProviderFacts:
    """What the provider ``name`` declares."""
    return facts_of(plugins.providers()[name])


def check_format(space: SearchSpace, model: Path) -> None:
    """Refuse a first provider that doesn't take the model's own kind of file: there would be no baseline.

    Raises:
        SpecError: naming the provider and what it takes.
    """
    first = next(iter(space.providers))
    if (reason := _untaken(model, first)) is not None:
        raise SpecError(
            f"target.providers: the first one allowed runs the model as given, and {reason}.",
            "Put a provider first that takes the model; `autopilot doctor` lists those that run here.",
        )


def refuse_format(artifact: Path, provider: str) -> None:
    """Refuse a file that ``provider`` doesn't take, before a process is started for it.

    Raises:
        Unsupported: naming the provider and what it takes.
    """
    if (reason := _untaken(artifact, provider)) is not None:
        raise Unsupported(f"{reason}.", "Run it on another provider.")


def _untaken(file: Path, provider: str) -> str | None:
    formats = provider_facts(provider).formats
    known = {ending for one in plugins.providers().values() for ending in facts_of(one).formats}
    # What has no ending that some provider claims was read as ONNX, whatever it is called.
    ending = file.suffix.lower() if file.suffix.lower() in known else ONNX
    if ending in formats:
        return None
    return f"{provider} takes {' and '.join(formats) or 'no'} files, and {file.name} is none"
