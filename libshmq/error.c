/* SPDX-License-Identifier: Apache-2.0 */
/* Errors as sentences; see error.h. The table is the only place where a code meets its words. */
#include "libshmq/error.h"

#ifdef __clang_analyzer__
#undef error_set
#undef error_prefix
#undef error_set_errno
#endif

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct error_words {
    const char *name;
    const char *text;
    const char *remedy;
};

#define WORDS(code, text, remedy) [-(code)] = {#code, text, remedy}

static const struct error_words WORDS_BY_CODE[] = {
    WORDS(SHMQ_OK, "done", ""),
    WORDS(SHMQ_ETIMEOUT, "timed out", "try again or allow more time"),
    WORDS(SHMQ_ENOBUS, "no supervisor runs for this bus", "start shmqd"),
    WORDS(SHMQ_EPERM, "not permitted", "use a user that may, or ask for the permission"),
    WORDS(SHMQ_EINVAL, "bad argument or use", "mend the call"),
    WORDS(SHMQ_ENOMEM, "out of memory", "free some memory"),
    WORDS(SHMQ_ENOTOPIC, "no such topic", "create it or mend the name"),
    WORDS(SHMQ_EEXIST, "exists already", "use it or choose another name"),
    WORDS(SHMQ_ENOGROUP, "no such group", "open a consumer in it or mend the name"),
    WORDS(SHMQ_ETOOBIG, "message too big", "split it or create the topic with a larger ring"),
    WORDS(SHMQ_EFULL, "ring full", "let the slowest group catch up"),
    WORDS(SHMQ_EBUSY, "in use", "finish or close the other use first"),
    WORDS(SHMQ_ECORRUPT, "partition damaged and quarantined", "run `shmq doctor`"),
    WORDS(SHMQ_ECLOSED, "closed", "connect again"),
    WORDS(SHMQ_EFORK, "handle of the parent process", "connect again in the child"),
    WORDS(SHMQ_EVERSION, "foreign version", "bring library and supervisor to the same version"),
    WORDS(SHMQ_ELIMIT, "limit reached", "close something or have the limit raised"),
    WORDS(SHMQ_ENOSPC, "no space in shared memory or on disk", "free some space"),
    WORDS(SHMQ_EIO, "input/output error", "see the system's log"),
    WORDS(SHMQ_ESYS, "system error", ""),
    WORDS(SHMQ_EPROTO, "the peer broke the protocol", "connect again"),
    WORDS(SHMQ_EFENCED, "another owner took over", "poll again"),
    WORDS(SHMQ_EAGAIN, "not now", "try again"),
    WORDS(SHMQ_ENOTSUP, "not supported here", "choose another way"),
};

static const struct error_words *words_of(int code)
{
    static const struct error_words UNKNOWN = {"SHMQ_E?", "unknown error", ""};

    /* Compared before it is negated: -INT_MIN overflows. */
    if (code > 0 || code <= -(int)COUNT_OF(WORDS_BY_CODE) || !WORDS_BY_CODE[-code].name)
        return &UNKNOWN;
    return &WORDS_BY_CODE[-code];
}

const char *error_text(int code)
{
    return words_of(code)->text;
}

const char *error_name(int code)
{
    return words_of(code)->name;
}

const char *error_remedy(int code)
{
    return words_of(code)->remedy;
}

/* One line whatever it was made of: a topic name or a peer's bytes may hold anything. */
static void tidy_line(char *text, size_t text_bytes, int untruncated_length)
{
    for (char *at = text; *at; at++) {
        unsigned char byte = (unsigned char)*at;

        if (byte < 0x20 || byte == 0x7f)
            *at = '?';
    }
    if (untruncated_length >= (int)text_bytes)
        memcpy(text + text_bytes - 4, "...", 4);
}

int error_set(struct error_buffer *buffer, int code, const char *format, ...)
{
    va_list arguments;
    int length;

    if (!buffer)
        return code;
    va_start(arguments, format);
    length = vsnprintf(buffer->text, sizeof(buffer->text), format, arguments);
    va_end(arguments);
    if (length < 0)
        length = snprintf(buffer->text, sizeof(buffer->text), "%s", error_text(code));
    tidy_line(buffer->text, sizeof(buffer->text), length);
    return code;
}

int error_set_errno(struct error_buffer *buffer, int error_number, const char *format, ...)
{
    int code = error_from_errno(error_number);
    const char *remedy = error_remedy(code);
    char what[sizeof(buffer->text)];
    char why[128];
    va_list arguments;

    if (!buffer)
        return code;
    va_start(arguments, format);
    if (vsnprintf(what, sizeof(what), format, arguments) < 0)
        what[0] = '\0';
    va_end(arguments);
    return error_set(buffer, code, "%s: %s%s%s", what,
                     error_errno_text(error_number, why, sizeof(why)), *remedy ? "; " : "", remedy);
}

int error_prefix(struct error_buffer *buffer, int code, const char *format, ...)
{
    char prefix[sizeof(buffer->text)];
    struct error_buffer old;
    va_list arguments;

    if (!buffer)
        return code;
    va_start(arguments, format);
    if (vsnprintf(prefix, sizeof(prefix), format, arguments) < 0)
        prefix[0] = '\0';
    va_end(arguments);
    old = *buffer;
    return error_set(buffer, code, "%s: %s", prefix, old.text);
}

int error_from_errno(int error_number)
{
    switch (error_number) {
    case 0:
        return SHMQ_OK;
    case ETIMEDOUT:
        return SHMQ_ETIMEOUT;
    case ECONNREFUSED:
        return SHMQ_ENOBUS;
    case EPERM:
    case EACCES:
    case EROFS:
        return SHMQ_EPERM;
    case EINVAL:
    case ENAMETOOLONG:
        return SHMQ_EINVAL;
    case ENOMEM:
        return SHMQ_ENOMEM;
    case EEXIST:
        return SHMQ_EEXIST;
    case EBUSY:
        return SHMQ_EBUSY;
    case EPIPE:
    case ECONNRESET:
    case ENOTCONN:
        return SHMQ_ECLOSED;
    case EMFILE:
    case ENFILE:
        return SHMQ_ELIMIT;
    case ENOSPC:
    case EDQUOT:
        return SHMQ_ENOSPC;
    case EIO:
        return SHMQ_EIO;
    case EPROTO:
    case EBADMSG:
        return SHMQ_EPROTO;
    case EAGAIN:
        return SHMQ_EAGAIN;
    case ENOSYS:
    case EOPNOTSUPP:
        return SHMQ_ENOTSUP;
    default:
        return SHMQ_ESYS;
    }
}

/* glibc's strerror_r returns a pointer that may ignore the buffer, the POSIX one fills it. Which of
 * the two is there is a matter of types, and _Generic asks the compiler rather than the version. */
static UNUSED const char *words_from_pointer(const char *words, const char *buffer)
{
    (void)buffer;
    return words;
}

static UNUSED const char *words_from_status(int status, const char *buffer)
{
    return status == 0 ? buffer : "unknown system error";
}

const char *error_errno_text(int error_number, char *buffer, size_t buffer_bytes)
{
    return _Generic(strerror_r(error_number, buffer, buffer_bytes), char *
                    : words_from_pointer, int
                    : words_from_status)(strerror_r(error_number, buffer, buffer_bytes), buffer);
}
