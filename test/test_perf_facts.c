/* SPDX-License-Identifier: Apache-2.0 */
/* What shmq-perf reads from files: ELF objects that lie, /proc, profiles, folders. */
#include "libshmq/base.h"
#include "test/support/test.h"
#include "tools/perf/facts.h"

#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE     4096u
#define SECTIONS 7u

/* ---- ELF ------------------------------------------------------------------------------------- */

struct object {
    Elf64_Ehdr head;
    Elf64_Shdr sections[SECTIONS];
    unsigned char bytes[400];
};

static const struct object OBJECT = {
    .head =
        {
            .e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64,
                        __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? ELFDATA2LSB : ELFDATA2MSB},
            .e_shoff = offsetof(struct object, sections),
            .e_shentsize = sizeof(Elf64_Shdr),
            .e_shnum = SECTIONS,
        },
    .sections =
        {
            {.sh_type = SHT_NULL},
            {.sh_type = SHT_PROGBITS, .sh_flags = SHF_ALLOC | SHF_EXECINSTR, .sh_size = 100},
            {.sh_type = SHT_PROGBITS, .sh_flags = SHF_ALLOC, .sh_size = 30},
            {.sh_type = SHT_PROGBITS, .sh_flags = SHF_ALLOC | SHF_WRITE, .sh_size = 7},
            {.sh_type = SHT_NOBITS, .sh_flags = SHF_ALLOC | SHF_WRITE, .sh_size = 1u << 30},
            {.sh_type = SHT_PROGBITS, .sh_size = 200}, /* not in memory: debug information */
            {.sh_type = SHT_PROGBITS,
             .sh_flags = SHF_ALLOC | SHF_WRITE | SHF_EXECINSTR,
             .sh_size = 11}, /* code all the same */
        },
};

/* The last byte of a page before one that cannot be read: who reads too far dies. */
static unsigned char *page_end(void)
{
    unsigned char *pages =
        mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    REQUIRE(pages != MAP_FAILED);
    REQUIRE(mprotect(pages + PAGE, PAGE, PROT_NONE) == 0);
    return pages + PAGE;
}

TEST(text_is_what_is_mapped_and_cannot_be_written)
{
    uint64_t text = 0;

    CHECK(perf_elf_text(&OBJECT, sizeof(OBJECT), &text));
    CHECK_EQ(text, 141);
}

TEST(text_is_what_size_says_of_this_program)
{
    char *const arguments[] = {"size", "/proc/self/exe", NULL};
    char path[256];
    char *const of_path[] = {"size", path, NULL};
    ssize_t length = readlink(arguments[1], path, sizeof(path) - 1);
    struct test_output output;
    uint64_t text = 0;
    size_t bytes = 0;
    char *image;
    const char *line;

    REQUIRE(length > 0);
    path[length] = '\0';
    image = perf_read_file(path, 64u << 20, &bytes);
    REQUIRE(image != NULL);
    CHECK(perf_elf_text(image, bytes, &text));
    CHECK(text > 10000 && text < bytes);
    free(image);
    if (test_run(of_path, &output, 5000) == 0) {
        line = strchr(output.out, '\n');
        CHECK(line != NULL && strtoull(line + 1, NULL, 10) == text);
    }
    test_output_free(&output);
}

TEST(an_object_cut_anywhere_is_refused)
{
    unsigned char *end = page_end();
    size_t whole = offsetof(struct object, bytes) + 100; /* what its sections need */

    for (size_t bytes = 0; bytes <= whole; bytes++) {
        uint64_t text = 7;
        bool understood;

        memcpy(end - bytes, &OBJECT, bytes);
        understood = perf_elf_text(end - bytes, bytes, &text);
        if (bytes < offsetof(struct object, bytes))
            CHECK(!understood && text == 7);
    }
}

