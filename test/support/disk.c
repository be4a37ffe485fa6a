/* SPDX-License-Identifier: Apache-2.0 */
/* A disk that loses power; see disk.h. */
#include "test/support/disk.h"

#include "test/support/journal_bench.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define NAMES_MAX 256 /* names in the directory, and changes of them that are not synced */
#define NAME_ROOM 64

struct image {
    unsigned char *bytes;
    size_t length;
};

/* One file, named or not, for as long as the disk is there. */
struct disk_file {
    struct disk_file *next;
    ino_t inode; /* the real one's; 0: it is gone, and another may have the number */
    struct image cached;
    struct image stored;
    unsigned char *dirty; /* per page: written since the last sync */
    size_t dirty_pages;   /* room in `dirty` */
};

struct disk_name {
    char name[NAME_ROOM]; /* "": free */
    struct disk_file *file;
};

/* Not synced. Without `to`, name goes; without `from`, it comes. */
struct disk_change {
    char from[NAME_ROOM];
    char to[NAME_ROOM];
    struct disk_file *file;
};

struct disk {
    int dir_fd;
    ino_t dir_inode;
    struct disk_file *files;
    struct disk_name cached[NAMES_MAX];
    struct disk_name stored[NAMES_MAX];
    struct disk_change changes[NAMES_MAX];
    unsigned change_count;
    char created[NAME_ROOM]; /* a name that a call is about to make: looked at before the next */

    disk_before_fn *before;
    void *before_context;
    struct disk_fault fault;
    uint64_t fault_calls; /* of its kind, since it was set */
    bool failed;
    unsigned write_back;
    uint64_t calls[IO_KINDS];
    struct test_random random;
};

/* ---- Images --------------------------------------------------------------------------------------- */

static void set_length(struct image *image, size_t length)
{
    if (length > image->length) {
        image->bytes = realloc(image->bytes, length);
        REQUIRE(image->bytes != NULL);
        memset(image->bytes + image->length, 0, length - image->length);
    }
    image->length = length;
}

static void put_bytes(struct image *image, const void *bytes, size_t length, size_t position)
{
    if (length == 0)
        return;
    if (position + length > image->length)
        set_length(image, position + length);
    memcpy(image->bytes + position, bytes, length);
}

static void mark_dirty(struct disk_file *file, size_t position, size_t length)
{
    size_t pages = (position + length + DISK_PAGE - 1) / DISK_PAGE;

    if (pages > file->dirty_pages) {
        file->dirty = realloc(file->dirty, pages);
        REQUIRE(file->dirty != NULL);
        memset(file->dirty + file->dirty_pages, 0, pages - file->dirty_pages);
        file->dirty_pages = pages;
    }
    for (size_t page = position / DISK_PAGE; page < pages; page++)
        file->dirty[page] = 1;
}

/* The page as it is in the cache goes to the disk, or the sectors of it that chance wants. */
static void store_page(struct disk *disk, struct image *stored, const struct disk_file *file,
                       size_t page, unsigned unit)
{
    for (size_t at = page * DISK_PAGE; at < (page + 1) * DISK_PAGE && at < file->cached.length;
         at += unit) {
        if (unit == DISK_PAGE || test_random_below(&disk->random, 2))
            put_bytes(stored, file->cached.bytes + at, min_size(unit, file->cached.length - at),
                      at);
    }
}

static void sync_file(struct disk *disk, struct disk_file *file)
{
    for (size_t page = 0; page < file->dirty_pages; page++) {
        if (file->dirty[page])
            store_page(disk, &file->stored, file, page, DISK_PAGE);
        file->dirty[page] = 0;
    }
    set_length(&file->stored, file->cached.length);
}

/* The sync failed: what is on disk now is a matter of chance, and stays so. */
static void drop_pages(struct disk *disk, struct disk_file *file)
{
    for (size_t page = 0; page < file->dirty_pages; page++) {
        if (file->dirty[page] && test_random_below(&disk->random, 2))
            store_page(disk, &file->stored, file, page, DISK_PAGE);
        file->dirty[page] = 0;
    }
}

static void write_some_back(struct disk *disk)
{
    for (struct disk_file *file = disk->files; file; file = file->next) {
        for (size_t page = 0; page < file->dirty_pages; page++) {
            if (file->dirty[page] && test_random_below(&disk->random, 2))
                store_page(disk, &file->stored, file, page, DISK_PAGE);
        }
    }
}

