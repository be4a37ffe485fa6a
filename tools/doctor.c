/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shmq doctor: what is stuck, where, why, who it is, and what to do.
 *
 * It works with a supervisor and without, from the bus's memory where this user may read it and from
 * the supervisor's answers where not. It changes nothing, but --clean removes memory and sockets of
 * dead buses: no supervisor, no living client. Memory with messages that a group has not read, or that are not
 * in their journal yet, is kept even then, unless --force: a supervisor that starts again would deliver them. Only the bus that was
 * named is looked at, or all of /dev/shm where none was.
 */
#include "tools/doctor.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

#include "libshmq/clock.h"
#include "libshmq/units.h"
#include "tools/nouns.h"
#include "tools/outbuf.h"

#define CONNECT_MS 2000 /* a stopped supervisor must not stop its doctor */

static struct {
    bool clean, force;
} args;

static const struct cli_option options[] = {
    {0, "clean", NULL, "remove what dead buses left behind: memory and sockets; says each",
     CLI_FLAG, &args.clean, NULL, 0, 0},
    {0, "force", NULL, "with --clean: also memory with messages that a group has not read",
     CLI_FLAG, &args.force, NULL, 0, 0},
    {0, NULL, NULL, NULL, CLI_FLAG, NULL, NULL, 0, 0},
};

struct finding *doctor_add(struct doctor *doctor, const char *kind, const char *where_format, ...)
{
    struct finding *f;
    va_list arguments;

    doctor->findings =
        tool_realloc(doctor->findings, (doctor->count + 1) * sizeof(*doctor->findings));
    f = &doctor->findings[doctor->count++];
    memset(f, 0, sizeof(*f));
    f->kind = kind;
    va_start(arguments, where_format);
    (void)vsnprintf(f->where, sizeof(f->where), where_format, arguments);
    va_end(arguments);
    return f;
}

/* ---- Leftovers -------------------------------------------------------------------------------- */

/* What --clean did, one sentence each. */
struct cleaning {
    char **lines;
    unsigned count;
};

static void note_cleaned(struct cleaning *cleaning, const char *format, ...) PRINTF_LIKE(2, 3);

static void note_cleaned(struct cleaning *cleaning, const char *format, ...)
{
    char text[512];
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    text_make_printable(text);
    cleaning->lines =
        tool_realloc(cleaning->lines, (cleaning->count + 1) * sizeof(*cleaning->lines));
    cleaning->lines[cleaning->count++] = tool_strdup(text);
}

static void report_leftover(struct doctor *doctor, const struct inspect_bus *bus, uint64_t unread,
                            const char *trouble)
{
    struct finding *f = doctor_add(doctor, "leftover", "/dev/shm/%.200s", bus->prefix);
    char text[UNITS_TEXT_BYTES];

    f->pid = bus->supervisor_pid;
    doctor_say(f->what, "%s in %" PRIu32 " %s left over", units_show_size(bus->bytes, text),
               bus->file_count, cli_plural(bus->file_count, "segment is", "segments are"));
    if (trouble) {
        doctor_say(f->why, "it could not be removed: %s", trouble);
        doctor_say(f->remedy, "run shmq doctor --clean as its owner or root");
        return;
    }
    doctor_say(f->why, "its supervisor and all its clients are gone%s",
               unread ? ", but groups have not read all of it, or it is not all on disk" : "");
    if (unread > 0)
        doctor_say(
            f->remedy,
            "start its supervisor again: it delivers them; or drop them: shmq doctor --clean "
            "--force");
    else
        doctor_say(f->remedy, "remove it: shmq doctor --clean");
}

static void check_leftover(struct doctor *doctor, const char *prefix, struct cleaning *cleaning)
{
    struct inspect_bus bus;
    uint64_t unread;
    int removed = -1;

    if (!inspect_open(prefix, &bus))
        return;
    if (!inspect_is_dead(&bus) || (bus.uid != geteuid() && geteuid() != 0)) {
        inspect_free(&bus);
        return;
    }
    unread = inspect_unread_bytes(&bus);
    errno = 0;
    if (args.clean && (unread == 0 || args.force)) {
        removed = inspect_remove(&bus);
        if (removed >= 0)
            note_cleaned(cleaning, "removed %d %s, %" PRIu64 " bytes: /dev/shm/%s.*", removed,
                         cli_plural((uint64_t)removed, "segment", "segments"), bus.bytes,
                         bus.prefix);
        else
            report_leftover(doctor, &bus, unread,
                            errno ? strerror(errno) : "somebody uses it again");
    } else {
        report_leftover(doctor, &bus, unread, NULL);
    }
    inspect_free(&bus);
}

