"""The starter spec: right entries for what the data hold, and accepted by the parser."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from autopilot.errors import BadInput, DataError, ModelError
from autopilot.init import REFUSED, write_starter
from autopilot.plugins import metrics, vocabulary
from autopilot.scoring.intervals import tango
from autopilot.search.foreseen import sample_notes
from autopilot.spec import Problem, load_spec
from tests import models

N = 40
TYPES = {"float32": onnx.TensorProto.FLOAT, "int64": onnx.TensorProto.INT64}


def model(
    folder: Path, inputs: dict[str, tuple[str, Sequence[int | str]]], output: Sequence[int | str] = ("N", 4)
) -> Path:
    """A model with the given inputs; nobody runs it."""
    values = [onnx.helper.make_tensor_value_info(k, TYPES[t], shape) for k, (t, shape) in inputs.items()]
    outputs = [onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, output)]
    first = next(iter(inputs))
    node = onnx.helper.make_node("Cast", [first], ["out"], to=onnx.TensorProto.FLOAT)
    graph = onnx.helper.make_graph([node], "g", values, outputs)
    path = folder / "net.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]), path)
    return path


def start(folder: Path, path: Path, **arrays: Any) -> tuple[Problem, list[str], str]:
    """The starter spec for ``arrays`` as a Problem, the remarks, and its text."""
    np.savez(folder / "valid.npz", **arrays)
    remarks = write_starter(path, folder / "valid.npz", folder / "spec.yaml")
    text = (folder / "spec.yaml").read_text()
    return load_spec(folder / "spec.yaml", vocabulary()), remarks, text


IMAGE = {"image": ("float32", ("N", 1, 8, 8))}
LABELS = np.arange(N) % 4


def pixels(dtype: str = "uint8", most: int = 255) -> np.ndarray:
    return np.linspace(0, most, N * 64).reshape(N, 1, 8, 8).astype(dtype)


def classifier(folder: Path, *, with_scores: bool) -> Path:
    """A model whose first output is the class itself, as skl2onnx writes scikit-learn's classifiers."""
    made = onnx.load(model(folder, IMAGE))
    made.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("label", onnx.TensorProto.INT64, ("N",)))
    if with_scores:
        scores = onnx.helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, ("N", 4))
        made.graph.output.append(scores)
    onnx.save(made, folder / "net.onnx")
    return folder / "net.onnx"


def test_classifier_that_gives_the_class_first_is_scored_on_its_scores(tmp_path: Path) -> None:
    """Accuracy takes a number a class; r2 of class numbers would be a poor measure of a classifier."""
    arrays = {"image": pixels("float32"), "label": LABELS}

    problem, remarks, _ = start(tmp_path, classifier(tmp_path, with_scores=True), **arrays)

    assert (problem.metric.name, problem.metric.output) == ("accuracy", "probabilities")
    assert not any("class itself" in r for r in remarks)


def test_classifier_without_scores_is_told_how_to_get_them(tmp_path: Path) -> None:
    """No metric suits class numbers; the user has to export the scores, and is told so at once."""
    arrays = {"image": pixels("float32"), "label": LABELS}

    _, remarks, _ = start(tmp_path, classifier(tmp_path, with_scores=False), **arrays)

    assert any("'label' is the class itself" in r and "zipmap" in r for r in remarks)


def test_bytes_onto_a_float_input_are_scaled(tmp_path: Path) -> None:
    """Images stored as bytes become 0..1, with a comment that says so."""
    problem, remarks, text = start(tmp_path, model(tmp_path, IMAGE), image=pixels(), label=LABELS)

    assert problem.data.inputs["image"].scale == 1 / 255
    assert "bytes become 0..1" in text
    assert problem.metric.name == "accuracy"
    assert remarks == []


def test_scale_is_called_a_guess_when_bytes_stay_small(tmp_path: Path) -> None:
    """Values up to 16 were not divided by 255 in training: the user is asked to look."""
    _, remarks, text = start(tmp_path, model(tmp_path, IMAGE), image=pixels(most=16), label=LABELS)

    assert "run to 16" in remarks[0]
    assert "a guess" in text


