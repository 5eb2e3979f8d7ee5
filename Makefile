# The only entry point. Every target makes .venv by itself from a bare Python 3.11 or newer.

VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LEAN := $(VENV)/.installed-lean
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PIP_ROOT_USER_ACTION = ignore

# The first of these that is new enough; `make PYTHON=/path/to/python` overrides the search.
PYTHONS := python3 python3.13 python3.12 python3.11 python3.14 python
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))

# The folder that .venv belongs to: a .venv that was copied or moved is made anew.
HOME_MARK := $(CURDIR)

MACHINES := supabase_rt/errors.py,supabase_rt/enums.py,supabase_rt/_name_hints.py,supabase_rt/_wire/*,supabase_rt/_payloads/*,supabase_rt/_protocol/*,supabase_rt/_backfill/planner.py,supabase_rt/_backfill/progress.py,supabase_rt/_backfill/pages.py,supabase_rt/_connection/frame_decoders.py
NOT_SHELL := $(MACHINES),supabase_rt/server/*,supabase_rt/examples/*

.DEFAULT_GOAL := help
.PHONY: help lean demo test check lint format types cov bench bench-server soak fuzz audit faults hostile conformance docs clean venv

help: ## show this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{ printf "%-20s %s\n", $$1, $$2 }'

# A .venv is kept only if it works and belongs to this folder; otherwise it is made anew. It is
# filled in two steps, because a demo needs a tenth of the packages of the tests. Each step writes a
# stamp last, so that a step that was interrupted does not count. A stamp that is older than
# pyproject.toml does not count either. The second step also does the work of the first. So it
# removes both stamps while it works.
lean:
	@if [ "$$(cat $(LEAN) $(STAMP) 2>/dev/null | head -n 1)" = "$(HOME_MARK)" ] && $(BIN)/python -c '$(NEW_ENOUGH)' 2>/dev/null; then \
	    [ pyproject.toml -nt $(LEAN) ] || exit 0; \
	    echo "renewing $(VENV): pyproject.toml has changed" >&2; \
	else \
	    rm -f $(STAMP) $(LEAN); \
	    python="$(PYTHON)"; \
	    if [ -z "$$python" ]; then for found in $(PYTHONS); do \
	        if "$$found" -c '$(NEW_ENOUGH)' >/dev/null 2>&1; then python=$$found; break; fi; \
	    done; fi; \
	    if [ -z "$$python" ] || ! "$$python" -c '$(NEW_ENOUGH)' >/dev/null 2>&1; then \
	        echo "supabase_rt needs Python 3.11 or newer and found none;" \
	            "install it, or call: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; \
	    fi; \
	    echo "making $(VENV) (once; needs the network) ..." >&2; \
	    if ! said=$$("$$python" -m venv --clear $(VENV) 2>&1); then \
	        rm -rf $(VENV); echo "$$said" >&2; \
	        echo "could not make $(VENV) with $$python; on Debian and Ubuntu: apt-get install python3-venv" >&2; \
	        exit 1; \
	    fi; \
	fi; \
	echo "installing supabase_rt with its local server ..." >&2; \
	$(BIN)/python -m pip install -qq --editable '.[server]' && echo "$(HOME_MARK)" >$(LEAN)

venv: lean
	@if [ "$$(cat $(STAMP) 2>/dev/null)" = "$(HOME_MARK)" ] && [ ! pyproject.toml -nt $(STAMP) ]; then exit 0; fi; \
	echo "installing what the tests need (once; some minutes) ..." >&2; rm -f $(STAMP) $(LEAN); \
	$(BIN)/python -m pip install -qq --editable '.[dev]' && echo "$(HOME_MARK)" | tee $(LEAN) >$(STAMP)

demo: lean ## start a local server and watch a bot receive live events
	@$(BIN)/python -m supabase_rt.examples.demo

# All tests of a file run in one worker, so that their fixtures (a database, npm packages) are made once.
PARALLEL := -n auto --maxprocesses 4 --dist loadfile

test: venv ## run the test suite
	@$(BIN)/python -X dev -m pytest $(PARALLEL)

check: lint types test ## all that CI runs

lint: venv ## style and common mistakes (ruff)
	@$(BIN)/python -m ruff check --quiet .
	@$(BIN)/python -m ruff format --check --quiet .

format: venv ## rewrite the code in the project's style
	@$(BIN)/python -m ruff check --fix .
	@$(BIN)/python -m ruff format .

types: venv ## mypy --strict over everything; pyright knows the type of every public name
	@$(BIN)/python -m mypy
	@$(BIN)/python -m tests.project.typing.check

cov: venv ## coverage: 100 % of the machines' branches, 95 % of the shell's
	@$(BIN)/python -m pytest -q $(PARALLEL) --cov --cov-report=
	@$(BIN)/python -m coverage report --include='$(MACHINES)' --fail-under=100
	@$(BIN)/python -m coverage report --omit='$(NOT_SHELL)' --fail-under=95
	@$(BIN)/python -m coverage report --include='supabase_rt/server/*' --format=total \
	    | sed 's/$$/ % of the local server/'

bench: venv ## speed beside the peers and a bare loop (BENCH='--quick' for a look)
	@$(BIN)/python -m benchmarks.run $(BENCH)

conformance: venv ## write docs/conformance.md anew from the markers of the tests
	@$(BIN)/python -m tests.contract.conformance.table

bench-server: venv ## what the local server bears (BENCH='--seconds 10 --dry' for a look, BENCH=--attacks)
	@$(BIN)/python -m benchmarks.server $(BENCH)

soak: venv ## 1,000 random fault schedules, a virtual day, 10 minutes of load (SOAK='--minutes 1')
	@$(BIN)/python -m tests.robustness.faults.soak $(SOAK)

fuzz: venv ## hostile input, guided by coverage (FUZZ='--executions 10000 text session')
	@$(BIN)/python -m pip install -qq --editable '.[fuzz]'
	@$(BIN)/python -m tests.robustness.fuzz.run $(FUZZ)

audit: venv ## known vulnerabilities of what is installed; says so where it cannot look them up
	@$(BIN)/python -m pip install -qq --editable '.[audit]'
	@$(BIN)/python -m tests.project.audit

faults: venv ## the same faults for this client, supabase-js and PyPI realtime, through one proxy
	@$(BIN)/python -m benchmarks.faults

hostile: venv ## every hostile peer, over TCP and TLS, with the real bounds (4 minutes)
	@HOSTILE=all $(BIN)/python -m pytest -q tests/robustness/test_hostile_peers.py

docs: venv ## build the documentation into site/; a warning is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -W ignore -m mkdocs build --strict --quiet
	@echo "site/index.html"

clean: ## remove all that was made
	@rm -rf $(VENV) .coverage .fuzz .hypothesis .mypy_cache .pytest_cache .ruff_cache dist build site *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