/* Whoever names a bus means that one; who names a directory means the buses there; else all. */
static bool is_meant(const struct doctor *doctor, const struct inspect_bus *bus)
{
    struct paths_environment environment;
    char name[PATHS_PREFIX_BYTES];
    char prefix[PATHS_PREFIX_BYTES];
    char *hash;
    const struct cli *cli = doctor->cli;

    paths_environment_load(&environment);
    if (cli->bus || environment.bus)
        return strcmp(bus->prefix, doctor->place.prefix) == 0;
    if (!cli->runtime_dir && !environment.runtime_dir)
        return true;
    /* "shmq.BUS.HASH": the directory is in the hash. */
    (void)snprintf(name, sizeof(name), "%s", bus->prefix + strlen("shmq."));
    hash = strrchr(name, '.');
    if (!hash)
        return false;
    *hash = '\0';
    return paths_segment_prefix(bus->uid, doctor->place.runtime_dir, name, prefix, NULL) == 0 &&
           strcmp(prefix + (prefix[0] == '/'), bus->prefix) == 0;
}

static void check_leftovers(struct doctor *doctor, struct cleaning *cleaning)
{
    struct inspect_bus *buses = NULL;
    uint32_t count = inspect_list(&buses);

    for (uint32_t i = 0; i < count; i++) {
        if (is_meant(doctor, &buses[i]))
            check_leftover(doctor, buses[i].prefix, cleaning);
    }
    free(buses);
}

static void check_socket(struct doctor *doctor, bool supervisor_alive, struct cleaning *cleaning)
{
    struct finding *f;

    if (!doctor->place.has_socket || supervisor_alive || doctor->connected ||
        place_answers(&doctor->place))
        return;
    if (args.clean && unlink(doctor->place.socket) == 0) {
        note_cleaned(cleaning, "removed the socket %s: nobody listens on it", doctor->place.socket);
        return;
    }
    f = doctor_add(doctor, "socket", "%s", doctor->place.socket);
    doctor_say(f->what, "a socket is left over");
    doctor_say(f->why, "nobody listens on it: its supervisor has ended without cleaning up");
    doctor_say(f->remedy, "nothing, if a supervisor is started again; else: shmq doctor --clean");
}

/* ---- Printing --------------------------------------------------------------------------------- */

static void print_json(const struct doctor *doctor, const struct cleaning *cleaning)
{
    struct outbuf out = {0};
    struct json json;

    json_init(&json, &out);
    json_object_begin(&json, NULL);
    json_string(&json, "bus", doctor->place.bus);
    json_string(&json, "runtime_dir", doctor->place.runtime_dir);
    json_boolean(&json, "healthy", doctor->count == 0);
    json_array_begin(&json, "findings");
    for (unsigned i = 0; i < doctor->count; i++) {
        const struct finding *f = &doctor->findings[i];

        json_object_begin(&json, NULL);
        json_string(&json, "kind", f->kind);
        json_string(&json, "where", f->where);
        json_string(&json, "what", f->what);
        json_string(&json, "why", f->why);
        json_string(&json, "remedy", f->remedy);
        if (f->client != 0)
            json_number(&json, "client", f->client);
        if (f->pid != 0)
            json_number(&json, "pid", f->pid);
        if (*f->command)
            json_string(&json, "command", f->command);
        json_object_end(&json);
    }
    json_array_end(&json);
    json_array_begin(&json, "cleaned");
    for (unsigned i = 0; i < cleaning->count; i++)
        json_string(&json, NULL, cleaning->lines[i]);
    json_array_end(&json);
    json_object_end(&json);
    tool_print(&out);
}

static void print_text(const struct doctor *doctor, const struct cleaning *cleaning)
{
    const struct cli *cli = doctor->cli;

    for (unsigned i = 0; i < cleaning->count; i++)
        printf("%s\n", cleaning->lines[i]);
    if (cli->quiet && doctor->count == 0)
        return;
    if (doctor->count == 0) {
        printf("%sbus %s is healthy%s: supervisor pid %" PRIu32 ", %" PRIu32 " %s, %" PRIu32
               " %s\n",
               cli_green(cli), doctor->place.bus, cli_plain(cli), doctor->info.pid,
               doctor->info.topics, cli_plural(doctor->info.topics, "topic", "topics"),
               doctor->info.clients, cli_plural(doctor->info.clients, "client", "clients"));
        return;
    }
    for (unsigned i = 0; i < doctor->count; i++) {
        const struct finding *f = &doctor->findings[i];

        printf("%s%s%s: %s: %s; %s\n", cli_red(cli), f->where, cli_plain(cli), f->what, f->why,
               f->remedy);
    }
    if (!cli->quiet)
        printf("%u %s on bus %s\n", doctor->count, cli_plural(doctor->count, "finding", "findings"),
               doctor->place.bus);
}

