# Penstock: every command a person or a machine runs. `make` alone lists them.
# Needs make, Python 3.11 or newer with venv, and PyPI; what is missing is said in one sentence.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh

# The interpreter that builds .venv; give PYTHON=/path/to/python to choose one.
PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input -qq

.PHONY: help
help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

.PHONY: install
install: $(VENV)/.installed ## make .venv with the locked packages and the command .venv/bin/penstock

# Wheels only: the machine may have no compiler. embit alone is published as source (pure Python) and built with the locked setuptools.
# The stamps make a second call instant.
$(VENV)/.made: tools/make-venv
	@tools/make-venv $(VENV) $(PYTHON)
	@touch $@

$(VENV)/.installed: $(VENV)/.made requirements-build.lock requirements.lock pyproject.toml
	@echo "Installing the locked packages from PyPI into $(VENV) ..."
	@$(PIP) install --require-hashes --only-binary :all: -r requirements-build.lock
	@$(PIP) install --require-hashes --only-binary :all: --no-binary embit --use-pep517 --no-build-isolation -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --no-index -e .
	@touch $@
	@echo "Ready: $(BIN)/penstock"

.PHONY: demo
demo: $(VENV)/.installed ## devnet, gateway, payouts, webhooks and audit on this machine, in a few seconds
	@$(BIN)/penstock demo

.PHONY: serve
serve: $(VENV)/.installed ## the same, left running
	@$(BIN)/penstock demo --keep

# The test packages go into the same environment; tests/unit/test_repository.py sees that the product needs none of them.
# ccpayment is published as source alone (pure Python): it is built with the locked setuptools.
$(VENV)/.tests: $(VENV)/.installed requirements-test.lock
	@echo "Installing the locked test packages from PyPI into $(VENV) ..."
	@$(PIP) install --require-hashes --only-binary :all: --no-binary ccpayment,embit --use-pep517 --no-build-isolation -r requirements-test.lock
	@touch $@

NODES := tests/nodes/node_modules/.installed
$(NODES): tests/nodes/package.json tests/nodes/package-lock.json tools/install-nodes
	@tools/install-nodes $@

# One call for everything: both databases, black box, nodes, in JOBS processes side by side. PYTEST="-k sqlite" chooses.
JOBS ?= 2
.PHONY: test
test: $(VENV)/.tests $(NODES) ## set up all that tests need, run check and every test; say what could not run
	@$(MAKE) --no-print-directory check
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(PYTEST)

REAL := tests/real_nodes/.venv/.installed
$(REAL): tools/install-real-nodes tools/make-venv requirements-nodes.lock tests/real_nodes/package-lock.json
	@tools/install-real-nodes $@ $(PYTHON)

.PHONY: test-nodes
test-nodes: $(VENV)/.tests $(REAL) ## our Bitcoin and Lightning rails on real nodes: bcoin, Electrum, Litecoin Core
	@$(BIN)/python -m pytest tests/real_nodes $(PYTEST)

.PHONY: check
check: $(VENV)/.tests ## lint, format, types, layers, generated documents
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy --no-error-summary
	@mkdir -p build && $(BIN)/lint-imports >build/layers.txt || { cat build/layers.txt; exit 1; }
	@$(BIN)/python tools/audit-dependencies >build/dependencies.txt || { cat build/dependencies.txt; exit 1; }
	@if [ -f tests/generated_docs.py ]; then $(BIN)/python -m tests.generated_docs --check; fi
	@echo "check: ruff, mypy --strict and the layers are clean"

.PHONY: fix
fix: $(VENV)/.tests ## let ruff mend and format what it can
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

SEEDS ?= 100
.PHONY: sim
sim: $(VENV)/.tests ## simulate many seeds: SEEDS=1000; one again: PYTEST="--seed 17"
	@$(BIN)/python -m pytest tests/simulation --seeds $(SEEDS) $(PYTEST)

MINUTES ?= 10
REPORT ?= build/prove.html
.PHONY: prove
prove: $(VENV)/.tests ## try to break it on this machine: MINUTES=60, ONLY=crash, FULL=1 for release sizes; a page in build/prove.html
	@mkdir -p build
	@$(BIN)/python tools/prove --minutes $(MINUTES) --report $(REPORT) $(if $(FULL),--full) $(addprefix --only ,$(ONLY)) $(PROVE)

# What one process can see: tests that start programs of their own show nothing here.
COVERED := tests/unit tests/simulation/test_rollback.py tests/simulation/test_whole_road.py \
	$(addprefix tests/integration/test_,$(addsuffix .py,audit auditor chain clock decide directory drift families ids intake ledger_model \
	offline_signing recovery road settle))
.PHONY: coverage
coverage: $(VENV)/.tests ## which branches of the code that decides about money no test takes
	@mkdir -p build
	@$(BIN)/python -m coverage run -m pytest $(COVERED) -q $(PYTEST)
	@$(BIN)/python -m coverage report

.PHONY: mutants
mutants: $(VENV)/.tests ## small mistakes in the same code, and which no test sees: ONLY=core/money
	@$(BIN)/python tools/mutate $(ONLY)

.PHONY: soak
soak: $(VENV)/.tests ## a few orders a second for MINUTES=60 with lying nodes, and whether memory or open files grow
	@mkdir -p build
	@$(BIN)/python tools/prove --minutes $(MINUTES) --report build/soak.html --only soak $(PROVE)

.PHONY: bench
bench: $(VENV)/.tests ## how fast it is here, beside pgbench: QUICK=1 for a minute, BENCH="--only accept"; a page in build/bench.html
	@mkdir -p build
	@$(BIN)/python tools/bench --report build/bench.html $(if $(QUICK),--quick) $(BENCH)

UV ?= $(BIN)/uv
LOCK := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

.PHONY: lock
lock: ## write the lock files anew from pyproject.toml (UPGRADE=--upgrade for newer versions)
	$(LOCK) $(UPGRADE) --group build -o requirements-build.lock
	$(LOCK) $(UPGRADE) pyproject.toml --group build -c requirements-build.lock -o requirements.lock
	$(LOCK) $(UPGRADE) pyproject.toml --group test --group build -c requirements.lock -o requirements-test.lock
	$(LOCK) $(UPGRADE) --group nodes -o requirements-nodes.lock
	@echo "Now: make install, then $(BIN)/python tools/audit-dependencies --write"

.PHONY: clean
clean: ## remove everything that make made
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache tests/nodes/node_modules tests/real_nodes/.venv tests/real_nodes/node_modules
