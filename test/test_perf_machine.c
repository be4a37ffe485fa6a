/* SPDX-License-Identifier: Apache-2.0 */
/* What shmq-perf says of machines: files of some that are not this one, and of none. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "test/support/test.h"
#include "tools/perf/perf.h"

/* Makes the file, and the folders that lead to it, below the test's own. */
static void put(const char *path, const char *text)
{
    char full[512];
    FILE *file;

    snprintf(full, sizeof(full), "%s%s", test_tmpdir(), path);
    for (char *slash = full + strlen(test_tmpdir()) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        REQUIRE(mkdir(full, 0755) == 0 || errno == EEXIST);
        *slash = '/';
    }
    file = fopen(full, "w");
    REQUIRE(file != NULL);
    fputs(text, file);
    fclose(file);
}

static struct perf_machine read_machine(void)
{
    struct perf_machine machine;

    memset(&machine, 0x55, sizeof(machine));
    perf_machine_read_below(test_tmpdir(), &machine);
    return machine;
}

static void put_cache(unsigned index, const char *level, const char *type, const char *size)
{
    char path[128];

    snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu0/cache/index%u/level", index);
    put(path, level);
    snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu0/cache/index%u/type", index);
    put(path, type);
    snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu0/cache/index%u/size", index);
    put(path, size);
}

TEST(x86_has_family_and_model)
{
    struct perf_machine machine;

    put("/proc/cpuinfo", "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 26\n"
                         "model\t\t: 2\nmodel name\t: AMD EPYC\nstepping\t: 1\n\n"
                         "processor\t: 1\ncpu family\t: 27\nmodel\t\t: 3\nmodel name\t: other\n");
    put_cache(0, "1\n", "Data\n", "48K\n");
    put_cache(1, "1\n", "Instruction\n", "32K\n");
    put_cache(2, "2\n", "Unified\n", "1024K\n");
    put_cache(3, "3\n", "Unified\n", "393216K\n");
    put("/sys/kernel/mm/transparent_hugepage/shmem_enabled",
        "always within_size [advise] never deny force\n");
    put("/sys/class/dmi/id/sys_vendor", "QEMU\n");
    machine = read_machine();
    CHECK_STR_EQ(machine.cpu, "AMD EPYC, family 26 model 2");
    CHECK_STR_EQ(machine.caches, "L1d 48 KiB, L2 1 MiB, L3 384 MiB");
    CHECK_STR_EQ(machine.huge_pages, "advise");
    CHECK_STR_EQ(machine.hypervisor, "KVM");
}

TEST(arm64_has_names_for_its_numbers)
{
    struct perf_machine machine;

    put("/proc/cpuinfo", "processor\t: 0\nBogoMIPS\t: 243.75\nCPU implementer\t: 0x41\n"
                         "CPU architecture: 8\nCPU variant\t: 0x3\nCPU part\t: 0xd0c\n");
    put("/sys/class/dmi/id/sys_vendor", "Amazon EC2\n");
    put("/sys/class/dmi/id/product_name", "c6g.xlarge\n");
    machine = read_machine();
    CHECK_STR_EQ(machine.cpu, "Neoverse N1, implementer 0x41 part 0xd0c");
    CHECK_STR_EQ(machine.hypervisor, "Nitro");
    put("/sys/class/dmi/id/product_name", "c6g.metal\n");
    put("/proc/cpuinfo", "CPU implementer\t: 0x77\nCPU part\t: 0x001\n");
    machine = read_machine();
    CHECK_STR_EQ(machine.cpu, "arm64, implementer 0x77 part 0x1");
    CHECK_STR_EQ(machine.hypervisor, "");
}

TEST(hypervisors_are_known_by_their_files)
{
    put("/sys/class/dmi/id/sys_vendor", "Microsoft Corporation\n");
    put("/sys/class/dmi/id/product_name", "Virtual Machine\n");
    CHECK_STR_EQ(read_machine().hypervisor, "Hyper-V");
    put("/sys/class/dmi/id/product_name", "Surface\n"); /* a real one */
    CHECK_STR_EQ(read_machine().hypervisor, "");
    put("/proc/device-tree/hypervisor/compatible", "linux,kvm");
    CHECK_STR_EQ(read_machine().hypervisor, "KVM");
    put("/sys/hypervisor/type", "xen\n");
    CHECK_STR_EQ(read_machine().hypervisor, "Xen");
}

TEST(without_files_it_says_less)
{
    struct perf_machine machine = read_machine();

    CHECK_STR_EQ(machine.cpu, "unknown");
    CHECK_STR_EQ(machine.hypervisor, "");
    CHECK_STR_EQ(machine.caches, "");
    CHECK_STR_EQ(machine.huge_pages, "");
    CHECK_CONTAINS(machine.kernel, "Linux ");
    CHECK(machine.clock[0] == 0x55); /* the clock and the CPUs are others' to fill in */
    CHECK(machine.cpus[0] == 0x55555555);
}

TEST(long_and_strange_files_do_no_harm)
{
    struct perf_machine machine;
    char line[3000];

    memset(line, 'x', sizeof(line) - 1);
    line[sizeof(line) - 1] = '\0';
    memcpy(line, "model name\t: a\033[31m", 19);
    put("/proc/cpuinfo", line);
    put("/sys/hypervisor/type", line);
    put("/sys/kernel/mm/transparent_hugepage/shmem_enabled", line + 20);
    put_cache(0, "1\n", "Data\n", "what\n");
    put_cache(1, "2\n", "", "512K\n");
    machine = read_machine();
    CHECK(strncmp(machine.cpu, "a?[31mxxx", 9) == 0);
    CHECK(strncmp(machine.hypervisor, "Model name", 10) == 0);
    CHECK_STR_EQ(machine.huge_pages, "");
    CHECK_STR_EQ(machine.caches, "L2 512 KiB");
}

TEST(this_machine_has_an_answer_to_everything_that_is_promised)
{
    struct perf_machine machine = {.clock = "kept", .cpus = {5, 6}};
    unsigned year;
    char end;

    perf_machine_read(&machine);
    CHECK(*machine.cpu != '\0');
    CHECK(*machine.compiler != '\0');
    CHECK(machine.cpu_count > 0);
    CHECK(sscanf(machine.date, "%4u-%*2u-%*2uT%*2u:%*2u:%*2u%c", &year, &end) == 2);
    CHECK(year >= 2024 && end == 'Z' && strlen(machine.date) == 20);
    CHECK_STR_EQ(machine.clock, "kept");
    CHECK_INT_EQ(machine.cpus[1], 6);
}

TEST_MAIN("perf_machine", T(x86_has_family_and_model), T(arm64_has_names_for_its_numbers),
          T(hypervisors_are_known_by_their_files), T(without_files_it_says_less),
          T(long_and_strange_files_do_no_harm),
          T(this_machine_has_an_answer_to_everything_that_is_promised))
