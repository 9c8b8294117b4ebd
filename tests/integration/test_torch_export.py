"""PyTorch models become ONNX files that answer alike; what can't is refused in words."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

torch = pytest.importorskip("torch", reason="the extra is missing: pip install -c constraints.txt -e '.[torch]'")
pytest.importorskip("safetensors", reason="the extra torch lacks safetensors")

from autopilot.bench.child import ChildLimits  # noqa: E402
from autopilot.build.torch_export import export_note, export_torch, source_digest, sweep_exports  # noqa: E402
from autopilot.data.example import Example  # noqa: E402
from autopilot.errors import ModelError  # noqa: E402
from autopilot.export_worker import check  # noqa: E402
from autopilot.model import inspect  # noqa: E402
from autopilot.spec import TorchSource  # noqa: E402
from autopilot.torch_model import export_onnx, load_source  # noqa: E402
from tests import torch_nets as nets  # noqa: E402

pytestmark = pytest.mark.integration

CODE = f"{Path(nets.__file__)}:cnn"
LIMITS = ChildLimits(wall_s=600.0, memory_bytes=8 << 30)


def images(n: int = 6, name: str = "image") -> dict[str, Any]:
    """Inputs of ``nets.Cnn``."""
    return {name: np.random.default_rng(0).standard_normal((n, 1, 8, 8)).astype(np.float32)}


def texts(n: int = 6) -> dict[str, Any]:
    """Inputs of ``nets.Encoder``; every second text is one token shorter."""
    mask = np.ones((n, 6), np.int64)
    mask[::2, -1] = 0
    return {"ids": np.random.default_rng(1).integers(0, 40, (n, 6)), "mask": mask}


def vectors(n: int = 4) -> dict[str, Any]:
    """Inputs of the two smallest networks."""
    return {"x": np.random.default_rng(2).standard_normal((n, 3)).astype(np.float32)}


def weights(folder: Path) -> Path:
    """Weights of ``nets.Cnn`` as safetensors."""
    from safetensors.torch import save_file

    save_file(nets.seeded(nets.Cnn).state_dict(), str(folder / "w.safetensors"))
    return folder / "w.safetensors"


def example(feed: dict[str, Any]) -> Example:
    """All inputs with a sample dimension."""
    return Example(feed, len(next(iter(feed.values()))), tuple(feed), batched=True)


# ---- the export itself -----------------------------------------------------------------------------


@pytest.mark.parametrize(("net", "feed"), [(nets.Cnn, images()), (nets.Encoder, texts())])
def test_export_answers_as_the_module_for_any_number_of_samples(tmp_path: Path, net: Any, feed: Any) -> None:
    """Names are the spec's and the answer's own, the first dimension is free."""
    target = tmp_path / "model.onnx"

    exported = export_onnx(nets.seeded(net), feed, tuple(feed), target)

    check(target, exported, tuple(feed))
    info = inspect(target)
    assert exported.batch is None
    assert exported.note == ""
    assert {i.name: i.shape[0] for i in info.inputs} == dict.fromkeys(feed, "batch")
    assert {o.name for o in info.outputs} == set(exported.expected)


def test_check_refuses_another_models_answers(tmp_path: Path) -> None:
    """The numerical check can fail."""
    feed = images()
    exported = export_onnx(nets.seeded(nets.Cnn, 0), feed, ("image",), tmp_path / "a.onnx")
    export_onnx(nets.seeded(nets.Cnn, 1), feed, ("image",), tmp_path / "b.onnx")

    with pytest.raises(ModelError, match="does not answer as the PyTorch model"):
        check(tmp_path / "b.onnx", exported, ("image",))


def test_single_input_may_have_any_name(tmp_path: Path) -> None:
    """``forward(image)`` takes the spec's ``pixels``: there is nothing to confuse it with."""
    export_onnx(nets.seeded(nets.Cnn), images(name="pixels"), ("pixels",), tmp_path / "model.onnx")

    assert [i.name for i in inspect(tmp_path / "model.onnx").inputs] == ["pixels"]


def test_file_holds_no_traces_of_this_machine(tmp_path: Path) -> None:
    """The exporter notes source files and lines of every node; the artifact shouldn't."""
    export_onnx(nets.seeded(nets.Cnn), images(), ("image",), tmp_path / "model.onnx")

    assert b"torch_nets.py" not in (tmp_path / "model.onnx").read_bytes()


