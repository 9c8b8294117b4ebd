"""Paired intervals on the drop, early rejection, user functions."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopilot.contracts import Metric
from autopilot.errors import DataError, Failure, VariantFailed
from autopilot.plugins import metrics
from autopilot.scoring import can_reject, resolve_metric, score, scored_output
from autopilot.scoring.early import fewest, lowest_drop
from autopilot.scoring.intervals import mean_interval, t_quantile, tango, unseen, wilson


def reading(name, outputs, baseline, labels, **more):
    metric = metrics()[name]
    return score(metric, {}, outputs=outputs, baseline=baseline, labels=labels, split_name="validation", **more)


def classifier(n, right, seed=0, classes=10):
    """Float scores (n, classes) whose argmax is the label with probability ``right``, and the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    guess = np.where(rng.random(n) < right, labels, (labels + 1) % classes)
    return np.eye(classes, dtype=np.float32)[guess] + rng.random((n, classes)).astype(np.float32) / 2, labels


def spec(**more):
    base = {"name": "accuracy", "options": {}, "output": None, "function": None, "direction": None}
    return SimpleNamespace(**{**base, **more})


# --- intervals


def coverage(draw, interval_of, truth, rounds=1500):
    """How often the truth lies below and above the interval."""
    below = above = 0
    for seed in range(rounds):
        found = interval_of(draw(np.random.default_rng(seed)))
        below += truth < found.low
        above += truth > found.high
    return below / rounds, above / rounds


@pytest.mark.parametrize(
    ("n", "loss", "gain"), [(60, 0.02, 0.02), (200, 0.01, 0.0), (200, 0.05, 0.02), (1000, 0.004, 0.002)]
)
def test_tango_interval_covers_the_true_drop(n, loss, gain):
    """Each side misses in about 2.5% of samples at most, also where disagreements are few."""
    below, above = coverage(
        lambda rng: rng.multinomial(n, [loss, gain, 1 - loss - gain]), lambda c: tango(int(c[0]), int(c[1]), n), loss - gain
    )

    assert below <= 0.04
    assert above <= 0.04


def test_tango_inverts_the_score_test():
    """At either bound the constrained score statistic is the normal quantile: Tango's equation, solved by search."""
    losses, gains, n = 12, 5, 300
    found = tango(losses, gains, n)

    for bound in (found.low, found.high):
        # The constrained likelihood, maximised on a grid over the probability of a gain.
        q = np.linspace(max(0.0, -bound) + 1e-9, (1 - bound) / 2 - 1e-9, 400_001)
        likelihood = losses * np.log(q + bound) + gains * np.log(q) + (n - losses - gains) * np.log(1 - 2 * q - bound)
        best = q[likelihood.argmax()]
        z = (losses - gains - n * bound) / math.sqrt(n * (2 * best + bound - bound**2))
        assert abs(z) == pytest.approx(1.96, abs=2e-3)


@given(st.integers(1, 3000), st.data())
def test_tango_contains_its_estimate_and_mirrors(n, data):
    """The estimate lies strictly inside, and swapping the models flips the sign."""
    losses = data.draw(st.integers(0, n))
    gains = data.draw(st.integers(0, n - losses))

    found, mirrored = tango(losses, gains, n), tango(gains, losses, n)

    assert -1 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high
    assert mirrored.low == pytest.approx(-found.high, abs=1e-9)


def test_wilson_covers_a_rare_event():
    """The interval of a proportion keeps about 95% at p = 0.03."""
    below, above = coverage(lambda rng: int(rng.binomial(150, 0.03)), lambda k: wilson(k, 150), 0.03)

    assert below + above <= 0.07


@pytest.mark.parametrize(("n", "skewed"), [(40, False), (200, True)])
def test_mean_interval_covers_the_mean(n, skewed):
    """Normal and strongly skewed differences: at most 4% missed on either side, 5% on the skewed one's."""
    draw = (lambda rng: rng.exponential(1.0, n)) if skewed else (lambda rng: rng.normal(1.0, 1.0, n))

    below, above = coverage(draw, lambda x: mean_interval(x, np.random.default_rng(0)), 1.0, rounds=250)

    assert below <= 0.045
    assert above <= 0.06


def test_t_quantile_equals_the_table():
    """97.5% quantiles of Student's t."""
    assert [round(t_quantile(v), 3) for v in (29, 60, 1000)] == [2.045, 2.0, 1.962]


