"""The spec: what a good one becomes, and what every kind of bad one is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from autopilot.contracts import Axis, Stage
from autopilot.errors import BadInput, SpecError
from autopilot.spec import InputSpec, Problem, Traffic, Vocabulary, load_spec, parse_spec

HIGHER = ("throughput_rps", "max_rate_rps", "quality")
LOWER = (
    "latency_mean_ms", "latency_p50_ms", "latency_p99_ms", "peak_memory_mb", "size_mb", "energy_mj",
    "cost_per_million", "quality_drop", "dropped_share",
)  # fmt: skip


def axis(name: str) -> Axis | None:
    """The axis of a name, any latency percentile included."""
    canonical = "latency_p50_ms" if name == "latency_p50.0_ms" else name
    if canonical in HIGHER + LOWER:
        return Axis(canonical, canonical in HIGHER, Stage.LATENCY, "")
    return None


@pytest.fixture
def vocabulary(tmp_path: Path) -> Vocabulary:
    """A handful of words."""
    spaces = tmp_path / "spaces"
    spaces.mkdir()
    for name in ("cpu", "quick"):
        (spaces / f"{name}.yaml").write_text("{}\n")
    return Vocabulary(axis, HIGHER + LOWER, ("accuracy", "f1_binary", "agreement"), ("cpu", "openvino"), spaces)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A spec's folder with the files that specs here name."""
    home = tmp_path / "home"
    home.mkdir()
    for name in (
        "model.onnx",
        "valid.npz",
        "test.npz",
        "train.parquet",
        "steps.py",
        "trace.csv",
        "my.yaml",
        "notes.txt",
    ):
        (home / name).write_text("")
    return home


def spec(**changes: Any) -> dict[str, Any]:
    """The smallest whole spec, with top-level keys replaced; None takes a key away."""
    raw: dict[str, Any] = {
        "name": "demo",
        "model": "model.onnx",
        "data": {"validation": "valid.npz"},
        "metric": "accuracy",
        "budget": {"latency_p99_ms": 2.0},
    } | changes
    return {k: v for k, v in raw.items() if v is not None}


Parse = Callable[..., Problem]


@pytest.fixture
def parse(folder: Path, vocabulary: Vocabulary) -> Parse:
    """Parses ``spec(**changes)``."""
    return lambda **changes: parse_spec(spec(**changes), folder, vocabulary)


@pytest.fixture
def load(folder: Path, vocabulary: Vocabulary) -> Callable[[str | bytes], Problem]:
    """Loads a spec file with the given text."""

    def loader(text: str | bytes) -> Problem:
        path = folder / "spec.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return load_spec(path, vocabulary)

    return loader


SERVER = {"scenario": "server", "rate_rps": 200}
GOOD = """\
name: demo
model: model.onnx
data:
  validation: valid.npz
metric: accuracy
budget:
  latency_p99_ms: 2.0
"""


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"arrivals": "poisson"}, Traffic("server", 200.0, "poisson")),
        ({"arrivals": "bursty", "burst": {"on_s": 1, "off_s": 4}}, Traffic("server", 200.0, "bursty", 1.0, 4.0)),
        ({"arrivals": "bursty"}, Traffic("server", 200.0, "bursty")),
        ({"arrivals": "diurnal", "period_s": 30}, Traffic("server", 200.0, "diurnal", period_s=30.0)),
    ],
)
def test_kinds_of_arrivals_take_their_own_settings(parse: Parse, told: dict[str, Any], expected: Traffic) -> None:
    """Bursts and their pauses, the length of a day."""
    assert parse(traffic=SERVER | told).traffic == expected


def test_trace_brings_its_own_rate(parse: Parse, folder: Path) -> None:
    """Given beside it, the rate rescales the trace."""
    own = parse(traffic={"scenario": "server", "arrivals": "trace.csv"}).traffic
    scaled = parse(traffic=SERVER | {"arrivals": "trace.csv"}).traffic

    assert own == Traffic("server", None, str(folder / "trace.csv"))
    assert own.is_trace
    assert scaled.rate_rps == 200.0


# ---- what a good spec becomes ----------------------------------------------------------------------


