"""OpenVINO's errors reach the user with what is wrong, not with where OpenVINO noticed it."""

from __future__ import annotations

import pytest

from autopilot.display.progress import one_line
from autopilot.errors import Failure, Unsupported, VariantFailed
from autopilot.providers._openvino_errors import refuse, said

# What OpenVINO 2026.4.1 says of a scikit-learn network by skl2onnx.
UNKNOWN = """Exception from src/inference/src/cpp/core.cpp:84:
Check 'false' failed at src/frontends/common_translators/src/unconverted_ops_report.cpp:151:
FrontEnd API failed with OpConversionFailure:
Model wasn't fully converted.
Summary:
-- No conversion rule found for operations: ai.onnx.ml.ArrayFeatureExtractor


"""


def test_unknown_operator_is_named_in_the_line_of_progress() -> None:
    """The name of the operator isn't cut off where a trial's reason is shown in one line."""
    with pytest.raises(Unsupported) as caught:
        refuse(RuntimeError(UNKNOWN), "OpenVINO 2026.4.1 can't load the model", Failure.BUILD_ERROR)

    assert "no conversion rule for ai.onnx.ml.ArrayFeatureExtractor." in one_line(str(caught.value))
    assert "core.cpp" not in str(caught.value)


def test_other_errors_keep_their_words() -> None:
    """Without the lines that name places; with them where there is nothing else."""
    place = "Exception from src/inference/src/cpp/core.cpp:132:"

    assert said(f"{place}\nInput 0 has rank 3,\n  not 4.") == "Input 0 has rank 3, not 4."
    assert said(place) == place


@pytest.mark.parametrize(
    ("exc", "failure"),
    [(RuntimeError("bad_alloc"), Failure.OOM), (MemoryError(), Failure.OOM), (RuntimeError("odd"), Failure.CRASH)],
)
def test_failure_is_what_the_text_tells_else_the_callers(exc: Exception, failure: Failure) -> None:
    """Memory is told apart, since such a failure isn't the model's for good."""
    with pytest.raises(VariantFailed) as caught:
        refuse(exc, "running the model failed", Failure.CRASH)

    assert caught.value.failure is failure
