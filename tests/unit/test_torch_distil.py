"""Distillation's loop: rungs that continue, kills that lose little, the best weights kept."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
nn = torch.nn

from autopilot.errors import Failure, Unsupported, VariantFailed  # noqa: E402
from autopilot.torch_model import records  # noqa: E402
from autopilot.torch_model.calling import Call  # noqa: E402
from autopilot.torch_model.distil import RESERVE_S, Distiller  # noqa: E402
from autopilot.torch_model.hidden import Hidden  # noqa: E402
from autopilot.torch_model.lesson import Lesson, Plan  # noqa: E402
from autopilot.torch_model.rungs import epochs_of  # noqa: E402
from autopilot.torch_model.students import Judge, shallower  # noqa: E402
from autopilot.torch_model.train import Schedule, Trainer  # noqa: E402

N = 240


@dataclass
class Split:
    """Numbers, and the class that they belong to."""

    x: Any
    labels: Any
    n: int = N

    def feed(self, indices: Any) -> dict[str, Any]:
        return {"x": self.x[indices]}


def network(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3)).eval()


def distiller(folder: Path, **changes: Any) -> Distiller:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, 4)).astype(np.float32)
    labels = np.argmax(x[:, :3], 1)
    split: Any = Split(x, labels)
    trainer = Trainer(split, Call(("x",), ("x",), 1), True, "output")
    taught = torch.nn.functional.one_hot(torch.from_numpy(labels), 3).float() * 5
    lesson = Lesson(taught, np.arange(200), np.arange(200, N))
    given: dict[str, Any] = {"trainer": trainer, "lesson": lesson, "plan": Plan("ce_kd", 1e-2, 32)}
    return Distiller(**(given | {"checkpoints": folder / "key"} | changes))


def equal(a: Any, b: Any) -> bool:
    mine, theirs = records.weights_of(a), records.weights_of(b)
    return all(torch.equal(value, theirs[name]) for name, value in mine.items())


def test_rungs_continue_to_the_same_weights_as_one_long_training(tmp_path: Path) -> None:
    """What effort 2 gives doesn't depend on whether efforts 0 and 1 were asked for before."""
    straight, stepped = network(), network()

    distiller(tmp_path / "a").train(straight, 2)
    for effort in range(3):
        stepped = network()
        distiller(tmp_path / "b").train(stepped, effort)

    assert equal(straight, stepped)


def test_a_finished_rung_is_never_trained_again(tmp_path: Path) -> None:
    """The next effort takes the checkpoint: of all steps only the new rung's are taken."""
    told: list[str] = []
    distiller(tmp_path).train(network(), 2)

    distiller(tmp_path, tell=told.append).train(network(), 3)

    assert told
    assert all(line.startswith("effort 3:") for line in told)


@pytest.mark.parametrize("steps", [1, 5, 9, 20])
def test_training_that_was_stopped_goes_on_to_the_same_weights(tmp_path: Path, steps: int) -> None:
    """Neither an epoch's order nor the optimizer's state nor dropout know of the interruption."""
    whole, stopped, resumed = network(), network(), network()
    distiller(tmp_path / "a").train(whole, 2)
    ticks = iter(range(1000))

    with pytest.raises(VariantFailed, match="checkpoint") as caught:
        distiller(tmp_path / "b", left_s=lambda: 1e3 if next(ticks) < steps else RESERVE_S / 2).train(stopped, 2)
    distiller(tmp_path / "b").train(resumed, 2)

    assert caught.value.failure is Failure.TIMEOUT
    assert equal(whole, resumed)


def test_killed_training_loses_the_epoch_at_most(tmp_path: Path) -> None:
    """Where nothing was told of the end, what was written after the last epoch is gone on from."""
    whole, resumed = network(), network()
    distiller(tmp_path / "a").train(whole, 3)
    told: list[str] = []

    class Killed(BaseException):
        pass

    def kill(text: str) -> None:
        if text.startswith("effort 3: epoch 3"):
            raise Killed

    with pytest.raises(Killed):
        distiller(tmp_path / "b", tell=kill).train(network(), 3)
    distiller(tmp_path / "b", tell=told.append).train(resumed, 3)

    assert told[0].startswith("effort 3: epoch 3 of 4")
    assert equal(whole, resumed)