TEST(an_object_that_lies_is_refused_or_summed_within_its_bytes)
{
    unsigned char *at = page_end() - sizeof(OBJECT);
    struct test_random random;

    test_random_init(&random, test_seed());
    for (int i = 0; i < 20000; i++) {
        uint64_t text = 0, flips = 1 + test_random_below(&random, 4);

        memcpy(at, &OBJECT, sizeof(OBJECT));
        while (flips-- > 0)
            at[test_random_below(&random, offsetof(struct object, bytes))] =
                (unsigned char)test_random_next(&random);
        if (perf_elf_text(at, sizeof(OBJECT), &text) &&
            memcmp(at + offsetof(struct object, sections), OBJECT.sections,
                   sizeof(OBJECT.sections)) == 0)
            CHECK(text <= 141); /* only the head was touched: fewer sections at most */
    }
    CHECK(true);
}

TEST(other_machines_objects_are_refused)
{
    static const struct {
        size_t at;
        unsigned char byte;
    } CHANGES[] = {
        {0, 'e'},
        {EI_CLASS, ELFCLASS32},
        {EI_DATA, ELFDATANONE},
        {offsetof(Elf64_Ehdr, e_shentsize), sizeof(Elf64_Shdr) - 1},
        {offsetof(Elf64_Ehdr, e_shoff) + 7, 0xff},
        {offsetof(Elf64_Ehdr, e_shnum) + 1, 0xff},
        {offsetof(struct object, sections[1].sh_offset) + 7, 0xff},
        {offsetof(struct object, sections[1].sh_size) + 7, 0xff},
    };

    for (size_t i = 0; i < COUNT_OF(CHANGES); i++) {
        unsigned char copy[sizeof(OBJECT)];
        uint64_t text = 0;

        test_context("change %zu ", i);
        memcpy(copy, &OBJECT, sizeof(copy));
        copy[CHANGES[i].at] = CHANGES[i].byte;
        CHECK(!perf_elf_text(copy, sizeof(copy), &text));
    }
}

TEST(sizes_do_not_wrap_around)
{
    struct object object = OBJECT;
    uint64_t text = 0;

    for (uint32_t i = 1; i < 3; i++) {
        object.sections[i].sh_type = SHT_NOBITS; /* needs no bytes in the file */
        object.sections[i].sh_size = UINT64_MAX / 2 + 1;
    }
    CHECK(!perf_elf_text(&object, sizeof(object), &text));
}

/* ---- /proc ----------------------------------------------------------------------------------- */

TEST(a_status_line_is_found_by_its_whole_name)
{
    static const char TEXT[] = "Name:\tVmRSS: 7\nVmRSSx:\t1 kB\nxVmRSS:\t2 kB\nVmRSS:\t  2244 kB\n"
                               "Empty:\nBad:\tx\nMinus:\t-5\nGlued:\t12x\nLast:\t3";
    uint64_t number = 0;

    CHECK(perf_status_number(TEXT, "VmRSS", &number));
    CHECK_EQ(number, 2244);
    CHECK(perf_status_number(TEXT, "Last", &number));
    CHECK_EQ(number, 3);
    CHECK(!perf_status_number(TEXT, "RSS", &number));
    CHECK(!perf_status_number(TEXT, "Empty", &number));
    CHECK(!perf_status_number(TEXT, "Bad", &number));
    CHECK(!perf_status_number(TEXT, "Minus", &number));
    CHECK(!perf_status_number(TEXT, "Glued", &number));
    CHECK(!perf_status_number("", "VmRSS", &number));
    CHECK_EQ(number, 3);
}

TEST(ticks_are_found_behind_any_command)
{
    uint64_t ticks = 0;

    CHECK(perf_stat_ticks("7 (shmqd) S 1 2 3 4 5 6 7 8 9 10 40 2 0 0", &ticks));
    CHECK_EQ(ticks, 42);
    CHECK(perf_stat_ticks("7 (a) S 9 9 (b) R 1 2 3 4 5 6 7 8 9 10 1 2 0 0", &ticks));
    CHECK_EQ(ticks, 3);
    CHECK(!perf_stat_ticks("7 (shmqd) S 1 2 3 4 5 6 7 8 9 10 40", &ticks));
    CHECK(!perf_stat_ticks("7 (shmqd) S 1 2", &ticks));
    CHECK(!perf_stat_ticks("7 shmqd S", &ticks));
    CHECK(!perf_stat_ticks("", &ticks));
    CHECK_EQ(ticks, 3);
}

