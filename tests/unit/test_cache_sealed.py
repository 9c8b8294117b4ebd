"""Sealed files: what comes out is what was put in, or nothing, whatever happened to a byte of it."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autopilot.cache.sealed import about, opened_json, read_sealed, sealed_json, write_sealed

quick = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@quick
@given(payload=st.binary(max_size=200), said=st.text(max_size=400))
def test_payload_comes_out_as_it_went_in(tmp_path: Path, payload: bytes, said: str) -> None:
    """Any bytes, new lines and what looks like a seal among them; with any words about it."""
    write_sealed(tmp_path / "f", payload, said)

    assert read_sealed(tmp_path / "f") == payload
    assert said.startswith(about(tmp_path / "f"))


@quick
@given(data=st.data(), payload=st.binary(max_size=60))
def test_changed_file_gives_nothing(tmp_path: Path, data: st.DataObject, payload: bytes) -> None:
    """One byte changed, or the end cut off: None, and the file is gone; never another payload."""
    path = tmp_path / "f"
    write_sealed(path, payload, "words")
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 2))  # the last new line says nothing
    if data.draw(st.booleans()):
        content[at] ^= data.draw(st.integers(1, 255))
    else:
        del content[at:]
    path.write_bytes(content)

    found = read_sealed(path)

    # A change within the seal's own JSON may say the same (white space): then the payload is whole.
    assert found is None or found == payload
    assert path.exists() == (found is not None)


@quick
@given(data=st.data())
def test_changed_json_gives_nothing_or_the_same(tmp_path: Path, data: st.DataObject) -> None:
    """A flipped byte of meta.json never changes what is believed."""
    value = {"files": ["model.onnx"], "took_s": 1.25, "failure": {"message": "no weights"}}
    path = tmp_path / "meta.json"
    content = bytearray(sealed_json(value).encode())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)

    assert opened_json(path) in (None, value)


@pytest.mark.parametrize("text", ["", "[]", "3", '{"a": 1}', '{"a": NaN, "digest": "x"}', "[" * 100_000])
def test_json_without_its_digest_is_none_of_ours(tmp_path: Path, text: str) -> None:
    """Other JSON, no JSON, and JSON made to exhaust a parser."""
    (tmp_path / "meta.json").write_text(text)

    assert opened_json(tmp_path / "meta.json") is None


def test_reading_notes_the_use(tmp_path: Path) -> None:
    """The order of removal is that of the last uses, not of the writes."""
    write_sealed(tmp_path / "f", b"x", "")
    os.utime(tmp_path / "f", (1, 1))

    read_sealed(tmp_path / "f")

    assert (tmp_path / "f").stat().st_mtime > 1


def test_sealed_archive_is_still_an_archive(tmp_path: Path) -> None:
    """A person may open it with numpy alone."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, a=np.arange(5))
    write_sealed(tmp_path / "f.npz", buffer.getvalue(), "five numbers")

    assert np.load(tmp_path / "f.npz")["a"].tolist() == [0, 1, 2, 3, 4]


def test_missing_file_is_none(tmp_path: Path) -> None:
    """Nothing there is no error, and is about nothing."""
    assert read_sealed(tmp_path / "none") is None
    assert opened_json(tmp_path / "none") is None
    assert about(tmp_path / "none") == ""


def test_sealed_json_is_plain_json(tmp_path: Path) -> None:
    """A person reads it as it is."""
    assert json.loads(sealed_json({"a": [1, 2]}))["a"] == [1, 2]
