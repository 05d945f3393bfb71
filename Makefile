# Two commands do all the set-up: `make demo` and `make test`.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
ENGINE ?= simulated
# Most tests wait for processes to start and to end, so there is one worker more than CI has cores.
PARALLEL ?= --numprocesses 3 --dist loadfile --no-loadscope-reorder
READY := $(VENV)/.ready
export DAGSTER_DISABLE_TELEMETRY := 1

.PHONY: help demo demo-auto demo-stack test test-quick test-full control-plane kubernetes lint format bench reliability storm fuzz dev e2e-vllm e2e-tools e2e-stack e2e-containers containers constraints clean

help: ## Show the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# Installs what requirements.txt pins by hash, then this checkout on top.
$(READY): requirements.txt pyproject.toml sandbox/pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable . --editable sandbox
	@touch $@

demo: ## Take a model to production on a sandbox, and see a worse release rejected (ENGINE=vllm: real vLLM)
	@$(MAKE) --no-print-directory --jobs=2 $(READY) control-plane
	$(BIN)/python -m demos.basic --engine $(ENGINE)

demo-auto: kubernetes ## An unattended day in fast motion on the installed system; writes build/demo-auto.json
	$(BIN)/python -m demos.auto

demo-stack: $(READY) ## Two models, router, Prometheus, autoscaler; writes build/demo-stack.json (ENGINE=vllm: real vLLM)
	$(BIN)/python -m demos.stack --engine $(ENGINE)

test: ## Lint, and the tests of a change: units, a real API server, each promise once on a sandbox; within six minutes
	@$(MAKE) --no-print-directory --jobs=2 $(READY) control-plane
	@$(MAKE) --no-print-directory --jobs=2 lint test-quick

test-quick: kubernetes
	$(BIN)/pytest $(PARALLEL) -m "not full"

test-full: kubernetes ## All tests that `make test` leaves out: every case on a sandbox, the sandbox's own, every bench
	$(BIN)/pytest $(PARALLEL) -m full

# What takes minutes of compiling needs nothing that pip installs, so that the two go on at once.
control-plane:
	@PYTHONPATH=.:sandbox $(PYTHON) -m llmops_sandbox.cluster.binaries

kubernetes: $(READY) ## Build the sandbox's Kubernetes and kubectl, unless they are built or supplied
	$(BIN)/llmops sandbox build

lint: $(READY) ## ruff, pyright in strict mode, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

format: $(READY) ## Put the code into form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: kubernetes ## Measure against the tools of the field; writes build/bench.json
	$(BIN)/python -m bench

reliability: kubernetes ## Break the installed system in the middle of each stage; writes docs/concepts/reliability.md
	$(BIN)/python -m bench.reliability

storm: kubernetes ## Somebody else changes something in each of many rollouts (ROLLOUTS=100, SEED=0, ACT: only this one); writes build/storm.json
	$(BIN)/python -m bench.storm --rollouts $(or $(ROLLOUTS),100) --seed $(or $(SEED),0) $(if $(ACT),--act "$(ACT)")

fuzz: $(READY) ## Feed damaged bytes to each parser of bytes from outside (PARSERS: some of them; MINUTES=10 of the processor for each)
	$(BIN)/python -m bench.fuzzing $(PARSERS) --minutes $(or $(MINUTES),10)

dev: $(READY) ## The Dagster UI on the sandbox (what `make demo` did is in it), until Ctrl-C
	$(BIN)/python -m demos.dev

e2e-vllm: $(READY) ## Check the simulated engine against the real vLLM on CPU (installs it first: 6 GB)
	$(BIN)/python -m llmops_sandbox.programs.vllm
	$(BIN)/pytest tests/opt_in/vllm

e2e-tools: kubernetes ## Run lm-evaluation-harness for real, in a Job on the sandbox (installs it first: 600 MB)
	$(BIN)/python -m llmops_sandbox.programs.tools
	$(BIN)/pytest tests/opt_in/tools

e2e-stack: kubernetes ## Run the real LiteLLM in front of engines (installs it first: 750 MB)
	$(BIN)/python -m llmops_sandbox.programs.litellm
	$(BIN)/pytest tests/opt_in/stack

e2e-containers: containers ## A release from weights to promotion on a real kubelet with containerd (root, Linux; builds them first: 8 minutes)
	$(BIN)/python -m llmops_sandbox.containers run $(BIN)/pytest tests/opt_in/containers

containers: $(READY)
	$(BIN)/python -m llmops_sandbox.containers build

constraints: $(READY) ## Pin all dependencies anew, by hash
	$(BIN)/uv pip compile pyproject.toml sandbox/pyproject.toml --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
		--extra cluster --extra dev --no-strip-extras --no-header --no-emit-index-url --output-file requirements.txt
	$(BIN)/uv pip compile k8s/worker/requirements.in --quiet --constraint requirements.txt --universal \
		--python-version 3.12 --generate-hashes --no-header --no-annotate --no-emit-index-url \
		--output-file k8s/worker/requirements.txt
	$(BIN)/uv pip compile pyproject.toml --quiet --extra cluster --constraint requirements.txt --universal \
		--python-version 3.12 --generate-hashes --no-header --no-annotate --no-emit-index-url \
		--output-file k8s/orchestrator/requirements.txt
	$(BIN)/uv pip compile k8s/evaluation/requirements.in --quiet --constraint requirements.txt --universal \
		--python-version 3.12 --generate-hashes --no-header --no-annotate --no-emit-index-url \
		--output-file k8s/evaluation/requirements.txt
	$(BIN)/uv pip compile k8s/router/requirements.in --quiet --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --no-emit-index-url --output-file k8s/router/requirements.txt

clean: ## Remove what was built here; the sandbox is stopped and erased
	-$(BIN)/llmops sandbox down --erase
	-$(BIN)/llmops sandbox down --erase --name demo
	-$(BIN)/llmops sandbox down --erase --name demo-auto
	-$(BIN)/llmops sandbox down --erase --name demo-stack
	rm -rf $(VENV) build .pytest_cache .ruff_cache .import_linter_cache
