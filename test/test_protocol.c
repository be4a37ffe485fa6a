/* SPDX-License-Identifier: Apache-2.0 */
/* test_protocol.c: control messages: what is let through, what is refused, packets with
 * descriptors. */
#include "libshmq/protocol.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "test/support/test.h"

static struct protocol_topic_request make_describe(const char *name)
{
    struct protocol_topic_request request;

    memset(&request, 0, sizeof(request));
    protocol_begin(&request.header, PROTOCOL_TOPIC_DESCRIBE, sizeof(request));
    strcpy(request.vhost, VHOST_DEFAULT);
    strcpy(request.name, name);
    return request;
}

TEST(honest_request_passes)
{
    struct protocol_topic_request request = make_describe("orders");

    CHECK_OK(protocol_check_request(&request, sizeof(request), NULL));
}

TEST(every_request_type_has_a_rule)
{
    static const struct {
        enum protocol_type type;
        size_t bytes;
    } all[] = {
        {PROTOCOL_HELLO, sizeof(struct protocol_hello)},
        {PROTOCOL_GOODBYE, sizeof(struct protocol_header)},
        {PROTOCOL_STATUS, sizeof(struct protocol_header)},
        {PROTOCOL_TOPIC_CREATE, sizeof(struct protocol_topic_put)},
        {PROTOCOL_TOPIC_DESCRIBE, sizeof(struct protocol_topic_request)},
        {PROTOCOL_TOPIC_LIST, sizeof(struct protocol_list_request)},
        {PROTOCOL_TOPIC_ALTER, sizeof(struct protocol_topic_put)},
        {PROTOCOL_TOPIC_DELETE, sizeof(struct protocol_topic_request)},
        {PROTOCOL_TOPIC_PURGE, sizeof(struct protocol_topic_request)},
        {PROTOCOL_PARTITION_LIST, sizeof(struct protocol_list_request)},
        {PROTOCOL_PARTITION_OPEN, sizeof(struct protocol_partition_open)},
        {PROTOCOL_SLOT_CLOSE, sizeof(struct protocol_slot_request)},
        {PROTOCOL_RESOLVE, sizeof(struct protocol_slot_request)},
        {PROTOCOL_JOURNAL_OPEN, sizeof(struct protocol_journal_open)},
        {PROTOCOL_GROUP_JOIN, sizeof(struct protocol_group_join)},
        {PROTOCOL_GROUP_LEAVE, sizeof(struct protocol_group_request)},
        {PROTOCOL_GROUP_SEGMENT, sizeof(struct protocol_group_request)},
        {PROTOCOL_GROUP_LIST, sizeof(struct protocol_list_request)},
        {PROTOCOL_GROUP_DESCRIBE, sizeof(struct protocol_group_request)},
        {PROTOCOL_GROUP_DELETE, sizeof(struct protocol_group_request)},
        {PROTOCOL_CLIENT_LIST, sizeof(struct protocol_list_request)},
    };
    _Alignas(8) unsigned char message[2048];

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        memset(message, 0, sizeof(message));
        protocol_begin((struct protocol_header *)(void *)message, all[i].type,
                       (uint32_t)all[i].bytes);
        test_context("%s: ", protocol_type_name(all[i].type));
        CHECK_OK(protocol_check_request(message, all[i].bytes, NULL));
        /* One byte more or less is another message. */
        ((struct protocol_header *)(void *)message)->length++;
        CHECK_ERR(protocol_check_request(message, all[i].bytes + 1, NULL), SHMQ_EPROTO);
        ((struct protocol_header *)(void *)message)->length -= 2;
        CHECK_ERR(protocol_check_request(message, all[i].bytes - 1, NULL), SHMQ_EPROTO);
    }
}

TEST(malformed_headers_are_refused)
{
    struct protocol_topic_request request = make_describe("orders");
    struct error_buffer why;

    for (size_t bytes = 0; bytes < sizeof(request); bytes += 8)
        CHECK_ERR(protocol_check_request(&request, bytes, NULL), SHMQ_EPROTO);
    request.header.magic++;
    CHECK_ERR(protocol_check_request(&request, sizeof(request), NULL), SHMQ_EPROTO);
    request = make_describe("orders");
    request.header.version = PROTOCOL_VERSION + 1;
    CHECK_ERR(protocol_check_request(&request, sizeof(request), &why), SHMQ_EVERSION);
    CHECK_CONTAINS(why.text, "version 2");
    CHECK_CONTAINS(why.text, "version 1");
    request = make_describe("orders");
    request.header.type = 999;
    CHECK_ERR(protocol_check_request(&request, sizeof(request), NULL), SHMQ_EPROTO);
    request = make_describe("orders");
    request.header.count = 1;
    CHECK_ERR(protocol_check_request(&request, sizeof(request), NULL), SHMQ_EPROTO);
    request = make_describe("orders");
    request.header.status = -1;
    CHECK_ERR(protocol_check_request(&request, sizeof(request), NULL), SHMQ_EPROTO);
}