def test_damaged_checkpoint_is_trained_again(tmp_path: Path) -> None:
    """Half a file costs its rung, nothing more."""
    whole, again = network(), network()
    distiller(tmp_path).train(whole, 1)
    path = tmp_path / "key-1.safetensors"
    path.write_bytes(path.read_bytes()[:100])

    distiller(tmp_path).train(again, 1)

    assert equal(whole, again)


def test_training_that_only_harms_changes_nothing_and_says_so(tmp_path: Path) -> None:
    """What it began with is given back; the score of what was tried is known, from the checkpoint too."""
    good = network()
    distiller(tmp_path / "a").train(good, 3)
    begun = records.weights_of(good)
    harm = distiller(tmp_path / "b", plan=Plan("ce_kd", 10.0, 32))

    trained = harm.train(good, 1)
    again = harm.train(good, 1)

    assert records.holds(good, begun)
    assert not trained.changed
    assert trained.tried < trained.score == harm.teaching.score(good)
    assert again == trained


def test_training_recovers_what_the_teacher_knows(tmp_path: Path) -> None:
    """An untrained student comes to agree with its teacher, without labels too."""
    student, work = network(), distiller(tmp_path, plan=Plan("dist", 1e-2, 16))
    work.trainer.split.labels = None  # type: ignore[misc]

    trained = work.train(student, 4)

    assert trained.changed
    assert trained.score > 0.85
    assert trained.score > work.teaching.score(network()) + 0.2


def test_score_is_unknown_where_nothing_is_held_out(tmp_path: Path) -> None:
    """Few samples are all trained with; the last weights are then kept."""
    work = distiller(tmp_path)
    work = distiller(tmp_path, lesson=Lesson(work.lesson.taught, np.arange(N), np.arange(0)))

    trained = work.train(network(), 0)

    assert math.isnan(trained.score)
    assert trained.changed


def test_regression_learns_the_teachers_figures(tmp_path: Path) -> None:
    """Outputs that are no scores are compared by squares, whatever loss is named."""
    work = distiller(tmp_path, plan=Plan("dkd", 1e-2, 16))
    work = distiller(
        tmp_path,
        plan=work.plan,
        trainer=Trainer(work.trainer.split, work.trainer.call, False, "output"),
        lesson=Lesson(
            torch.from_numpy(work.trainer.split.feed(slice(None))["x"][:, :3]), np.arange(200), np.arange(200, N)
        ),
    )
    student = network()

    assert work.train(student, 4).score > work.teaching.score(network()) + 0.3


def test_hidden_states_of_other_widths_are_projected(tmp_path: Path) -> None:
    """A narrower student learns a projection along, which its checkpoint holds too."""
    teacher = network(1)
    narrow = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).eval()
    plan = Plan("ce_kd", 1e-2, 32, hidden=1.0)

    def trained(folder: Path, stop_at: int | None = None) -> Any:
        student = records.give_weights  # the same start each time
        module = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).eval()
        student(module, records.weights_of(narrow))
        ticks = iter(range(1000))
        left = (lambda: 1e3) if stop_at is None else (lambda: 1e3 if next(ticks) < stop_at else 0.0)
        work = distiller(folder, plan=plan, left_s=left)
        hidden = Hidden(teacher, (("1", "1"),))
        hidden.prepare(module, work.trainer.shapes)
        work.train(module, 1, hidden)
        return module

    whole = trained(tmp_path / "a")
    with pytest.raises(VariantFailed):
        trained(tmp_path / "b", stop_at=4)

    assert equal(trained(tmp_path / "b"), whole)
    assert not equal(whole, narrow)


@pytest.mark.parametrize("rung", range(1, 6))
def test_each_rung_doubles_the_epochs(rung: int) -> None:
    """Continuing costs as much as everything before it."""
    assert epochs_of(rung) == sum(epochs_of(r) for r in range(rung))


