/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine.c: which machine this is: processor, hypervisor, kernel, caches, compiler, date.
 *
 * Every figure is one of this machine, so every report begins with it. Read once, before anything is
 * measured. Containers hide files and arm64 has others than x86: what is missing leaves its text
 * empty, or says less, and is never an error. Paths begin with a root that tests replace; with the real
 * one ("") the processor itself and the C library are asked as well. One thread; nothing blocks.
 */
#include <ctype.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "tools/outbuf.h"
#include "tools/perf/perf.h"

/* ---- Small files ----------------------------------------------------------------------------- */

/* The first line of ROOT/PATH without its newline; false, and "", if there is none. */
static bool read_line(const char *root, const char *path, char *ret_text, size_t size)
{
    char full[512];
    FILE *file;
    bool found;

    ret_text[0] = '\0';
    (void)snprintf(full, sizeof(full), "%s%s", root, path);
    file = fopen(full, "re");
    if (!file)
        return false;
    found = fgets(ret_text, (int)size, file) != NULL;
    (void)fclose(file);
    ret_text[strcspn(ret_text, "\n")] = '\0';
    text_make_printable(ret_text);
    return found && *ret_text;
}

/* What stands behind "KEY\t: " in cpuinfo, of the first processor that has it. */
static bool read_cpuinfo(const char *root, const char *key, char *ret_text, size_t size)
{
    char full[512];
    char line[512];
    size_t length = strlen(key);
    bool found = false;
    FILE *file;

    ret_text[0] = '\0';
    (void)snprintf(full, sizeof(full), "%s/proc/cpuinfo", root);
    file = fopen(full, "re");
    while (file && !found && fgets(line, sizeof(line), file)) {
        char *colon = strchr(line, ':');

        if (!colon || strncmp(line, key, length) != 0 ||
            line + length + strspn(line + length, " \t") != colon)
            continue;
        colon += 1 + strspn(colon + 1, " \t");
        colon[strcspn(colon, "\n")] = '\0';
        text_make_printable(colon);
        (void)snprintf(ret_text, size, "%s", colon);
        found = true;
    }
    if (file)
        (void)fclose(file);
    return found;
}

/* ---- Processor ------------------------------------------------------------------------------- */

/* arm64 has numbers for names; these are the ones that one meets in servers and on small boards. */
static const struct {
    unsigned implementer, part;
    const char *name;
} ARM_CORES[] = {
    {0x41, 0xd03, "Cortex-A53"},  {0x41, 0xd04, "Cortex-A35"},  {0x41, 0xd05, "Cortex-A55"},
    {0x41, 0xd07, "Cortex-A57"},  {0x41, 0xd08, "Cortex-A72"},  {0x41, 0xd09, "Cortex-A73"},
    {0x41, 0xd0a, "Cortex-A75"},  {0x41, 0xd0b, "Cortex-A76"},  {0x41, 0xd0c, "Neoverse N1"},
    {0x41, 0xd40, "Neoverse V1"}, {0x41, 0xd41, "Cortex-A78"},  {0x41, 0xd49, "Neoverse N2"},
    {0x41, 0xd4f, "Neoverse V2"}, {0x41, 0xd84, "Neoverse V3"}, {0x41, 0xd8e, "Neoverse N3"},
    {0xc0, 0xac3, "Ampere-1"},    {0xc0, 0xac4, "Ampere-1A"},
};

static void name_arm_core(const char *implementer, const char *part, char *ret_text, size_t size)
{
    unsigned long maker = strtoul(implementer, NULL, 16);
    unsigned long model = strtoul(part, NULL, 16);

    for (size_t i = 0; i < COUNT_OF(ARM_CORES); i++) {
        if (ARM_CORES[i].implementer == maker && ARM_CORES[i].part == model) {
            (void)snprintf(ret_text, size, "%s, implementer 0x%lx part 0x%lx", ARM_CORES[i].name,
                           maker, model);
            return;
        }
    }
    (void)snprintf(ret_text, size, "arm64, implementer 0x%lx part 0x%lx", maker, model);
}

