# Each target installs what it needs. Settings are environment variables or arguments of make:
#   make run SESSION=2026-03-20
SHELL := bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help run test lint format hooks lock clean setup-tests images push bucket-policy slack slack-test kind-up kind-down kind-status \
	doctor render diff deploy backfill verify repair rollback ui test-e2e bench bench-steps docs docs-serve

# The version of the official chart. AIRFLOW_CHART replaces the chart, for example by a file.
export CHART_VERSION := 1.22.0

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile
	@echo
	@echo '  Settings of make run: SESSION=YYYY-MM-DD, ARTIFACTS, SYMBOLS, PRICES_URL, FEEDS, HISTORY_YEARS, PLOT_LANGUAGE, REMAKE, SLACK_TOKEN.'
	@echo '  TORCH_INDEX: the package index with the CPU build of torch. All settings: docs/settings.md.'

run: ## Run the pipeline once for one session, on KOSPI data, in an embedded Airflow without a cluster
	@scripts/run

test: setup-tests ## Run the tests that need no cluster; FAST=1 skips slow ones; PART=collector,dags,… selects; OPTIONS=-k …
	@"$(PYTHON)" scripts/run_tests.py $(OPTIONS)

lint: setup-tests ## Check style, types, charts and workflows
	@scripts/lint

format: setup-tests ## Format the code and fix lint findings
	@.venvs/tools/bin/ruff format . && .venvs/tools/bin/ruff check --fix .

hooks: ## Install the git hooks: style checks before a commit, make lint before a push
	@"$(PYTHON)" scripts/virtualenvs.py tools
	@.venvs/tools/bin/pre-commit install

lock: ## Compile the locks from the requirements; OPTIONS=--upgrade uses the newest versions
	@"$(PYTHON)" scripts/lock.py $(OPTIONS)

images: ## Build the images; IMAGE_PREFIX, TAG, and COLLECTOR_IMAGE, TRAINER_IMAGE, AIRFLOW_IMAGE set their names
	@"$(PYTHON)" scripts/build_images.py

push: ## Build the images, push them to IMAGE_PREFIX, and print their names by digest
	@"$(PYTHON)" scripts/build_images.py push

slack: ## Run the Slack simulator on this machine and print its URL
	@PYTHONPATH=dev/slack_simulator "$(PYTHON)" -m slack_simulator --data .run/slack $(OPTIONS)

kind-up: ## Create or upgrade a kind cluster with the whole pipeline, and run the DAG once
	@"$(PYTHON)" scripts/kind.py up

kind-status: ## Show the pods of the kind cluster, and events and logs of those that are not healthy
	@"$(PYTHON)" scripts/kind.py status

kind-down: ## Delete the kind cluster and all its data
	@"$(PYTHON)" scripts/kind.py down

# The environment, as in helm/values-ENV.yaml.
ENV ?= kind

# ENV selects a cluster only if it was passed.
doctor: ## Check this machine, or with ENV a deployment: ok, warning or error, and what to do; JSON=1 for a program, STRICT=1
	@"$(PYTHON)" scripts/doctor.py $(if $(filter file,$(origin ENV)),,$(ENV))

render: ## Print the manifests of ENV, for example make render ENV=staging
	@"$(PYTHON)" scripts/deploy.py render $(ENV)

diff: ## Show what a deployment to ENV would change
	@"$(PYTHON)" scripts/deploy.py diff $(ENV)

deploy: ## Deploy to ENV: show the changes, ask (unless YES=1), upgrade, run the smoke test; roll back on failure
	@"$(PYTHON)" scripts/deploy.py deploy $(ENV)

backfill: ## Collect past sessions in ENV: FROM=YYYY-MM-DD TO=YYYY-MM-DD; STEPS=fetch_prices,forecast,… REMAKE=reason
	@"$(PYTHON)" scripts/backfill.py $(ENV)

# ENV selects a cluster only if it was passed.
verify: ## Check every artifact, of make run or with ENV of a deployment: missing, damaged, left over; FROM, TO, JSON=1
	@"$(PYTHON)" scripts/verify.py $(if $(filter file,$(origin ENV)),,$(ENV))

repair: ## Verify, then make anew what is damaged or missing; DRY_RUN=1 only says what it would run; FROM, TO, ENV
	@"$(PYTHON)" scripts/verify.py $(if $(filter file,$(origin ENV)),,$(ENV)) --repair

rollback: ## Roll ENV back to the previous revision, or to REVISION
	@"$(PYTHON)" scripts/deploy.py rollback $(ENV)

bucket-policy: ## Print a policy of ENV's bucket that restricts the steps' key; PRINCIPAL is the key's user
	@"$(PYTHON)" scripts/deploy.py bucket-policy $(ENV)

slack-test: ## Send a test message to Slack: from this machine if SLACK_TOKEN is set, otherwise from the monitor of ENV
	@"$(PYTHON)" scripts/slack_test.py $(ENV)

ui: ## Forward a port to the UI of ENV and print the login
	@"$(PYTHON)" scripts/deploy.py ui $(ENV)

test-e2e: setup-tests ## Run the cluster tests on a kind cluster of their own; PART=core,slack,faults,doctor,environments; KEEP=1 keeps the cluster
	@"$(PYTHON)" scripts/e2e.py $(OPTIONS)

bench: ## Measure collector and trainer, compared with plain pandas and plain PyTorch
	@"$(PYTHON)" scripts/virtualenvs.py collector collector-bench trainer
	@.venvs/collector-bench/bin/python scripts/bench_collector.py
	@.venvs/trainer/bin/python scripts/bench_trainer.py

bench-steps: ## Measure the cost of a step on a kind cluster of its own: bare pods, this operator, the provider's; KEEP=1 keeps the cluster
	@"$(PYTHON)" scripts/bench_steps.py

docs: setup-docs ## Build the documentation site into site/; fail on a broken link
	@NO_MKDOCS_2_WARNING=1 .venvs/docs/bin/mkdocs build --strict # --quiet would hide warnings from --strict
	@echo 'documentation: site/index.html'

docs-serve: setup-docs ## Serve the documentation site, rebuilt at each change; OPTIONS=--dev-addr=localhost:8001
	@NO_MKDOCS_2_WARNING=1 .venvs/docs/bin/mkdocs serve $(OPTIONS)

clean: ## Remove virtual environments, logs and caches; artifacts are kept
	rm -rf .venvs .run site .pytest_cache .mypy_cache .ruff_cache .hypothesis

setup-docs:
	@"$(PYTHON)" scripts/virtualenvs.py docs programs

setup-tests:
	@"$(PYTHON)" scripts/virtualenvs.py images tests tools
