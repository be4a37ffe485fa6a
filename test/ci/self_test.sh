#!/usr/bin/env bash
# A supervisor, a topic, a thousand lines in and out: the smallest proof that two builds understand each other
# (shmqd of glibc, shmq of musl).
#
#   test/ci/self_test.sh SHMQD SHMQ
set -euo pipefail

SHMQD=$1 SHMQ=$2
if [ ! -x "$SHMQD" ] || [ ! -x "$SHMQ" ]; then
    echo "self-test: $SHMQD or $SHMQ is not in this tree; left out"
    exit 0
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/shmq-self.XXXXXX")
export SHMQ_BUS=self-$$ SHMQ_RUNTIME_DIR=$work/run SHMQ_STATE_DIR=$work/state
mkdir -m 700 "$work/run" "$work/state"
supervisor=
trap '[ -z "$supervisor" ] || kill -9 "$supervisor" 2>/dev/null; rm -rf -- "$work"' EXIT

"$SHMQD" --ephemeral 2>"$work/log" &
supervisor=$!
for _ in $(seq 100); do
    "$SHMQ" topic list >/dev/null 2>&1 && break
    kill -0 "$supervisor" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
    sleep 0.1
done
"$SHMQ" topic create self -p 2
seq 1000 | sed 's/$/ message/' >"$work/in"
"$SHMQ" pub self -l <"$work/in"
"$SHMQ" sub self --from earliest -n 1000 -t 20s >"$work/out"
cmp <(sort "$work/in") <(sort "$work/out")
kill "$supervisor"
wait "$supervisor"
supervisor=
echo "self-test: 1000 messages through $SHMQD and $SHMQ"
