"""Distillation as a build runs it: after pruning and before int8, from checkpoints, in a process that may be killed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

torch = pytest.importorskip("torch", reason="the extra is missing: pip install -c constraints.txt -e '.[torch]'")
pytest.importorskip("torch_pruning", reason="the extra torch lacks torch-pruning")

from autopilot.artifact import Artifact  # noqa: E402
from autopilot.bench.child import ChildLimits  # noqa: E402
from autopilot.build import build  # noqa: E402
from autopilot.build.cache import Cache  # noqa: E402
from autopilot.build.training import Training  # noqa: E402
from autopilot.data import Split  # noqa: E402
from autopilot.data.split import seal  # noqa: E402
from autopilot.domain import Scalar  # noqa: E402
from autopilot.errors import Failure, Unsupported, VariantFailed  # noqa: E402
from autopilot.model import inspect  # noqa: E402
from autopilot.recipe import Recipe, Step, params_of  # noqa: E402
from autopilot.spec import TorchSource  # noqa: E402
from autopilot.torch_model import export_onnx  # noqa: E402
from autopilot.torch_model.distil import RESERVE_S  # noqa: E402
from autopilot.torch_model.heldout import divide  # noqa: E402
from tests import torch_students as nets  # noqa: E402

pytestmark = pytest.mark.integration

N = 400
PRUNE = Step("prune_channels", params_of({"ratio": 0.4, "scope": "uniform", "epochs": 0}))
INT8 = Step("dynamic_int8")


def distill(student: str, **params: Scalar) -> Step:
    return Step("distill", params_of({"student": student, "effort": 0, "batch": 32, **params}))


@dataclass(frozen=True)
class Work:
    """A model as exported, its code, and data."""

    model: Artifact
    source: TorchSource
    split: Split
    cache: Path

    def build(
        self,
        *steps: Step,
        code: bool = True,
        student: str | None = None,
        wall_s: float = 170.0,
        said: list[str] | None = None,
    ) -> tuple[Artifact, list[str]]:
        """The artifact, and what the child said, which goes into ``said`` where that is given."""
        said = [] if said is None else said
        source = TorchSource(code=self.source.code, weights=self.source.weights, student=student) if code else None
        artifact = build(
            Recipe(steps),
            self.model,
            calibration=self.split,
            cache=Cache(self.cache),
            threads=1,
            limits=ChildLimits(wall_s=wall_s),
            progress=said.append,
            metric_is_classification=True,
            training=Training.of(self.split, source),
        )
        return artifact, said


def sealed(folder: Path, arrays: Mapping[str, Any]) -> Split:
    """Images and labels as a study prepares them."""
    folder.mkdir()
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)
    inputs = [{"name": "image", "source": "image", "dtype": "float32"}]
    meta = {"name": "train", "n": N, "batched": True, "label": "label", "shared": {}, "model_inputs": {}}
    meta |= {"arrays": {name: f"{name}.npy" for name in arrays}, "inputs": inputs}
    seal(folder, {**meta, "preprocess": None, "postprocess": None}, [])
    return Split.load(folder)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """A network whose own answers are the labels, exported once; left as it is by the tests."""
    folder = tmp_path_factory.mktemp("given")
    torch.manual_seed(0)
    net = nets.deep().eval()
    with torch.no_grad():  # equal weights would be stored once by the exporter
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.weight, 0.3, 0.8)
                torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
        net.head.weight.mul_(10)
    images = np.random.default_rng(0).standard_normal((N, 1, 8, 8)).astype(np.float32)
    labels = net(torch.from_numpy(images)).argmax(1).numpy()
    torch.save(net.state_dict(), folder / "w.pt")
    path = folder / "given.onnx"
    export_onnx(net, {"image": images[:4]}, ("image",), path)
    source = TorchSource(code=f"{Path(nets.__file__)}:deep", weights=folder / "w.pt")
    split = sealed(folder / "train", {"image": images, "label": labels})
    return Work(Artifact.of([path]), source, split, folder / "none")


@pytest.fixture
def work(given: Work, tmp_path: Path) -> Work:
    """The same with a cache of its own."""
    return replace(given, cache=tmp_path / "cache")


def agreement(work: Work, artifact: Artifact) -> float:
    """How often a file answers as the labels say."""
    runner = ort.InferenceSession(str(artifact.path), providers=["CPUExecutionProvider"])
    answers = runner.run(None, work.split.feed(slice(None)))[0]
    return float((np.asarray(answers).argmax(1) == work.split.labels).mean())


@pytest.mark.parametrize("code", [True, False])
def test_prune_distil_quantize_compose(work: Work, code: bool) -> None:
    """Each step starts from the one before, from the user's module or from the files alone."""
    pruned, _ = work.build(PRUNE, code=code)

    whole, said = work.build(PRUNE, distill("same", effort=2), INT8, code=code)
    taught, again = work.build(PRUNE, distill("same", effort=2), code=code)

    assert said[0] == "building distill"
    assert again == []
    assert inspect(taught.path).parameters == inspect(pruned.path).parameters
    assert inspect(pruned.path).parameters < inspect(work.model.path).parameters
    assert inspect(whole.path).quantized
    assert agreement(work, taught) >= agreement(work, pruned)
    # With the code there is a record of what pruning left, so that batch norms are trained with their statistics.
    records = list((work.cache / "scratch" / "torch-modules").glob("*"))
    assert bool(records) is code


