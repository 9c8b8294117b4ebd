"""What every ONNX Runtime provider shares: options from a deployment, placement, honest errors."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopilot.contracts import Array, Feed
from autopilot.domain import Choice, Domain, Scalar
from autopilot.errors import Failure, Unsupported, VariantFailed
from autopilot.profile import OperatorCost, Placement
from autopilot.providers._ort_profile import read_profile
from autopilot.recipe import Deployment

if TYPE_CHECKING:
    import onnxruntime

# Parameters that mean the same for every ONNX Runtime provider; the first value is the default.
SESSION_PARAMETERS: Mapping[str, Domain] = {
    "graph_optimization": Choice(("all", "extended", "basic", "disabled")),
    "spinning": Choice((True, False)),
    "arena": Choice((True, False)),
    "mem_pattern": Choice((True, False)),
    "execution_mode": Choice(("sequential", "parallel")),
}

# Protobuf refuses messages of 2 GiB: above this an optimized model needs its weights beside it.
_INLINE_LIMIT_BYTES = 1_500_000_000
_ERROR_LEVEL = 3
_CUT = 600
# "CUDA failure 2: out of memory ; GPU=0 ; hostname=… ; file=… ; line=… ; expr=…", as cuda_call.cc writes it.
_DEVICE_ERROR = re.compile(r"\bCU[A-Z]+ failure \d+:")
_HOST = re.compile(r" ; hostname=\S+")
# Of the host's memory and of a device's (CUDA's own words, and cuDNN's and cuBLAS's for it).
_OOM_SIGNS = (
    "Failed to allocate memory",
    "std::bad_alloc",
    "out of memory",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def with_defaults(options: Mapping[str, Scalar], parameters: Mapping[str, Domain]) -> dict[str, Scalar]:
    """``options`` with each parameter that is not given at its default.

    Raises:
        Unsupported: an option that the provider doesn't have, or a value outside its domain.
    """
    for name, value in options.items():
        domain = parameters.get(name)
        if domain is None:
            raise Unsupported(f"the provider has no option {name!r}.", f"It has {', '.join(parameters)}.")
        if not domain.contains(value):
            raise Unsupported(f"the provider's option {name} can't be {value!r}.", f"Allowed: {domain}.")
    return {name: options.get(name, domain.default) for name, domain in parameters.items()}


def session_options(
    deployment: Deployment,
    chosen: Mapping[str, Scalar],
    optimized_model: Path | None,
    artifact: Path,
    *,
    profile_to: Path | None = None,
) -> onnxruntime.SessionOptions:
    """ONNX Runtime's options for one deployment; ``chosen`` as ``with_defaults`` returns it."""
    import onnxruntime as ort

    levels = {
        "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
        "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
        "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
        "disabled": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    }
    parallel = chosen.get("execution_mode") == "parallel"
    options = ort.SessionOptions()
    options.log_severity_level = _ERROR_LEVEL
    options.intra_op_num_threads = deployment.threads
    # In parallel mode nodes run on a second pool; one thread there would make the mode a no-op.
    options.inter_op_num_threads = deployment.threads if parallel else 1
    options.execution_mode = ort.ExecutionMode.ORT_PARALLEL if parallel else ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = levels[str(chosen.get("graph_optimization", "all"))]
    options.enable_cpu_mem_arena = bool(chosen.get("arena", True))
    options.enable_mem_pattern = bool(chosen.get("mem_pattern", True))
    spinning = "1" if chosen.get("spinning", True) else "0"
    options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    options.add_session_config_entry("session.inter_op.allow_spinning", spinning)
    # Kept on in every pass: on a small CNN it changed neither load time nor latency.
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if optimized_model is not None:
        _write_optimized(options, optimized_model, artifact)
    if profile_to is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile_to)  # the runtime adds the time and ".json"
    return options


def _write_optimized(options: onnxruntime.SessionOptions, target: Path, artifact: Path) -> None:
    options.optimized_model_filepath = str(target)
    if sum(f.stat().st_size for f in artifact.parent.iterdir() if f.is_file()) > _INLINE_LIMIT_BYTES:
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_file_name", target.name + ".data"
        )


