# Everything happens in .venv, which `make setup` makes and the other targets make for themselves.
# Variables: PYTHON (the interpreter to make .venv with, 3.11 or newer), VENV, ARGS (passed on),
# JOBS (test processes; 0 runs all in one, for a debugger).

VENV ?= .venv
PYTHON ?=
# Two: studies under test leave a core idle most of the time, and more of them at once would disturb each other's timing.
JOBS ?= 2
BIN := $(VENV)/bin
# -qq: errors only. What a failed installation says still comes through.
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-input -c constraints.txt
CORE := $(VENV)/.core
DEV := $(VENV)/.dev
SOURCES := autopilot tests examples benchmarks docs

.DEFAULT_GOAL := help
.PHONY: help setup run test quick lint bench bench-measurement bench-search test-gpu bench-gpu docs ui clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(CORE)  ## make .venv and install the package into it (no torch, no development tools)

run: $(CORE)  ## optimize the embedded example, examples/digits
	@$(BIN)/python examples/digits/data.py
	@$(BIN)/autopilot run examples/digits/spec.yaml $(ARGS)

test: $(DEV)  ## run all tests (but those that need a GPU)
	@$(BIN)/python -m pytest -m "not gpu" -n $(JOBS) --no-loadscope-reorder $(ARGS)

quick: $(DEV)  ## run the fast tests only
	@$(BIN)/python -m pytest -q -m "not integration and not slow and not gpu" -n $(JOBS) --no-loadscope-reorder $(ARGS)

lint: $(DEV)  ## ruff, mypy --strict, the import contracts
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(CORE)  ## time the main job on whole workloads (ARGS: folders with a spec.yaml)
	@$(BIN)/python examples/digits/data.py
	@$(BIN)/python benchmarks/main_job.py $(ARGS)

bench-measurement: $(DEV)  ## false alarms, coverage, planted slowdown, memory: about 15 minutes on a quiet machine
	@$(BIN)/python benchmarks/measurement/all.py $(ARGS)

bench-search: $(DEV)  ## replayed searches, and what a search costs besides its work (ARGS: folders with a spec.yaml)
	@$(BIN)/python benchmarks/search/compare.py
	@$(BIN)/python examples/digits/data.py
	@$(BIN)/python benchmarks/search/overhead.py $(ARGS)

# On a machine with an NVIDIA device, see docs/providers.md. GPU_PYTHON: an interpreter that has what is needed, but for
# what WHEELS, a folder, holds: that is unpacked into .gpu-packages, which Python looks into first, so that onnxruntime-gpu
# from there takes the place of an installed onnxruntime. No network is needed.
WHEELS ?=
GPU_PYTHON ?= python3
GPU := $(if $(WHEELS),.gpu-packages/.ready)
GPU_PATH := $(CURDIR)$(if $(WHEELS),:$(CURDIR)/.gpu-packages)

test-gpu: $(GPU)  ## the tests that need a GPU (GPU_PYTHON: an interpreter, WHEELS: a folder with what it lacks)
	@PYTHONPATH=$(GPU_PATH) $(GPU_PYTHON) benchmarks/gpu_needs.py
	@PYTHONPATH=$(GPU_PATH) timeout 120 $(GPU_PYTHON) -m pytest -q -rs -m gpu --timeout 60 \
		$(shell grep -rl --include='test_*.py' 'mark.gpu' tests) $(ARGS)

bench-gpu: $(GPU)  ## CUDA and TensorRT on an encoder and on the example, into docs/results (GPU_PYTHON, WHEELS)
	@PYTHONPATH=$(GPU_PATH) $(GPU_PYTHON) benchmarks/gpu_needs.py
	@PYTHONPATH=$(GPU_PATH) $(GPU_PYTHON) examples/digits/data.py
	@PYTHONPATH=$(GPU_PATH) timeout 330 $(GPU_PYTHON) benchmarks/gpu.py $(ARGS)

# Always anew: other wheels, or another Python, may have older files.
.PHONY: .gpu-packages/.ready
.gpu-packages/.ready:
	@rm -rf .gpu-packages
	@$(GPU_PYTHON) -m pip install -qq --no-index --no-deps --no-compile --target .gpu-packages $(WHEELS)/*.whl

docs: $(CORE)  ## check every link and anchor of the documentation
	@$(BIN)/python docs/check_links.py

ui: $(CORE)  ## the MLflow UI over this folder's runs, on 127.0.0.1
	@$(BIN)/autopilot ui $(ARGS)

clean:  ## remove .venv, caches and build products; runs/ and mlruns/ stay
	@rm -rf $(VENV) .gpu-packages build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# Which interpreter: PYTHON if given, else the first of these that is new enough and can make environments.
$(BIN)/python:
	@usable='import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))'; \
	if [ -n "$(PYTHON)" ]; then candidates="$(PYTHON)"; else candidates="python3 python3.13 python3.12 python3.11"; fi; \
	for candidate in $$candidates; do \
	  if $$candidate -c "$$usable" >/dev/null 2>&1; then chosen=$$candidate; break; fi; \
	done; \
	if [ -z "$$chosen" ]; then \
	  echo "make: none of these is Python 3.11 or newer with the venv module: $$candidates." >&2; \
	  echo "Install one (Debian, Ubuntu: python3 and python3-venv) or name it: make setup PYTHON=/path/to/python3.12" >&2; \
	  exit 2; \
	fi; \
	echo "making $(VENV) with $$($$chosen --version)" >&2; \
	$$chosen -m venv --clear $(VENV)

$(CORE): $(BIN)/python pyproject.toml constraints.txt
	@echo "installing into $(VENV) (about a minute)" >&2
	@$(INSTALL) -e .
	@touch $@

$(DEV): $(CORE)
	@echo "installing the development tools into $(VENV)" >&2
	@$(INSTALL) -e '.[dev]'
	@touch $@
