/* shmq_demo.h: what the processes of `make demo` share: the files to move, and each group's
 * account of what arrived. */
#ifndef SHMQ_DEMO_H
#define SHMQ_DEMO_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "libshmq/shmq.h"

#define DEMO_FILES_MAX 4096
#define DEMO_PRODUCERS 3
#define DEMO_GROUPS    2
#define DEMO_CHUNK_MAX 60000u

enum demo_topic { DEMO_LINES = 0, DEMO_BLOBS = 1, DEMO_TOPICS = 2 };

/* One file of this machine: what was read from it before anything was sent. */
struct demo_file {
    char path[240];
    uint64_t bytes;
    uint64_t messages; /* lines, or chunks */
    uint64_t checksum;
    uint32_t topic; /* enum demo_topic */
    uint32_t producer;
};

/* A place in a stream of messages and the checksum up to it, replaced as a whole: a process may
 * be killed between any two instructions, and its successor goes on from here. It stands for the
 * user's own database. */
struct demo_account {
    _Atomic uint32_t which;
    struct {
        uint64_t next;
        uint64_t bytes;
        uint64_t checksum;
    } state[2];
};

struct demo_shared {
    uint32_t file_count;
    char bus[32];
    char runtime_dir[128];
    char state_dir[128];
    struct demo_file files[DEMO_FILES_MAX];
    struct demo_account sent[DEMO_FILES_MAX];
    struct demo_account received[DEMO_GROUPS][DEMO_FILES_MAX];
    _Atomic uint64_t sent_messages;
    _Atomic uint64_t received_messages[DEMO_GROUPS][DEMO_TOPICS];
    _Atomic uint64_t received_bytes[DEMO_GROUPS][DEMO_TOPICS];
    _Atomic uint64_t duplicates[DEMO_GROUPS][DEMO_TOPICS];
    _Atomic uint64_t gaps;      /* messages that came before their turn: must stay 0 */
    _Atomic uint32_t took_over; /* a standby received its first message */
    _Atomic uint32_t stop;
    _Atomic uint64_t
        confirmed[DEMO_PRODUCERS]; /* second act: lines that each writer knows to be on disk */
};

extern const char *const demo_topic_names[DEMO_TOPICS];
extern const char *const demo_group_names[DEMO_GROUPS];

/* FNV-1a, 64 bits. */
uint64_t demo_checksum(uint64_t checksum, const void *bytes, size_t length);
#define DEMO_CHECKSUM_INIT UINT64_C(0xcbf29ce484222325)

void demo_account_read(const struct demo_account *account, uint64_t *ret_next, uint64_t *ret_bytes,
                       uint64_t *ret_checksum);
void demo_account_write(struct demo_account *account, uint64_t next, uint64_t bytes,
                        uint64_t checksum);

/* Splits a file into its messages: whole lines with their newline, or chunks of changing size.
 * Calls fn for each one. */
typedef bool (*demo_piece_fn)(void *context, uint64_t number, const unsigned char *piece,
                              uint32_t length);
bool demo_split(const struct demo_file *file, demo_piece_fn fn, void *context);

/* Bodies of the child processes; never return. */
_Noreturn void demo_run_producer(struct demo_shared *shared, uint32_t producer);
_Noreturn void demo_run_consumer(struct demo_shared *shared, enum demo_topic topic, uint32_t group,
                                 bool standby);

/* ---- shmq_demo.c, for the second act --------------------------------------------------------- */

double demo_now_s(void);
void demo_sleep_us(long us);
void demo_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
bool demo_start_supervisor(void);
void demo_kill_supervisor(bool wait); /* SIGKILL; with `wait`, until it is gone */

/* ---- shmq_demo_durable.c --------------------------------------------------------------------- */

bool demo_durable(struct demo_shared *shared);

int demo_connect(const struct demo_shared *shared, shmq_connection **ret_connection);

#endif
