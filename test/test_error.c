/* SPDX-License-Identifier: Apache-2.0 */
/* Errors as sentences, deadlines, and the fault points that other suites strike with. */
#include "libshmq/clock.h"
#include "libshmq/error.h"
#include "libshmq/fault.h"
#include "test/support/test.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#define LAST_CODE SHMQ_ENOTSUP

TEST(every_code_has_its_own_words)
{
    for (int code = SHMQ_OK; code >= LAST_CODE; code--) {
        test_context("%d ", code);
        CHECK(strncmp(error_name(code), "SHMQ_", 5) == 0);
        CHECK(strcmp(error_text(code), "unknown error") != 0);
        for (int other = SHMQ_OK; other > code; other--) {
            CHECK(strcmp(error_text(code), error_text(other)) != 0);
            CHECK(strcmp(error_name(code), error_name(other)) != 0);
        }
    }
    CHECK_STR_EQ(error_name(SHMQ_EFULL), "SHMQ_EFULL");
    CHECK_STR_EQ(error_name(SHMQ_ENOTSUP), "SHMQ_ENOTSUP");
}

/* Numbers that shipped never change. */
TEST(numbers_are_fixed)
{
    CHECK_INT_EQ(SHMQ_ETIMEOUT, -1);
    CHECK_INT_EQ(SHMQ_ENOTOPIC, -6);
    CHECK_INT_EQ(SHMQ_EFULL, -10);
    CHECK_INT_EQ(SHMQ_ECLOSED, -13);
    CHECK_INT_EQ(SHMQ_EPROTO, -20);
    CHECK_INT_EQ(SHMQ_ENOTSUP, -23);
}

TEST(unknown_codes_have_words_too)
{
    CHECK_STR_EQ(error_text(LAST_CODE - 1), "unknown error");
    CHECK_STR_EQ(error_text(1), "unknown error");
    CHECK_STR_EQ(error_text(INT_MIN), "unknown error");
    CHECK_STR_EQ(error_text(INT_MAX), "unknown error");
    CHECK_STR_EQ(error_remedy(INT_MIN), "");
}

TEST(set_writes_the_sentence_and_returns_the_code)
{
    struct error_buffer buffer = {"old"};

    CHECK_INT_EQ(error_set(&buffer, SHMQ_EFULL, "topic %s/%d: full; %s", "orders", 3, "wait"),
                 SHMQ_EFULL);
    CHECK_STR_EQ(buffer.text, "topic orders/3: full; wait");
    CHECK_INT_EQ(error_set(NULL, SHMQ_EPERM, "nobody reads this"), SHMQ_EPERM);
}

TEST(set_keeps_one_line_whatever_the_name_holds)
{
    struct error_buffer buffer;

    CHECK_INT_EQ(error_set(&buffer, SHMQ_EINVAL, "topic %s: bad name", "a\nshmq: \x1b[2J\x7f\t"),
                 SHMQ_EINVAL);
    CHECK_STR_EQ(buffer.text, "topic a?shmq: ?[2J??: bad name");
}

TEST(set_marks_what_does_not_fit)
{
    struct error_buffer buffer;
    char long_text[2 * sizeof(buffer.text)];
    size_t fits = sizeof(buffer.text) - 1;

    memset(long_text, 'x', sizeof(long_text));
    long_text[fits] = '\0';
    (void)error_set(&buffer, SHMQ_EINVAL, "%s", long_text);
    CHECK_EQ(strlen(buffer.text), fits);
    CHECK_STR_EQ(buffer.text + fits - 3, "xxx");
    long_text[fits] = 'x';
    long_text[fits + 1] = '\0';
    (void)error_set(&buffer, SHMQ_EINVAL, "%s", long_text);
    CHECK_EQ(strlen(buffer.text), fits);
    CHECK_STR_EQ(buffer.text + fits - 4, "x...");
}

