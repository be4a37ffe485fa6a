/* SPDX-License-Identifier: Apache-2.0 */
/* `shmq journal`: journals made by hand, whole and damaged, verified, dumped, shown and repaired. */
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/store.h"
#include "libshmq/hash.h"
#include "libshmq/journal_read.h"
#include "libshmq/record.h"
#include "test/support/cli.h"
#include "test/support/fixture.h"
#include "tools/journal.h"

#define SALT       UINT64_C(0xfeedfacecafe0040)
#define FILE_BYTES 16384u /* header and 12 KiB of records */
#define ROOM       (FILE_BYTES - JOURNAL_HEADER_BYTES)
#define TIME_NS    UINT64_C(1700000000000000000)
#define TOPIC      3u
#define JUMP \
    ((UINT64_C(64) << 20) + 65536) /* from the base of the newest file, over a ring of 64K */

/* ---- making journals ---------------------------------------------------------------------------- */

/* A file in memory. */
struct maker {
    struct journal_header header;
    unsigned char image[FILE_BYTES];
    size_t bytes;
    uint64_t end;
};

static struct maker m;
static uint32_t partition;

static void begin(uint64_t base, uint64_t previous_end, uint64_t messages)
{
    memset(&m, 0, sizeof(m));
    m.bytes = FILE_BYTES;
    m.end = base;
    m.header.base = base;
    m.header.salt = SALT;
    m.header.previous_end = previous_end;
    m.header.durable = previous_end;
    m.header.messages = messages;
    m.header.max_timestamp_ns = messages ? TIME_NS + messages - 1 : 0;
    m.header.topic = TOPIC;
    m.header.partition = partition;
    journal_seal_header(&m.header);
    memcpy(m.image, &m.header, sizeof(m.header));
}

static void add(uint64_t state, const char *key, const void *body, size_t length, uint64_t time_ns)
{
    unsigned char *at = m.image + JOURNAL_HEADER_BYTES + (m.end - m.header.base);
    uint64_t stamp = record_stamp(m.header.salt, m.end, state);
    uint32_t total = (uint32_t)(strlen(key) + length);
    uint16_t key_length = (uint16_t)strlen(key);
    uint32_t crc;

    REQUIRE(m.end - m.header.base + record_size(total) <= ROOM);
    memcpy(at, &stamp, 8);
    memcpy(at + 8, &total, 4);
    memcpy(at + 16, &time_ns, 8);
    memcpy(at + 26, &key_length, 2);
    memcpy(at + 32, key, key_length);
    memcpy(at + 32 + key_length, body, length);
    crc = journal_record_crc(at, state);
    memcpy(at + 12, &crc, 4);
    m.end += record_size(total);
}

/* "message 17", in 64 bytes. */
static void add_numbers(unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++) {
        char body[32];

        snprintf(body, sizeof(body), "message %u", i);
        add(RECORD_COMMITTED, "k", body, strlen(body), TIME_NS + i);
    }
}

#define PATH_BYTES 800

static const char *in(const char *dir, const char *name, char path[PATH_BYTES])
{
    snprintf(path, PATH_BYTES, "%s/%s", dir, name);
    return path;
}

static void write_file(const char *dir, const char *name)
{
    char path[PATH_BYTES];
    FILE *file = fopen(in(dir, name, path), "w");

    REQUIRE(file != NULL);
    REQUIRE(fwrite(m.image, 1, m.bytes, file) == m.bytes);
    REQUIRE(fclose(file) == 0);
}

static void write_log(const char *dir)
{
    char name[JOURNAL_NAME_BYTES];

    journal_format_name(m.header.base, name);
    write_file(dir, name);
}

static const char *state_dir(void)
{
    static char path[400];

    snprintf(path, sizeof(path), "%s/%s", getenv("SHMQ_STATE_DIR"), test_bus_name());
    return path;
}

/* STATE/BUS/journal/NAME, with what lies between. */
static const char *make_dir(const char *name, char path[512])
{
    char command[600];

    snprintf(path, 512, "%s/journal/%s", state_dir(), name);
    snprintf(command, sizeof(command), "mkdir -p '%s'", path);
    REQUIRE(system(command) == 0);
    return path;
}

/* Three files: 0 with messages 0–9 and a padding, rolled over at 704 to 10–19, and then 20–24 and a key and a body
 * that need escapes. */
#define FIRST  "00000000000000000000.log"
#define SECOND "00000000000000000704.log"
#define THIRD  "00000000000000001344.log"

static void make_usual(const char *dir)
{
    begin(0, 0, 0);
    add_numbers(0, 10);
    add(RECORD_PADDING, "", "garbage", 7, 0);
    CHECK_EQ(m.end, 704);
    write_log(dir);
    begin(704, 704, 10);
    add_numbers(10, 20);
    CHECK_EQ(m.end, 1344);
    write_log(dir);
    begin(1344, 1344, 20);
    add_numbers(20, 25);
    add(RECORD_COMMITTED, "-", "a\tb\nc\\\x01\xc3\xa9", 9, TIME_NS + 25);
    write_log(dir);
}

static const char *make_orders(char path[512])
{
    cli_need_tool();
    make_dir("orders.3/0", path);
    make_usual(path);
    return path;
}

/* Overwrites bytes of a file. */
static void scribble(const char *dir, const char *name, uint64_t position, const void *bytes,
                     size_t length)
{
    char path[PATH_BYTES];
    int fd = open(in(dir, name, path), O_RDWR | O_CLOEXEC);

    REQUIRE(fd >= 0);
    REQUIRE(pwrite(fd, bytes, length, (off_t)position) == (ssize_t)length);
    close(fd);
}

