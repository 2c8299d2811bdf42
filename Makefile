# Two commands set everything up: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# A worker takes up to 5 GB.
CORES := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
GIGABYTES := $(shell awk '/MemAvailable/ {print int($$2 / 1048576)}' /proc/meminfo 2>/dev/null || echo 10)
WORKERS ?= $(shell a=$(CORES); b=$$(($(GIGABYTES) / 5)); test $$a -lt $$b || a=$$b; test $$a -ge 1 || a=1; echo $$a)
# pip would compile all modules, in 40 seconds. The first import of a module does, if it may.
export PYTHONDONTWRITEBYTECODE :=
# The tests of a file share trained models, so they run on one worker. The apps take longest and come first.
IN_PARALLEL := --numprocesses=$(WORKERS) --dist=loadfile --no-loadscope-reorder
# Without the properties, whose modules import other libraries.
SELECTED := -m "not exhaustive" --ignore=tests/layers/properties
# The backends at once: while the last worker of one runs, the other has work.
TEST = $(MAKE) --no-print-directory --jobs=$(WORKERS) tests-on-tensorflow tests-on-jax-and-torch

.PHONY: help install demo check test test-all tests-on-tensorflow tests-on-jax-and-torch properties bench-matrix lint format results clean

help:
	@echo "make demo    train, evaluate, export and query the sentiment app on its generated data"
	@echo "make check   lint and fast tests, in two minutes"
	@echo "make test    lint and the tests of CI"
	@echo "make test-all   all tests on all backends, also the exhaustive ones: an hour"
	@echo "make properties   random tests of the layers against other libraries, which it installs"
	@echo "make bench-matrix  write layers/MATRIX.md: which checks each layer passes, on which backend"
	@echo "make format  format the code"
	@echo "make results APP=vqa DATA=scenes_qa [VARIANT=name] [SEEDS=0,1,2]"
	@echo "             train, evaluate and record rows of an app's results"

# uv installs in half of pip's time, but does not read pip's configuration: where it finds nothing,
# pip installs.
EXTRAS := test
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check install -c constraints.txt
INSTALL_PACKAGES = $(PIP) uv && UV_FIND_LINKS="$(PIP_FIND_LINKS)" $(BIN)/uv pip install --quiet \
    --python $(BIN)/python -c constraints.txt -e ".[$(EXTRAS)]" || $(PIP) --no-compile -e ".[$(EXTRAS)]"

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL_PACKAGES)
	@touch $@

install: $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/python -m unroll.apps.demo

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

check: lint
	$(BIN)/python -m pytest $(IN_PARALLEL) -m "not slow" tests/test_architecture.py \
	    tests/layers/test_identities.py tests/layers/test_search.py tests/layers/test_crf.py \
	    tests/layers/test_errors.py tests/pipelines tests/apps/test_config.py \
	    tests/apps/test_results.py tests/apps/test_runs.py tests/apps/test_files.py

test: lint
	@$(TEST)

test-all: lint
	@$(TEST) SELECTED=

tests-on-tensorflow:
	$(BIN)/python -m pytest $(IN_PARALLEL) $(SELECTED)

tests-on-jax-and-torch:
	KERAS_BACKEND=jax $(BIN)/python -m pytest $(SELECTED) tests/layers
	KERAS_BACKEND=torch $(BIN)/python -m pytest $(SELECTED) tests/layers

properties: EXTRAS := properties,test
properties: $(INSTALLED)
	$(INSTALL_PACKAGES)
	$(BIN)/python -m pytest $(IN_PARALLEL) tests/layers/properties

bench-matrix: $(INSTALLED)
	$(BIN)/python -m tests.layers.matrix

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

APP ?= sentiment
DATA ?= reviews
VARIANT ?= default
results: $(INSTALLED)
	$(BIN)/python -m unroll.apps.core.reproduce $(APP) $(DATA) --variant="$(VARIANT)" \
	    $(if $(SEEDS),--seeds=$(SEEDS))

clean:
	rm -rf $(VENV) build dist *.egg-info
