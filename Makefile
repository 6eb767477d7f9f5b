# Everything starts from a fresh clone: each target sets up .venv first if it is not there.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready

.PHONY: demo test test-slow check format clean

demo: $(READY)  ## the whole job on the packaged model and data (CPU, under 10 minutes)
	$(BIN)/afa demo

# Two workers at most: many tests start two ranks. A file stays with one worker, for its fixtures take long.
test: $(READY)  ## the default tests
	$(BIN)/python -m pytest -n logical --maxprocesses 2 --dist loadfile

test-slow: $(READY)  ## the tests that take minutes each, with the programs that two nodes on one machine need
	bash tools/test_programs.sh
	$(BIN)/python -m pytest -m "slow or system"

check: $(READY)  ## format, lint, types, import floors
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Without an NVIDIA GPU torch's CPU build is enough; tools/setup.sh finds it.
$(READY): pyproject.toml tools/setup.sh
	PYTHON=$(PYTHON) bash tools/setup.sh $(VENV)
	touch $@

clean:
	rm -rf $(VENV) runs dist build .mypy_cache .ruff_cache .pytest_cache
