"""Scores and paired drops of a candidate against the baseline."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopilot.contracts import Metric
from autopilot.errors import DataError, Failure, VariantFailed
from autopilot.meters.quality import METER, quality_axis
from autopilot.plugins import metrics
from autopilot.profile import Profile
from autopilot.scoring import score
from tests.scoring_support import classifier, reading


@given(seed=st.integers(0, 1000), name=st.sampled_from(["accuracy", "log_loss", "agreement"]))
@settings(max_examples=25, deadline=None)
def test_score_of_identical_outputs_has_no_drop(seed, name):
    """The same outputs score the same: the drop is 0 and its interval holds 0."""
    outputs, labels = classifier(64, 0.8, seed)

    found = reading(name, outputs, outputs.copy(), labels)

    assert found.drop.value == 0.0
    assert found.drop.low <= 0.0 <= found.drop.high
    assert found.score.value == pytest.approx(found.baseline)


def test_drop_has_a_width_when_no_prediction_changes_but_outputs_do():
    """No disagreement among n samples does not prove that there is none: the interval says how many could hide."""
    outputs, labels = classifier(400, 0.9)

    found = reading("accuracy", outputs + np.float32(1e-3), outputs, labels)

    assert found.drop.value == 0.0
    assert 0.005 < found.drop.high < 0.015
    assert found.drop.low == pytest.approx(-found.drop.high)


def test_drop_has_a_width_when_no_resample_changes():
    """The bootstrap too allows for changes that the samples may have missed."""
    outputs, labels = classifier(200, 0.9)

    found = reading("balanced_accuracy", outputs + np.float32(1e-3), outputs, labels)

    assert found.drop.low < -0.01
    assert found.drop.high > 0.01


def test_drop_has_a_width_when_equal_outputs_are_classes():
    """Equal class indices are weak evidence: they don't count as the same function."""
    outputs, labels = classifier(400, 0.9)

    found = reading("accuracy", outputs.argmax(1), outputs.argmax(1), labels)

    assert found.drop.high > 0.005


def test_drop_is_exactly_zero_when_told_it_is_the_same_model():
    """The baseline has no drop against itself, whatever its output type."""
    outputs, labels = classifier(400, 0.9)

    found = reading("accuracy", outputs.argmax(1), outputs.argmax(1), labels, same_model=True)

    assert (found.drop.low, found.drop.value, found.drop.high) == (0.0, 0.0, 0.0)


def test_drop_is_positive_when_worse_in_either_direction():
    """A loss is positive for accuracy (falls) and for log loss and error (rise)."""
    good, labels = classifier(300, 0.95)
    bad, _ = classifier(300, 0.6)

    for name in ("accuracy", "log_loss"):
        found = reading(name, bad, good, labels)
        assert found.drop.low > 0, name
        assert reading(name, good, bad, labels).drop.high < 0, name
    truth = np.random.default_rng(1).normal(size=300)
    noisy, exact = truth[:, None] + 0.5 * good[:, :1], truth[:, None] + 0.01 * good[:, :1]
    assert reading("mae", noisy, exact, truth).drop.low > 0
    assert reading("rmse", noisy, exact, truth).drop.low > 0


def test_drop_interval_is_paired():
    """On the same samples a small steady loss is certain though each score alone is not."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(400, 1))
    base = truth + rng.normal(size=(400, 1))
    worse = truth + (base - truth) * 1.05

    found = reading("mae", worse, base, truth)

    assert found.drop.low > 0
    assert found.drop.high - found.drop.low < (found.score.high - found.score.low) / 5


@pytest.mark.slow
def test_bootstrapped_drop_covers_the_true_drop():
    """For a metric that is no mean the paired bootstrap misses in about 5% of data sets."""
    rounds, misses = 80, 0
    truth = 1 / math.sqrt(1.25) - 1 / math.sqrt(2)  # correlations of y with y + e / 2 and with y + e
    for seed in range(rounds):
        rng = np.random.default_rng(seed)
        labels, error = rng.normal(size=150), rng.normal(size=150)
        found = reading("pearson", (labels + error)[:, None], (labels + error / 2)[:, None], labels)
        misses += not found.drop.low <= truth <= found.drop.high

    assert misses / rounds <= 0.13


def test_bootstrap_of_sums_equals_that_of_rescoring():
    """F1 from summed counts has the interval that scoring each resample again has, up to resampling noise."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    outputs, baseline = (np.clip(labels + rng.normal(0, s, 300), 0, 1) for s in (0.8, 0.6))
    metric = metrics()["f1_binary"]
    again = Metric("f1", True, metric.score, "", options=metric.options)

    fast = reading("f1_binary", outputs, baseline, labels)
    slow = score(again, {}, outputs=outputs, baseline=baseline, labels=labels, split_name="v")

    assert fast.drop.value == pytest.approx(slow.drop.value)
    assert fast.drop.low == pytest.approx(slow.drop.low, abs=0.015)
    assert fast.drop.high == pytest.approx(slow.drop.high, abs=0.015)


