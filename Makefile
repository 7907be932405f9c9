# The two commands of a newcomer, each of which sets up all that it needs:
#   make build   the bundled sample into data/builds
#   make test    all tests
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# --prefer-binary and the constraints keep an install to what was tested
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: build test lint docs clean

build: $(VENV)/.core
	$(BIN)/dataprep build --template llama2 --sample 1000

test: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.test
	$(BIN)/python -m tests.support.options_table
	$(BIN)/python -m tests.support.memory_table
	$(BIN)/python -m tests.support.source_tree

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("dataprep needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: $(VENV)/bin/python pyproject.toml constraints.txt
	$(INSTALL) --editable .
	touch $@

$(VENV)/.test: $(VENV)/bin/python pyproject.toml constraints.txt
	$(INSTALL) --editable '.[test,training]'
	touch $@ $(VENV)/.core

clean:
	rm -rf $(VENV) data/builds
