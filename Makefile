# Every command of the project; `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

# PyTorch's CPU wheels; unused when PIP_FIND_LINKS names a folder of wheels.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
EXTRA_INDEX := $(if $(PIP_FIND_LINKS),,--extra-index-url $(TORCH_CPU_INDEX))

export ORT_DISABLE_TELEMETRY := 1
export DOCKER_BUILDKIT := 1

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.installed: pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not installed: apt-get install python3.11 python3.11-venv, or make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] < (3, 11))' || { echo "$(PYTHON) is older than Python 3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv module is missing: apt-get install python3.11-venv"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(EXTRA_INDEX) -e '.[train,dev]'
	touch $@

.PHONY: install
install: $(VENV)/.installed ## Set up the virtual environment with everything but sentence embeddings.

.PHONY: install-text
install-text: install ## Add sentence embeddings (preset `base`).
	$(BIN)/pip install --quiet --disable-pip-version-check $(EXTRA_INDEX) -e '.[train,text,dev]'

.PHONY: demo
demo: install ## Train on a synthetic shop, show a recommendation, serve on 127.0.0.1:8000.
	$(BIN)/cofine run docs/examples/demo.toml
	$(BIN)/cofine example bundles/demo
	exec env COFINE_BUNDLE=bundles/demo $(BIN)/python -m service

.PHONY: serve
serve: install ## Serve bundles/demo, or the folder in COFINE_BUNDLE.
	exec $(BIN)/python -m service

.PHONY: openapi
openapi: install ## Write openapi.json, the committed document of the HTTP interface.
	$(BIN)/python -m service.openapi > openapi.json.partial
	mv openapi.json.partial openapi.json

.PHONY: lint
lint: install ## Formatting and lint.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/bandit --quiet --recursive service model
	$(BIN)/hadolint docker/*.Dockerfile
	$(BIN)/yamllint --strict docker-compose.yml docker k8s

.PHONY: types
types: install ## Types (mypy --strict) and who may import whom.
	$(BIN)/mypy
	$(BIN)/mypy docker/grafana/dashboards.py
	$(BIN)/lint-imports

.PHONY: check
check: lint types ## All static checks.

.PHONY: test
test: install ## All tests, on up to four cores; needs no root and no Redis server.
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal --durations=20

.PHONY: web-client
web-client: install ## Install the TypeScript client's tools (npm) and write its types anew.
	npm ci --prefix service/web/client
	set -o pipefail; $(BIN)/python -c 'import json; from service.app import create_app; print(json.dumps(create_app().openapi()))' \
		| service/web/client/node_modules/.bin/openapi-typescript > service/web/client/src/schema.d.ts

.PHONY: images
images: ## Build the images of the service and of the training (Docker).
	docker build --file docker/service.Dockerfile --tag cofine-service .
	docker build --file docker/training.Dockerfile --tag cofine-training \
	  --build-arg PIP_EXTRA_INDEX_URL=$(TORCH_CPU_INDEX) .

.PHONY: sbom
sbom: ## Write build/sbom.json: what the service's image contains (CycloneDX).
	docker build --file docker/service.Dockerfile --target sbom --output build .

.PHONY: test-images
test-images: install-text ## Build and run images and compose file; Debian, root, and no engine running.
	COFINE_TEST_TORCH_INDEX=$(TORCH_CPU_INDEX) \
	  tests/deployment/with_docker.sh $(BIN)/python -m pytest tests/deployment

.PHONY: faults
faults: install ## Break Redis, processes, clients, bundles and disks under load (build/faults).
	$(BIN)/python -m pytest -o python_files='*_faults.py' tests/faults

.PHONY: soak
soak: install ## Ten minutes of mixed load; fails when memory grows (COFINE_TEST_SOAK_MINUTES).
	$(BIN)/python -m pytest -s tests/faults/soak.py

BENCH_BUNDLE ?= bundles/beauty
BENCH_WORKSPACE ?= runs/beauty

.PHONY: bench
bench: install ## Measure speed: model, catalogue sizes, filters, HTTP (build/benchmarks).
	$(BIN)/pip install --quiet --disable-pip-version-check $(EXTRA_INDEX) -e '.[train,dev,bench]'
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks model sizes filters http \
	  --bundle $(BENCH_BUNDLE) --workspace $(BENCH_WORKSPACE)

SCREENSHOTS_BUNDLE ?= bundles/demo

.PHONY: screenshots
screenshots: install ## Take the console's pictures in docs/ anew (Chromium).
	$(BIN)/python -m tests.browser.screenshots $(SCREENSHOTS_BUNDLE) docs/pictures

.PHONY: clean
clean: ## Remove the environment, runs and bundles.
	rm -rf $(VENV) runs bundles
