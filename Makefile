# `make demo` and `make test` do everything on a bare machine; `make help` lists the rest.
# The virtual environment is made by scripts/venv.sh, with uv when it is there and plain pip when not.

VENV ?= .venv
UV ?= uv
OUTPUT ?= erfattr-output
ARGS ?=
MINUTES ?= 10
WORKERS ?= auto
export PYTHON UV

BIN := $(VENV)/bin
DEMO := $(BIN)/erfattr map --model demo --layers layer3 layer4 output --output $(OUTPUT)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test test-explore test-robust test-oldest test-newest venv lint format types docs hooks wheel check clean distclean FORCE

help:
	@echo 'make demo      install, run the main job on embedded data, print where the pictures are'
	@echo 'make test      install, run the tests; make test ARGS="-k erf -x" hands ARGS to pytest'
	@echo 'make test-explore MINUTES=60   repeat the property tests with examples drawn anew'
	@echo 'make test-robust   bad inputs, kills and bit flips, all of them (an hour; make test runs the quick part)'
	@echo 'make test-oldest   the tests with the oldest versions that pyproject.toml declares, in $(VENV)-oldest (Python 3.10 or 3.11)'
	@echo 'make test-newest   the tests with the newest versions there are, in $(VENV)-newest'
	@echo 'make venv      install everything that working on erfattr needs'
	@echo 'make lint      ruff and the floors of the house   make format    let ruff mend what it can'
	@echo 'make types     mypy --strict on erfattr/       make docs      build docs/_build/html'
	@echo 'make hooks     the pre-commit hooks            make wheel     build it and try it in a new environment'
	@echo 'make check     test, lint, types, docs, hooks and wheel'
	@echo 'make clean     remove what was built           make distclean remove $(VENV) as well'
	@echo
	@echo 'PYTHON=python3.12 chooses the interpreter, VENV=folder the environment, UV= (empty) pip instead of uv,'
	@echo 'OUTPUT=folder where the demo writes, ARGS="..." adds arguments to the demo or to pytest, WORKERS=0 tests in one process.'

# One stamp for each set of extras; all are out of date when the environment is half-made, broken or moved.
INSTALL := pyproject.toml scripts/venv.sh $(if $(shell sh scripts/venv.sh --stale '$(VENV)'),FORCE)
$(VENV)/.installed-run: $(INSTALL)
	@sh scripts/venv.sh '$(VENV)' -e .
	@touch $@
$(VENV)/.installed-test: $(INSTALL)
	@sh scripts/venv.sh '$(VENV)' -e '.[test]'
	@touch $@
$(VENV)/.installed-dev: $(INSTALL)
	@sh scripts/venv.sh '$(VENV)' -e '.[dev,docs]'
	@touch $@
FORCE:

demo: $(VENV)/.installed-run
	$(DEMO) $(ARGS)
	@printf '\nThe pictures:\n' && ls -d "$$(cd '$(OUTPUT)' && pwd -P)"/*.png

# One worker a physical core; each holds 1.5 GB, so not more than four.
PARALLEL := -n $(WORKERS) --maxprocesses=4 --dist=worksteal

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

test-explore: $(VENV)/.installed-test
	@sh scripts/explore.sh $(MINUTES) $(BIN)/python -m pytest $(PARALLEL) $(ARGS)

# Weekly in spirit.
test-robust: $(VENV)/.installed-test
	$(BIN)/python -m pytest $(PARALLEL) -m 'robust or not robust' tests/robustness $(ARGS)

# The oldest versions that pyproject.toml declares, and the newest there are, in environments of their own.
OLDEST := $(VENV)-oldest
NEWEST := $(VENV)-newest
$(OLDEST)/.installed-oldest: pyproject.toml scripts/oldest.py scripts/venv.sh
	@pins=$$(mktemp) && $(or $(PYTHON),python3) scripts/oldest.py >"$$pins" && cat "$$pins" && \
		sh scripts/venv.sh '$(OLDEST)' -c "$$pins" -e '.[test]'; status=$$?; rm -f "$$pins"; exit $$status
	@touch $@

test-oldest: $(OLDEST)/.installed-oldest
	$(OLDEST)/bin/erfattr map --model demo --count 4 --output '$(OUTPUT)' --overwrite
	$(OLDEST)/bin/python -m pytest $(PARALLEL) $(ARGS)

test-newest:
	@sh scripts/venv.sh '$(NEWEST)' --upgrade -e '.[test]'
	$(NEWEST)/bin/erfattr map --model demo --count 4 --output '$(OUTPUT)' --overwrite
	$(NEWEST)/bin/python -m pytest $(PARALLEL) $(ARGS)

venv: $(VENV)/.installed-dev

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

docs: $(VENV)/.installed-dev
	$(BIN)/python -m sphinx --fail-on-warning --keep-going -b html docs docs/_build/html
	$(BIN)/python scripts/check_site.py docs/_build/html
	@echo "The pages: $$(pwd -P)/docs/_build/html/index.html"

# The hooks call the tools of this environment, so they find it first on the path.
hooks: $(VENV)/.installed-dev
	PATH="$$(cd $(BIN) && pwd):$$PATH" $(BIN)/pre-commit run --all-files

wheel: $(VENV)/.installed-dev
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist
	$(BIN)/python -m twine check --strict dist/*
	sh scripts/check_wheel.sh dist/erfattr-*.whl

check: test lint types docs hooks wheel

clean:
	rm -rf dist build docs/_build docs/gallery docs/api/generated .pytest_cache .mypy_cache .ruff_cache
	find erfattr tests examples benchmarks scripts docs -name __pycache__ -type d -exec rm -rf {} +

distclean: clean
	rm -rf '$(VENV)' '$(OLDEST)' '$(NEWEST)'
