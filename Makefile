# `make check` is the one command; CONTRIBUTING.md explains the rest.
# Uses the active virtual environment, or makes one in .venv.

VENV := $(or $(VIRTUAL_ENV),.venv)
BIN := $(VENV)/bin
C_FILES := $(shell find src tests benchmarks -name '*.[ch]')
PY_FILES := setup.py fastlstm tests benchmarks examples docs

.PHONY: build test check lint format mutants kills teams asan arm arm-tools mpi-tools browser bench docs clean

$(BIN)/python:
	python3 -m venv $(VENV)

build: $(BIN)/python  # in place: edits of Python files need no rebuild
	$(BIN)/pip install --quiet --editable '.[test,dev,docs]'

test: build
	$(BIN)/pytest

check: export FASTLSTM_WERROR = 1
check: build lint docs
	$(BIN)/mypy
	$(BIN)/pytest

lint:
	$(BIN)/ruff format --check $(PY_FILES)
	$(BIN)/ruff check $(PY_FILES)
	$(BIN)/clang-format --dry-run -Werror $(C_FILES)

format:
	$(BIN)/ruff format $(PY_FILES)
	$(BIN)/ruff check --fix $(PY_FILES)
	$(BIN)/clang-format -i $(C_FILES)

mutants: build  # would the tests notice a mistake?
	$(BIN)/python tests/native/mutants.py

KILLS := 50
kills: build  # does every checkpoint load, whenever a process is killed?
	$(BIN)/pytest tests/training/test_resume.py -k killed_process --kills $(KILLS)

docs:  # of what is installed, in build/docs; anew: pages that are kept know no later ones
	$(BIN)/python docs/make_plots.py
	$(BIN)/sphinx-build -q -E -W --keep-going -n -d build/doctrees docs build/docs

bench: build
	$(BIN)/fastlstm bench

clean:
	rm -rf build dist *.egg-info fastlstm/_core/*.so

# The C harness: kernels and driver without Python.  $(call harness,name,compiler,flags,ISAs)
# builds build/<name>/harness; each kernel file gets its flags from src/cpu/isas.def.

ISAS := src/cpu/isas.def
isas_of = $(shell sed -nE 's/^FL_ISA.([a-z0-9_]+), ($(1)|ANY),.*/\1/p' $(ISAS))
X86_ISAS := $(call isas_of,X86_64)
ARM_ISAS := $(call isas_of,ARM64)
HOST_ISAS := $(if $(filter x86_64 amd64,$(shell uname -m)),$(X86_ISAS),$(ARM_ISAS))
ARM_CC := aarch64-linux-gnu-gcc
HEADERS := $(filter src/%.h,$(C_FILES))
HARNESS := $(filter tests/native/harness/%,$(C_FILES))
COMMON := $(filter-out src/kernels/%,$(filter src/%.c,$(C_FILES)))
WARN := -Wall -Wextra -Werror
C_FLAGS := -std=c11 -ffp-contract=off -fno-math-errno $(WARN)

isa_of = $(firstword $(subst _, ,$(notdir $(1))))
isa_flags = $(shell tr '\n' ' ' < $(ISAS) | \
	sed -nE 's/.*FL_ISA.$(call isa_of,$(1)),[^"]*"([^"]*)".*/\1/p')

define harness
build/$(1)/%.o: src/%.c $(HEADERS) $(ISAS)
	@mkdir -p $$(@D)
	$(2) $(C_FLAGS) $(3) $$(call isa_flags,$$*) -Isrc -c $$< -o $$@

build/$(1)/harness: $(HARNESS) $(patsubst src/%.c,build/$(1)/%.o,\
		$(COMMON) $(foreach isa,$(4),$(wildcard src/kernels/isa/$(isa)_*.c)))
	$(2) $(C_FLAGS) $(3) -Isrc $$(filter-out %.h,$$^) -o $$@ -pthread -lm
endef

SANITIZE := -O1 -g1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
$(eval $(call harness,asan,$(CC),$(SANITIZE),$(HOST_ISAS)))
$(eval $(call harness,host,$(CC),-O2,$(HOST_ISAS)))
$(eval $(call harness,arm,$(ARM_CC),-O2 -static,$(ARM_ISAS)))

# Teams without the driver; FL_PORTABLE_WAIT: as they sleep where there are no futexes.
TEAM_FILES := tests/native/team_test.c src/base/team.c src/base/team_size.c src/base/wait.c
define team_test
build/team_test_$(1): $(TEAM_FILES) $(HEADERS)
	@mkdir -p build
	$(CC) $(C_FLAGS) $(2) -Isrc $(TEAM_FILES) -o $$@ -pthread
endef
$(eval $(call team_test,plain,-O2))
$(eval $(call team_test,portable,-O2 -DFL_PORTABLE_WAIT))
$(eval $(call team_test,asan,$(SANITIZE)))
$(eval $(call team_test,tsan,-O1 -g1 -fsanitize=thread))

TEAM_ROUNDS := 10000
teams: $(addprefix build/team_test_,plain portable asan tsan)
	@set -e; for test in $^; do echo $$test; timeout 300 $$test $(TEAM_ROUNDS); done

asan: build/asan/harness
	@set -e; isas=$$($< 2>&1 | sed -n 's/.*this CPU can run://p'); test -n "$$isas"; \
		for isa in $$isas; do echo "$$isa under ASan and UBSan"; \
			$< $$isa > build/asan/log.txt || { cat build/asan/log.txt; exit 1; }; done

arm: arm-tools
	$(MAKE) build/arm/harness build/host/harness
	qemu-aarch64 build/arm/harness neon > build/arm/neon.txt
	build/host/harness avx2 > build/arm/avx2.txt
	qemu-aarch64 -cpu max build/arm/harness neondot > build/arm/neondot.txt
	test -s build/arm/neon.txt
	cmp build/arm/neon.txt build/arm/avx2.txt
	grep ' int8 ' build/arm/neon.txt | cmp build/arm/neondot.txt -
	@echo "NEON gives the bits of AVX2 in $$(wc -l < build/arm/neon.txt) cases"

arm-tools:
	@command -v $(ARM_CC) qemu-aarch64 > /dev/null || { apt-get update && \
		apt-get install --yes gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user; }

browser:  # of the same version as what drives it
	@command -v chromium chromedriver > /dev/null || { apt-get update && \
		apt-get install --yes --no-install-recommends chromium chromium-driver; }

mpi-tools:  # MPICH comes with the extra "peers", Open MPI does not
	@command -v mpiexec.openmpi > /dev/null || { apt-get update && \
		apt-get install --yes --no-install-recommends openmpi-bin; }
