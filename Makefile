# Everything a developer or a newcomer runs. `make check` never writes to the sources.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := client estimators adapters daemon bench tests

.PHONY: setup test check fix lock demo engine-vllm test-engines clean

setup: $(VENV)/.done

$(VENV)/.done: requirements/dev.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

test: setup            ## all fast tests: real ZeroMQ, real Valkey, the emulated engine
	$(BIN)/pytest

check: setup           ## format, lint, types, import direction
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check --no-cache $(SOURCES)
	$(BIN)/mypy --cache-dir=/dev/null
	$(BIN)/lint-imports --no-cache

fix: setup             ## format and mend what can be mended by itself
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

lock:                  ## pin the environments of developers and of the daemon's image anew
	$(BIN)/pip install --quiet uv==0.13.8
	for extra in dev daemon; do \
	  $(BIN)/uv pip compile --quiet --generate-hashes --python-version 3.11 --extra $$extra \
	    --no-emit-package scalesim-sidecar --no-header --no-annotate pyproject.toml -o requirements/$$extra.lock; \
	done
