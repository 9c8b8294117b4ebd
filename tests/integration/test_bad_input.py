"""Bad input, end to end: exit 2, one paragraph on stderr, nothing on stdout, nothing left behind."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from autopilot.cli import main
from tests import models
from tests.integration.run_support import autopilot, write_study

pytestmark = pytest.mark.integration

Damage = Callable[[Path], None]
Files = Mapping[str, bytes]


def edit(**changes: Any) -> Damage:
    """Replaces top-level keys of the spec."""

    def damage(folder: Path) -> None:
        path = folder / "spec.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes, sort_keys=False))

    return damage


def store(**changes: Any) -> Damage:
    """Replaces arrays of valid.npz; None removes one, a function gets the array that is there."""

    def damage(folder: Path) -> None:
        with np.load(folder / "valid.npz") as stored:
            arrays = dict(stored)
        for name, value in changes.items():
            found = arrays.pop(name, None)
            if value is not None:
                arrays[name] = value(found) if callable(value) else value
        np.savez(folder / "valid.npz", **arrays)  # type: ignore[arg-type]

    return damage


def remove(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def overwrite(name: str, content: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content) and None


def truncate(name: str) -> Damage:
    def damage(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return damage


def external(then: Damage) -> Damage:
    """The model with its weights in a file of their own, then damaged."""

    def damage(folder: Path) -> None:
        models.write(models.cnn(), folder / "model.onnx", external=True)
        then(folder)

    return damage


def remove_weights(folder: Path) -> None:
    for path in weight_files(folder):
        path.unlink()


def move_weights_out(folder: Path) -> None:
    """The weights lie beside the model's folder, and the model says so."""
    import onnx

    (folder / "deep").mkdir()
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../" + entry.value
    (folder / "deep" / "model.onnx").write_bytes(model.SerializeToString())
    (folder / "model.onnx").unlink()
    edit(model="deep/model.onnx")(folder)


def weight_files(folder: Path) -> list[Path]:
    known = {"model.onnx", "valid.npz", "spec.yaml"}
    return [p for p in folder.iterdir() if p.name not in known]


def with_nan(array: np.ndarray) -> np.ndarray:
    array[3, 0, 1, 1] = np.nan
    return array


def few(n: int) -> Damage:
    return store(image=lambda a: a[:n], label=lambda a: a[:n])


def rename_operator(folder: Path) -> None:
    """A model that only its own runtime knows how to run."""
    model = models.cnn()
    node = next(n for n in model.graph.node if n.op_type == "Relu")
    node.op_type, node.domain = "Nonsense", "my.own"
    model.opset_import.add(domain="my.own", version=1)
    (folder / "model.onnx").write_bytes(model.SerializeToString())


def with_bad_test(folder: Path) -> None:
    """Held-back data of their own whose labels the model can't predict."""
    rng = np.random.default_rng(9)
    image = rng.standard_normal((60, 1, 8, 8)).astype(np.float32)
    np.savez(folder / "test.npz", image=image, label=np.full(60, 7))
    edit(data={"validation": "valid.npz", "test": "test.npz"})(folder)


