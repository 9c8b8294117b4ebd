"""What the README beside a model says of warming it up for server traffic."""

from __future__ import annotations

import pytest

from autopilot.outputs.readme import _warm_up
from autopilot.recipe import Deployment


@pytest.mark.parametrize(
    ("deployment", "said"),
    [
        (Deployment("openvino", batch=16, instances=2), True),
        (Deployment("openvino", batch=8), True),
        (Deployment("cpu", instances=2), True),
        (Deployment("cpu"), False),
    ],
)
def test_server_is_to_be_warmed_up_with_every_size_where_there_are_several(deployment: Deployment, said: bool) -> None:
    """As it was when latency and memory were read."""
    text = " ".join(_warm_up(deployment))

    assert ("run every batch size that will come" in text) is said
    assert (f"1 to {deployment.batch}" in text) is said
