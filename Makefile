# `make` lists what there is to do. Every target first sees to .venv, so a fresh clone needs only Python and make.

# The interpreter that .venv is built from. Empty: python3 if it is 3.10 or newer, else the newest one found.
PYTHON ?=
# Extra arguments for the command of a target: make run ARGS="seed=3,4,5", make test ARGS="tests/test_train.py -x"
ARGS ?=
# Worker processes of the test suite, and the least coverage in percent that `make coverage` accepts.
WORKERS ?= 2
COVERAGE_MIN ?= 90

QUICKSTART = +experiments=quickstart
QUICKSTART_REPORT = runs=runs/quickstart out=runs/quickstart/report.html

PY = .venv/bin/python
export UV_PYTHON_DOWNLOADS = never
export UV_HTTP_TIMEOUT ?= 300
# The machine's own certificates, as pip does: a company's proxy signs with them. A bare container may have none.
export UV_SYSTEM_CERTS ?= $(if $(wildcard /etc/ssl/certs/*.pem /etc/ssl/cert.pem /etc/pki/tls/certs/*),true,false)
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PIP_ROOT_USER_ACTION = ignore

.DEFAULT_GOAL = help
.NOTPARALLEL:
.PHONY: help setup run report doctor test coverage check docs notebooks format bench bench-full lock clean

help: ## list the targets
	@awk -F ': .*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile
	@echo '  Options: ARGS="..." is passed on (run, report, test, bench, bench-full); PYTHON=python3.12 picks the interpreter of .venv.'

# .venv/.installed is a copy of the requirements.lock and pyproject.toml that were installed to the end, so a change of
# content starts an install and a change of date does not. .venv/.installing marks a setup that was cut off: that .venv is built anew,
# because a package that was half copied looks installed to every installer.
setup: ## build .venv with the pinned packages (nothing to do: under a second)
	@$(ENVIRONMENT_WORKS) && [ ! -e .venv/.installing ] && cat requirements.lock pyproject.toml | cmp -s - .venv/.installed \
	  $(if $(filter setup,$(MAKECMDGOALS)),&& echo ".venv is up to date",) && exit 0; \
	$(BUILD_ENVIRONMENT); $(INSTALL_PACKAGES)

run: setup ## train scratch, SSL + fine-tuning and SSAT on the embedded digits, then compare them
	$(PY) -m src.train $(QUICKSTART) $(ARGS)
	$(PY) -m src.report $(QUICKSTART_REPORT)

report: setup ## table and HTML page of the finished runs
	$(PY) -m src.report $(ARGS)

doctor: setup ## check the installation, the data and tiny runs
	$(PY) -m src.doctor $(ARGS)

# One thread a worker, or the workers fight over the cores; worksteal because one file holds most of the long tests.
test: setup ## the test suite (slow and GPU tests: ARGS="-m slow", ARGS="-m gpu")
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

coverage: setup ## the test suite with the lines that it runs, which takes half as long again
	$(MAKE) test ARGS="--cov --cov-fail-under=$(COVERAGE_MIN) $(ARGS)"

check: setup ## lint, format check, layers and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	.venv/bin/lint-imports --no-cache
	$(PY) -m mypy

docs: setup ## the documentation as a site, build/site/index.html; stops at a broken link
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict $(ARGS)
	@echo "build/site/index.html"

notebooks: setup ## run docs/notebooks again and keep what they print (10 minutes)
	$(PY) docs/site/run_notebooks.py $(ARGS)

format: setup ## sort imports, apply safe fixes, format
	$(PY) -m ruff check --fix-only --quiet .
	$(PY) -m ruff format .

bench: setup ## time step, input, inference and loop against plain ones (3 minutes)
	$(PY) -m benchmarks.all $(ARGS)

bench-full: setup ## all benchmarks with 9 pairs, into docs/benchmarks.md (hours)
	$(PY) -m benchmarks.all full $(ARGS)

# Versions that requirements.lock already has are kept where they still fit; UPGRADE=1 takes the newest.
lock: setup ## solve requirements.lock again from pyproject.toml (UPGRADE=1: newest versions)
	$(PY) -m uv pip compile pyproject.toml --extra dev --universal --python-version 3.10 --quiet \
	  --no-annotate --no-header --no-emit-index-url $(if $(UPGRADE),--upgrade) --output-file requirements.lock
	@! grep -nE '://|@|^-' requirements.lock || { echo "error: requirements.lock has an address in it" >&2; exit 1; }

clean: ## remove .venv, build/ and caches; runs/ and data/ are kept
	rm -rf build .venv .pytest_cache .mypy_cache .ruff_cache .coverage .coverage.* htmlcov
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
	@echo "removed .venv, build/ and caches; runs/ and data/ are kept"

# ---- how setup works -------------------------------------------------------------------------------------------

NEW_ENOUGH = import sys; sys.exit(sys.version_info < (3, 10))
ENVIRONMENT_WORKS = .venv/bin/python -c '$(NEW_ENOUGH)' 2>/dev/null

define FIND_PYTHON
found= ; old= ; bare= ; \
for python in $(if $(PYTHON),"$(PYTHON)",python3 python3.14 python3.13 python3.12 python3.11 python3.10); do \
  "$$python" -c '' 2>/dev/null || continue; \
  "$$python" -c '$(NEW_ENOUGH)' || { old="$${old:-$$("$$python" -V)}"; continue; }; \
  "$$python" -c 'import ensurepip, venv' 2>/dev/null || \
    { bare="$${bare:-$$("$$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')}"; continue; }; \
  found="$$python"; break; \
done; \
if [ -z "$$found" ]; then \
  if [ -n "$$bare" ]; then echo "error: $$bare cannot make environments (no ensurepip); on Debian or Ubuntu: apt-get install $$bare-venv" >&2; \
  elif [ -n "$$old" ]; then echo "error: $$old is too old, Python 3.10 or newer is needed; name one with: make setup PYTHON=/path/to/python3.12" >&2; \
  else echo "error: $(or $(PYTHON),python3) was not found or does not start; install Python 3.10 or newer, or name it: make setup PYTHON=/path/to/python3.12" >&2; fi; \
  exit 1; \
fi
endef

# A .venv that works and was not cut off is kept, whoever made it: only what is missing is installed into it.
define BUILD_ENVIRONMENT
if ! $(ENVIRONMENT_WORKS) || [ -e .venv/.installing ]; then \
  $(FIND_PYTHON); \
  echo "building .venv with $$("$$found" -V) (some GB to download the first time)"; \
  rm -rf .venv && mkdir .venv && : > .venv/.installing && "$$found" -m venv .venv || exit 1; \
fi
endef

# uv hard-links packages from its cache; on another file system it would warn and copy, so that is asked for at once.
define INSTALL_PACKAGES
: > .venv/.installing || exit 1; \
$(PY) -m pip --version >/dev/null 2>&1 || $(PY) -m ensurepip >/dev/null || exit 1; \
$(PY) -m pip install --quiet "$$(grep '^uv==' requirements.lock)" || exit 1; \
if [ -z "$$UV_LINK_MODE" ]; then \
  cache="$$($(PY) -m uv cache dir)" && mkdir -p "$$cache" && probe="$$(mktemp "$$cache/.link-XXXXXX")" && \
    ln "$$probe" .venv/.link-probe 2>/dev/null || export UV_LINK_MODE=copy; \
  rm -f "$$probe" .venv/.link-probe; \
fi; \
$(PY) -m uv pip install --python $(PY) --compile-bytecode -r requirements.lock || exit 1; \
$(PY) -m uv pip install --quiet --python $(PY) --no-deps --editable . || exit 1; \
cat requirements.lock pyproject.toml > .venv/.installed && rm .venv/.installing && echo ".venv is ready ($$($(PY) -V))"
endef
