# make demo    sets up, and searches on real data
# make test    sets up, and runs every check and test but the slow ones
PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
# How many files of tests at a time: tests start processes of their own.
FILES ?= 2
AT_ONCE := -n $(FILES) --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-slow pictures check format docs lock bench bench-peers clean

# With another goal beside it (make -j2), the demo waits until nothing is installed any more.
demo: .venv/installed | $(if $(filter test check format,$(MAKECMDGOALS)),.venv/installed-test)
	$(BIN)/tuner run experiments/air_passengers.yaml
	@echo
	@echo "These commands are in .venv; first type:  source .venv/bin/activate"

test: check
	$(PYTEST) -m "not slow" $(AT_ONCE)

test-slow: .venv/installed-test
	TUNER_TEST_EXAMPLES=all $(PYTEST) -m "slow or hypothesis" $(AT_ONCE)

# The tests in a browser; those of MLflow are on the search of the README.
pictures: .venv/installed-test
	TUNER_PICTURES=docs/images $(PYTEST) tests/browser

check: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The documentation as a site in site/; a broken link is an error.
docs: .venv/installed-test
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "Open site/index.html, or run with search:  $(BIN)/python -m http.server --directory site"

bench: .venv/installed
	$(BIN)/python benchmarks/overhead.py

# Searches beside other tools, each in an environment of its own; no measurement begins after an hour
# for each of small and quality, half an hour for large, and a quarter for overhead. It goes on where
# it was interrupted. `make bench-peers JOBS=small`, `ETTH1=path/to/ETTh1.csv` for large.
JOBS ?= small large overhead quality
bench-peers: .venv/installed
	$(BIN)/python benchmarks/peers/bench.py install --job $(JOBS)
	$(BIN)/python benchmarks/peers/bench.py run --job $(JOBS) $(if $(ETTH1),--etth1 $(ETTH1))
	$(BIN)/python benchmarks/peers/bench.py table --job $(JOBS) --write benchmarks/peers

# What was installed is written next to it, so that a change of either file installs again.
.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "tuner needs Python 3.11 or newer; say which:  make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	@touch $@

.venv/installed-test: .venv/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@

# Pins what a new environment gets today; torch stays where it is until it is moved by hand.
lock:
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	grep '^torch==' constraints.txt > .venv-lock/torch.txt
	.venv-lock/bin/pip install --quiet --constraint .venv-lock/torch.txt '.[test]'
	.venv-lock/bin/pip freeze --exclude lstm-tuner | sed 's/+cpu$$//' > constraints.txt
	rm -rf .venv-lock

clean:
	rm -rf .venv .venv-lock benchmarks/peers/.venv-* benchmarks/peers/results.jsonl benchmarks/peers/peers.png build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
