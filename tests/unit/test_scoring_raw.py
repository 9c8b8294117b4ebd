"""What is kept of a quality pass gives its reading again; McNemar's exact test."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopilot.errors import DataError
from autopilot.plugins import metrics
from autopilot.profile import QualityReading, ScoreKind
from autopilot.profile.storage import load_record, save_record
from autopilot.scoring import quality, recompute, resolve_metric, score
from autopilot.scoring.intervals import mcnemar
from tests.scoring_support import classifier, reading, spec

BASE, LABELS = classifier(300, 0.9, classes=2)
MINE = BASE + np.random.default_rng(3).normal(0, 0.35, BASE.shape).astype(np.float32)
TRUTH = LABELS.astype(np.float32)[:, None]


def case(name: str) -> QualityReading:
    """A reading of a metric, each of another kind."""
    if name in ("f1_binary", "roc_auc", "r2"):
        return reading(name, MINE[:, 1:], BASE[:, 1:], TRUTH if name == "r2" else LABELS[:, None])
    return reading(name, MINE, BASE, LABELS)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("accuracy", ScoreKind.VALUES),
        ("log_loss", ScoreKind.VALUES),
        ("f1_binary", ScoreKind.PARTS),
        ("roc_auc", ScoreKind.RESAMPLED),
        ("f1_macro", ScoreKind.RESAMPLED),
    ],
)
def test_reading_follows_from_what_is_kept_of_it(tmp_path: Path, name: str, kind: ScoreKind) -> None:
    """Score, drop, their intervals and how they came about, after a round trip through a file."""
    found = case(name)
    save_record(tmp_path / "a.npz", found)
    kept = load_record(tmp_path / "a.npz", QualityReading)

    assert kept.raw is not None
    assert kept.raw.kind is kind
    assert recompute(kept, metrics()[name]) == found


def test_recomputed_score_is_that_of_the_kept_values_not_the_stored_one() -> None:
    """A stored figure that was changed doesn't survive."""
    for name in ("accuracy", "f1_binary"):
        found = case(name)
        lie = QualityReading(found.metric, found.split, found.n, found.drop, 0.123, found.score, "", raw=found.raw)

        assert recompute(lie, metrics()[name]) == found


def test_right_or_wrong_is_kept_in_a_byte_a_sample(tmp_path: Path) -> None:
    """Compressed: less than a byte for both models."""
    base, labels = classifier(5000, 0.9)
    mine, _ = classifier(5000, 0.89)
    save_record(tmp_path / "a.npz", reading("accuracy", mine, base, labels))

    assert (tmp_path / "a.npz").stat().st_size < 5000


def test_users_function_keeps_its_resampled_scores(tmp_path: Path) -> None:
    """Its values a sample are unknown: intervals follow, the two scores stay as they were read."""
    (tmp_path / "m.py").write_text("def share(outputs, labels):\n    return float((outputs['y'] > 0).mean())\n")
    metric = resolve_metric(spec(name="share", function=f"{tmp_path / 'm.py'}:share", direction="maximize"), {})
    found = score(
        metric,
        {},
        outputs=MINE,
        baseline=BASE,
        labels=None,
        split_name="test",
        all_outputs={"y": MINE},
        all_baseline={"y": BASE},
    )

    assert found.raw is not None
    assert found.raw.kind is ScoreKind.RESAMPLED
    assert recompute(found, None) == found


def test_summands_of_too_many_kinds_are_kept_as_resampled_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file must stay small; the reading is the same."""
    whole = case("f1_binary")
    monkeypatch.setattr(quality, "_KEPT_PARTS", 100)

    found = case("f1_binary")

    assert found.raw is not None
    assert found.raw.kind is ScoreKind.RESAMPLED
    assert found == whole
    assert recompute(found, metrics()["f1_binary"]) == whole


def test_summands_of_a_metric_that_is_gone_are_refused() -> None:
    """A plug-in that was uninstalled can't add up."""
    with pytest.raises(DataError, match="f1_binary"):
        recompute(case("f1_binary"), None)


def test_reading_without_kept_scores_stays_as_it_is() -> None:
    """Of an older run."""
    found = case("accuracy")
    bare = QualityReading(found.metric, found.split, found.n, found.score, found.baseline, found.drop, found.how)

    assert recompute(bare, metrics()["accuracy"]) is bare


def test_identical_outputs_are_remembered_as_such(tmp_path: Path) -> None:
    """The drop is exactly zero again."""
    base, labels = classifier(600, 0.9)
    found = reading("accuracy", base, base, labels)

    assert (found.drop.low, found.drop.high) == (0.0, 0.0)
    assert recompute(found, metrics()["accuracy"]) == found


# ---- McNemar's exact test --------------------------------------------------------------------------


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_equals_the_binomial_sum(losses: int, gains: int) -> None:
    """Twice the smaller tail of a fair coin, in exact integers."""
    n = losses + gains
    tail = sum(math.comb(n, k) for k in range(min(losses, gains) + 1))

    assert mcnemar(losses, gains) == pytest.approx(min(1.0, 2 * tail / 2**n), rel=1e-9)
    assert mcnemar(losses, gains) == mcnemar(gains, losses)


def test_mcnemar_holds_its_level() -> None:
    """Where losses and gains are equally likely, p <= 5% comes in at most 5% of data sets: an exact sum."""
    for n in (5, 20, 100, 400):
        ways = [math.comb(n, k) / 2**n for k in range(n + 1)]

        assert sum(p for k, p in enumerate(ways) if mcnemar(k, n - k) <= 0.05) <= 0.05


def test_accuracy_reports_mcnemars_p_and_the_counts() -> None:
    """In the words of the measurement."""
    base = np.eye(2, dtype=np.float32)[np.zeros(100, dtype=int)]
    mine: Any = base.copy()
    mine[:10] = mine[:10, ::-1]
    labels = np.zeros(100, dtype=int)
    labels[:2] = 1  # 8 lost, 2 gained

    found = reading("accuracy", mine, base, labels)

    assert found.how == "paired, Tango score interval; McNemar's exact p 0.11 (8 lost, 2 gained)"
