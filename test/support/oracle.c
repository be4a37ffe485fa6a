/* SPDX-License-Identifier: Apache-2.0 */
/* oracle.c: the ledger, the views and the judge; see oracle.h. */
#include "test/support/oracle.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define MAGIC        0x4f7261636c652121u
#define PLACE_NONE   UINT64_MAX
#define DEFAULT_MANY (UINT64_C(1) << 18)
#define DEFAULT_SIZE 900u

enum state {
    NONE = 0,
    ATTEMPTED = 1, /* the outcome is not known */
    PUBLISHED = 2,
    REFUSED = 3,
    CONFIRMED = 4,
    KEPT = 5, /* read after a crash: on disk for good */
    GONE = 6, /* not read after a crash */
};

struct entry {
    _Atomic uint64_t place; /* partition and offset, as publish said */
    _Atomic uint8_t state;
    _Atomic uint8_t witnessed; /* somebody read it as durable */
};

struct oracle {
    struct oracle_options options;
    _Atomic uint64_t next[ORACLE_LANES];
    _Atomic uint64_t confirmed[ORACLE_LANES];
    _Atomic uint32_t distrusts;
    struct entry *entries[ORACLE_LANES];
};

struct sight {
    uint64_t place;
    uint8_t count;
};

struct oracle_view {
    struct oracle *oracle;
    unsigned flags;
    _Atomic uint64_t count;
    uint64_t offset[ORACLE_PARTITIONS];               /* behind the last one's */
    uint64_t number[ORACLE_PARTITIONS][ORACLE_LANES]; /* the same */
    uint64_t first[ORACLE_PARTITIONS];                /* the lowest offset that was ever read */
    uint64_t invented, torn, disordered, doubled;
    char why[ORACLE_WHY];
    struct sight *sights[ORACLE_LANES];
};

struct body {
    uint64_t magic;
    uint64_t ledger; /* its seed */
    uint64_t number;
    uint64_t checksum; /* of the whole body, this one being 0 */
    uint32_t lane;
    uint32_t length;
    uint64_t reserved;
    unsigned char filler[];
};
_Static_assert(sizeof(struct body) == ORACLE_BODY_LEAST, "bodies have a head of 48 bytes");

/* ---- bodies ---------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 31)) * UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 29)) * UINT64_C(0xbf58476d1ce4e5b9);
    return x ^ (x >> 32);
}

static uint64_t random_of(const struct oracle *oracle, unsigned lane, uint64_t number)
{
    return mix(oracle->options.seed ^ mix(number * ORACLE_LANES + lane + 1));
}

/* Mostly small, with all lengths among them. */
static uint32_t length_of(const struct oracle *oracle, unsigned lane, uint64_t number)
{
    uint64_t random = random_of(oracle, lane, number);
    uint32_t most = oracle->options.largest - ORACLE_BODY_LEAST;

    if (random % 4 != 0 && most > 100)
        most = 100;
    return ORACLE_BODY_LEAST + (uint32_t)((random >> 8) % (most + 1));
}

/* Not the library's checksum, which is what is tested. */
static uint64_t checksum_of(const void *bytes, uint32_t length)
{
    const unsigned char *at = bytes;
    uint64_t sum = UINT64_C(0xcbf29ce484222325);
    uint64_t word;

    for (; length >= sizeof(word); at += sizeof(word), length -= (uint32_t)sizeof(word)) {
        memcpy(&word, at, sizeof(word));
        sum = (sum ^ word) * UINT64_C(0x100000001b3);
        sum ^= sum >> 32;
    }
    for (; length > 0; at++, length--)
        sum = (sum ^ *at) * UINT64_C(0x100000001b3);
    return mix(sum);
}

