# SPDX-License-Identifier: Apache-2.0
#
# shmq, built from one file. Sources are found by folder: to add one, write it.
#
#   make                  the libraries and programs, in build/
#   make demo             see it work;  make check: see it tested (both install what they miss)
#   make help             all targets
#
# Variables: V=1 shows the commands. BUILD=dir builds elsewhere. CC, CFLAGS, LDFLAGS, PREFIX, DESTDIR as
# usual. SAN=address,undefined (or thread) builds with sanitizers. TESTS="test_ring test_w%" selects suites,
# SKIP_TESTS leaves some out, JOBS=1 runs them one by one, PROGRAMS= leaves out the programs that some
# suites start. DAEMON=no leaves out daemon/, TOOLS=no tools/, CUNIT=no the CUnit library. ZMQ=yes and
# NNG=yes let shmq-perf measure ZeroMQ and nng beside shmq; BENCH_OPTIONS are given to shmq-perf bench,
# DURABLE_OPTIONS to shmq-perf durable (--history 10G; without a disk of that size, say DURABLE_OPTIONS=).

VERSION   := 0.1.0
SOVERSION := 0

ifeq ($(origin CC),default)
CC := gcc
endif
CXX     ?= g++
OBJCOPY ?= objcopy
BUILD   ?= build
PREFIX  ?= /usr/local
BINDIR      ?= $(PREFIX)/bin
LIBDIR      ?= $(PREFIX)/lib
INCLUDEDIR  ?= $(PREFIX)/include
MANDIR      ?= $(PREFIX)/share/man
DOCDIR      ?= $(PREFIX)/share/doc/shmq
UNITDIR     ?= $(PREFIX)/lib/systemd/system
COMPLETIONDIR ?= $(PREFIX)/share/bash-completion/completions
DAEMON  ?= yes
CUNIT   ?= yes

ifeq ($(V),1)
Q   :=
say :=
else
Q   := @
say  = @printf '  %-8s%s\n' '$(1)' '$(2)'
MAKEFLAGS += --no-print-directory
endif

# ---- Flags ---------------------------------------------------------------------------------------

# Warnings stop the build with the compilers that CI runs; a newer one may invent new ones.
PINNED  := $(shell $(CC) -dM -E -x c /dev/null 2>/dev/null | \
             awk '$$2 == "__clang_major__" { c = $$3 } $$2 == "__GNUC__" { g = $$3 } \
                  END { print c ? (c == 14) : (g == 12) }')
WERROR  ?= $(if $(filter 1,$(PINNED)),-Werror)
WARN    := -Wall -Wextra -Wshadow -Wconversion -Wsign-conversion -Wstrict-prototypes \
           -Wmissing-prototypes -Wpointer-arith -Wundef -Wvla -Wformat=2 $(WERROR)
CFLAGS  ?= -O2 -g
PEERS   := $(if $(filter yes,$(ZMQ)),-DPERF_ZMQ) $(if $(filter yes,$(NNG)),-DPERF_NNG)
# Two stores are cheaper than the way through a vector register that the compiler takes to join them.
HOT     := -fno-tree-slp-vectorize -ffunction-sections
BASE     = -std=c17 -D_GNU_SOURCE -I. -iquote libshmq -DSHMQ_VERSION_TEXT='"$(VERSION)"' $(WARN) \
           $(PEERS) $(HOT) -fPIC -fvisibility=hidden -pthread $(CPPFLAGS) $(CFLAGS)

ifneq ($(SAN),)
# TSan does not know fences; gcc warns of every one, and the ring's are argued in docs/memory-model.md.
SANFLAGS := -fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all \
            $(if $(findstring thread,$(SAN)),$(if $(findstring gcc,$(CC)),-Wno-tsan))
else
# What costs nothing in publish and poll: no canary there, as they hold no arrays.
HARDEN   := -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fstack-clash-protection
endif
ifeq ($(FUZZ),yes)
SANFLAGS += -fsanitize=fuzzer-no-link
endif

RELEASE_FLAGS = $(BASE) $(HARDEN) $(SANFLAGS) -DNDEBUG
TEST_FLAGS    = $(BASE) $(SANFLAGS) -DSHMQ_FAULTS $(if $(filter no,$(CUNIT)),-DTEST_NO_CUNIT)
LINK_FLAGS    = $(CFLAGS) $(SANFLAGS) -pthread -Wl,-z,relro,-z,now,-z,noexecstack $(LDFLAGS)

