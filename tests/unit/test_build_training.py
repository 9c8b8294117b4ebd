"""What steps that train depend on, and how it travels to the build child."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from autopilot import plugins
from autopilot.build.cache import complete, step_key
from autopilot.build.training import NO_TRAINING, Training
from autopilot.data import Split
from autopilot.data.split import seal
from autopilot.recipe import Step
from autopilot.spec import TorchSource

PRUNE = plugins.techniques()["prune_channels"]
FUSE = plugins.techniques()["fuse"]


def key(name: str, training: str | None, is_classification: bool = True) -> str:
    """The key of a technique's default step."""
    technique = plugins.techniques()[name]
    step = complete(technique, Step(name))
    return step_key(
        technique, step, parent="p", calibration=None, is_classification=is_classification, training=training
    )


def train_split(folder: Path) -> Split:
    """Four samples."""
    np.save(folder / "x.npy", np.zeros((4, 2), np.float32))
    meta = {"name": "train", "n": 4, "batched": True, "label": None, "arrays": {"x": "x.npy"}, "shared": {}}
    seal(folder, {**meta, "inputs": [], "model_inputs": {}, "preprocess": None, "postprocess": None}, [])
    return Split.load(folder)


def test_training_counts_only_where_a_technique_trains() -> None:
    """Other techniques keep their cached builds whatever the training data are."""
    assert PRUNE.needs_training
    assert not FUSE.needs_training
    assert len({key("prune_channels", t) for t in ("a", "b", None)}) == 3
    assert key("prune_channels", "a") != key("prune_channels", "a", is_classification=False)
    assert key("fuse", "a") == key("fuse", None)


def test_training_travels_as_plain_data(tmp_path: Path) -> None:
    """Paths and a digest; the child has the same split and source again."""
    (tmp_path / "net.pt2").write_bytes(b"x")
    training = Training.of(train_split(tmp_path), TorchSource(program=tmp_path / "net.pt2"))

    again = Training.from_json(json.loads(json.dumps(training.to_json())))

    assert again.split is not None
    assert training.split is not None
    assert again.split.digest == training.split.digest
    assert replace(again, split=training.split) == training


def test_digest_is_of_data_and_source(tmp_path: Path) -> None:
    """Either of them alone, both, or nothing."""
    split = train_split(tmp_path)
    (tmp_path / "net.pt2").write_bytes(b"x")
    source = TorchSource(program=tmp_path / "net.pt2")

    found = {Training.of(s, t).digest for s in (split, None) for t in (source, None)}

    assert len(found) == 4
    assert Training.of(None, None) == NO_TRAINING
    assert Training.from_json({}) == NO_TRAINING