/* ---- Names ---------------------------------------------------------------------------------------- */

static struct disk_name *find_name(struct disk_name *names, const char *name)
{
    for (unsigned i = 0; i < NAMES_MAX; i++) {
        if (strcmp(names[i].name, name) == 0)
            return &names[i];
    }
    return NULL;
}

static void set_name(struct disk_name *names, const char *name, struct disk_file *file)
{
    struct disk_name *entry = find_name(names, name);

    if (!entry)
        entry = find_name(names, "");
    REQUIRE(entry != NULL && strlen(name) < NAME_ROOM);
    memcpy(entry->name, name, strlen(name) + 1);
    entry->file = file;
}

static void clear_name(struct disk_name *names, const char *name, const struct disk_file *file)
{
    struct disk_name *entry = find_name(names, name);

    if (entry && entry->file == file)
        entry->name[0] = '\0';
}

static void apply_change(struct disk_name *names, const struct disk_change *change)
{
    if (change->to[0])
        set_name(names, change->to, change->file);
    if (change->from[0])
        clear_name(names, change->from, change->file);
}

static void change_name(struct disk *disk, const char *from, const char *to, struct disk_file *file)
{
    struct disk_change *change = &disk->changes[disk->change_count];

    REQUIRE(disk->change_count < NAMES_MAX && strlen(from) < NAME_ROOM && strlen(to) < NAME_ROOM);
    disk->change_count++;
    memcpy(change->from, from, strlen(from) + 1);
    memcpy(change->to, to, strlen(to) + 1);
    change->file = file;
    apply_change(disk->cached, change);
}

static void sync_names(struct disk *disk)
{
    for (unsigned i = 0; i < disk->change_count; i++)
        apply_change(disk->stored, &disk->changes[i]);
    disk->change_count = 0;
}

/* ---- Files ---------------------------------------------------------------------------------------- */

static struct disk_file *add_file(struct disk *disk, ino_t inode)
{
    struct disk_file *file = calloc(1, sizeof(*file));

    REQUIRE(file != NULL);
    /* The number may be that of a file that is gone. */
    for (struct disk_file *other = disk->files; other; other = other->next) {
        if (other->inode == inode)
            other->inode = 0;
    }
    file->inode = inode;
    file->next = disk->files;
    disk->files = file;
    return file;
}

/* NULL: not of this directory. */
static struct disk_file *find_file(struct disk *disk, int fd)
{
    struct stat status;
    struct disk_file *file = disk->files;

    REQUIRE(fstat(fd, &status) == 0);
    while (file && file->inode != status.st_ino)
        file = file->next;
    return file;
}

static bool is_directory(const struct disk *disk, int fd)
{
    struct stat status;

    return fd != AT_FDCWD && fstat(fd, &status) == 0 && status.st_ino == disk->dir_inode;
}

/* The call that was to make a file has been made by now, if it could. */
static void look_at_created(struct disk *disk)
{
    struct stat status;

    if (disk->created[0] && fstatat(disk->dir_fd, disk->created, &status, AT_SYMLINK_NOFOLLOW) == 0)
        change_name(disk, "", disk->created, add_file(disk, status.st_ino));
    disk->created[0] = '\0';
}

/* ---- Watching -------------------------------------------------------------------------------------- */

static bool concerns(struct disk *disk, const struct io_event *event)
{
    switch (event->kind) {
    case IO_OPEN:
    case IO_SYNC_DIR:
    case IO_RENAME:
    case IO_UNLINK:
    case IO_MAKE_DIR:
        return is_directory(disk, event->fd);
    case IO_WRITE:
    case IO_SYNC:
    case IO_ALLOCATE:
    case IO_READ:
        return find_file(disk, event->fd) != NULL;
    case IO_KINDS:
        break;
    }
    return false;
}

/* What the fault does to this call. */
static int strike(struct disk *disk, const struct io_event *event)
{
    const struct disk_fault *fault = &disk->fault;
    uint64_t call;

    if (fault->nth == 0 || (fault->kind != IO_KINDS && fault->kind != event->kind))
        return 0;
    call = ++disk->fault_calls;
    if (call < fault->nth || (call > fault->nth && !fault->repeated))
        return 0;
    if (fault->error == IO_SHORT && event->kind != IO_WRITE)
        return 0;
    disk->failed = true;
    return fault->error;
}

