# make demo    install into .venv if needed, then run the whole pipeline on rendered landmarks
# make test    install into .venv if needed, then run all tests
# make lint    linter, formatter, type checker; make test-fast: the tests that take no time; make fuzz: damaged files for every reader; make clean: remove .venv and results
# make bench   every benchmark into benchmarks/results and the table of docs/performance.md (an hour of a quiet machine); make bench-smoke: that each runs
# make kills   kill every command that writes at random moments, then fill its disk (an hour; TRIALS=20 for less)
# make test-lowest test-newest  the tests with the lowest, and with the newest versions that pyproject.toml allows
# make kernels compile the operators now; make gpu-check: on a machine with an NVIDIA GPU, build, test and measure them

PYTHON ?= python3
VENV   := .venv
READY  := $(VENV)/.ready

.PHONY: install demo test test-fast test-lowest test-newest fuzz browser lint bench bench-smoke kills kernels gpu-check clean

install: $(READY)

$(READY): pyproject.toml setup.py constraints.txt
	@echo "installing ultron and its pinned packages into $(VENV) (several GB with PyTorch; about four minutes)"
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	@# setuptools warns at length of every editable installation
	PYTHONWARNINGS=ignore $(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	@$(VENV)/bin/python -c "from ultron_kernels import ops, scaling, search; ops.implementation('cpu', 'auto'); search.is_ready(worth_building=True); scaling.is_ready(worth_building=True)" # compiled now, not in the first command
	@touch $(READY)

demo: $(READY)
	$(VENV)/bin/ultron demo

test: $(READY) browser
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal

# No training, no processes, no browser, no compiler: under a minute.
test-fast: $(READY)
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal -q -m "not slow"

# READERS: some of tests/fuzz/readers.py; INPUTS: damaged files for each. What failed lies in build/fuzz.
INPUTS ?= 200000
fuzz: $(READY)
	$(TEST_ENV) $(VENV)/bin/python -m tests.fuzz $(READERS) --inputs $(INPUTS)

# The versions that pyproject.toml allows, each set in an environment of its own in build/versions (several GB).
test-lowest test-newest: browser
	$(PYTHON) tests/versions.py $(@:test-%=%)

# The report is clicked through in a browser, where there is one or the system's packages can be installed.
browser:
	@command -v chromedriver >/dev/null || { \
	  [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && echo "installing Chromium for the tests of the report" && \
	  { timeout 300 apt-get install -y -qq --no-install-recommends chromium chromium-driver >/dev/null 2>&1 || \
	    { timeout 120 apt-get update -qq && timeout 300 apt-get install -y -qq --no-install-recommends chromium chromium-driver; } >/dev/null 2>&1; }; } || \
	  echo "no Chromium with its driver: the browser tests of the report are skipped"

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check --quiet .
	@# The folder kernels is imported under another name, which a type checker finds by this link.
	@mkdir -p build/types && ln -sfn ../../kernels build/types/ultron_kernels
	$(VENV)/bin/basedpyright

bench: $(READY)
	$(VENV)/bin/python benchmarks/performance.py --measure --write docs/performance.md

bench-smoke: $(READY)
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal tests/test_benchmarks.py

TRIALS ?= 200
kills: $(READY)
	$(VENV)/bin/python benchmarks/reliability.py kills --trials $(TRIALS)
	$(VENV)/bin/python benchmarks/reliability.py signals --trials $(TRIALS)
	$(VENV)/bin/python benchmarks/reliability.py full-disk
	$(VENV)/bin/python benchmarks/reliability.py index-at-once

kernels: $(READY)
	$(VENV)/bin/ultron doctor --build

# GPU_PYTHON: an environment with PyTorch for CUDA, where .venv is not wanted (python3 on a lent machine).
# STEPS: some of build tests memcheck racecheck benchmark networks.
GPU_PYTHON ?= $(VENV)/bin/python
gpu-check:
	$(GPU_PYTHON) benchmarks/gpu_check.py $(if $(STEPS),--steps $(STEPS))

clean:
	rm -rf $(VENV) ultron-demo ultron-runs