static void flip(const char *dir, const char *name, uint64_t position)
{
    char path[PATH_BYTES];
    unsigned char byte;
    int fd = open(in(dir, name, path), O_RDONLY | O_CLOEXEC);

    REQUIRE(fd >= 0);
    REQUIRE(pread(fd, &byte, 1, (off_t)position) == 1);
    close(fd);
    byte ^= 0x10;
    scribble(dir, name, position, &byte, 1);
}

static bool exists(const char *dir, const char *name)
{
    char path[PATH_BYTES];

    return access(in(dir, name, path), F_OK) == 0;
}

/* What `journal VERB orders` says, checked for exit code and, in JSON, for being JSON. */
static void expect(int code, const char *words, const char *part)
{
    struct test_output out;

    test_context("%s: ", words);
    CHECK_INT_EQ(cli_run(&out, words), code);
    if (part)
        CHECK_CONTAINS(out.out, part);
    test_output_free(&out);
    test_context(NULL);
}

static unsigned count_lines(const char *text)
{
    unsigned lines = 0;

    for (; *text; text++)
        lines += *text == '\n';
    return lines;
}

/* ---- a sound journal ---------------------------------------------------------------------------- */

TEST(a_sound_journal_is_verified)
{
    char dir[512];
    struct test_output out;

    make_orders(dir);
    CHECK_INT_EQ(cli_run(&out, "journal verify orders"), 0);
    CHECK_STR_EQ(out.out, "sound: 26 messages in 3 files of 1 partition, 48K\n");
    CHECK_STR_EQ(out.err, "");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "--json journal verify orders"), 0);
    CHECK(cli_is_json(out.out, 1));
    CHECK_CONTAINS(out.out, "\"sound\":true");
    CHECK_CONTAINS(out.out, "\"messages\":26");
    CHECK_CONTAINS(out.out, "\"padding\":1");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "-q journal verify orders"), 0);
    CHECK_STR_EQ(out.out, "");
    test_output_free(&out);
}

TEST(paths_and_topics_are_found)
{
    char dir[512];
    char other[512];
    char path[PATH_BYTES];
    struct test_output out;

    make_orders(dir);
    make_dir("orders.3/1", other);
    partition = 1;
    make_usual(other);
    snprintf(path, sizeof(path), "%s/journal/orders.3", state_dir());
    CHECK_INT_EQ(cli_run(&out, "journal verify", path), 0);
    CHECK_CONTAINS(out.out, "in 6 files of 2 partitions");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "journal verify", dir), 0);
    CHECK_CONTAINS(out.out, "in 3 files of 1 partition,");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "journal verify", in(dir, SECOND, path)), 0);
    CHECK_CONTAINS(out.out, "10 messages in 1 file of 1 partition,");
    test_output_free(&out);
    expect(0, "journal verify orders/1", "in 3 files of 1 partition,");
    expect(0, "journal verify orders.3", "in 6 files of 2 partitions");
    expect(1, "journal verify orders/2", NULL);
    CHECK_INT_EQ(cli_run(&out, "journal verify invoices"), 1);
    CHECK_CONTAINS(out.err, "/journal/invoices.ID");
    test_output_free(&out);
    make_dir("orders.7/0", other);
    CHECK_INT_EQ(cli_run(&out, "journal verify orders"), 1);
    CHECK_CONTAINS(out.err, "orders.3, orders.7");
    test_output_free(&out);
    expect(0, "journal verify orders.3", "in 6 files of 2 partitions");
    make_dir("orders.8.deleted/0", other);
    CHECK_INT_EQ(cli_run(&out, "journal verify", test_tmpdir()), 1);
    CHECK_CONTAINS(out.err, "no journal");
    test_output_free(&out);
}

TEST(a_dump_has_every_record)
{
    char dir[512];
    struct test_output out;

    make_orders(dir);
    CHECK_INT_EQ(cli_run(&out, "journal dump orders"), 0);
    CHECK_INT_EQ(count_lines(out.out), 26);
    CHECK_CONTAINS(out.out, "0\t2023-11-14T22:13:20.000Z\t0\tk\t9\tmessage 0\n");
    CHECK_CONTAINS(out.out, "\n704\t2023-11-14T22:13:20.000Z\t0\tk\t10\tmessage 10\n");
    CHECK_CONTAINS(out.out, "\t\\x2d\t9\ta\\tb\\nc\\\\\\x01\xc3\xa9\n");
    CHECK_STR_EQ(out.err, "");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "--json journal dump orders"), 0);
    CHECK(cli_is_json(out.out, 26));
    CHECK_CONTAINS(out.out, "\"offset\":1344,");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "journal dump orders --all"), 0);
    CHECK_INT_EQ(count_lines(out.out), 27);
    CHECK_CONTAINS(out.out, "\n640\t-\t0\t-\t64\t(padding)\n");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "--json journal dump orders --all"), 0);
    CHECK(cli_is_json(out.out, 27));
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "journal dump orders --raw -n 2"), 0);
    CHECK_STR_EQ(out.out, "message 0message 1");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "journal dump orders --raw -n 2 --from 1281"), 0);
    CHECK_STR_EQ(out.out, "message 20message 21");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "journal dump orders --raw --from 100000"), 0);
    CHECK_STR_EQ(out.out, "");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "journal dump orders --raw -n 1 --from earliest"), 0);
    CHECK_STR_EQ(out.out, "message 0");
    test_output_free(&out);
    expect(2, "journal dump orders --from yesterday", NULL);
    expect(2, "--json journal dump orders --raw", NULL);
}

