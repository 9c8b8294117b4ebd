"""The specs printed in the documentation are good ones."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from autopilot import plugins
from autopilot.spec import parse_spec

PAGE = Path(__file__).resolve().parents[2] / "docs" / "spec.md"


def test_server_spec_of_the_documentation_is_read(tmp_path: Path) -> None:
    """What users copy works."""
    (raw,) = (
        yaml.safe_load(text)
        for text in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
        if text.startswith("name: ranking-service")
    )
    for name in ("model.onnx", "valid.npz"):
        (tmp_path / name).write_text("")

    problem = parse_spec(raw, tmp_path, plugins.vocabulary())

    assert problem.traffic.is_server
    assert problem.objective == "max_rate_rps"