def test_smallest_spec_takes_the_documented_defaults(parse: Parse, folder: Path) -> None:
    """What is left out means what the documentation says."""
    problem = parse()

    assert problem.model == folder / "model.onnx"
    assert problem.data.label == "label"
    assert problem.data.batched is True
    assert problem.traffic.scenario == "single_stream"
    assert (problem.target.providers, problem.target.threads) == (("cpu",), None)
    assert (problem.search.trials, problem.search.timeout_s, problem.search.seed) == (60, 900.0, 0)
    assert problem.space.name == "cpu.yaml"
    assert problem.objective == "latency_p99_ms"
    assert problem.audit == "fail"


def test_audit_may_warn(parse: Parse) -> None:
    """A policy is part of the question: another one starts anew."""
    assert parse(audit="warn").audit == "warn"
    assert parse(audit="warn").digest != parse().digest


def test_whole_spec_of_the_interface_is_read(load: Callable[[str], Problem], folder: Path) -> None:
    """Every key of the documentation arrives where it belongs."""
    problem = load(
        """\
name: fashion-cpu
model: model.onnx
data:
  validation: valid.npz
  test: test.npz
  train: train.parquet
  label: digit
  inputs:
    image: {from: pixels, dtype: float32, scale: 0.00392156862745098, offset: 0.0}
    patch: {mean: [0.5, 0.4], std: [0.2, 0.3]}
    h: {constant: 0.0, shape: [1, 1, 128], dtype: float32}
  batched: false
  postprocess: steps.py:after
metric: {name: f1_binary, threshold: 0.3, output: mask}
budget:
  latency_p99_ms: 2.0
  latency_p50_ms: 60% of baseline
  quality_drop: 1e-2
  throughput_rps: 150
  peak_memory_mb: {max: 200, margin: 10%}
objective: latency_p50_ms
margin: 5%
traffic: {scenario: server, rate_rps: 200, arrivals: trace.csv}
target: {providers: [openvino, cpu], threads: 2, price_per_hour: 0.20}
space: my.yaml
search: {trials: 7, timeout: 1h30m, seed: 3, memory_limit_mb: 500, step_timeout: 20s, measure_cap: 9s}
version: 3
rationale: "p99 tightened after the June review"
"""
    )

    assert problem.data.train == folder / "train.parquet"
    assert problem.data.inputs["image"] == InputSpec("pixels", "float32", 0.00392156862745098, 0.0)
    assert problem.data.inputs["patch"].mean == (0.5, 0.4)
    assert problem.data.inputs["h"].shape == (1, 1, 128)
    assert problem.data.postprocess == f"{folder / 'steps.py'}:after"
    assert (problem.metric.name, problem.metric.options, problem.metric.output) == (
        "f1_binary",
        {"threshold": 0.3},
        "mask",
    )
    limits = {limit.axis: limit for limit in problem.budget.limits}
    assert (limits["latency_p50_ms"].bound, limits["latency_p50_ms"].relative) == (0.6, True)
    assert limits["quality_drop"].bound == 0.01
    assert limits["throughput_rps"].upper is False
    assert (limits["peak_memory_mb"].margin, limits["latency_p99_ms"].margin) == (0.10, 0.05)
    assert problem.traffic.arrivals == str(folder / "trace.csv")
    assert problem.target.providers == ("openvino", "cpu")
    assert problem.search.measure_cap_s == 9
    assert (problem.search.timeout_s, problem.search.step_timeout_s, problem.search.memory_limit_mb) == (5400, 20, 500)
    assert (problem.space, problem.version) == (folder / "my.yaml", 3)


def test_function_metric_is_named_after_the_function(parse: Parse, folder: Path) -> None:
    """A user's function keeps its file, name and direction."""
    metric = parse(metric={"function": "steps.py:score", "direction": "minimize"}).metric

    assert (metric.name, metric.direction, metric.function) == ("score", "minimize", f"{folder / 'steps.py'}:score")


@pytest.mark.parametrize("uri", ["models:/demo@champion", "models:/demo/3", "runs:/0a1b/model.onnx"])
def test_mlflow_uri_stays_text(parse: Parse, uri: str) -> None:
    """A model in MLflow is fetched later, so it is not taken for a file."""
    assert parse(model=uri).model == uri


def test_objective_defaults_to_first_limit_without_a_latency(parse: Parse) -> None:
    """With no latency among the limits, the first limit is improved."""
    assert parse(budget={"size_mb": 1, "throughput_rps": 5}).objective == "size_mb"


def test_objective_defaults_to_first_latency_among_limits(parse: Parse) -> None:
    """A latency goes before an earlier limit of another kind."""
    assert parse(budget={"size_mb": 1, "latency_p50_ms": 5, "latency_p99_ms": 9}).objective == "latency_p50_ms"