TEST(stat_shows_files)
{
    char dir[512];
    struct test_output out;

    make_orders(dir);
    CHECK_INT_EQ(cli_run(&out, "journal stat orders"), 0);
    CHECK_CONTAINS(out.out, "orders/0 in ");
    CHECK_CONTAINS(out.out, "newest: it is written");
    CHECK_CONTAINS(out.out, "the topic's retention is not known");
    CHECK_CONTAINS(out.out,
                   "26 messages in 3 files of 1 partition: 48K on disk, 1.6K of them records");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "--json journal stat orders"), 0);
    CHECK(cli_is_json(out.out, 1));
    CHECK(strncmp(cli_json_at(out.out, "0/files/0/messages"), "10,", 3) == 0);
    CHECK(strncmp(cli_json_at(out.out, "0/files/0/end"), "704,", 4) == 0);
    CHECK(strncmp(cli_json_at(out.out, "0/files/2/end"), "1728,", 5) == 0);
    CHECK(strncmp(cli_json_at(out.out, "0/files/2/kept"), "\"newest\"", 8) == 0);
    CHECK(strncmp(cli_json_at(out.out, "0/files/2/salt"), "\"feedfacecafe0040\"", 18) == 0);
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "-q journal stat orders"), 0);
    CHECK_INT_EQ(count_lines(out.out), 3);
    test_output_free(&out);
}

/* Options of topic 3 in the metadata, as the supervisor writes them. */
static void write_metadata(uint64_t retain_bytes, uint64_t retain_ns)
{
    const struct store_callbacks callbacks = {.put_topic = NULL};
    struct store_topic topic;
    struct store *store = NULL;
    char dir[512];

    make_dir("../meta", dir);
    memset(&topic, 0, sizeof(topic));
    topic_options_init(&topic.options);
    snprintf(topic.options.name, sizeof(topic.options.name), "orders");
    snprintf(topic.options.vhost, sizeof(topic.options.vhost), "default");
    REQUIRE_OK(topic_options_complete(&topic.options, NULL));
    topic.options.retain_bytes = retain_bytes;
    topic.options.retain_ns = retain_ns;
    topic.id = TOPIC;
    snprintf(dir, sizeof(dir), "%s/meta", state_dir());
    REQUIRE_OK(store_open(dir, &callbacks, NULL, &store, NULL));
    REQUIRE_OK(store_put_topic(store, &topic, NULL));
    store_close(store);
}

TEST(stat_says_why_a_file_is_kept)
{
    char dir[512];
    struct test_output out;

    make_orders(dir);
    write_metadata(0, 0);
    expect(0, "journal stat orders", "no retention is set");
    write_metadata(UINT64_C(1) << 20, 0);
    expect(0, "journal stat orders", "within retain-bytes 1M");
    write_metadata(40000, 0); /* two files and a bit */
    CHECK_INT_EQ(cli_run(&out, "--json journal stat orders"), 0);
    CHECK(strncmp(cli_json_at(out.out, "0/files/0/kept"), "\"gone\"", 6) == 0);
    CHECK(strncmp(cli_json_at(out.out, "0/files/1/kept"), "\"bytes\"", 7) == 0);
    CHECK(strncmp(cli_json_at(out.out, "0/retain_bytes"), "40000,", 6) == 0);
    test_output_free(&out);
    write_metadata(0, UINT64_C(400000) * 24 * 3600 * 1000000);
    expect(0, "journal stat orders", "no longer: retention lets it go");
    flip(dir, FIRST, 24);
    expect(0, "journal stat orders", "damaged: see shmq journal verify");
}

TEST(metadata_is_a_journal_as_well)
{
    char path[PATH_BYTES];
    struct test_output out;

    cli_need_tool();
    write_metadata(0, 0);
    snprintf(path, sizeof(path), "%s/meta", state_dir());
    CHECK_INT_EQ(cli_run(&out, "journal verify", path), 0);
    CHECK_CONTAINS(out.out, "sound: 1 message in");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "journal dump", path), 0);
    CHECK_CONTAINS(out.out, "orders");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "journal repair", path), 1);
    CHECK_CONTAINS(out.err, "restore the state directory from a backup");
    test_output_free(&out);
}

/* ---- what verify finds -------------------------------------------------------------------------- */

/* `words` ends in one finding of this kind, which says this, and the exit code is what its being normal says. */
static void expect_finding(const char *kind, bool normal, const char *part)
{
    struct test_output out;
    char text[64];

    test_context("%s: ", kind);
    CHECK_INT_EQ(cli_run(&out, "journal verify orders"), normal ? 0 : 1);
    snprintf(text, sizeof(text), ": %s: ", kind);
    CHECK_CONTAINS(out.out, text);
    CHECK_CONTAINS(out.out, part);
    CHECK_INT_EQ(count_lines(out.out), 2);
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "-q journal verify orders"), normal ? 0 : 1);
    CHECK_INT_EQ(count_lines(out.out), normal ? 0 : 1);
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "--json journal verify orders"), normal ? 0 : 1);
    CHECK(cli_is_json(out.out, 2));
    snprintf(text, sizeof(text), "\"finding\":\"%s\",\"normal\":%s", kind,
             normal ? "true" : "false");
    CHECK_CONTAINS(out.out, text);
    CHECK_CONTAINS(out.out, normal ? "\"sound\":true" : "\"sound\":false");
    test_output_free(&out);
    test_context(NULL);
}

/* Where the record `index` of a file of 64-byte records stands. */
#define AT(index) (JOURNAL_HEADER_BYTES + 64u * (index))

