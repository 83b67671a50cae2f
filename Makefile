# Every command a developer or CI needs. `make` alone lists them.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON := .venv/bin/python
# One worker for each processor this process may use.
WORKERS ?= $(shell nproc 2>/dev/null || echo 2)
PYTEST := $(PYTHON) -m pytest --numprocesses=$(WORKERS) --dist=worksteal

.PHONY: help
help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: install
install: .venv/installed ## make .venv with everything from the lock, and install the Debian packages that are missing

.venv/installed: pyproject.toml requirements.lock tools/system-packages tools/virtual-environment
	tools/system-packages borg git ssh
	tools/virtual-environment .venv
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: lint
lint: install ## check style, types and imports
	@status=0; \
	for check in "ruff check --quiet" "ruff format --check --quiet" "mypy" "lint-imports --no-logo"; do \
		echo "$$check"; .venv/bin/$$check || status=1; \
	done; \
	exit $$status

.PHONY: format
format: install ## rewrite the code in the project's style
	$(PYTHON) -m ruff check --fix-only
	$(PYTHON) -m ruff format

.PHONY: test
test: install ## set up what the tests need and run all of them: units, contracts and e2e
	@tools/system-packages borg chromium git ssh sshd
	$(PYTEST)

.PHONY: test-unit
test-unit: install ## run what needs no socket, no database and no program, which takes seconds
	$(PYTEST) -m unit

.PHONY: coverage
coverage: install ## run all tests and show which branches none of them takes
	@tools/system-packages borg chromium git ssh sshd
	$(PYTEST) --cov --cov-report=term

.PHONY: bench
bench: install ## measure how fast it is against floors, in one table; fails when something misses (QUICK=1: small sizes)
	$(PYTHON) -m tests.benchmarks $(if $(QUICK),--quick) $(if $(JSON),--json $(JSON))

.PHONY: soak
soak: install ## leave a director and many clients alone for a while, and see whether anything grows (MINUTES=20 CLIENTS=500)
	@tools/system-packages borg git ssh
	$(PYTHON) -m tests.soak --minutes $(or $(MINUTES),20) --clients $(or $(CLIENTS),500)

.PHONY: simulate
simulate: install ## live through simulated fleets with faults (SEEDS=3000, SEED_START=0), or through DAYS=30 of one
	$(PYTHON) -m tests.simulator --workers $(WORKERS) $(if $(SEEDS),--seeds $(SEEDS)) \
		$(if $(SEED_START),--start $(SEED_START)) $(if $(DAYS),--days $(DAYS))

.PHONY: fuzz
fuzz: install ## fuzz every parser, SECONDS=60 for each TARGET (several in quotes; default: all), on JOBS=1 processors
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: --requirement tests/fuzz/requirements.lock
	$(PYTHON) -m tests.fuzz $(TARGET) --seconds $(or $(SECONDS),60) --jobs $(or $(JOBS),1) $(if $(KEEP),--keep)

.PHONY: kills
kills: install ## kill director and client for real, before each of their steps and by chance (ROUNDS=100: in each test; KILLS_SEED=…)
	@tools/system-packages borg git ssh
	KILLS_ROUNDS=$(or $(ROUNDS),100) $(PYTHON) -m pytest -v --timeout=0 tests/e2e/test_kills*.py

.PHONY: demo
demo: install ## run a director, two clients and the dashboard on this machine (CHECK=1: unattended, verifying each outcome)
	@tools/system-packages borg git ssh
	$(PYTHON) examples/demo/demo.py $(if $(CHECK),--check)

.PHONY: screenshots
screenshots: install ## take the pictures of the README and the docs anew, from the demo
	@tools/system-packages borg chromium git ssh
	$(PYTHON) -m tools.screenshots

.PHONY: schemas
schemas: install ## regenerate the published JSON Schemas
	$(PYTHON) -m tools.schemas

.PHONY: docs
docs: install ## regenerate docs/reference from the code
	$(PYTHON) -m tools.reference

.PHONY: lock
lock: install ## resolve requirements.lock anew, for every supported Python at once
	tools/lock

.PHONY: clean
clean: ## remove everything that was made here, the virtual environment included
	rm -rf .venv dist build htmlcov .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
