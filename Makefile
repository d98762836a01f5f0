# meshd: `make run` on a fresh machine, `make test` before a change is offered. Needs Python 3.11+,
# make and, for llama.cpp, a C++ compiler; uv is brought into .tools, everything else into .venv.
# Written for GNU make 3.81 and up (macOS ships 3.81).

ARGS ?=
KIND ?= vulkan
UV_VERSION := 0.13.9

UV := .tools/bin/uv
VENV := .venv
BIN := $(VENV)/bin
BUILT := $(VENV)/.built
TESTED := $(VENV)/.tested
CLIENTS := .clients
PACE := meshd/ctl/doctor/pace.py

export UV_PROJECT_ENVIRONMENT := $(VENV)
export UV_SYSTEM_CERTS ?= true
export UV_PYTHON_DOWNLOADS := never
export UV_COMPILE_BYTECODE := 1
export UV_NO_PROGRESS := 1
unexport VIRTUAL_ENV

# The Python that PYTHON names; else the system's own where it is much quicker than python3, which
# may have been compiled without the usual optimisations: a request then costs a quarter more. Each
# is timed five times, in turn, and its best counts: one busy moment must not choose.
ifdef PYTHON
PYTHONS := $(PYTHON)
export UV_PYTHON := $(PYTHON)
else
PYTHONS := python3 /usr/bin/python3
export UV_PYTHON := .tools/bin/python
endif

.DEFAULT_GOAL := help
.PHONY: help run gpu test check fmt sim bench vectors docs demo netns clients clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sort | \
		awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

run: $(BUILT)  ## start a node with a real model on 127.0.0.1:8787 (ARGS="--peer HOST:PORT ..." for more)
	@exec $(BIN)/meshd run --engine llamacpp:bundled $(ARGS)

# `make run` compiles llama.cpp for processors (and for Metal on a Mac), which needs no driver.
gpu: $(BUILT)  ## compile llama.cpp for a graphics card (KIND=vulkan serves all makers; or cuda, hip)
	@case "$(KIND)" in \
		vulkan) tool=glslc; part=GGML_VULKAN; from="Debian, Ubuntu: glslc libvulkan-dev spirv-headers";; \
		cuda) tool=nvcc; part=GGML_CUDA; from="NVIDIA's CUDA toolkit";; \
		hip) tool=hipcc; part=GGML_HIP; from="AMD's ROCm";; \
		*) echo "make gpu: KIND is vulkan, cuda or hip" >&2; exit 2;; \
	esac; \
	command -v $$tool >/dev/null 2>&1 || { \
		echo "make gpu: $$tool was not found; KIND=$(KIND) needs it ($$from)" >&2; exit 1; }; \
	if [ "$(KIND)" = vulkan ] && ! printf '%s\n' '#include <vulkan/vulkan.h>' '#ifndef VK_EXT_layer_settings' \
			'#error old' '#endif' | c++ -E -x c++ - >/dev/null 2>&1; then \
		echo "make gpu: Vulkan's headers were not found or are older than 1.3.272 (Debian 13 and" >&2; \
		echo "  Ubuntu 24.04 have newer ones, elsewhere the Vulkan SDK does)" >&2; exit 1; fi; \
	echo "llama.cpp is compiled for $(KIND). Once; ten minutes and more on a small machine."; \
	locked=$$($(BIN)/python -c "from importlib.metadata import version; print(version('llama-cpp-python'))"); \
	CMAKE_ARGS="$$CMAKE_ARGS -D$$part=ON" $(UV) pip install --python $(BIN)/python --no-deps --no-cache \
		--no-binary llama-cpp-python --reinstall-package llama-cpp-python llama-cpp-python==$$locked
	@echo "Cards with memory of their own that llama.cpp sees (name, bytes, bytes free):"
	@$(BIN)/python -m meshd.engine.cards

test: $(TESTED)  ## run every test, in two workers (ARGS="tests/ctl -x" for some)
	@$(BIN)/python -m pytest -n 2 --dist loadgroup $(ARGS)

check: $(TESTED)  ## formatting, lint, types, import law, laws of the house
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python -m pytest -q tests/project

fmt: $(TESTED)  ## format the code, and fix what lint can fix
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

sim: $(TESTED)  ## the long simulations: 1,000 seeds a scenario
	@SIM_SEEDS=1000 $(BIN)/python -m pytest tests/sim --timeout 3600 $(ARGS)

bench: $(TESTED)  ## the benchmarks of the endpoint and of the extra hop, as JSON
	@$(BIN)/python -m benchmarks.gateway --json $(ARGS)
	@$(BIN)/python -m benchmarks.relay --json $(ARGS)