TEST(verify_finds_a_damaged_record)
{
    char dir[512];

    make_orders(dir);
    flip(dir, FIRST, AT(3) + 40);
    expect_finding("damage", false,
                   "offset 192, 64 bytes: damage: a record whose checksum is wrong");
    expect(1, "journal verify orders", "1 finding, 64 lost");
    make_usual(dir);
    flip(dir, FIRST, AT(3) + 1);
    expect_finding("damage", false, "offset 192, 64 bytes: damage: no stamp of this offset");
    make_usual(dir);
    flip(dir, FIRST, AT(3) + 10);
    expect_finding("damage", false, "offset 192, 64 bytes: damage: a record whose length does not");
    /* At the end of a file that has a successor nothing behind it holds, and yet it was there. */
    make_usual(dir);
    flip(dir, FIRST, AT(10) + 20);
    expect_finding("damage", false, "offset 640, 64 bytes: damage: ");
    /* In the newest, in front of records that hold. */
    make_usual(dir);
    flip(dir, THIRD, AT(0));
    expect_finding("damage", false, "offset 1344, 64 bytes: damage: ");
}

TEST(verify_calls_what_a_crash_leaves_normal)
{
    char dir[512];
    char other[PATH_BYTES];

    make_orders(dir);
    flip(dir, THIRD, AT(5) + 33); /* the last record: torn, or never confirmed */
    expect_finding("torn", true, "offset 1664, 64 bytes: torn: ");
    make_usual(dir);
    scribble(dir, THIRD, AT(8), "garbage", 7);
    expect_finding("torn", true, "offset 1728, 192 bytes: torn: ");
    /* Begun anew at 1216, below the end of the one before. */
    make_usual(dir);
    unlink(in(dir, THIRD, other));
    begin(1216, 1216, 18);
    add_numbers(18, 30);
    write_log(dir);
    expect_finding("overlap", true, "offset 1216, 128 bytes: overlap: ");
    expect(0, "journal dump orders", "\n1216\t2023-11-14T22:13:20.000Z\t0\tk\t10\tmessage 18\n");
    /* The host crashed, and the log went on above size of file and capacity. */
    unlink(in(dir, "00000000000000001216.log", other));
    begin(704 + JUMP, 1344, 20);
    add_numbers(20, 30);
    write_log(dir);
    expect_finding("jump", true, "offset 1344, 67173760 bytes: jump: ");
    expect(0, "journal dump orders", "\n67175104\t");
    /* The preparer's. */
    make_usual(dir);
    unlink(in(dir, "00000000000067175104.log", other));
    write_file(dir, "next.tmp");
    expect_finding("unfinished", true, "next.tmp was prepared");
}

TEST(verify_finds_files_that_are_missing_or_wrong)
{
    char dir[512];
    char a[PATH_BYTES];
    char b[PATH_BYTES];

    make_orders(dir);
    /* A full one between two, which is gone. */
    begin(1344, 1344, 20);
    for (unsigned i = 0; i < ROOM / 64; i++)
        add_numbers(i, i + 1);
    write_log(dir);
    begin(1344 + ROOM, 1344 + ROOM, 20 + ROOM / 64);
    add_numbers(0, 10);
    write_log(dir);
    expect(0, "journal verify orders", "sound");
    unlink(in(dir, THIRD, a));
    expect_finding("missing", false, "offset 1344, 12288 bytes: missing: the log went on to 13632");
    unlink(in(dir, "00000000000000013632.log", a));
    make_usual(dir);
    REQUIRE(rename(in(dir, SECOND, a), in(dir, "00000000000000000768.log", b)) == 0);
    expect_finding("name", false, "begins at offset 704, which is not its name");
    expect(0, "journal dump orders", "message 19");
    make_usual(dir);
    expect_finding("double", false, "begins at offset 704, as 00000000000000000704.log does");
    unlink(b);
    begin(704, 704, 10);
    m.header.topic = 4;
    journal_seal_header(&m.header);
    memcpy(m.image, &m.header, sizeof(m.header));
    add_numbers(10, 20);
    write_log(dir);
    expect(1, "journal verify orders", "belongs to partition 0 of the topic with id 4");
}

TEST(verify_finds_a_damaged_header_and_reads_on)
{
    char dir[512];
    struct test_output out;
    uint32_t version = LAYOUT_VERSION + 1;

    make_orders(dir);
    flip(dir, SECOND, 25);
    CHECK_INT_EQ(cli_run(&out, "journal verify orders"), 1);
    CHECK_CONTAINS(out.out, ": header: damaged: the header's checksum is wrong");
    CHECK_CONTAINS(out.out, "its records hold: run shmq journal repair");
    CHECK_CONTAINS(out.out, "26 messages");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "journal dump orders"), 0);
    CHECK_INT_EQ(count_lines(out.out), 26);
    CHECK_CONTAINS(out.err, "its header is damaged");
    test_output_free(&out);
    make_usual(dir);
    scribble(dir, SECOND, 8, &version, 4);
    begin(704, 704, 10);
    expect(1, "journal verify orders", ": header: "); /* a flipped bit, not another version */
    m.header.version = version;
    m.header.crc32c++; /* of whatever that one has */
    scribble(dir, SECOND, 0, &m.header, 100);
    expect(1, "journal verify orders", ": version: journal version 2, but this shmq reads");
}

TEST(dump_goes_on_behind_damage)
{
    char dir[512];
    struct test_output out;

    make_orders(dir);
    flip(dir, FIRST, AT(3) + 40);
    flip(dir, FIRST, AT(4) + 40);
    CHECK_INT_EQ(cli_run(&out, "journal dump orders"), 1);
    CHECK_INT_EQ(count_lines(out.out), 24);
    CHECK_CONTAINS(out.out, "message 2\n320\t");
    CHECK_CONTAINS(out.err, "offset 192: a record whose checksum is wrong; 128 bytes are left out");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "journal dump orders --from 320"), 0);
    CHECK_INT_EQ(count_lines(out.out), 21);
    test_output_free(&out);
}