def test_equal_names_and_types_need_no_entry(tmp_path: Path) -> None:
    """What works by itself is not spelt out."""
    problem, _, _ = start(tmp_path, model(tmp_path, IMAGE), image=pixels("float32"), label=LABELS)

    assert problem.data.inputs == {}


def test_unsafe_cast_is_written_out(tmp_path: Path) -> None:
    """float64 onto float32 needs a dtype, since casts that lose digits are never silent."""
    problem, _, _ = start(tmp_path, model(tmp_path, IMAGE), image=pixels("float64"), label=LABELS)

    assert problem.data.inputs["image"].dtype == "float32"


def test_only_array_of_the_right_shape_is_taken_under_another_name(tmp_path: Path) -> None:
    """An input without an array of its name gets the one whose shape fits."""
    problem, remarks, _ = start(
        tmp_path, model(tmp_path, IMAGE), x_valid=pixels("float32"), other=np.zeros((N, 3)), y=LABELS
    )

    assert problem.data.inputs["image"].source == "x_valid"
    assert problem.data.label == "y"
    assert remarks == []


def test_two_fitting_arrays_are_not_guessed_between(tmp_path: Path) -> None:
    """An ambiguous input is left for the user to fill in, and said so."""
    _, remarks, text = start(tmp_path, model(tmp_path, IMAGE), a=pixels("float32"), b=pixels("float32"), label=LABELS)

    assert "no stored array fits the input image" in remarks[0]
    assert "FILL_IN" in text


def test_text_inputs_are_matched_by_name(tmp_path: Path) -> None:
    """Two inputs of the same shape are told apart by their names."""
    inputs = {"input_ids": ("int64", ("N", "S")), "attention_mask": ("int64", ("N", "S"))}
    ids = np.ones((N, 5), np.int32)
    problem, remarks, _ = start(
        tmp_path, model(tmp_path, inputs), input_ids=ids, attention_mask=ids.astype(np.uint8), label=LABELS
    )

    assert (remarks, problem.data.inputs) == ([], {})


def test_arrays_without_the_sample_dimension_make_batched_false(tmp_path: Path) -> None:
    """A sequence model takes one sample a run, without a leading dimension."""
    problem, _, _ = start(
        tmp_path, model(tmp_path, {"tokens": ("int64", ("S",))}), tokens=np.ones((N, 7), np.int64), label=LABELS
    )

    assert problem.data.batched is False


@pytest.mark.parametrize(
    ("labels", "output", "metric"),
    [
        (LABELS, ("N", 4), "accuracy"),
        (LABELS % 2, ("N", 2), "accuracy"),
        (LABELS % 2, ("N", 1), "f1_binary"),
        (LABELS % 2 == 0, ("N",), "f1_binary"),
        (LABELS.astype("float32"), ("N", 1), "r2"),
        (LABELS, ("N", 1), "r2"),
        (np.ones((N, 3), "float32"), ("N", 3), "mae"),
        (np.ones((N, 6), "int64"), ("N", 6, 9), "token_accuracy"),
        (None, ("N", 4), "agreement"),
    ],
)
def test_metric_follows_labels_and_output(
    tmp_path: Path, labels: np.ndarray | None, output: tuple[int | str, ...], metric: str
) -> None:
    """Classes, yes or no, numbers, sequences, nothing: each has a metric that takes it."""
    arrays = {"image": pixels("float32")} | ({} if labels is None else {"label": labels})
    problem, _, _ = start(tmp_path, model(tmp_path, IMAGE, output), **arrays)

    assert problem.metric.name == metric


def test_loss_of_an_error_metric_is_in_the_labels_unit(tmp_path: Path) -> None:
    """One percent of the labels' spread, not a hundredth of whatever their unit is."""
    labels = np.linspace(0, 1000, N * 3).reshape(N, 3)
    problem, _, _ = start(tmp_path, model(tmp_path, IMAGE, ("N", 3)), image=pixels("float32"), label=labels)

    limit = problem.budget.limit("quality_drop")
    assert limit is not None
    assert limit.bound == pytest.approx(0.01 * labels.std(), rel=0.05)


def test_few_samples_are_pointed_out(tmp_path: Path) -> None:
    """A run would refuse them, so the user hears it now."""
    _, remarks, _ = start(tmp_path, model(tmp_path, IMAGE), image=pixels("float32")[:9], label=LABELS[:9])

    assert any("9 samples" in r for r in remarks)