vectors: $(TESTED)  ## check the golden bytes of the wire (ARGS=--write adds those of new messages)
	@$(BIN)/python -m protocol vectors $(ARGS)

docs: $(TESTED)  ## update the tables of protocol/SPEC.md from the code
	@$(BIN)/python -m protocol spec

demo: $(BUILT)  ## three nodes here: a question is routed, a node is killed, the answer arrives
	@$(BIN)/python -m meshd.ctl.demo

netns: $(TESTED)  ## real daemons on real networks: needs root on Linux
	@$(BIN)/python -m pytest tests/netns $(ARGS)

clients: $(TESTED) $(CLIENTS)/.built  ## other people's clients against a node without a model
	@$(BIN)/python -m pytest tests/clients $(ARGS)

clean:  ## remove caches and reports; keeps .venv, whose llama.cpp took minutes to build
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage* dist
	@find . -name __pycache__ -not -path './.venv/*' -not -path './.tools/*' -prune -exec rm -rf {} +

# The environment. $(BUILT) is newer than what it was made from, so a second run asks nothing.

$(BUILT): uv.lock pyproject.toml $(UV)
	@if $(UV) sync --locked --inexact --no-dev --extra llama --dry-run 2>&1 | \
			grep -q '^ *+ llama-cpp-python'; then \
		command -v c++ >/dev/null 2>&1 || command -v g++ >/dev/null 2>&1 || \
			command -v clang++ >/dev/null 2>&1 || { \
			echo "make: llama.cpp needs a C++ compiler and none was found." >&2; \
			echo "  Debian, Ubuntu, Raspberry Pi OS: sudo apt install build-essential" >&2; \
			echo "  Fedora: sudo dnf install gcc-c++     macOS: xcode-select --install" >&2; \
			exit 1; }; \
		echo "Setting up: llama.cpp is compiled for this machine. Once; about five minutes on two cores."; \
		( waited=0; while sleep 1; do waited=$$((waited + 1)); [ $$((waited % 15)) -ne 0 ] || \
			echo "  still at it after $$((waited / 60)) min $$((waited % 60)) s"; done ) & clock=$$!; \
		trap 'kill $$clock 2>/dev/null' EXIT INT TERM; \
		$(UV) sync --locked --inexact --no-dev --extra llama; \
	else \
		$(UV) sync --locked --inexact --no-dev --extra llama --quiet; \
	fi
	@touch $@

# Tests run every engine, so they need MLX as well (135 MB; its CPU build on Linux).
$(TESTED): $(BUILT)
	@$(UV) sync --locked --extra llama --extra mlx --quiet
	@touch $@

# Other people's clients, apart from ours: their pins would fight. Without Node its tests skip.
$(CLIENTS)/.built: tests/clients/requirements.txt tests/clients/package.json $(UV)
	@echo "Setting up: other people's clients, in $(CLIENTS) (about 350 MB)"
	@$(UV) venv --quiet --allow-existing $(CLIENTS)
	@$(UV) pip install --quiet --python $(CLIENTS)/bin/python -r tests/clients/requirements.txt
	@if command -v npm >/dev/null 2>&1; then cp tests/clients/package.json $(CLIENTS)/ && \
		npm install --prefix $(CLIENTS) --no-package-lock --no-audit --no-fund --silent; \
	else echo "  no npm here: the Node clients are left out" >&2; fi
	@touch $@

$(UV):
	@chosen=$$(for round in 1 2 3 4 5; do for python in $(PYTHONS); do \
			"$$python" -c 'import ensurepip' 2>/dev/null && pace=$$("$$python" -I $(PACE) 2>/dev/null) && \
			echo "$$pace $$python"; \
		done; done | awk ' \
			!($$2 in least) { named[++count] = $$2; least[$$2] = $$1 } \
			$$1 < least[$$2] { least[$$2] = $$1 } \
			END { best = named[1]; \
				for (i = 2; i <= count; i++) if (least[named[i]] * 1.25 < least[best]) best = named[i]; \
				print best }'); \
	named=$(firstword $(PYTHONS)); \
	if [ -n "$$chosen" ]; then \
		[ "$$chosen" = "$$named" ] || echo "Setting up: with $$chosen ($$named here is much slower, or too old)"; \
	elif $$named -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		echo "make: $$named cannot make a virtual environment (Debian: sudo apt install python3-venv)." >&2; \
		exit 1; \
	else \
		echo "make: meshd needs Python 3.11 or newer; $$named is $$($$named -V 2>/dev/null || echo not there)." >&2; \
		echo "  Install one, or name it: make run PYTHON=python3.12" >&2; exit 1; \
	fi; \
	echo "Setting up: bringing uv into .tools"; \
	"$$chosen" -m venv .tools && \
		.tools/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
