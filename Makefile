# fewscans. `make help` lists what can be made; `make demo` shows everything on generated scans.

PYTHON ?= python3
VENV ?= .venv
# Where torch is taken from. Empty: pip's own index (with CUDA on Linux, gigabytes large).
# Without a GPU: make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
# Further arguments for pytest and snakemake.
PYTEST_ARGS ?=
SNAKEMAKE_ARGS ?=
# Public data sets, where they are at hand (make real).
DATA ?= ../shared/data
# Tests at once; each file stays in one process.
WORKERS ?= 2
# The same for tests on a Slurm, each with a cluster of its own: they wait more than they work.
SLURM_WORKERS ?= 4

BIN := $(abspath $(VENV))/bin
STAMP := $(VENV)/.installed
TORCH := $(shell grep -E '^(torch|torchvision)==' constraints.txt)
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
# Rules call `python`: the environment's, whether or not it was activated.
export PATH := $(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help demo test test-slurm setup fast lint types format config envs bench docs real learns clean

help: ## list what can be made
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | \
	  while IFS="$$(printf '\t')" read -r name text; do printf '  make %-11s %s\n' "$$name" "$$text"; done
	@echo "  TORCH_INDEX=URL where torch is taken from, PYTHON=python3.12 which Python, see Makefile"

demo: setup ## environment, generated cohort, the whole workflow, a short table (some 6 minutes)
	@$(BIN)/snakemake $(SNAKEMAKE_ARGS)
	@$(BIN)/python scripts/show.py

test: setup ## every test but those that need a Slurm
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not slurm" $(PYTEST_ARGS)

test-slurm: setup ## what must not hurt it, on a real Slurm that the tests start and stop
	@$(BIN)/python -m pytest -n $(SLURM_WORKERS) --dist loadfile -m slurm tests/slurm $(PYTEST_ARGS)

fast: setup ## tests of under a minute, for every save
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -q -m "not slow and not gpu and not slurm" $(PYTEST_ARGS)

setup: $(STAMP) ## environment in .venv, pinned versions

lint: setup ## ruff, snakefmt, codespell, snakemake --lint
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/snakefmt --check Snakefile rules
	@$(BIN)/codespell --toml pyproject.toml
	@$(BIN)/snakemake --lint

types: setup ## mypy, strict where a wrong type is a wrong number
	@$(BIN)/mypy

format: setup ## write what lint would ask for
	@$(BIN)/ruff check --fix-only --quiet . || true
	@$(BIN)/ruff format .
	@$(BIN)/snakefmt Snakefile rules

config: setup ## schema and settings reference, from the settings models
	@$(BIN)/python -m fewscans.config.reference

envs: setup ## envs/*.yaml and the container definition, from constraints.txt
	@$(BIN)/python envs/make.py

bench: setup ## the measures of benchmarks/, one after the other (may take long)
	@set -e; for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

docs: setup ## the documentation as pages in site/
	@$(BIN)/python docs/make.py
	@$(BIN)/mkdocs build --strict --site-dir site
	@echo "site/index.html"

real: setup ## a shortened run on real scans: COVID-CT, where DATA has it
	@$(BIN)/snakemake --configfile config/examples/covid-ct-short.yaml \
	  --config data_root="$(abspath $(DATA))" $(SNAKEMAKE_ARGS)
	@$(BIN)/python scripts/show.py results/covid-ct-short/ablation_table.csv

learns: setup ## docs/learns.md: every method against an untrained network (hours; DATA for real scans)
	@set -e; for config in config/learns/*.yaml; do name=$$(basename $$config .yaml); \
	  $(BIN)/snakemake results/learns/$$name/learns.json --configfile $$config \
	    --config data_root="$(abspath $(DATA))" $(SNAKEMAKE_ARGS); done
	@$(BIN)/python scripts/learns_page.py results/learns/*/learns.json --out docs/learns.md

clean: ## remove environment, caches and pages; results and work stay
	@rm -rf $(VENV) site .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

$(STAMP): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "fewscans needs Python 3.11 or newer; '$(PYTHON)' is not. Name one: make setup PYTHON=python3.12"; exit 1; }
	@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV) || { \
	  echo "'$(PYTHON) -m venv' failed. On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@echo "installing into $(VENV) (some minutes the first time)"
	@$(PIP) install -c constraints.txt pip setuptools
ifeq ($(strip $(TORCH_INDEX)),)
	@$(PIP) install -c constraints.txt $(TORCH)
else
	@# An index of torch builds has few other packages: their dependencies follow from pip's own.
	@$(PIP) install --no-deps --index-url $(TORCH_INDEX) $(TORCH)
endif
	@$(PIP) install --no-build-isolation -c constraints.txt -e '.[dev,slurm,tune]'
	@touch $@