# What is broken, and words of the message: what, where, what would be right.
CASES: dict[str, tuple[Damage, tuple[str, ...]]] = {
    "spec missing": (remove("spec.yaml"), ("spec.yaml does not exist", "autopilot init")),
    "spec is no YAML": (overwrite("spec.yaml", b"name: [a\nmodel: b"), ("spec.yaml:2", "not valid YAML", "colons")),
    "spec key unknown": (edit(budgett={"size_mb": 1}), ("spec.yaml:19", "'budgett'", "'budget'")),
    "nested spec key unknown": (edit(search={"trails": 4}), ("spec.yaml:15", "'search.trails'", "'trials'")),
    "axis misspelt": (edit(budget={"latency_p50": 3}), ("spec.yaml:7", "'latency_p50'", "'latency_p50_ms'")),
    "objective misspelt": (edit(objective="sise_mb"), ("spec.yaml:19", "objective", "'sise_mb'", "'size_mb'")),
    "limit negative": (edit(budget={"latency_p50_ms": -3}), ("spec.yaml:7", "-3 is negative", "positive number")),
    "metric unknown": (edit(metric="accuracyy"), ("spec.yaml:5", "'accuracyy'", "'accuracy'")),
    "space unknown": (edit(space="qiuck"), ("spec.yaml:13", "'qiuck'", "'quick'")),
    "provider not installed": (edit(target={"providers": ["gpu"]}), ("spec.yaml:11", "'gpu'", "cpu", "doctor")),
    "model missing": (remove("model.onnx"), ("spec.yaml:2", "model.onnx does not exist", "relative to the spec")),
    "data missing": (remove("valid.npz"), ("spec.yaml:4", "valid.npz does not exist", "relative to the spec")),
    "test data missing": (
        edit(data={"validation": "valid.npz", "test": "tset.npz"}),
        ("spec.yaml:5", "data.test", "tset.npz does not exist"),
    ),
    "model is no ONNX file": (
        overwrite("model.onnx", b"hello, I am a text file\n" * 20),
        ("model.onnx: is not an ONNX model", "Export"),
    ),
    "model is empty": (overwrite("model.onnx", b""), ("model.onnx: is empty", "Export")),
    "model truncated": (truncate("model.onnx"), ("model.onnx", "cut short", "Export")),
    "external data missing": (external(remove_weights), ("model.onnx", "'w1' is missing", "'weights.bin'", "copy all")),
    "external data outside the folder": (
        external(move_weights_out),
        ("deep/model.onnx", "'../weights.bin'", "outside the model's folder"),
    ),
    "operator unknown to the runtime": (rename_operator, ("model.onnx", "can't be measured", "Nonsense")),
    "data are no .npz": (overwrite("valid.npz", b"hello"), ("valid.npz is not a whole .npz file", "numpy.savez")),
    "label missing": (store(label=None), ("valid.npz", "no label array 'label'", "it has: image", "data.label")),
    "inputs misnamed": (
        store(image=None, imaeg=np.zeros((240, 1, 8, 8), np.float32)),
        ("valid.npz", "no array 'image'", "'imaeg'", "data.inputs.image.from"),
    ),
    "mapping misnamed": (
        edit(data={"validation": "valid.npz", "inputs": {"imag": {"from": "image"}}}),
        ("data.inputs names 'imag'", "'image'"),
    ),
    "input of the wrong shape": (
        store(image=np.zeros((240, 3, 8, 8), np.float32)),
        ("valid.npz", "[240, 3, 8, 8]", "[N, 1, 8, 8]", "data.preprocess"),
    ),
    "input of the wrong dtype": (
        store(image=lambda a: a.astype(np.float64)),
        ("valid.npz", "float64[240, 1, 8, 8]", "not a safe cast", "dtype: float32"),
    ),
    "NaN in the data": (store(image=with_nan), ("valid.npz", "'image'", "1 NaN", "index 3", "Drop")),
    "data empty": (few(0), ("valid.npz is empty", "0 samples", "at least 30")),
    "fewer than 30 samples": (few(29), ("valid.npz has 29 samples", "at least 30")),
    "labels beyond the classes": (
        store(label=lambda a: a + 3),
        ("valid.npz", "accuracy does not fit", "outside 0 .. 3", "values 3 to 6"),
    ),
    "float labels for a metric of classes": (
        store(label=lambda a: a + 0.5),
        ("valid.npz", "accuracy does not fit", "floats, not classes", "integer class labels"),
    ),
    "text labels": (store(label=lambda a: a.astype("U3")), ("valid.npz", "accuracy does not fit", "not numbers")),
    "binary metric for four classes": (edit(metric="f1_binary"), ("valid.npz", "f1_binary does not fit", "0/1")),
    "metric of numbers for a matrix": (edit(metric="r2"), ("valid.npz", "r2 does not fit", "float32")),
    "labels of the test data beyond the classes": (with_bad_test, ("test.npz", "accuracy does not fit", "outside")),
    "metric's output unknown": (
        edit(metric={"name": "accuracy", "output": "logit"}),
        ("metric.output", "'logit'", "'logits'"),
    ),
}
# Those that `check` meets as well: all but the model of the spec, which is its argument too here.
CHECKED = [
    "spec missing",
    "axis misspelt",
    "data missing",
    "model truncated",
    "external data missing",
    "label missing",
    "NaN in the data",
    "text labels",
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with nothing wrong, made once."""
    folder = tmp_path_factory.mktemp("whole")
    write_study(folder)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the study, as the working folder."""
    copy = tmp_path / "study"
    shutil.copytree(whole, copy)
    monkeypatch.chdir(copy)
    return copy


def contents(folder: Path) -> Files:
    """Every file's bytes and every folder's name, by relative path."""
    return {str(p.relative_to(folder)): b"" if p.is_dir() else p.read_bytes() for p in sorted(folder.rglob("*"))}


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Stdout is empty and stderr is one line that holds ``words``; returns it."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    for word in words:
        assert word in err
    return err


@pytest.mark.parametrize("case", CASES)
def test_run_refuses_bad_input_in_one_paragraph(case: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 2, what and where and what would be right, and the folder is as it was."""
    damage, words = CASES[case]
    damage(folder)
    before = contents(folder)

    code = main(["run", "spec.yaml", "--out", "out"])

    assert code == 2
    refused(capsys, *words)
    assert contents(folder) == before


@pytest.mark.parametrize("case", CHECKED)
def test_check_refuses_bad_input_in_one_paragraph(case: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The gate of CI says the same: never 0, never "not in budget"."""
    damage, _ = CASES[case]
    damage(folder)
    before = contents(folder)

    code = main(["check", "model.onnx", "spec.yaml"])

    assert code == 2
    refused(capsys)
    assert contents(folder) == before


def test_check_refuses_a_model_with_other_inputs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is measured has to take the spec's samples."""
    models.write(models.constant_weights(), folder / "other.onnx")

    code = main(["check", "other.onnx", "spec.yaml"])

    assert code == 2
    refused(capsys, "other.onnx", "inputs are x", "image")


def test_check_refuses_a_folder_that_is_no_bundle(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder counts only with its variant.json."""
    (folder / "best").mkdir()

    code = main(["check", "best", "spec.yaml"])

    assert code == 2
    refused(capsys, "best", "variant.json")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gone.onnx"], ("gone.onnx", "does not exist")),
        (["spec.yaml"], ("spec.yaml", "not an ONNX model")),
        (["model.onnx", "--data", "gone.npz"], ("gone.npz does not exist",)),
        (["model.onnx", "--data", "model.onnx"], ("model.onnx", "neither .npz nor .parquet")),
        (["model.onnx", "-o", "../study/spec.yaml"], ("spec.yaml exists already", "--force")),
        (["model.onnx", "-o", "none/new.yaml"], ("none", "does not exist")),
    ],
)
def test_init_refuses_bad_input_in_one_paragraph(
    arguments: list[str], words: tuple[str, ...], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 2, and no half-written spec."""
    before = contents(folder)

    code = main(["init", "-o", "new.yaml", *arguments])

    assert code == 2
    refused(capsys, *words)
    assert contents(folder) == before


@pytest.mark.parametrize("out", ["taken", "taken/deeper"])
def test_run_refuses_an_output_folder_that_a_file_is_in_the_way_of(
    out: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file is named and left as it is."""
    (folder / "taken").write_text("precious")
    before = contents(folder)

    code = main(["run", "spec.yaml", "--out", out])

    assert code == 2
    refused(capsys, "output folder", "taken", "is a file", "--out")
    assert contents(folder) == before


def test_run_refuses_an_output_folder_without_write_permission(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Known before anything is measured."""
    if not hasattr(os, "geteuid") or os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    (folder / "locked").mkdir(mode=0o555)

    code = main(["run", "spec.yaml", "--out", "locked/out"])

    assert code == 2
    refused(capsys, "locked", "can't be written", "--out")


def test_run_refuses_providers_that_are_not_usable_here(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provider that is installed but can't run says why."""
    from autopilot import plugins

    class Absent:
        """The CPU provider on a machine that lacks it."""

        def __getattr__(self, name: str) -> Any:
            return getattr(plugins.providers()["cpu"], name)

        def usable(self, target: object) -> str:
            return "no such device in this machine"

    found = {"cpu": plugins.providers()["cpu"], "absent": Absent()}
    monkeypatch.setattr(plugins, "providers", lambda: found)
    edit(target={"providers": ["absent"]})(folder)
    before = contents(folder)

    code = main(["run", "spec.yaml", "--out", "out"])

    assert code == 2
    refused(capsys, "absent", "no such device in this machine", "doctor")
    assert contents(folder) == before


def test_bad_input_leaves_an_existing_output_folder_as_it_was(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An earlier result is neither changed nor joined by anything."""
    (folder / "out").mkdir()
    (folder / "out" / "result.json").write_text("{}")
    few(29)(folder)
    before = contents(folder)

    code = main(["run", "spec.yaml", "--out", "out"])

    assert code == 2
    refused(capsys, "29 samples")
    assert contents(folder) == before


def test_bad_input_keeps_an_interrupted_run_that_could_go_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Data that turn out bad don't cost the trials that are there."""
    work = folder / "out" / ".autopilot"
    work.mkdir(parents=True)
    (work / "state.json").write_text('{"identity": {}, "finished": false, "mlflow_run": null, "elapsed_s": 9.0}')
    (work / "study.db").write_text("trials")
    few(29)(folder)

    code = main(["run", "spec.yaml", "--out", "out", "--quiet"])

    assert code == 2
    refused(capsys, "29 samples")
    assert (work / "study.db").read_text() == "trials"
    assert '"elapsed_s": 9.0' in (work / "state.json").read_text()


@pytest.mark.parametrize("case", ["axis misspelt", "fewer than 30 samples", "text labels"])
def test_command_refuses_bad_input_in_one_paragraph(case: str, folder: Path) -> None:
    """The same through a process of its own, where children, threads and exit handlers have their say."""
    damage, words = CASES[case]
    damage(folder)
    before = contents(folder)

    done = autopilot("run", "spec.yaml", cwd=folder)

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    for word in ("error: ", *words):
        assert word in done.stderr
    assert contents(folder) == before
