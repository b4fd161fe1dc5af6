# make install   everything that is needed to run, test and develop, in .venv (as root also the Debian packages)
# make demo      a running cluster with an application in it
# make test      all tests
# make lint      types, style, import direction, layout
# make clean     no trace left: processes, containers, mounts, network devices, kubeconfig entries

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: install demo test test-fast lint format clean distclean bench protos

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml tools/setup.sh tools/pack_schemas.py tools/hatch_build.py
	@PYTHON="$(PYTHON)" VENV="$(VENV)" tools/setup.sh
	@touch $@

demo: install
	@$(BIN)/python tools/demo.py

# A test of a running cluster that a busy machine kept from its time is given a second chance; one that fails twice fails.
test: install lint
	@$(BIN)/python -m pytest -q --reruns 2 --reruns-delay 2

test-fast: install
	@$(BIN)/python -m pytest -q -m "not e2e and not containers"

lint: install
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python tools/check_layout.py

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
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean
	@rm -rf $(VENV) src/navarch/api/_schemas
