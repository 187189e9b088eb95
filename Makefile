# Every target sets up what it needs and nothing else. Settings come from the environment or the command line:
#   make run SESSION=2026-03-20
SHELL := bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
export PYTHON

# The images' own environments, those of their tests, and the programs that the targets call.
IMAGES := airflow collector trainer
TEST_ENVIRONMENTS := $(IMAGES:%=%-test)

.DEFAULT_GOAL := help
.PHONY: help run test lint format lock clean setup setup-tests

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' Makefile
	@echo
	@echo '  SESSION=YYYY-MM-DD, ARTIFACTS, SYMBOL, PRICES_URL, FEEDS, HISTORY_YEARS and AIRFLOW_CONN_SLACK_CONN change what'
	@echo '  make run does; TORCH_INDEX says where the CPU build of torch comes from.'

run: ## Run the whole pipeline for one session, on the real KOSPI, in real Airflow, without a cluster
	@scripts/run

test: setup-tests ## Run all tests that need no cluster
	@scripts/test

lint: setup-tests ## Check style and types
	@scripts/lint

format: setup-tests ## Format the code
	@.venvs/tools/bin/ruff format . && .venvs/tools/bin/ruff check --fix .

lock: ## Renew the locks within the requirements; OPTIONS=--upgrade for the newest versions
	@"$(PYTHON)" scripts/lock.py $(OPTIONS)

clean: ## Remove environments, logs and caches; artifacts stay
	rm -rf .venvs .run .pytest_cache .mypy_cache .ruff_cache .hypothesis

setup-tests:
	@"$(PYTHON)" scripts/environments.py $(IMAGES) $(TEST_ENVIRONMENTS) tools
