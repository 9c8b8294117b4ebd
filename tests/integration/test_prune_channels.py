"""Channel pruning: fewer parameters behind the same interface, trained back, refused where it can't be done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

torch = pytest.importorskip("torch", reason="the extra is missing: pip install -c constraints.txt -e '.[torch]'")
pytest.importorskip("torch_pruning", reason="the extra torch lacks torch-pruning")

from autopilot import plugins  # noqa: E402
from autopilot.contracts import BuildContext  # noqa: E402
from autopilot.errors import Unsupported  # noqa: E402
from autopilot.model import inspect  # noqa: E402
from autopilot.recipe import params_of  # noqa: E402
from autopilot.spec import TorchSource  # noqa: E402
from autopilot.techniques._smoke import check_built  # noqa: E402
from autopilot.torch_model import from_onnx, load_source  # noqa: E402
from autopilot.torch_model.prune import Plan, Pruner  # noqa: E402
from autopilot.torch_model.train import Schedule, Trainer  # noqa: E402
from autopilot.torch_model.trials import parameters  # noqa: E402
from tests import models, torch_files  # noqa: E402
from tests import torch_nets as nets  # noqa: E402

pytestmark = pytest.mark.integration

TECHNIQUE = plugins.techniques()["prune_channels"]
QUICK = {"round_to": 1, "epochs": 1, "ratio": 0.4}


@dataclass
class Labelled(models.Samples):
    """Samples with labels."""

    labels: Any = None

    def raw(self, indices: Any) -> dict[str, Any]:
        return {name: values[indices] for name, values in self.arrays.items()}


def labelled(n: int = 256) -> Labelled:
    """Images whose labels are what ``nets.Cnn`` says to them."""
    images = np.random.default_rng(0).standard_normal((n, 1, 8, 8)).astype(np.float32)
    with torch.no_grad():
        labels = nets.seeded(nets.Cnn)(torch.from_numpy(images)).argmax(1).numpy()
    return Labelled({"image": images}, n, labels=labels)


def exported(folder: Path) -> Path:
    """``nets.Cnn`` as an ONNX file."""
    return torch_files.exported(nets.Cnn, labelled(4).arrays, folder / "source" / "model.onnx")


def source(folder: Path) -> TorchSource:
    """``nets.Cnn`` as the user's own code and weights."""
    torch.save(nets.seeded(nets.Cnn).state_dict(), folder / "w.pt")
    return TorchSource(code=f"{Path(nets.__file__)}:cnn", weights=folder / "w.pt")


def context(folder: Path, **changes: Any) -> BuildContext:
    """What a build gives, with training data."""
    train = labelled()
    given: dict[str, Any] = {"calibration": train, "scratch": folder, "threads": 1, "metric_is_classification": True}
    return BuildContext(**(given | {"train": train} | changes))


def build(model: Path, folder: Path, use: BuildContext, **params: Any) -> Path:
    """Apply the technique; the file it wrote."""
    defaults = {name: domain.default for name, domain in TECHNIQUE.parameters.items()}
    folder.mkdir()
    TECHNIQUE.apply(model, folder, defaults | QUICK | params, use)
    return folder / "model.onnx"


@pytest.mark.parametrize("own_code", [True, False])
@pytest.mark.parametrize("scope", ["global", "sensitive", "latency"])
def test_pruned_model_is_smaller_behind_the_same_interface(tmp_path: Path, own_code: bool, scope: str) -> None:
    """From the user's module or from the ONNX file alone; a free batch stays free."""
    model = exported(tmp_path)
    use = context(tmp_path, torch_source=source(tmp_path) if own_code else None)

    built = build(model, tmp_path / "built", use, scope=scope)

    check_built(model, built, use)
    assert inspect(built).parameters < 0.8 * inspect(model).parameters
    assert inspect(built).batch is None
    assert [o.name for o in inspect(built).outputs] == [o.name for o in inspect(model).outputs]


def test_batch_norm_scale_needs_the_module(tmp_path: Path) -> None:
    """An ONNX export has its norms folded away; the user's own module has them."""
    model = exported(tmp_path)

    with pytest.raises(Unsupported, match="no batch norm"):
        build(model, tmp_path / "folded", context(tmp_path), importance="bn_scale")

    built = build(model, tmp_path / "own", context(tmp_path, torch_source=source(tmp_path)), importance="bn_scale")
    assert inspect(built).parameters < inspect(model).parameters


def test_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    """A built file is named by its content."""
    model, use = exported(tmp_path), context(tmp_path)

    first, second = (build(model, tmp_path / turn, use).read_bytes() for turn in ("a", "b"))

    assert first == second


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"train": None}, "no training data"), ({"train": models.Samples({}, 1, batched=False)}, "data.batched is false")],
)
def test_without_training_data_it_is_unsupported(tmp_path: Path, changes: Mapping[str, Any], reason: str) -> None:
    """Said before anything is loaded."""
    with pytest.raises(Unsupported, match=reason):
        build(tmp_path / "model.onnx", tmp_path / "built", context(tmp_path, **changes))


@pytest.mark.parametrize(("name", "reason"), [("arithmetic", "no channels"), ("recurrent", "LSTM")])
def test_model_without_channels_is_unsupported(tmp_path: Path, name: str, reason: str) -> None:
    """Nothing to remove, or nothing that can be converted."""
    onnx_model = models.MAKERS[name]()
    model = models.write(onnx_model, tmp_path / "model.onnx")
    data = Labelled(models.samples(onnx_model, 32), 32)

    with pytest.raises(Unsupported, match=reason):
        build(model, tmp_path / "built", context(tmp_path, train=data, calibration=data))


