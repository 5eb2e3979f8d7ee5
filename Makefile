# The only entry point: every target makes .venv by itself from a bare python3.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help demo test check lint format types cov bench clean

help: ## show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-8s %s\n", $$1, $$2}'

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "supabase_rt needs Python 3.11 or newer; call: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: $(VENV)/.installed ## start a local server and watch a bot receive live events
	$(BIN)/python -m supabase_rt.examples.demo

test: $(VENV)/.installed ## run the test suite
	$(BIN)/python -X dev -m pytest

lint: $(VENV)/.installed ## style and common mistakes (ruff)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed ## rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.installed ## mypy --strict over package and tests
	$(BIN)/mypy

cov: $(VENV)/.installed ## coverage, held to 100 % for the machines and 95 % for the shell
	$(BIN)/python -m pytest --cov --cov-report=
	$(BIN)/coverage report --include='supabase_rt/errors.py,supabase_rt/enums.py,supabase_rt/protocol/*' --fail-under=100
	$(BIN)/coverage report --fail-under=95

check: lint types test ## everything CI runs

bench: $(VENV)/.installed ## speed of the decode and dispatch path beside a bare loop
	$(BIN)/python benchmarks/run.py

clean: ## remove everything that was made
	rm -rf $(VENV) .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache dist build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
