"""What a study's figures are made with: versions and code of what its spec allows, by the words a user would use."""

from __future__ import annotations

from collections.abc import Iterator

from autopilot import plugins
from autopilot.cache.code import code_digest
from autopilot.contracts import Provider, Technique, facts_of
from autopilot.errors import SpecError
from autopilot.space_file import load_space_file
from autopilot.spec import Problem, TorchSource
from autopilot.target import Target

# What measures, judges and chooses whatever a spec allows, and reads the model. Of ONNX Runtime's two distributions
# one is there.
ALWAYS = ("model-autopilot", "numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "optuna")
# What makes an ONNX file of a PyTorch model.
_EXPORT = ("torch", "onnxscript", "onnx-ir")
# Of the fields of a Target that a provider may depend on, those that aren't in its fingerprint ("machine" then).
_HARDWARE = {"gpu_driver": "GPU driver"}
_OURS = "autopilot."


def made_with(problem: Problem, target: Target) -> dict[str, str]:
    """What earlier trials must have been made with for theirs and new ones to be compared, part by part.

    Of providers those that the spec allows and that can run here, of techniques those of its space. Another library
    changes nothing in them. The code of this package is told by its version; that of others' plug-ins by a digest.
    """
    providers, techniques = _providers(problem, target), _techniques(problem)
    names = {*ALWAYS, *(_EXPORT if isinstance(problem.model, TorchSource) else ())}
    names |= {name for t in techniques.values() for name in t.libraries}
    out = {f"library {name}": target.version_of(name) for name in sorted(names)}
    for name, provider in providers.items():
        facts = facts_of(provider)
        out[f"provider {name}"] = "usable"
        out |= {f"library {key}": told for key, told in facts.versions(target).items()}
        out |= {word: str(getattr(target, key)) for key, word in _HARDWARE.items() if key in facts.hardware}
        out |= _foreign("provider", name, type(provider).__module__, target)
    for name, technique in techniques.items():
        out |= _foreign("technique", name, getattr(technique.apply, "__module__", None) or "", target)
    return out


def _providers(problem: Problem, target: Target) -> dict[str, Provider]:
    known = plugins.providers()
    allowed = {name: known[name] for name in problem.target.providers if name in known}
    return {name: provider for name, provider in allowed.items() if provider.usable(target) is None}


def _techniques(problem: Problem) -> dict[str, Technique]:
    """Those that the space names; where its file can't be read that is told when the space is built."""
    known = plugins.techniques()
    try:
        named = load_space_file(problem.space).get("techniques")
    except SpecError:
        named = None
    if named is None:
        return {name: technique for name, technique in known.items() if technique.on_by_default}
    return {name: known[name] for name in _texts(named) if name in known}


def _texts(named: object) -> Iterator[str]:
    yield from map(str, named if isinstance(named, (list, dict)) else ())


def _foreign(kind: str, name: str, module: str, target: Target) -> dict[str, str]:
    """Code and package of a plug-in that isn't ours."""
    if not module or module.startswith(_OURS):
        return {}
    # Of a package all its files: a provider's session is seldom in the module that declares it.
    package = module.rpartition(".")[0]
    out = {f"code of {kind} {name}": code_digest(module, *([package] if package else []))}
    if (brings := plugins.package_of(f"{kind}s", name)) is not None:
        out[f"library {brings}"] = target.version_of(brings)
    return out