uint32_t oracle_fill(const struct oracle *oracle, unsigned lane, uint64_t number, void *buffer)
{
    struct body body = {.magic = MAGIC,
                        .ledger = oracle->options.seed,
                        .number = number,
                        .lane = lane,
                        .length = length_of(oracle, lane, number)};
    unsigned char *bytes = buffer;
    uint64_t random = random_of(oracle, lane, number);

    for (uint32_t i = ORACLE_BODY_LEAST; i < body.length; i++) {
        if (i % 8 == 0)
            random = mix(random + i);
        bytes[i] = (unsigned char)(random >> (i % 8 * 8));
    }
    memcpy(bytes, &body, sizeof(body));
    body.checksum = checksum_of(bytes, body.length);
    memcpy(bytes, &body, sizeof(body));
    return body.length;
}

uint32_t oracle_largest(const struct oracle *oracle)
{
    return oracle->options.largest;
}

/* Says what is wrong; NULL: nothing. */
static const char *inspect(const struct oracle *oracle, const struct shmq_message *message,
                           struct body *ret_body)
{
    unsigned char bytes[65536];
    uint64_t checksum;

    if (message->body_length < sizeof(*ret_body) || message->body_length > sizeof(bytes))
        return "too short or too long";
    memcpy(bytes, message->body, message->body_length);
    memcpy(ret_body, bytes, sizeof(*ret_body));
    if (ret_body->magic != MAGIC || ret_body->length != message->body_length)
        return "not one of ours";
    checksum = ret_body->checksum;
    memset(bytes + offsetof(struct body, checksum), 0, sizeof(checksum));
    if (checksum_of(bytes, ret_body->length) != checksum)
        return "its bytes do not match its checksum";
    if (ret_body->ledger != oracle->options.seed || ret_body->lane >= ORACLE_LANES ||
        ret_body->number >= oracle->options.messages)
        return "of another ledger";
    if (ret_body->length != length_of(oracle, ret_body->lane, ret_body->number))
        return "of a wrong length";
    if (message->key_length > ret_body->length ||
        memcmp(message->key_length ? message->key : bytes, message->body, message->key_length) != 0)
        return "its key is no beginning of its body";
    return NULL;
}

/* ---- the ledger ------------------------------------------------------------------------------ */

struct oracle *oracle_new(const struct oracle_options *options)
{
    struct oracle *oracle = test_shared(sizeof(*oracle));

    oracle->options = *options;
    if (oracle->options.messages == 0)
        oracle->options.messages = DEFAULT_MANY;
    if (oracle->options.largest == 0)
        oracle->options.largest = DEFAULT_SIZE;
    REQUIRE(oracle->options.largest >= ORACLE_BODY_LEAST && oracle->options.largest <= 65536);
    for (unsigned lane = 0; lane < ORACLE_LANES; lane++)
        oracle->entries[lane] = test_shared(oracle->options.messages * sizeof(struct entry));
    return oracle;
}

void oracle_free(struct oracle *oracle)
{
    if (!oracle)
        return;
    for (unsigned lane = 0; lane < ORACLE_LANES; lane++)
        munmap(oracle->entries[lane], oracle->options.messages * sizeof(struct entry));
    munmap(oracle, sizeof(*oracle));
}

static uint64_t place_of(uint32_t partition, uint64_t offset)
{
    return (uint64_t)partition << 56 | offset;
}

uint64_t oracle_attempt(struct oracle *oracle, unsigned lane)
{
    uint64_t number = atomic_load(&oracle->next[lane]);

    if (number == oracle->options.messages)
        return UINT64_MAX;
    atomic_store(&oracle->entries[lane][number].place, PLACE_NONE);
    atomic_store(&oracle->entries[lane][number].state, ATTEMPTED);
    atomic_store(&oracle->next[lane], number + 1);
    return number;
}

void oracle_note_published(struct oracle *oracle, unsigned lane, uint64_t number,
                           const struct shmq_message *message)
{
    struct entry *entry = &oracle->entries[lane][number];

    atomic_store(&entry->place, place_of(message->partition, message->offset));
    atomic_store(&entry->state, PUBLISHED);
}

void oracle_note_refused(struct oracle *oracle, unsigned lane, uint64_t number)
{
    atomic_store(&oracle->entries[lane][number].state, REFUSED);
}

