# Every target sets up what it needs on a bare Debian or Ubuntu with Python >= 3.11; `make` alone lists them.

BIN := .venv/bin

help:              ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile

setup:             ## build .venv with .venv/bin/polcad, from the lock
	@sh scripts/setup

packages:          ## install the Debian packages that the integration tests need, where missing
	@sh scripts/packages

demo: setup        ## a simulated row with its daemon and page; ARGS="--for 60 --json" is passed on
	@$(BIN)/polcad demo $(ARGS)

test: setup packages ## the quick unit run, then the integration run
	$(BIN)/python -m pytest
	$(BIN)/python -m pytest -m "integration and not slow"

test-all: test     ## that, and what takes minutes: the package on a booted Debian
	$(BIN)/python -m pytest -m slow

test-brokers: setup packages ## the tests of whole rows on a NATS cluster, then over a Mosquitto bridge
	$(BIN)/python -m pytest -m integration --broker nats
	$(BIN)/python -m pytest -m integration --broker bridge

deb: setup         ## build the Debian package, dist/polcad_*.deb
	@sh scripts/deb

check: setup       ## formatting, lint, types, and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup packages ## run benchmarks/*.py; BENCH_OUT=docs/benchmarks.md keeps what they print
	@sh scripts/bench $(BENCH_OUT)

bench-scale: setup packages ## saturate daemons and brokers (3 minutes); SCALE_OUT=docs/scale.md keeps what they print
	@sh scripts/bench-scale $(SCALE_OUT)

chaos: setup packages ## break a real row in every way; CHAOS_OUT=docs/reliability.md keeps the table, ARGS="--only CASE --runs N"
	$(BIN)/python -m tests.chaos $(if $(CHAOS_OUT),--out $(CHAOS_OUT)) $(ARGS)

fuzz: setup        ## fuzz what strangers may send, FUZZ_S=60 seconds a target; FUZZ_OUT=docs/fuzz.md keeps the table, ARGS="--only TARGET"
	@sh scripts/fuzz
	$(BIN)/python -m tests.fuzz $(if $(FUZZ_S),--seconds $(FUZZ_S)) $(if $(FUZZ_OUT),--out $(FUZZ_OUT)) $(ARGS)

soak: setup packages ## feed a day to real programs at speed, and see that memory stays flat; SOAK_OUT=docs/soak.md, ARGS="--hours 6"
	$(BIN)/python -m tests.soak $(if $(SOAK_OUT),--out $(SOAK_OUT)) $(ARGS)

generate: setup    ## write again the files in docs/ that are generated from the code
	$(BIN)/python scripts/generate.py

lock:              ## pin all dependencies again, with hashes
	@sh scripts/lock

clean:             ## remove what the other targets made
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help setup packages demo test test-all test-brokers deb check bench bench-scale chaos fuzz soak generate lock clean