def test_rounding_that_leaves_nothing_to_remove_is_unsupported(tmp_path: Path) -> None:
    """Eight channels can't become fewer and stay a multiple of sixteen."""
    with pytest.raises(Unsupported, match=r"removes no|no channels"):
        build(exported(tmp_path), tmp_path / "built", context(tmp_path), round_to=16, ratio=0.05)


def trainer(call: Any, *, classes: bool = True) -> Trainer:
    return Trainer(labelled(), call, classes, "output")  # type: ignore[arg-type]


def test_training_brings_the_answers_back(tmp_path: Path) -> None:
    """After some epochs the pruned network is nearer to the one it came from than before."""
    start = from_onnx(exported(tmp_path))
    t = trainer(start.call, classes=False)
    plain, _ = start.call.arguments({"image": labelled(2).arrays["image"]})
    pruner = Pruner(plain, lambda m: t.answers(m, 64), t.shapes, t.settle, t.gradients)
    pruned = pruner.prune(start.module, Plan(0.3, "magnitude", "uniform", 1))
    targets = t.answers(start.module)
    before = float(((t.answers(pruned) - targets) ** 2).mean())

    steps = t.fit(pruned, targets, Schedule(6, 60.0, 3e-3))

    assert parameters(pruned) < parameters(start.module)
    assert steps == 6 * 2
    assert float(((t.answers(pruned) - targets) ** 2).mean()) < 0.7 * before
    assert not pruned.training


def test_training_ends_with_its_time() -> None:
    """No seconds, no step."""
    net = nets.seeded(nets.Cnn)
    t = trainer(from_call())

    assert t.fit(net, t.answers(net), Schedule(5, 1e-9, 1e-3)) == 0


def from_call() -> Any:
    """How ``nets.Cnn`` takes its image."""
    from autopilot.torch_model.calling import Call

    return Call(("image",), ("image",), 0)


def test_settled_statistics_are_those_of_the_data(tmp_path: Path) -> None:
    """Wrong statistics are gone after one pass; weights stay as they were."""
    net: Any = load_source(source(tmp_path))
    norm = net.stem[1]
    norm.running_mean.fill_(100.0)
    weights = norm.weight.clone()

    trainer(from_call()).settle(net)

    with torch.no_grad():
        seen = net.stem[0](torch.from_numpy(labelled().arrays["image"]) - net.mean)
    assert torch.allclose(norm.running_mean, seen.mean((0, 2, 3)), atol=1e-4)
    assert torch.equal(norm.weight, weights)
    assert norm.momentum == 0.1
    assert not any(m.training for m in net.modules())


def test_heads_keep_their_width(tmp_path: Path) -> None:
    """Of an encoder the width between the layers and in the feed-forward goes; what a reshape fixes stays."""
    onnx_model = models.encoder()
    model = models.write(onnx_model, tmp_path / "model.onnx")
    data = Labelled(models.samples(onnx_model, 64), 64)

    built = build(model, tmp_path / "built", context(tmp_path, train=data, calibration=data), ratio=0.5)

    before, after = (dict(from_onnx(path).module.named_children()) for path in (model, built))
    assert [after[f"l0_{n}_proj"].out_features for n in "qkv"] == [32, 32, 32]
    assert sum(parameters(m) for m in after.values()) < sum(parameters(m) for m in before.values())
    runner = ort.InferenceSession(str(built), providers=["CPUExecutionProvider"])
    assert runner.run(None, models.samples(onnx_model, 3))[0].shape == (3, 3)


def test_recipe_records_every_parameter() -> None:
    """A step without parameters is the step with its defaults; without training its settings are the defaults."""
    from autopilot.build.cache import complete
    from autopilot.recipe import Step

    step = complete(TECHNIQUE, Step("prune_channels", params_of({"epochs": 0, "minutes": 9.0})))

    assert dict(step.params)["minutes"] == TECHNIQUE.parameters["minutes"].default
    assert set(dict(step.params)) == set(TECHNIQUE.parameters)


def test_measured_widths_are_kept_for_the_next_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second build times nothing, tells the same table and writes the same bytes."""
    from autopilot.techniques import _prune_latency

    told: list[str] = []
    model, use = exported(tmp_path), context(tmp_path, tell=told.append)
    first = build(model, tmp_path / "a", use, scope="latency", epochs=0).read_bytes()
    table = [line for line in told if "saves" in line and "channels:" in line]
    monkeypatch.setattr(_prune_latency, "time_against", lambda *args, **more: pytest.fail("timed again"))
    told.clear()

    second = build(model, tmp_path / "b", use, scope="latency", epochs=0).read_bytes()

    assert first == second
    assert table
    assert [line for line in told if "saves" in line and "channels:" in line] == table


def test_timing_file_answers_as_the_module_does(tmp_path: Path) -> None:
    """What is timed is the network that will be written, whichever exporter wrote it."""
    from autopilot.torch_model.quick_export import export_for_timing

    net = nets.seeded(nets.Cnn)
    image = dict(labelled(1).arrays)

    export_for_timing(net, image, from_call(), tmp_path / "t.onnx")

    runner = ort.InferenceSession(str(tmp_path / "t.onnx"), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = net(torch.from_numpy(image["image"])).numpy()
    np.testing.assert_allclose(runner.run(None, image)[0], expected, atol=1e-5)
