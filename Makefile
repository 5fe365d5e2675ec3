# A thin front for CMake: `make demo` for a first answer, `make test` for every test. `make help` lists the rest.
BUILD  ?= build
MODEL  ?= models/SmolLM2-135M-Instruct.Q4_1.gguf
PROMPT ?= Explain in two sentences why the sky is blue.
PREFIX ?= /usr/local
JOBS   ?= $(shell nproc)
CMAKE_FLAGS ?=
export JOBS CMAKE_FLAGS ANDROID_NDK PREFIX_LIBS
SECONDS ?=
SEED    ?=
MAKEFLAGS += --no-print-directory

.PHONY: help build demo models unit check test soak fuzz cross cross-test bench format install clean
.DEFAULT_GOAL := build

help:
	@echo "make build     the command ($(BUILD)/hetero) and the libraries, tests where cmocka is there"
	@echo "make demo      install what is missing, build, fetch the default model, answer PROMPT"
	@echo "make models    fetch both test models into models/"
	@echo "make unit      the C tests that need no Python and no model (under a minute)"
	@echo "make check     the quick tests (under two minutes; wants one 'make test' before)"
	@echo "make test      every test, its own set-up included (10 minutes; 15 the first time)"
	@echo "make soak      what takes longer, in an order drawn by SEED, for SECONDS (3600)"
	@echo "make fuzz      every fuzzing target, SECONDS (120) for all together"
	@echo "make cross     for 64-bit ARM Linux, into build-aarch64; for Android with ANDROID_NDK and PREFIX_LIBS, into build-android"
	@echo "make cross-test  the same for Linux, and its tests under qemu (wants one 'make check' before)"
	@echo "make bench     speed side by side with llama.cpp (ARGS: see bench/README.md)"
	@echo "make format    clang-format over every C file"
	@echo "make install   into PREFIX ($(PREFIX)), DESTDIR before it"
	@echo "make clean     remove $(BUILD)"
	@echo "Variables: BUILD MODEL PROMPT PREFIX JOBS CMAKE_FLAGS ARGS SECONDS SEED"

build:
	@cmake -S . -B $(BUILD) -DCMAKE_INSTALL_PREFIX=$(PREFIX) $(CMAKE_FLAGS)
	@cmake --build $(BUILD) -j $(JOBS)

demo:
	@sh tools/setup.sh build
	@cmake -S . -B $(BUILD) $(CMAKE_FLAGS) >$(BUILD).log 2>&1 || { cat $(BUILD).log; rm -f $(BUILD).log; exit 1; }
	@rm -f $(BUILD).log
	@cmake --build $(BUILD) -j $(JOBS) --target hetero_cli
	@python3 tools/fetch_models.py smollm2
	$(BUILD)/hetero run $(MODEL) -p "$(PROMPT)"

models:
	@sh tools/setup.sh build
	@python3 tools/fetch_models.py smollm2 gemma3

unit check:
	@sh tools/test.sh $@ $(BUILD)

test:
	@sh tools/test.sh all $(BUILD)

soak:
	@SECONDS=$(or $(SECONDS),3600) SEED=$(SEED) sh tools/test.sh soak $(BUILD)

fuzz:
	@sh tools/fuzz.sh $(or $(SECONDS),120) build-fuzz

cross:
	@sh tools/cross.sh build $(if $(ANDROID_NDK),build-android,build-aarch64)

cross-test:
	@sh tools/cross.sh test build-aarch64

bench: build
	@python3 bench/peers/run.py --hetero $(BUILD)/hetero $(ARGS)

install: build
	@cmake --install $(BUILD)

format:
	@find include src cli examples tests -name '*.[ch]' | xargs clang-format-14 -i

clean:
	@cmake -E rm -rf $(BUILD)
