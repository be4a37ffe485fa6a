#!/usr/bin/env bash
# What is installed is complete: a program builds against it with pkg-config alone, shared and static; only
# public names are exported; uninstall leaves nothing.
set -u
cd "$(dirname "$0")/.." || exit 1
. test/ci/suite.sh
suite install

CC=${CC:-gcc} BUILD=${BUILD:-build}
ROOT=$WORK/root PREFIX=/opt/shmq
export PKG_CONFIG_PATH=$ROOT$PREFIX/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$ROOT

run_make() { # without what the make above handed down
    env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS make --no-print-directory BUILD="$BUILD" \
        PREFIX="$PREFIX" DESTDIR="$ROOT" "$@"
}

write_program() {
    cat >"$WORK/program.c" <<'PROGRAM'
#include <shmq.h>
#include <stdio.h>
int main(void)
{
    return puts(shmq_strerror(SHMQ_EFULL)) < 0;
}
PROGRAM
}

builds_shared() {
    write_program
    # shellcheck disable=SC2046
    "$CC" -o "$WORK/shared" "$WORK/program.c" $(pkg-config --cflags --libs shmq) &&
        LD_LIBRARY_PATH=$ROOT$PREFIX/lib "$WORK/shared" &&
        readelf -d "$WORK/shared" | grep -q 'libshmq.so.0'
}

builds_static() {
    write_program
    # shellcheck disable=SC2046
    "$CC" -o "$WORK/static" "$WORK/program.c" $(pkg-config --cflags shmq) \
        "$ROOT$PREFIX/lib/libshmq.a" -pthread && "$WORK/static"
}

# One program with library and supervisor: their common internals must not clash.
builds_with_supervisor() {
    cat >"$WORK/both.c" <<'PROGRAM'
#include <shmq.h>
#include <shmqd.h>
int main(int argc, char **argv)
{
    (void)argv;
    return argc > 1 ? shmq_supervisor_start(0, 0, 0, 0) : shmq_strerror(0) == 0;
}
PROGRAM
    # shellcheck disable=SC2046
    "$CC" -o "$WORK/both" "$WORK/both.c" $(pkg-config --cflags shmq) \
        "$ROOT$PREFIX/lib/libshmq.a" $(pkg-config --libs shmqd) && "$WORK/both"
}

exports_public_names_only() {
    local names
    names=$(nm -D --defined-only "$ROOT$PREFIX/lib/libshmq.so" | awk '$2 ~ /[TDBRVW]/ { print $3 }' |
        grep -v '^shmq_')
    names+=$(nm --defined-only --extern-only "$ROOT$PREFIX"/lib/libshmq*.a |
        awk 'NF == 3 && $3 !~ /^shmq_/ { print $3 }')
    [ -z "$names" ] || { echo "not public, yet exported: $names"; return 1; }
}

programs_say_their_version() {
    local program version
    version=$(PKG_CONFIG_SYSROOT_DIR='' pkg-config --modversion shmq)
    for program in "$ROOT$PREFIX"/bin/*; do
        "$program" --version | grep -qF "$version" || { echo "$program --version"; return 1; }
    done
}

no_place_left_to_fill_in() {
    ! grep -rlE '@[A-Z]+@' "$ROOT$PREFIX"/lib/pkgconfig "$ROOT$PREFIX"/lib/systemd 2>/dev/null
}

uninstall_leaves_nothing() {
    local left
    run_make uninstall >/dev/null || return 1
    left=$(find "$ROOT" ! -type d)
    [ -z "$left" ] || { echo "$left"; return 1; }
}

check make_install_succeeds run_make install
if [ -e libshmq/shmq.h ] && grep -q shmq_strerror libshmq/*.c; then
    check a_program_builds_and_runs_shared builds_shared
    check a_program_builds_and_runs_static builds_static
    if grep -q shmq_supervisor_start daemon/*.c 2>/dev/null; then
        check a_program_links_library_and_supervisor builds_with_supervisor
    fi
fi
check only_public_names_are_exported exports_public_names_only
if compgen -G "$ROOT$PREFIX/bin/*" >/dev/null; then
    check installed_programs_say_their_version programs_say_their_version
fi
check places_are_filled_in no_place_left_to_fill_in
check uninstall_leaves_no_file uninstall_leaves_nothing
end_suite