@pytest.mark.parametrize("code", [True, False])
def test_shallower_student_has_fewer_blocks(work: Work, code: bool) -> None:
    """Half of four like blocks, with or without the code, behind the same interface."""
    built, _ = work.build(distill("depth", keep=0.5, effort=1), code=code)

    assert inspect(built.path).op_counts["Conv"] == 3
    assert inspect(work.model.path).op_counts["Conv"] == 5
    assert [o.name for o in inspect(built.path).outputs] == [o.name for o in inspect(work.model.path).outputs]


def test_own_student_is_trained_and_must_fit(work: Work) -> None:
    """The network of ``model.student`` from scratch; one that answers in another shape is refused."""
    built, _ = work.build(distill("code", effort=1), student=f"{Path(nets.__file__)}:small")

    assert inspect(built.path).parameters < inspect(work.model.path).parameters / 4
    with pytest.raises(Unsupported, match="answers with"):
        work.build(distill("code"), student=f"{Path(nets.__file__)}:other")
    with pytest.raises(Unsupported, match="names no student"):
        work.build(distill("code"))


def test_more_effort_goes_on_from_the_checkpoint(work: Work) -> None:
    """Only the rungs that weren't trained are, and the student isn't chosen anew."""
    work.build(distill("depth", effort=1))

    _, said = work.build(distill("depth", effort=2))

    epochs = [line for line in said if "epoch" in line]
    assert epochs
    assert all(line.startswith("effort 2:") for line in epochs)
    assert all("held-out" in line and "left" in line for line in epochs)


def test_training_that_only_harms_is_no_step_and_more_effort_goes_on_from_it(work: Work, tmp_path: Path) -> None:
    """What is trained with has other classes than what is held out, where the model begins without a mistake."""
    labels = np.asarray(work.split.labels).copy()
    trained, held_out = divide(work.split)
    assert len(held_out)
    labels[trained] = (labels[trained] + 1) % (labels.max() + 1)
    images = work.split.raw(slice(None))["image"]
    misled = replace(work, split=sealed(tmp_path / "misled", {"image": images, "label": labels}))
    harm: dict[str, Scalar] = {"loss": "dkd", "learning_rate": 1e-2, "batch": 8}
    with pytest.raises(Unsupported, match=r"changed nothing: at effort 0 and learning rate 0\.01.* 100\.00% before"):
        misled.build(distill("same", **harm))

    said: list[str] = []
    with pytest.raises(Unsupported, match="changed nothing: at effort 1"):
        misled.build(distill("same", **harm, effort=1), said=said)

    epochs = [line for line in said if "epoch" in line]
    assert epochs
    assert all(line.startswith("effort 1:") for line in epochs)


def test_a_training_that_runs_out_of_time_goes_on_the_next_time(work: Work) -> None:
    """The child ends by itself with a checkpoint; nothing is cached as failed."""
    # A second beside what is kept for the export: starting the child alone takes longer.
    with pytest.raises(VariantFailed) as caught:
        work.build(distill("width", effort=5, batch=8), wall_s=RESERVE_S + 1.0)
    built, _ = work.build(distill("width", effort=0, batch=8))

    assert caught.value.failure is Failure.TIMEOUT
    assert built.path.is_file()
