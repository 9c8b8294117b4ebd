"""Screening on growing subsets: a variant that is truly inside is kept, and none is accepted from a part."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopilot.artifact import Artifact
from autopilot.bench.child import ChildLimits
from autopilot.budget import Budget, Judgement, Limit
from autopilot.plugins import metrics
from autopilot.profile import Measurement
from autopilot.recipe import Deployment, Recipe, Step, Variant, params_of
from autopilot.scoring import can_reject, score
from autopilot.scoring.early import ERROR, lowest_drop
from autopilot.search import scored as module
from autopilot.search.outcome import Outcome
from autopilot.search.scored import QualityPass
from tests.unit.search_support import artifact_of, setup_of

TOTAL = 2000
LOOKS = (64, 128, 256, 384, 512, 768, 1024, 1536)
SURE = ERROR / len(LOOKS)


@cache
def fewest_losses_to_reject(m: int, gains: int, bound: float) -> int:
    """With that many losses among the first ``m`` samples a variant is rejected; fewer never are."""
    low, high = 0, m - gains + 1
    while low < high:
        middle = (low + high) // 2
        loss = np.concatenate([np.ones(middle), -np.ones(gains), np.zeros(m - gains - middle)])
        if lowest_drop(loss, TOTAL, span=1.0, error=SURE) > bound:
            high = middle
        else:
            low = middle + 1
    return low


@pytest.mark.parametrize(("losses", "gains"), [(20, 0), (60, 40), (100, 90)])
def test_variant_at_its_bound_survives_all_looks(losses: int, gains: int) -> None:
    """Right or wrong, 100,000 orders of the samples, eight looks each: at most 0.1% are thrown away."""
    rounds, rng, bound = 100_000, np.random.default_rng(0), (losses - gains) / TOTAL
    left = {"losses": np.full(rounds, losses), "gains": np.full(rounds, gains)}
    seen = {"losses": np.zeros(rounds, int), "gains": np.zeros(rounds, int)}
    rejected = np.zeros(rounds, bool)
    for before, m in zip((0, *LOOKS), LOOKS, strict=False):
        drawn = rng.hypergeometric(left["losses"], TOTAL - before - left["losses"], m - before)
        others = TOTAL - before - left["losses"]
        won = rng.hypergeometric(left["gains"], others - left["gains"], m - before - drawn)
        for name, count in (("losses", drawn), ("gains", won)):
            seen[name] += count
            left[name] -= count
        enough = np.array([fewest_losses_to_reject(m, g, bound) for g in range(seen["gains"].max() + 1)])
        rejected |= seen["losses"] >= enough[seen["gains"]]

    assert enough[0] < LOOKS[-1]  # it could have been rejected
    assert rejected.mean() <= ERROR


@pytest.mark.parametrize("shape", [(0.3, 3.0), (2.0, 2.0)])
def test_variant_at_its_bound_survives_looks_at_bounded_values(shape: tuple[float, float]) -> None:
    """Losses between 0 and 1, with the error set to 5% so that 250 orders can tell: not above it."""
    population = np.random.default_rng(1).beta(*shape, 600)
    looks, rounds = (60, 150, 300, 450), 250
    wrong = 0
    for seed in range(rounds):
        order = np.random.default_rng(seed).permutation(population)
        wrong += any(lowest_drop(order[:m], 600, span=1.0, error=0.05 / len(looks)) > population.mean() for m in looks)

    assert wrong / rounds <= 0.05


@settings(max_examples=150, deadline=None)
@given(st.integers(20, 400), st.integers(0, 120), st.integers(0, 20), st.integers(1, 1600), st.floats(0.0, 0.2))
def test_prefix_that_rejects_never_judges_in(m: int, lost: int, gained: int, more: int, bound: float) -> None:
    """The interval on a part can't accept what the part's own bound rejects."""
    lost, gained = min(lost, m), min(gained, m - min(lost, m))
    labels = np.zeros(m, dtype=int)
    base = np.eye(2, dtype=np.float32)[labels]
    base[m - gained :] = base[m - gained :, ::-1]
    mine = np.eye(2, dtype=np.float32)[labels]
    mine[:lost] = mine[:lost, ::-1]
    told = {"outputs_prefix": mine, "baseline_prefix": base, "labels_prefix": labels, "n_total": m + more}
    if not can_reject(metrics()["accuracy"], {}, **told, bound=bound):
        return

    drop = score(metrics()["accuracy"], {}, outputs=mine, baseline=base, labels=labels, split_name="v").drop
    measured = Measurement("quality_drop", drop.value, drop.low, drop.high, m, "")

    assert Limit("quality_drop", bound).judge(measured) is not Judgement.IN


# ---- the quality pass ------------------------------------------------------------------------------

N = 2000
LABELS = np.zeros(N, dtype=int)
RIGHT = np.eye(2, dtype=np.float32)[LABELS]


class Models:
    """Outputs of a baseline that is always right and of a candidate that is wrong where told."""

    def __init__(self, wrong: np.ndarray) -> None:
        self.candidate = RIGHT.copy()
        self.candidate[wrong] = self.candidate[wrong, ::-1]
        self.spans: list[tuple[int, int]] = []
        self.written: dict[Path, Any] = {}

    def evaluate(self, path: Path, deployment: Any, *, start: int, stop: int, folder: Path, **_: Any) -> Any:
        is_baseline = folder.name.startswith("baseline")
        outputs = (RIGHT if is_baseline else self.candidate)[start:stop]
        if not is_baseline:
            self.spans.append((start, stop))
        self.written[folder] = SimpleNamespace(
            load=lambda: {"y": outputs},
            output_names=("y",),
            all_names=("y",),
            left_out={},
            padded=(),
            optimized=None,
            kernels=None,
        )
        return self.written[folder]


def scored(
    folder: Path, monkeypatch: pytest.MonkeyPatch, wrong: np.ndarray, *, early: bool
) -> tuple[Any, list[tuple[int, int]], Budget]:
    """What the quality pass reads of a slow candidate, which samples it ran, and the budget."""
    models = Models(wrong)
    monkeypatch.setattr(module, "evaluate", models.evaluate)
    monkeypatch.setattr(module.Evaluation, "open", lambda path: models.written[path])
    monkeypatch.setattr(
        module, "inspect", lambda path: SimpleNamespace(batch=None, dynamic_quantized=False, quantized=False)
    )
    monkeypatch.setattr(QualityPass, "claims_int8", staticmethod(lambda recipe: False))
    setup = setup_of(folder, budget=Budget((Limit("quality_drop", 0.01),)))
    object.__setattr__(setup, "metric", metrics()["accuracy"])
    split: Any = SimpleNamespace(name="validation", n=N, digest="v", batched=True, labels=LABELS)
    baseline = Outcome(Variant(Recipe(), setup.space.default_deployment()), setup.model)
    recipe = Recipe((Step("slim"),))
    artifact: Artifact = artifact_of(recipe)
    outcome = Outcome(Variant(recipe, baseline.variant.deployment), artifact)
    outcome.measured["latency_mean_ms"] = Measurement("latency_mean_ms", 60.0, 59.0, 61.0, 100, "")
    reading, _ = QualityPass(setup, baseline).run(outcome, split, limits=ChildLimits(10.0), early=early)
    return reading, models.spans, setup.problem.budget


def test_pass_ends_at_the_prefix_where_it_rejects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One in five wrong: the first 256 samples are enough, and their reading is out."""
    reading, spans, budget = scored(tmp_path, monkeypatch, np.arange(0, N, 5), early=True)

    assert spans == [(0, module.PREFIX)]
    assert reading.n == module.PREFIX
    drop = reading.drop
    assert budget.limits[0].judge(Measurement("quality_drop", drop.value, drop.low, drop.high)) is Judgement.OUT


