# Two commands: `make quickstart` and `make test`. Everything else is a part of them.
PYTHON ?= python3.11
VENV := .venv
SERVING := .venv-serving
BENCH := .venv-bench
BENCH_TRAIN := .venv-bench-train
# Several portions of tests at a time (tests/portions.py), each with its share of the processors (tests/conftest.py).
PARALLEL := --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
export LLM_RETRAIN_SERVING_ENV ?= $(CURDIR)/$(SERVING)

.PHONY: help quickstart test test-gpu check unit bench-engines bench-data bench-train bench-gpu bench-memory bench-eval format install serving serving-transformers lock clean

help:
	@echo "make quickstart   install, then fine-tune, score, gate, register and serve a real model"
	@echo "make test         install, then run every test that runs without a GPU"
	@echo "make test-gpu     the tests that need a CUDA device"
	@echo "make check        ruff, mypy, unit tests"
	@echo "make bench-engines   serving engines side by side, after the quickstart"
	@echo "make bench-data      the data engine and its peers side by side (20 minutes, both cores)"
	@echo "make bench-train     the training step beside Trainer + peft and TRL (over an hour, both cores)"
	@echo "make bench-eval      generation and scoring beside transformers and rouge-score (15 minutes, both cores)"
	@echo "make bench-gpu       training at the shapes of 8B and 1B models, random weights (needs a CUDA device)"
	@echo "make bench-memory    estimated against measured peak memory, methods x sizes (an hour or more)"
	@echo "make clean        delete the environments (the state in .llm-retrain stays)"

quickstart: install serving
	$(VENV)/bin/llm-retrain run --preset quickstart

test: $(VENV)/.installed-dev serving serving-transformers
	LLM_RETRAIN_REQUIRE_TRITON=1 $(VENV)/bin/python -m pytest -m "not gpu" $(PARALLEL) --durations=15

# Not yet run by us: it needs a CUDA device.
test-gpu: $(VENV)/.installed-dev
	LLM_RETRAIN_REQUIRE_GPU=1 $(VENV)/bin/python -m pytest -m gpu

check: $(VENV)/.installed-dev serving
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m pytest -m "not integration and not slow and not gpu" $(PARALLEL)

unit: $(VENV)/.installed-dev serving
	$(VENV)/bin/python -m pytest -m "not integration and not slow and not gpu" $(PARALLEL) --durations=10

bench-engines: install serving
	$(VENV)/bin/python benchmarks/engines.py

bench-data: install $(BENCH)/.installed
	$(VENV)/bin/python benchmarks/data.py --peers-python $(BENCH)/bin/python

bench-train: install $(BENCH_TRAIN)/.installed
	$(VENV)/bin/python benchmarks/training.py --peers-python $(BENCH_TRAIN)/bin/python

bench-eval: $(VENV)/.installed-dev
	$(VENV)/bin/python benchmarks/evaluation.py

# Not yet run by us: it needs a CUDA device.
bench-gpu: install
	$(VENV)/bin/python benchmarks/gpu.py
bench-memory: install
	$(VENV)/bin/python benchmarks/memory_estimate.py

format: $(VENV)/.installed-dev
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

install: $(VENV)/.installed
serving: $(SERVING)/.installed
serving-transformers: $(SERVING)/.installed-transformers

# The project's environment. torch comes by pip in one exact version: a range takes gigabytes of CUDA packages.
$(VENV)/.installed: constraints.txt pyproject.toml
	@deployments/check-system.sh "$(PYTHON)"
	@echo "Installing the project's environment into $(VENV) (about 2.5 GB, some minutes)"
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@

# The environment Triton's Python backend runs in, apart because it needs numpy 1.
$(SERVING)/.installed: requirements/serving.txt
	@deployments/check-system.sh "$(PYTHON)"
	@echo "Installing the serving environment into $(SERVING) (about 400 MB)"
	$(PYTHON) -m venv $(SERVING)
	$(SERVING)/bin/pip install --quiet --no-deps --requirement requirements/serving.txt
	@touch $@

$(SERVING)/.installed-transformers: $(SERVING)/.installed requirements/serving-transformers.txt
	$(SERVING)/bin/pip install --quiet --no-warn-conflicts \
		--constraint requirements/serving.txt --requirement requirements/serving-transformers.txt
	@touch $@

# What the data engine is compared with; apart, because the peers' versions are not ours.
$(BENCH)/.installed: requirements/bench-data.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/pip install --quiet --requirement requirements/bench-data.txt
	@touch $@

# What training is compared with; apart, because TRL is no part of the product.
$(BENCH_TRAIN)/.installed: requirements/bench-train.txt constraints.txt
	$(PYTHON) -m venv $(BENCH_TRAIN)
	$(BENCH_TRAIN)/bin/pip install --quiet --constraint constraints.txt --requirement requirements/bench-train.txt
	@touch $@

lock: $(VENV)/.installed-dev
	@(echo "# Exact versions of the project's environment, as a fresh install resolves them. Python 3.11, Linux x86-64."; \
	  echo "# Make again: make lock"; \
	  $(VENV)/bin/pip freeze --exclude-editable | sed -e 's/+cpu$$//') > constraints.txt

clean:
	rm -rf $(VENV) $(SERVING) $(BENCH) $(BENCH_TRAIN)
