#!/usr/bin/env bash
# Format, linters and layers over the whole tree. Runs all of them, then fails if one did. What is not installed is
# left out with a word; with CI set that is a failure, too.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1

failed=()
mapfile -t sources < <(find libshmq daemon tools test -name '*.[ch]' | sort)
mapfile -t units < <(find libshmq daemon tools -name '*.c' | sort)
mapfile -t scripts < <(find test .ci -type f \( -name '*.sh' -o -path '.ci/*' \) | sort)
FLAGS=(-std=c17 -D_GNU_SOURCE -I. -iquote libshmq -DSHMQ_VERSION_TEXT='"0"')

step() { # TOOL COMMAND...
    local tool=$1 start=$SECONDS
    shift
    if ! command -v "$tool" >/dev/null && [ ! -x "$tool" ]; then
        echo "  --    $tool: not installed, left out"
        [ -z "${CI:-}" ] || failed+=("$tool")
        return
    fi
    if "$@"; then
        echo "  ok    $tool  $((SECONDS - start)) s"
    else
        echo "  FAIL  $tool"
        failed+=("$tool")
    fi
}

run_clang_tidy() {
    printf '%s\0' "${units[@]}" |
        xargs -0 -n 4 -P 2 sh -c 'clang-tidy --quiet "$@" -- '"${FLAGS[*]@Q}" sh 2>/dev/null
}

run_cppcheck() {
    cppcheck --quiet --std=c11 --enable=warning,portability --inline-suppr --error-exitcode=1 -j 2 \
        --suppress=missingIncludeSystem -D_GNU_SOURCE -D__x86_64__ -D__BYTE_ORDER__=1234 \
        -D__ORDER_LITTLE_ENDIAN__=1234 -DSHMQ_VERSION_TEXT='""' -I. -Ilibshmq "${units[@]}"
}

run_mandoc() {
    compgen -G 'docs/man/*.[1-8]' >/dev/null || return 0
    mandoc -T lint -W warning docs/man/*.[1-8]
}

step clang-format clang-format --dry-run -Werror "${sources[@]}"
step test/ci/layers.sh test/ci/layers.sh
# 2317: a suite hands its functions to `check`, which shellcheck takes for never calling them.
step shellcheck shellcheck -x -e SC2317 "${scripts[@]}"
[ ${#units[@]} = 0 ] || step cppcheck run_cppcheck
[ ${#units[@]} = 0 ] || step clang-tidy run_clang_tidy
command -v mandoc >/dev/null && step mandoc run_mandoc
[ ${#failed[@]} = 0 ] || { echo "tidy: ${failed[*]}"; exit 1; }
