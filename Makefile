# make run    a ready local envd with a guided tour; Ctrl-C stops it
# make test   the tests                    make test-real  those with real servers
# make check  what must hold before a commit
# make bench  what it costs                make sim, chaos  what breaks it
# make fmt, proto, lock

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO ?= config/example.env
PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal

.PHONY: run test test-real check lint sim-check bench sim chaos proto fmt lock clean

run: $(READY)
	@exec $(BIN)/envctl dev --demo $(DEMO) $(ARGS)

test: $(READY)
	$(PYTEST) $(ARGS)

test-real: $(READY)
	$(BIN)/python -m pytest -n auto --dist loadfile -m real $(ARGS) || [ $$? -eq 5 ]

# Not in make check, which is to be quick: real processes, the kit over every backend, fuzzing.
SLOW := --ignore=tests/e2e --ignore=tests/testing --ignore=tests/fuzz --ignore-glob='*conformance*'

check: lint
	$(PYTEST) -q $(SLOW)
	@echo "NOT RUN: tests/e2e, tests/fuzz, the kit over every backend; make test runs them"
	$(MAKE) --no-print-directory sim-check

# What make check holds besides the tests.
lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python proto/generate.py --check

sim-check: $(READY)
	$(BIN)/python -m chaos.sim --seeds 1..50 --minutes 0.4 --jobs 2

# Seeds of simulated clusters, counted in chaos/LEDGER.md: make sim SEEDS=1..200
SEEDS ?= 1..100
sim: $(READY)
	$(BIN)/python -m chaos.sim --seeds $(SEEDS) --jobs 2 --ledger $(ARGS)

# Real nodes killed, cut off, slowed, filled, wiped; writes chaos-live.md
chaos: $(READY)
	$(BIN)/python -m chaos.live $(ARGS)

bench: $(READY)
	$(BIN)/python -m bench.local
	$(BIN)/python -m bench.compare --peer etcd --peer redis-always --reps 3 $(ARGS)
	$(BIN)/python -m bench.cluster
	$(BIN)/python -m bench.membership

proto: $(READY)
	$(BIN)/python proto/generate.py

fmt: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Pins every dependency with its hashes; names no registry.
lock: $(READY)
	$(BIN)/pip-compile --quiet --extra dev --strip-extras --allow-unsafe --generate-hashes \
		--no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
		--output-file requirements.lock pyproject.toml

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: envd needs Python 3.11 or later, and $(PYTHON) is older"; \
		  echo "hint: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "Setting up $(VENV) (once; later starts skip this)..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--no-deps --no-build-isolation -e .
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