TEST(errno_gives_why_and_what_to_do)
{
    struct error_buffer buffer;

    CHECK_INT_EQ(error_set_errno(&buffer, ENOSPC, "segment %d", 7), SHMQ_ENOSPC);
    CHECK_STR_EQ(buffer.text, "segment 7: No space left on device; free some space");
    CHECK_INT_EQ(error_set_errno(NULL, EIO, "x"), SHMQ_EIO);
    CHECK_INT_EQ(error_set_errno(&buffer, ESRCH, "pid 9"), SHMQ_ESYS);
    CHECK_STR_EQ(buffer.text, "pid 9: No such process");
}

TEST(errno_maps_to_the_code_that_says_the_same)
{
    CHECK_INT_EQ(error_from_errno(0), SHMQ_OK);
    CHECK_INT_EQ(error_from_errno(EACCES), SHMQ_EPERM);
    CHECK_INT_EQ(error_from_errno(EDQUOT), SHMQ_ENOSPC);
    CHECK_INT_EQ(error_from_errno(EMFILE), SHMQ_ELIMIT);
    CHECK_INT_EQ(error_from_errno(ECONNREFUSED), SHMQ_ENOBUS);
    CHECK_INT_EQ(error_from_errno(99999), SHMQ_ESYS);
    CHECK_INT_EQ(error_from_errno(-1), SHMQ_ESYS);
}

TEST(prefix_names_the_thing_one_layer_up)
{
    struct error_buffer buffer;

    (void)error_set(&buffer, SHMQ_EIO, "write failed; see the log");
    CHECK_INT_EQ(error_prefix(&buffer, SHMQ_EIO, "topic %s", "orders"), SHMQ_EIO);
    CHECK_STR_EQ(buffer.text, "topic orders: write failed; see the log");
}

TEST(deadlines_saturate_and_refuse_negatives)
{
    uint64_t before_ns = clock_monotonic_ns();
    uint64_t deadline_ns = deadline_after_ms(60000);

    CHECK(deadline_ns >= before_ns + 60 * NS_PER_S);
    CHECK(deadline_left_ns(deadline_ns) <= 60 * NS_PER_S);
    CHECK(deadline_left_ms(deadline_ns) > 0 && deadline_left_ms(deadline_ns) <= 60000);
    CHECK_EQ(deadline_after_ms(-1), DEADLINE_INVALID);
    CHECK_EQ(deadline_after_ms(INT64_MIN), DEADLINE_INVALID);
    CHECK_EQ(deadline_after_ms(INT64_MAX), DEADLINE_NEVER);
    CHECK_EQ(deadline_left_ms(DEADLINE_NEVER), INT_MAX);
    CHECK(deadline_passed(DEADLINE_INVALID));
    CHECK(deadline_passed(deadline_after_ms(0)));
    CHECK(!deadline_passed(DEADLINE_NEVER));
}

/* A coarse clock is behind the exact one by a tick at most, never ahead. */
TEST(clocks_agree_and_do_not_go_back)
{
    uint64_t coarse_ns = clock_realtime_coarse_ns();
    uint64_t exact_ns = clock_realtime_ns();
    uint64_t last_ns = clock_monotonic_ns();

    CHECK(coarse_ns <= exact_ns);
    CHECK(exact_ns > UINT64_C(1600000000) * NS_PER_S);
    for (int i = 0; i < 1000; i++) {
        uint64_t now_ns = clock_monotonic_ns();

        REQUIRE(now_ns >= last_ns);
        last_ns = now_ns;
    }
    CHECK_EQ(timespec_from_ns(3 * NS_PER_S + 7).tv_sec, 3);
    CHECK_EQ(timespec_from_ns(3 * NS_PER_S + 7).tv_nsec, 7);
}

#ifdef SHMQ_FAULTS

