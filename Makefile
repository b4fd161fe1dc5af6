# make install   everything that is needed to run, test and develop, in .venv (as root also the Debian packages)
# make demo      a running cluster with an application in it
# make test      all tests; test-fast: those that need neither containers nor a running cluster
# make explore   property tests and fuzzers look for new examples (MINUTES=5; SEED=N repeats a run)
# make lint      types, style, import direction, layout, lock files
# make lock      renews locks/ from the ranges in pyproject.toml
# make test-newest, test-oldest, test-pythons   the fast tests with other versions than the locked ones, with every Python found
# make clean     no trace left: processes, containers, mounts, network devices, kubeconfig entries

PYTHON  ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
MINUTES ?= 5
FAST    := -m "not e2e and not containers and not namespaces"
BESIDE  := -m "not e2e and not containers and not namespaces and not alone"

# Tests start hundreds of Python processes; compiling the same modules in each would take longer than the tests.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo test test-fast test-newest test-oldest test-pythons explore lint format lock clean distclean bench protos

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml $(wildcard locks/*.lock) tools/setup.sh tools/install.py tools/pack_schemas.py tools/hatch_build.py
	@PYTHON="$(PYTHON)" VENV="$(VENV)" tools/setup.sh
	@touch $@

demo: install
	@$(BIN)/python tools/demo.py

# First what may run side by side, then what drives clusters or measures time.
test: install lint
	@$(BIN)/python -m pytest -q -n auto $(BESIDE)
	@$(BIN)/python tools/cluster_tests.py

test-fast: install
	@$(BIN)/python -m pytest -q $(FAST)

# The newest of everything that pyproject.toml allows, and every test.
test-newest: install
	@$(PYTHON) tools/install.py --resolution highest .venvs/newest
	@.venvs/newest/bin/python -m pytest -q -n auto $(BESIDE)
	@.venvs/newest/bin/python tools/cluster_tests.py

# The oldest of what pyproject.toml names: are the lower bounds true?
test-oldest: install
	@$(PYTHON) tools/install.py --resolution lowest-direct .venvs/oldest
	@.venvs/oldest/bin/python -m pytest -q $(FAST)

test-pythons: install
	@$(BIN)/python tools/pythons.py -q $(FAST)

explore: install
	@$(BIN)/python tools/explore.py --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

# The messages of the gRPC APIs that are spoken (CRI, containerd's events, etcd), from their .proto files.
protos: install
	@$(BIN)/python tools/protos.py

lock: install
	@$(BIN)/python tools/lock.py

lint: install
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python tools/check_layout.py
	@$(BIN)/python tools/lock.py --check

format: install
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: install
	@$(BIN)/python benchmarks/startup.py
	@$(BIN)/navarch up --name bench --runtime simulated --nodes 1000 --detach --wait 60s
	@$(BIN)/python benchmarks/deployment_5000.py
	@$(BIN)/python benchmarks/pods_crud.py
	@$(BIN)/python benchmarks/watch_fanout.py --watchers 100 --events 2000
	@$(BIN)/navarch down --name bench --purge

clean:
	@if [ -x $(BIN)/python ]; then $(BIN)/python tools/clean.py; fi
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	@find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

distclean: clean
	@rm -rf $(VENV) .venvs src/navarch/api/_schemas
