# The few verbs a person needs. Every target makes .venv by itself.

PYTHON := $(shell for python in python3.13 python3.12 python3.11 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)
BIN := .venv/bin

.PHONY: demo test check types bench conformance docs-operators clean

.venv: pyproject.toml
	@test -n "$(PYTHON)" || { echo "mnnpy needs Python 3.11 or later on PATH" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable ".[dev,image]"
	@touch .venv

demo: .venv  ## Convert, plan and classify handwritten digits on every usable backend.
	$(BIN)/mnnpy demo

test: .venv  ## Run the tests; arguments for pytest go in ARGS.
	$(BIN)/pytest $(ARGS)

check: .venv  ## Lint, formatting and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(MAKE) --no-print-directory types

types: .venv  ## mypy on the built wheel, from outside the repository: its import hook hides the rest.
	@rm -rf build/lib build/bdist.*
	@site=$$(mktemp -d) && trap 'rm -rf "$$site"' EXIT \
	&& $(BIN)/pip wheel --quiet --no-deps --wheel-dir "$$site" . \
	&& $(BIN)/pip install --quiet --no-deps --target "$$site/site" "$$site"/*.whl \
	&& cd "$$site" && MYPYPATH="$$site/site" $(CURDIR)/$(BIN)/mypy -p mnnpy \
	--config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache

bench: .venv  ## Side by side with other engines, and README's table of it; arguments go in ARGS.
	$(BIN)/pip install --quiet --editable ".[bench]"
	$(BIN)/python -m benchmarks $(ARGS)
	$(BIN)/python -m benchmarks.readme

conformance: .venv  ## ONNX's own test suite, with the counts per backend.
	$(BIN)/python -W ignore -m tests.conformance $(ARGS)

docs-operators: .venv  ## docs/operators.md, from the code and the last run of conformance.
	$(BIN)/python -W ignore -m tests.conformance.operators

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
