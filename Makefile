# `make help` lists the targets. Each one installs what it needs into $(VENV), and finds it there the next time.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
ARGS ?=

BIN := $(VENV)/bin
SHARED := -n $(WORKERS) --dist=worksteal
PYTEST := $(BIN)/python -m pytest $(SHARED)
GALLERY := tests/experiments/gallery
PAGES := tests/test_readme.py

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help compare test test-docs test-experiments test-gallery portable some lowest with-lowest slow lint docs notebooks package clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1@/p' $(MAKEFILE_LIST) | awk -F@ '{ printf "  make %-16s  %s\n", $$1, $$2 }'
	@echo 'Settings: PYTHON=$(PYTHON)  VENV=$(VENV)  WORKERS=$(WORKERS)  ARGS="more arguments"'

compare: $(VENV)/.installed-experiments  ## race the methods on test problems and draw who converges how fast
	$(BIN)/python -m experiments compare $(ARGS)

test: $(VENV)/.installed-test  ## run the library's tests, without the slow ones
	$(PYTEST) -m "not slow" --ignore-glob="secondorder/*" --ignore=$(PAGES) --ignore=tests/experiments $(ARGS)

test-docs: $(VENV)/.installed-test  ## run the examples of all docstrings and pages
	$(PYTEST) secondorder $(PAGES) $(ARGS)

test-experiments: $(VENV)/.installed-test  ## run the tests of experiments/, without the slow ones
	$(PYTEST) -m "not slow" --ignore=$(GALLERY) tests/experiments $(ARGS)

test-gallery: $(VENV)/.installed-test  ## run the tests of the gallery, without the slow ones
	$(PYTEST) -m "not slow" $(GALLERY) $(ARGS)

portable: $(VENV)/.installed-test  ## run the numerical tests under each instruction set there is, by 1 and 4 threads
	$(BIN)/python tests/portable.py $(SHARED) $(ARGS)

# Rooms in which another JAX has shown.
SOME := tests/operators tests/spectrum tests/optimize/test_loop.py tests/losses

some: $(VENV)/.installed-test  ## run the tests of a few rooms, as for another PYTHON and VENV
	$(PYTEST) -m "not slow" $(SOME) $(ARGS)

lowest:  ## run them with the lowest versions allowed, in .venv-lowest
	@$(MAKE) --no-print-directory VENV=.venv-lowest with-lowest

with-lowest: $(VENV)/.installed-lowest
	$(PYTEST) -m "not slow" $(SOME) $(ARGS)

slow: $(VENV)/.installed-test  ## run the slow tests of all three
	$(PYTEST) -m slow $(ARGS)

lint: $(VENV)/.installed-lint  ## check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: $(VENV)/.installed-docs  ## build the pages into site/, and open some in a browser
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict
	$(BIN)/python -m pytest tests/test_site.py
	@echo "The pages are in site/: open site/index.html."

notebooks: $(VENV)/.installed-test  ## make docs/notebooks/ from their pages and studies, and run them
	$(BIN)/python docs/notebooks.py

package: $(VENV)/.installed-test  ## build wheel and sdist, install each into an environment of its own, check it there
	rm -rf dist build/package
	$(BIN)/python -m hatchling build --directory dist
	for built in dist/*; do \
	  rm -rf build/package && $(PYTHON) -m venv build/package && \
	  build/package/bin/python -m pip install -qq --disable-pip-version-check "$$built" && \
	  (cd build && package/bin/python -m secondorder.doctor) || exit 1; \
	done

clean:  ## remove what make built; results/ stays
	rm -rf $(VENV) .venv-newer .venv-lowest build dist site .hypothesis .pytest_cache .ruff_cache
	find experiments secondorder tests -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp per extra, renewed when the dependencies change.
$(VENV)/.installed-%: pyproject.toml | $(VENV)/.created
	@echo "Installing secondorder[$*] into $(VENV) (the first time takes a minute or two) ..."
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --editable '.[$*]'
	@touch $@

$(VENV)/.installed-lowest: pyproject.toml tests/lowest.py | $(VENV)/.created
	@echo "Installing the lowest versions into $(VENV) ..."
	@$(BIN)/python tests/lowest.py > $(VENV)/lowest.txt
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --constraint $(VENV)/lowest.txt --editable '.[test]'
	@touch $@

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "secondorder needs Python 3.11 or newer, and '$(PYTHON)' is not: name one that is, as in 'make PYTHON=python3.12 test'." >&2; \
	  exit 1; }
	@echo "Creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@
