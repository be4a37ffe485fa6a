#!/usr/bin/env bash
# Compares the public interface with what is recorded in test/abi: exported symbols with their versions,
# numbers of the enumerators, sizes of the structs. What shipped does not change; what is new is recorded
# with --update (`make abi-update`) in the same commit that adds it.
#
#   BUILD=build test/ci/abi.sh [--update]
set -euo pipefail
cd "$(dirname "$0")/../.."

BUILD=${BUILD:-build} CC=${CC:-gcc}
work=$(mktemp -d "${TMPDIR:-/tmp}/shmq-abi.XXXXXX")
trap 'rm -rf -- "$work"' EXIT
headers=()
for header in libshmq/shmq_errors.h libshmq/shmq.h daemon/shmqd.h; do
    [ ! -e "$header" ] || headers+=("$header")
done

list_symbols() {
    nm -D --defined-only --with-symbol-versions "$BUILD/libshmq.so.0" |
        awk '$2 != "A" { print "libshmq.so " $3 }'
    [ ! -e "$BUILD/libshmqd.a" ] || nm --defined-only --extern-only "$BUILD/libshmqd.a" |
        awk 'NF == 3 { print "libshmqd.a " $3 }'
}

# Prints a C program that prints all enumerators and struct sizes of the headers.
write_probe() {
    printf '#include <stdio.h>\n'
    printf '#include "%s"\n' "${headers[@]##*/}"
    printf 'int main(void)\n{\n'
    for header in "${headers[@]}"; do
        "$CC" -fpreprocessed -dD -E -P "$header" 2>/dev/null # comments away, nothing included
    done | awk '
        /^[ \t]*#/ { next }
        { text = text " " $0 }
        END {
            while (match(text, /(enum|struct)[ \t]+shmq_[a-z0-9_]+[ \t]*[{]/)) {
                head = substr(text, RSTART, RLENGTH)
                text = substr(text, RSTART + RLENGTH)
                split(head, word, /[ \t{]+/)
                if (word[1] == "struct") {
                    printf "    printf(\"struct %s %%zu\\n\", sizeof(struct %s));\n", word[2], word[2]
                    continue
                }
                body = substr(text, 1, index(text, "}") - 1)
                count = split(body, part, ",")
                for (i = 1; i <= count; i++)
                    if (match(part[i], /[A-Z][A-Z0-9_]+/)) {
                        name = substr(part[i], RSTART, RLENGTH)
                        printf "    printf(\"%s %%lld\\n\", (long long)%s);\n", name, name
                    }
            }
        }'
    printf '    return 0;\n}\n'
}

list_symbols | LC_ALL=C sort >"$work/symbols"
write_probe >"$work/probe.c"
"$CC" -Ilibshmq -Idaemon -o "$work/probe" "$work/probe.c"
"$work/probe" | LC_ALL=C sort >"$work/numbers"
[ -s "$work/numbers" ] || { echo "shmq: abi: nothing found in the headers; mend $0" >&2; exit 1; }

if [ "${1:-}" = --update ]; then
    mkdir -p test/abi
    cp "$work/symbols" "$work/numbers" test/abi/
    echo "recorded in test/abi: $(wc -l <test/abi/symbols) symbols, $(wc -l <test/abi/numbers) numbers"
    exit 0
fi
failed=0
for list in symbols numbers; do
    if [ ! -e "test/abi/$list" ]; then
        echo "test/abi/$list does not exist; record it with 'make abi-update'"
        failed=1
    elif ! diff -u --label "test/abi/$list" --label "now" "test/abi/$list" "$work/$list"; then
        failed=1
    fi
done
if [ "$failed" = 1 ]; then
    echo "The public interface differs. A line that is gone or changed breaks programs: bring it back." >&2
    echo "If there are only new lines, record them with 'make abi-update'." >&2
    exit 1
fi
echo "abi: $(wc -l <"$work/symbols") symbols and $(wc -l <"$work/numbers") numbers as recorded"