/* ---- repair ------------------------------------------------------------------------------------- */

/* It says this, verify is content afterwards, and a second one has nothing to do. */
static void expect_repair(const char *part, unsigned messages)
{
    struct test_output out;
    char text[64];

    CHECK_INT_EQ(cli_run(&out, "journal repair orders --dry-run"), 0);
    CHECK_CONTAINS(out.out, "would be ");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "--json journal repair orders --dry-run"), 0);
    CHECK_CONTAINS(out.out, "\"summary\":{\"dry_run\":true,\"done\":0");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "journal repair orders"), 0);
    CHECK_CONTAINS(out.out, part);
    test_output_free(&out);
    snprintf(text, sizeof(text), "sound: %u messages in ", messages);
    expect(0, "journal verify orders", text);
    expect(0, "journal repair orders", "nothing to repair\n");
}

TEST(repair_pads_over_damage)
{
    char dir[512];
    char path[PATH_BYTES];
    struct stat status;
    char kept[64];

    make_orders(dir);
    REQUIRE(chmod(in(dir, FIRST, path), 0640) == 0);
    flip(dir, FIRST, AT(3) + 40);
    flip(dir, FIRST, AT(10) + 20);
    expect_repair("padded over at offset 192, 64 bytes: a record whose checksum is wrong", 25);
    CHECK(stat(path, &status) == 0 && status.st_size == FILE_BYTES &&
          (status.st_mode & 0777) == 0640);
    snprintf(kept, sizeof(kept), "%s.damaged", FIRST);
    CHECK(exists(dir, kept));
    /* Another time, another copy; the first stays. */
    flip(dir, FIRST, AT(5) + 40);
    expect_repair("kept as " FIRST ".damaged.2", 24);
    CHECK(exists(dir, kept));
    snprintf(path, sizeof(path), "journal dump %s/%s --raw -n 4", dir, kept);
    expect(1, path, "message 0message 1message 2message 4");
}

TEST(repair_pads_long_stretches_in_pieces_that_readers_take)
{
    char dir[512];
    unsigned char *zeros = calloc(1, ROOM);

    make_orders(dir);
    begin(1344, 1344, 20);
    for (unsigned i = 0; i < ROOM / 64; i++)
        add_numbers(i, i + 1);
    write_log(dir);
    scribble(dir, THIRD, AT(1), zeros, ROOM - 128);
    expect_repair("padded over at offset 1408, 12160 bytes: zeros where a record should stand", 22);
    expect(0, "journal dump orders --all --from 1408 -n 1", "1408\t-\t0\t-\t8192\t(padding)\n");
    free(zeros);
}

TEST(repair_gives_names_back)
{
    char dir[512];
    char a[PATH_BYTES];
    char b[PATH_BYTES];

    make_orders(dir);
    REQUIRE(rename(in(dir, SECOND, a), in(dir, "00000000000000000768.log", b)) == 0);
    expect_repair("renamed to " SECOND, 26);
    REQUIRE(rename(in(dir, SECOND, a), in(dir, "renamed.log", b)) == 0);
    expect_repair("renamed to " SECOND, 26);
    /* Killed between giving the new and taking the old name. */
    REQUIRE(link(in(dir, SECOND, a), in(dir, "renamed.log", b)) == 0);
    expect_repair("renamed to " SECOND, 26);
    CHECK(!exists(dir, "renamed.log"));
    /* Another file of that name is never replaced. */
    begin(704, 704, 10);
    write_file(dir, "renamed.log");
    expect(1, "journal repair orders", "left as it is: begins at offset 704, as " SECOND);
    CHECK(exists(dir, "renamed.log"));
    expect(1, "journal verify orders", "26 messages");
}

TEST(repair_removes_what_was_never_finished)
{
    char dir[512];

    make_orders(dir);
    write_file(dir, "next.tmp");
    write_file(dir, "begin.tmp");
    write_file(dir, "00000000000000000704.tmp");
    write_file(dir, "mine.tmp");
    expect_repair("removed: it was never finished", 26);
    CHECK(!exists(dir, "next.tmp") && !exists(dir, "00000000000000000704.tmp"));
    CHECK(exists(dir, "mine.tmp"));
}

TEST(repair_makes_headers_from_records)
{
    static const char *const names[] = {FIRST, SECOND, THIRD};
    char dir[512];
    char path[PATH_BYTES];
    unsigned char zeros[JOURNAL_HEADER_BYTES] = {0};
    size_t length;

    make_orders(dir);
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        char *before = cli_read_whole(in(dir, names[i], path), &length);
        char *after;

        test_context("%s: ", names[i]);
        scribble(dir, names[i], 0, zeros, sizeof(zeros));
        expect_repair("given a new header", 26);
        after = cli_read_whole(in(dir, names[i], path), &length);
        CHECK_EQ(length, FILE_BYTES);
        /* All that the header said can be told from the rest, here. */
        CHECK(memcmp(before, after, FILE_BYTES) == 0);
        free(before);
        free(after);
    }
    test_context(NULL);
    for (size_t i = 0; i < COUNT_OF(names); i++)
        scribble(dir, names[i], 0, zeros, sizeof(zeros));
    expect_repair("given a new header", 26);
}

TEST(repair_knows_a_jump_and_an_empty_file)
{
    char dir[512];
    char path[PATH_BYTES];
    unsigned char zeros[JOURNAL_HEADER_BYTES] = {0};

    make_orders(dir);
    begin(1344 + JUMP, 1664, 25);
    add_numbers(26, 30);
    write_log(dir);
    flip(dir, THIRD, AT(5) + 33); /* the torn tail before it */
    expect(0, "journal verify orders", ": jump: ");
    scribble(dir, "00000000000067175744.log", 0, zeros, sizeof(zeros));
    expect_repair("log before it up to 1664", 29);
    expect(0, "journal verify orders", ": jump: ");
    unlink(in(dir, "00000000000067175744.log", path));
    make_usual(dir);
    begin(1728, 1728, 26);
    write_log(dir);
    scribble(dir, "00000000000000001728.log", 0, zeros, sizeof(zeros));
    expect_repair("given a new header", 26);
}