# Looked up when a recipe runs, not when this file is read: `make check` may have installed them by then.
URCU_LIBS  = $(shell pkg-config --libs liburcu-memb liburcu-cds 2>/dev/null || \
               echo -lurcu-memb -lurcu-cds -lurcu-common)
INIH_LIBS  = $(shell pkg-config --libs inih 2>/dev/null || echo -linih)
CUNIT_LIBS = $(if $(filter no,$(CUNIT)),,$(shell pkg-config --libs cunit 2>/dev/null || echo -lcunit))
PEER_LIBS  = $(if $(filter yes,$(ZMQ)),-lzmq) $(if $(filter yes,$(NNG)),-lnng)
DAEMON_LIBS = $(if $(filter no,$(DAEMON)),,$(URCU_LIBS) $(INIH_LIBS))

# ---- Sources -------------------------------------------------------------------------------------

# The client: what libshmq has above the internals that the supervisor shares with it.
CLIENT_SRC := $(foreach c,admin assignment attach channel connection consumer control handles headers \
                producer,$(wildcard libshmq/$(c).c libshmq/$(c)_*.c))
LIB_SRC    := $(wildcard libshmq/*.c)
BELOW_SRC  := $(filter-out $(CLIENT_SRC),$(LIB_SRC))
DAEMON_SRC := $(if $(filter no,$(DAEMON)),,$(filter-out daemon/main.c,$(wildcard daemon/*.c)))
DAEMON_MAIN := $(if $(filter no,$(DAEMON)),,$(wildcard daemon/main.c))
PERF_SRC   := $(wildcard tools/perf/*.c)
DEMO_SRC   := $(wildcard tools/shmq_demo*.c)
TOOL_SRC   := $(if $(filter no,$(TOOLS)),,$(filter-out $(PERF_SRC) $(DEMO_SRC),$(wildcard tools/*.c)))

# Files of a folder that are programs; the others there are linked to each of them.
main_line  := ^(int main|TEST_MAIN|int LLVMFuzzerTestOneInput)[(]
with_main   = $(if $(1),$(shell grep -lE '$(main_line)' $(1)))
TOOL_MAIN  := $(if $(wildcard libshmq/connection.c),$(call with_main,$(TOOL_SRC)))

obj  = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
tobj = $(patsubst %.c,$(BUILD)/tobj/%.o,$(1))

PRODUCTS := $(if $(LIB_SRC),$(BUILD)/libshmq.so.$(SOVERSION) $(BUILD)/libshmq.so $(BUILD)/libshmq.a) \
            $(if $(DAEMON_SRC),$(BUILD)/libshmqd.a) \
            $(if $(DAEMON_MAIN),$(BUILD)/shmqd) \
            $(if $(TOOL_MAIN),$(BUILD)/shmq) \
            $(if $(DAEMON_SRC),$(if $(DEMO_SRC),$(BUILD)/shmq-demo) $(if $(PERF_SRC),$(BUILD)/shmq-perf))

.PHONY: all
all: $(PRODUCTS) ## the libraries and programs (the default)

# ---- Objects -------------------------------------------------------------------------------------

# Changed flags rebuild, so that one BUILD never mixes two kinds of objects.
FLAGS_NOW := $(CC) $(RELEASE_FLAGS) $(TEST_FLAGS) $(LINK_FLAGS)
ifneq ($(strip $(file <$(BUILD)/flags)),$(strip $(FLAGS_NOW)))
$(shell mkdir -p $(BUILD))
$(file >$(BUILD)/flags,$(FLAGS_NOW))
endif

$(BUILD)/obj/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(RELEASE_FLAGS) -MMD -MP -c -o $@ $<

# What is called when something is opened, asked or told, and never on the way of a message, is built for size.
AT_LEISURE := $(foreach c,admin admin_group attach channel connection consumer_open consumer_seek consumer_offsets \
                control control_connect error handles headers hash journal_retention liveness paths paths_make \
                producer_open protocol segment topic_options units wait_crew wait_notifier,libshmq/$(c).c)
$(call obj,$(AT_LEISURE)): CFLAGS += -Os

$(BUILD)/tobj/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(TEST_FLAGS) -MMD -MP -c -o $@ $<

.SECONDARY:

# ---- Products ------------------------------------------------------------------------------------

$(BUILD)/libshmq.so.$(SOVERSION): $(call obj,$(LIB_SRC)) libshmq/libshmq.map
	$(call say,LINK,$@)
	$(Q)$(CC) -shared -Wl,-soname,$(@F) -Wl,--version-script,libshmq/libshmq.map \
	    $(if $(SAN),,-Wl,--no-undefined) -o $@ $(filter %.o,$^) $(LINK_FLAGS)

$(BUILD)/libshmq.so: $(BUILD)/libshmq.so.$(SOVERSION)
	$(Q)ln -sfn $(<F) $@

# What only shmqd uses of the internals is left out of the shared library.
$(BUILD)/libshmq.so.$(SOVERSION): LDFLAGS += -Wl,--gc-sections

# A static library is one object whose hidden symbols are local: libshmq and libshmqd have internals in
# common, and one program may link both.
define localize
	$(call say,AR,$@)
	$(Q)$(CC) -r -nostdlib -o $(BUILD)/obj/$(@F).o $(filter %.o,$^)
	$(Q)$(OBJCOPY) --localize-hidden $(BUILD)/obj/$(@F).o
	$(Q)rm -f $@ && $(AR) rcs $@ $(BUILD)/obj/$(@F).o
endef

$(BUILD)/libshmq.a: $(call obj,$(LIB_SRC))
	$(localize)

$(BUILD)/libshmqd.a: $(call obj,$(BELOW_SRC) $(DAEMON_SRC))
	$(localize)

$(BUILD)/shmqd: $(call obj,$(DAEMON_MAIN) $(BELOW_SRC) $(DAEMON_SRC))
	$(call say,LINK,$@)
	$(Q)$(CC) -o $@ $^ $(LINK_FLAGS) $(DAEMON_LIBS)

# The tool has the internals as well, not only shmq.h: `doctor` reads segments when no supervisor runs.
$(BUILD)/shmq: $(call obj,$(TOOL_SRC)) $(call obj,$(LIB_SRC))
	$(call say,LINK,$@)
	$(Q)$(CC) -o $@ $^ $(LINK_FLAGS)

$(BUILD)/shmq-demo: $(call obj,$(DEMO_SRC)) $(BUILD)/libshmq.a $(BUILD)/libshmqd.a
	$(call say,LINK,$@)
	$(Q)$(CC) -o $@ $^ $(LINK_FLAGS) $(DAEMON_LIBS)

# shmq-perf has the tool's options, tables and JSON, and libshmqd for its private bus.
PERF_TOOL_SRC := $(foreach t,cli cli_help cli_options outbuf table json,tools/$(t).c)
$(BUILD)/shmq-perf: $(call obj,$(PERF_SRC) $(PERF_TOOL_SRC) $(LIB_SRC)) $(BUILD)/libshmqd.a
	$(call say,LINK,$@)
	$(Q)$(CC) -o $@ $^ $(LINK_FLAGS) $(DAEMON_LIBS) $(PEER_LIBS) -lm

# ---- Tests: internals with fault points and assertions on, and every symbol in reach -------------

SUPPORT_SRC := $(wildcard test/support/*.c)
UNIT_SRC    := $(wildcard test/test_*.c)
CRASH_SRC   := $(wildcard test/crash/*.c)
STRESS_SRC  := $(wildcard test/stress/*.c)
FUZZ_SRC    := $(wildcard test/fuzz/*.c)
SCRIPTS     := $(wildcard test/test_*.sh)

ifeq ($(DAEMON),no)
# Without daemon/, what includes it is left out, directly or through headers of test/support, two deep.
empty      :=
either      = $(subst $(empty) ,|,$(strip daemon/ $(1)))
including   = $(shell grep -lE '^.include "($(call either,$(1)))' /dev/null $(2))
support_headers := $(wildcard test/support/*.h)
daemon_headers  := $(call including,$(call including,,$(support_headers)),$(support_headers))
needs_daemon    := $(call including,$(daemon_headers),$(SUPPORT_SRC) $(UNIT_SRC) $(CRASH_SRC))
SUPPORT_SRC := $(filter-out $(needs_daemon),$(SUPPORT_SRC))
# The suites of the tool and of shmq-perf start shmqd.
UNIT_SRC    := $(filter-out $(needs_daemon) test/test_cli% test/test_perf%,$(UNIT_SRC))
CRASH_SRC   := $(filter-out $(needs_daemon),$(CRASH_SRC))
SCRIPTS     :=
endif
ifeq ($(TOOLS),no)
UNIT_SRC    := $(filter-out test/test_cli% test/test_perf%,$(UNIT_SRC))
endif

CRASH_MAIN  := $(call with_main,$(CRASH_SRC))
STRESS_MAIN := $(call with_main,$(STRESS_SRC))
FUZZ_MAIN   := $(call with_main,$(FUZZ_SRC))
CRASH_HELP  := $(filter-out $(CRASH_MAIN),$(CRASH_SRC))
STRESS_HELP := $(filter-out $(STRESS_MAIN),$(STRESS_SRC))
FUZZ_HELP   := $(filter-out $(FUZZ_MAIN),$(FUZZ_SRC))

TESTS ?= %
chosen = $(filter-out $(addprefix $(1),$(SKIP_TESTS)),$(filter $(addprefix $(1),$(TESTS)),$(2)))
UNIT    := $(call chosen,$(BUILD)/test/,$(UNIT_SRC:test/%.c=$(BUILD)/test/%))
CRASH   := $(call chosen,$(BUILD)/test/crash/,$(CRASH_MAIN:%.c=$(BUILD)/%))
STRESS  := $(call chosen,$(BUILD)/test/stress/,$(STRESS_MAIN:%.c=$(BUILD)/%))
FUZZERS := $(call chosen,$(BUILD)/test/fuzz/,$(FUZZ_MAIN:%.c=$(BUILD)/%))
SCRIPTS := $(call chosen,test/,$(basename $(SCRIPTS)))
SCRIPTS := $(SCRIPTS:%=%.sh)

# Programs for the suites, with fault points; run_checks.sh puts this folder first in PATH.
PERF_MAIN := $(if $(and $(DAEMON_SRC),$(TOOL_SRC)),$(call with_main,$(PERF_SRC)))
PROGRAMS := $(if $(DAEMON_MAIN),$(BUILD)/test/bin/shmqd) $(if $(TOOL_MAIN),$(BUILD)/test/bin/shmq) \
            $(if $(PERF_MAIN),$(BUILD)/test/bin/shmq-perf)

INTERNALS := $(BUILD)/tobj/libinternals.a
SUPPORT   := $(BUILD)/tobj/libsupport.a

$(INTERNALS): $(call tobj,$(LIB_SRC) $(DAEMON_SRC) $(filter-out $(TOOL_MAIN),$(TOOL_SRC)) \
                $(if $(PERF_MAIN),$(filter-out $(PERF_MAIN),$(PERF_SRC))))
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(SUPPORT): $(call tobj,$(SUPPORT_SRC))
	$(call say,AR,$@)
	$(Q)mkdir -p $(@D) && rm -f $@ && $(AR) rcs $@ $^

define link_test
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CC) -o $@ $(filter %.o,$^) $(LINK_FLAGS) \
	    -Wl,--start-group $(SUPPORT) $(INTERNALS) -Wl,--end-group \
	    $(DAEMON_LIBS) $(CUNIT_LIBS) $(PEER_LIBS) -lm $(LINK_TEST_EXTRA)
endef

$(BUILD)/test/test_%: $(BUILD)/tobj/test/test_%.o $(SUPPORT) $(INTERNALS)
	$(link_test)

$(BUILD)/test/crash/%: $(BUILD)/tobj/test/crash/%.o $(call tobj,$(CRASH_HELP)) $(SUPPORT) $(INTERNALS)
	$(link_test)

$(BUILD)/test/stress/%: $(BUILD)/tobj/test/stress/%.o $(call tobj,$(STRESS_HELP)) $(SUPPORT) $(INTERNALS)
	$(link_test)

$(BUILD)/test/fuzz/%: LINK_TEST_EXTRA = -fsanitize=fuzzer
$(BUILD)/test/fuzz/%: $(BUILD)/tobj/test/fuzz/%.o $(call tobj,$(FUZZ_HELP)) $(SUPPORT) $(INTERNALS)
	$(link_test)

$(BUILD)/test/bin/shmqd: $(call tobj,$(DAEMON_MAIN)) $(INTERNALS) $(SUPPORT)
	$(link_test)

$(BUILD)/test/bin/shmq: $(call tobj,$(TOOL_MAIN)) $(INTERNALS) $(SUPPORT)
	$(link_test)

$(BUILD)/test/bin/shmq-perf: $(call tobj,$(PERF_MAIN)) $(INTERNALS) $(SUPPORT)
	$(link_test)

# Targets that a person types build with all cores, unless -j says how many.
parallel = $(if $(filter -j%,$(MAKEFLAGS)),,-j$(shell nproc))

# ---- Running them --------------------------------------------------------------------------------

run = BUILD='$(BUILD)' CC='$(CC)' CXX='$(CXX)' RUNNER='$(RUNNER)' test/ci/run_checks.sh

.PHONY: demo check check-unit build-tests run-check check-asan check-ubsan check-tsan check-arm64 \
        check-musl check-install bench stress run-stress fuzz run-fuzz model format tidy abi abi-update \
        install uninstall clean help deps

demo: ## real data through the bus, with processes killed on the way
	@test/ci/deps.sh build
	@+$(MAKE) $(parallel) all
	@$(BUILD)/shmq-demo
	@if [ "$$(nproc)" -gt 1 ]; then echo && echo "And how fast (make bench tells all of it):" && echo && \
	    exec $(BUILD)/shmq-perf -q compare --size 64 --transport shmq,pipe --rounds 7 --duration 2s; fi

check: ## every suite; ends with a count
	@test/ci/deps.sh check
	@+$(MAKE) $(parallel) run-check

build-tests: $(UNIT) $(CRASH) $(STRESS) $(PROGRAMS) ## compile the suites without running them

run-check: all $(UNIT) $(CRASH) $(PROGRAMS)
	@$(run) $(SCRIPTS) $(UNIT) $(CRASH)

check-unit: $(UNIT) $(PROGRAMS) ## the suites of single modules: without test/crash and the scripts
	@$(run) $(UNIT)

check-asan: ## check-unit under AddressSanitizer (SAN=address,undefined for both at once)
	@test/ci/deps.sh check
	@+$(MAKE) $(parallel) BUILD=$(BUILD)/asan SAN=$(or $(SAN),address) check-unit

check-ubsan: ## check-unit under UndefinedBehaviorSanitizer
	@test/ci/deps.sh check
	@+$(MAKE) $(parallel) BUILD=$(BUILD)/ubsan SAN=undefined check-unit

# What real threads share; the other suites use processes, which TSan does not see.
TSAN_TESTS ?= test_crc32c test_ring% test_wait% test_flush% test_thread% test_tsan%
check-tsan: ## ring, wait and flusher with real threads under ThreadSanitizer
	@test/ci/deps.sh check
	@+$(MAKE) $(parallel) BUILD=$(BUILD)/tsan SAN=thread TESTS='$(TSAN_TESTS)' check-unit

# The suites of the harness test the kernel's process calls, which qemu-user has its own ways with; suites
# see TEST_EMULATED and skip what it cannot do.
ARM64 := aarch64-linux-gnu
check-arm64: ## cross-build for arm64, unit suites under qemu-user
	@test/ci/deps.sh arm64
	@+TEST_EMULATED=1 TEST_TIMEOUT_FACTOR=5 TEST_EXEC_WRAPPER='qemu-aarch64 -L /usr/$(ARM64)' \
	 $(MAKE) $(parallel) BUILD=$(BUILD)/arm64 CC=$(ARM64)-gcc AR=$(ARM64)-ar OBJCOPY=$(ARM64)-objcopy \
	    DAEMON=no CUNIT=no SKIP_TESTS='test_support%' RUNNER='qemu-aarch64 -L /usr/$(ARM64)' \
	    all check-unit

# musl-gcc looks into musl's headers alone, which leave those of the kernel to others.
MUSL := $(BUILD)/musl
check-musl: ## libshmq and shmq with musl, unit suites, and a self-test against shmqd
	@test/ci/deps.sh musl
	@mkdir -p $(MUSL)/kernel && ln -sfn /usr/include/linux $(MUSL)/kernel/linux && \
	 ln -sfn /usr/include/asm-generic $(MUSL)/kernel/asm-generic && \
	 ln -sfn /usr/include/$$(gcc -print-multiarch)/asm $(MUSL)/kernel/asm
	@+$(MAKE) $(parallel) BUILD=$(MUSL) CC=musl-gcc CPPFLAGS='-isystem $(MUSL)/kernel' DAEMON=no CUNIT=no \
	    all check-unit
	@+$(MAKE) $(parallel) all
	@test/ci/self_test.sh $(BUILD)/shmqd $(MUSL)/shmq

DURABLE_OPTIONS ?= --history 10G
bench: ## what shmq is built to reach: floor, shmq, the kernel's ways, the disk, ratio, target; some minutes
	@test/ci/deps.sh build
	@+$(MAKE) $(parallel) all
	@$(BUILD)/shmq-perf floor && echo && $(BUILD)/shmq-perf bench $(BENCH_OPTIONS) && echo && \
	    exec $(BUILD)/shmq-perf durable $(DURABLE_OPTIONS)

STRESS_SECONDS ?= 60
stress: ## seeded races and deaths between several processes, STRESS_SECONDS each
	@test/ci/deps.sh check
	@+$(MAKE) $(parallel) run-stress

# With STEP_ALL every instruction of joining, leaving and taking over is a death, not only those that `make check` takes.
EVERY_STEP := $(BUILD)/test/crash/test_step_bus
run-stress: $(STRESS) $(EVERY_STEP) $(PROGRAMS)
	@STEP_ALL=1 STRESS_SECONDS=$(STRESS_SECONDS) TIMEOUT=$$(($(STRESS_SECONDS) * 3 + 120)) JOBS=1 \
	    $(run) $(STRESS) $(EVERY_STEP)

FUZZ_SECONDS ?= 60
fuzz: ## libFuzzer on protocol, records and journal, FUZZ_SECONDS each
	@test/ci/deps.sh fuzz
	@+$(MAKE) $(parallel) BUILD=$(BUILD)/fuzz CC=clang SAN=address,undefined FUZZ=yes run-fuzz

run-fuzz: $(FUZZERS)
	@BUILD='$(BUILD)' FUZZ_SECONDS=$(FUZZ_SECONDS) test/ci/run_fuzz.sh $(FUZZERS)

model: ## the Spin models of the protocols, negative ones included
	@if [ -x test/model/run.sh ]; then test/ci/deps.sh model && exec test/model/run.sh; \
	 else echo "test/model/run.sh is not in this tree; no model was checked"; fi

format: ## clang-format in place
	$(Q)clang-format -i $$(find libshmq daemon tools test -name '*.[ch]')

tidy: ## format, linters, include direction, ORDER labels
	@test/ci/deps.sh tidy
	@CC='$(CC)' test/ci/tidy.sh

abi: all ## symbols, error numbers and struct sizes against test/abi
	@BUILD='$(BUILD)' CC='$(CC)' test/ci/abi.sh

abi-update: all ## record the present interface in test/abi
	@BUILD='$(BUILD)' CC='$(CC)' test/ci/abi.sh --update

# ---- Installing ----------------------------------------------------------------------------------

first = $(firstword $(wildcard $(1)))
# mode:source:destination; install and uninstall read the same list.
INSTALLED = \
    $(if $(LIB_SRC),755:$(BUILD)/libshmq.so.$(SOVERSION):$(LIBDIR)/libshmq.so.$(VERSION) \
        644:$(BUILD)/libshmq.a:$(LIBDIR)/libshmq.a) \
    $(if $(DAEMON_SRC),644:$(BUILD)/libshmqd.a:$(LIBDIR)/libshmqd.a) \
    $(foreach h,$(wildcard libshmq/shmq.h libshmq/shmq_errors.h) \
        $(if $(DAEMON_SRC),$(wildcard daemon/shmqd.h)),644:$(h):$(INCLUDEDIR)/$(notdir $(h))) \
    $(foreach p,$(filter-out $(BUILD)/shmq-demo,$(filter $(BUILD)/shmq%,$(PRODUCTS))), \
        755:$(p):$(BINDIR)/$(notdir $(p))) \
    $(foreach p,libshmq/shmq.pc $(if $(DAEMON_SRC),daemon/shmqd.pc), \
        644:$(BUILD)/install/$(p):$(LIBDIR)/pkgconfig/$(notdir $(p))) \
    $(foreach u,$(UNITS),644:$(BUILD)/install/$(u):$(UNITDIR)/$(notdir $(u))) \
    $(foreach m,$(wildcard docs/man/*.[1-8]),644:$(m):$(MANDIR)/man$(subst .,,$(suffix $(m)))/$(notdir $(m))) \
    $(foreach c,$(call first,tools/shmq.bash tools/shmq.bash-completion tools/completion/shmq), \
        644:$(c):$(COMPLETIONDIR)/shmq) \
    $(foreach c,$(if $(filter %/shmq-perf,$(PRODUCTS)),$(wildcard tools/shmq-perf.bash)), \
        644:$(c):$(COMPLETIONDIR)/shmq-perf) \
    $(foreach d,$(wildcard README.md LICENSE CHANGELOG.md docs/*.md daemon/shmqd.conf), \
        644:$(d):$(DOCDIR)/$(notdir $(d))) \
    $(foreach p,$(wildcard docs/plots/*.svg),644:$(p):$(DOCDIR)/plots/$(notdir $(p)))
UNITS := $(patsubst %.in,%,$(wildcard daemon/*.service.in daemon/*.socket.in))

# Places are filled in at every install: PREFIX may differ from the last one's.
define fill_in
	@mkdir -p $(@D)
	$(Q)sed -e 's|@PREFIX@|$(PREFIX)|g; s|@BINDIR@|$(BINDIR)|g; s|@LIBDIR@|$(LIBDIR)|g' \
	    -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|g; s|@VERSION@|$(VERSION)|g' $< > $@
endef

.PHONY: FORCE
FORCE:
$(BUILD)/install/%: %.in FORCE
	$(fill_in)

install: all $(foreach i,$(INSTALLED),$(filter $(BUILD)/install/%,$(word 2,$(subst :, ,$(i))))) ## under DESTDIR and PREFIX
	$(Q)set -e; for entry in $(INSTALLED); do \
	    mode=$${entry%%:*}; rest=$${entry#*:}; to="$(DESTDIR)$${rest#*:}"; \
	    $(if $(Q),,echo "install $$to";) \
	    install -D -m "$$mode" "$${rest%%:*}" "$$to"; done
	$(Q)$(if $(LIB_SRC),ln -sfn libshmq.so.$(VERSION) "$(DESTDIR)$(LIBDIR)/libshmq.so.$(SOVERSION)" && \
	    ln -sfn libshmq.so.$(SOVERSION) "$(DESTDIR)$(LIBDIR)/libshmq.so")
	$(Q)if [ -z "$(DESTDIR)" ] && [ "$$(id -u)" = 0 ]; then ldconfig; fi
	@echo "shmq $(VERSION) installed under $(DESTDIR)$(PREFIX)"

uninstall: ## takes away what install put there
	$(Q)for entry in $(INSTALLED); do rm -f "$(DESTDIR)$${entry##*:}"; done
	$(Q)rm -f "$(DESTDIR)$(LIBDIR)/libshmq.so.$(SOVERSION)" "$(DESTDIR)$(LIBDIR)/libshmq.so"
	$(Q)rmdir --ignore-fail-on-non-empty "$(DESTDIR)$(DOCDIR)/plots" "$(DESTDIR)$(DOCDIR)" 2>/dev/null || true
	@echo "shmq removed from $(DESTDIR)$(PREFIX)"

clean: ## removes build/
	$(Q)rm -rf -- '$(BUILD)'

deps: ## installs what demo and check need
	@test/ci/deps.sh check

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

ifeq ($(filter clean help,$(MAKECMDGOALS)),)
-include $(shell find $(BUILD)/obj $(BUILD)/tobj -name '*.d' 2>/dev/null)
endif
