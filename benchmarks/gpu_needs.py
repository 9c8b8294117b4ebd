#!/usr/bin/env python3
"""What `make test-gpu` and `make bench-gpu` need and this interpreter lacks, before the machine's time is spent.

    python benchmarks/gpu_needs.py

Ends with 2 and the command that fetches the lacking wheels (on a machine with a network); with 0 where all is there.
Standard library only.
"""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

# Modules that the GPU tests and the benchmark import, and the distributions that bring them. MLflow, pandas and plotly
# aren't among them: nothing is tracked and no page is written.
NEEDS = {
    "numpy": "numpy",
    "onnx": "onnx",
    "onnx_ir": "onnx-ir",
    "onnxruntime": "onnxruntime-gpu",
    "onnxscript": "onnxscript",
    "optuna": "optuna",
    "psutil": "psutil",
    "pydantic": "pydantic",
    "pytest": "pytest",
    "pytest_timeout": "pytest-timeout",
    "rich": "rich",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "yaml": "PyYAML",
}
# Without it GPU memory and energy are told as not measurable.
WISHES = {"pynvml": "nvidia-ml-py"}


def main() -> int:
    """Print what is lacking; 2 if it is needed."""
    lacking = [name for module, name in NEEDS.items() if find_spec(module) is None]
    try:
        version("onnxruntime-gpu")
    except PackageNotFoundError:
        lacking = [*(name for name in lacking if name != "onnxruntime-gpu"), "onnxruntime-gpu"]
    wished = [name for module, name in WISHES.items() if find_spec(module) is None]
    here = f"Python {sys.version_info.major}.{sys.version_info.minor} ({sys.executable})"
    if lacking or wished:
        print(f"{here} lacks {', '.join([*lacking, *wished])}; where there is a network:", file=sys.stderr)
        tag = f"{sys.version_info.major}.{sys.version_info.minor}"
        names = " ".join([*lacking, *wished])
        print(f"  pip download -d wheels --only-binary :all: --python-version {tag} {names}", file=sys.stderr)
        print("then WHEELS=/path/to/wheels", file=sys.stderr)
    return 2 if lacking else 0


if __name__ == "__main__":
    sys.exit(main())