class Blocks(nn.Module):  # type: ignore[misc]
    """Four like blocks in a list, of which one does nothing."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(4))
        self.head = nn.Linear(4, 3)
        with torch.no_grad():
            self.blocks[2][0].weight.copy_(torch.eye(4))
            self.blocks[2][0].bias.zero_()

    def forward(self, x: Any) -> Any:
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def judge() -> Judge:
    x = torch.rand(8, 4)
    return Judge(lambda m: m(x).detach(), lambda m: tuple(m(x).shape), lambda m: m(x))


def test_the_block_that_does_least_goes_first() -> None:
    """Which block goes is measured, and the others keep their weights."""
    whole = Blocks()

    student, gone = shallower(whole, 0.75, judge())

    assert gone == ("blocks.2",)
    assert len(student.blocks) == 3
    assert len(whole.blocks) == 4
    assert equal(student.blocks[2], whole.blocks[3])
    assert torch.allclose(student(torch.ones(2, 4)), whole(torch.ones(2, 4)))


def test_known_blocks_give_the_same_student_without_measuring() -> None:
    """What was chosen once is chosen again."""
    student, gone = shallower(Blocks(), 0.5, judge())

    again, same = shallower(Blocks(), 0.5, judge(), gone)

    assert same == gone
    assert equal(student, again)


@pytest.mark.parametrize("share", [0.95, 1.0])
def test_nothing_to_take_out_is_unsupported(share: float) -> None:
    """A share that is all of the blocks, and a network without any, make no student."""
    with pytest.raises(Unsupported, match="all of them"):
        shallower(Blocks(), share, judge())
    with pytest.raises(Unsupported, match="no repeated blocks"):
        shallower(nn.Linear(4, 3), 0.5, judge())


def test_training_before_keeps_off_what_is_held_out_later(tmp_path: Path) -> None:
    """A trainer that is told its samples trains with no others."""
    seen: set[int] = set()

    class Watched(Split):
        def feed(self, indices: Any) -> dict[str, Any]:
            seen.update(int(i) for i in indices)
            return super().feed(indices)

    rng = np.random.default_rng(0)
    split: Any = Watched(rng.standard_normal((N, 4)).astype(np.float32), np.arange(N) % 3)
    allowed = np.arange(0, N, 2)
    trainer = Trainer(split, Call(("x",), ("x",), 1), True, "output", allowed)

    trainer.fit(network(), torch.zeros(N, 3), Schedule(epochs=2, seconds=60.0, learning_rate=1e-3))

    assert seen == set(allowed.tolist())


def test_mixed_training_asks_the_teacher_about_what_the_student_sees(tmp_path: Path) -> None:
    """Student and teacher get the very same points between samples, and the student learns from them."""
    teacher, seen, asked = network(seed=1), list[Any](), list[Any]()
    student = network()
    teacher.register_forward_pre_hook(lambda module, given: asked.append(given[0].detach().clone()))
    student.register_forward_pre_hook(lambda module, given: seen.append(given[0].detach().clone()))
    plan = Plan("ce_kd", 1e-2, 32, mixup=0.5)
    made = distiller(tmp_path, plan=plan, teacher=teacher)
    samples = {tuple(row.tolist()) for row in torch.from_numpy(made.trainer.split.feed(range(N))["x"])}

    made.train(student, 0)

    taught = [value for value in seen if any(value.shape == a.shape and torch.equal(value, a) for a in asked)]
    assert len(taught) == len(asked) == 7
    assert any(tuple(row.tolist()) not in samples for row in asked[0])


def test_mixed_training_is_continued_like_any_other(tmp_path: Path) -> None:
    """What is mixed follows rung and step, so that rungs taken apart give the same weights."""
    straight, stepped = network(), network()
    plan, teacher = Plan("ce_kd", 1e-2, 32, mixup=0.5), network(seed=1)

    distiller(tmp_path / "a", plan=plan, teacher=teacher).train(straight, 2)
    for effort in range(3):
        stepped = network()
        distiller(tmp_path / "b", plan=plan, teacher=teacher).train(stepped, effort)

    assert equal(straight, stepped)
