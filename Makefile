# The commands of the project. `make` lists them.
#
# Needs Python 3.11 or newer with its venv module, and make. Everything else is installed into .venv by the
# first target that needs it. Variables to give on the command line:
#   PYTHON=python3.13         the interpreter that makes .venv
#   PYTEST_ARGS="-k recovery" further arguments of pytest, for test, fault, cluster and check
#   EVENTLOG_DATA_DIR=/data   folder of real events, for demo, test and bench; without it the demo simulates some

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

VENV := .venv
BIN := $(VENV)/bin
# ClickHouse, to compare with: not in .venv, so that nothing but the benchmark ever meets it.
BENCH_PACKAGES := build/bench-packages
PROTO_BASELINE := tests/golden/protos/eventlog_v1.binpb
EVENTLOG_DATA_DIR ?= ../shared/data
export EVENTLOG_DATA_DIR

# Folders too, so that a proto which was removed is noticed.
PROTOS := $(shell find protos -mindepth 1)

# protoc finds its plugins there.
OUTER_PATH := $(PATH)
export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: setup
setup: $(VENV)/.installed ## Make .venv, install everything, generate the gRPC stubs; does nothing where nothing changed

.PHONY: demo
demo: setup ## Start the services; log, query, stream, replay and analyse real or simulated events; stop: about a minute
	@$(BIN)/python -m deploy.demo --data "$(EVENTLOG_DATA_DIR)"

.PHONY: up
up: setup ## Start the cluster in the background, with deploy/eventlog.yaml; logs in build/cluster
	@$(BIN)/python -m deploy.local_cluster up

.PHONY: down
down: setup ## Stop the cluster
	@$(BIN)/python -m deploy.local_cluster down

.PHONY: status
status: setup ## Say which services of the cluster are running, and where
	@$(BIN)/python -m deploy.local_cluster status

.PHONY: test
test: setup ## Run all tests, in random order
	$(BIN)/python -m pytest $(PYTEST_ARGS)

.PHONY: fault
fault: setup ## Run the tests of failing disks and crashes only
	$(BIN)/python -m pytest tests/faults $(PYTEST_ARGS)

.PHONY: cluster
cluster: setup ## Run the tests against real processes only
	$(BIN)/python -m pytest tests/cluster $(PYTEST_ARGS)

.PHONY: check
check: lint types ## Check style, types, dependencies and protos, then the rules in tests/contract
	$(BIN)/python -m pytest tests/contract $(PYTEST_ARGS)

.PHONY: lint
lint: setup ## Check style, dependencies between modules, and that the protos are sound and compatible
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/buf lint protos
	$(BIN)/buf breaking protos --against $(PROTO_BASELINE)

.PHONY: types
types: setup ## Check types
	$(BIN)/mypy

.PHONY: fmt
fmt: setup ## Format the code and mend what can be mended
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

.PHONY: bench
bench: setup $(BENCH_PACKAGES)/.installed ## Measure; print each figure beside its target and write build/bench.json
	@$(BIN)/python -m tests.benchmarks

.PHONY: protos
protos: setup ## Generate the gRPC stubs anew
	$(BIN)/python hatch_build.py

.PHONY: proto-baseline
proto-baseline: setup ## After a release: make the protos as they are what later ones must be compatible with
	mkdir -p $(dir $(PROTO_BASELINE))
	$(BIN)/buf build protos --exclude-source-info -o $(PROTO_BASELINE)

# --- How .venv comes about -----------------------------------------------------------------------------------

NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
define NO_PYTHON
eventlog needs Python 3.11 or newer, and none of these is: $(CANDIDATES).
Install one (on Debian and Ubuntu: apt-get install python3 python3-venv), or name it: make PYTHON=/path/to/python3
endef
define NO_VENV
has no venv module. Install it: on Debian and Ubuntu apt-get install python3-venv,
or python3.N-venv where it is a python3.N other than the system's own.
endef
export NO_PYTHON NO_VENV

# Each candidate is run, because a name on the PATH may be a shim behind which there is nothing.
CANDIDATES := $(or $(PYTHON),python3 python3.13 python3.12 python3.11)
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-virtualenv

$(BIN)/python:
	@PATH="$(OUTER_PATH)"; \
	for python in $(CANDIDATES) ""; do "$$python" -c '$(NEW_ENOUGH)' 2>/dev/null && break; done; \
	[ -n "$$python" ] || { echo "$$NO_PYTHON" >&2; exit 1; }; \
	"$$python" -c 'import ensurepip, venv' 2>/dev/null || { echo "$$python $$NO_VENV" >&2; exit 1; }; \
	echo "making $(VENV) with $$("$$python" --version)"; \
	"$$python" -m venv --clear $(VENV)

$(VENV)/.requirements: $(BIN)/python requirements.lock
	$(PIP_INSTALL) -r requirements.lock
	@touch $@

$(VENV)/.installed: $(VENV)/.requirements pyproject.toml hatch_build.py $(PROTOS)
	$(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

# Where it cannot be had, the rows that need it say so.
$(BENCH_PACKAGES)/.installed: requirements-bench.lock | $(VENV)/.installed
	rm -rf $(BENCH_PACKAGES)
	mkdir -p $(BENCH_PACKAGES)
	-$(PIP_INSTALL) --no-deps --target $(BENCH_PACKAGES) -r requirements-bench.lock && touch $@