/* ---- The examination -------------------------------------------------------------------------- */

/* True if the memory could be read: then all of it was looked at. */
static bool check_memory(struct doctor *doctor, bool *ret_supervisor_alive)
{
    const struct timespec pause = timespec_from_ns(DOCTOR_PAUSE_NS);
    struct inspect_bus before;
    struct inspect_bus now;
    bool readable;

    *ret_supervisor_alive = false;
    if (!inspect_open(doctor->place.prefix, &before)) {
        doctor_check_supervisor(doctor, NULL);
        return false;
    }
    readable = before.has_bus && !before.unreadable;
    if (readable)
        (void)nanosleep(&pause, NULL);
    if (!inspect_open(doctor->place.prefix, &now)) {
        inspect_free(&before);
        doctor_check_supervisor(doctor, NULL);
        return false;
    }
    *ret_supervisor_alive = now.supervisor_alive;
    doctor_check_supervisor(doctor, &now);
    if (readable)
        doctor_check_memory(doctor, &before, &now);
    inspect_free(&before);
    inspect_free(&now);
    return readable;
}

static int run_doctor(struct cli *cli)
{
    struct doctor doctor = {.cli = cli};
    struct cleaning cleaning = {0};
    bool supervisor_alive;
    bool readable;
    int rc = args.force && !args.clean ? cli_usage(cli, "--force is for --clean") : CLI_OK;

    if (rc == CLI_OK)
        rc = place_find(cli, &doctor.place);
    if (rc != CLI_OK)
        return rc;
    doctor.has_memory = place_memory(&doctor.memory);
    doctor.connect_error = cli_try_connect(cli, CONNECT_MS);
    doctor.connected =
        doctor.connect_error == 0 && shmq_bus_describe(cli->connection, &doctor.info) == 0;
    if (args.clean) /* first: what goes need not be examined */
        check_leftovers(&doctor, &cleaning);
    readable = check_memory(&doctor, &supervisor_alive);
    if (doctor.connect_error == SHMQ_EPERM && !readable)
        return cli_fail_library(cli, SHMQ_EPERM); /* of another user: there is nothing to see */
    if (doctor.connected && !readable)
        doctor_check_service(&doctor);
    if (doctor.connected)
        doctor_check_clients(&doctor);
    doctor_check_space(&doctor);
    check_socket(&doctor, supervisor_alive, &cleaning);
    if (!args.clean)
        check_leftovers(&doctor, &cleaning);
    for (unsigned i = 0; i < doctor.count; i++) {
        text_make_printable(doctor.findings[i].where);
        text_make_printable(doctor.findings[i].why);
    }
    if (cli->json)
        print_json(&doctor, &cleaning);
    else
        print_text(&doctor, &cleaning);
    for (unsigned i = 0; i < cleaning.count; i++)
        free(cleaning.lines[i]);
    free(cleaning.lines);
    rc = doctor.count > 0 ? CLI_FAILED : CLI_OK;
    free(doctor.findings);
    return rc;
}

const struct cli_command TOOL_DOCTOR[] = {
    {"doctor", NULL, "", 0, 0, "Says what is stuck, where, why, who it is, and what to do.",
     "It looks twice, 0.3 s apart: what has not moved is stuck. It finds: no supervisor, or one "
     "that does not answer; messages that were begun and not ended; full rings and who holds them "
     "back; groups that nobody reads; journals that do not get on; damaged partitions; stopped and "
     "absent clients; a lack of shared memory; and what dead buses left behind, which --clean removes (all of them in "
     "/dev/shm, or that of the bus which was named). Whoever may not read "
     "the bus's memory (its owner and root may) gets what the supervisor knows.\n\n"
     "Exit codes: 0 healthy, 1 something was found.",
     "  shmq doctor\n"
     "  shmq doctor --clean\n"
     "  shmq --json doctor | jq '.findings[] | {where, why, pid}'\n",
     options, run_doctor},
    {NULL, NULL, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL},
};
