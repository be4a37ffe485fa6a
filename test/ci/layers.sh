#!/usr/bin/env bash
# The include direction that docs/architecture.md draws, and the ORDER labels.
#
# Each file belongs to a module, its name up to the first underscore (ring_recover.c is of ring), or in
# full where the table has it; each module to a layer. A file includes its own layer and those below, and within a
# layer modules do not include each other in a circle. An `ORDER a -> b` stands at both of its ends and in
# docs/memory-model.md.
set -euo pipefail
cd "$(dirname "$0")/../.."

# Lowest first. A new module gets its place here, and in the drawing.
LAYERS='
base       libshmq/base libshmq/shmq_errors libshmq/error libshmq/clock libshmq/fault libshmq/crc32c libshmq/hash libshmq/units
bytes      libshmq/layout
memory     libshmq/topic_options libshmq/paths libshmq/record libshmq/ring libshmq/cursor libshmq/delivery libshmq/wait libshmq/liveness libshmq/member libshmq/segment libshmq/stats libshmq/journal libshmq/bus
protocol   libshmq/protocol
client     libshmq/shmq libshmq/control libshmq/connection libshmq/channel libshmq/attach libshmq/assignment libshmq/producer libshmq/consumer libshmq/admin libshmq/handles libshmq/headers
ground     daemon/io daemon/notify daemon/log daemon/config daemon/loop daemon/timer daemon/guard
resource   daemon/journal daemon/flush daemon/store daemon/match daemon/assign daemon/permission daemon/bus daemon/registry daemon/listener
control    daemon/realm daemon/client daemon/topic daemon/exchange daemon/group daemon/partition daemon/member daemon/cleanup daemon/sweep daemon/metadata daemon/command daemon/peer daemon/supervisor
program    daemon/shmqd daemon/main
tools      tools/*
test       test/*
'

mapfile -t sources < <(find libshmq daemon tools test -name '*.[ch]' | sort)
layers_failed=0
awk -v layers="$LAYERS" '
function module_of(path,    stem) {
    if (path ~ /^(tools|test)\//) { sub(/\/.*/, "/*", path); return path }
    stem = path
    sub(/\.[ch]$/, "", stem)
    if (stem in rank) return stem
    sub(/_[^\/]*$/, "", stem)
    while (!(stem in rank) && stem ~ /\/[^\/]*_/) sub(/_[^\/_]*$/, "", stem)
    return stem
}
function complain(text) { print FILENAME ":" FNR ": " text; failed = 1 }
# Depth first: a module that is met again on the way down closes a circle.
function walk(module, trail,    i, n, next_modules) {
    if (state[module] == 2) return
    if (state[module] == 1) { print "includes go in a circle: " trail module; failed = 1; return }
    state[module] = 1
    n = split(edges[module], next_modules, " ")
    for (i = 1; i <= n; i++) walk(next_modules[i], trail module " -> ")
    state[module] = 2
}
BEGIN {
    count = split(layers, line, "\n")
    for (i = 1; i <= count; i++) {
        words = split(line[i], word, /[ \t]+/)
        for (j = 2; j <= words; j++) { rank[word[j]] = i; layer[word[j]] = word[1] }
    }
}
FNR == 1 {
    from = module_of(FILENAME)
    if (!(from in rank)) complain("module " from " has no layer; give it one in test/ci/layers.sh")
}
/^#include "/ {
    split($0, quoted, "\"")
    path = quoted[2]
    if (path !~ /\//) { folder = FILENAME; sub(/[^\/]*$/, "", folder); path = folder path }
    to = module_of(path)
    if (from == to || !(from in rank)) next
    if (!(to in rank)) next # said at that file itself
    if (rank[to] > rank[from])
        complain(layer[from] " includes " path " of the layer " layer[to] " above it")
    if (from ~ /^daemon/ && layer[to] == "client")
        complain("the supervisor uses what lies below the client, never " path)
    if (from ~ /^tools/ && to ~ /^daemon/ && to != "daemon/shmqd")
        complain("tools know of daemon/ only shmqd.h")
    # The nouns and the control thread know each other (docs/architecture.md): one layer, circles and all.
    if (from ~ /^(libshmq|daemon)/ && layer[from] != "control" && index(" " edges[from] " ", " " to " ") == 0)
        edges[from] = edges[from] " " to
}
END {
    for (module in edges) walk(module, "")
    exit failed
}' "${sources[@]}" || layers_failed=1

# One label a line of output, once for each line of code that has it.
labels() {
    grep -rhoE 'ORDER [a-z0-9_-]+ -> [a-z0-9_-]+' "$@" 2>/dev/null | sort
}
orders_failed=0
while read -r times label; do
    [ "$times" -ge 2 ] || { echo "$label: stands at one end only; label the other"; orders_failed=1; }
    grep -qF "${label#ORDER }" docs/memory-model.md 2>/dev/null ||
        { echo "$label: not in docs/memory-model.md"; orders_failed=1; }
done < <(labels libshmq daemon tools | uniq -c)
while read -r label; do
    labels libshmq daemon tools | grep -qxF "$label" ||
        { echo "docs/memory-model.md: $label: not in the code"; orders_failed=1; }
done < <(labels docs/memory-model.md | uniq)

[ "$layers_failed" = 0 ] && [ "$orders_failed" = 0 ] || exit 1
echo "layers: includes go downward; $(labels libshmq daemon tools | uniq | wc -l) ORDER edges at both ends"
