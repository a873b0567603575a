# Two commands for a newcomer: `make demo` and `make test`. Each makes the environment it needs, once.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
LEAN = $(VENV)/.lean
READY = $(VENV)/.ready
VLLM = .venv-vllm
VLLM_READY = $(VLLM)/.ready
export PYTHONHASHSEED = 0
export TOKENIZERS_PARALLELISM = false
export HF_HUB_OFFLINE = 1

SUPPORTED = @$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 11) <= v <= (3, 13) and f"whet needs Python 3.11 to 3.13, and $(PYTHON) is {v[0]}.{v[1]}: run make PYTHON=python3.12")'

.PHONY: demo test test-vllm env-vllm learn mutants check format docs base bench bench-compare bench-gpu study reliability soak env clean help

help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 18

demo: $(LEAN)    ## two minutes: a tiny language model, made better by reinforcement learning, and a report
	@$(BIN)/whet train grpo --task.levels=1 --steps 60 --seed 0

test: $(READY)   ## every test
	$(BIN)/python -m pytest -n auto -q

test-vllm: $(VLLM_READY) ## the tests of the engine vllm, with the real vLLM on the CPU; results/vllm.json
	$(VLLM)/bin/python -m tests.vllm.record

learn: $(READY)  ## thirty steps of `compose` with every recipe: half an hour
	$(BIN)/python -m pytest -n auto -q -m long tests/learning

mutants: $(READY) ## plant bugs in a copy, and see which of them no test notices
	$(BIN)/python -m tests.mutants

check: $(READY)  ## format, lint, types, generated pages fresh, then every test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m whet.report.catalogue --check
	$(BIN)/python -m whet.report.reliability --check
	$(BIN)/python benchmarks/page.py --check
	$(BIN)/python -m whet.report.study --check
	$(MAKE) test

format: $(READY) ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY)   ## write CATALOGUE.md and the generated pages again
	$(BIN)/python -m whet.report.catalogue
	$(BIN)/python -m whet.report.reliability
	$(BIN)/python benchmarks/page.py
	$(BIN)/python -m whet.report.study

study: $(READY)  ## 20 recipes on two tasks at equal tokens, five seeds, after a sweep of learning rates: hours; stop it and start it again
	$(BIN)/whet study results/study/recipes.txt --rates 5e-5,1.5e-4,5e-4 --sweep-seeds 1 --sweep-samples 8 --seeds 5 --samples 32 --budget tokens=1e5 --against grpo --update.minibatches=4 --name study

reliability: $(READY) ## kill, damage and feed runs on purpose, and count what came of it
	$(BIN)/python -m tests.reliability
	$(BIN)/python -m whet.report.reliability

soak: $(READY)   ## a long run with a judge that fails at random: make soak HOURS=6
	$(BIN)/python -m tests.soak --hours $(or $(HOURS),6)
	$(BIN)/python -m whet.report.reliability

base: $(READY)   ## train the base model again: at most eight minutes
	$(BIN)/whet base whet/models/base

bench: $(READY)  ## whet against TRL, generate and vLLM on this machine: half an hour; stop it and start it again
	@$(BIN)/python benchmarks/run.py $(BENCH)

bench-compare: $(READY) ## this tree against another commit: make bench-compare BASE=HEAD~1
	@$(BIN)/python benchmarks/run.py --against $(or $(BASE),HEAD) $(BENCH)

bench-gpu: $(READY) ## on a GPU, minutes: a Qwen2 of 0.5 billion weights, against generate and the card's limits
	@$(BIN)/python benchmarks/gpu.py

env: $(READY)    ## only the environment

define install
	$(SUPPORTED)
	@echo "Making the environment in $(VENV): a few minutes, once."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.$(1)'
	@touch $(LEAN)
endef

$(LEAN): pyproject.toml constraints.txt
	$(call install)

$(READY): pyproject.toml constraints.txt
	$(call install,[dev])
	@touch $@

env-vllm: $(VLLM_READY) ## only the environment of vLLM, .venv-vllm: about 3 GB

$(VLLM_READY): pyproject.toml constraints.txt constraints-vllm.txt
	$(SUPPORTED)
	@echo "Making the environment of vLLM in $(VLLM): a few minutes, once."
	@test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	@$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[lora]' pytest beartype
	@$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r constraints-vllm.txt
	@$(VLLM)/bin/python -c 'from vllm import LLM' || (echo "vLLM does not open in $(VLLM): see above"; exit 1)
	@touch $@

clean:           ## remove the environments
	rm -rf $(VENV) $(VLLM)