TEST(repair_leaves_what_it_cannot_help)
{
    char dir[512];
    unsigned char *garbage = malloc(FILE_BYTES);
    struct test_random random;

    make_orders(dir);
    REQUIRE(garbage != NULL);
    test_random_init(&random, test_seed());
    test_random_fill(&random, garbage, FILE_BYTES);
    scribble(dir, SECOND, 0, garbage, FILE_BYTES);
    expect(1, "journal repair orders", "left as it is: damaged: does not begin like a journal");
    expect(1, "journal verify orders", "no record in it holds: restore it from a backup");
    free(garbage);
}

/* Killed at each point on the way, and run again: everything is there, and nothing is left over. */
TEST(repair_may_be_killed_anywhere)
{
    static const char *const points[] = {
        "made", "copied", "padded", "synced", "kept", "renamed", "linked", "unlinked", "removed",
    };
    char dir[512];
    char a[PATH_BYTES];
    char b[PATH_BYTES];

    make_orders(dir);
    for (size_t i = 0; i < COUNT_OF(points); i++) {
        char fault[64];
        struct test_output out;

        test_context("%s: ", points[i]);
        make_usual(dir);
        flip(dir, FIRST, AT(3) + 40);
        flip(dir, SECOND, 25);
        REQUIRE(rename(in(dir, THIRD, a), in(dir, "renamed.log", b)) == 0);
        write_file(dir, "next.tmp");
        snprintf(fault, sizeof(fault), "journal.repair.%s", points[i]);
        setenv("SHMQ_FAULT", fault, 1);
        CHECK_INT_EQ(cli_run(&out, "journal repair orders"), -9);
        test_output_free(&out);
        unsetenv("SHMQ_FAULT");
        expect(0, "journal repair orders", NULL);
        test_context("%s: ", points[i]);
        CHECK_INT_EQ(cli_run(&out, "journal verify orders"), 0);
        CHECK_CONTAINS(out.out, "sound: 25 messages in 3 files");
        CHECK_INT_EQ(count_lines(out.out), 1);
        test_output_free(&out);
        CHECK(!exists(dir, "next.tmp") && !exists(dir, "renamed.log"));
    }
    test_context(NULL);
}

TEST(repair_refuses_beside_a_supervisor)
{
    char dir[512];
    char other[600];
    struct test_output out;
    int lock = -1;

    make_orders(dir);
    flip(dir, FIRST, AT(3) + 40);
    write_metadata(0, 0);
    REQUIRE_OK(store_lock(state_dir(), &lock, NULL));
    CHECK_INT_EQ(cli_run(&out, "journal repair orders"), 1);
    CHECK_CONTAINS(out.err, "the supervisor with pid ");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "journal repair", dir), 1);
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "journal repair --dry-run", dir), 0);
    CHECK_CONTAINS(out.err, "has to be stopped for a repair");
    test_output_free(&out);
    expect(1, "journal verify orders", "1 finding");
    /* What lies elsewhere is nobody's. */
    snprintf(other, sizeof(other), "%s/copy", test_tmpdir());
    REQUIRE(mkdir(other, 0700) == 0);
    make_usual(other);
    flip(other, FIRST, AT(3) + 40);
    CHECK_INT_EQ(cli_run(&out, "journal repair", other), 0);
    test_output_free(&out);
    close(lock);
    expect(0, "journal repair orders", "2 done, 0 left");
}

/* ---- in process: every bit of a header, every length of a file ------------------------------------ */

/* Loads the directory and walks all of it; how many messages there are. */
static uint64_t count_messages(const char *dir, size_t *ret_readable)
{
    struct history history;
    uint64_t messages = 0;

    REQUIRE(history_open(&history, dir) == CLI_OK);
    *ret_readable = 0;
    for (size_t i = history_first(&history); i < history.count; i = history_next(&history, i)) {
        struct history_sum sum;

        CHECK_OK(history_sum(&history, i, &sum, NULL));
        messages += sum.messages;
        *ret_readable += history.files[i].readable;
    }
    history_close(&history);
    return messages;
}

TEST(any_bit_of_a_header_may_flip)
{
    char dir[512];
    size_t readable;

    make_dir("orders.3/0", dir);
    make_usual(dir);
    for (unsigned bit = 0; bit < 8 * 96; bit++) { /* behind it is what is reserved */
        unsigned char byte;

        begin(704, 704, 10);
        byte = (unsigned char)(((unsigned char *)&m.header)[bit / 8] ^ 1u << bit % 8);
        scribble(dir, SECOND, bit / 8, &byte, 1);
        test_context("bit %u: ", bit);
        CHECK_EQ(count_messages(dir, &readable), 26);
        CHECK_EQ(readable, 3);
        scribble(dir, SECOND, 0, &m.header, sizeof(m.header));
    }
    test_context(NULL);
}

