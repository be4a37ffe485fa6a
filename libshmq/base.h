/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The few words that every other file uses. Owns nothing and holds no state; safe in any thread,
 * process and signal handler. No wrappers around C11 atomics on purpose: orders stay visible where
 * they are argued.
 */
#ifndef SHMQ_BASE_H
#define SHMQ_BASE_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

/* Offsets, lengths and checksums are written to disk and shared as they stand in memory. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "shmq needs a little-endian machine");
_Static_assert(sizeof(void *) == 8, "shmq needs 64-bit pointers");

#define LIKELY(condition)   __builtin_expect(!!(condition), 1)
#define UNLIKELY(condition) __builtin_expect(!!(condition), 0)

#define COLD __attribute__((cold, noinline))
/* For the two or three hottest functions, which hold no arrays: a local whose address goes to the
 * kernel's clock would bring one in. */
#define NO_CANARY     __attribute__((no_stack_protector))
#define ALWAYS_INLINE inline __attribute__((always_inline))
/* Looks at memory that others may be storing to without atomics, and can tell when it was misled. */
#define RACY_BY_DESIGN __attribute__((noinline, no_sanitize("thread")))

/* ThreadSanitizer is told of an acquire that stands in a RACY_BY_DESIGN function. */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SHMQ_TSAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define SHMQ_TSAN 1
#endif
#ifdef SHMQ_TSAN
void __tsan_acquire(void *address);
#define TSAN_ACQUIRE(address) __tsan_acquire((void *)(uintptr_t)(address))
#else
#define TSAN_ACQUIRE(address) ((void)(address))
#endif

#define UNUSED     __attribute__((unused))
#define MUST_CHECK __attribute__((warn_unused_result))
#define PRINTF_LIKE(format_index, first_argument) \
    __attribute__((format(printf, format_index, first_argument)))

/* Elements of an array; with a pointer it does not compile. */
#define COUNT_OF(array) \
    (sizeof(array) / sizeof((array)[0]) + \
     0 * sizeof(char[1 - 2 * __builtin_types_compatible_p(__typeof__(array), \
                                                          __typeof__(&(array)[0]))]))

#define CONTAINER_OF(pointer, type, member) \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

/* For constant expressions; at run time use align_up_u64(). The alignment is a power of two. */
#define ALIGN_UP(value, alignment) (((value) + (alignment)-1) & ~((alignment)-1))

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static inline uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static inline size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* `alignment` is a power of two, and value + alignment does not overflow: callers bound first. */
static inline uint64_t align_up_u64(uint64_t value, uint64_t alignment)
{
    return (value + alignment - 1) & ~(alignment - 1);
}

static inline int is_power_of_two_u64(uint64_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

/* Inside a spin loop: tells the core that this is one, so that the other hyper-thread gets on. */
static ALWAYS_INLINE void cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield" ::: "memory");
#else
    __asm__ __volatile__("" ::: "memory");
#endif
}

/* Asks for a cache line as its writer, ahead of the stores. Spelled out on x86-64, where the compiler's
 * builtin asks for a reader's copy unless it is told of the newer machines that all are by now. */
static ALWAYS_INLINE void prefetch_to_write(const void *address)
{
#if defined(__x86_64__)
    __asm__ __volatile__("prefetchw %0" : : "m"(*(const char *)address));
#else
    __builtin_prefetch(address, 1);
#endif
}

static inline void cleanup_free(void *pointer)
{
    free(*(void **)pointer);
}

static inline void cleanup_close(const int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
}

/* A variable that is freed or closed when its scope ends; steal_pointer() and steal_fd() hand it on. */
#define CLEANUP(function) __attribute__((cleanup(function)))
#define CLEANUP_FREE      CLEANUP(cleanup_free)
#define CLEANUP_CLOSE     CLEANUP(cleanup_close)

static inline int steal_fd(int *fd)
{
    int taken = *fd;

    *fd = -1;
    return taken;
}

#define steal_pointer(pointer_to_variable) \
    (__extension__({ \
        __typeof__(*(pointer_to_variable)) taken_pointer = *(pointer_to_variable); \
        *(pointer_to_variable) = NULL; \
        taken_pointer; \
    }))

#endif
