"""Every metric: its value against scikit-learn or a hand count, and the labels it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st

from autopilot.errors import DataError
from autopilot.metrics._edit import edit_distances
from autopilot.plugins import metrics
from autopilot.scoring import SumMetric

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(120, 6)).astype(np.float32)
CLASSES = RNG.integers(0, 6, 120)
PROBABILITY = RNG.random(120).astype(np.float32)
FLAGS = (PROBABILITY + RNG.normal(0, 0.4, 120) > 0.5).astype(np.uint8)
REAL = RNG.normal(size=(120, 1)).astype(np.float32)
TRUTH = (REAL[:, 0] + RNG.normal(0, 0.5, 120)).astype(np.float32)
SOFTMAX = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
GUESS = LOGITS.argmax(1)

NAMES = {
    "accuracy",
    "top5_accuracy",
    "balanced_accuracy",
    "f1_binary",
    "f1_micro",
    "f1_macro",
    "roc_auc",
    "average_precision",
    "log_loss",
    "mae",
    "rmse",
    "r2",
    "pearson",
    "spearman",
    "cosine_similarity",
    "agreement",
    "output_similarity",
    "token_accuracy",
    "sequence_accuracy",
    "ctc_sequence_accuracy",
    "character_error_rate",
}


def value(name, outputs, labels, **options):
    """The score after the metric's own check, as a run takes it."""
    metric = metrics()[name]
    merged = {**metric.options, **options}
    metric.check(outputs, labels, merged)
    return metric.score(outputs, labels, merged)


def test_metrics_are_all_there():
    """Each metric name of the interface is a plug-in."""
    assert metrics().keys() >= NAMES


@pytest.mark.parametrize(
    ("name", "outputs", "labels", "expected"),
    [
        ("accuracy", LOGITS, CLASSES, sk.accuracy_score(CLASSES, GUESS)),
        ("top5_accuracy", LOGITS, CLASSES, sk.top_k_accuracy_score(CLASSES, LOGITS, k=5)),
        ("balanced_accuracy", LOGITS, CLASSES, sk.balanced_accuracy_score(CLASSES, GUESS)),
        ("f1_micro", LOGITS, CLASSES, sk.f1_score(CLASSES, GUESS, average="micro")),
        ("f1_macro", LOGITS, CLASSES, sk.f1_score(CLASSES, GUESS, average="macro")),
        ("log_loss", LOGITS, CLASSES, sk.log_loss(CLASSES, SOFTMAX)),
        ("log_loss", SOFTMAX, CLASSES, sk.log_loss(CLASSES, SOFTMAX)),
        ("log_loss", PROBABILITY, FLAGS, sk.log_loss(FLAGS, PROBABILITY)),
        ("f1_binary", PROBABILITY, FLAGS, sk.f1_score(FLAGS, PROBABILITY > 0.5)),
        ("roc_auc", PROBABILITY[:, None], FLAGS, sk.roc_auc_score(FLAGS, PROBABILITY)),
        ("roc_auc", LOGITS, CLASSES, sk.roc_auc_score(CLASSES, SOFTMAX, multi_class="ovr")),
        ("average_precision", PROBABILITY, FLAGS, sk.average_precision_score(FLAGS, PROBABILITY)),
        ("mae", REAL, TRUTH, sk.mean_absolute_error(TRUTH, REAL[:, 0])),
        ("rmse", REAL, TRUTH, sk.root_mean_squared_error(TRUTH, REAL[:, 0])),
        ("r2", REAL, TRUTH, sk.r2_score(TRUTH, REAL[:, 0])),
        ("pearson", REAL, TRUTH, np.corrcoef(TRUTH, REAL[:, 0])[0, 1]),
        ("token_accuracy", LOGITS.reshape(30, 4, 6), CLASSES.reshape(30, 4), sk.accuracy_score(CLASSES, GUESS)),
    ],
)
def test_score_equals_reference(name, outputs, labels, expected):
    """The score is what scikit-learn or numpy computes from the same arrays."""
    assert value(name, outputs, labels) == pytest.approx(expected, rel=1e-5)


def test_f1_binary_takes_threshold_two_columns_and_maps():
    """One probability a decision, the second of two columns, and maps flattened give the same F1."""
    expected = sk.f1_score(FLAGS, PROBABILITY > 0.3)
    columns = np.stack([1 - PROBABILITY, PROBABILITY], axis=1)

    assert value("f1_binary", PROBABILITY, FLAGS, threshold=0.3) == pytest.approx(expected)
    assert value("f1_binary", columns, FLAGS, threshold=0.3) == pytest.approx(expected)
    maps, masks = PROBABILITY.reshape(10, 1, 3, 4), FLAGS.reshape(10, 3, 4)
    assert value("f1_binary", maps, masks * np.uint8(255), threshold=0.3) == pytest.approx(expected)


