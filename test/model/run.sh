#!/bin/sh
# Checks every Spin model of this directory: run.sh [small|full]
#
# Each line of the table below is one run: tier, model, what must come of it, switches. `pass` means that the whole state
# space was searched and nothing was found: a run that hits the bound on memory, depth or time has not passed. `fail` is a
# negative run: a step of the protocol is taken out, and the model must find the hole (an assertion, or an end in which
# somebody waits for ever). `small` runs the lines marked s (about 4 minutes on two cores), `full` all of them.
# Needs spin and a C compiler; MODEL_JOBS runs at a time (2), MODEL_MEM MiB each (3900), MODEL_ONLY=word to run some.
# Prints `ok model switches states seconds` or `not ok …` per run, then `N passed, N failed`. What each switch means and
# shows: README.md and the models' heads.
set -u

here=$(cd "$(dirname "$0")" && pwd)
MODEL_MEM=${MODEL_MEM:-3900}
MODEL_TIMEOUT=${MODEL_TIMEOUT:-3600}

table() {
    sed -e '/^ *#/d' -e '/^ *$/d' <<'END'
# ---- claim, commit, resolve: a gating reader
s claim  pass -DNCL=1 -DBATCH
s claim  pass -DNCL=2 -DNCLX=1
s claim  pass -DNCL=2 -DNCLX=1 -DCAP=3 -DGIVEUP
s claim  pass -DNCL=1 -DREUSE
f claim  pass -DNCL=2 -DNCLX=1 -DBATCH
f claim  pass -DNCL=1 -DREUSE -DREUSE_ALL -DMAXL=1 -DCAP=2
f claim  pass -DNCL=1 -DREUSE -DBATCH
f claim  pass -DNP=3 -DNCL=1 -DMAXL=1 -DCAP=2
s claim  fail -DNCL=2 -DNCLX=1 -DBATCH -DNO_RECHECK
s claim  fail -DNCL=2 -DNCLX=1 -DBATCH -DNO_LAPCHECK
s claim  fail -DNCL=2 -DNCLX=1 -DBATCH -DNO_OWNER
s claim  fail -DNCL=2 -DNCLX=1 -DBATCH -DNO_REREAD
s claim  fail -DNCL=2 -DNCLX=1 -DBATCH -DNO_ZERO
s claim  fail -DNCL=2 -DNCLX=1 -DBATCH -DFIRST_STAMP_FIRST
s claim  fail -DNCL=2 -DNCLX=1 -DBATCH -DTAIL_LATE
s claim  fail -DNCL=2 -DNCLX=1 -DBATCH -DSTAMPS_FIRST
s claim  fail -DNCL=2 -DNCLX=1 -DBATCH -DCLEARFIRST
s claim  fail -DNCL=2 -DNCLX=1 -DBATCH -DEND_LATE
s claim  fail -DNCL=2 -DNCLX=1 -DCAP=3 -DNO_CLEARWAIT
s claim  fail -DNCL=1 -DREUSE -DREUSE_BLIND
s claim  fail -DNCL=2 -DNCLX=1 -DREUSE -DNO_BYTE
# ---- nobody gates
s claim  pass -DFREE -DCAP=2 -DNCL=2 -DNCLX=1
s claim  pass -DFREE -DCAP=2 -DNCL=2 -DNCLX=1 -DGIVEUP
s claim  pass -DFREE -DCAP=2 -DNCL=1 -DREUSE
f claim  pass -DFREE -DCAP=2 -DNCL=2 -DNCLX=1 -DREUSE
f claim  pass -DFREE -DCAP=3 -DNCL=2 -DNCLX=1 -DBATCH
f claim  pass -DFREE -DCAP=2 -DNP=3 -DNCL=1 -DMAXL=1
s claim  fail -DFREE -DCAP=2 -DNCL=2 -DNO_RULE
s claim  fail -DFREE -DCAP=2 -DNCL=2 -DNO_STAMPTEST
s claim  fail -DFREE -DCAP=2 -DNCL=2 -DNO_LAPTEST
s claim  fail -DFREE -DCAP=2 -DNCL=2 -DSLOTS_FIRST
# ---- a single producer and its successor
s claim  pass -DSINGLE -DNP=1 -DNCL=3 -DNRE=2 -DREUSE -DBATCH
s claim  pass -DSINGLE -DNP=1 -DNCL=3 -DNRE=2 -DREUSE -DBATCH -DFREE
s claim  fail -DSINGLE -DNP=1 -DNCL=3 -DNRE=2 -DREUSE -DBATCH -DSTALE_TAIL
s claim  fail -DSINGLE -DNP=1 -DNCL=3 -DNRE=2 -DREUSE -DBATCH -DTAIL_UNNAMED
# ---- attach
s attach pass -DFIRST
s attach pass -DFIRST -DSLACK=1 -DMAXT=5
s attach pass -DMAXT=3
f attach pass
f attach pass -DFIRST -DREATT -DMAXT=3
s attach fail -DFIRST -DNO_FENCE_G
s attach fail -DFIRST -DNO_FENCE_P -DPLAIN_HEAD
s attach fail -DFIRST -DPLAIN_HEAD
s attach fail -DFIRST -DNO_RESCAN
s attach fail -DFIRST -DRESCAN_IF_RAISED
s attach fail -DFIRST -DNO_EPOCH
s attach fail -DFIRST -DEPOCH_LATE
s attach fail -DFIRST -DEPOCH_FIRST
s attach fail -DAT_ONLY_FREE
s attach fail -DNO_AT
# ---- where a lapped or a late reader begins
s resync pass -DNCL=2 -DNCLX=1 -DCAP=3
f resync pass -DNCL=2 -DNCLX=1 -DCAP=3 -DSLOTS_FIRST
s resync pass -DJOIN -DHEAD -DNCL=2 -DNCLX=1
f resync pass -DNCL=2 -DNCLX=1 -DCAP=4
f resync pass -DJOIN -DHEAD -DNCL=2
f resync pass -DJOIN -DNCL=2
s resync fail -DNCL=2 -DNCLX=1 -DCAP=3 -DNO_SECOND_LOOK
s resync fail -DNCL=2 -DNCLX=1 -DCAP=3 -DNO_SLOTS
s resync fail -DNCL=2 -DNCLX=1 -DCAP=3 -DSLOTS_FIRST -DNO_BOUND
s resync fail -DNCL=2 -DNCLX=1 -DCAP=3 -DNO_VALIDATE
s resync fail -DNCL=2 -DNCLX=1 -DCAP=3 -DVALIDATE_FIRST
s resync fail -DNCL=2 -DNCLX=1 -DCAP=3 -DBYTES_FIRST
s resync fail -DJOIN -DHEAD -DNCL=2 -DNO_CLAIM
s resync fail -DJOIN -DHEAD -DNCL=2 -DLOWEST_OF_ALL
s resync fail -DJOIN -DHEAD -DNCL=2 -DSTAMPS_THEN_CLAIM
s resync fail -DJOIN -DHEAD -DNCL=2 -DLATER_TAIL
# ---- waiting
s wait   pass -DNS=1
s wait   pass -DNS=1 -DFENCE
s wait   pass -DMIXED
s wait   pass -DMIXED -DFENCE -DSDIE
f wait   pass -DSDIE
f wait   pass -DFENCE -DSDIE
s wait   fail -DNO_BARRIER
s wait   fail -DFENCE -DNO_BARRIER
s wait   fail -DFENCE -DNO_PFENCE
s wait   fail -DBUMP_FIRST
s wait   fail -DNO_BUMP
s wait   fail -DSEQ_LATE
s wait   fail -DNO_DEATH_WAKE
s wait   fail -DUNREGISTERED
s wait   fail -DMIXED -DCLEAR_ALL
# ---- hand-over and holds
s handover pass
s handover pass -DNM=3 -DMAXF=2
f handover pass -DNMEM=3
s handover fail -DBLIND
s handover fail -DCOMMIT_POLLED
s handover fail -DNO_FENCE
s handover fail -DTRUST_ASSIGN
s hold   pass
s hold   pass -DMAXT=5
s hold   fail -DNO_HOLD
s hold   fail -DNO_RECHECK
s hold   fail -DNO_FENCE
s hold   fail -DHOLDS_FIRST
s hold   fail -DRAISE_EARLY
# ---- from the journal into the ring
s join   pass
s join   pass -DCAP=3 -DMAXT=6
s join   pass -DCAP=3 -DMAXT=7 -DSLACK=0
s join   fail -DNO_FENCE
s join   fail -DNO_HEAD
s join   fail -DNO_CHECK
s join   fail -DHOLD_FIRST
# ---- the same with the journal, deaths and hand-overs
s history pass -DNH=0 -DMAXT=5
s history pass -DND=0 -DMAXT=3
s history pass -DND=0 -DNH=0 -DNP=2
f history pass -DMAXT=3
f history pass -DNH=0 -DNP=2
s history fail -DNH=0 -DNO_FENCE
s history fail -DNH=0 -DHEAD_FIRST
s history fail -DNH=0 -DGATES_FIRST
s history fail -DNH=0 -DCLEAR_FIRST
s history fail -DNH=0 -DREAD_ABOVE
s history fail -DNH=0 -DNO_DURABLE
s history fail -DNH=0 -DMOVE_UP
s history fail -DNH=0 -DTRUST_CURSOR
s history fail -DNH=0 -DKEEP_GATE
s history fail -DNH=0 -DCOMMIT_AHEAD
END
}