def test_batch_is_fixed_and_said_so_when_the_trace_depends_on_it(tmp_path: Path) -> None:
    """A model that asks how many samples there are is exported for one."""
    feed = vectors()

    exported = export_onnx(nets.seeded(nets.OneByOne), feed, ("x",), tmp_path / "model.onnx")

    check(tmp_path / "model.onnx", exported, ("x",))
    assert exported.batch == 1
    assert "depends on how many samples" in exported.note
    assert inspect(tmp_path / "model.onnx").batch == 1


@pytest.mark.parametrize(("dynamic", "batch"), [(True, None), (False, 3)])
def test_exported_program_keeps_its_batch(tmp_path: Path, dynamic: bool, batch: int | None) -> None:
    """A .pt2 file was made for any number of samples or for one number; the ONNX file is the same."""
    shapes = {"image": {0: torch.export.Dim("n")}} if dynamic else None
    program = torch.export.export(nets.seeded(nets.Cnn), (torch.zeros(3, 1, 8, 8),), dynamic_shapes=shapes)
    torch.export.save(program, tmp_path / "net.pt2")

    loaded = load_source(TorchSource(program=tmp_path / "net.pt2"))
    exported = export_onnx(loaded, images(name="pixels"), ("pixels",), tmp_path / "model.onnx")

    check(tmp_path / "model.onnx", exported, ("pixels",))
    assert exported.batch == inspect(tmp_path / "model.onnx").batch == batch
    assert bool(exported.note) is not dynamic


@pytest.mark.parametrize(
    ("net", "feed", "words"),
    [
        (nets.Branching, vectors(), ["can't be exported", "control flow"]),
        (nets.Encoder, {"ids": texts()["ids"], "attention": texts()["mask"]}, ["takes ids, mask", "attention"]),
        (nets.Cnn, {"image": images()["image"].astype(np.float64)}, ["fails on the first samples", "float64[6, 1, 8"]),
        (nets.Cnn, {"image": images()["image"][:, 0]}, ["fails on the first samples", "float32[6, 8, 8]"]),
    ],
)
def test_model_that_does_not_fit_is_refused(tmp_path: Path, net: Any, feed: Any, words: list[str]) -> None:
    """What is wrong and what would be right, in a sentence."""
    with pytest.raises(ModelError) as caught:
        export_onnx(nets.seeded(net), feed, tuple(feed), tmp_path / "model.onnx")

    assert all(word in str(caught.value) for word in words), str(caught.value)


# ---- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("nested", [False, True])
def test_state_dict_loads_as_tensors(tmp_path: Path, nested: bool) -> None:
    """A .pt file of tensors, or a checkpoint with them inside."""
    state = nets.seeded(nets.Cnn).state_dict()
    torch.save({"epoch": 3, "state_dict": state} if nested else state, tmp_path / "w.pt")

    loaded: Any = load_source(TorchSource(code=CODE, weights=tmp_path / "w.pt"))

    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())
    assert not loaded.training


class _Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_pickled_code_in_weights_is_not_executed(tmp_path: Path) -> None:
    """A file of weights is data: what would run on loading is refused."""
    trap = tmp_path / "sprung"
    torch.save({"w": _Trap(trap)}, tmp_path / "w.pt")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(_Trap(trap)))

    for name in ("w.pt", "bare.pt"):
        with pytest.raises(ModelError, match="Save the weights alone"):
            load_source(TorchSource(code=CODE, weights=tmp_path / name))
    assert not trap.exists()


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("broken", ["broken()", "no such layer"]),
        ("nothing", ["nothing()", "NoneType", "torch.nn.Module"]),
        ("gone", ["has no function 'gone'"]),
        ("Encoder", ["doesn't fit the network of Encoder()", "it lacks down.bias", "more", "the network has no"]),
    ],
)
def test_code_that_gives_no_fitting_network_is_refused(tmp_path: Path, function: str, words: list[str]) -> None:
    """File, function and reason."""
    with pytest.raises(ModelError) as caught:
        load_source(TorchSource(code=CODE.replace(":cnn", f":{function}"), weights=weights(tmp_path)))

    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_other_widths_are_told(tmp_path: Path) -> None:
    """The names fit, a shape doesn't."""
    state = nets.seeded(nets.Cnn).state_dict()
    state["head.2.bias"] = torch.zeros(5)
    torch.save(state, tmp_path / "w.pt")

    with pytest.raises(ModelError, match=r"head\.2\.bias"):
        load_source(TorchSource(code=CODE, weights=tmp_path / "w.pt"))


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    """Neither a program nor weights."""
    for name in ("net.pt2", "w.safetensors", "w.pt"):
        (tmp_path / name).write_bytes(b"not that")
    sources = [TorchSource(program=tmp_path / "net.pt2")]
    sources += [TorchSource(code=CODE, weights=tmp_path / n) for n in ("w.safetensors", "w.pt")]

    for source in sources:
        with pytest.raises(ModelError):
            load_source(source)


