# Everything a newcomer needs: make demo, make test. Python 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-long lint fast wheel clean

demo: .venv/.demo  ## install and run the whole method on the embedded federation
	$(BIN)/dsfedmed run experiment=quickstart

test: .venv/.dev lint  ## install and run every check
	$(BIN)/pytest -q -n 2 --dist loadfile --durations=15 -m "not long"

test-long: .venv/.dev  ## the further variants, for changes to the runtime
	$(BIN)/pytest -q -m long

fast: .venv/.dev  ## the tests that take seconds
	$(BIN)/pytest -q -m "not slow and not ray and not chaos"

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

wheel: .venv/.dev  ## dist/*.whl, which cluster.yaml sends to every node
	$(BIN)/pip wheel -q --no-deps --wheel-dir dist .

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.demo: .venv/bin/python pyproject.toml
	$(BIN)/pip install -q -e '.[demo]'
	touch $@

.venv/.dev: .venv/bin/python pyproject.toml
	$(BIN)/pip install -q -e '.[dev]'
	touch $@ .venv/.demo

clean:
	rm -rf .venv dist