TEST(names_must_be_terminated)
{
    struct protocol_topic_request request = make_describe("orders");
    char name[NAME_BYTES];

    memset(request.name, 'a', sizeof(request.name));
    CHECK_ERR(protocol_check_request(&request, sizeof(request), NULL), SHMQ_EPROTO);
    memset(name, 'a', sizeof(name));
    CHECK(!protocol_name_ok(name, false));
    name[NAME_MAX_BYTES] = '\0';
    CHECK(protocol_name_ok(name, false));
    name[0] = '\0';
    CHECK(!protocol_name_ok(name, false));
    CHECK(protocol_name_ok(name, true));
    strcpy(name, "a/b");
    CHECK(!protocol_name_ok(name, false));
}

TEST(indices_out_of_range_are_refused)
{
    struct protocol_group_request group = {.gate = GATES_MAX};
    struct protocol_partition_open open = {.partition = PARTITIONS_MAX};
    struct protocol_slot_request slot = {.slot = SLOTS_MAX};
    struct protocol_journal_open journal = {.partition = PARTITIONS_MAX};

    protocol_begin(&group.header, PROTOCOL_GROUP_SEGMENT, sizeof(group));
    CHECK_ERR(protocol_check_request(&group, sizeof(group), NULL), SHMQ_EPROTO);
    group.gate = 0;
    group.member = MEMBERS_MAX;
    CHECK_ERR(protocol_check_request(&group, sizeof(group), NULL), SHMQ_EPROTO);
    protocol_begin(&open.header, PROTOCOL_PARTITION_OPEN, sizeof(open));
    CHECK_ERR(protocol_check_request(&open, sizeof(open), NULL), SHMQ_EPROTO);
    open.partition = 0;
    open.role = 2;
    CHECK_ERR(protocol_check_request(&open, sizeof(open), NULL), SHMQ_EPROTO);
    protocol_begin(&slot.header, PROTOCOL_SLOT_CLOSE, sizeof(slot));
    CHECK_ERR(protocol_check_request(&slot, sizeof(slot), NULL), SHMQ_EPROTO);
    protocol_begin(&journal.header, PROTOCOL_JOURNAL_OPEN, sizeof(journal));
    CHECK_ERR(protocol_check_request(&journal, sizeof(journal), NULL), SHMQ_EPROTO);
    journal.partition = 0;
    journal.flags = JOURNAL_BY_TIME;
    journal.offset = UINT64_MAX; /* any offset may be asked for */
    CHECK_OK(protocol_check_request(&journal, sizeof(journal), NULL));
    journal.flags = 2;
    CHECK_ERR(protocol_check_request(&journal, sizeof(journal), NULL), SHMQ_EPROTO);
}

/* ---- replies --------------------------------------------------------------------------------- */

TEST(reply_answers_its_request)
{
    struct protocol_topic_request request = make_describe("orders");
    struct protocol_topic_reply reply = {.info = {.id = 1}};

    request.header.id = 5;
    protocol_begin(&reply.header, PROTOCOL_TOPIC_DESCRIBE, sizeof(reply));
    reply.header.id = 5;
    CHECK_OK(protocol_check_reply(&reply, sizeof(reply), &request.header, sizeof(reply), 0, NULL));
    reply.header.id = 6;
    CHECK_ERR(protocol_check_reply(&reply, sizeof(reply), &request.header, sizeof(reply), 0, NULL),
              SHMQ_EPROTO);
    reply.header.id = 5;
    reply.header.type = PROTOCOL_TOPIC_DELETE;
    CHECK_ERR(protocol_check_reply(&reply, sizeof(reply), &request.header, sizeof(reply), 0, NULL),
              SHMQ_EPROTO);
    reply.header.type = PROTOCOL_TOPIC_DESCRIBE;
    reply.header.status = 1;
    CHECK_ERR(protocol_check_reply(&reply, sizeof(reply), &request.header, sizeof(reply), 0, NULL),
              SHMQ_EPROTO);
    reply.header.status = 0;
    reply.header.length = sizeof(reply) - 8;
    CHECK_ERR(
        protocol_check_reply(&reply, sizeof(reply) - 8, &request.header, sizeof(reply), 0, NULL),
        SHMQ_EPROTO);
}

