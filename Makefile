# Two commands set everything up: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
IN_PARALLEL := --numprocesses=2 --dist=worksteal

.PHONY: help install demo test lint format clean

help:
	@echo "make demo   train, evaluate, export and query the sentiment app on its generated data"
	@echo "make test   lint, tests and doctests"
	@echo "make format rewrite the code in the house style"

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
	@touch $@

install: $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/python -m unroll.apps.demo

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

test: lint
	$(BIN)/python -m pytest $(IN_PARALLEL)
	KERAS_BACKEND=jax $(BIN)/python -m pytest $(IN_PARALLEL) tests/layers
	$(BIN)/python -m pytest --doctest-modules --ignore=layers/backend_torch.py layers pipelines apps

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) runs build *.egg-info