TEST(fault_injects_an_error_at_the_nth_pass_only)
{
    REQUIRE_OK(fault_arm("error.test.here:3", "error", NULL));
    CHECK_INT_EQ(FAULT("error.test.here"), 0);
    CHECK_INT_EQ(FAULT("error.test.elsewhere"), 0);
    CHECK_INT_EQ(FAULT("error.test.here"), 0);
    CHECK_INT_EQ(FAULT("error.test.here"), 1);
    CHECK_INT_EQ(FAULT("error.test.here"), 0);
    REQUIRE_OK(fault_arm("error.test.here:2+", "error", NULL));
    CHECK_INT_EQ(FAULT("error.test.here"), 0);
    CHECK_INT_EQ(FAULT("error.test.here"), 1);
    CHECK_INT_EQ(FAULT("error.test.here"), 1);
    fault_disarm();
    CHECK_INT_EQ(FAULT("error.test.here"), 0);
}

TEST(fault_refuses_a_plan_that_never_strikes)
{
    CHECK_ERR(fault_arm("name:0", NULL, NULL), SHMQ_EINVAL);
    CHECK_ERR(fault_arm("name:", NULL, NULL), SHMQ_EINVAL);
    CHECK_ERR(fault_arm("name:2x", NULL, NULL), SHMQ_EINVAL);
    CHECK_ERR(fault_arm("name", "explode", NULL), SHMQ_EINVAL);
}

static void strike_second_pass(void *action)
{
    if (fault_arm("error.test.strike:2", action, NULL) < 0)
        _exit(2);
    (void)FAULT("error.test.strike");
    (void)FAULT("error.test.strike");
    _exit(3);
}

TEST(fault_kills_and_stops_its_own_process)
{
    pid_t killed = test_spawn(strike_second_pass, NULL);
    pid_t stopped;

    CHECK_INT_EQ(test_wait_exit(killed, 5000), -SIGKILL);
    stopped = test_spawn(strike_second_pass, (char *)(uintptr_t) "stop");
    CHECK(test_wait_stopped(stopped, 5000));
    test_kill(stopped, SIGCONT);
    CHECK_INT_EQ(test_wait_exit(stopped, 5000), 3);
}

TEST(fault_log_lists_what_was_passed)
{
    char path[512];
    char lines[128] = "";
    FILE *log;

    (void)snprintf(path, sizeof(path), "%s/faults", test_tmpdir());
    REQUIRE_OK(fault_arm(NULL, NULL, path));
    (void)FAULT("error.test.one");
    (void)FAULT("error.test.two");
    (void)FAULT("error.test.one");
    fault_disarm();
    (void)FAULT("error.test.three");
    log = fopen(path, "re");
    REQUIRE(log);
    CHECK_EQ(fread(lines, 1, sizeof(lines) - 1, log), 45);
    (void)fclose(log);
    CHECK_STR_EQ(lines, "error.test.one\nerror.test.two\nerror.test.one\n");
}

#define FAULT_CASES \
    T(fault_injects_an_error_at_the_nth_pass_only), T(fault_refuses_a_plan_that_never_strikes), \
        T(fault_kills_and_stops_its_own_process), T(fault_log_lists_what_was_passed)

#else

TEST(fault_is_nothing_in_a_release)
{
    CHECK_INT_EQ(FAULT("error.test.here"), 0);
}

#define FAULT_CASES T(fault_is_nothing_in_a_release)

#endif

TEST_MAIN("error", T(every_code_has_its_own_words), T(numbers_are_fixed),
          T(unknown_codes_have_words_too), T(set_writes_the_sentence_and_returns_the_code),
          T(set_keeps_one_line_whatever_the_name_holds), T(set_marks_what_does_not_fit),
          T(errno_gives_why_and_what_to_do), T(errno_maps_to_the_code_that_says_the_same),
          T(prefix_names_the_thing_one_layer_up), T(deadlines_saturate_and_refuse_negatives),
          T(clocks_agree_and_do_not_go_back), FAULT_CASES);
