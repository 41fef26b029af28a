# `make demo` shows the memory at work, `make test` checks it; either sets up .venv on its first run.
PYTHON ?= python3
BIN := .venv/bin
DIALOGUES ?= $(wildcard ../shared/corpus/*.jsonl.gz)

.PHONY: demo test lint format train-embedded clean
.DEFAULT_GOAL := demo

# Installed once; again only when the project's dependencies change.
.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch -e '.[dev]'
	touch $@

.venv: .venv/installed

demo: .venv/installed
	$(BIN)/lpm demo

test: .venv/installed
	$(BIN)/python -m pytest

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

train-embedded: .venv/installed
	$(BIN)/lpm train embedded $(foreach file,$(DIALOGUES),--dialogues $(file)) $(if $(START),--start $(START))

clean:
	rm -rf .venv runs build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
