# Two commands for a newcomer: `make demo` and `make test`. Each makes the environment it needs, once.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready
export PYTHONHASHSEED = 0
export TOKENIZERS_PARALLELISM = false
export HF_HUB_OFFLINE = 1

.PHONY: demo test check format docs base reliability soak env clean help

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
	$(BIN)/python -m whet.report.reliability --check
	$(MAKE) test

format: $(READY) ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY)   ## write CATALOGUE.md and the generated pages again
	$(BIN)/python -m whet.report.catalogue
	$(BIN)/python -m whet.report.reliability

reliability: $(READY) ## kill, damage and feed runs on purpose, and count what came of it
	$(BIN)/python -m tests.reliability
	$(BIN)/python -m whet.report.reliability

soak: $(READY)   ## a long run with a judge that fails at random: make soak HOURS=6
	$(BIN)/python -m tests.soak --hours $(or $(HOURS),6)
	$(BIN)/python -m whet.report.reliability

base: $(READY)   ## train the base model again: at most eight minutes
	$(BIN)/whet base whet/models/base

env: $(READY)    ## only the environment

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 11) <= v <= (3, 13) and f"whet needs Python 3.11 to 3.13, and $(PYTHON) is {v[0]}.{v[1]}: run make PYTHON=python3.12")'
	@echo "Making the environment in $(VENV): a few minutes, once."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean:           ## remove the environment
	rm -rf $(VENV)