def test_paths_are_relative_to_the_spec(tmp_path: Path) -> None:
    """The spec may lie elsewhere than model and data, and names with blanks and signs survive YAML."""
    home = tmp_path / "a #1: b"
    home.mkdir()
    path = model(home, IMAGE)
    np.savez(home / "valid.npz", image=pixels("float32"), label=LABELS)
    (tmp_path / "specs").mkdir()

    write_starter(path, home / "valid.npz", tmp_path / "specs" / "s.yaml")

    problem = load_spec(tmp_path / "specs" / "s.yaml", vocabulary())
    assert problem.model == path
    assert problem.data.validation == home / "valid.npz"


def test_inputs_with_odd_names_survive_yaml(tmp_path: Path) -> None:
    """Exporters name inputs ``0`` and ``on``; YAML would read a number and a truth."""
    inputs = {"0": ("float32", ("N", 3)), "on:": ("float32", ("N", 4))}
    problem, _, _ = start(
        tmp_path, model(tmp_path, inputs), **{"0": np.zeros((N, 3)), "on:": np.zeros((N, 4)), "label": LABELS}
    )

    assert set(problem.data.inputs) == {"0", "on:"}


def test_without_data_the_inputs_are_described(tmp_path: Path) -> None:
    """The spec says what to store, and what is missing is remarked."""
    remarks = write_starter(model(tmp_path, IMAGE), None, tmp_path / "spec.yaml")

    assert "image (float32[N, 1, 8, 8])" in (tmp_path / "spec.yaml").read_text()
    assert "--data FILE" in remarks[0]


def test_existing_spec_is_kept_without_force(tmp_path: Path) -> None:
    """Nobody's work is overwritten unasked."""
    path, output = model(tmp_path, IMAGE), tmp_path / "spec.yaml"
    output.write_text("mine")

    with pytest.raises(BadInput, match="--force"):
        write_starter(path, None, output)

    assert output.read_text() == "mine"
    write_starter(path, None, output, force=True)
    assert "name: net" in output.read_text()


def test_bad_model_and_bad_data_leave_no_spec(tmp_path: Path) -> None:
    """Nothing half-written stays behind."""
    (tmp_path / "bad.onnx").write_text("no model")
    (tmp_path / "bad.npz").write_text("no arrays")

    with pytest.raises(ModelError):
        write_starter(tmp_path / "bad.onnx", None, tmp_path / "spec.yaml")
    with pytest.raises(DataError):
        write_starter(model(tmp_path, IMAGE), tmp_path / "bad.npz", tmp_path / "spec.yaml")

    assert not list(tmp_path.glob("spec*"))


def test_output_in_a_missing_folder_is_refused(tmp_path: Path) -> None:
    """Folders are not made by the way."""
    with pytest.raises(BadInput, match="does not exist"):
        write_starter(model(tmp_path, IMAGE), None, tmp_path / "no" / "spec.yaml")


def test_every_test_model_gets_a_spec_that_the_parser_accepts(tmp_path: Path) -> None:
    """Real graphs of two kinds, with the samples that fit them."""
    for made in (models.cnn(), models.encoder()):
        folder = tmp_path / made.graph.output[0].name / str(len(made.graph.node))
        folder.mkdir(parents=True)
        path = models.write(made, folder / "model.onnx")
        problem, remarks, _ = start(folder, path, **models.samples(made, N), label=LABELS % 3)

        assert remarks == []
        assert problem.metric.name == "accuracy"


# ---- what a run would refuse, and what the data can show -------------------------------------------


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        ((N, 8, 8, 1), "after the sample dimension it does not fit the model's input 'image'"),
        ((N, 1, 28, 28), "after the sample dimension it does not fit the model's input 'image'"),
        ((N - 5, 1, 8, 8), f"in the same file has {N}."),
    ],
)
def test_data_that_a_run_refuses_is_remarked_on_in_its_words(
    tmp_path: Path, stored: tuple[int, ...], said: str
) -> None:
    """Shapes and lengths are known from the file's headers: nobody has to start a run for that."""
    path = model(tmp_path, IMAGE)
    np.savez(tmp_path / "valid.npz", image=np.zeros(stored, np.float32), label=LABELS)

    (remark,) = write_starter(path, tmp_path / "valid.npz", tmp_path / "spec.yaml")

    assert remark.startswith(REFUSED)
    assert said in remark