void oracle_note_confirmed(struct oracle *oracle, unsigned lane, uint64_t number)
{
    if (atomic_load(&oracle->distrusts))
        return;
    atomic_store(&oracle->entries[lane][number].state, CONFIRMED);
    atomic_fetch_add(&oracle->confirmed[lane], 1);
}

uint64_t oracle_confirmed(const struct oracle *oracle, unsigned lane)
{
    return atomic_load(&oracle->confirmed[lane]);
}

uint64_t oracle_attempts(const struct oracle *oracle, unsigned lane)
{
    return atomic_load(&oracle->next[lane]);
}

/* ---- views ----------------------------------------------------------------------------------- */

struct oracle_view *oracle_view_new(struct oracle *oracle, unsigned flags)
{
    struct oracle_view *view = test_shared(sizeof(*view));

    view->oracle = oracle;
    view->flags = flags;
    for (unsigned partition = 0; partition < ORACLE_PARTITIONS; partition++)
        view->first[partition] = UINT64_MAX;
    for (unsigned lane = 0; lane < ORACLE_LANES; lane++)
        view->sights[lane] = test_shared(oracle->options.messages * sizeof(struct sight));
    return view;
}

void oracle_view_free(struct oracle_view *view)
{
    if (!view)
        return;
    for (unsigned lane = 0; lane < ORACLE_LANES; lane++)
        munmap(view->sights[lane], view->oracle->options.messages * sizeof(struct sight));
    munmap(view, sizeof(*view));
}

uint64_t oracle_view_count(const struct oracle_view *view)
{
    return atomic_load(&view->count);
}

void oracle_view_rewind(struct oracle_view *view)
{
    memset(view->offset, 0, sizeof(view->offset));
    memset(view->number, 0, sizeof(view->number));
}

/* Counts one more of a kind; the first of all kinds is told. False, for callers to return. */
__attribute__((format(printf, 3, 4))) static bool blame(char why[ORACLE_WHY], uint64_t *count,
                                                        const char *format, ...)
{
    va_list arguments;

    ++*count;
    if (why[0] != '\0')
        return false;
    va_start(arguments, format);
    vsnprintf(why, ORACLE_WHY, format, arguments);
    va_end(arguments);
    return false;
}

static bool is_in_order(struct oracle_view *view, const struct shmq_message *message,
                        const struct body *body)
{
    uint64_t *offset = &view->offset[message->partition];
    uint64_t *number = &view->number[message->partition][body->lane];

    if (message->offset < *offset && (view->flags & ORACLE_REPEATS)) {
        *offset = 0;
        memset(view->number[message->partition], 0, sizeof(view->number[0]));
    }
    if (message->offset < *offset || body->number < *number)
        return blame(view->why, &view->disordered,
                     "number %llu of producer %u at %u/%llu came after its number %llu and offset "
                     "%llu",
                     (unsigned long long)body->number, body->lane, message->partition,
                     (unsigned long long)message->offset, (unsigned long long)*number - 1,
                     (unsigned long long)*offset - 1);
    *offset = message->offset + 1;
    *number = body->number + 1;
    return true;
}

static bool enter_sight(struct oracle_view *view, const struct shmq_message *message,
                        const struct body *body)
{
    struct sight *sight = &view->sights[body->lane][body->number];
    uint64_t place = place_of(message->partition, message->offset);

    if (sight->count > 0 && (!(view->flags & ORACLE_REPEATS) || sight->place != place))
        return blame(view->why, &view->doubled,
                     "number %llu of producer %u came at %u/%llu, and before at %llu/%llu",
                     (unsigned long long)body->number, body->lane, message->partition,
                     (unsigned long long)message->offset, (unsigned long long)sight->place >> 56,
                     (unsigned long long)sight->place & ((UINT64_C(1) << 56) - 1));
    sight->place = place;
    if (sight->count < UINT8_MAX)
        sight->count++;
    return true;
}

static const char *state_text(unsigned state)
{
    switch (state) {
    case NONE:
        return "nobody published it";
    case REFUSED:
        return "its publish failed";
    default:
        return "it was missing after a crash";
    }
}

