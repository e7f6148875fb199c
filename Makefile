# Everything is installed into .venv, from the lock files, and only when they or pyproject.toml change.
# ARGS passes options on: make run ARGS="--port 9000", make test ARGS="-k revoke", make lock ARGS=--upgrade

PYTHON ?= python3
ARGS ?=

BIN := .venv/bin
CREATED := .venv/.created
RUNTIME := .venv/.runtime-installed
DEV := .venv/.dev-installed

# -qq leaves errors and nothing else.
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check
COMPILE := $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 \
	--generate-hashes --no-header --annotation-style line

.DEFAULT_GOAL := help
.PHONY: help run check test lint format docs bench lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

run: $(RUNTIME) ## start the server (ARGS are the options of `keyledger serve`)
	@exec $(BIN)/keyledger serve $(ARGS)

test: lint ## check the code, then run the tests (ARGS are pytest's)
	@$(BIN)/pytest --numprocesses auto --dist worksteal $(ARGS)

check: lint ## check the code, then run the tests that need no server, browser or PostgreSQL
	@$(BIN)/pytest --numprocesses auto --dist worksteal \
		-m 'not process and not browser and not postgresql' $(ARGS)

lint: $(DEV) ## check style, types and the direction of imports
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

format: $(DEV) ## format the code and fix what can be fixed safely
	@$(BIN)/ruff check --fix --exit-zero
	@$(BIN)/ruff format

docs: $(DEV) ## write the parts of docs/ that the code generates
	@$(BIN)/python -m api.settings_page > .venv/configuration.md && mv .venv/configuration.md docs/configuration.md
	@$(BIN)/python -m api.openapi_document > .venv/openapi.json && mv .venv/openapi.json docs/openapi.json
	@$(BIN)/python -m projections.views.roles_script > .venv/roles.sql && mv .venv/roles.sql docs/postgresql-roles.sql

bench: $(DEV) ## measure what the project claims about its speed
	@$(BIN)/python -m benchmarks $(ARGS)

lock: $(DEV) ## write the lock files anew (ARGS=--upgrade takes the newest versions)
	@$(COMPILE) --group build $(ARGS) --output-file requirements.lock
	@$(COMPILE) --extra dev $(ARGS) --constraint requirements.lock --output-file requirements-dev.lock

clean: ## remove .venv and what the tools left; never a ledger's data
	@rm -rf .venv .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(CREATED):
	@command -v $(PYTHON) >/dev/null || { \
		echo 'Keyledger needs Python 3.11 or newer, and there is no $(PYTHON) here.' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Keyledger needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
			'Name a newer one: make PYTHON=python3.12 ...' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo 'Keyledger is installed into .venv, and $(PYTHON) cannot make one: its venv module is missing' \
			'(on Debian and Ubuntu: apt-get install python3-venv).' >&2; exit 1; }
	@$(PYTHON) -m venv --clear .venv
	@touch $@

$(RUNTIME): $(CREATED) requirements.lock pyproject.toml
	@echo 'Installing requirements.lock into .venv ...'
	@$(INSTALL) --require-hashes -r requirements.lock
	@$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV): $(RUNTIME) requirements-dev.lock
	@echo 'Installing requirements-dev.lock into .venv ...'
	@$(INSTALL) --require-hashes -r requirements-dev.lock
	@touch $@