/* The call is going to be made: what it does to the cache, and to the disk. */
static int take_note(struct disk *disk, const struct io_event *event, bool is_short)
{
    struct disk_file *file;
    struct disk_name *name;
    size_t length = is_short && event->length > 1 ? event->length / 2 : event->length;

    switch (event->kind) {
    case IO_OPEN:
        REQUIRE(strlen(event->name) < NAME_ROOM);
        if (event->flags & O_CREAT)
            memcpy(disk->created, event->name, strlen(event->name) + 1);
        return 0;
    case IO_WRITE:
        file = find_file(disk, event->fd);
        put_bytes(&file->cached, event->data, length, event->position);
        mark_dirty(file, event->position, length);
        return is_short ? IO_SHORT : 0;
    case IO_ALLOCATE:
        file = find_file(disk, event->fd);
        if (event->length > file->cached.length)
            set_length(&file->cached, event->length);
        return 0;
    case IO_SYNC:
        sync_file(disk, find_file(disk, event->fd));
        return IO_DONE;
    case IO_SYNC_DIR:
        sync_names(disk);
        return IO_DONE;
    case IO_RENAME:
        name = find_name(disk->cached, event->name);
        if (name)
            change_name(disk, event->name, event->to, name->file);
        return 0;
    case IO_UNLINK:
        name = find_name(disk->cached, event->name);
        if (name)
            change_name(disk, event->name, "", name->file);
        return 0;
    case IO_MAKE_DIR:
    case IO_READ:
    case IO_KINDS:
        break;
    }
    return 0;
}

static int watch(void *context, const struct io_event *event)
{
    struct disk *disk = context;
    int struck;

    look_at_created(disk);
    if (!concerns(disk, event))
        return event->kind == IO_SYNC || event->kind == IO_SYNC_DIR ? IO_DONE : 0;
    if (disk->write_back && test_random_below(&disk->random, 256) < disk->write_back)
        write_some_back(disk);
    if (disk->before)
        disk->before(disk->before_context, disk, event);
    disk->calls[event->kind]++;
    struck = strike(disk, event);
    if (struck > 0) {
        if (event->kind == IO_SYNC)
            drop_pages(disk, find_file(disk, event->fd));
        return struck;
    }
    return take_note(disk, event, struck == IO_SHORT);
}