TEST(a_file_may_end_anywhere)
{
    char dir[512];
    char path[PATH_BYTES];
    size_t readable;

    make_dir("orders.3/0", dir);
    make_usual(dir);
    for (unsigned bytes = FILE_BYTES; bytes-- > 0; bytes -= bytes > 5000 ? 256 : bytes % 61) {
        uint64_t records = bytes > JOURNAL_HEADER_BYTES ? (bytes - JOURNAL_HEADER_BYTES) / 64 : 0;

        REQUIRE(truncate(in(dir, THIRD, path), bytes) == 0);
        test_context("%u bytes: ", bytes);
        /* The last one needs no more than its 43 bytes; the sixth 42. */
        if (bytes >= JOURNAL_HEADER_BYTES &&
            (bytes - JOURNAL_HEADER_BYTES) % 64 >= (records == 5 ? 42 : 43))
            records++;
        CHECK_EQ(count_messages(dir, &readable), 20 + (records > 6 ? 6 : records));
    }
    test_context(NULL);
}

/* ---- random damage ------------------------------------------------------------------------------ */

struct collected {
    uint64_t offset;
    uint32_t hash;
};

struct collection {
    struct collected items[1024];
    size_t count;
};

static int collect(void *context, const struct history_event *event)
{
    struct collection *all = context;

    if (event->kind != HISTORY_RECORD || event->record->padding)
        return 0;
    REQUIRE(all->count < COUNT_OF(all->items));
    all->items[all->count].offset = event->offset;
    all->items[all->count++].hash = hash_murmur2(event->record->payload, event->record->length);
    return 0;
}

static void collect_all(const char *dir, struct collection *ret_all)
{
    struct history history;

    REQUIRE(history_open(&history, dir) == CLI_OK);
    memset(ret_all, 0, sizeof(*ret_all));
    for (size_t i = history_first(&history); i < history.count; i = history_next(&history, i))
        CHECK_OK(history_walk(&history, i, 0, collect, ret_all, NULL));
    history_close(&history);
}

/* Three files with messages of all sizes. */
static void make_random(const char *dir, struct test_random *random)
{
    static unsigned char body[400];
    uint64_t end = 0;
    uint64_t messages = 0;

    for (unsigned file = 0; file < 3; file++) {
        begin(end, end, messages);
        while (m.end - m.header.base < ROOM - 512) {
            size_t length = test_random_below(random, sizeof(body));
            bool padding = test_random_below(random, 8) == 0;

            test_random_fill(random, body, length);
            add(padding ? RECORD_PADDING : RECORD_COMMITTED, "", body, length, TIME_NS + messages);
            messages += !padding;
        }
        write_log(dir);
        end = m.end;
    }
}

/* One byte, a sector of zeros, a header's page, or a name. */
static void damage(const char *dir, struct test_random *random)
{
    static const unsigned char zeros[JOURNAL_HEADER_BYTES];
    struct history history;
    const char *name;
    char a[PATH_BYTES];
    char b[PATH_BYTES];
    unsigned char byte = (unsigned char)test_random_next(random);

    REQUIRE(history_open(&history, dir) == CLI_OK);
    name = history.files[test_random_below(random, history.count)].name;
    switch (test_random_below(random, 5)) {
    case 0:
    case 1:
        scribble(dir, name, test_random_below(random, FILE_BYTES), &byte, 1);
        break;
    case 2:
        scribble(dir, name, test_random_below(random, FILE_BYTES / 512) * 512, zeros, 512);
        break;
    case 3:
        scribble(dir, name, 0, zeros, sizeof(zeros));
        break;
    default:
        snprintf(b, sizeof(b), "%s/other%02x.log", dir, byte);
        REQUIRE(rename(in(dir, name, a), b) == 0);
        break;
    }
    history_close(&history);
}

/* Nothing that holds is dropped, and nothing appears; what repair is content with, verify is too. */
TEST(repair_drops_nothing_whatever_is_damaged)
{
    static struct collection before;
    static struct collection after;
    struct test_random random;
    char dir[512];
    char command[1024];
    unsigned whole = 0;

    cli_need_tool();
    make_dir("orders.3/0", dir);
    test_random_init(&random, test_seed());
    for (unsigned round = 0; round < 40; round++) {
        struct test_output out;
        int repaired;

        snprintf(command, sizeof(command), "rm -f %s/*", dir);
        REQUIRE(system(command) == 0);
        make_random(dir, &random);
        for (uint64_t n = test_random_below(&random, 6) + 1; n > 0; n--)
            damage(dir, &random);
        collect_all(dir, &before);
        test_context("round %u: ", round);
        repaired = cli_run(&out, "journal repair orders");
        CHECK(repaired == 0 || repaired == 1);
        CHECK_STR_EQ(out.err, "");
        test_output_free(&out);
        collect_all(dir, &after);
        CHECK(memcmp(&before, &after, sizeof(before)) == 0);
        if (repaired == 0) {
            CHECK_INT_EQ(cli_run(&out, "-q journal verify orders"), 0);
            CHECK_STR_EQ(out.out, "");
            test_output_free(&out);
            whole++;
        }
    }
    test_context(NULL);
    CHECK(whole > 10);
}

/* ---- beside a supervisor ------------------------------------------------------------------------ */

