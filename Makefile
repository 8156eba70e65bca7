# Everything runs in the project's own environment, .venv, which is built on first use
# from requirements.lock and rebuilt when that file changes.
#
#   PYTHON=python3.12          another interpreter to build .venv with
#   ARGS='...'                 options of the command that a target runs
#   TORCH_ARGS='...'           extra pip arguments for torch, such as the index of its CPU wheels

PYTHON ?= python3
TORCH_ARGS ?=
ARGS ?=
LOCK_ARGS ?=

# A process for each core, at most four: each one imports torch.
PARALLEL := --numprocesses auto --maxprocesses 4 --dist loadfile

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
LOCKED := $(VENV)/.locked
INSTALLED := $(VENV)/.installed
IN_VENV := PATH="$$PWD/$(BIN):$$PATH"
TORCH := $(shell sed -n 's/^ *"\(torch==[^"]*\)".*/\1/p' pyproject.toml)

.DEFAULT_GOAL := help
.PHONY: help repro matrix remote venv test test-all test-services lint format faults bench docs lock audit clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' Makefile

repro: $(INSTALLED) ## run the study's current cell: dvc repro evaluate
	$(IN_VENV) dvc repro evaluate

# With remote storage, data come from there; without, they are made.
matrix: $(INSTALLED) ## run all cells as queued experiments and compare them (ARGS='--dose 1e3 ...')
	@$(IN_VENV) dvc remote list | grep -q . || $(IN_VENV) dvc repro overlap
	$(IN_VENV) dose-overlap matrix $(ARGS)

remote: $(if $(STORE),$(INSTALLED)) ## name a folder as remote storage: make remote STORE=/folder/outside
	@test -n "$(STORE)" || { echo "make: name the folder: make remote STORE=/folder/outside" >&2; exit 1; }
	mkdir -p "$(STORE)"
	$(IN_VENV) dvc remote add --local --force --default storage "$$(realpath "$(STORE)")"
	$(IN_VENV) dvc remote modify --local storage verify true

test: $(INSTALLED) ## run the test suite without the slow tests
	$(IN_VENV) pytest -m "not slow" $(PARALLEL)

test-all: $(INSTALLED) ## run the whole test suite, then those with real services
	$(IN_VENV) pytest
	$(MAKE) test-services

test-services: $(INSTALLED) ## test remote storage and Slurm with real servers (Debian, as root)
	tests/services/run.sh
	tests/services/slurm.sh
	tests/services/ptychodus.sh

lint: $(INSTALLED) ## check style, types and import layers
	$(IN_VENV) ruff check
	$(IN_VENV) ruff format --check
	$(IN_VENV) pyright --pythonpath $(BIN)/python
	$(IN_VENV) lint-imports --no-logo

format: $(INSTALLED) ## format the code and apply safe fixes
	$(IN_VENV) ruff check --fix
	$(IN_VENV) ruff format

faults: $(INSTALLED) ## inject faults and feed bad input, write docs/reliability.md (ARGS='--quick', '--only kills')
	$(IN_VENV) PYTHONPATH=src:tests python -m faults $(ARGS)

bench: $(INSTALLED) ## measure throughput, as ratios
	$(IN_VENV) python -m benchmarks

docs: $(INSTALLED) ## build the documentation into build/site, the notebook of examples/ executed
	RUN_EXAMPLES=1 NO_MKDOCS_2_WARNING=1 PYTHONPATH=src $(BIN)/mkdocs build --strict

venv: $(INSTALLED) ## build .venv

# The lock names every package but torch, whose wheels for CPU and CUDA differ in their
# hashes and in what they need: torch follows, at the version of pyproject.toml.
$(LOCKED): requirements.lock
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: Python 3.11 or newer is needed, $(PYTHON) is older or missing; name one: make PYTHON=python3.11" >&2; \
	  exit 1; }
	"$(PYTHON)" -m venv --clear $(VENV)
	$(PIP) install --require-hashes --no-deps -r requirements.lock
	@touch $@

$(INSTALLED): $(LOCKED) pyproject.toml
	$(PIP) install $(TORCH_ARGS) $(TORCH)
	$(PIP) install --no-build-isolation --no-deps --editable .
	@! $(PIP) check | grep -v -e '^ptychi ' -e '^No broken requirements'
	@touch $@

lock: ## write requirements.lock anew from pyproject.toml (LOCK_ARGS=--upgrade for newer versions)
	"$(PYTHON)" -m venv .venv-lock
	.venv-lock/bin/python -m pip --disable-pip-version-check install --quiet uv
	.venv-lock/bin/uv pip compile pyproject.toml --extra dev --extra iterative --universal --python-version 3.11 \
	  --fork-strategy fewest --generate-hashes --no-emit-package torch \
	  --custom-compile-command "make lock" --quiet --output-file requirements.lock $(LOCK_ARGS)

# --strict: a package that the service does not know is no package without faults.
audit: ## look for known vulnerabilities of the locked packages (asks pypi.org; ARGS='-s osv' asks osv.dev)
	"$(PYTHON)" -m venv .venv-audit
	.venv-audit/bin/python -m pip --disable-pip-version-check install --quiet pip-audit
	echo "$(TORCH)" > .venv-audit/torch.txt
	.venv-audit/bin/pip-audit --strict --no-deps --disable-pip --requirement .venv-audit/torch.txt $(ARGS)
	.venv-audit/bin/pip-audit --strict --no-deps --disable-pip --requirement requirements.lock $(ARGS)

clean: ## remove the environments and caches, never data or results
	rm -rf $(VENV) .venv-audit .venv-lock .venv-services .venv-ptychodus build .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