def test_score_is_deterministic():
    """The same arrays give the same interval: resampling is seeded."""
    rng = np.random.default_rng(0)
    labels, outputs, other = rng.normal(size=100), rng.normal(size=(100, 1)), rng.normal(size=(100, 1))

    assert reading("pearson", other, outputs, labels) == reading("pearson", other, outputs, labels)
    assert reading("mae", other, outputs, labels) == reading("mae", other, outputs, labels)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_score_fails_the_variant_when_outputs_are_not_finite(bad):
    """NaN and new infinities are wrong numerics, never a score."""
    outputs, labels = classifier(50, 0.8)
    broken = outputs.copy()
    broken[7, 2] = bad

    with pytest.raises(VariantFailed, match="1 of 50") as caught:
        reading("accuracy", broken, outputs, labels)

    assert caught.value.failure is Failure.WRONG_NUMERICS


def test_score_accepts_masked_logits():
    """Minus infinity where the baseline has it too is a mask, not a fault."""
    outputs, labels = classifier(50, 0.8)
    outputs[:, 9] = np.where(labels == 9, outputs[:, 9], -np.inf)

    assert reading("accuracy", outputs + np.float32(0.01), outputs, labels).drop.value == 0.0
    assert reading("output_similarity", outputs + np.float32(0.01), outputs, None).score.value > 0.9


def test_score_fails_the_variant_when_shapes_differ():
    """A variant that returns another shape is broken."""
    outputs, labels = classifier(50, 0.8)

    with pytest.raises(VariantFailed, match="shape"):
        reading("accuracy", outputs[:, :5], outputs, labels)


def test_score_refuses_missing_and_misfit_labels():
    """No labels, or labels that don't fit the metric, are the user's input error."""
    outputs, labels = classifier(50, 0.8)

    with pytest.raises(DataError, match="needs labels"):
        reading("accuracy", outputs, outputs, None)
    with pytest.raises(DataError, match="floats"):
        reading("accuracy", outputs, outputs, labels.astype(np.float32))


def profiled(name, outputs, baseline, labels):
    return Profile("v", quality=reading(name, outputs, baseline, labels))


def test_quality_meter_reports_score_drop_and_paired_ratio():
    """quality carries the ratio to the baseline, from the paired drop, in the metric's own direction."""
    good, labels = classifier(400, 0.95)
    bad, _ = classifier(400, 0.8)

    quality = METER.summarise(profiled("accuracy", bad, good, labels), "quality")
    drop = METER.summarise(profiled("accuracy", bad, good, labels), "quality_drop")

    assert quality.ratio is not None
    assert quality.ratio.low < quality.ratio.value < quality.ratio.high < 1
    assert drop.value == pytest.approx(quality.value * (1 / quality.ratio.value - 1))
    assert drop.ratio is None
    rises = METER.summarise(profiled("log_loss", bad, good, labels), "quality")
    assert rises.ratio is not None
    assert 1 < rises.ratio.low < rises.ratio.value < rises.ratio.high


def test_quality_meter_says_why_nothing_was_scored():
    """A missing value has a reason and no number."""
    found = METER.summarise(Profile("v"), "quality_drop")

    assert found.value is None
    assert found.reason


def test_quality_axis_follows_the_metric():
    """A bare limit on an error is an upper one; the drop is always one."""
    assert quality_axis(metrics()["accuracy"]).higher_is_better
    assert not quality_axis(metrics()["mae"]).higher_is_better
    drop = METER.axis("quality_drop")
    assert drop is not None
    assert not drop.higher_is_better
    assert METER.axis("quality_p99") is None