# One run, in a directory of its own: run.sh --one OUT_DIR NUMBER MODEL EXPECTED SWITCHES…
run_one() {
    out=$1/$2 model=$3 expected=$4
    shift 4
    mkdir -p "$out" && cd "$out" || exit 1
    began=$(date +%s)
    why=
    if ! spin -a "$@" "$here/$model.pml" >spin.log 2>&1; then
        why="spin: see $out/spin.log"
    elif ! ${CC:-cc} -O1 -w -DSAFETY -DCOLLAPSE -DMEMLIM="$MODEL_MEM" -o pan pan.c >cc.log 2>&1; then
        why="cc: see $out/cc.log"
    else
        timeout "$MODEL_TIMEOUT" ./pan -m1000000 >pan.log 2>&1
        status=$?
        errors=$(sed -n 's/.*errors: \([0-9]*\)$/\1/p' pan.log)
        if [ $status -eq 124 ]; then
            why="not finished after $MODEL_TIMEOUT s"
        elif grep -q -e 'reached -DMEMLIM' -e 'out of memory' pan.log; then
            why="memory bound"
        elif grep -q 'max search depth too small' pan.log; then
            why="depth bound"
        elif [ -z "$errors" ] || [ $status -ne 0 ]; then
            why="no result: see $out/pan.log"
        elif [ "$expected" = pass ] && [ "$errors" != 0 ]; then
            why="$(sed -n 's/^pan:[0-9]*: //p' pan.log | head -1); spin -t -p $model.pml in $out"
            cp "$here/$model.pml" .
        elif [ "$expected" = pass ] && grep -q 'Search not completed' pan.log; then
            why="search not completed"
        elif [ "$expected" = fail ] && ! grep -q -e 'assertion violated' -e 'invalid end state (' pan.log; then
            why="found nothing: a negative run must fail"
        fi
    fi
    states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' pan.log 2>/dev/null)
    word=ok
    [ -n "$why" ] && word="not ok"
    rm -f pan pan.b pan.c pan.h pan.m pan.p pan.t
    printf '%s %s %s: %s %s states %s s%s\n' "$word" "$model" "$expected" "${*:-(no switches)}" "${states:-?}" \
        "$(($(date +%s) - began))" "${why:+: $why}" | tee result
}

if [ "${1:-}" = --one ]; then
    shift
    run_one "$@"
    exit 0
fi

tier=${1:-small}
case $tier in
small) tiers='^s ' ;;
full) tiers='^[sf] ' ;;
*)
    echo "usage: run.sh [small|full]" >&2
    exit 2
    ;;
esac
if ! command -v spin >/dev/null; then
    echo "run.sh: spin is missing: apt-get install spin" >&2
    exit 77
fi
export MODEL_MEM MODEL_TIMEOUT
work=$(mktemp -d "${TMPDIR:-/tmp}/shmq-model.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
table | grep "$tiers" | grep -e "${MODEL_ONLY:-.}" | sed 's/^. //' | awk -v dir="$work" '{ print dir, NR, $0 }' >"$work/list"
xargs -r -P "${MODEL_JOBS:-2}" -L 1 sh "$here/run.sh" --one <"$work/list"
passed=$(cat "$work"/*/result 2>/dev/null | grep -c '^ok ')
failed=$(($(wc -l <"$work/list") - passed))
echo "$passed passed, $failed failed"
if [ $failed -ne 0 ]; then
    trap - EXIT
    echo "logs and trails: $work" >&2
    exit 1
fi
[ "$passed" -gt 0 ]