class OrtSession:
    """A loaded ONNX Runtime session: host arrays in, host arrays out."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        # Sequences and maps are no arrays.
        self._names: tuple[str, ...] = tuple(o.name for o in session.get_outputs() if o.type.startswith("tensor("))
        self._errors = ort_errors()

    @property
    def output_names(self) -> tuple[str, ...]:
        return self._names

    @property
    def inner(self) -> onnxruntime.InferenceSession:
        """ONNX Runtime's own session, for other providers of this folder."""
        return self._session

    def run(self, feed: Feed) -> list[Array]:
        """Outputs in the order of ``output_names``.

        Raises:
            VariantFailed: the runtime refused the inputs or failed while running.
        """
        try:
            outputs: list[Array] = self._session.run(self._names, feed)
        except self._errors as exc:
            raise translate(exc, "running the model failed", Failure.CRASH) from exc
        except ValueError as exc:  # a required input is missing: onnxruntime checks that in Python
            raise VariantFailed(Failure.CRASH, f"running the model failed: {exc}") from exc
        return outputs

    def placement(self) -> Placement:
        """Nodes by execution provider, counted after graph optimization."""
        counts: Counter[str] = Counter()
        for subgraph in self._session.get_provider_graph_assignment_info():
            counts[subgraph.ep_name] += len(subgraph.get_nodes())
        return Placement(dict(counts))

    def operator_costs(self, requests: int) -> tuple[OperatorCost, ...]:
        """Costs of the last ``requests`` runs by operator; ends profiling and removes its file.

        Raises:
            Unsupported: the session was opened without ``profile_to``, or the runtime's file can't be read.
        """
        written = self._session.end_profiling()
        if not written:
            raise Unsupported("the session keeps no profile.", "Open it with profile_to.")
        path = Path(written)
        try:
            return self._costs(path, requests)
        finally:
            path.unlink(missing_ok=True)

    def _costs(self, path: Path, requests: int) -> tuple[OperatorCost, ...]:
        return read_profile(path, requests)


def open_session(
    artifact: Path,
    options: onnxruntime.SessionOptions,
    providers: Sequence[str | tuple[str, dict[str, Any]]],
    *,
    fallback: bool = True,
) -> OrtSession:
    """Load ``artifact`` on ``providers``; without ``fallback`` a provider that can't start is an error.

    Raises:
        VariantFailed: OOM, PROVIDER_MISSING or BUILD_ERROR (a model that doesn't load).
        Unsupported: the runtime has no kernel for one of the nodes.
    """
    import onnxruntime as ort

    ort.disable_telemetry_events()
    what = f"ONNX Runtime {ort.__version__} can't load the model"
    try:
        session = ort.InferenceSession(str(artifact), options, providers=list(providers), enable_fallback=int(fallback))
    except ort_errors() as exc:
        raise translate(exc, what, Failure.BUILD_ERROR) from exc
    except RuntimeError as exc:  # what a provider throws while it starts; with the fallback onnxruntime tries the CPU
        raise translate(exc, what, Failure.BUILD_ERROR if fallback else Failure.PROVIDER_MISSING) from exc
    return OrtSession(session)


def ort_errors() -> tuple[type[Exception], ...]:
    """The exception classes of ONNX Runtime, which have no common base of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = (
        "EPFail",
        "EngineError",
        "Fail",
        "InvalidArgument",
        "InvalidGraph",
        "InvalidProtobuf",
        "ModelLoaded",
        "NoModel",
        "NoSuchFile",
        "NotImplemented",
        "RuntimeException",
    )
    return tuple(getattr(state, name) for name in names if hasattr(state, name))


def translate(exc: Exception, what: str, otherwise: Failure) -> VariantFailed:
    """One of ONNX Runtime's errors as one of ours; ``otherwise`` where its kind says nothing."""
    kind, whole = type(exc).__name__, " ".join(str(exc).split())
    message = f"{what}: {_gist(whole)}"
    if any(sign in whole for sign in _OOM_SIGNS):
        return VariantFailed(Failure.OOM, message, "Raise the memory limit or lower the batch size.")
    if kind == "NotImplemented":
        return Unsupported(message, "No kernel for this node on this provider: keep it in float or take another one.")
    if kind == "EPFail":
        return VariantFailed(Failure.PROVIDER_MISSING, message, "`autopilot doctor` lists the usable providers.")
    return VariantFailed(otherwise, message)


def _gist(text: str) -> str:
    """What an error of ONNX Runtime says, not too long: a device's own words come after lines of C++ signatures."""
    device = _DEVICE_ERROR.search(text)
    if device is not None:
        text = _HOST.sub("", text[device.start() :])
    return text if len(text) <= _CUT else text[:_CUT] + " …"