TEST(a_process_grows_by_what_it_touches)
{
    const size_t bytes = 8u << 20;
    struct perf_process before = {0}, behind = {0};
    char *memory;

    REQUIRE(perf_read_process(getpid(), &before));
    memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(memory != MAP_FAILED);
    memset(memory, 1, bytes);
    test_sleep_ms(1);
    REQUIRE(perf_read_process(getpid(), &behind));
    CHECK(behind.private_bytes >= before.private_bytes + bytes / 2);
    CHECK(behind.resident_bytes >= before.resident_bytes + bytes / 2);
    CHECK(behind.cpu_ns >= before.cpu_ns);
    CHECK(behind.switches > before.switches);
    (void)munmap(memory, bytes);
}

TEST(a_process_that_is_not_there_has_no_figures)
{
    struct perf_process process = {.switches = 7};

    CHECK(!perf_read_process(-1, &process));
    CHECK_EQ(process.switches, 7);
}

/* ---- profiles and folders -------------------------------------------------------------------- */

TEST(a_profile_is_summed_by_its_own_last_line)
{
    uint64_t total = 0;

    CHECK(
        perf_callgrind_total("version: 1\nevents: Ir\nfn=(1) x\n3 5\n\ntotals: 745613\n", &total));
    CHECK_EQ(total, 745613);
    CHECK(perf_callgrind_total("summary: 12\n", &total));
    CHECK_EQ(total, 12);
    CHECK(!perf_callgrind_total("version: 1\n", &total));
    CHECK_EQ(total, 12);
}

static void put_file(const char *folder, const char *name, size_t bytes)
{
    char path[512], zeros[PAGE] = {0};
    int fd;

    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    REQUIRE(fd >= 0);
    CHECK_EQ(write(fd, zeros, bytes), bytes);
    (void)close(fd);
}

TEST(a_folder_is_summed_by_name)
{
    struct perf_folder folder;
    char *text;
    char path[512];
    size_t bytes = 0;

    put_file(test_tmpdir(), "shmq.a.t1p0.S", 100);
    put_file(test_tmpdir(), "shmq.a.t1p0.D", 4096);
    put_file(test_tmpdir(), "shmq.b.t1p0.S", 50);
    CHECK(perf_read_folder(test_tmpdir(), "shmq.a.", ".D", &folder));
    CHECK_EQ(folder.files, 1);
    CHECK_EQ(folder.bytes, 100);
    CHECK(perf_read_folder(test_tmpdir(), "shmq.", NULL, &folder));
    CHECK_EQ(folder.files, 3);
    CHECK(!perf_read_folder("/nowhere", "shmq.", NULL, &folder));

    (void)snprintf(path, sizeof(path), "%s/shmq.a.t1p0.S", test_tmpdir());
    text = perf_read_file(path, 100, &bytes);
    CHECK(text != NULL && bytes == 100);
    free(text);
    CHECK(perf_read_file(path, 99, &bytes) == NULL);
    CHECK(perf_read_file("/nowhere", 99, &bytes) == NULL);
}

TEST_MAIN("perf_facts", T(text_is_what_is_mapped_and_cannot_be_written),
          T(text_is_what_size_says_of_this_program), T(an_object_cut_anywhere_is_refused),
          T(an_object_that_lies_is_refused_or_summed_within_its_bytes),
          T(other_machines_objects_are_refused), T(sizes_do_not_wrap_around),
          T(a_status_line_is_found_by_its_whole_name), T(ticks_are_found_behind_any_command),
          T(a_process_grows_by_what_it_touches), T(a_process_that_is_not_there_has_no_figures),
          T(a_profile_is_summed_by_its_own_last_line), T(a_folder_is_summed_by_name));
