/* intrude.h: one partition, mapped twice, and somebody who acts in the middle of an operation on it.
 *
 * Two ways to make an interleaving deterministic. The ring's own callbacks (is this client dead? map this group) run in the
 * middle of resolving and of refreshing: a test changes memory there. And step by step: the operation runs with the
 * processor's trap flag set, and after its k-th instruction, for every k, the intruder acts once, whole. That is every
 * interleaving of one atomic act with every instruction of the operation (x86-64 alone; weak memory is not shown).
 *
 * One suite, one thread; everything here is the including suite's own.
 */
#ifndef SHMQ_TEST_SUPPORT_INTRUDE_H
#define SHMQ_TEST_SUPPORT_INTRUDE_H

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>
#include <unistd.h>

#include "libshmq/cursor.h"
#include "libshmq/topic_options.h"
#include "test/support/partition.h"
#include "test/support/test.h"

#define CAPACITY UINT64_C(65536)
#define BASE     (UINT64_C(1) << 40)
#define OTHER    2 /* client of slot 0: lives, and publishes whenever the test wants */
#define WINNER   3 /* client of slot 1 */
#define LOSER    4 /* client of slot 2 */
#define MEMBER   9

/* ---- acting after the k-th instruction ---------------------------------------------------------------------- */

static struct {
    void (*act)(void);
    void (*act2)(void);
    uint64_t at, at2;
    uint64_t steps;
    bool running;
} trap;

static UNUSED void act_at_step(void)
{
    if (trap.steps == trap.at && trap.act)
        trap.act();
    if (trap.steps == trap.at2 && trap.act2)
        trap.act2();
}

#ifdef __x86_64__
#define TRAP_FLAG 0x100

static UNUSED void on_trap(int signal_number, siginfo_t *info, void *context)
{
    ucontext_t *interrupted = context;

    (void)signal_number, (void)info;
    trap.steps++;
    act_at_step();
    if (trap.at != UINT64_MAX && trap.steps >= trap.at && (!trap.act2 || trap.steps >= trap.at2))
        interrupted->uc_mcontext.gregs[REG_EFL] &= ~(greg_t)TRAP_FLAG;
}

static UNUSED void stepping_require(void)
{
    struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};

    if (TEST_THREAD_SANITIZED)
        SKIP("ThreadSanitizer puts signals off");
    REQUIRE(sigaction(SIGTRAP, &action, NULL) == 0);
}

/* The step over the stack keeps clear of the red zone. */
static UNUSED inline void stepping_set(void)
{
    __asm__ __volatile__("lea -128(%%rsp), %%rsp\n pushfq\n orq $0x100, (%%rsp)\n popfq\n"
                         "lea 128(%%rsp), %%rsp" ::
                             : "memory", "cc");
}

static UNUSED inline void stepping_clear(void)
{
    __asm__ __volatile__("lea -128(%%rsp), %%rsp\n pushfq\n andq $~0x100, (%%rsp)\n popfq\n"
                         "lea 128(%%rsp), %%rsp" ::
                             : "memory", "cc");
}
#else
static UNUSED void stepping_require(void)
{
    SKIP("single steps from inside are x86-64's");
}
static UNUSED inline void stepping_set(void)
{
}
static UNUSED inline void stepping_clear(void)
{
}
#endif

static UNUSED bool stepping_pause(void)
{
    bool running = trap.running;

    trap.running = false;
    if (running)
        stepping_clear();
    return running;
}

static UNUSED void stepping_go_on(bool stepped)
{
    trap.running = stepped;
    if (stepped)
        stepping_set();
}

/* ---- the world: one partition, mapped twice ------------------------------------------------------------------ */

struct world {
    struct partition partition;
    struct ring ring;               /* whose operation is looked at */
    struct ring other;              /* the intruder's mapping */
    struct ring_producer publisher; /* slot 0, through `other` */
    struct ring_producer winner;    /* slot 1, through `other` */
    bool dead[PARTITION_CLIENTS];
    void (*on_asked)(uint64_t client); /* in the middle of a resolve */
    void (*on_map)(void);              /* in the middle of a refresh */
    uint32_t asked;
    int map_result;
    uint32_t number; /* of the next message */
    uint64_t t;      /* the claim that all is about */
};