def test_labels_beyond_the_models_classes_are_remarked_on(tmp_path: Path) -> None:
    """99 is no class of a model with four."""
    _, remarks, _ = start(tmp_path, model(tmp_path, IMAGE), image=pixels("float32"), label=np.r_[LABELS[:-1], 99])

    assert len(remarks) == 1
    assert "run to 99, and the model's output has 4 classes" in remarks[0]


@pytest.mark.parametrize(
    ("output", "labels", "said"),
    [
        (("N", 4), LABELS - 1, "the metric accuracy does not fit: there are labels outside 0 .. 3"),
        (("N", 4), LABELS.astype(float), "the metric accuracy does not fit: the labels are floats, not classes"),
        (("N", 1), np.ones(N), "the metric r2 does not fit: the labels are constant"),
        (("N", 2, 4), np.full((N, 2), 7), "the metric token_accuracy does not fit: there are labels outside 0 .. 3"),
    ],
)
def test_labels_that_the_metric_refuses_are_remarked_on_in_its_words(
    tmp_path: Path, output: tuple[int | str, ...], labels: Any, said: str
) -> None:
    """A run would end with the same: it holds the metric's own check against the labels before anything else."""
    _, remarks, _ = start(tmp_path, model(tmp_path, IMAGE, output), image=pixels("float32"), label=labels)

    (remark,) = remarks
    assert remark.startswith(REFUSED)
    assert said in remark


def test_labels_are_not_judged_where_the_models_output_is_open(tmp_path: Path) -> None:
    """How many classes there are is known only when it has run."""
    path = model(tmp_path, IMAGE, ("N", "classes"))
    _, remarks, _ = start(tmp_path, path, image=pixels("float32"), label=LABELS + 90)

    assert remarks == []


@pytest.mark.parametrize("dtype", ["float32", "int64", "bool"])
def test_one_hot_labels_are_classes_that_have_to_be_converted(tmp_path: Path, dtype: str) -> None:
    """Not numbers whose error is to be averaged; and the line that converts them does."""
    hot = np.eye(4)[LABELS].astype(dtype)
    path = model(tmp_path, IMAGE)
    problem, remarks, _ = start(tmp_path, path, image=pixels("float32"), label=hot)

    assert problem.metric.name == "accuracy"
    assert len(remarks) == 1
    assert "are one-hot" in remarks[0]
    line = remarks[0].split('-c "')[1].rstrip('"')
    exec(line, {})  # our own text: what it says has to work
    assert write_starter(path, tmp_path / "valid.npz", tmp_path / "spec.yaml", force=True) == []
    assert np.array_equal(np.load(tmp_path / "valid.npz")["label"], LABELS)


def test_rows_with_more_or_less_than_one_1_are_no_classes(tmp_path: Path) -> None:
    """Several labels a sample stay what they are."""
    many = np.eye(4)[LABELS]
    many[0] = 1
    problem, _, _ = start(tmp_path, model(tmp_path, IMAGE), image=pixels("float32"), label=many)

    assert problem.metric.name == "mae"


@pytest.mark.parametrize(("samples", "bound", "why"), [(900, 0.02, "takes 389"), (1200, 0.01, ""), (90, 0.18, "389")])
def test_limit_on_the_loss_is_one_that_the_samples_can_show(
    tmp_path: Path, samples: int, bound: float, why: str
) -> None:
    """A third is held back; a run whose limit it can't show would end undecided whatever it finds."""
    labels = np.arange(samples) % 4
    problem, remarks, text = start(
        tmp_path, model(tmp_path, IMAGE), image=np.zeros((samples, 1, 8, 8), np.float32), label=labels
    )

    limit = problem.budget.limit("quality_drop")
    assert limit is not None
    assert limit.bound == bound
    assert why in text
    assert remarks == []
    assert sample_notes(problem.budget, metrics()["accuracy"], samples // 3, problem.data) == []
    one_lost = tango(1, 0, samples // 3)
    assert bound == 0.01 or one_lost.high <= limit.effective
