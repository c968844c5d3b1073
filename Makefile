# Everything a developer types. A bare Debian 12 with make and git is enough to start from.

BIN := .venv/bin
PYTHON := /usr/bin/python3
C := $(wildcard bpf/*.c bpf/*.h)
BENCHES := $(basename $(notdir $(shell grep -l __main__ bench/*.py)))

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup demo test lint format bench lock clean
.DELETE_ON_ERROR:

help: ## What can be made
	@sed -nE 's/^([a-z]+):.*## (.*)/make \1\t\2/p' Makefile | expand -t 16

setup: .venv/installed ## Install all that is needed; quick when nothing changed

demo: setup ## A small cluster, real agents, real traffic, one table; KEEP=1 leaves it up
	@$(BIN)/python -m deploy.demo $(if $(filter-out 0,$(KEEP)),--keep)

test: setup .venv/kernel/unpacked ## Every test that this machine can run; those it cannot are named with the reason
	@# The first alone, since it measures rates and latencies; the last has the summary of the rest.
	@failed=; \
	$(BIN)/pytest tests/vm || failed=1; \
	$(BIN)/pytest -n auto --dist loadfile --ignore tests/vm || failed=1; \
	test -z "$$failed"

lint: setup ## Style, types, direction of imports, generated code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m bpf.gen --check
	clang-format --dry-run -Werror $(C)
	$(BIN)/yamllint --strict deploy
	$(BIN)/hadolint deploy/Dockerfile

format: setup ## Put Python and C into their style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	clang-format -i $(C)

bench: setup ## Every benchmark: a table each, and JSON in bench/results
	set -e; for name in $(BENCHES); do $(BIN)/python -m bench.$$name; done

lock: .venv/packages ## Choose versions anew and pin them with their hashes
	$(PYTHON) -m venv .venv/lock
	.venv/lock/bin/pip install -qq uv
	.venv/lock/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
		--extra dev --generate-hashes --no-header --no-annotate --no-emit-index-url \
		--output-file .ci/requirements.lock pyproject.toml
	.venv/lock/bin/uv pip compile --quiet --universal --python-version 3.11 \
		--extra image --constraint .ci/requirements.lock --generate-hashes --no-header \
		--no-annotate --no-emit-index-url --output-file .ci/requirements-image.lock pyproject.toml

clean: ## Take away what setup made; the Debian packages stay
	rm -rf .venv build *.egg-info maglev/*.so

# Another kernel to test on. Where it cannot be had, the tests that want it are skipped by name.
.venv/kernel/unpacked: .ci/debian-packages-vm .ci/unpack-kernel .venv/installed
	@.ci/install-packages .ci/debian-packages-vm && .ci/unpack-kernel .venv/kernel || \
		echo "no kernel for tests in a virtual machine" >&2
	@mkdir -p .venv/kernel
	@touch $@

# Each stamp is newer than what it was made from, or it is made again.
.venv/packages: .ci/debian-packages .ci/install-packages
	@.ci/install-packages
	@mkdir -p .venv
	@touch $@

.venv/locked: .ci/requirements.lock .venv/packages
	@echo installing the Python packages of .ci/requirements.lock
	@$(PYTHON) -m venv --system-site-packages .venv
	@$(BIN)/pip install -qq --require-hashes --requirement .ci/requirements.lock
	@touch $@

.venv/installed: pyproject.toml maglev/_fill.c .venv/locked
	@echo building the C extension
	@$(BIN)/pip install -qq --no-deps --no-build-isolation --editable .
	@touch $@
