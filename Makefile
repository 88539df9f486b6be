# One-word commands. Everything is installed into .venv; nothing needs root.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# At a terminal one sees what is fetched; a log is spared it.
PIP := $(BIN)/pip --disable-pip-version-check $(if $(MAKE_TERMOUT),,--quiet)

.DEFAULT_GOAL := help
.PHONY: help demo docs deploy-lint test test-long faults faults-long check lint types imports audit licences format schema settings bench bench-engine bench-gpu bench-system clean

help: ## List the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

demo: $(VENV)/.runtime ## Repaint a picture at several strengths with everything on this machine
	$(BIN)/overpaint demo

test: $(VENV)/.dev ## Run the tests (under 8 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not long and not gpu and not faults"

faults: $(VENV)/.dev ## Break things and see that no job is lost (under 5 minutes)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "faults and not long" tests/faults

faults-long: $(VENV)/.dev ## The same at random for half an hour, with a report in faults-report/
	$(BIN)/python -m tests.faults --minutes 30 --report faults-report

test-long: $(VENV)/.dev ## Run all the tests, the long ones too
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not gpu"

check: lint types imports audit licences docs deploy-lint ## Linters, types, the layout, known holes, licences, pages, images

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy
	$(BIN)/mypy docker/*.py

imports: $(VENV)/.dev
	$(BIN)/lint-imports

audit: $(VENV)/.dev
	@$(BIN)/python -m tools.audit $(AUDIT)

licences: $(VENV)/.dev
	@$(BIN)/python -m tools.licences

docs: $(VENV)/.dev ## Build the pages of docs/ as HTML, and check their links
	@$(BIN)/python -m tools.errors_page
	@$(BIN)/python -m tools.cli_page
	@$(BIN)/python -m tools.settings_page
	$(BIN)/sphinx-build -W --keep-going --nitpicky --quiet --builder html --conf-dir docs . build
	@! grep -rEoh '<(script|link|img)[^>]*(src|href)="https?://[^"]*"' build --include='*.html'
	@echo "build/docs/index.html"

deploy-lint: $(VENV)/.dev ## Lint the Dockerfiles, the compose file and the Kubernetes manifests
	$(BIN)/python -m pytest -q tests/infra/test_lint.py

format: $(VENV)/.dev ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schema: $(VENV)/.dev ## Write the JSON Schemas of the contract again
	$(BIN)/python -m overpaint_common.schema

settings: $(VENV)/.dev ## Write the tables of docs/settings.md again
	$(BIN)/python -m tools.settings_page --write

bench: $(VENV)/.dev ## Measure the system's own costs
	$(BIN)/python -m bench.overhead
	$(BIN)/python -m bench.submission
	$(BIN)/python -m bench.asyncio_waits
	$(BIN)/python -m bench.memory
	$(BIN)/python -m bench.recovery

bench-engine: $(VENV)/.dev ## Measure the engine beside two ways of calling diffusers (about 5 minutes)
	$(BIN)/python -m bench.engine

bench-gpu: $(VENV)/.dev ## Check and measure the engine on one CUDA GPU, with random weights (under 8 minutes)
	$(BIN)/python -m bench.gpu

bench-system: $(VENV)/.dev ## Measure the whole system beside a naive Celery task
	$(BIN)/python -m bench.system

clean: ## Remove what the commands above made
	rm -rf $(VENV) build overpaint-demo overpaint-local faults-report .mypy_cache .ruff_cache .pytest_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Overpaint needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV); torch makes this a matter of minutes"
	$(PIP) install -c constraints.txt -e '.[worker,local]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV); torch makes this a matter of minutes"
	$(PIP) install -c constraints.txt -e '.[worker,local,dev]'
	@touch $@ $(VENV)/.runtime
