# Everything a contributor needs: each target creates .venv, installs what it needs, and can be
# repeated. The machine needs Python 3.11 or newer (with venv) and make.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
JOBS   ?= 2

.PHONY: help demo test oracle check format benchmarks clean

help:
	@echo "make demo        train a convolutional network on real handwritten digits"
	@echo "make test        ruff, mypy, doctests and tests"
	@echo "make oracle      compare with real Keras 3.15 on JAX"
	@echo "make check       ruff and mypy only"
	@echo "make format      let ruff mend what it can"
	@echo "make clean       remove what these targets created"

# One stamp per set of extras: made again when pyproject.toml changes.
$(VENV)/installed-%: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "lamina needs Python 3.11 or newer; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

demo: $(VENV)/installed-demo
	$(BIN)/lamina demo

check: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check
	$(BIN)/python -m pytest -m "not oracle" -n $(JOBS)

oracle: $(VENV)/installed-oracle
	LAMINA_ORACLE=required KERAS_BACKEND=jax $(BIN)/python -m pytest -m oracle -n $(JOBS)

format: $(VENV)/installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) lamina-demo .mypy_cache .pytest_cache .ruff_cache .hypothesis
