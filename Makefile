# make demo: set up, draw a simulated example, train, compare, predict.   make test: set up, run every check.   make docs: build the documentation site.
PYTHON ?= python3
VENV ?= .venv
# One known version, so that pip does not fetch a CUDA build where a CPU build of it is on offer.
TORCH ?= torch==2.13.0
DEMO ?= demo
SITE ?= site
# What is installed for the demo; INSTALL=. takes the wheel in place of the tree.
INSTALL ?= --editable .
BIN := $(VENV)/bin
# One process of one thread for each core; the tests of a file share their fixtures.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile

.PHONY: demo test docs setup tested clean

demo: $(VENV)/.installed
	$(BIN)/biomedcoop datasets simulate breast-ultrasound --out $(DEMO)/data --overwrite
	$(BIN)/biomedcoop train --data $(DEMO)/data --out $(DEMO)/run --overwrite
	$(BIN)/biomedcoop predict $(DEMO)/run $(DEMO)/data/test/benign_tumor/0000.png $(DEMO)/data/test/malignant_tumor/0000.png
	@echo
	@echo "The images above are simulated. Open $(DEMO)/run/report.html, or train on your own folder of class folders:"
	@echo "  $(BIN)/biomedcoop train --data YOUR_FOLDER --out YOUR_RUN"

test: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST)

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet --site-dir $(abspath $(SITE))
	@echo "Open $(SITE)/index.html"

setup: $(VENV)/.installed-dev

# The versions of this environment; after all checks have passed in it (docs/versions.md).
tested: $(VENV)/.installed-dev
	{ echo "# $$($(BIN)/python -VV), $$(uname -sm); written by 'make tested'"; $(BIN)/pip freeze --exclude-editable; } > requirements/tested.txt

$(VENV)/.installed: pyproject.toml
	@echo "installing into $(VENV); the first time this takes a minute or more"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet "$(TORCH)"
	$(BIN)/pip install --quiet $(INSTALL)
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --editable ".[dev]"
# Without its torchvision, which asks for a CUDA build of torch; the tests do without (tests/backbones/real_timm.py).
	$(BIN)/pip install --quiet --no-deps "timm>=1.0.31"
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/pip install --quiet --editable ".[docs]"
	@touch $@

clean:
	rm -rf $(VENV) $(DEMO) $(SITE)
