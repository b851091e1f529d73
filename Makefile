# gpu-cutover: set up, rehearse, test. Every target says what it does and can be run again.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
SITE ?= inventory/twin
VENV := .venv
LINT := .venv-lint
BIN := $(VENV)/bin
STAMPS := .work/stamps

# Debian packages: what a rehearsal boots its hosts with, and what the tests look at the report with.
PACKAGES := python3-venv git openssh-client systemd-container mmdebstrap zstd iproute2 dnsmasq-base util-linux procps nftables gcc libc6-dev dpkg-dev
TEST_PACKAGES := chromium haproxy
# Only their programs are wanted (rules, alert routes and dashboards are tried with them): unpacked, not installed, so no daemon starts.
MONITOR_PACKAGES := prometheus prometheus-alertmanager prometheus-node-exporter

.PHONY: help setup setup-lint rehearse test test-unit test-twin molecule lint bench clean packages test-packages

help:  ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

setup: $(STAMPS)/venv  ## packages and the Python environment

# Which packages are missing is asked each time (fast); installing needs root and is said aloud.
packages:
	@missing=$$(for p in $(PACKAGES); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	if [ -n "$$missing" ]; then \
	  echo "installing packages:" $$missing; \
	  [ "$$(id -u)" = 0 ] || { echo "make: installing packages needs root; or install them yourself: apt-get install" $$missing; exit 2; }; \
	  apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing; \
	fi

# Chromium looks at the report, HAProxy checks and runs the edge's configuration.
test-packages:
	@$(MAKE) --no-print-directory packages PACKAGES="$(PACKAGES) $(TEST_PACKAGES)"

$(STAMPS)/venv: requirements/build.lock requirements/controller.lock pyproject.toml | packages
	@echo "Python environment $(VENV) from requirements/controller.lock (hashes checked)"
	@mkdir -p $(STAMPS)
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/build.lock -r requirements/controller.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

setup-lint: $(STAMPS)/venv-lint

$(STAMPS)/venv-lint: requirements/lint.lock | packages
	@echo "Python environment $(LINT) from requirements/lint.lock (hashes checked)"
	@mkdir -p $(STAMPS)
	@[ -x $(LINT)/bin/python ] || $(PYTHON) -m venv $(LINT)
	@$(LINT)/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/lint.lock
	@touch $@

rehearse: setup  ## the ten days on the twin, from nothing to a report (KEEP=1 leaves the hosts up)
	@$(BIN)/gpu-cutover rehearse -i $(SITE) $(if $(KEEP),--keep) $(if $(RESUME),--resume)

# A rehearsal mostly waits, so the rest runs beside it on the same two cores.
test: setup setup-lint test-packages  ## everything the project proves about itself
	@echo "tests on rehearsal hosts run beside the others; what they print: .work/test-twin.log, and here at the end"
	@$(MAKE) --no-print-directory test-twin >.work/test-twin.log 2>&1 & twin=$$!; \
	others=0; $(MAKE) --no-print-directory test-unit lint molecule || others=$$?; \
	hosts=0; wait $$twin || hosts=$$?; \
	cat .work/test-twin.log; \
	[ $$others = 0 ] && [ $$hosts = 0 ]

$(STAMPS)/monitor: | packages
	@echo "unpacking $(MONITOR_PACKAGES) to .work/monitor"
	@mkdir -p $(STAMPS) .work/monitor/debs
	@cd .work/monitor/debs && apt-get download -q $(MONITOR_PACKAGES)
	@for deb in .work/monitor/debs/*.deb; do dpkg-deb --extract $$deb .work/monitor; done
	@touch $@

test-unit: setup test-packages $(STAMPS)/monitor  ## tests that need no hosts
	@$(BIN)/pytest -n 2 -m "not twin"

test-twin: setup  ## tests on rehearsal hosts, one after the other (root)
	@$(BIN)/pytest -m twin

molecule: setup  ## the molecule scenarios, on rehearsal hosts (root)
	@found=0; for scenario in $$(find . -path ./.venv -prune -o -path ./.venv-lint -prune -o -name molecule.yml -print | sort); do \
	  found=1; folder=$$(dirname $$(dirname $$(dirname $$scenario))); name=$$(basename $$(dirname $$scenario)); \
	  echo "molecule: $$folder, scenario $$name"; (cd $$folder && PATH="$(CURDIR)/$(BIN):$$PATH" molecule test -s $$name); \
	done; [ $$found = 1 ] || { echo "no molecule scenario found"; exit 1; }

lint: setup-lint  ## ruff, mypy --strict, ansible-lint (profile production)
	@$(LINT)/bin/ruff format --check .
	@$(LINT)/bin/ruff check .
	@$(LINT)/bin/mypy --strict
	@PATH="$(CURDIR)/$(LINT)/bin:$$PATH" PYTHONPATH=src $(LINT)/bin/ansible-lint --offline --profile production -q

bench: setup  ## how fast and how light, beside the field (ONLY=gateways,mirror for parts; FULL=1 for a million requests)
	@$(MAKE) --no-print-directory packages PACKAGES="$(PACKAGES) haproxy"
	@$(BIN)/python bench/bench.py -i $(SITE) $(if $(ONLY),--only $(ONLY)) $(if $(FULL),--full)

clean:  ## switch the twin off, remove what was built (evidence and downloads stay)
	@[ ! -x $(BIN)/gpu-cutover ] || [ "$$(id -u)" != 0 ] || $(BIN)/gpu-cutover twin down -i $(SITE)
	@rm -rf $(VENV) $(LINT) .work build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