TEST(failure_brings_its_sentence)
{
    struct protocol_topic_request request = make_describe("orders");
    struct protocol_failure failure = {.text = "topic orders: no such topic; create it"};
    struct error_buffer why;

    protocol_begin(&failure.header, PROTOCOL_TOPIC_DESCRIBE, sizeof(failure));
    failure.header.status = SHMQ_ENOTOPIC;
    CHECK_ERR(protocol_check_reply(&failure, sizeof(failure), &request.header,
                                   sizeof(struct protocol_topic_reply), 0, &why),
              SHMQ_ENOTOPIC);
    CHECK_STR_EQ(why.text, "topic orders: no such topic; create it");
    /* Neither terminated nor complete. */
    memset(failure.text, 'x', sizeof(failure.text));
    failure.header.length = sizeof(failure.header) + 3;
    CHECK_ERR(
        protocol_check_reply(&failure, sizeof(failure.header) + 3, &request.header, 4096, 0, &why),
        SHMQ_ENOTOPIC);
    CHECK_STR_EQ(why.text, "xxx");
    failure.header.length = sizeof(failure.header);
    CHECK_ERR(
        protocol_check_reply(&failure, sizeof(failure.header), &request.header, 4096, 0, &why),
        SHMQ_ENOTOPIC);
    CHECK(strlen(why.text) > 0);
}

TEST(arrays_are_as_long_as_they_say)
{
    /* The list, and room for three elements behind it. */
    _Alignas(struct protocol_list_reply) unsigned char
        bytes[sizeof(struct protocol_list_reply) + 3 * sizeof(struct protocol_partition_info)] = {
            0};
    struct protocol_list_reply *list = (void *)bytes;
    struct protocol_header request;
    const size_t element = sizeof(struct protocol_partition_info);

    protocol_begin(&request, PROTOCOL_PARTITION_LIST, sizeof(request));
    protocol_begin(&list->header, PROTOCOL_PARTITION_LIST, sizeof(bytes));
    list->header.count = 3;
    CHECK_OK(protocol_check_reply(bytes, sizeof(bytes), &request, sizeof(*list), element, NULL));
    list->header.count = 4;
    CHECK_ERR(protocol_check_reply(bytes, sizeof(bytes), &request, sizeof(*list), element, NULL),
              SHMQ_EPROTO);
    list->header.count = 2;
    CHECK_ERR(protocol_check_reply(bytes, sizeof(bytes), &request, sizeof(*list), element, NULL),
              SHMQ_EPROTO);
    /* A count whose product overflows 32 bits to the right number. */
    list->header.count = 3 + (uint32_t)(1u << 31); /* element is even */
    CHECK_ERR(protocol_check_reply(bytes, sizeof(bytes), &request, sizeof(*list), element, NULL),
              SHMQ_EPROTO);
}

/* ---- packets --------------------------------------------------------------------------------- */

static unsigned count_open_fds(void)
{
    unsigned count = 0;

    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

TEST(packet_carries_descriptors)
{
    int pair[2], sent[2], fds[PROTOCOL_FDS_MAX];
    unsigned count = 0;
    char text[16];

    REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
    REQUIRE(pipe(sent) == 0);
    CHECK_INT_EQ(protocol_receive(pair[1], text, sizeof(text), fds, &count), SHMQ_EAGAIN);
    CHECK_INT_EQ(protocol_send(pair[0], "hello", 5, sent, 2), 5);
    CHECK_INT_EQ(protocol_receive(pair[1], text, sizeof(text), fds, &count), 5);
    CHECK(memcmp(text, "hello", 5) == 0);
    if (CHECK_EQ(count, 2)) {
        CHECK(fcntl(fds[0], F_GETFD) & FD_CLOEXEC);
        CHECK(write(fds[1], "x", 1) == 1);
        CHECK(read(sent[0], text, 1) == 1);
        close(fds[0]);
        close(fds[1]);
    }
    close(pair[0]);
    CHECK_INT_EQ(protocol_receive(pair[1], text, sizeof(text), fds, &count), 0);
    CHECK_INT_EQ(protocol_send(pair[1], "x", 1, NULL, 0), SHMQ_ECLOSED);
    close(pair[1]);
    close(sent[0]);
    close(sent[1]);
}

/* Sends `count` copies of `fd` in one packet, however many a message may have. */
static void send_many(int socket_fd, int fd, size_t count)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int) * PROTOCOL_FDS_MAX * 2)];
    } control;
    struct iovec part = {.iov_base = &count, .iov_len = 1};
    struct msghdr packet = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control};

    memset(&control, 0, sizeof(control));
    packet.msg_controllen = (socklen_t)CMSG_SPACE(sizeof(int) * count);
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = (socklen_t)CMSG_LEN(sizeof(int) * count);
    for (size_t i = 0; i < count; i++)
        memcpy(CMSG_DATA(&control.header) + i * sizeof(int), &fd, sizeof(int));
    CHECK(sendmsg(socket_fd, &packet, 0) == 1);
}

