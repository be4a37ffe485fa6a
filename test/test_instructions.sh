#!/usr/bin/env bash
# Instructions an operation: counts, which repeat, not times, which do not. `shmq-perf instructions` steps
# through the calls of the released objects, and profiles them with callgrind where valgrind is installed.
#
# The ceilings below are the present counts and some 5 %. Who makes an operation dearer than that either finds
# a cheaper way or raises its line, and says in the commit what was bought with it; who makes one cheaper lowers it.
# Stepped: without the kernel's own instructions (the clock in the vDSO), which differ from kernel to kernel.
set -u
cd "$(dirname "$0")/.." || exit 1
. test/ci/suite.sh
suite instructions

# operation, at most: stepped, callgrind. docs/performance.md has the aims, and where the instructions are.
CEILINGS='
publish       110 110
publish_multi 119 119
publish_batch  69  69
poll           35  35
poll_one      154 154
'

BUILD=${BUILD:-build}
PERF=$BUILD/shmq-perf

why_not() { # what makes the counts others than those of the table
    local flags compiler
    flags=$(cat "$BUILD/flags" 2>/dev/null)
    compiler=${flags%% *}
    if [ ! -x "$PERF" ]; then echo "shmq-perf is not built"
    elif [ "$(uname -m)" != x86_64 ]; then echo "the counts are x86-64's"
    elif [[ $flags == *-fsanitize=* ]]; then echo "a sanitizer adds instructions of its own"
    elif [[ $flags != *" -O2 "* ]]; then echo "the counts are those of -O2"
    elif ! "$compiler" --version 2>/dev/null | head -n 1 | grep -qE 'gcc.* 12\.'
    then echo "the counts are those of gcc 12, not of $compiler"
    fi
}

field() { # OPERATION COLUMN: of what was counted
    awk -v name="$1" -v column="$2" '$1 == name { print $column }' "$WORK/counts"
}

at_most() { # OPERATION COUNT CEILING
    awk -v count="$2" -v most="$3" 'BEGIN { exit !(count > 0 && count <= most) }' ||
        { echo "$1: $2 instructions a message, at most $3 are wanted; see the head of $0"; return 1; }
}

every_operation_is_counted() {
    local name
    timeout 140 "$PERF" instructions >"$WORK/counts" 2>"$WORK/errors" || { cat "$WORK/errors"; return 1; }
    while read -r name _; do
        [ -z "$name" ] || [ -n "$(field "$name" 4)" ] || { echo "no line for $name"; return 1; }
    done <<<"$CEILINGS"
}

reason=$(why_not)
if [ -n "$reason" ]; then
    skip_test counts "$reason"
    end_suite
fi
check every_operation_is_counted every_operation_is_counted
while read -r name stepped profiled; do
    [ -n "$(field "${name:--}" 4)" ] || continue
    all=$(field "$name" 2) vdso=$(field "$name" 3) callgrind=$(field "$name" 4)
    echo "# instructions.$name: $all a message, of these $vdso in the vDSO; callgrind $callgrind"
    if [ "$all" = - ]; then
        skip_test "${name}_stepped" "traps are not to be had here"
    else
        own=$(awk -v all="$all" -v vdso="$vdso" 'BEGIN { print all - vdso }')
        check "${name}_stepped" at_most "$name" "$own" "$stepped"
    fi
    if [ "$callgrind" = - ]; then
        skip_test "${name}_callgrind" "$(tail -n 1 "$WORK/errors")"
    else
        check "${name}_callgrind" at_most "$name" "$callgrind" "$profiled"
    fi
done <<<"$CEILINGS"
end_suite