static struct world w;

static UNUSED bool is_dead(void *context, uint64_t client)
{
    (void)context;
    if (++w.asked > 200000) {
        FAIL("an operation asks for ever who is dead");
        test_abort();
    }
    if (w.on_asked) {
        bool stepped = stepping_pause(); /* what the test does here is one act as well */

        w.on_asked(client);
        stepping_go_on(stepped);
    }
    return client < PARTITION_CLIENTS && w.dead[client];
}

static UNUSED int map_group(void *context, struct ring *ring, uint32_t index, uint64_t group,
                            uint64_t deadline_ns, struct segment *ret_segment)
{
    struct error_buffer why;

    (void)context, (void)ring, (void)group, (void)deadline_ns;
    if (w.on_map) {
        void (*act)(void) = w.on_map;

        w.on_map = NULL;
        act();
    }
    if (w.map_result < 0)
        return w.map_result;
    if (w.partition.group_fds[index] < 0)
        return SHMQ_ENOGROUP;
    return segment_map(w.partition.group_fds[index], true, sizeof(struct group_segment),
                       ret_segment, &why);
}

static const struct ring_ops ops = {.client_is_dead = is_dead, .map_group = map_group};

static UNUSED void world_begin(enum overflow_policy policy)
{
    memset(&w, 0, sizeof(w));
    partition_init(&w.partition, CAPACITY, policy, PRODUCERS_MULTI, BASE);
}

static UNUSED void world_open(void)
{
    partition_open(&w.partition, &w.ring);
    partition_open(&w.partition, &w.other);
    w.ring.ops = w.other.ops = &ops;
    partition_assign_slot(&w.partition, 0, OTHER);
    partition_assign_slot(&w.partition, 1, WINNER);
    partition_assign_slot(&w.partition, 2, LOSER);
    ring_producer_init(&w.publisher, &w.other, 0);
    ring_producer_init(&w.winner, &w.other, 1);
    memset(w.dead, 0, sizeof(w.dead));
    w.on_asked = NULL;
    w.on_map = NULL;
    w.asked = 0;
    w.map_result = 0;
    w.number = 0;
    w.t = 0;
}

static UNUSED void world_close(void)
{
    ring_deinit(&w.ring);
    ring_deinit(&w.other);
}

static UNUSED void world_again(void)
{
    world_close();
    partition_reset(&w.partition, BASE);
    world_open();
}

static UNUSED void world_end(void)
{
    world_close();
    partition_deinit(&w.partition);
}

static UNUSED void publish(uint32_t bytes)
{
    CHECK_EQ(partition_publish(&w.publisher, bytes, (struct message_tag){OTHER, w.number}),
             RING_OK);
    w.number++;
}

static UNUSED void publish_until(uint64_t tail)
{
    while (ring_tail(&w.other) < tail)
        publish(32);
}

/* Moves tail there, quickly: with padding, which leaves what stands between its headers as it was. */
static UNUSED void fill_until(uint64_t tail)
{
    while (ring_tail(&w.other) < tail) {
        uint64_t size = min_u64(tail - ring_tail(&w.other), CAPACITY / 8);
        uint64_t at = 0;

        if (ring_claim(&w.publisher, size, &at) == RING_NO_ROOM) {
            REQUIRE(ring_refresh_limit(&w.publisher, size, UINT64_MAX) == RING_OK);
            continue;
        }
        ring_abort(&w.publisher, at);
    }
}

/* Once round, with bytes of a message over the record at `t`. */
static UNUSED void lap(uint64_t t)
{
    fill_until(t + CAPACITY - 64);
    publish(2000);
}

static UNUSED struct producer_slot *slot_of(uint32_t index)
{
    return &w.ring.producers->slots[index];
}

static _Atomic uint64_t *commit_at(uint64_t offset)
{
    return &ring_record(w.ring.data, w.ring.mask, offset)->commit;
}

static UNUSED uint64_t state_at(uint64_t offset)
{
    return record_state(atomic_load(commit_at(offset)), w.ring.salt, offset);
}