def test_unseen_is_the_zero_count_limit():
    """With that share, n samples miss it with probability 2.5%."""
    assert (1 - unseen(100)) ** 100 == pytest.approx(0.025)


# --- score


@given(seed=st.integers(0, 1000), name=st.sampled_from(["accuracy", "log_loss", "f1_macro", "agreement"]))
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

    for name in ("accuracy", "log_loss", "balanced_accuracy"):
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


@pytest.mark.parametrize("name", ["f1_macro", "accuracy"])
def test_drop_interval_covers_the_true_drop_in_simulation(name):
    """The bootstrap of a metric that is no mean, and Tango's interval, miss in about 5% of data sets."""
    rounds, misses = 120, 0
    truth = 0.10  # accuracy 0.9 to 0.8, classes alike, so F1 falls as much
    for seed in range(rounds):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 2, 150)
        hit = rng.random(150)
        base, mine = np.where(hit < 0.9, labels, 1 - labels), np.where(hit < 0.8, labels, 1 - labels)
        noise = rng.random((150, 2)).astype(np.float32) / 4
        found = reading(name, np.eye(2)[mine] + noise, np.eye(2)[base] + noise, labels)
        misses += not found.drop.low <= truth <= found.drop.high

    assert misses / rounds <= 0.11


def test_score_is_deterministic():
    """The same arrays give the same interval: resampling is seeded."""
    outputs, labels = classifier(200, 0.8)
    other, _ = classifier(200, 0.75)

    assert reading("f1_macro", other, outputs, labels) == reading("f1_macro", other, outputs, labels)


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


# --- user functions


def function_metric(tmp_path, body, direction="maximize"):
    file = tmp_path / "mine.py"
    file.write_text(body)
    return resolve_metric(spec(name="score", function=f"{file}:score", direction=direction), metrics())


def test_function_gets_all_outputs_and_labels(tmp_path):
    """The function sees every output by name, on candidate and baseline alike."""
    metric = function_metric(
        tmp_path, "def score(outputs, labels):\n    return float((outputs['b'].argmax(1) == labels).mean())\n"
    )
    good, labels = classifier(200, 0.9)
    bad, _ = classifier(200, 0.6)

    found = score(
        metric,
        {},
        outputs=np.zeros((200, 1)),
        baseline=np.zeros((200, 1)),
        labels=labels,
        split_name="test",
        all_outputs={"a": np.zeros((200, 1)), "b": bad},
        all_baseline={"a": np.zeros((200, 1)), "b": good},
    )

    assert found.score.value == pytest.approx((bad.argmax(1) == labels).mean())
    assert found.baseline == pytest.approx((good.argmax(1) == labels).mean())
    assert 0 < found.drop.low < found.drop.value < found.drop.high
    assert "200" in found.how or "resamples" in found.how


def test_function_to_minimize_turns_the_drop_round(tmp_path):
    """With ``minimize`` a higher figure is a loss."""
    metric = function_metric(
        tmp_path, "def score(outputs, labels):\n    return abs(outputs['output'][:, 0] - labels).mean()\n", "minimize"
    )
    labels = np.random.default_rng(0).normal(size=80)
    noise = np.random.default_rng(1).normal(size=(80, 1))

    found = score(
        metric,
        {},
        outputs=labels[:, None] + noise,
        baseline=labels[:, None] + noise / 9,
        labels=labels,
        split_name="v",
    )

    assert found.drop.low > 0


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ("    return 'good'\n", "returned str, not a number"),
        ("    return float('nan')\n", "returned nan"),
        ("    return {}['missing']\n", r"KeyError: 'missing' \(line 2\)"),
        ("    return None\n", "NoneType"),
    ],
)
def test_function_that_answers_badly_is_named_with_its_own_error(tmp_path, body, word):
    """What a user's function did wrong, and on which of its lines, is the message."""
    metric = function_metric(tmp_path, "def score(outputs, labels):\n" + body)
    outputs, labels = classifier(40, 0.9)

    with pytest.raises(DataError, match=word) as caught:
        score(metric, {}, outputs=outputs, baseline=outputs, labels=labels, split_name="v")

    assert "score()" in caught.value.message
    assert "mine.py" in caught.value.message


# --- names


def test_resolve_metric_names_the_nearest_word():
    """A misspelt metric or option is answered with the right one."""
    with pytest.raises(DataError, match="'accuracy'"):
        resolve_metric(spec(name="acuracy"), metrics())
    with pytest.raises(DataError, match="'threshold'"):
        resolve_metric(spec(name="f1_binary", options={"treshold": 0.3}), metrics())