def test_accuracy_takes_class_outputs_and_single_probabilities():
    """Integer outputs are classes, one float a sample is the probability of class 1."""
    assert value("accuracy", GUESS, CLASSES) == pytest.approx((GUESS == CLASSES).mean())
    assert value("accuracy", PROBABILITY[:, None], FLAGS) == pytest.approx(((PROBABILITY > 0.5) == FLAGS).mean())
    assert value("accuracy", LOGITS, CLASSES[:, None]) == pytest.approx((GUESS == CLASSES).mean())


def test_r2_of_several_outputs_is_sklearns_and_variance_weighted_on_request():
    """Plain mean over outputs by default; variance_weighted is 1 - SSE / SST over everything."""
    outputs, labels = RNG.normal(size=(50, 3)), RNG.normal(size=(50, 3)) * [1, 5, 20]
    over_all = 1 - ((outputs - labels) ** 2).sum() / ((labels - labels.mean(0)) ** 2).sum()

    assert value("r2", outputs, labels) == pytest.approx(sk.r2_score(labels, outputs))
    assert value("r2", outputs, labels, multioutput="variance_weighted") == pytest.approx(over_all)


def test_spearman_is_one_for_a_monotone_relation():
    """Ranks alone count, unlike for pearson."""
    assert value("spearman", np.exp(REAL * 3), REAL) == pytest.approx(1.0)
    assert value("pearson", np.exp(REAL * 3), REAL) < 0.9


def test_correlation_is_zero_when_the_prediction_is_constant():
    """A collapsed model correlates with nothing; it is no crash and no NaN."""
    assert value("pearson", np.zeros((120, 1)), TRUTH) == 0.0


def test_cosine_similarity_compares_rows():
    """The same direction gives 1 whatever the length, the opposite -1, a zero vector 0."""
    y = np.array([[1.0, 2.0]] * 3)
    x = np.stack([y[0] * 5, -y[0], y[0] * 0])

    assert metrics()["cosine_similarity"].per_sample(x, y, {}).tolist() == pytest.approx([1.0, -1.0, 0.0])


def test_sequence_metrics_leave_padding_out():
    """Positions with the pad label count neither way."""
    labels = np.array([[1, 2, -1], [3, 4, 5]])
    outputs = np.array([[1, 2, 9], [3, 4, 0]])

    assert value("token_accuracy", outputs, labels) == pytest.approx(4 / 5)
    assert value("sequence_accuracy", outputs, labels) == pytest.approx(1 / 2)


def one_hot(paths, classes):
    return np.eye(classes, dtype=np.float32)[np.array(paths)]


def test_ctc_metrics_collapse_repeats_and_blanks():
    """1 1 0 1 2 reads as 1 1 2: repeats merge, blanks part."""
    outputs = one_hot([[1, 1, 0, 1, 2], [0, 3, 3, 0, 0]], 5)
    labels = np.array([[1, 1, 2], [3, 4, -1]])

    assert value("ctc_sequence_accuracy", outputs, labels) == 0.5
    assert value("character_error_rate", outputs, labels) == pytest.approx(1 / 5)
    swapped = outputs.swapaxes(0, 1)
    assert value("ctc_sequence_accuracy", swapped, labels, time_major=True) == 0.5


def test_ctc_takes_another_blank_and_pad():
    """``blank`` and ``pad`` are options."""
    outputs = one_hot([[0, 4, 0, 1]], 5)

    assert value("ctc_sequence_accuracy", outputs, np.array([[0, 0, 1, 9]]), blank=4, pad=9) == 1.0


def slow_distance(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a):
        best = [i + 1]
        for j, y in enumerate(b):
            best.append(min(row[j] + (x != y), row[j + 1] + 1, best[j] + 1))
        row = best
    return row[-1]


SEQUENCES = st.lists(st.lists(st.integers(0, 3), max_size=8), min_size=1, max_size=5)


@given(SEQUENCES, SEQUENCES)
@settings(max_examples=60, deadline=None)
def test_edit_distances_equal_the_textbook_table(a, b):
    """The batched distance is the plain dynamic programme's, for any lengths, empty ones too."""
    n = min(len(a), len(b))
    mine, theirs = [np.array(x, dtype=int) for x in a[:n]], [np.array(x, dtype=int) for x in b[:n]]

    assert edit_distances(mine, theirs).tolist() == [slow_distance(x, y) for x, y in zip(a[:n], b[:n], strict=True)]


def test_agreement_and_output_similarity_compare_with_the_baseline():
    """Scaling keeps every argmax but changes the outputs by its relative size."""
    assert value("agreement", LOGITS * 1.1, LOGITS) == 1.0
    assert value("output_similarity", LOGITS * np.float32(1.1), LOGITS) == pytest.approx(0.9, abs=1e-5)
    assert value("output_similarity", LOGITS, LOGITS) == 1.0


