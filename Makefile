# Every verb runs set-up first, which takes a few hundredths of a second when nothing is to do.
# Arguments pass through ARGS:
#   make test ARGS="-k framing"      make serve ARGS="--port 9000"

ARGS ?=
FUZZ_SECONDS ?= 300
BIN := .venv/bin
# Of runs whose tests take as long as they are told to.
LONG := -n 0 -o faulthandler_timeout=0

# Container images set it to stay small; here every process that a test starts would compile all of its modules again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup serve test soak faults fuzz lint bench docs check-packages release-check clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Bring uv, Python 3.14t and the locked packages to this machine
	@scripts/setup

serve: setup ## Serve the example application
	$(BIN)/pounce serve --app-dir examples fastapi_app:app $(ARGS)

test: setup ## Run the tests
	$(BIN)/python -m pytest $(ARGS)

soak: setup ## Run the long tests that look for growth
	$(BIN)/python -m pytest -m soak $(LONG) $(ARGS)

faults: setup ## Reload, kill, block and flood servers under load; every answer is checked
	$(BIN)/python -m pytest tests/workers tests/deploy -m faults $(LONG) -s $(ARGS)

fuzz: setup ## Run each differential suite of the wires for FUZZ_SECONDS (300)
	POUNCE_FUZZ=$(FUZZ_SECONDS) $(BIN)/python -m pytest packages/pounce-h1fast/tests/test_differential.py \
		packages/pounce-h1fast/tests/test_sequences.py packages/pounce-h2/tests/test_sequences.py \
		packages/pounce-h3/tests/test_sequences.py $(LONG) $(ARGS)

lint: setup ## Check style, types and that uv.lock fits the pyproject files
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/uv lock --check

# The environment of the other servers is built with our uv.
bench: ## Measure against other servers
	@scripts/setup --group bench
	$(BIN)/python -m benchmarks.micro
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m benchmarks.micro.instructions
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m benchmarks.load $(ARGS)

docs: setup ## Build the site of the documentation into site/
	$(BIN)/python scripts/docs $(ARGS)

check-packages: setup ## Build every package; install and use each alone, and the sets that people install
	$(BIN)/python scripts/check-packages

release-check: ## Look whether this checkout could be released
	@scripts/setup --group release
	$(BIN)/python scripts/release-check

# Interpreters and uv stay in the user's cache folder.
clean: ## Remove everything that the other verbs make in the checkout
	rm -rf .venv dist build site .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
