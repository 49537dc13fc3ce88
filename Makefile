# The same targets for people and for CI. Each sets up what it needs: Python 3.11 to 3.13 and make are enough.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
# With AIRFLOW=3.0.6, a target runs in an environment of its own, with the oldest Airflow that is supported.
VENV := .venv$(addprefix -,$(AIRFLOW))
REQUIREMENTS := requirements-$(or $(AIRFLOW),dev).txt
NEWEST_PYTHON := $(if $(AIRFLOW),12,13)
BIN := $(VENV)/bin
LOCAL := $(BIN)/python -m local
CHECKOV := .venv-checkov
BENCH := .venv-bench
# Airflow renders templates; the values of a question's parameters are bound.
TEMPLATES := include/sql/ddl include/sql/grants include/sql/migrations include/sql/transform
QUESTIONS := include/sql/analytics include/sql/operations
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header

.PHONY: help demo test bench bench-peers web check fix up down clean lock infra-check package

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 13

$(VENV)/ready: $(REQUIREMENTS) tests/requirements-dbt.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, $(NEWEST_PYTHON)))' \
		|| { echo "Python 3.11 to 3.$(NEWEST_PYTHON) is needed: make PYTHON=/path/to/python3.12 …"; exit 1; }
	@echo "Setting up $(VENV): about a minute, once"
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $(REQUIREMENTS)
	@# Beside the environment, not in it: its text is all that is used.
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes --target $(VENV)/dbt \
		-r tests/requirements-dbt.txt
	@touch $@

demo: $(VENV)/ready ## the main job on sample data, or DATA=dir (with log_data/ and song_data/), from an empty warehouse
	@$(LOCAL) demo $(if $(DATA),--data "$(DATA)")

test: $(VENV)/ready ## every test; AIRFLOW=3.0.6 with the oldest Airflow that is supported
	$(BIN)/pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

soak: $(VENV)/ready ## the tests of order, of crashes and of runs at the same time, with many more cases
	HYPOTHESIS_PROFILE=soak SPARKIFY_ALL_FAULTS=1 SPARKIFY_CONCURRENT_PAIRS=50 \
		$(BIN)/pytest tests/test_order.py tests/test_bad_files.py tests/test_crash.py tests/test_concurrency.py

web: $(VENV)/ready ## Airflow's web UI on http://localhost:8080, until Ctrl-C or `make down`
	@$(LOCAL) web

check: $(VENV)/ready ## report what ruff, sqlfluff and mypy find
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/sqlfluff lint --disable-progress-bar $(TEMPLATES)
	$(BIN)/sqlfluff lint --disable-progress-bar --templater placeholder $(QUESTIONS)
	$(BIN)/mypy

fix: $(VENV)/ready ## repair what ruff and sqlfluff can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/sqlfluff fix --disable-progress-bar $(TEMPLATES)
	$(BIN)/sqlfluff fix --disable-progress-bar --templater placeholder $(QUESTIONS)

$(CHECKOV)/ready: infra/requirements.txt
	@echo "Setting up $(CHECKOV): about a minute, once"
	$(PYTHON) -m venv --clear $(CHECKOV)
	$(CHECKOV)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r infra/requirements.txt
	@touch $@

infra-check: $(VENV)/ready $(CHECKOV)/ready ## report what cfn-lint and checkov find in the stack for AWS, and secrets in any file
	$(BIN)/cfn-lint infra/sparkify.yaml
	@# checkov looks at what the parameters' defaults would create: at each kind of warehouse in turn, one with a queue.
	sed 's/Default: serverless/Default: cluster/; s/Default: "false"/Default: "true"/' infra/sparkify.yaml > $(CHECKOV)/cluster.yaml
	for template in infra/sparkify.yaml $(CHECKOV)/cluster.yaml; do \
		$(CHECKOV)/bin/checkov --framework cloudformation --skip-download --quiet --compact --file $$template || exit 1; \
	done
	git ls-files | xargs $(CHECKOV)/bin/checkov --framework secrets --enable-secret-scan-all-files --skip-download --quiet \
		--compact --file

bench: bench-peers ## the benchmarks, each as a ratio taken in one run
	$(BIN)/python -m benchmarks.growth
	$(BIN)/python -m benchmarks.files
	$(BIN)/python -m benchmarks.copy
	$(BIN)/python -m benchmarks.page
	$(BIN)/python -m benchmarks.scale
	$(BIN)/python -m benchmarks.airflow_cost

$(BENCH)/ready: benchmarks/requirements.txt
	@echo "Setting up $(BENCH): about a minute, once"
	$(PYTHON) -m venv --clear $(BENCH)
	$(BENCH)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r benchmarks/requirements.txt
	@touch $@

bench-peers: $(VENV)/ready $(BENCH)/ready ## the same star by dlt, DuckDB and psql, beside this project: docs/benchmarks.md
	$(BIN)/python -m benchmarks.peers

package: ## what Amazon MWAA takes, in dist/: dags/, plugins.zip and requirements.txt
	$(PYTHON) deploy/mwaa/package.py dist

up: $(VENV)/ready ## the local S3 and the local Redshift, in the background, and Airflow's database
	@$(LOCAL) up --airflow $(if $(DATA),--data "$(DATA)")

down: ## stop everything that was started
	@if [ -x $(BIN)/python ]; then $(LOCAL) down; else echo "Nothing was started."; fi

clean: ## stop everything, and remove all that the targets created
	@if [ -x $(BIN)/python ]; then $(LOCAL) clean; fi
	rm -rf .venv .venv-3.0.6 $(CHECKOV) $(BENCH) dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

lock: $(VENV)/ready ## lock the requirements again, at their newest versions
	$(LOCK) --upgrade requirements-dev.in -o requirements-dev.txt
	$(LOCK) --upgrade -c requirements-dev.txt requirements.in -o requirements.txt
	$(LOCK) --upgrade -c requirements-dev.txt requirements-celery.in -o requirements-celery.txt
	$(LOCK) --upgrade -c requirements-dev.txt local/requirements.in -o local/requirements.txt
	$(LOCK) requirements-3.0.6.in -o requirements-3.0.6.txt
	$(LOCK) --no-deps --upgrade tests/requirements-dbt.in -o tests/requirements-dbt.txt
	$(LOCK) --upgrade infra/requirements.in -o infra/requirements.txt
	$(LOCK) --upgrade benchmarks/requirements.in -o benchmarks/requirements.txt
