# The commands of this project; `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow lint measure reproduce arm64
SHELL := /bin/bash

VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.pcc-setup
BASE_PYTHON ?= $(firstword $(foreach name,python3.11 python3,$(shell command -v $(name))))

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## the environment in .venv, with the pinned dependencies

# An environment that already has all of it, and this checkout, is taken as it is.
$(STAMP): pyproject.toml constraints.txt
	@test -x $(PYTHON) || $(BASE_PYTHON) -m venv $(VENV)
	@$(PYTHON) tools/environment.py || { echo "installing the pinned dependencies into $(VENV): 2.6 GB, some minutes"; $(PYTHON) -m pip install --quiet -c constraints.txt -e .[dev]; }
	@touch $(STAMP)

demo: setup ## real networks, dense and pruned, on real photos, beside ONNX Runtime
	@$(PYTHON) -m tools.demo

test: setup arm64 ## the test-suite, arm64 under qemu included
	@$(PYTHON) -m pytest -n 2 --dist loadscope

test-slow: setup arm64 ## the tests that take minutes each: before a release
	@$(PYTHON) -m pytest -n 2 --dist loadscope -m slow

lint: setup ## ruff and pyright
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/pyright

measure: setup arm64 ## docs/performance.md: times beside eight other engines, arm64 instructions; hours on a machine with nothing else to do
	@$(PYTHON) -m tools.bench_peers all
	@$(PYTHON) -m tools.count_arm64 all --memory
	@$(PYTHON) -m tools.never_slower
	@$(PYTHON) -m tools.never_slower --arm64

reproduce: setup ## rows of docs/results.md, hours of training; ROWS="..." for some of them (all: those that need no GPU and no --checkpoints)
	@$(PYTHON) -m tools.reproduce $(or $(ROWS),all)

arm64:
	@tools/arm64-packages
