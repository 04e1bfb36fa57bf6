# Penstock: every command a person or a machine runs. `make` alone lists them.
# Needs make, Python 3.11 or newer with venv, and PyPI; what is missing is said in one sentence.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh

# The interpreter that builds .venv; give PYTHON=/path/to/python to choose one.
PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --no-input

.PHONY: help
help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

.PHONY: install
install: $(VENV)/.installed ## make .venv with the locked packages and the command .venv/bin/penstock

# Wheels only: the machine may have no compiler. The stamps make a second call instant.
$(VENV)/.made: tools/make-venv
	@tools/make-venv $(VENV) $(PYTHON)
	@touch $@

$(VENV)/.installed: $(VENV)/.made requirements.lock pyproject.toml
	@echo "Installing the locked packages from PyPI into $(VENV) ..."
	@$(PIP) install --require-hashes --only-binary :all: -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --no-index -e .
	@touch $@

UV ?= $(BIN)/uv
LOCK := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

.PHONY: lock
lock: ## write both lock files anew from pyproject.toml (UPGRADE=--upgrade for newer versions)
	$(LOCK) $(UPGRADE) pyproject.toml --group build -o requirements.lock
	$(LOCK) $(UPGRADE) pyproject.toml --group test --group build -c requirements.lock -o requirements-test.lock

.PHONY: clean
clean: ## remove everything that make made
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache tests/nodes/node_modules
