"""The registry over several studies of one name: who is champion; a study that starts from one. No clock decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml

from tests.integration.run_support import hurry, in_process, new_store, result_of, write_study

pytestmark = pytest.mark.integration


def run(folder: Path, *options: str, spec: str = "spec.yaml", **changes: Any) -> dict[str, Any]:
    """Run a study with its own store in ``folder``; its ``mlflow`` part, and the best's size."""
    raw = yaml.safe_load((folder / "spec.yaml").read_text()) | changes
    (folder / spec).write_text(yaml.safe_dump(raw, sort_keys=False))
    done = in_process("run", spec, "--fresh", *options, cwd=folder, own_store=True)
    assert done.returncode == 0, done.stderr
    found = result_of(folder / "runs" / raw["name"])
    return {**found["mlflow"], "size": found["best"]["measured"]["size_mb"]["value"], "stderr": done.stderr}


def test_only_a_smaller_winner_takes_the_alias_and_a_study_can_start_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model as given is champion, then a smaller one, and the larger one again is a version only."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    hurry(monkeypatch)
    new_store(tmp_path)
    (tmp_path / "space.yaml").write_text("techniques: {static_int8: {}}\ndeployment: {threads: [1]}\n")
    write_study(
        tmp_path,
        budget={"size_mb": 10, "quality_drop": 0.9},
        objective="size_mb",
        space="space.yaml",
        search={"trials": 2, "timeout": "300s", "seed": 0},
    )

    first, second = run(tmp_path, "--trials", "1"), run(tmp_path)
    third = run(tmp_path, "--trials", "1")

    assert second["size"] < first["size"] == third["size"]
    assert [r["champion"] for r in (first, second, third)] == [True, True, False]
    assert "each measured beside the baseline" in third["ruling"]
    assert f"version {third['version']} is registered, the champion stays" in " ".join(third["stderr"].split())
    store = f"sqlite:///{tmp_path / 'mlruns' / 'mlflow.db'}"
    client = mlflow.MlflowClient(tracking_uri=store)
    aliases = {k: int(v) for k, v in client.get_registered_model("small").aliases.items()}
    assert (aliases["champion"], aliases["previous"]) == (2, 1)
    assert client.get_model_version("small", str(third["version"])).tags["champion"].startswith("not champion: size_mb")

    again = run(tmp_path, "--trials", "1", spec="again.yaml", name="again", model="models:/small@champion")
    assert again["size"] == second["size"]
    assert (again["model"], again["version"], again["champion"]) == ("again", 1, True)
