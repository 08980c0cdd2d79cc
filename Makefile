# make          this list
# make search   the whole pipeline on the built-in corpus: set-up, data, search, ensemble, test
# make test     the tests, in 10 to 15 minutes on two cores
# make test-all the same, then the slow ones: several machines, browsers, a full disk, many kills
# make venv     only the set-up (.venv with the versions of requirements.lock)
# make check    ruff and mypy
# make docs     write the pages of all commands again, from their help
# make site     the documentation as a site, in site/; every link is checked
# make dist     a source distribution and a wheel, in dist/, checked
# make gpu-check  what only a GPU can show, on one: right, fast, shared; about 7 minutes
# make lock     write requirements.lock from the versions that are installed in .venv
# make lock-publish  the same for `make site` and `make dist`, with the newest versions
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help search test test-all venv check gpu-check lock lock-publish docs site dist
help:
	@sed -n 's/^# //p;/^$$/q;/^[A-Z]/q' Makefile

search: venv
	$(BIN)/python -m mgc_ray.search --family gru

PYTEST := $(BIN)/python -m pytest

test: venv
	$(PYTEST) -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder

test-all: test
	$(PYTEST) -m slow

check: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

venv: .venv/installed

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "mgc_ray needs Python 3.11 or newer, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1); give another: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@echo "Installing into .venv, once: up to 6.7 GB on disk, some minutes."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on -r requirements.lock
	@# only for the weights in it: what it needs to be imported cannot be installed beside the rest
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps musicnn==0.1.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

gpu-check: venv
	PYTHONPATH=. $(BIN)/python tests/benchmarks/gpu.py

docs: venv
	PYTHONPATH=. $(BIN)/python tests/make_docs.py

lock: venv
	{ sed -n '/^#/p' requirements.lock; \
	  $(BIN)/python -m pip freeze --all --exclude-editable | grep -v -e '^pip==' -e '^musicnn==' | sed 's/+cpu//'; } > requirements.new
	mv requirements.new requirements.lock

# Sphinx and what builds packages are apart from the rest: no user needs them.
PUBLISH := .venv-publish

$(PUBLISH)/installed: requirements-publish.lock
	$(PYTHON) -m venv $(PUBLISH)
	$(PUBLISH)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-publish.lock
	@touch $@

site: $(PUBLISH)/installed
	$(PUBLISH)/bin/sphinx-build --fail-on-warning --keep-going --quiet --fresh-env -c docs . site
	@echo '<meta http-equiv="refresh" content="0; url=docs/README.html">' > site/index.html
	@echo "open site/index.html"

dist: $(PUBLISH)/installed
	rm -rf dist
	$(PUBLISH)/bin/python -m build --no-isolation
	$(PUBLISH)/bin/python -m twine check --strict dist/*

lock-publish:
	rm -rf $(PUBLISH)
	$(PYTHON) -m venv $(PUBLISH)
	$(PUBLISH)/bin/python -m pip install --quiet -c requirements.lock $$($(PYTHON) -c 'import tomllib; \
	  extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]; print(*extras["docs"], *extras["dist"])')
	{ sed -n '/^#/p' requirements-publish.lock; $(PUBLISH)/bin/python -m pip freeze --all | grep -v '^pip=='; } > requirements.new
	mv requirements.new requirements-publish.lock