/* "AMD EPYC" names ten years of processors: family and model say which. */
static void read_cpu(const char *root, char *ret_text, size_t size)
{
    char name[80], family[16], model[16];

    if (read_cpuinfo(root, "model name", name, sizeof(name))) {
        if (read_cpuinfo(root, "cpu family", family, sizeof(family)) &&
            read_cpuinfo(root, "model", model, sizeof(model)))
            (void)snprintf(ret_text, size, "%.60s, family %.8s model %.8s", name, family, model);
        else
            (void)snprintf(ret_text, size, "%s", name);
    } else if (read_cpuinfo(root, "CPU implementer", family, sizeof(family)) &&
               read_cpuinfo(root, "CPU part", model, sizeof(model))) {
        name_arm_core(family, model, ret_text, size);
    } else {
        (void)snprintf(ret_text, size, "unknown");
    }
}

/* ---- Hypervisor ------------------------------------------------------------------------------ */

struct known {
    const char *mark, *name;
};

static const char *name_of(const struct known *known, size_t count, const char *text)
{
    for (size_t i = 0; i < count; i++) {
        if (strncmp(text, known[i].mark, strlen(known[i].mark)) == 0)
            return known[i].name;
    }
    return NULL;
}

/* What the hypervisor answers to cpuid; false without one. */
static bool ask_cpuid(char *ret_text, size_t size)
{
#if defined(__x86_64__)
    static const struct known SIGNATURES[] = {
        {"KVMKVMKVM", "KVM"},           {"Microsoft Hv", "Hyper-V"}, {"VMwareVMware", "VMware"},
        {"XenVMMXenVMM", "Xen"},        {"TCGTCGTCGTCG", "QEMU"},    {"bhyve bhyve", "bhyve"},
        {"VBoxVBoxVBox", "VirtualBox"}, {"ACRNACRNACRN", "ACRN"},    {"LKVMLKVMLKVM", "KVM"},
    };
    char signature[13] = "";
    unsigned a, b, c, d;
    const char *name;

    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & 1u << 31))
        return false;
    __cpuid(0x40000000u, a, b, c, d);
    memcpy(signature, &b, 4);
    memcpy(signature + 4, &c, 4);
    memcpy(signature + 8, &d, 4);
    text_make_printable(signature);
    name = name_of(SIGNATURES, COUNT_OF(SIGNATURES), signature);
    (void)snprintf(ret_text, size, "%s", name ? name : *signature ? signature : "unknown");
    return true;
#else
    (void)ret_text;
    (void)size;
    return false;
#endif
}

/* Xen says it in one file, device trees and firmware in others. Firmware of a real machine has the name
 * of who made it, which is not among these; that of Amazon names the machine's type as well. */
static void find_in_files(const char *root, char *ret_text, size_t size)
{
    static const struct known MAKERS[] = {
        {"QEMU", "KVM"},           {"KVM", "KVM"},          {"Google", "KVM"},
        {"VMware", "VMware"},      {"Xen", "Xen"},          {"Apple Virt", "Apple Virtualization"},
        {"innotek", "VirtualBox"}, {"DigitalOcean", "KVM"}, {"Hetzner", "KVM"},
        {"Amazon EC2", "Nitro"},   {"linux,kvm", "KVM"},    {"xen,", "Xen"},
    };
    static const char *const FILES[] = {
        "/proc/device-tree/hypervisor/compatible",
        "/sys/class/dmi/id/sys_vendor",
        "/sys/class/dmi/id/product_name",
    };
    char text[64], product[64];
    const char *name = NULL;

    if (read_line(root, "/sys/hypervisor/type", ret_text, size)) {
        ret_text[0] = (char)toupper((unsigned char)ret_text[0]);
        return;
    }
    for (size_t i = 0; i < COUNT_OF(FILES) && !name; i++) {
        if (read_line(root, FILES[i], text, sizeof(text)))
            name = name_of(MAKERS, COUNT_OF(MAKERS), text);
    }
    if (read_line(root, "/sys/class/dmi/id/product_name", product, sizeof(product))) {
        if (strncmp(product, "Virtual Machine", 15) ==
            0) /* of Microsoft, which makes real ones, too */
            name = "Hyper-V";
        if (strstr(product, ".metal"))
            name = NULL;
    }
    (void)snprintf(ret_text, size, "%s", name ? name : "");
}

/* ---- Memory ---------------------------------------------------------------------------------- */

static void append_cache(char *text, size_t size, const char *name, const char *amount)
{
    size_t length = strlen(text);

    (void)snprintf(text + length, size - length, "%s%s %s", length > 0 ? ", " : "", name, amount);
}

