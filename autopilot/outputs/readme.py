"""The README.md beside a model: what it is, and how to load it from Python, a shell and, once it is there, MLflow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from autopilot.budget import Judgement, Limit
from autopilot.profile import Measurement
from autopilot.recipe import Deployment
from autopilot.result import Candidate, MlflowRef, Status, StudyResult, nothing_text, recipe_text, speed_axis
from autopilot.words import percent, times

if TYPE_CHECKING:
    from autopilot.model import TensorInfo

_LEVELS = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "disabled": "ORT_DISABLE_ALL",
}
_HEADLINE = {
    Status.IN_BUDGET: "the fastest variant found that keeps every limit of the budget",
    Status.NO_FIT: "the nearest miss: **it does not keep the budget**, and no variant tried does",
}
# Undecided studies: by what was found of the candidate itself.
_NEAREST = {
    Judgement.OUT: "**it does not keep the budget**; whether another variant does could not be told",
    Judgement.IN: "it kept every limit in the search, and was not measured again",
    Judgement.UNDECIDED: "whether it keeps the budget could not be told, see the limits below",
}


def readme(
    result: StudyResult,
    chosen: Candidate,
    inputs: Sequence[TensorInfo],
    outputs: Sequence[TensorInfo],
    *,
    fallback: int | None = None,
) -> str:
    """The text of README.md for the candidate ``chosen``; ``fallback``: its place on the ladder, if it has one."""
    parts = [
        f"# {result.name}",
        f"This is {_headline(result, fallback)}.",
        _facts(result, chosen),
        _limits(result, chosen),
        _tensors(inputs, outputs),
        "## Python",
        "In the deployment it was measured in:",
        _code("python", _autopilot_lines(inputs, outputs)),
        *_server_section(chosen),
        *_plain_section(chosen.deployment, inputs),
        "## Command line",
        "Measure it again against its budget (exit code 0 when it is met):",
        _code("sh", ["autopilot check . path/to/spec.yaml"]),
        *_mlflow_section(result, inputs, fallback),
    ]
    return "\n\n".join(parts) + "\n"


def _headline(result: StudyResult, fallback: int | None) -> str:
    if fallback is None:
        short = f"the baseline: {nothing_text(result.ended)}, time was up"
        if result.is_too_short:
            return short
        said = result.chosen.verdict if result.chosen is not None else None
        if result.status is Status.UNDECIDED and said is not None:
            return f"the nearest candidate: {_NEAREST[said.overall]}"
        return _HEADLINE.get(result.status, "the nearest candidate")
    rung = result.fallbacks[fallback - 1]
    sure = "" if rung.verified else " It was measured once, in the search; there was no time to verify it."
    return (
        f"fallback {fallback}, what a service may degrade to under load: {rung.reason}. It keeps every limit but, "
        f"maybe, those on quality.{sure}"
    ).rstrip(".")


def _code(language: str, lines: Sequence[str]) -> str:
    return "\n".join([f"```{language}", *lines, "```"])


def _facts(result: StudyResult, chosen: Candidate) -> str:
    d = chosen.deployment
    options = ", ".join(f"{k} {v}" for k, v in (*d.serving_json().items(), *d.options))
    lines = [
        f"- recipe: {recipe_text(chosen.recipe)}",
        f"- deployment: provider {d.provider}, threads {d.threads}, batch {d.batch}"
        + (f", {options}" if options else ""),
    ]
    if chosen.speedup:
        s = chosen.speedup
        axis = speed_axis(result.objectives)
        word = "as fast" if axis.startswith("latency_") else "as good"
        lines.append(f"- {axis}: {s.value:.2f} times {word} as {result.baseline_choice.text} ({times(s.low, s.high)})")
    return "\n".join([*lines, "- everything about it, inputs and data mapping included: `variant.json`"])


def _limits(result: StudyResult, chosen: Candidate) -> str:
    rows = ["| limit | measured (95% interval) | verdict |", "| --- | --- | --- |"]
    for limit in result.budget.limits:
        judged = chosen.verdict.per_limit.get(limit.axis) if chosen.verdict else None
        rows.append(
            f"| {limit.axis} {limit.text} | {_figure(chosen.measured.get(limit.axis), limit)} "
            f"| {judged.value if judged else 'not judged'} |"
        )
    return "\n".join(rows)


def _figure(measured: Measurement | None, limit: Limit) -> str:
    if measured is None or measured.value is None:
        return f"not measured: {measured.reason}" if measured and measured.reason else "not measured"
    text = f"{measured.value:.4g}"
    bounded = measured.low is not None and measured.high is not None and math.isfinite(measured.high)
    if measured.n == 1 and (not bounded or measured.high == measured.value):
        text += " (one reading)"
    elif bounded:
        text += f" ({measured.low:.4g}..{measured.high:.4g})"
    if limit.relative and measured.ratio:
        r = measured.ratio
        text += f", {percent(r.value)} of baseline"
        if r.low != r.high:
            text += f" ({percent(r.low)}..{percent(r.high)})" if r.low else f" (at most {percent(r.high)})"
    return text


def _tensors(inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> str:
    rows = ["| tensor | name | type | shape |", "| --- | --- | --- | --- |"]
    for kind, tensors in (("input", inputs), ("output", outputs)):
        for t in tensors:
            shape = ", ".join("?" if d is None else str(d) for d in t.shape)
            rows.append(f"| {kind} | `{t.name}` | {t.dtype} | [{shape}] |")
    return "\n".join(rows)


def _feed(inputs: Sequence[TensorInfo]) -> str:
    """Python text of a feed: each input name with a variable named after it."""
    return "{" + ", ".join(f"{t.name!r}: {_variable(t.name)}" for t in inputs) + "}"


def _variable(name: str) -> str:
    text = "".join(c if c.isalnum() and c.isascii() else "_" for c in name)
    return text if text.isidentifier() else f"x_{text}"


def _autopilot_lines(inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> list[str]:
    first = outputs[0].name
    return [
        "import autopilot",
        "",
        'runner = autopilot.load(".")            # this folder',
        f"outputs = runner({_feed(inputs)})",
        f"outputs[{first!r}]",
    ]


def _openvino_lines(deployment: Deployment, inputs: Sequence[TensorInfo]) -> list[str]:
    o = dict(deployment.options)
    return [
        "import openvino                         # sends telemetry where openvino-telemetry is installed",
        "",
        "core = openvino.Core()",
        'model = core.read_model("model.onnx")   # model.reshape(...) to your shapes, where shapes is fixed',
        'compiled = core.compile_model(model, "CPU", {',
        f'    "INFERENCE_NUM_THREADS": {deployment.threads}, "NUM_STREAMS": 1,',
        f'    "INFERENCE_PRECISION_HINT": "{o.get("precision", "f32")}",',
        f'    "ENABLE_CPU_PINNING": {bool(o.get("pinning", False))},',
        "})",
        f"outputs = compiled({_feed(inputs)})",
    ]


def _plain_section(deployment: Deployment, inputs: Sequence[TensorInfo]) -> list[str]:
    if deployment.provider == "openvino":
        return ["With openvino alone:", _code("python", _openvino_lines(deployment, inputs))]
    if deployment.provider != "cpu":
        return [
            f"Without autopilot: `model.onnx` with the provider {deployment.provider}, set up as "
            "`deployment` in `variant.json` says."
        ]
    o = dict(deployment.options)
    parallel = o.get("execution_mode") == "parallel"
    spinning = "1" if o.get("spinning", True) else "0"
    lines = [
        "import onnxruntime as ort",
        "",
        "options = ort.SessionOptions()",
        f"options.intra_op_num_threads = {deployment.threads}",
        f"options.inter_op_num_threads = {deployment.threads if parallel else 1}",
        f"options.execution_mode = ort.ExecutionMode.{'ORT_PARALLEL' if parallel else 'ORT_SEQUENTIAL'}",
        "options.graph_optimization_level = ort.GraphOptimizationLevel."
        + _LEVELS[str(o.get("graph_optimization", "all"))],
        f"options.enable_cpu_mem_arena = {bool(o.get('arena', True))}",
        f"options.enable_mem_pattern = {bool(o.get('mem_pattern', True))}",
        f'options.add_session_config_entry("session.intra_op.allow_spinning", "{spinning}")',
        f'options.add_session_config_entry("session.inter_op.allow_spinning", "{spinning}")',
        'session = ort.InferenceSession("model.onnx", options, providers=["CPUExecutionProvider"])',
        f"outputs = session.run(None, {_feed(inputs)})",
    ]
    return ["With onnxruntime alone:", _code("python", lines)]


def _server_section(chosen: Candidate) -> list[str]:
    """What a serving process has to do besides loading the model, where it was measured under scheduled traffic."""
    answered, d = chosen.measured.get("dropped_share"), chosen.deployment
    if answered is None or answered.value is None:
        return []
    return [
        f"That is one instance of it. It was measured in a server with {d.instances} instance(s) of the model in one "
        f"process, each with {d.threads} thread(s), that puts up to {d.batch} waiting request(s) into one run and lets "
        f"the oldest wait at most {d.max_delay_ms:g} ms for others (Triton's `instance_group` count, `max_batch_size` "
        "and `max_queue_delay_microseconds`).",
        *_warm_up(d),
    ]


def _warm_up(d: Deployment) -> list[str]:
    """Which sizes to run before requests come; the first run of one may compile for seconds and take memory."""
    if d.batch == 1 and d.instances == 1:
        return []
    sizes = f"every batch size that will come (1 to {d.batch}; of a fixed batch {d.batch} alone)"
    return [
        f"Warm it up before it gets requests: run {sizes}, twice, in every instance. Its latency was measured after "
        "that, and its memory is what the process then holds."
    ]


def _mlflow_section(result: StudyResult, inputs: Sequence[TensorInfo], fallback: int | None) -> list[str]:
    """How to load it from MLflow by its version, whatever becomes of the aliases; nothing before MLflow has it."""
    ref = result.mlflow
    if ref is None:
        return []
    version = ref.version if fallback is None else dict(enumerate(ref.fallbacks, 1)).get(fallback)
    if ref.model is None or version is None:
        place = "nearest" if fallback is None else f"fallbacks/{fallback}"
        return ["## MLflow", f"It is not registered. The study's run `{ref.run_id}` has these files, under `{place}`."]
    lines = [
        "import mlflow",
        "",
        f"mlflow.set_tracking_uri({ref.tracking_uri!r})      # in the folder the study ran in",
        f"model = mlflow.pyfunc.load_model({f'models:/{ref.model}/{version}'!r})",
        f"outputs = model.predict({_feed(inputs)})",
    ]
    return ["## MLflow", _code("python", lines), _alias(ref, fallback)]


def _alias(ref: MlflowRef, fallback: int | None) -> str:
    """Which alias the version had when this was written, and for how long."""
    if fallback is not None:
        return f"Until another study has a champion, `models:/{ref.model}@fallback-{fallback}` is the same."
    if ref.champion:
        return f"Until another version takes the alias, `models:/{ref.model}@champion` is the same."
    why = f": {ref.ruling.rstrip('.')}" if ref.ruling else ""
    return f"It did not become champion{why}."
