# Every target sets up what it needs and nothing else. Settings come from the environment or the command line:
#   make run SESSION=2026-03-20
SHELL := bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help run test lint format hooks lock clean setup-tests images push slack slack-test kind-up kind-down kind-status \
	render diff deploy rollback ui test-e2e bench bench-steps docs docs-serve

# The official chart, in the one place that pins its version. AIRFLOW_CHART takes it from elsewhere, a file for instance.
export CHART_VERSION := 1.22.0

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile
	@echo
	@echo '  SESSION=YYYY-MM-DD, ARTIFACTS, SYMBOL, PRICES_URL, FEEDS, HISTORY_YEARS, PLOT_LANGUAGE and SLACK_TOKEN change'
	@echo '  what make run does; TORCH_INDEX says where the CPU build of torch comes from.'

run: ## Run the whole pipeline for one session, on the real KOSPI, in real Airflow, without a cluster
	@scripts/run

test: setup-tests ## Run the tests that need no cluster; FAST=1: without the slow ones; PART=collector,dags,…; OPTIONS=-k …
	@"$(PYTHON)" scripts/run_tests.py $(OPTIONS)

lint: setup-tests ## Check style, types, charts and workflows
	@scripts/lint

format: setup-tests ## Format the code
	@.venvs/tools/bin/ruff format . && .venvs/tools/bin/ruff check --fix .

hooks: ## Install the git hooks: style at each commit, make lint before each push
	@"$(PYTHON)" scripts/environments.py tools
	@.venvs/tools/bin/pre-commit install

lock: ## Renew the locks within the requirements; OPTIONS=--upgrade for the newest versions
	@"$(PYTHON)" scripts/lock.py $(OPTIONS)

images: ## Build the images; TAG, IMAGE_PREFIX and COLLECTOR_IMAGE, TRAINER_IMAGE, AIRFLOW_IMAGE change their names
	@"$(PYTHON)" scripts/images.py

push: ## Build and push the images to IMAGE_PREFIX; print their names by digest
	@"$(PYTHON)" scripts/images.py push

slack: ## Run the stand-in for Slack on this machine and show its page's address
	@PYTHONPATH=images/slack "$(PYTHON)" -m slack_stand_in --data .run/slack $(OPTIONS)

kind-up: ## Make a cluster on this machine, deploy everything, run the DAG once; again: upgrade what changed
	@"$(PYTHON)" scripts/kind.py up

kind-status: ## Tell what runs on that cluster, and what is wrong
	@"$(PYTHON)" scripts/kind.py status

kind-down: ## Delete that cluster and all that is in it
	@"$(PYTHON)" scripts/kind.py down

# Environments are the files helm/values-ENV.yaml.
ENV ?= kind

render: ## Print what an environment consists of: make render ENV=staging
	@"$(PYTHON)" scripts/deploy.py render $(ENV)

diff: ## Show what a deployment would change
	@"$(PYTHON)" scripts/deploy.py diff $(ENV)

deploy: ## Deploy: show the difference, ask (YES=1 does not), upgrade, try it out; rolls back on failure
	@"$(PYTHON)" scripts/deploy.py deploy $(ENV)

rollback: ## Go back to the revision before, or to REVISION
	@"$(PYTHON)" scripts/deploy.py rollback $(ENV)

slack-test: ## Send a test message: with SLACK_TOKEN from here, otherwise from the watcher of ENV
	@"$(PYTHON)" scripts/slack_test.py $(ENV)

ui: ## Open a port to the UI and print the login
	@"$(PYTHON)" scripts/deploy.py ui $(ENV)

test-e2e: setup-tests ## Run the cluster tests on a kind cluster of their own; PART=core,slack,faults,environments; KEEP=1 leaves it
	@"$(PYTHON)" scripts/e2e.py $(OPTIONS)

bench: ## Measure collector and trainer: beside plain pandas and plain PyTorch, to a decision, to a first step
	@"$(PYTHON)" scripts/environments.py collector collector-bench trainer
	@.venvs/collector-bench/bin/python scripts/bench_collector.py
	@.venvs/trainer/bin/python scripts/bench_trainer.py

bench-steps: ## Measure what a step costs, on a kind cluster of its own: bare pods, this operator, the stock one; KEEP=1 leaves it
	@"$(PYTHON)" scripts/bench_steps.py

docs: setup-docs ## Build the documentation site into site/; fail on a broken link
	@NO_MKDOCS_2_WARNING=1 .venvs/docs/bin/mkdocs build --strict # --quiet would hide warnings from --strict
	@echo 'documentation: site/index.html'

docs-serve: setup-docs ## Serve the documentation site, rebuilt at each change; OPTIONS=--dev-addr=localhost:8001
	@NO_MKDOCS_2_WARNING=1 .venvs/docs/bin/mkdocs serve $(OPTIONS)

clean: ## Remove environments, logs and caches; artifacts stay
	rm -rf .venvs .run site .pytest_cache .mypy_cache .ruff_cache .hypothesis

setup-docs:
	@"$(PYTHON)" scripts/environments.py docs collector trainer

setup-tests:
	@"$(PYTHON)" scripts/environments.py images tests tools