/* "1024K" of sysfs as "1 MiB". */
static void say_cache_size(const char *raw, char text[PERF_TEXT_BYTES])
{
    char *rest;
    unsigned long long amount = strtoull(raw, &rest, 10);

    if (*rest == 'K' || *rest == 'M')
        amount <<= *rest == 'K' ? 10 : 20;
    (void)perf_text_size(amount, text);
}

static void read_caches(const char *root, char *ret_text, size_t size)
{
    char path[96], level[8], type[24], raw[24], amount[PERF_TEXT_BYTES], name[24];

    ret_text[0] = '\0';
    for (int i = 0; i < 8; i++) {
        (void)snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu0/cache/index%d/level", i);
        if (!read_line(root, path, level, sizeof(level)))
            break;
        (void)snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu0/cache/index%d/type", i);
        (void)read_line(root, path, type, sizeof(type));
        (void)snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu0/cache/index%d/size", i);
        if (strcmp(type, "Instruction") == 0 || !read_line(root, path, raw, sizeof(raw)))
            continue;
        say_cache_size(raw, amount);
        if (!*amount)
            continue;
        (void)snprintf(name, sizeof(name), "L%s%s", level, strcmp(type, "Data") == 0 ? "d" : "");
        append_cache(ret_text, size, name, amount);
    }
}

/* The same from the C library, where sysfs is not to be seen. */
static void ask_for_caches(char *text, size_t size)
{
#if defined(_SC_LEVEL1_DCACHE_SIZE)
    static const struct {
        int name;
        const char *text;
    } CACHES[] = {
        {_SC_LEVEL1_DCACHE_SIZE, "L1d"},
        {_SC_LEVEL2_CACHE_SIZE, "L2"},
        {_SC_LEVEL3_CACHE_SIZE, "L3"},
    };

    for (size_t i = 0; i < COUNT_OF(CACHES); i++) {
        char amount[PERF_TEXT_BYTES];
        long bytes = sysconf(CACHES[i].name);

        if (bytes > 0)
            append_cache(text, size, CACHES[i].text, perf_text_size((uint64_t)bytes, amount));
    }
#else
    (void)text;
    (void)size;
#endif
}

/* The chosen one of "always within_size advise [never] deny force". */
static void read_huge_pages(const char *root, char *ret_text, size_t size)
{
    char line[128];
    char *chosen;

    (void)read_line(root, "/sys/kernel/mm/transparent_hugepage/shmem_enabled", line, sizeof(line));
    chosen = strchr(line, '[');
    if (chosen)
        chosen[strcspn(chosen, "]")] = '\0';
    (void)snprintf(ret_text, size, "%s", chosen ? chosen + 1 : "");
}

/* ---- All of it ------------------------------------------------------------------------------- */

static void read_kernel(char *ret_text, size_t size)
{
    struct utsname names;

    if (uname(&names) < 0)
        (void)snprintf(ret_text, size, "unknown");
    else
        (void)snprintf(ret_text, size, "%.16s %.56s %.16s", names.sysname, names.release,
                       names.machine);
}

static void read_date(char *ret_text, size_t size)
{
    time_t now = time(NULL);
    struct tm parts;

    ret_text[0] = '\0';
    if (gmtime_r(&now, &parts))
        (void)strftime(ret_text, size, "%Y-%m-%dT%H:%M:%SZ", &parts);
}

void perf_machine_read_below(const char *root, struct perf_machine *ret_machine)
{
    struct perf_machine *m = ret_machine;
    bool is_real = !*root;

    read_cpu(root, m->cpu, sizeof(m->cpu));
    if (!is_real || !ask_cpuid(m->hypervisor, sizeof(m->hypervisor)))
        find_in_files(root, m->hypervisor, sizeof(m->hypervisor));
    read_caches(root, m->caches, sizeof(m->caches));
    if (is_real && !*m->caches)
        ask_for_caches(m->caches, sizeof(m->caches));
    read_huge_pages(root, m->huge_pages, sizeof(m->huge_pages));
    read_kernel(m->kernel, sizeof(m->kernel));
#if defined(__clang__)
    (void)snprintf(m->compiler, sizeof(m->compiler), "%s", __VERSION__); /* begins with its name */
#else
    (void)snprintf(m->compiler, sizeof(m->compiler), "gcc %s", __VERSION__);
#endif
    read_date(m->date, sizeof(m->date));
    m->cpu_count = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN);
}

void perf_machine_read(struct perf_machine *ret_machine)
{
    perf_machine_read_below("", ret_machine);
}
