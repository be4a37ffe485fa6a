#!/usr/bin/env bash
# Runs test suites and counts their tests.
#
#   BUILD=build test/ci/run_checks.sh SUITE...        binaries, or scripts that end in .sh
#
# A suite prints `ok SUITE.TEST`, `not ok SUITE.TEST` or `skip SUITE.TEST` for each test, at the start of a
# line. One that dies, hangs, or ends badly without naming a failed test counts as one failed; one that
# exits 77 without a word as one skipped; one that ran nothing as failed: silence is no success.
#
# Environment: JOBS (2) suites at once; TIMEOUT (150) seconds a suite, times TEST_TIMEOUT_FACTOR;
# RUNNER="qemu-aarch64 -L DIR" before each binary; SERIAL names suites that must run alone (those of
# test/crash always do: they bind to a core and measure progress in seconds).
#
# The last line is `N passed, N failed, N skipped`; exit status 0 only if some passed and none failed.
set -uo pipefail

BUILD=${BUILD:-build}
JOBS=${JOBS:-2}
TIMEOUT=$((${TIMEOUT:-150} * ${TEST_TIMEOUT_FACTOR:-1}))
read -r -a RUNNER <<<"${RUNNER:-}"
case ${CC:-} in "" | *musl* | *aarch64*) export CC=gcc ;; esac
export BUILD CC CXX=${CXX:-g++}
bin=$(cd "$BUILD/test/bin" 2>/dev/null && pwd) && export PATH="$bin:$PATH"

logs=$(mktemp -d "${TMPDIR:-/tmp}/shmq-check.XXXXXX")
trap 'rm -rf -- "$logs"' EXIT
# timeout puts a suite into a group of its own, which the terminal's ^C does not reach.
stop_all() {
    local pids
    touch "$logs/stopped"
    mapfile -t pids <"$logs/pids"
    kill -TERM "${pids[@]}" 2>/dev/null
    wait
    exit 130
}
touch "$logs/pids"
trap stop_all INT TERM

suite_name() {
    local name=${1##*/}
    echo "${name%.sh}"
}

run_suite() { # FILE
    local name command status start=$SECONDS
    name=$(suite_name "$1")
    if [[ $1 == *.sh ]]; then command=(bash "$1"); else command=("${RUNNER[@]}" "$1"); fi
    timeout --kill-after=10 "$TIMEOUT" "${command[@]}" >"$logs/$name.log" 2>&1 </dev/null &
    echo $! >>"$logs/pids"
    wait $! 2>/dev/null
    status=$?
    [ ! -e "$logs/stopped" ] || exit 130
    report "$name" "$status" $((SECONDS - start))
}

count() { # PATTERN FILE
    grep -cE "^$1 " "$2" || true
}

report() { # NAME STATUS SECONDS: one line a suite, and the whole log of one that failed
    local log=$logs/$1.log passed failed skipped notes why=""
    passed=$(count ok "$log") failed=$(count 'not ok' "$log") skipped=$(count skip "$log")
    if [ "$failed" = 0 ]; then
        case $2 in
        0) [ $((passed + skipped)) -gt 0 ] || why="ran no test" ;;
        77) [ $((passed + skipped)) -gt 0 ] || skipped=1 ;;
        124 | 137) why="killed after $TIMEOUT s" ;;
        *) why="ended with status $2" ;;
        esac
        [ -z "$why" ] || failed=1
    fi
    echo "$passed $failed $skipped" >"$logs/$1.count"
    # One printf a suite, so that the lines of two do not mix.
    if [ "$failed" = 0 ]; then
        notes=$(grep -E '^(# [A-Za-z0-9_]+\.|skip )' "$log" | sed 's/^/          /')
        printf '  ok    %-28s %3d passed%s  %d s%s\n' "$1" "$passed" \
            "$([ "$skipped" = 0 ] || echo ", $skipped skipped")" "$3" "${notes:+$'\n'$notes}"
    else
        printf '  FAIL  %-28s %3d passed, %d failed%s  %d s\n%s\n' "$1" "$passed" "$failed" \
            "${why:+ ($why)}" "$3" "$( (head -n 3 "$log"; tail -n +4 "$log" | tail -n 200) | sed 's/^/    | /')"
    fi
}

parallel=() serial=()
for suite in "$@"; do
    if [[ $suite == */crash/* || $suite == */stress/* || " ${SERIAL:-} " == *" $(suite_name "$suite") "* ]]
    then serial+=("$suite"); else parallel+=("$suite"); fi
done

running=0
for suite in "${parallel[@]}"; do
    if [ "$running" -ge "$JOBS" ]; then
        wait -n
        running=$((running - 1))
    fi
    run_suite "$suite" &
    running=$((running + 1))
done
wait
for suite in "${serial[@]}"; do
    run_suite "$suite"
done

passed=0 failed=0 skipped=0
for suite in "$@"; do
    if read -r p f s 2>/dev/null <"$logs/$(suite_name "$suite").count"; then
        passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    else
        failed=$((failed + 1))
    fi
done
if [ "$failed" -gt 0 ]; then
    echo "Failed:"
    for suite in "$@"; do
        name=$(suite_name "$suite")
        read -r _ f _ 2>/dev/null <"$logs/$name.count" || f=1
        [ "$f" = 0 ] || { grep -hE '^not ok ' "$logs/$name.log" 2>/dev/null || echo "not ok $name"; }
    done | sed 's/^/  /'
fi
[ $((passed + failed)) -gt 0 ] || echo "no test ran"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