BOUNDED = sorted(NAMES - {"log_loss", "mae", "rmse", "r2", "character_error_rate"})
ARGUMENTS = {
    **dict.fromkeys(["roc_auc", "average_precision", "f1_binary"], (PROBABILITY, FLAGS)),
    **dict.fromkeys(["pearson", "spearman", "mae", "rmse", "r2"], (REAL, TRUTH)),
    **dict.fromkeys(["cosine_similarity", "output_similarity"], (LOGITS, np.flip(LOGITS, 1))),
    "agreement": (LOGITS, np.flip(LOGITS, 1)),
    **dict.fromkeys(["token_accuracy", "sequence_accuracy"], (LOGITS.reshape(60, 2, 6), CLASSES.reshape(60, 2))),
    **dict.fromkeys(
        ["ctc_sequence_accuracy", "character_error_rate"], (LOGITS.reshape(60, 2, 6), 1 + CLASSES.reshape(60, 2) % 5)
    ),
}


@pytest.mark.parametrize("name", sorted(NAMES))
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=5, deadline=None)
def test_score_ignores_the_order_of_samples_and_stays_in_bounds(name, seed):
    """Any permutation of samples gives the same score; bounded metrics stay in -1 .. 1."""
    outputs, labels = ARGUMENTS.get(name, (LOGITS, CLASSES))
    order = np.random.default_rng(seed).permutation(len(labels))

    shuffled = value(name, outputs[order], labels[order])

    assert shuffled == pytest.approx(value(name, outputs, labels), rel=1e-9, abs=1e-12)
    if name in BOUNDED:
        assert -1.0 <= shuffled <= 1.0


@pytest.mark.parametrize("name", [n for n in sorted(NAMES) if isinstance(metrics()[n], SumMetric)])
def test_parts_combine_to_the_score(name):
    """The contract of metrics that follow from sums: combining all samples' parts gives the score."""
    outputs, labels = ARGUMENTS[name]
    metric = metrics()[name]

    parts = metric.parts(outputs, labels, metric.options)

    assert len(parts) == len(labels)
    assert metric.combine(parts.sum(axis=0, keepdims=True)) == pytest.approx(value(name, outputs, labels))


@pytest.mark.parametrize("name", [n for n in sorted(NAMES) if metrics()[n].per_sample is not None])
def test_per_sample_values_average_to_the_score(name):
    """The contract that makes paired intervals right: the mean of per_sample is the score."""
    outputs, labels = ARGUMENTS.get(name, (LOGITS, CLASSES))
    metric = metrics()[name]

    per_sample = metric.per_sample(outputs, labels, metric.options)

    assert per_sample.shape == (len(labels),)
    assert per_sample.mean() == pytest.approx(value(name, outputs, labels))


@pytest.mark.parametrize(
    ("name", "outputs", "labels", "word"),
    [
        ("accuracy", LOGITS, CLASSES.astype(np.float32), "float32"),
        ("accuracy", LOGITS, CLASSES + 1, "outside 0 .. 5"),
        ("accuracy", LOGITS, CLASSES - 1, "outside 0 .. 5"),
        ("accuracy", LOGITS, CLASSES.astype(str), "text"),
        ("accuracy", LOGITS, np.eye(6, dtype=int)[CLASSES], "outside|line up|shape"),
        ("accuracy", LOGITS, CLASSES[:50], "number of samples"),
        ("top5_accuracy", LOGITS[:, :4], CLASSES % 4, "always hit"),
        ("log_loss", GUESS, CLASSES, "classes, not scores"),
        ("f1_binary", PROBABILITY, CLASSES, "other values than 0 and 1"),
        ("f1_binary", LOGITS, FLAGS, "line up"),
        ("roc_auc", PROBABILITY, np.zeros(120, int), "all labels are the same"),
        ("mae", LOGITS, TRUTH, "line up"),
        ("r2", REAL, np.ones(120), "constant"),
        ("mae", REAL, TRUTH.astype(str), "not numbers"),
        ("token_accuracy", LOGITS, CLASSES, "no sequences"),
        ("ctc_sequence_accuracy", LOGITS.reshape(60, 2, 6), CLASSES.reshape(60, 2), "blank"),
        ("ctc_sequence_accuracy", LOGITS, CLASSES.reshape(60, 2), "samples"),
    ],
)
def test_check_names_metric_labels_and_remedy_when_labels_do_not_fit(name, outputs, labels, word):
    """The error names the metric, what the labels are, and what would fit."""
    with pytest.raises(DataError, match=word) as caught:
        value(name, outputs, labels)

    assert name in caught.value.message
    assert "labels are" in caught.value.message
    assert "needs" in caught.value.hint
