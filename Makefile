# Two commands matter: `make run` and `make test`. Each does the set-up that it needs.
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run test bench soak bench-check install engine images test-images test-tools bench-tools check format clean

BIN := .venv/bin
ARGS ?=
export PORT ?= 8080

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: images ## serve on 127.0.0.1:$PORT (8080) with the example functions, and show calls of them
	@$(BIN)/python scripts/demo.py

test: install test-images check ## all checks and tests (ARGS="-k name" goes to pytest)
	@$(BIN)/python -m pytest -m "not bench and not slow" $(ARGS)

bench: install bench-tools test-images ## measure, against nginx and docker run (ARGS="--help" lists the options)
	@$(BIN)/python -m tests.bench $(ARGS)

soak: install test-images ## a million calls, good and bad; fails when the node leaks (ARGS="--calls 20000")
	@$(BIN)/python -m tests.soak $(ARGS)

bench-check: install bench-tools test-images ## measure for a minute and compare with docs/performance.json
	@$(BIN)/python -m tests.bench --short --check docs/performance.json $(ARGS)

check: install ## format, lint, types, imports
	@$(BIN)/ruff format --check --quiet . || { $(BIN)/ruff format --diff --quiet .; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: install ## format the code and fix what can be fixed
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

install: ## .venv with the package and its tools
	@scripts/install.sh

engine: install ## a Docker Engine that answers
	@$(BIN)/python scripts/engine.py

images: engine ## the images of the examples, and their base images
	@$(BIN)/python -m deploy.images

test-images: test-tools engine ## the images of the tests' functions
	@$(BIN)/python -m tests.functions.build

test-tools: ## the programs that tests run
	@scripts/tools.sh test

bench-tools: ## the programs that benchmarks run
	@scripts/tools.sh bench

clean: ## remove .venv, caches and what was built; not data/
	@rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
