#!/usr/bin/env bash
# Every header compiles alone: the installed ones as C and as C++, under strict warnings, twice in one
# file; the internal ones as C.
set -u
cd "$(dirname "$0")/.." || exit 1
. test/ci/suite.sh
suite headers

CC=${CC:-gcc} CXX=${CXX:-g++}
STRICT=(-fsyntax-only -Wall -Wextra -Wpedantic -Wundef -Werror)

as_c() { # STANDARD HEADER
    printf '#include "%s"\n#include "%s"\nint main(void);\n' "${2##*/}" "${2##*/}" |
        "$CC" "${STRICT[@]}" -Wshadow "-std=$1" -Ilibshmq -Idaemon -x c -
}

as_cxx() {
    printf '#include "%s"\n#include "%s"\nint main();\n' "${2##*/}" "${2##*/}" |
        "$CXX" "${STRICT[@]}" "-std=$1" -Ilibshmq -Idaemon -x c++ -
}

internal_alone() { # FOLDER
    local header failed=0
    for header in "$1"/*.h; do
        [ -e "$header" ] || continue
        "$CC" -fsyntax-only -std=c17 -D_GNU_SOURCE -I. -iquote libshmq -Wall -Wextra -Werror \
            -Wno-unused-function -DSHMQ_VERSION_TEXT='""' -x c "$header" || failed=1
    done
    return "$failed"
}

for header in libshmq/shmq_errors.h libshmq/shmq.h daemon/shmqd.h; do
    [ -e "$header" ] || continue
    name=$(basename "$header" .h)
    check "${name}_compiles_alone_as_c99" as_c c99 "$header"
    check "${name}_compiles_alone_as_c17" as_c c17 "$header"
    if command -v "$CXX" >/dev/null; then
        check "${name}_compiles_alone_as_cxx11" as_cxx c++11 "$header"
        check "${name}_compiles_alone_as_cxx20" as_cxx c++20 "$header"
    else
        skip_test "${name}_compiles_alone_as_cxx11" "no C++ compiler ($CXX) here"
    fi
done
for folder in libshmq daemon tools test/support; do
    compgen -G "$folder/*.h" >/dev/null && check "internal_headers_of_${folder//\//_}_compile_alone" \
        internal_alone "$folder"
done
end_suite
