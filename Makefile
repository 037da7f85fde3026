# Needs git, make and Python 3.11 or newer with venv; everything else goes into .venv.
SHELL := /bin/bash
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: help run install test check compiled bench chaos lock clean
.DEFAULT_GOAL := help

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' Makefile | expand -t 16

run: $(VENV)/.run  ## start a gateway and four demo engines; options in ARGS
	@exec $(BIN)/penstock up $(ARGS)

install: $(VENV)/.all  ## make .venv with everything

test: $(VENV)/.all  ## the checks and all tests
	@scripts/check
	@$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.all  ## style, types, import law
	@scripts/check

compiled: $(VENV)/.all  ## build the compiled wheel into dist/, test it in .venv-compiled, compare its decisions; needs gcc and Python's headers
	@scripts/compiled $(ARGS)

bench: $(VENV)/.all  ## startup, decisions, simulator, goodput, memory, cost beside nginx and sglang-router, live overload
	@$(BIN)/python -m benchmarks $(ARGS)

chaos: $(VENV)/.all  ## kill the gateway 50 times with tickets in flight: each must end exactly once
	@PYTHONPATH=src:. $(BIN)/python -m tests.chaos $(ARGS)

lock: $(VENV)/.all  ## write requirements.lock from what .venv holds
	@scripts/lock

clean:  ## remove .venv and caches
	rm -rf $(VENV) .venv-compiled .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build

# Stamps: installing again only when what is installed has changed.
$(VENV)/.venv:
	@test -n "$(PYTHON)" || { echo "penstock: no Python 3.11 or newer found; install one, or name it: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "penstock: $(PYTHON) lacks venv; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	@rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.run: $(VENV)/.venv pyproject.toml requirements.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check -c requirements.lock -e .
	@touch $@

$(VENV)/.all: $(VENV)/.run
	$(BIN)/python -m pip install -q --disable-pip-version-check -c requirements.lock -e '.[test]'
	@touch $@