def test_scenario_and_provider_may_stand_alone(parse: Parse) -> None:
    """``traffic: offline`` and ``providers: cpu`` are read as what they obviously mean."""
    problem = parse(traffic="offline", target={"providers": "cpu"})

    assert problem.traffic.scenario == "offline"
    assert problem.target.providers == ("cpu",)


def test_input_spec_survives_json() -> None:
    """An input's mapping travels to the server process as JSON and comes back the same."""
    for given in (InputSpec("a", "float32", (1.0, 2.0), 0.5), InputSpec(constant=[1, 2], shape=(2,)), InputSpec()):
        assert InputSpec.from_json(given.to_json()) == given


def test_merge_keys_and_anchors_work(load: Callable[[str], Problem]) -> None:
    """YAML's own means against repetition are allowed."""
    text = GOOD.replace("  validation: valid.npz", "  <<: &files {validation: valid.npz}\n  test: test.npz")

    assert load(text).data.validation.name == "valid.npz"


def test_dates_stay_text_and_exponents_are_numbers(load: Callable[[str], Problem]) -> None:
    """YAML 1.1's surprises are taken out: 2026-06-01 is no date object and 1e-3 is no text."""
    problem = load(GOOD + "rationale: 2026-06-01\nsearch: {memory_limit_mb: 2e3}\n")

    assert problem.rationale == "2026-06-01"
    assert problem.search.memory_limit_mb == 2000


# ---- digest ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{"search": {"trials": 9}}, {"search": {"timeout": "1h"}}, {"version": 2}, {"rationale": "why"}],
)
def test_digest_is_kept_by_what_a_resume_may_change(parse: Parse, changes: dict[str, Any]) -> None:
    """More trials, more time and notes continue the same study."""
    assert parse(**changes).digest == parse().digest


@pytest.mark.parametrize(
    "changes",
    [{"search": {"seed": 9}}, {"budget": {"latency_p99_ms": 2.1}}, {"margin": 0.1}, {"target": {"threads": 1}}],
)
def test_digest_changes_with_the_question(parse: Parse, changes: dict[str, Any]) -> None:
    """Another question is another study."""
    assert parse(**changes).digest != parse().digest


def test_searching_replaces_trials_and_timeout_only(parse: Parse) -> None:
    """The command line's overrides reach the search and leave the digest alone."""
    problem = parse()
    changed = problem.searching(trials=3, timeout_s=12.0)

    assert (changed.search.trials, changed.search.timeout_s, changed.search.seed) == (3, 12.0, 0)
    assert problem.searching() == problem
    assert changed.digest == problem.digest


# ---- the file --------------------------------------------------------------------------------------


def refused(call: Callable[[], object], *words: str) -> SpecError:
    """The SpecError of ``call``; its text holds all ``words``."""
    with pytest.raises(SpecError) as caught:
        call()
    for word in words:
        assert word in str(caught.value)
    return caught.value


def test_missing_spec_file_is_refused(folder: Path, vocabulary: Vocabulary) -> None:
    """The file's name and what would make one are said."""
    refused(lambda: load_spec(folder / "no.yaml", vocabulary), "no.yaml does not exist", "autopilot init")


def test_folder_as_spec_is_refused(folder: Path, vocabulary: Vocabulary) -> None:
    """A folder is no spec."""
    refused(lambda: load_spec(folder, vocabulary), "is a folder")


