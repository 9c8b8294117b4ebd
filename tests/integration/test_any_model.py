"""The main job on every kind of model: a verdict, and the score that a few lines by hand give."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import autopilot
from autopilot import plugins
from autopilot.contracts import BuildContext, Technique
from autopilot.data import Splits, prepare
from autopilot.domain import Choice
from autopilot.errors import BadInput, Failure, Unsupported, VariantFailed
from autopilot.model import inspect
from autopilot.result import Status
from autopilot.search import load_spec
from autopilot.techniques._smoke import check_built
from tests.integration.run_support import hurry, new_store
from tests.kinds import CASES

pytestmark = pytest.mark.integration

# Models on which both int8 techniques have something to do; two trials elsewhere (the next test builds all).
THREE_TRIALS = ("captcha", "segmentation_maps", "channels_last_uint8_opset11", "one_row_a_run", "one_inside", "half")
# Parameters that decide which operators a technique touches.
DECIDING = ("method", "op_types", "scope")


@pytest.fixture(scope="module", autouse=True)
def one_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One MLflow store for all studies, none of which is about times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", new_store(tmp_path_factory.mktemp("store")))
        hurry(patch)
        yield


@pytest.mark.parametrize("kind", CASES)
def test_run_gives_a_verdict_and_the_score_by_hand(kind: str, tmp_path: Path) -> None:
    """In budget; the baseline scores what onnxruntime and the formula give; no technique breaks."""
    case = CASES[kind]()
    by_hand = case.write(tmp_path, name=kind)  # a name of its own in the store: no champion to be measured against

    study = autopilot.run(tmp_path / "spec.yaml", out=tmp_path / "out", trials=3 if kind in THREE_TRIALS else 2)

    result = study.result
    assert result.status is Status.IN_BUDGET
    assert result.trials[0].measured["quality"].value == pytest.approx(by_hand["validation"], abs=1e-5)
    assert result.baseline.measured["quality"].value == pytest.approx(by_hand["test"], abs=1e-5)
    failed = {t.failure: t.reason for t in result.trials if t.failure is not None}
    assert set(failed) <= {Failure.UNSUPPORTED}, failed
    assert result.baseline.operators is not None, result.warnings
    assert (result.baseline.stages is not None) == (kind == "hooks")


@pytest.mark.parametrize("kind", CASES)
def test_every_technique_takes_a_model_or_says_unsupported(kind: str, tmp_path: Path) -> None:
    """Whatever the model: a file that answers like its source, or Unsupported; nothing else."""
    CASES[kind]().write(tmp_path)
    splits = _splits(tmp_path)
    broken = {}

    for technique in plugins.techniques().values():
        for values in _choices(technique):
            try:
                _built(technique, values, tmp_path, splits)
            except Unsupported:
                continue
            except VariantFailed as exc:
                broken[technique.name, str(values)] = str(exc)

    assert broken == {}


def _splits(folder: Path) -> Splits:
    problem = load_spec(folder / "spec.yaml")
    assert isinstance(problem.model, Path)
    info = inspect(problem.model)
    return prepare(problem.data, problem.metric, info, folder / "data", seed=0, metric_needs_labels=False)


def _choices(technique: Technique) -> list[dict[str, object]]:
    """The defaults with each value of the deciding parameters."""
    defaults: dict[str, object] = {k: d.default for k, d in technique.parameters.items()}
    deciding = {k: d.values for k, d in technique.parameters.items() if k in DECIDING and isinstance(d, Choice)}
    varied = [{**defaults, key: value} for key, values in deciding.items() for value in values]
    return varied or [defaults]


def _built(technique: Technique, values: dict[str, object], folder: Path, splits: Splits) -> None:
    target, scratch = folder / "built" / str(len(list(folder.glob("built/*")))), folder / "scratch"
    target.mkdir(parents=True)
    scratch.mkdir(exist_ok=True)
    context = BuildContext(splits.calibration, scratch, 1, True)
    technique.apply(folder / "model.onnx", target, technique.normalise(values), context)  # type: ignore[arg-type]
    check_built(folder / "model.onnx", target / "model.onnx", context)


@pytest.mark.parametrize(
    ("kind", "why"),
    [("state_first_fixed_batch", "has shape"), ("linear_probabilities", "is text")],
)
def test_first_output_that_no_metric_can_score_is_bad_input(kind: str, why: str, tmp_path: Path) -> None:
    """No other output is scored in its place: the message says why it can't be, and names those that can."""
    case = CASES[kind]()
    case.write(tmp_path, metric="accuracy")

    with pytest.raises(BadInput, match=why) as caught:
        autopilot.run(tmp_path / "spec.yaml", out=tmp_path / "out")

    assert case.metric["output"] in str(caught.value.hint)
    assert not (tmp_path / "out").exists()


def test_winner_leaves_sequences_to_others(tmp_path: Path) -> None:
    """A model with a sequence of maps among its outputs serves its tensors."""
    case = CASES["linear_maps"]()
    case.write(tmp_path)
    autopilot.run(tmp_path / "spec.yaml", out=tmp_path / "out", trials=1)

    answer = autopilot.load(tmp_path / "out" / "best")(case.feed(case.draw(5, 0), slice(0, 5)))

    assert set(answer) == {"output_label"}
    assert np.asarray(answer["output_label"]).shape == (5,)
