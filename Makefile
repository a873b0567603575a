# Two commands for a newcomer: `make demo` and `make test`. Each makes the environment it needs, once.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready
export PYTHONHASHSEED = 0
export TOKENIZERS_PARALLELISM = false
export HF_HUB_OFFLINE = 1

.PHONY: demo test check format docs base bench bench-compare env clean help

help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 18

demo: $(READY)   ## two minutes: a tiny language model, made better by reinforcement learning, and a report
	@$(BIN)/whet train grpo --task.levels=1 --steps 60 --seed 0

test: $(READY)   ## every test
	$(BIN)/python -m pytest -n auto -q

check: $(READY)  ## format, lint, types, generated pages fresh, then every test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m whet.report.catalogue --check
	$(MAKE) test

format: $(READY) ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY)   ## write CATALOGUE.md and the generated pages again
	$(BIN)/python -m whet.report.catalogue

base: $(READY)   ## train the base model again: at most eight minutes
	$(BIN)/whet base whet/models/base

bench: $(READY)  ## whet against TRL, generate and vLLM on this machine: hours; stop it and start it again
	@$(BIN)/python benchmarks/run.py $(BENCH)

bench-compare: $(READY) ## this tree against another commit: make bench-compare BASE=HEAD~1
	@$(BIN)/python benchmarks/run.py --against $(or $(BASE),HEAD)

env: $(READY)    ## only the environment

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 11) <= v <= (3, 13) and f"whet needs Python 3.11 to 3.13, and $(PYTHON) is {v[0]}.{v[1]}: run make PYTHON=python3.12")'
	@echo "Making the environment in $(VENV): a few minutes, once."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean:           ## remove the environment
	rm -rf $(VENV)
