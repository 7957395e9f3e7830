# libraft: a Raft engine that programs in C, C++, Python and Rust embed.
#
# From a fresh clone, `make test` and `make demo` need Rust, a C compiler, Python 3 and make; what else they use (redis-py,
# redis-cli, strace) they get for themselves, into .venv and .tools, without root.

SHELL := /bin/bash
ROOT := $(CURDIR)
TARGET := $(or $(CARGO_TARGET_DIR),$(ROOT)/target)
CARGO ?= cargo
PYTHON ?= python3
VENV := $(ROOT)/.venv
VENV_PYTHON := $(VENV)/bin/python
export PATH := $(ROOT)/.tools/bin:$(PATH)

# Tests and the simulator are optimised and keep every debug assertion; hosts get the release profile.
CHECKED := --profile checked
SEEDS ?= 10000
KILLS ?= 200

.DEFAULT_GOAL := help
.PHONY: help test demo sim exhaustive bench kills mutants fmt lint header library examples python pytests tools clean

help: ## Says what there is
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  make %-10s %s\n", $$1, $$2 }'

test: ## Everything that CI checks (some twenty minutes on two cores)
	@$(PYTHON) tests/run.py $(STEPS)

demo: examples python ## Three servers in two languages; the leader is killed; nothing is lost
	@$(VENV_PYTHON) examples/demo.py

sim: ## Runs SEEDS=10000 seeds of the simulator; FLAGS go to raft-sim
	$(CARGO) run --quiet $(CHECKED) -p raft-engine --bin raft-sim -- --seeds $(SEEDS) \
	    --threads $(shell nproc) $(FLAGS)

exhaustive: ## Every state of some small worlds, or STATES=n of each (docs/exhaustive.md)
	RAFT_EXHAUSTIVE=$(or $(STATES),all) $(CARGO) test --quiet $(CHECKED) -p raft-engine --lib exhaustive -- \
	    --test-threads=$(shell nproc) --nocapture

bench: ## Measures against the floor; ARGS go to bench/run.py
	@$(MAKE) --no-print-directory -C bench run ARGS="$(ARGS)"

kills: examples python ## KILLS=200 SIGKILLs of random servers under load, with each disk back end
	RAFT_TEST_KILLS=$(KILLS) RAFT_TEST_PAUSES=50 RAFT_TEST_LEADER_KILLS=100 $(CARGO) test $(CHECKED) -p raft-tests --features processes --test kills -- \
	    --test-threads=1 --nocapture

mutants: ## Breaks one rule at a time and sees that it is caught; goes on where it stopped; SHARD=i/n takes a part
	@$(PYTHON) tests/mutants/run.py $(if $(SHARD),--shard $(SHARD)) $(ARGS)

fmt: ## Formats the Rust sources
	$(CARGO) fmt --all

lint: ## Format and lints, with warnings as errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --all-features -- -D warnings

header: ## Writes include/raft/raft.h from the sources of the C ABI
	$(CARGO) run --quiet $(CHECKED) -p raft-header

library: ## Builds libraft.so and libraft.a
	@echo "--- libraft.so and libraft.a, in $(TARGET)/release"
	@cd $(ROOT) && $(CARGO) build --quiet --release -p raft-ffi

examples: library ## Builds the key-value server in C
	@echo "--- the key-value server in C, in build/"
	@$(MAKE) --no-print-directory -C examples/kv-c

python: $(VENV)/ready ## Builds the Python package into .venv
	@echo "--- the Python package, into .venv"
	@cd python && VIRTUAL_ENV=$(VENV) $(VENV)/bin/maturin develop --quiet --release

pytests: python ## Tests the Python package, and what of its example needs no cluster
	@cd python && $(VENV_PYTHON) -W error -m unittest discover -s tests
	@cd examples/kv-python && $(VENV_PYTHON) -W error -m unittest discover -s tests

$(VENV)/ready: tests/requirements.txt
	@echo "--- a virtual environment with redis-py and maturin, in .venv"
	@$(PYTHON) -m venv $(VENV)
	@$(VENV_PYTHON) -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	@touch $@

tools: ## Gets redis-cli, redis-benchmark, strace and a C++ compiler where they are missing
	@tests/tools.sh redis-cli redis-benchmark strace c++

clean: ## Removes everything that was built; .venv and .tools too
	rm -rf build $(VENV) .tools
	$(CARGO) clean --quiet
