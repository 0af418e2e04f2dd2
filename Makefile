# make quickstart   environment, then the whole embedded experiment with its table and its report page
# make test         environment, then every test
# make test-fast    environment, then the tests that take less than a few seconds each
# make mutants      environment, then the mutation check of docs/testing.md: make mutants FAULTS=300 SEED=8
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# tests/cluster is two workers' work and mostly waits; meanwhile the third has the processors.
WORKERS ?= 4
SIDE_BY_SIDE := --dist loadfile --no-loadscope-reorder
READY := $(VENV)/.ready

.PHONY: quickstart test test-fast lint bench mutants environment browser launcher clean

# Two environments are made side by side; apt works for one at a time, hence `launcher` after `browser`.
MAKEFLAGS += --jobs=2

# torch first and pinned: an unpinned torch resolves to a build with several gigabytes of CUDA packages.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[train,math,sandbox,openai,ray,dev]'
	touch $(READY)

environment: $(READY)

# The report page is tested in a real browser: Debian's, where it is missing and root may install it. Elsewhere the
# tests look for chromium on PATH and say that they were skipped.
browser:
	command -v chromium >/dev/null || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && \
	  { apt-get install -y -q chromium >/dev/null || { apt-get update -q >/dev/null && apt-get install -y -q chromium >/dev/null; }; }; } || true

# nsd launch is tested with the real SkyPilot, in an environment of its own, on a one-machine Slurm; as root, on Debian.
launcher: | browser
	tests/cluster/make_environment.sh || echo "the launcher's environment is not ready: tests/cluster will be skipped"

quickstart: environment
	$(BIN)/nsd run specs/quickstart.yaml
	$(BIN)/nsd report specs/quickstart.yaml --html quickstart.html

# The fast tests go to whoever is free, one by one; the others by files, whose tests share what takes long to make.
SLOW := slow or browser or cluster
FAST_TESTS = $(BIN)/python -m pytest --dist worksteal -n 3 -m "not ($(SLOW))"
SLOW_TESTS = $(BIN)/python -m pytest $(SIDE_BY_SIDE) -n $(WORKERS) -rs --durations=40 -m "$(SLOW)"

test: environment browser launcher
	$(FAST_TESTS); fast=$$?; $(SLOW_TESTS) && exit $$fast

test-fast: environment
	$(FAST_TESTS)

lint: environment
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --no-cache --check .
	$(BIN)/mypy

bench: environment
	$(BIN)/python -m benchmarks --record

FAULTS ?= 100
SEED ?= 8
mutants: environment
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[train,math,sandbox,openai,ray,dev,mutants]'
	$(BIN)/python -m tests.mutants --faults $(FAULTS) --seed $(SEED)

clean:
	rm -rf $(VENV) .venv-sky build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis .mutants