bool oracle_take(struct oracle_view *view, const struct shmq_message *message)
{
    struct body body;
    struct entry *entry;
    unsigned state;
    const char *wrong = inspect(view->oracle, message, &body);

    if (wrong || message->partition >= ORACLE_PARTITIONS || message->offset >> 56)
        return blame(view->why, &view->torn, "a message of %u bytes at %u/%llu: %s",
                     message->body_length, message->partition, (unsigned long long)message->offset,
                     wrong ? wrong : "no such place");
    entry = &view->oracle->entries[body.lane][body.number];
    state = atomic_load(&entry->state);
    if (state == NONE || state == REFUSED || state == GONE)
        return blame(view->why, &view->invented, "number %llu of producer %u came at %u/%llu: %s",
                     (unsigned long long)body.number, body.lane, message->partition,
                     (unsigned long long)message->offset, state_text(state));
    if (message->offset < view->first[message->partition])
        view->first[message->partition] = message->offset;
    if (!is_in_order(view, message, &body) || !enter_sight(view, message, &body))
        return false;
    if ((view->flags & ORACLE_WITNESS) && !atomic_load(&view->oracle->distrusts))
        atomic_store(&entry->witnessed, 1);
    atomic_fetch_add(&view->count, 1);
    return true;
}

/* ---- judging --------------------------------------------------------------------------------- */

/* Whether it may not be missing. */
static bool is_owed(const struct oracle_view *view, const struct entry *entry,
                    enum oracle_demand demand)
{
    unsigned state = atomic_load(&entry->state);
    uint64_t place = atomic_load(&entry->place);
    bool safe = state == CONFIRMED || atomic_load(&entry->witnessed);

    if (demand == ORACLE_RETAINED && place != PLACE_NONE &&
        (place & ((UINT64_C(1) << 56) - 1)) < view->first[place >> 56])
        return false;
    if (state == KEPT)
        return true;
    if (demand == ORACLE_LOSS || state == GONE)
        return false;
    return safe || (demand == ORACLE_NO_LOSS_AT_ALL && state == PUBLISHED);
}

bool oracle_view_is_complete(const struct oracle_view *view)
{
    for (unsigned lane = 0; lane < ORACLE_LANES; lane++) {
        uint64_t end = atomic_load(&view->oracle->next[lane]);

        for (uint64_t number = 0; number < end; number++) {
            if (view->sights[lane][number].count == 0 &&
                is_owed(view, &view->oracle->entries[lane][number], ORACLE_NO_LOSS))
                return false;
        }
    }
    return true;
}

static void judge_entry(const struct oracle_view *view, unsigned lane, uint64_t number,
                        enum oracle_demand demand, struct oracle_verdict *verdict)
{
    const struct entry *entry = &view->oracle->entries[lane][number];
    const struct sight *sight = &view->sights[lane][number];
    unsigned state = atomic_load(&entry->state);
    uint64_t place = atomic_load(&entry->place);

    verdict->confirmed += state == CONFIRMED || state == KEPT;
    if (sight->count == 0) {
        if (is_owed(view, entry, demand))
            (void)blame(verdict->why, &verdict->lost,
                        "number %llu of producer %u, %s at %llu/%llu, is lost",
                        (unsigned long long)number, lane,
                        state == CONFIRMED ? "confirmed"
                        : state == KEPT    ? "read after an earlier crash"
                        : state == PUBLISHED && !atomic_load(&entry->witnessed) ? "published"
                                                                                : "read as durable",
                        (unsigned long long)place >> 56,
                        (unsigned long long)place & ((UINT64_C(1) << 56) - 1));
        else
            verdict->missing += state == PUBLISHED || state == CONFIRMED;
        return;
    }
    verdict->read++;
    if (place != PLACE_NONE && place != sight->place)
        (void)blame(verdict->why, &verdict->moved,
                    "number %llu of producer %u was published at %llu/%llu and read at %llu/%llu",
                    (unsigned long long)number, lane, (unsigned long long)place >> 56,
                    (unsigned long long)place & ((UINT64_C(1) << 56) - 1),
                    (unsigned long long)sight->place >> 56,
                    (unsigned long long)sight->place & ((UINT64_C(1) << 56) - 1));
}

