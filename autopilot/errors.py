"""Every error this package raises on purpose.

AutopilotError                  exit code 1 unless a subclass says otherwise
├── BadInput                    exit 2: something the user gave is wrong
│   ├── SpecError               the spec file
│   ├── ModelError              the model file
│   └── DataError               arrays, labels, mappings, metric against labels
├── VariantFailed               one candidate failed; the search goes on (carries a Failure)
│   ├── Unsupported             the recipe can't be applied to this model, for a known reason
│   └── WorkerDied              the child process crashed, hung or ran out of memory
├── NotMeasurable               this machine doesn't give that reading; the message becomes the axis's reason
└── BaselineFailed              the model as given can't be measured: nothing to compare with
"""

from __future__ import annotations

from enum import StrEnum


class Failure(StrEnum):
    """Why a variant has no verdict; the value is what result.json carries."""

    BUILD_ERROR = "build_error"
    CRASH = "crash"
    OOM = "oom"
    TIMEOUT = "timeout"
    UNSUPPORTED = "unsupported"
    PROVIDER_MISSING = "provider_missing"
    PROVIDER_FALLBACK = "provider_fallback"
    WRONG_NUMERICS = "wrong_numerics"
    FAKE_INT8 = "fake_int8"
    UNSTABLE = "unstable"


class AutopilotError(Exception):
    """Root of the tree. ``message`` says what was wrong and where, ``hint`` the next action."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class BadInput(AutopilotError):
    """What the user handed over is wrong: a spec, a model, data, a command line."""

    exit_code = 2


class SpecError(BadInput):
    """The spec file is wrong; the message carries file and line."""


class ModelError(BadInput):
    """The model file is missing, damaged, unsafe or of an unsupported kind."""


class DataError(BadInput):
    """The data don't fit the model, the metric or the rules of measuring."""


class VariantFailed(AutopilotError):
    """One candidate failed; ``failure`` is its class, ``log`` the last lines of its stderr.

    ``seconds``: what its trial had spent by then, stage by stage; empty where nobody says.
    """

    def __init__(self, failure: Failure, message: str, hint: str = "", log: str = "") -> None:
        super().__init__(message, hint)
        self.failure = failure
        self.log = log
        self.seconds: dict[str, float] = {}


class Unsupported(VariantFailed):
    """A technique or provider can't take this model, for a reason known beforehand."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(Failure.UNSUPPORTED, message, hint)


class WorkerDied(VariantFailed):
    """A child process ended without an answer."""


class NotMeasurable(AutopilotError):
    """A counter is missing or stopped answering; the message is the reason that the axis shows."""


class BaselineFailed(AutopilotError):
    """The model as given could not be measured."""
