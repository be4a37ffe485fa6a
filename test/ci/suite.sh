# shellcheck shell=bash
# For suites that are scripts: `suite NAME`, then `check TEST COMMAND...` for each test, `skip_test TEST WHY`,
# and `end_suite` last. Prints the lines that run_checks.sh counts.

suite() {
    SUITE=$1 FAILED=0
    WORK=$(mktemp -d "${TMPDIR:-/tmp}/shmq-$1.XXXXXX")
    trap 'rm -rf -- "$WORK"' EXIT
}

check() {
    local test=$1 output
    shift
    if output=$("$@" 2>&1); then
        echo "ok $SUITE.$test"
    else
        FAILED=1
        echo "not ok $SUITE.$test"
        printf '%s\n' "$output" | sed 's/^/    /'
    fi
}

skip_test() {
    echo "skip $SUITE.$1: $2"
}

end_suite() {
    exit "$FAILED"
}
