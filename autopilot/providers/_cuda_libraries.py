"""NVIDIA's libraries that onnxruntime-gpu needs: which, where they are, and loading them from wheels.

They come with wheels of their own (``nvidia/*/lib``, PyTorch's need the same), with an installed CUDA, or not at all.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

# What libonnxruntime_providers_cuda.so of onnxruntime-gpu 1.31.1 is linked with, and cuDNN 9, which it opens by itself
# at the first convolution. In the order in which they load one another.
_BY_CUDA = ("libcublasLt.so.{cuda}", "libcublas.so.{cuda}", "libcudart.so.{cuda}", "libcurand.so.10")
# Opened by onnxruntime-gpu where they are there: cuFFT for transforms, NVRTC for cuDNN's generated kernels.
_OPTIONAL = ("libnvrtc.so.{cuda}", "libcufft.so.{cufft}")
CUDNN = "libcudnn.so.9"
TENSORRT = ("libnvinfer.so.10", "libnvinfer_plugin.so.10", "libnvonnxparser.so.10")
DRIVER = "libcuda.so.1"
# Where the loader looks even for what its cache doesn't know: a driver that is mounted into a container, say.
_USUAL = (
    *(
        Path(root) / folder
        for root in ("/", "/usr")
        for folder in ("lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu", "lib64", "lib")
    ),
    Path("/usr/lib/wsl/lib"),
    Path(sys.prefix) / "lib",  # conda's: its Python looks there
)


def needed(cuda: int) -> tuple[str, ...]:
    """The names of CUDA's libraries that must be there for a build with CUDA ``cuda``.

    >>> needed(13)[0]
    'libcublasLt.so.13'
    """
    return tuple(name.format(cuda=cuda) for name in _BY_CUDA)


def helpful(cuda: int) -> tuple[str, ...]:
    """Those that some models need."""
    return tuple(name.format(cuda=cuda, cufft=12 if cuda >= 13 else 11) for name in _OPTIONAL)


def built_for() -> int | None:
    """The CUDA version (13) that the installed onnxruntime is built with, not imported; None where it tells none.

    >>> built_for() is None or built_for() >= 11
    True
    """
    for home in _homes("onnxruntime"):
        try:
            text = (home / "capi" / "build_and_package_info.py").read_text(encoding="utf-8")
        except OSError:
            continue
        found = re.search(r"^cuda_version = ['\"](\d+)", text, re.MULTILINE)
        if found:
            return int(found[1])
    return None


def folders() -> Iterator[Path]:
    """Where wheels keep NVIDIA's libraries, in every folder that Python imports from."""
    # Not by find_spec: where one wheel makes a package of this folder, Python doesn't see those of other places.
    for base in (Path(place or ".") / "nvidia" for place in sys.path):
        yield from sorted(base.glob("*/lib"))
    yield from (base / "lib" for base in _homes("torch"))
    yield from _homes("tensorrt_libs")


def _homes(module: str) -> list[Path]:
    """The folders of a top-level module, which is not imported; none where it isn't installed."""
    spec = find_spec(module)
    return [Path(home) for home in (spec.submodule_search_locations or ())] if spec is not None else []


def in_wheels(name: str) -> Path | None:
    """The library called ``name`` in a wheel; None where there is none."""
    return next((folder / name for folder in folders() if (folder / name).is_file()), None)


def is_here(name: str) -> bool:
    """Whether the library called ``name`` can be loaded: from a wheel, LD_LIBRARY_PATH or the system's folders."""
    if in_wheels(name) is not None or name in _known_to_system():
        return True
    return any((path / name).is_file() for path in (*_named(), *_USUAL))


def version_in_name(name: str) -> str:
    """What tells the library called ``name`` from another version: the name of its file, ``libnvinfer.so.10.14.1``.

    With its size, for those that are called like their link (in wheels). Nothing is loaded; empty where it isn't found.
    """
    place = in_wheels(name) or next((p / name for p in (*_named(), *_USUAL) if (p / name).is_file()), None)
    path = place or _known_to_system().get(name)
    try:
        return f"{path.resolve().name}, {path.stat().st_size} bytes" if path is not None else ""
    except OSError:
        return ""


def _named() -> list[Path]:
    """The folders on LD_LIBRARY_PATH."""
    return [Path(p) for p in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if p]


def others(name: str) -> list[str]:
    """Names of ``name`` in other versions that are here: ``libcublas.so.12`` where ``libcublas.so.13`` is wanted."""
    stem = name.partition(".so.")[0] + ".so."
    paths = (*folders(), *_named(), *_USUAL)
    seen = {file.name for path in paths if path.is_dir() for file in path.glob(f"{stem}*")} | _known_to_system().keys()
    return sorted(n for n in seen if re.fullmatch(re.escape(stem) + r"\d+", n) and n != name)


@cache
def _known_to_system() -> Mapping[str, Path]:
    """The files of all libraries in the loader's cache, by name; empty where the system has no such cache."""
    for command in ("/sbin/ldconfig", "ldconfig"):
        try:
            done = subprocess.run([command, "-p"], capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            continue
        lines = [line.split() for line in done.stdout.splitlines() if line.startswith("\t") and "=>" in line]
        return {words[0]: Path(words[-1]) for words in reversed(lines)}  # of several the loader takes the first
    return {}


def load(cuda: int) -> None:
    """Load what wheels hold of these libraries, so that onnxruntime finds them loaded.

    Its own ``preload_dlls`` looks beside its own folder only: not where an environment is made over another one.
    A library that doesn't load is left to onnxruntime, whose message says what was wrong.
    """
    for name in (*needed(cuda), *helpful(cuda), CUDNN):
        path = in_wheels(name)
        if path is not None:
            try:
                ctypes.CDLL(str(path))
            except OSError:
                continue
