"""User functions as metrics, and the names a spec uses."""

from __future__ import annotations

import numpy as np
import pytest

from autopilot.errors import DataError
from autopilot.plugins import metrics
from autopilot.scoring import resolve_metric, score, scored_output
from tests.scoring_support import classifier, spec


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