def test_scored_output_is_the_first_unless_named():
    """``output:`` picks another one; a wrong name is answered with the right one."""
    assert scored_output(spec(), ("logits", "mask")) == 0
    assert scored_output(spec(output="mask"), ("logits", "mask")) == 1
    with pytest.raises(DataError, match="'mask'"):
        scored_output(spec(output="maks"), ("logits", "mask"))


# --- early rejection


def test_fewest_is_the_exact_hypergeometric_limit():
    """The smallest count of marked samples that is still plausible, against plain enumeration."""
    seen, m, n, error = 6, 20, 60, 0.01

    def tail(marked):
        ways = sum(math.comb(marked, x) * math.comb(n - marked, m - x) for x in range(seen, m + 1))
        return ways / math.comb(n, m)

    expected = next(k for k in range(seen, n + 1) if tail(k) > error)
    assert fewest(seen, m, n, error) == expected


@given(
    losses=st.integers(0, 60),
    gains=st.integers(0, 60),
    m=st.integers(1, 199),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=300, deadline=None)
def test_lowest_drop_stays_below_the_true_drop(losses, gains, m, seed):
    """At an error of 1e-9 no random prefix of any population gives a limit above the truth."""
    population = np.array([1.0] * losses + [-1.0] * gains + [0.0] * (200 - losses - gains))
    loss = np.random.default_rng(seed).permutation(population)

    assert lowest_drop(loss[:m], 200, span=1.0, error=1e-9) <= population.mean() + 1e-12


def test_lowest_drop_error_rate_holds_at_a_loose_level():
    """At 5% it is above the truth in at most 5% of prefixes: for counts and for continuous losses."""
    rounds = 600
    counts = np.array([1.0] * 40 + [-1.0] * 10 + [0.0] * 350)
    shares = np.random.default_rng(0).beta(0.3, 3.0, 400)
    for population in (counts, shares):
        wrong = sum(
            lowest_drop(np.random.default_rng(s).permutation(population)[:120], 400, span=1.0, error=0.05)
            > population.mean()
            for s in range(rounds)
        )
        assert wrong / rounds <= 0.05


def test_can_reject_a_collapsed_variant_on_a_small_prefix():
    """128 of 5,000 samples are enough to see that accuracy fell by half."""
    base, labels = classifier(128, 0.93)
    bad, _ = classifier(128, 0.4)

    assert can_reject(
        metrics()["accuracy"],
        {},
        outputs_prefix=bad,
        baseline_prefix=base,
        labels_prefix=labels,
        n_total=5000,
        bound=0.01,
    )


def test_can_reject_never_when_the_true_drop_is_within_the_bound():
    """300 random prefixes of a population whose drop is exactly at the bound: no rejection (0.1% allowed)."""
    n, bound = 1000, 0.02
    base = np.zeros((n, 2), dtype=np.float32)
    labels = np.zeros(n, dtype=int)
    base[:, 0] = 1.0
    mine = base.copy()
    mine[:20] = [0.0, 1.0]  # 20 losses of 1000
    for seed in range(300):
        order = np.random.default_rng(seed).permutation(n)[: 100 + seed]
        assert not can_reject(
            metrics()["accuracy"],
            {},
            outputs_prefix=mine[order],
            baseline_prefix=base[order],
            labels_prefix=labels[order],
            n_total=n,
            bound=bound,
        )


def test_can_reject_compares_exactly_when_the_prefix_is_everything():
    """With all samples seen there is nothing left to chance."""
    base, labels = classifier(100, 1.0)
    mine = base.copy()
    mine[:3] = np.roll(mine[:3], 1, axis=1)
    told = {"outputs_prefix": mine, "baseline_prefix": base, "labels_prefix": labels, "n_total": 100}

    assert can_reject(metrics()["accuracy"], {}, **told, bound=0.029)
    assert not can_reject(metrics()["accuracy"], {}, **told, bound=0.03)


@pytest.mark.parametrize("name", ["f1_macro", "log_loss", "token_accuracy"])
def test_can_reject_never_without_bounded_values_a_sample(name):
    """Where no bound holds, nothing is rejected early."""
    base, labels = classifier(200, 0.95)
    metric = metrics()[name]
    assert isinstance(metric, Metric)

    assert not can_reject(
        metric, {}, outputs_prefix=-base, baseline_prefix=base, labels_prefix=labels, n_total=400, bound=0.0
    )
