# Every target works from a clean clone with Rust and a Python that has venv. All that is installed goes to .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(shell find rust -name '*.rs' -o -name 'Cargo.toml') Cargo.toml pyproject.toml
# Each is a command of its own; with real activations: benchmarks/quality.py --activations FILE.npy.
BENCHMARKS := fits iterations scaling memory encode outer jets shapes quality resume robustness large
CODE := $(wildcard python tests examples scripts benchmarks)
DEVELOP := VIRTUAL_ENV="$(CURDIR)/$(VENV)" $(BIN)/maturin develop --release

.PHONY: dev demo test lint bench clean
.DEFAULT_GOAL := dev

# The package, importable from .venv with all that its users can ask for.
dev: $(VENV)/.stamp-package

demo: $(VENV)/.stamp-package
	$(BIN)/sae-rs demo

test: $(VENV)/.stamp-test
	$(BIN)/python -m pytest

lint: $(VENV)/.stamp-lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest sae_rs._core

bench: $(VENV)/.stamp-bench
	for name in $(BENCHMARKS); do $(BIN)/python "benchmarks/$$name.py" || exit 1; done

clean:
	rm -rf $(VENV) target demo_output

# A stamp is newer than all that it was made from, so that a target rebuilds only after a change.
$(VENV)/.stamp-venv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip 'maturin>=1.7,<2'
	touch $@

$(VENV)/.stamp-package: $(VENV)/.stamp-venv $(SOURCES)
	$(DEVELOP) --extras all
	touch $@

$(VENV)/.stamp-test: $(VENV)/.stamp-package
	$(DEVELOP) --extras all,test
	touch $@

$(VENV)/.stamp-bench: $(VENV)/.stamp-package
	$(DEVELOP) --extras all,bench
	touch $@

$(VENV)/.stamp-lint: $(VENV)/.stamp-package
	$(DEVELOP) --extras all,test,lint
	touch $@
