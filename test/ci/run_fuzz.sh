#!/usr/bin/env bash
# Runs each fuzzer for FUZZ_SECONDS from its seeds in test/fuzz/seeds/NAME. What it learns is kept in
# BUILD/corpus/NAME; an input that breaks something is left in BUILD/crashes and named.
#
#   BUILD=build/fuzz FUZZ_SECONDS=60 test/ci/run_fuzz.sh FUZZER...
set -uo pipefail

failed=0 passed=0
mkdir -p "$BUILD/crashes"
for fuzzer in "$@"; do
    name=${fuzzer##*/}
    seeds=test/fuzz/seeds/$name
    corpus=$BUILD/corpus/$name
    log=$BUILD/crashes/$name.log
    mkdir -p "$corpus"
    if ! compgen -G "$seeds/*" >/dev/null; then
        echo "not ok fuzz.$name: no seeds in $seeds"
        failed=$((failed + 1))
        continue
    fi
    # The bound on length keeps the speed up; no format here has a fixed part near it.
    if "$fuzzer" -max_total_time="${FUZZ_SECONDS:-60}" -max_len=65536 -timeout=10 -rss_limit_mb=1024 \
        -print_final_stats=1 -artifact_prefix="$BUILD/crashes/$name-" "$corpus" "$seeds" \
        >"$log" 2>&1; then
        passed=$((passed + 1))
        echo "ok fuzz.$name  $(awk '/number_of_executed_units/ { print $2 " inputs" }' "$log")," \
            "$(grep -oE 'cov: [0-9]+' "$log" | tail -n 1)"
    else
        failed=$((failed + 1))
        tail -n 60 "$log"
        echo "not ok fuzz.$name: the input is $BUILD/crashes/$name-*; run $fuzzer FILE"
    fi
done
[ $# -gt 0 ] || echo "no fuzzer in test/fuzz"
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