# ---- through the child -----------------------------------------------------------------------------


def test_child_exports_once_and_the_folder_remembers(tmp_path: Path) -> None:
    """The second call finds the first one's file; new weights give another one."""
    source = TorchSource(code=CODE, weights=weights(tmp_path))
    lines: list[str] = []

    def export() -> Path:
        folder = tmp_path / "model"
        made = export_torch(source, example(images()), folder=folder, limits=LIMITS, threads=1, progress=lines.append)
        return made.path

    first, again = export(), export()

    assert first == again
    assert export_note(first) == ""
    assert len(lines) == 3
    assert [p.name for p in (tmp_path / "model").iterdir()] == [first.parent.name]
    before = source_digest(source)
    torch.save(nets.seeded(nets.Cnn, 1).state_dict(), tmp_path / "w2.pt")
    assert source_digest(TorchSource(code=CODE, weights=tmp_path / "w2.pt")) != before


def test_code_that_ends_the_child_is_bad_input(tmp_path: Path) -> None:
    """Whatever a user's file does to its process, the answer is a paragraph."""
    (tmp_path / "net.py").write_text("import os\ndef build():\n    os._exit(3)\n")
    source = TorchSource(code=f"{tmp_path / 'net.py'}:build", weights=weights(tmp_path))

    with pytest.raises(ModelError, match="could not be exported"):
        export_torch(source, example(images()), folder=tmp_path / "model", limits=LIMITS, threads=1)
    assert not list((tmp_path / "model").iterdir())


# The study's part of an export, in a process that can be killed.
_EXPORTS = """
import sys
from pathlib import Path
import numpy as np
from autopilot.bench.child import ChildLimits
from autopilot.build.torch_export import export_torch
from autopilot.data.example import Example
from autopilot.spec import TorchSource
home = Path(sys.argv[1])
source = TorchSource(code=f"{home / 'net.py'}:build", weights=home / "w.safetensors")
example = Example({"image": np.zeros((2, 1, 8, 8), np.float32)}, 2, ("image",), batched=True)
export_torch(source, example, folder=home / "model", limits=ChildLimits(wall_s=120.0), threads=1)
"""


def test_killed_export_leaves_nothing_after_the_next_start(tmp_path: Path) -> None:
    """SIGKILL lets no process tidy up; while it lives its folders stay, whoever looks."""
    weights(tmp_path)
    begun = tmp_path / "begun"
    (tmp_path / "net.py").write_text(f"import time\ndef build():\n    open({str(begun)!r}, 'w')\n    time.sleep(120)\n")
    export = subprocess.Popen([sys.executable, "-c", _EXPORTS, str(tmp_path)])
    deadline = time.monotonic() + 120.0
    while not begun.exists() and export.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    living = sorted((tmp_path / "model").iterdir())
    sweep_exports(tmp_path / "model")

    assert len(living) == 2
    assert sorted((tmp_path / "model").iterdir()) == living
    children = psutil.Process(export.pid).children(recursive=True)
    for process in (psutil.Process(export.pid), *children):
        process.kill()
    export.wait()
    psutil.wait_procs(children, timeout=30)
    assert sorted((tmp_path / "model").iterdir()) == living
    sweep_exports(tmp_path / "model")
    assert list((tmp_path / "model").iterdir()) == []
