"""From the user's data files to checked, disjoint, shuffled splits on disk."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from autopilot.artifact import sha256_file
from autopilot.data.carve import Index, carve, drop_overlap, stratified_order
from autopilot.data.hook_code import hook_digest
from autopilot.data.hooks import load_hook
from autopilot.data.probe import probe
from autopilot.data.resolve import FilePlan, plan_file
from autopilot.data.sources import open_source
from autopilot.data.split import Split, seal
from autopilot.data.unpack import Unpacked, gather
from autopilot.errors import DataError
from autopilot.recipe import digest

if TYPE_CHECKING:
    from autopilot.model import ModelInfo
    from autopilot.spec import DataSpec, MetricSpec

Array = npt.NDArray[Any]

FORMAT = 1  # raise it when prepared folders of an earlier version must not be used again
MIN_VALIDATION = 30  # with fewer, one sample is more than three points of any score
TRAIN_CALIBRATION = 512  # calibration ranges settle well before; more only costs build time
CARVED_CALIBRATION = 256
CARVED_SHARE = 5  # at most a fifth of what is left of the validation file


@dataclass(frozen=True, slots=True)
class Splits:
    """The parts of the data. ``digest`` covers all of them; ``train`` is None without a training file."""

    validation: Split
    test: Split
    calibration: Split
    train: Split | None
    warnings: tuple[str, ...]
    digest: str


def prepare(
    problem_data: DataSpec, metric: MetricSpec, model: ModelInfo, folder: Path, *, seed: int, metric_needs_labels: bool
) -> Splits:
    """Check the data against model and metric, and write the splits under ``folder``.

    The same inputs give the same folders, and a folder already prepared from them is used as it is.
    A given test file is the held-back test, else a third of validation is held back; calibration
    comes from the training file, else from validation, disjoint from what is scored.

    Raises:
        DataError: the data don't fit; nothing new is left under ``folder``.
    """
    paths = {
        role: path
        for role, path in (
            ("validation", problem_data.validation),
            ("test", problem_data.test),
            ("train", problem_data.train),
        )
        if path is not None
    }
    plans = {
        role: plan_file(
            open_source(path),
            problem_data,
            model,
            metric_needing_labels=metric.name if metric_needs_labels and role != "train" else None,
        )
        for role, path in paths.items()
    }
    _check_counts(plans)
    hooks = [h for h in (problem_data.preprocess, problem_data.postprocess) if h]
    for hook in hooks:
        load_hook(hook)
    key = _key(problem_data, model, paths, hooks, seed)
    done = _load(folder, key)
    if done is not None:
        return done
    staging = folder / ".partial"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir(parents=True)
        warnings = _write(problem_data, model, plans, staging, seed)
        probe(Split.load(staging / "validation"), model)
        _publish(staging, folder, key, warnings)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    prepared = _load(folder, key)
    assert prepared is not None
    return prepared


def _check_counts(plans: Mapping[str, FilePlan]) -> None:
    validation = plans["validation"]
    if validation.n < MIN_VALIDATION:
        raise DataError(
            f"{validation.source.path} has {validation.n} samples; a verdict needs at least {MIN_VALIDATION}.",
            "Give more validation data; a few hundred samples are usual.",
        )


def _key(data: DataSpec, model: ModelInfo, paths: Mapping[str, Path], hooks: list[str], seed: int) -> str:
    """Everything the written folders depend on."""
    inputs = {k: v.to_json() for k, v in data.inputs.items()}
    tensors = [[t.name, t.dtype, [str(d) for d in t.shape]] for t in model.inputs]
    files = {role: sha256_file(path) for role, path in paths.items()}
    told = [FORMAT, seed, data.label, data.batched, bool(data.preprocess), inputs, tensors, files]
    return digest([told, [[h, hook_digest(h)] for h in hooks], [str(p) for p in paths.values()]])


def _load(folder: Path, key: str) -> Splits | None:
    """What is in ``folder`` if it was prepared from the same inputs, else None."""
    try:
        told = json.loads((folder / "splits.json").read_text())
    except (OSError, ValueError):
        return None
    if told.get("key") != key or not all((folder / n / "split.json").is_file() for n in told["names"]):
        return None
    parts = {name: Split.load(folder / name) for name in told["names"]}
    total = digest([[name, part.digest] for name, part in sorted(parts.items())])
    return Splits(
        parts["validation"], parts["test"], parts["calibration"], parts.get("train"), tuple(told["warnings"]), total
    )


def _write(data: DataSpec, model: ModelInfo, plans: Mapping[str, FilePlan], staging: Path, seed: int) -> list[str]:
    """Unpack, guard against overlap, carve, and write each part; returns the warnings."""
    hash_types = _hash_types(plans, preprocess=bool(data.preprocess))
    files = {role: Unpacked(plan, staging / "unpacked" / role, hash_types) for role, plan in plans.items()}
    warnings: list[str] = []
    parts = _assign(files, np.random.default_rng(seed), warnings)
    for name, (role, index) in parts.items():
        _write_part(name, files[role], index, staging / name, data, model)
    shutil.rmtree(staging / "unpacked")
    return warnings


def _hash_types(plans: Mapping[str, FilePlan], *, preprocess: bool) -> dict[str, np.dtype[Any]]:
    """The per-sample input arrays that identify a sample, with the one type they are hashed in.

    The same pixels stored as uint8 in one file and as int64 in another are the same sample.
    """
    first = plans["validation"]
    used = [s for s in first.stored if s != first.label] if preprocess else [m.source for m in first.inputs]
    names = [s for s in dict.fromkeys(used) if s is not None and s in first.stored]
    return {
        s: np.result_type(*(p.source.headers[s].dtype for p in plans.values() if s in p.source.headers)) for s in names
    }


def _assign(
    files: Mapping[str, Unpacked], rng: np.random.Generator, warnings: list[str]
) -> dict[str, tuple[str, Index]]:
    """Part name -> (file role, shuffled indices of its samples)."""
    validation, test, train = files["validation"], files.get("test"), files.get("train")
    kept = np.arange(validation.plan.n)
    parts: dict[str, tuple[str, Index]] = {}
    if test is not None:
        kept = _guard(validation, kept, test, warnings)
        parts["test"] = ("test", rng.permutation(test.plan.n))
    if train is not None:
        rest = _guard(train, np.arange(train.plan.n), validation, warnings)
        rest = rest if test is None else _guard(train, rest, test, warnings)
        order = np.concatenate(stratified_order(rest, train.hashes, _labels(train), rng))
        parts["calibration"] = ("train", rng.permutation(order[:TRAIN_CALIBRATION]))
        parts["train"] = ("train", rng.permutation(rest))
    held = 0 if test is not None else len(kept) // 3
    carved = 0 if train is not None else min(CARVED_CALIBRATION, (len(kept) - held) // CARVED_SHARE)
    groups = stratified_order(kept, validation.hashes, _labels(validation), rng)
    held_index, carved_index, scored = carve(groups, (held, carved), rng, path=validation.plan.source.path)
    parts["validation"] = ("validation", scored)
    parts.setdefault("test", ("validation", held_index))
    parts.setdefault("calibration", ("validation", carved_index))
    return parts


def _guard(file: Unpacked, kept: Index, other: Unpacked, warnings: list[str]) -> Index:
    paths = {"path": file.plan.source.path, "other_path": other.plan.source.path}
    return drop_overlap(file.hashes, kept, other.hashes, **paths, warnings=warnings)


def _labels(file: Unpacked) -> Array | None:
    return np.load(file.path(file.plan.label)) if file.plan.label is not None else None


def _write_part(name: str, file: Unpacked, index: Index, folder: Path, data: DataSpec, model: ModelInfo) -> None:
    plan = file.plan
    folder.mkdir()
    arrays = {array: f"array_{i}.npy" for i, array in enumerate(plan.stored)}
    shared = {array: f"shared_{i}.npy" for i, array in enumerate(plan.shared)}
    for array, target in arrays.items():
        gather(file.path(array), index, folder / target)
    for array, target in shared.items():
        shutil.copyfile(file.path(array), folder / target)
    meta = {
        "name": name,
        "n": len(index),
        "batched": data.batched,
        "label": plan.label,
        "arrays": arrays,
        "shared": shared,
        "inputs": [m.to_json() for m in plan.inputs],
        "model_inputs": {t.name: t.dtype for t in model.inputs},
        "preprocess": data.preprocess,
        "postprocess": data.postprocess,
    }
    seal(folder, meta, [hook_digest(h) for h in (data.preprocess, data.postprocess) if h])


def _publish(staging: Path, folder: Path, key: str, warnings: list[str]) -> None:
    """Move the finished parts into place; ``splits.json`` comes last and makes them count."""
    (folder / "splits.json").unlink(missing_ok=True)
    names = sorted(p.name for p in staging.iterdir())
    for stale in ("calibration", "validation", "test", "train"):
        shutil.rmtree(folder / stale, ignore_errors=True)
    for name in names:
        os.replace(staging / name, folder / name)
    told = staging / "splits.json"
    told.write_text(json.dumps({"key": key, "names": names, "warnings": warnings}))
    os.replace(told, folder / "splits.json")
