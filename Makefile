# make quickstart   environment, then the whole embedded experiment with its table
# make test         environment, then every test
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: quickstart test test-fast lint bench environment clean

# torch first and pinned: an unpinned torch resolves to a build with several gigabytes of CUDA packages.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[train,math,dev]'
	touch $(READY)

environment: $(READY)

quickstart: environment
	$(BIN)/nsd run specs/quickstart.yaml

test: environment
	$(BIN)/python -m pytest

test-fast: environment
	$(BIN)/python -m pytest -m "not slow and not browser and not cluster"

lint: environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: environment
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
