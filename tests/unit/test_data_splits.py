"""Splits: disjoint, stratified, deterministic, resumable; the overlap guard."""

from __future__ import annotations

import numpy as np
import pytest

from autopilot.data import Split
from autopilot.errors import DataError
from autopilot.spec import InputSpec
from tests.data_support import data, images, rows, run, save


def test_splits_of_one_file_are_disjoint_and_complete(tmp_path):
    """A third is held back, at most a fifth of the rest calibrates, every sample is in one part."""
    splits = run(tmp_path, data(save(tmp_path / "v.npz", **images(300))))
    parts = [set(rows(s)) for s in (splits.validation, splits.test, splits.calibration)]

    assert splits.test.n == 100
    assert splits.calibration.n == 40
    assert splits.validation.n == 160
    assert len(parts[0] | parts[1] | parts[2]) == 300
    assert splits.train is None


def test_carved_splits_have_the_classes_of_the_whole(tmp_path):
    """Stratified: a rare class is in the held-back part in proportion."""
    stored = images(300)
    stored["label"] = (np.arange(300) < 30).astype(np.uint8)

    splits = run(tmp_path, data(save(tmp_path / "v.npz", **stored)))

    assert 9 <= int(splits.test.labels.sum()) <= 11
    assert 3 <= int(splits.calibration.labels.sum()) <= 5


def test_a_prefix_of_a_split_is_a_random_subset(tmp_path):
    """Samples stored sorted by class come out mixed."""
    stored = images(400)
    stored["label"] = np.sort(stored["label"])

    labels = run(tmp_path, data(save(tmp_path / "v.npz", **stored))).validation.labels

    assert len(set(labels[:40].tolist())) == 5


def test_training_file_gives_calibration_and_train(tmp_path):
    """Calibration then comes from train, up to 512 samples; the validation file is scored whole."""
    files = {"train": save(tmp_path / "t.npz", **images(700, 1)), "test": save(tmp_path / "x.npz", **images(50, 2))}

    splits = run(tmp_path, data(save(tmp_path / "v.npz", **images(60)), **files))

    assert (splits.validation.n, splits.test.n, splits.calibration.n, splits.train.n) == (60, 50, 512, 700)
    assert set(rows(splits.calibration)) <= set(rows(splits.train))
    assert splits.warnings == ()


def test_copies_within_a_file_go_to_the_same_part(tmp_path):
    """A sample and its copies are never on both sides of a split we make."""
    stored = images(150)
    twice = {k: np.concatenate([v, v]) for k, v in stored.items()}

    splits = run(tmp_path, data(save(tmp_path / "v.npz", **twice)))

    parts = [set(rows(s)) for s in (splits.validation, splits.test, splits.calibration)]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]


def test_copies_of_few_samples_are_refused(tmp_path):
    """Thirty copies of one sample can't be split."""
    same = {"image": np.zeros((60, 1, 4, 4), np.uint8), "label": np.zeros(60, np.uint8)}

    with pytest.raises(DataError, match="only 1 different"):
        run(tmp_path, data(save(tmp_path / "v.npz", **same)))


@pytest.mark.parametrize("role", ["test", "train"])
def test_overlapping_files_are_refused(tmp_path, role):
    """More than 1% of the smaller file in the other: both files and the count are named."""
    stored, other = images(100), images(200, 1)
    other["image"][:2] = stored["image"][:2]
    other["image"] = other["image"].astype(np.int64)  # another type hides nothing
    files = {role: save(tmp_path / "other.npz", **other)}

    with pytest.raises(DataError, match="2 of the 100") as caught:
        run(tmp_path, data(save(tmp_path / "v.npz", **stored), inputs={"image": InputSpec(dtype="float32")}, **files))

    assert "v.npz" in caught.value.message
    assert "other.npz" in caught.value.message


def test_few_overlapping_samples_are_left_out_with_a_warning(tmp_path):
    """One copy in a hundred leaves the training side, or the validation side against the test."""
    stored, train, test = images(100), images(200, 1), images(100, 2)
    train["image"][5] = stored["image"][0]
    test["image"][6] = stored["image"][1]
    files = {"train": save(tmp_path / "train.npz", **train), "test": save(tmp_path / "test.npz", **test)}

    splits = run(tmp_path, data(save(tmp_path / "v.npz", **stored), **files))

    assert (splits.validation.n, splits.test.n, splits.train.n) == (99, 100, 199)
    assert not set(rows(splits.validation)) & (set(rows(splits.train)) | set(rows(splits.test)))
    assert len(splits.warnings) == 2


def test_prepare_is_deterministic_and_depends_on_the_seed(tmp_path):
    """The same inputs give the same digests anywhere, another seed another order."""
    path = save(tmp_path / "v.npz", **images(90))

    first, second = run(tmp_path / "a", data(path)), run(tmp_path / "b", data(path))
    other = run(tmp_path / "c", data(path), seed=1)

    assert first.digest == second.digest
    assert rows(first.validation) == rows(second.validation)
    assert other.digest != first.digest


def test_prepare_uses_a_finished_folder_and_replaces_a_half_written_one(tmp_path):
    """Nothing is written twice; without the closing file the folder counts for nothing."""
    spec = data(save(tmp_path / "v.npz", **images(90)))
    digest = run(tmp_path, spec).digest
    stamp = (tmp_path / "data/validation/split.json").stat().st_mtime_ns
    assert run(tmp_path, spec).digest == digest
    assert (tmp_path / "data/validation/split.json").stat().st_mtime_ns == stamp

    (tmp_path / "data/splits.json").unlink()
    (tmp_path / "data/validation/split.json").write_text("{")
    (tmp_path / "data/.partial/unpacked").mkdir(parents=True)

    assert run(tmp_path, spec).digest == digest
    assert Split.load(tmp_path / "data/validation").n == 48
    assert not (tmp_path / "data/.partial").exists()


def test_prepare_starts_anew_when_the_data_change(tmp_path):
    """A finished folder of other data is not used."""
    before = run(tmp_path, data(save(tmp_path / "v.npz", **images(90))))
    after = run(tmp_path, data(save(tmp_path / "v.npz", **images(120))))

    assert (before.test.n, after.test.n) == (30, 40)