def test_acceptance_needs_the_whole_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Subsets without one error accept nothing: all samples are run, and the errors behind them count."""
    first = module.PREFIX
    reading, spans, budget = scored(tmp_path, monkeypatch, np.arange(4 * first, N, 5), early=True)

    assert spans == [(0, first), (first, 2 * first), (2 * first, 4 * first), (4 * first, N)]
    assert reading.n == N
    drop = reading.drop
    assert budget.limits[0].judge(Measurement("quality_drop", drop.value, drop.low, drop.high)) is Judgement.OUT


def test_verification_never_looks_at_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finalists are scored whole, even where a prefix would reject."""
    reading, spans, _ = scored(tmp_path, monkeypatch, np.arange(0, N, 5), early=False)

    assert spans == [(0, N)]
    assert reading.n == N


@pytest.mark.parametrize(
    ("provider", "one", "other", "runs"),
    [
        ("openvino", {"precision": "f32"}, {"precision": "bf16"}, 2),
        ("openvino", {"shapes": "fixed"}, {"shapes": "dynamic"}, 2),
        ("cpu", {"spinning": True}, {"spinning": False}, 1),
        ("cpu", {"graph_optimization": "all"}, {"graph_optimization": "basic"}, 2),
    ],
)
def test_artifact_is_scored_again_where_an_option_changes_answers(
    provider: str,
    one: dict[str, Any],
    other: dict[str, Any],
    runs: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """bfloat16 is another model as far as quality goes, kernels for other shapes may be; how threads wait is not."""
    models = Models(np.zeros(0, dtype=int))
    monkeypatch.setattr(module, "evaluate", models.evaluate)
    monkeypatch.setattr(module.Evaluation, "open", lambda path: models.written[path])
    monkeypatch.setattr(
        module, "inspect", lambda path: SimpleNamespace(batch=None, dynamic_quantized=False, quantized=False)
    )
    monkeypatch.setattr(QualityPass, "claims_int8", staticmethod(lambda recipe: False))
    setup = setup_of(tmp_path, budget=Budget((Limit("quality_drop", 0.01),)))
    object.__setattr__(setup, "metric", metrics()["accuracy"])
    split: Any = SimpleNamespace(name="validation", n=N, digest="v", batched=True, labels=LABELS)
    quality = QualityPass(setup, Outcome(Variant(Recipe(), setup.space.default_deployment()), setup.model))
    recipe = Recipe((Step("slim"),))

    for options in (one, other):
        deployment = Deployment(provider, options=params_of(options))
        outcome = Outcome(Variant(recipe, deployment), artifact_of(recipe))
        quality.run(outcome, split, limits=ChildLimits(10.0), early=False)

    assert len(models.spans) == runs