/* As a producer leaves it that dies after announcing `at` (without winning anything). */
static UNUSED void announce(uint32_t slot, uint64_t at, uint64_t end, uint64_t bits)
{
    atomic_store(&slot_of(slot)->end, end);
    atomic_store(&slot_of(slot)->at, at | bits);
}

/* The winner claims a batch of three, writes it, and stamps records two and three: what is left is the first stamp. */
static UNUSED void claim_batch(void)
{
    uint64_t t = 0;

    REQUIRE(ring_refresh_limit(&w.winner, 192, UINT64_MAX) == RING_OK);
    REQUIRE(ring_claim(&w.winner, 192, &t) == RING_OK);
    for (uint32_t i = 0; i < 3; i++) {
        struct record *record =
            ring_begin_record(&w.winner, t + i * 64, 32, 0, 0, 0, RECORD_TYPE_DATA);

        message_fill(record->payload, 32, (struct message_tag){WINNER, i});
        if (i > 0)
            ring_stamp(&w.winner, t + i * 64, RECORD_COMMITTED);
    }
    w.t = t;
}

/* Everything from `from` to tail is whole records, one behind the other. */
static UNUSED void check_log(uint64_t from)
{
    struct ring_reader reader;
    struct message_tag tag;

    ring_reader_init(&reader, &w.ring, from);
    while (partition_take(&reader, &tag))
        ;
    CHECK_EQ(reader.position, ring_tail(&w.ring));
}

/* Runs the operation; act() after its k-th instruction, act2() after its k2-th (0: never). If it was over before, they
 * follow it. Returns how many instructions it took, if nobody acted. */
static UNUSED uint64_t run_stepped(void (*operation)(void), uint64_t k, void (*act)(void),
                                   uint64_t k2, void (*act2)(void))
{
    trap.act = act;
    trap.act2 = act2;
    trap.at = k;
    trap.at2 = k2;
    trap.steps = 0;
    stepping_go_on(true);
    operation();
    (void)stepping_pause();
    uint64_t steps = trap.steps;

    if (act && trap.steps < k)
        act();
    if (act2 && trap.steps < k2)
        act2();
    return steps;
}

/* Long operations take every n-th step, from a random one on. */
static UNUSED uint64_t stride = TEST_SANITIZED ? 13 : 1;

/* Every k: setup, operation with the act in its middle, check. */
static UNUSED void at_every_step(void (*setup)(void), void (*operation)(void), void (*act)(void),
                                 void (*check)(void))
{
    world_again();
    setup();
    operation(); /* what is initialised at a first use is not counted */
    world_again();
    setup();
    uint64_t total = run_stepped(operation, UINT64_MAX, NULL, 0, NULL);
    uint64_t failures = test_failures();

    CHECK(total > 10);
    if (getenv("TEST_VERBOSE"))
        test_note("%llu instructions", (unsigned long long)total);
    for (uint64_t k = 1 + test_seed() % stride; k <= total + 1 && test_failures() == failures;
         k += stride) {
        world_again();
        setup();
        test_context("k=%llu of %llu ", (unsigned long long)k, (unsigned long long)total);
        run_stepped(operation, k, act, 0, NULL);
        check();
    }
    test_context(NULL);
}

/* ---- the winner's batch ---------------------------------------------------------------- */

static UNUSED enum resolve_result result;

static UNUSED void resolve_t(void)
{
    result = ring_resolve(&w.ring, w.t);
}

static UNUSED void setup_batch(void)
{
    publish(32);
    publish(100);
    claim_batch();
    publish(32);
}

static UNUSED uint64_t padded_bytes(void)
{
    resolve_t();
    if (result != RESOLVE_PADDED || state_at(w.t) != RECORD_PADDING)
        return 0;
    return record_size(ring_record(w.ring.data, w.ring.mask, w.t)->length);
}

/* The winner comes to the end of its batch. */
static UNUSED void finish(void)
{
    ring_stamp(&w.winner, w.t, RECORD_COMMITTED);
    ring_release_claim(w.winner.slot, 1);
}

#endif
