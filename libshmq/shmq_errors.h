/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The errors of shmq: every call that fails returns one of these negative numbers.
 *
 * Each says what the caller does next; shmq_strerror() names the kind, shmq_errmsg() on the handle
 * says the whole sentence: what failed, why, what to do. The numbers that shipped never change;
 * new ones are added at the end, so a caller treats a number it does not know like SHMQ_ESYS.
 *
 * This header includes nothing and compiles alone, as C and as C++.
 */
#ifndef SHMQ_ERRORS_H
#define SHMQ_ERRORS_H

#ifdef __cplusplus
extern "C" {
#endif

enum shmq_error {
    /** Done. Calls that count return the positive count instead. */
    SHMQ_OK = 0,

    /** The timeout passed first and nothing was done. Call again, or give up: both are safe. */
    SHMQ_ETIMEOUT = -1,

    /** No supervisor runs for this bus. Start shmqd (shmq_errmsg has the command), then connect
     *  again. Publish and poll on handles that are already open do not need one. */
    SHMQ_ENOBUS = -2,

    /** This user may not do that. Ask for the permission or use another user; do not repeat. */
    SHMQ_EPERM = -3,

    /** A bad argument, or a call that does not fit the handle. A mistake in the program: mend it. */
    SHMQ_EINVAL = -4,

    /** The process is out of memory or address space. Free some and call again. */
    SHMQ_ENOMEM = -5,

    /** There is no such topic, or it was deleted. Create it, or close the handle. */
    SHMQ_ENOTOPIC = -6,

    /** The name is taken. Use what is there, or choose another name. */
    SHMQ_EEXIST = -7,

    /** There is no such group. Open a consumer in it to create it, or mend the name. */
    SHMQ_ENOGROUP = -8,

    /** The message is larger than the topic takes. Split it, or create the topic with a larger
     *  ring; the same call fails again. */
    SHMQ_ETOOBIG = -9,

    /** The ring is full (policy reject), or stayed full until the timeout (policy block); nothing
     *  was published. shmq_errmsg names the group that holds it back. Let that one catch up and
     *  publish again. */
    SHMQ_EFULL = -10,

    /** The handle is in use in a way that excludes this: a second claim of one producer, a second
     *  producer of a single-producer topic, another supervisor on this state. Finish the first. */
    SHMQ_EBUSY = -11,

    /** The partition was scribbled on or truncated, and is quarantined. Go on with the other
     *  partitions; an administrator runs `shmq doctor`. */
    SHMQ_ECORRUPT = -12,

    /** The handle, or the whole bus, was closed. Close what hangs below it and connect again. */
    SHMQ_ECLOSED = -13,

    /** A handle of the parent, used in a forked child. The child connects by itself. */
    SHMQ_EFORK = -14,

    /** The other side has another layout or protocol version; the message names both. Bring
     *  library and supervisor to the same version. */
    SHMQ_EVERSION = -15,

    /** A limit or quota is used up: clients of this user, slots, groups, topics. Close something,
     *  or have the limit raised. */
    SHMQ_ELIMIT = -16,

    /** No room in shared memory or on disk. Nothing was created. Free some and call again. */
    SHMQ_ENOSPC = -17,

    /** Reading or writing a file failed. What was confirmed stays valid; see the system's log. */
    SHMQ_EIO = -18,

    /** The system refused something else; shmq_errmsg has its words. */
    SHMQ_ESYS = -19,

    /** The peer broke the control protocol and the connection was dropped. Connect again; if it
     *  comes back, the two sides differ in version, or something else listens on that socket. */
    SHMQ_EPROTO = -20,

    /** Another owner took this over in the meantime (a partition of a group, a state directory).
     *  What this one had not committed is delivered to the new owner. Poll again. */
    SHMQ_EFENCED = -21,

    /** Not now, without having waited. Call again; no public call returns it today. */
    SHMQ_EAGAIN = -22,

    /** This build, kernel or topic cannot do that. Choose another way; do not repeat. */
    SHMQ_ENOTSUP = -23
};

#ifdef __cplusplus
}
#endif

#endif
