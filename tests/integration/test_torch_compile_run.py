"""A whole study over ONNX Runtime and torch.compile: both are measured, side by side and under load."""

from __future__ import annotations

from pathlib import Path

import pytest

from autopilot import plugins
from autopilot.target import Target
from tests.integration.run_support import autopilot, result_of, write_study

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.skipif(
        plugins.providers()["torch_compile"].usable(Target.detect()) is not None, reason="torch_compile can't run here"
    ),
]
BOTH = {"providers": ["cpu", "torch_compile"], "threads": 1}
# The model as given on either, and nothing that takes time to build.
SPACE = "techniques: []\ndeployment:\n  threads: [1]\n  {batch}torch_compile: {{mode: [default], freezing: [true]}}\n"


def test_both_providers_are_measured(tmp_path: Path) -> None:
    """The first compilation is a start, not a failure: a torch_compile trial ends with a verdict like the cpu's."""
    (tmp_path / "space.yaml").write_text(SPACE.format(batch=""))
    spec = write_study(tmp_path, target=BOTH, space="space.yaml", search={"trials": 4, "timeout": "50s", "seed": 0})

    done = autopilot("run", str(spec), "--out", "out", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    result = result_of(tmp_path / "out")
    assert result["not_tried"] == []
    measured = [t for t in result["trials"] if t["failure"] is None and t["measured"]["latency_p50_ms"]["value"]]
    assert {t["deployment"]["provider"] for t in measured} == {"cpu", "torch_compile"}
    compiled = [t for t in measured if t["deployment"]["provider"] == "torch_compile"]
    assert all(t["measured"]["provider_node_share"]["value"] == 1.0 for t in compiled)