static int compare_places(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static void judge_places(const struct oracle *oracle, struct oracle_verdict *verdict)
{
    uint64_t total = 0, count = 0;
    uint64_t *places;

    for (unsigned lane = 0; lane < ORACLE_LANES; lane++)
        total += atomic_load(&oracle->next[lane]);
    places = malloc((total + 1) * sizeof(*places));
    REQUIRE(places != NULL);
    for (unsigned lane = 0; lane < ORACLE_LANES; lane++) {
        for (uint64_t number = 0; number < atomic_load(&oracle->next[lane]); number++) {
            uint64_t place = atomic_load(&oracle->entries[lane][number].place);

            if (place != PLACE_NONE)
                places[count++] = place;
        }
    }
    qsort(places, count, sizeof(*places), compare_places);
    for (uint64_t i = 1; i < count; i++) {
        if (places[i] == places[i - 1])
            (void)blame(verdict->why, &verdict->reused, "%llu/%llu was given to two messages",
                        (unsigned long long)places[i] >> 56,
                        (unsigned long long)places[i] & ((UINT64_C(1) << 56) - 1));
    }
    free(places);
}

void oracle_judge(const struct oracle_view *view, enum oracle_demand demand,
                  struct oracle_verdict *ret_verdict)
{
    const struct oracle *oracle = view->oracle;

    *ret_verdict = (struct oracle_verdict){.invented = view->invented,
                                           .torn = view->torn,
                                           .disordered = view->disordered,
                                           .doubled = view->doubled};
    memcpy(ret_verdict->why, view->why, sizeof(view->why));
    for (unsigned lane = 0; lane < ORACLE_LANES; lane++) {
        uint64_t end = atomic_load(&oracle->next[lane]);

        ret_verdict->attempted += end;
        for (uint64_t number = 0; number < end; number++)
            judge_entry(view, lane, number, demand, ret_verdict);
    }
    judge_places(oracle, ret_verdict);
}

bool oracle_is_clean(const struct oracle_verdict *v)
{
    return v->lost + v->invented + v->torn + v->disordered + v->doubled + v->moved + v->reused == 0;
}

bool oracle_check(const struct oracle_view *view, enum oracle_demand demand, const char *what,
                  struct oracle_verdict *ret_verdict)
{
    struct oracle_verdict ignored;
    struct oracle_verdict *v = ret_verdict ? ret_verdict : &ignored;

    oracle_judge(view, demand, v);
    if (CHECK(oracle_is_clean(v)))
        return true;
    return FAIL("%s: %s; of %llu published and %llu confirmed %llu were read; lost %llu, invented "
                "%llu, torn %llu, disordered %llu, doubled %llu, moved %llu, offsets reused %llu",
                what, v->why, (unsigned long long)v->attempted, (unsigned long long)v->confirmed,
                (unsigned long long)v->read, (unsigned long long)v->lost,
                (unsigned long long)v->invented, (unsigned long long)v->torn,
                (unsigned long long)v->disordered, (unsigned long long)v->doubled,
                (unsigned long long)v->moved, (unsigned long long)v->reused);
}

void oracle_distrust(struct oracle *oracle)
{
    atomic_store(&oracle->distrusts, 1);
}

void oracle_settle(struct oracle_view *view)
{
    struct oracle *oracle = view->oracle;

    atomic_store(&oracle->distrusts, 0);
    for (unsigned lane = 0; lane < ORACLE_LANES; lane++) {
        for (uint64_t number = 0; number < atomic_load(&oracle->next[lane]); number++) {
            struct entry *entry = &oracle->entries[lane][number];
            unsigned state = atomic_load(&entry->state);

            if (view->sights[lane][number].count > 0) {
                atomic_store(&entry->state, KEPT);
                atomic_store(&entry->place, view->sights[lane][number].place);
            } else if (state != REFUSED) {
                atomic_store(&entry->state, GONE);
            }
            atomic_store(&entry->witnessed, 0);
        }
    }
}
