# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Every target works in a plain clone in any folder. What is built or downloaded is kept in ~/.cache/homelab-netguard.

PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
# options for pytest, for example: make unit ARGS="-k gateway"
ARGS ?=

# The environment is installed without bytecode; what is imported is compiled once, into a folder of its own, also for a shell that
# wants none beside the sources: compiling is a third of a short run of ansible-playbook, and the tests do hundreds.
export PYTHONPYCACHEPREFIX := $(CURDIR)/.cache/bytecode
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup lint format unit apiserver packets test molecule demo server sanity bench cores releases build binaries clean

help: ## this list
	@awk -F':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## .venv with everything, this clone linked into it (PYTHON=... chooses the Python)
	@for p in "$(PYTHON)" python3 python3.13 python3.12 python3.11; do \
	  if [ -n "$$p" ] && command -v "$$p" >/dev/null 2>&1 && "$$p" -c '' 2>/dev/null; then \
	    exec "$$p" tools/setup.py --venv $(VENV) $(if $(PYTHON),--python $(PYTHON)); fi; done; \
	  echo "setup: no Python found; on Debian and Ubuntu: apt install python3 python3-venv" >&2; exit 1

lint: setup ## ansible-lint, ruff, mypy, yamllint, shellcheck, documentation, changelog
	@$(BIN)/python tools/lint.py $(ARGS)

format: setup ## ruff's formatting and safe mends
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

unit: setup ## pure code, tables of cases; seconds
	@$(BIN)/python tools/lane.py unit $(ARGS)

apiserver: setup ## a real etcd and kube-apiserver, built from Go modules
	@$(BIN)/python tools/lane.py apiserver $(ARGS)

packets: setup ## network namespaces and real packets (root on Linux)
	@$(BIN)/python tools/lane.py packets $(ARGS)

test: setup ## lint, unit, apiserver and packets: "the tests"
	@$(BIN)/python tools/lane.py all

molecule: setup ## Molecule scenarios on kind (SCENARIOS="default ...")
	@$(BIN)/python tools/lane.py molecule $(SCENARIOS)

demo: setup ## the main job on a disposable control plane
	@$(BIN)/python -m ansible_collections.homelab.netguard.tests.cluster.demo $(ARGS)

server: setup ## a disposable control plane to try things on; Ctrl-C ends it
	@$(BIN)/python -m ansible_collections.homelab.netguard.tests.cluster.serve $(ARGS)

binaries: setup ## builds what the API server lane and the demo need, ahead of time
	@$(BIN)/python -m ansible_collections.homelab.netguard.tests.cluster.binaries $(ARGS)

sanity: setup ## ansible-test sanity on a copied tree
	@$(BIN)/python tools/sanity.py $(ARGS)

bench: setup ## ratios measured side by side
	@$(BIN)/python tools/lane.py bench $(ARGS)

cores: setup ## unit and API server tests on ansible-core 2.20 and 2.21, where the Python is there
	@$(BIN)/python tools/cores.py $(ARGS)

releases: setup ## API server tests on the oldest and the newest Kubernetes (ARGS="1.30 -k admission")
	@$(BIN)/python tools/releases.py $(ARGS)

build: setup ## the collection's artifact in build/
	@mkdir -p build && $(BIN)/ansible-galaxy collection build --force --output-path build

clean: ## removes what these targets made in the clone
	rm -rf $(VENV) build .cache .mypy_cache .ruff_cache .pytest_cache .ansible collections
