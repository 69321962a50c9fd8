# A thin front. Plain `cmake -S . -B build && cmake --build build` builds the same program.

JOBS ?= $(shell nproc)
CMAKE_FLAGS ?=
SERVE ?= 1
BUILD := build
.DEFAULT_GOAL := build
.PHONY: help build demo test test-long bench results lint format install clean

help:
	@echo "make             builds ./keyhole"
	@echo "make demo        installs what is missing, builds, obtains the model, runs the main job; then, on a"
	@echo "                 terminal, serves the debugger's page with that model (SERVE=0 leaves it out)"
	@echo "make test        builds and runs all tests (make lint among them)"
	@echo "make test-long   sanitizers, fuzzing and long tests: half an hour"
	@echo "make bench       kernel benchmarks and the comparison of attention settings"
	@echo "make results     trains the small models of docs/numbers.md: hours, may be interrupted"
	@echo "make lint        layers, sizes, forbidden calls, format"
	@echo "make format      lets clang-format rewrite the C files"
	@echo "make install     installs to DESTDIR and the prefix of CMAKE_FLAGS=-DCMAKE_INSTALL_PREFIX=..."
	@echo "make clean       removes the build folders"

build:
	@command -v cmake >/dev/null || { echo "cmake is missing: scripts/setup installs what the build needs" >&2; exit 1; }
	@cmake -S . -B $(BUILD) $(CMAKE_FLAGS) >$(BUILD).log 2>&1 || \
	    { cat $(BUILD).log; rm -f $(BUILD).log; exit 1; }
	@rm -f $(BUILD).log
	@cmake --build $(BUILD) --parallel $(JOBS) $(TARGET)
	@ln -sf $(BUILD)/keyhole keyhole

demo:
	@scripts/setup
	@$(MAKE) --no-print-directory build TARGET="--target keyhole_cli"
	@scripts/models
	@SERVE=$(SERVE) scripts/demo

test:
	@scripts/setup --tests
	@$(MAKE) --no-print-directory build
	@ctest --test-dir $(BUILD) --output-on-failure --no-tests=error -j2 -LE long

test-long:
	@scripts/setup --tests
	@scripts/test-long

bench: build
	@scripts/bench

results: build
	@scripts/results

lint:
	@scripts/lint

format:
	@find src include tests examples -name '*.[ch]' 2>/dev/null | xargs clang-format -i

install: build
	@cmake --install $(BUILD)

clean:
	@rm -rf build build-* keyhole
