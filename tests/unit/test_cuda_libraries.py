"""NVIDIA's libraries in wheels, made up: which are found, which are missed, for which CUDA."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from autopilot.providers import _cuda_libraries as libraries


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that Python imports from, with an onnxruntime for CUDA 13 and the libraries of CUDA 12."""
    for name in ("nvidia/cublas/lib/libcublas.so.12", "nvidia/cudnn/lib/libcudnn.so.9", "torch/lib/libother.so.1"):
        put(tmp_path, name)
    put(
        tmp_path,
        "onnxruntime/capi/build_and_package_info.py",
        "package_name = 'onnxruntime-gpu'\ncuda_version = '13.0'\n",
    )
    put(tmp_path, "onnxruntime/__init__.py")
    put(tmp_path, "torch/__init__.py")
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(libraries, "_known_to_system", lambda: {"libcudart.so.13": tmp_path / "libcudart.so.13"})
    monkeypatch.setattr(libraries, "_USUAL", ())
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    return tmp_path


def put(root: Path, name: str, text: str = "") -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def test_cuda_version_is_read_without_importing_anything(wheels: Path) -> None:
    """From the file that onnxruntime-gpu's wheel has and onnxruntime's lacks the line of."""
    assert libraries.built_for() == 13
    put(wheels, "onnxruntime/capi/build_and_package_info.py", "package_name = 'onnxruntime'\n")
    assert libraries.built_for() is None


def test_libraries_are_found_in_wheels_folders_and_by_the_loader(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever ONNX Runtime, or this package before it, finds them."""
    put(tmp_path, "elsewhere/libnvinfer.so.10")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path / "elsewhere"))

    for name in ("libcudnn.so.9", "libother.so.1", "libcudart.so.13", "libnvinfer.so.10"):
        assert libraries.is_here(name), name
    assert not libraries.is_here("libcublas.so.13")


def test_version_of_an_archive_is_in_the_name_of_its_file(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT's comes on LD_LIBRARY_PATH, without a package that has a version; nothing is loaded for it."""
    put(tmp_path, "elsewhere/libnvinfer.so.10.14.1", "abc")
    (tmp_path / "elsewhere/libnvinfer.so.10").symlink_to("libnvinfer.so.10.14.1")

    assert libraries.version_in_name("libnvinfer.so.10") == ""
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path / "elsewhere"))
    assert libraries.version_in_name("libnvinfer.so.10") == "libnvinfer.so.10.14.1, 3 bytes"
    assert libraries.version_in_name("libcudnn.so.9") == "libcudnn.so.9, 0 bytes"


def test_library_of_another_cuda_is_named(wheels: Path) -> None:
    """What is wrong is the version, not that nothing is there."""
    assert libraries.others("libcublas.so.13") == ["libcublas.so.12"]
    assert libraries.others("libcudnn.so.9") == []


def test_wheels_of_several_places_are_seen_together(wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One wheel that makes a package of the folder hides the others from Python, not from us."""
    put(wheels, "front/nvidia/__init__.py")
    put(wheels, "front/nvidia/cu13/lib/libcublas.so.13")
    monkeypatch.syspath_prepend(str(wheels / "front"))

    assert libraries.is_here("libcublas.so.13")
    assert libraries.is_here("libcublas.so.12")


def test_library_that_does_not_load_is_left_to_onnxruntime(wheels: Path) -> None:
    """These files are empty: ONNX Runtime's own message says what is wrong with a library."""
    put(wheels, "nvidia/cu13/lib/libcublas.so.13")

    libraries.load(13)
