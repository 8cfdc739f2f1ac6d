# The course in two commands: `make course` runs it, `make test` checks it. `make help` lists the rest.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
BROWSER := .venv/.browser

.PHONY: help install model course exercises lab test studies docs site publish bench mutants hosted site-test lab-test clean

help:  ## list these commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

$(INSTALLED): requirements.txt requirements-litgpt.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14) and "The pinned packages are made for Python 3.11 to 3.14; name one of them, for example: make course PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check "$$(grep ^torch== requirements.txt)"
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps -e .
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps -r requirements-litgpt.txt
	@touch $@

install: $(INSTALLED)  ## make .venv and install the pinned packages

model: $(INSTALLED)  ## fetch the language model (93 MB, once)
	@$(BIN)/python -m course_utils.loading

course: model  ## run the four lessons (ALL=1: their second halves and the exercises too); the site, of all notebooks, is in build/course/
	@$(BIN)/python -m course_utils.course $(if $(ALL),--all)

exercises: $(INSTALLED)  ## copy the exercises to notebooks/mine/, where your answers are yours
	@$(BIN)/python -m course_utils.exercises

lab: model  ## open the notebooks in JupyterLab
	$(BIN)/python -m jupyterlab --ServerApp.kernel_spec_manager_class=course_utils.course.execute.ThisPython --notebook-dir notebooks

test: model  ## run all tests, the notebooks among them, a file in each of two processes
	$(BIN)/python -m pytest -n 2 --dist loadfile

studies: model  ## run the long experiments whose records are in data/studies/ (those that are missing)
	@$(BIN)/python -m course_utils.studies

docs: model  ## write the generated parts of README, CLAIMS, CONTRIBUTING, the datasheet and instructors/ (runs no notebook)
	@$(BIN)/python -m course_utils.course --docs

site: $(INSTALLED)  ## build the site of the stored notebooks in build/course/ (runs none)
	@$(BIN)/python -m course_utils.course --site

publish: $(INSTALLED)  ## write the public address of the repository everywhere: make publish REPO=https://...
	@$(BIN)/python -m course_utils.course --publish "$(REPO)"

bench: model  ## time the training step beside stock TRL and a plain PEFT loop (12 min); build/bench.json
	@$(BIN)/python -m tests.bench

mutants: model  ## break the code on purpose, fault by fault, and show which test goes red
	@$(BIN)/python -m tests.mutants

$(BROWSER): requirements-browser.txt $(INSTALLED)
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps -r $<
	@touch $@

site-test: site $(BROWSER)  ## look at every page of the site in a Chromium; pictures in build/screenshots/
	@$(BIN)/python -m tests.browser.site

lab-test: model $(BROWSER)  ## run the lessons in JupyterLab in a Chromium; pictures in build/screenshots/
	@$(BIN)/python -m tests.browser.lab

hosted: model  ## run all notebooks with the packages of Colab, of Kaggle, with the oldest and the newest (hours)
	@$(BIN)/python -m tests.hosted

clean:  ## remove .venv and build/; the model stays in its cache
	rm -rf .venv build
