# SPDX-License-Identifier: Apache-2.0
# `make demo` and `make test` make the environment they need when it is missing or older than what it was made from.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test fuzz soak beside kill-training lint clean environment-demo environment-dev

PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.10 python3,$(if $(shell $(name) -c 'import sys; assert (3,10) <= sys.version_info < (3,13)' 2>/dev/null && echo ok),$(name))))
SOURCES := setup.py setup.cfg package.xml pyproject.toml constraints.txt
OUT ?= out/demo
PYTEST_ARGUMENTS ?=
TEST_PROCESSES ?= 2
FUZZ_ARGUMENTS ?=
MINUTES ?= 20

help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1|\2/p' Makefile | column -t -s '|'

demo: environment-demo ## a simulated world through the real nodes: report and pictures in out/demo (no torch)
	.venv/bin/foundry demo --out $(OUT)

test: environment-dev ## every test, in .venv-dev, file by file in TEST_PROCESSES (2) processes
	OMP_NUM_THREADS=1 .venv-dev/bin/python -m pytest -n $(TEST_PROCESSES) --dist loadfile $(PYTEST_ARGUMENTS)

kill-training: environment-dev ## 20 SIGKILLs at random moments of a tiny training, compared with an undisturbed one
	OMP_NUM_THREADS=1 .venv-dev/bin/python test/kill_training.py --kills 20

fuzz: environment-dev ## malformed messages and files, 100,000 through decoding, 2,000 through the real node: out/fuzz.json
	PYTHONPATH=.:test .venv-dev/bin/python -m fuzz $(FUZZ_ARGUMENTS)

soak: environment-dev ## 10 Hz of 120,000 points through the real node for MINUTES (20): memory, handles, drops; out/soak.json
	PYTHONPATH=.:test .venv-dev/bin/python -m soak --minutes $(MINUTES)

beside: environment-dev ## perception alone and beside distill_trainer on one core: latencies; out/beside.json
	PYTHONPATH=.:test .venv-dev/bin/python -m beside

lint: environment-dev ## ruff
	.venv-dev/bin/ruff check .

clean: ## remove both environments, caches and outputs
	rm -rf .venv .venv-dev build dist out *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

environment-demo:
	@$(call environment,.venv,.[ros],the robot path and the ROS 2 wheels; no torch; about 0.8 GB)

environment-dev:
	@$(call environment,.venv-dev,.[ros$(comma)train$(comma)dev],the robot path and the ROS 2 wheels; torch and the test tools; about 2.5 GB)

comma := ,

# $(1) folder, $(2) what pip installs, $(3) in words. The stamp holds a digest of the dependency files, the interpreter's
# version and the extras; it is written last, so that a half-made environment is made again. Bytecode is made on all cores,
# which pip does on one; some packages have files for other versions of Python, which do not compile.
define environment
python="$(PYTHON)"; \
if [ -z "$$python" ]; then echo "make: no Python 3.10, 3.11 or 3.12 found; install python3 (apt install python3 python3-venv) or name one: make PYTHON=/path/to/python3" >&2; exit 2; fi; \
if ! "$$python" -c 'import sys; assert (3, 10) <= sys.version_info < (3, 13)' 2>/dev/null; then echo "make: $$python does not run, or is not Python 3.10, 3.11 or 3.12; give another PYTHON" >&2; exit 2; fi; \
stamp="$$( { cat $(SOURCES); echo '$(2)'; "$$python" --version; } | sha256sum | cut -d' ' -f1)"; \
if [ -x $(1)/bin/python ] && [ "$$(cat $(1)/.stamp 2>/dev/null || true)" = "$$stamp" ]; then exit 0; fi; \
if [ -d $(1) ]; then echo "$(1) is stale (made from other dependency files): making it again"; else echo "$(1) is missing: making it"; fi; \
echo "$$("$$python" --version) ($$python); installs $(3); this takes some minutes"; \
if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then echo "make: $$python cannot make virtual environments; run: apt install python3-venv" >&2; exit 2; fi; \
rm -rf $(1); \
"$$python" -m venv $(1); \
$(1)/bin/python -m pip install -qq --disable-pip-version-check --no-compile -c constraints.txt -e '$(2)' \
  || { echo "make: pip could not install $(2); see its message above, then run make again" >&2; exit 1; }; \
$(1)/bin/python -m compileall -qq -j 0 $(1)/lib || true; \
echo "compiling the kernels"; $(1)/bin/python -m foundry_core.runtime.precompile; \
echo "$$stamp" > $(1)/.stamp; \
echo "$(1) is ready"
endef