TEST(a_real_journal_is_read_beside_its_supervisor)
{
    pid_t daemon;
    struct test_output out;
    char path[PATH_BYTES];
    unsigned char byte = 0;
    int fd;

    cli_need_tool();
    daemon = fixture_spawn();
    cli_run_expect(0, "topic create orders --durable always --retain-bytes 5M");
    cli_run_expect(0, "pub orders -n 1000 --size 100 --confirm durable");
    expect(0, "journal verify orders", "sound: 1000 messages in 1 file");
    CHECK_INT_EQ(cli_run(&out, "journal dump orders"), 0);
    CHECK_INT_EQ(count_lines(out.out), 1000);
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "--json journal stat orders"), 0);
    CHECK(strncmp(cli_json_at(out.out, "0/retain_bytes"), "5242880,", 8) == 0);
    CHECK(strncmp(cli_json_at(out.out, "0/topic"), "\"orders\"", 8) == 0);
    CHECK(cli_json_at(out.out, "0/durable") != NULL);
    snprintf(path, sizeof(path), "%.400s", cli_json_at(out.out, "0/path") + 1);
    *strchr(path, '"') = '\0';
    test_output_free(&out);
    expect(1, "journal repair orders", NULL);
    /* Alone, a file's last record could be torn; its supervisor knows better. */
    strcat(path, "/00000000000000000000.log");
    fd = open(path, O_RDWR | O_CLOEXEC);
    REQUIRE(fd >= 0);
    REQUIRE(pwrite(fd, &byte, 1, JOURNAL_HEADER_BYTES + 999 * 192) == 1);
    close(fd);
    expect(1, "journal verify orders", "but nothing holds from here on");
    test_kill(daemon, SIGKILL);
    expect(0, "journal verify orders", ": torn: ");
    expect(0, "journal stat orders", "999 messages in 1 file");
    CHECK_INT_EQ(cli_run(&out, "--json journal stat orders"), 0);
    CHECK(strncmp(cli_json_at(out.out, "0/retain_bytes"), "5242880,", 8) ==
          0); /* from the metadata */
    test_output_free(&out);
    (void)test_remove_leftovers();
}

/* ---- retention ---------------------------------------------------------------------------------- */

static const struct journal_retention NO_BOUNDS = {
    .now_ns = TIME_NS + 1000, .durable = UINT64_MAX, .needed = UINT64_MAX};

/* Four files of 100 units from offset 64 on; the youngest of file i is of TIME_NS + 100 * (i + 1). */
static void make_entries(struct journal_entry entries[4])
{
    memset(entries, 0, 4 * sizeof(entries[0]));
    for (uint64_t i = 0; i < 4; i++) {
        entries[i].base = entries[i].previous_end = entries[i].durable = 64 * (i + 1);
        entries[i].bytes = 100;
        entries[i].max_timestamp_ns = i ? TIME_NS + 100 * i : 0;
    }
}

static void expect_kept(const struct journal_entry *entries, const struct journal_retention *by,
                        const char *letters)
{
    /* gone, newest, unsafe, needed, bytes, time, unbounded, damaged */
    static const char words[] = "gNUnbtud";

    for (size_t i = 0; i < 4; i++) {
        test_context("file %zu of %s: ", i, letters);
        CHECK_INT_EQ(words[journal_judge(entries, 4, i, by)], letters[i]);
    }
    test_context(NULL);
}

TEST(retention_lets_go_from_the_oldest_on)
{
    struct journal_entry entries[4];
    struct journal_retention by = NO_BOUNDS;

    make_entries(entries);
    expect_kept(entries, &by, "uuuN");
    by.retain_bytes = 300;
    expect_kept(entries, &by, "gbbN");
    by.retain_bytes = 50;
    expect_kept(entries, &by, "gggN"); /* never the newest */
    by.retain_bytes = 0;
    by.retain_ns = 850;
    expect_kept(entries, &by, "gttN");
    by.retain_bytes = 200; /* the first bound that is exceeded */
    expect_kept(entries, &by, "ggbN");
    by = NO_BOUNDS;
    by.first = 192; /* purged: no bound is needed */
    expect_kept(entries, &by, "gguN");
}

TEST(retention_keeps_what_is_not_safe_or_needed)
{
    struct journal_entry entries[4];
    struct journal_retention by = NO_BOUNDS;

    make_entries(entries);
    by.retain_bytes = 1;
    by.durable = 200;
    expect_kept(entries, &by, "ggUN");
    by.needed = 128;
    expect_kept(entries, &by, "gnUN");
    by.durable = UINT64_MAX;
    by.needed = UINT64_MAX;
    entries[1].damaged = true;
    expect_kept(entries, &by, "gggN"); /* a damaged header does not keep a file for ever, */
    by.retain_bytes = 0;
    expect_kept(entries, &by, "uduN"); /* and is told where no bound takes it */
    entries[1].damaged = false;
    by.retain_bytes = 0;
    by.retain_ns = 1;
    by.now_ns = TIME_NS; /* a clock that was set back */
    expect_kept(entries, &by, "tttN");
    by.now_ns = TIME_NS + 1000;
    for (size_t i = 0; i < 4; i++)
        entries[i].max_timestamp_ns = 0; /* timestamps none: of no age */
    expect_kept(entries, &by, "tttN");
}

TEST_MAIN("test_cli_journal", T(a_sound_journal_is_verified), T(paths_and_topics_are_found),
          T(a_dump_has_every_record), T(stat_shows_files), T(stat_says_why_a_file_is_kept),
          T(metadata_is_a_journal_as_well), T(verify_finds_a_damaged_record),
          T(verify_calls_what_a_crash_leaves_normal),
          T(verify_finds_files_that_are_missing_or_wrong),
          T(verify_finds_a_damaged_header_and_reads_on), T(dump_goes_on_behind_damage),
          T(repair_pads_over_damage), T(repair_pads_long_stretches_in_pieces_that_readers_take),
          T(repair_gives_names_back), T(repair_removes_what_was_never_finished),
          T(repair_makes_headers_from_records), T(repair_knows_a_jump_and_an_empty_file),
          T(repair_leaves_what_it_cannot_help), T(repair_may_be_killed_anywhere),
          T(repair_refuses_beside_a_supervisor), T(any_bit_of_a_header_may_flip),
          T(a_file_may_end_anywhere), T_TIMEOUT(repair_drops_nothing_whatever_is_damaged, 60),
          T(a_real_journal_is_read_beside_its_supervisor), T(retention_lets_go_from_the_oldest_on),
          T(retention_keeps_what_is_not_safe_or_needed))