static void load_names(struct disk *disk, const char *dir)
{
    struct bench_files loaded;
    DIR *listing = opendir(dir);
    struct dirent *entry;

    REQUIRE(listing != NULL);
    bench_load(dir, &loaded);
    while ((entry = readdir(listing))) {
        struct disk_file *file;
        struct stat status;

        if (entry->d_name[0] == '.')
            continue;
        REQUIRE(fstatat(disk->dir_fd, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0);
        file = add_file(disk, status.st_ino);
        set_name(disk->cached, entry->d_name, file);
        set_name(disk->stored, entry->d_name, file);
        for (size_t i = 0; i < loaded.count; i++) {
            if (strcmp(loaded.files[i].name, entry->d_name) != 0)
                continue;
            put_bytes(&file->cached, loaded.files[i].bytes, loaded.files[i].length, 0);
            put_bytes(&file->stored, loaded.files[i].bytes, loaded.files[i].length, 0);
        }
    }
    (void)closedir(listing);
    bench_unload(&loaded);
}

struct disk *disk_new(const char *dir, uint64_t seed)
{
    struct disk *disk = calloc(1, sizeof(*disk));
    struct stat status;

    REQUIRE(disk != NULL);
    test_random_init(&disk->random, seed);
    disk->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    REQUIRE(disk->dir_fd >= 0 && fstat(disk->dir_fd, &status) == 0);
    disk->dir_inode = status.st_ino;
    disk->fault.kind = IO_KINDS;
    load_names(disk, dir);
    disk_resume(disk);
    return disk;
}

void disk_free(struct disk *disk)
{
    disk_pause(disk);
    while (disk->files) {
        struct disk_file *file = disk->files;

        disk->files = file->next;
        free(file->cached.bytes);
        free(file->stored.bytes);
        free(file->dirty);
        free(file);
    }
    (void)close(disk->dir_fd);
    free(disk);
}

void disk_before(struct disk *disk, disk_before_fn *before, void *context)
{
    disk->before = before;
    disk->before_context = context;
}

void disk_fail(struct disk *disk, const struct disk_fault *fault)
{
    disk->fault = *fault;
    disk->fault_calls = 0;
    disk->failed = false;
}

bool disk_failed(const struct disk *disk)
{
    return disk->failed;
}

void disk_write_back(struct disk *disk, unsigned chance)
{
    disk->write_back = chance;
}

uint64_t disk_calls(const struct disk *disk, enum io_kind kind)
{
    return disk->calls[kind];
}

void disk_pause(struct disk *disk)
{
    look_at_created(disk);
    io_watch(NULL, NULL);
}

void disk_resume(struct disk *disk)
{
    io_watch(watch, disk);
}

static int skip_syncs(void *context, const struct io_event *event)
{
    (void)context;
    return event->kind == IO_SYNC || event->kind == IO_SYNC_DIR ? IO_DONE : 0;
}

void disk_quiet(void)
{
    io_watch(skip_syncs, NULL);
}

/* ---- After a power cut ------------------------------------------------------------------------------- */

unsigned disk_pending(const struct disk *disk)
{
    unsigned pages = 0;

    for (const struct disk_file *file = disk->files; file; file = file->next) {
        for (size_t page = 0; page < file->dirty_pages; page++)
            pages += file->dirty[page];
    }
    return pages;
}

static bool is_lucky(struct disk *disk, enum disk_luck luck, uint64_t mask, unsigned index)
{
    switch (luck) {
    case DISK_NONE:
        return false;
    case DISK_ALL:
        return true;
    case DISK_MASK:
        return index < 64 && (mask >> index & 1);
    case DISK_PREFIX:
    case DISK_ANY:
        break;
    }
    return test_random_below(&disk->random, 2);
}

/* A copy of what is stored, with those of the other pages that were lucky. *index counts pages. */
static struct image cut_file(struct disk *disk, const struct disk_file *file,
                             const struct disk_cut *cut, unsigned *index)
{
    struct image image = {.length = 0};

    put_bytes(&image, file->stored.bytes, file->stored.length, 0);
    if (is_lucky(disk, cut->pages == DISK_MASK ? DISK_ALL : cut->pages, 0, 0))
        set_length(&image, max_u64(image.length, file->cached.length));
    for (size_t page = 0; page < file->dirty_pages; page++) {
        if (file->dirty[page] && is_lucky(disk, cut->pages, cut->mask, (*index)++))
            store_page(disk, &image, file, page, cut->unit ? cut->unit : DISK_PAGE);
    }
    return image;
}

static void cut_names(struct disk *disk, const struct disk_cut *cut, struct disk_name *names)
{
    unsigned prefix = (unsigned)test_random_below(&disk->random, disk->change_count + 1);

    memcpy(names, disk->stored, sizeof(disk->stored));
    for (unsigned i = 0; i < disk->change_count; i++) {
        bool lucky =
            cut->names == DISK_PREFIX ? i < prefix : is_lucky(disk, cut->names, UINT64_MAX, i);

        if (lucky)
            apply_change(names, &disk->changes[i]);
    }
}

void disk_after_cut(struct disk *disk, const struct disk_cut *cut, const char *dir)
{
    static struct disk_name names[NAMES_MAX];
    unsigned index = 0;

    disk_pause(disk);
    cut_names(disk, cut, names);
    bench_make_dir(dir);
    bench_clear_dir(dir);
    for (const struct disk_file *file = disk->files; file; file = file->next) {
        struct image image = cut_file(disk, file, cut, &index);

        for (unsigned i = 0; i < NAMES_MAX; i++) {
            struct bench_file made = {.bytes = image.bytes, .length = image.length};

            if (!names[i].name[0] || names[i].file != file)
                continue;
            REQUIRE(strlen(names[i].name) < sizeof(made.name));
            memcpy(made.name, names[i].name, strlen(names[i].name) + 1);
            bench_store_file(dir, &made);
        }
        free(image.bytes);
    }
    disk_resume(disk);
}