def test_unreadable_spec_file_is_refused(folder: Path, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without permission is bad input, not a crash."""
    path = folder / "spec.yaml"
    path.write_text(GOOD)

    def denied(*args: object, **more: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)

    refused(lambda: load_spec(path, vocabulary), "can't be read: Permission denied")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["is empty"]),
        ("# nothing\n", ["is empty"]),
        ("- a\n- b\n", ["a list"]),
        ("just text\n", ["one value"]),
        ("name: a\n\tmodel: b\n", [":2", "tabs"]),
        ("name: [a\n", ["not valid YAML"]),
        (GOOD + "---\nname: b\n", ["one document"]),
        (GOOD + "x: !!python/object/apply:os.system [ls]\n", [":8", "Tags"]),
        (GOOD + "name: again\n", [":8", "'name'", "given twice (first on line 1)"]),
        (GOOD.replace("2.0", "2.0\n  latency_p99_ms: 3"), [":8", "given twice"]),
        (GOOD + "3: x\n", [":8", "not text"]),
        (GOOD.replace("2.0", ".nan"), [":7", "no meaning"]),
        (GOOD.replace("2.0", ".inf"), [":7", "no meaning"]),
        (GOOD + "a: &a [*a]\n", ["nested too deeply"]),
        ("[" * 3000, ["spec.yaml"]),
        (GOOD + "version: !!int x\n", ["can't read"]),
        (GOOD + "version: !!bool x\n", ["can't read"]),
        (GOOD + "x: !!timestamp x\n", ["spec.yaml"]),
        (b"\x08\x07onnx\xff\xfe\x00", ["not UTF-8 text"]),
        (b"name: a\x00b\n", ["not valid YAML"]),
        (b"x" * (1 << 21), ["larger than 1 MiB", "autopilot check MODEL SPEC"]),
        (GOOD + "".join(f"a{i}: &a{i} [{f'*a{i - 1}, *a{i - 1}' if i else 1}]\n" for i in range(25)), ["too large"]),
    ],
)
def test_file_that_is_no_spec_is_refused(
    load: Callable[[str | bytes], Problem], text: str | bytes, words: list[str]
) -> None:
    """Whatever else the file holds, one SpecError says so, with the line where there is one."""
    refused(lambda: load(text), "spec.yaml", *words)


def test_file_with_byte_order_mark_is_read(load: Callable[[bytes], Problem]) -> None:
    """Editors on Windows write one."""
    assert load(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode()).name == "demo"


# ---- lines and nearest words -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (GOOD.replace("metric:", "metrics:"), 5, ["'metrics'", "'metric'"]),
        (GOOD.replace("validation:", "validaton:"), 4, ["'data.validaton'", "'validation'"]),
        (GOOD.replace("latency_p99_ms", "latncy_p99_ms"), 7, ["unknown axis", "'latency_p99_ms'"]),
        (GOOD.replace("accuracy", "acuracy"), 5, ["unknown metric", "'accuracy'"]),
        (GOOD + "space: cpuu\n", 8, ["unknown search space", "'cpu'"]),
        (
            GOOD + "target:\n  threads: 1\n  providers:\n    - cpu\n    - openvin\n",
            12,
            ["'openvin'", "Did you mean 'openvino'?"],
        ),
        (GOOD + "objective: sise_mb\n", 8, ["unknown axis", "'size_mb'"]),
        (GOOD + "objective:\n  - size_mb\n  - qualty\n", 10, ["unknown axis", "'quality'"]),
        (GOOD + "traffic: {scenario: singlestream}\n", 8, ["single_stream"]),
        (GOOD + "audit: wran\n", 8, ["audit should be one of fail, warn", "'warn'"]),
        (GOOD + "search:\n  trials: 3\n  timout: 3m\n", 10, ["search.timout", "'timeout'"]),
        (GOOD.replace("z\n", "z\n  inputs:\n    x: {scal: 1}\n", 1), 6, ["data.inputs.x.scal", "'scale'"]),
        (GOOD.replace("z\n", "z\n  inputs:\n    x: {dtype: float23}\n", 1), 6, ["'float32'"]),
        (GOOD.replace("accuracy", "{name: f1_binary, treshold: 1}"), 5, ["metric.treshold", "'threshold'"]),
        (GOOD.replace("2.0", "{maxi: 3}"), 7, ["'maxi'", "max"]),
    ],
)
def test_misspelt_word_names_its_line_and_the_nearest(
    load: Callable[[str], Problem], text: str, line: int, words: list[str]
) -> None:
    """A wrong word is found where it stands, with the right one."""
    refused(lambda: load(text), f"spec.yaml:{line}: ", *words)


# ---- values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["name", "model", "data", "metric", "budget"])
def test_missing_key_is_named(parse: Parse, key: str) -> None:
    """What every spec needs is asked for by name."""
    refused(lambda: parse(**{key: None}), f"'{key}' is missing")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": 2024}, ["name should be text", "quotes"]),
        ({"name": "a/b"}, ["name 'a/b'"]),
        ({"name": ".."}, ["name '..'"]),
        ({"name": ""}, ["not empty"]),
        ({"budget": {}}, ["budget", "at least one"]),
        ({"budget": []}, ["budget should be a mapping"]),
        ({"budget": {"latency_p99_ms": -1}}, ["negative"]),
        ({"budget": {"latency_p99_ms": 0}}, ["limit of 0"]),
        ({"budget": {"quality_drop": -0.1}}, ["negative"]),
        ({"budget": {"latency_p99_ms": True}}, ["no limit"]),
        ({"budget": {"latency_p99_ms": "fast"}}, ["60% of baseline"]),
        ({"budget": {"latency_p99_ms": None}}, ["no limit"]),
        ({"budget": {"latency_p99_ms": {"min": 3}}}, ["limited by max"]),
        ({"budget": {"throughput_rps": {"max": 3}}}, ["limited by min"]),
        ({"budget": {"size_mb": {"max": 3, "margin": "200%"}}}, ["margin"]),
        ({"budget": {"latency_p50_ms": 1, "latency_p50.0_ms": 2}}, ["twice"]),
        ({"budget": {"cost_per_million": 1}}, ["price_per_hour"]),
        ({"objective": "cost_per_million"}, ["price_per_hour"]),
        ({"margin": "a lot"}, ["no fraction"]),
        ({"margin": -0.1}, ["margin"]),
        ({"objective": []}, ["empty list", "[latency_p50_ms, quality]"]),
        ({"objective": ["size_mb", "size_mb"]}, ["names size_mb twice"]),
        ({"objective": ["latency_p50_ms", "latency_p50.0_ms"]}, ["names latency_p50_ms twice"]),
        ({"objective": ["quality", "quality_drop"]}, ["order variants alike"]),
        ({"objective": ["size_mb", 5]}, ["one axis", "not 5"]),
        ({"objective": ["size_mb", "cost_per_million"]}, ["price_per_hour"]),
        ({"objective": ["size_mb", "max_rate_rps"]}, ["no meaning in single_stream"]),
        ({"objective": 5}, ["one axis"]),
        ({"metric": 5}, ["metric should be"]),
        ({"metric": {"threshold": 0.5}}, ["exactly one of name and function"]),
        ({"metric": {"name": "accuracy", "function": "steps.py:f"}}, ["exactly one"]),
        ({"metric": {"name": "accuracy", "direction": "minimize"}}, ["own direction"]),
        ({"metric": {"function": "steps.py:f"}}, ["needs a direction"]),
        ({"metric": {"function": "steps.py", "direction": "minimize"}}, ["FILE.py:FUNCTION"]),
        ({"metric": {"function": "gone.py:f", "direction": "minimize"}}, ["gone.py does not exist"]),
        ({"metric": {"function": "steps.py:f", "direction": "up"}}, ["maximize, minimize"]),
        ({"metric": {"function": "steps.py:f", "direction": "maximize", "blank": 0}}, ["no meaning"]),
        ({"metric": {"name": "f1_binary", "threshold": "high"}}, ["metric.threshold should be a number"]),
        ({"model": "gone.onnx"}, ["gone.onnx does not exist", "relative to the spec"]),
        ({"model": "."}, ["is a folder"]),
        ({"model": 5}, ["path to an .onnx file"]),
        ({"model": "models:demo"}, ["no MLflow URI"]),
        ({"model": "a\0b.onnx"}, ["does not exist"]),
        ({"model": {"cod": "a.py:f"}}, ["model.cod", "'code'"]),
        ({"data": {"validation": "gone.npz"}}, ["data.validation", "does not exist"]),
        ({"data": {"validation": "notes.txt"}}, ["neither .npz nor .parquet"]),
        ({"data": {"validation": "valid.npz", "test": "gone.npz"}}, ["data.test"]),
        ({"data": {"validation": "valid.npz", "train": 3}}, ["data.train should be text"]),
        ({"data": {"test": "test.npz"}}, ["'data.validation' is missing"]),
        ({"data": "valid.npz"}, ["data should be a mapping", "validation"]),
        ({"data": {"validation": "valid.npz", "batched": "yes please"}}, ["data.batched should be true or false"]),
        ({"data": {"validation": "valid.npz", "label": 3}}, ["data.label should be text"]),
        ({"data": {"validation": "valid.npz", "preprocess": "steps.py"}}, ["FILE.py:FUNCTION"]),
        (
            {"data": {"validation": "valid.npz", "preprocess": "steps.py:f", "inputs": {"x": {"scale": 2}}}},
            ["exclude each other"],
        ),
        ({"traffic": {"scenario": "server"}}, ["needs rate_rps"]),
        ({"traffic": {"scenario": "server", "rate_rps": 0}}, ["above 0"]),
        ({"traffic": {"scenario": "server", "rate_rps": 1, "arrivals": "poison"}}, ["'poisson'"]),
        ({"traffic": {"scenario": "server", "rate_rps": 1, "arrivals": "gone.csv"}}, ["gone.csv does not exist"]),
        ({"traffic": {"scenario": "offline", "rate_rps": 5}}, ["no meaning in offline"]),
        ({"traffic": {"scenario": "offline", "period_s": 5}}, ["no meaning in offline"]),
        ({"traffic": {"scenario": "server", "rate_rps": 1, "period_s": 0}}, ["above 0"]),
        ({"traffic": {"scenario": "server", "rate_rps": 1, "period_s": 5}}, ["no meaning with", "diurnal"]),
        ({"traffic": {"scenario": "server", "rate_rps": 1, "burst": {"on_s": 1}}}, ["no meaning with", "bursty"]),
        ({"traffic": {"scenario": "server", "rate_rps": 1, "burst": {"on": 1}}}, ["traffic.burst.on", "'on_s'"]),
        ({"budget": {"dropped_share": 0.01}}, ["no meaning in single_stream"]),
        ({"objective": "max_rate_rps"}, ["no meaning in single_stream"]),
        (
            {"traffic": SERVER, "budget": {"max_rate_rps": 5, "latency_p99_ms": "50% of baseline"}},
            ["none in milliseconds"],
        ),
        ({"traffic": SERVER, "budget": {"throughput_rps": 201}}, ["only 200 requests a second"]),
        ({"traffic": SERVER, "budget": {"throughput_rps": 199}, "margin": "5%"}, ["only 200 requests a second"]),
        ({"target": {"threads": 0}}, ["at least 1"]),
        ({"target": {"threads": 1.5}}, ["target.threads should be a whole number"]),
        ({"target": {"providers": []}}, ["at least one entry"]),
        ({"target": {"providers": ["cpu", "cpu"]}}, ["twice"]),
        ({"target": {"price_per_hour": -1}}, ["above 0"]),
        ({"space": "gone.yaml"}, ["gone.yaml does not exist"]),
        ({"search": {"trials": 0}}, ["at least 1"]),
        ({"search": {"trials": "many"}}, ["search.trials should be a whole number, not 'many'"]),
        ({"search": {"timeout": "soon"}}, ["search.timeout", "15m"]),
        ({"search": {"timeout": 0}}, ["no time"]),
        ({"search": {"timeout": -5}}, ["no duration"]),
        ({"search": {"timeout": True}}, ["no duration"]),
        ({"search": {"seed": -1}}, ["at least 0"]),
        ({"search": {"seed": 2**32}}, ["below 4294967296"]),
        ({"search": None, "version": "three"}, ["version should be a whole number"]),
    ],
)
def test_senseless_value_is_refused(parse: Parse, changes: dict[str, Any], words: list[str]) -> None:
    """Each wrong value is named with what would be right."""
    refused(lambda: parse(**changes), *words)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"constant": 1, "from": "a"}, ["'from' has no meaning"]),
        ({"constant": 1, "scale": 2}, ["'scale' has no meaning"]),
        ({"constant": "zero"}, ["nested lists of numbers"]),
        ({"constant": []}, ["nested lists of numbers"]),
        ({"shape": [1, 2]}, ["belongs to a constant"]),
        ({"constant": 0, "shape": [0]}, ["at least 1"]),
        ({"scale": 0}, ["is 0"]),
        ({"mean": 0, "std": [1, 0]}, ["is 0"]),
        ({"scale": "big"}, ["scale should be a number or a list"]),
        ({"scale": []}, ["at least one entry"]),
        (5, ["should be a mapping with some of the keys from, dtype"]),
    ],
)
def test_senseless_input_mapping_is_refused(parse: Parse, given: Any, words: list[str]) -> None:
    """A mapping that can't be applied is refused before any array is read."""
    data = {"validation": "valid.npz", "inputs": {"x": given}}

    refused(lambda: parse(data=data), "data.inputs.x", *words)


def test_every_refusal_has_exit_code_2(parse: Parse) -> None:
    """Bad specs and models of the wrong kind are the user's to mend."""
    for changes in ({"budget": {}}, {"model": "net.pt2"}):
        with pytest.raises(BadInput) as caught:
            parse(**changes)
        assert caught.value.exit_code == 2


def test_raw_keeps_the_yaml_as_loaded(load: Callable[[str], Problem]) -> None:
    """What was asked can be recorded with the run, word for word."""
    assert load(GOOD).raw == yaml.safe_load(GOOD)