TEST(unwanted_descriptors_are_closed)
{
    int pair[2], fds[PROTOCOL_FDS_MAX];
    unsigned count = 0, before;
    char text[16];

    REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
    before = count_open_fds();
    /* Nobody asked for any. */
    CHECK_INT_EQ(protocol_send(pair[0], "x", 1, pair, 1), 1);
    CHECK_INT_EQ(protocol_receive(pair[1], text, sizeof(text), NULL, NULL), SHMQ_EPROTO);
    /* A packet that is longer than the buffer. */
    CHECK_INT_EQ(protocol_send(pair[0], "0123456789abcdefgh", 18, pair, 1), 18);
    CHECK_INT_EQ(protocol_receive(pair[1], text, sizeof(text), fds, &count), SHMQ_EPROTO);
    CHECK_EQ(count_open_fds(), before);
    close(pair[0]);
    close(pair[1]);
}

TEST(more_descriptors_than_a_message_has)
{
    int pair[2], fds[PROTOCOL_FDS_MAX], many[PROTOCOL_FDS_MAX + 1] = {0};
    unsigned count = 0, before;
    char text[16];

    if (getenv("TEST_EXEC_WRAPPER"))
        SKIP("qemu-user receives into a larger buffer of its own, and drops what it cannot show");
    REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
    before = count_open_fds();
    CHECK_INT_EQ(protocol_send(pair[0], "x", 1, many, PROTOCOL_FDS_MAX + 1), SHMQ_EINVAL);
    for (size_t excess = 1; excess <= PROTOCOL_FDS_MAX; excess++) {
        send_many(pair[0], pair[0], PROTOCOL_FDS_MAX + excess);
        CHECK_INT_EQ(protocol_receive(pair[1], text, sizeof(text), fds, &count), SHMQ_EPROTO);
        CHECK_EQ(count_open_fds(), before);
    }
    close(pair[0]);
    close(pair[1]);
}

/* The message counts, so that what it grants can be given back. */
TEST(descriptors_that_may_not_be_opened)
{
    int pair[2], many[PROTOCOL_FDS_MAX], fds[PROTOCOL_FDS_MAX];
    unsigned count = 0, before;
    struct rlimit all, few;
    char text[16];

    if (getenv("TEST_EXEC_WRAPPER"))
        SKIP("the limit is the emulator's");
    REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
    REQUIRE(getrlimit(RLIMIT_NOFILE, &all) == 0);
    for (size_t i = 0; i < PROTOCOL_FDS_MAX; i++)
        many[i] = pair[0];
    before = count_open_fds();
    for (rlim_t more = 0; more <= PROTOCOL_FDS_MAX; more++) {
        int last[PROTOCOL_FDS_MAX + 1];

        for (rlim_t i = 0; i <= more; i++)
            REQUIRE((last[i] = dup(pair[0])) >= 0); /* the lowest that are free */
        for (rlim_t i = 0; i <= more; i++)
            (void)close(last[i]);
        few = all;
        few.rlim_cur = (rlim_t)last[more];
        CHECK_INT_EQ(protocol_send(pair[0], "x", 1, many, PROTOCOL_FDS_MAX), 1);
        REQUIRE(setrlimit(RLIMIT_NOFILE, &few) == 0);
        int got = protocol_receive(pair[1], text, sizeof(text), fds, &count);

        REQUIRE(setrlimit(RLIMIT_NOFILE, &all) == 0);
        CHECK_INT_EQ(got, 1);
        CHECK_EQ(count, more < PROTOCOL_FDS_MAX ? PROTOCOL_FDS_LOST : PROTOCOL_FDS_MAX);
        for (unsigned i = 0; count != PROTOCOL_FDS_LOST && i < count; i++)
            (void)close(fds[i]);
        CHECK_EQ(count_open_fds(), before);
    }
    close(pair[0]);
    close(pair[1]);
}

TEST_MAIN("protocol", T(honest_request_passes), T(every_request_type_has_a_rule),
          T(malformed_headers_are_refused), T(names_must_be_terminated),
          T(indices_out_of_range_are_refused), T(reply_answers_its_request),
          T(failure_brings_its_sentence), T(arrays_are_as_long_as_they_say),
          T(packet_carries_descriptors), T(unwanted_descriptors_are_closed),
          T(more_descriptors_than_a_message_has), T(descriptors_that_may_not_be_opened))
