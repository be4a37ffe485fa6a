#!/usr/bin/env bash
# Installs what a target needs and this machine lacks, and says so first. Does nothing, at once, where
# all is there.
#
#   test/ci/deps.sh build|check|tidy|fuzz|model|arm64|musl|ci
#
# Exit status 0: all is there. 1: something is missing and could not be installed; its packages are named.
# What is only wanted is installed where that is possible, and done without where it is not.
set -euo pipefail

# One line each: what shows that it is there, and the Debian package that brings it.
#   cmd:NAME on PATH; pc:NAME known to pkg-config; hdr:FILE under /usr/include (or its multiarch folder)
BUILD=(
    "cmd:gcc gcc" "cmd:make make" "cmd:pkg-config pkg-config" "hdr:stdio.h libc6-dev"
    "hdr:linux/futex.h linux-libc-dev" "hdr:urcu.h liburcu-dev" "hdr:ini.h libinih-dev"
)
# make ZMQ=yes NNG=yes: peers that shmq-perf measures.
[ "${ZMQ:-}" != yes ] || BUILD+=("hdr:zmq.h libzmq3-dev")
[ "${NNG:-}" != yes ] || BUILD+=("hdr:nng/nng.h libnng-dev")
CHECK=("${BUILD[@]}" "hdr:CUnit/CUnit.h libcunit1-dev" "cmd:g++ g++")
# Callgrind counts instructions, x86-64 ones; without it those tests are skipped, and say so.
WANTED_BY_CHECK=()
[ "$(uname -m)" != x86_64 ] || WANTED_BY_CHECK=("cmd:valgrind valgrind")
# Power is cut from file systems of the tests' own, where they may be mounted; elsewhere those tests are skipped as well.
[ "$(id -u)" != 0 ] || [ ! -e /dev/loop-control ] ||
    WANTED_BY_CHECK+=("file:/usr/sbin/mkfs.ext4 e2fsprogs" "file:/usr/sbin/mkfs.xfs xfsprogs")
TIDY=(
    "${BUILD[@]}" "hdr:CUnit/CUnit.h libcunit1-dev" "cmd:clang-format clang-format"
    "cmd:clang-tidy clang-tidy" "cmd:cppcheck cppcheck" "cmd:shellcheck shellcheck"
)
FUZZ=("${CHECK[@]}" "cmd:clang clang" "rt:fuzzer libclang-rt-14-dev")
MODEL=("cmd:spin spin" "cmd:gcc gcc" "hdr:stdio.h libc6-dev")
ARM64=(
    "cmd:make make" "cmd:gcc gcc" "cmd:aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu"
    "file:/usr/aarch64-linux-gnu/include/stdio.h libc6-dev-arm64-cross"
    "cmd:qemu-aarch64 qemu-user"
)
MUSL=("${BUILD[@]}" "cmd:musl-gcc musl-tools")
MAN=("cmd:mandoc mandoc")

present() {
    local kind=${1%%:*} name=${1#*:} triplet
    case $kind in
    cmd) command -v "$name" >/dev/null ;;
    file) [ -e "$name" ] ;;
    rt) compgen -G "/usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.$name-*.a" >/dev/null ;;
    hdr)
        [ -e "/usr/include/$name" ] || [ -e "/usr/local/include/$name" ] && return 0
        triplet=$(gcc -print-multiarch 2>/dev/null) || return 1
        [ -e "/usr/include/$triplet/$name" ]
        ;;
    esac
}

wanted=()
case ${1:-} in
build) needs=("${BUILD[@]}") ;;
check) needs=("${CHECK[@]}") wanted=("${WANTED_BY_CHECK[@]}") ;;
tidy) needs=("${TIDY[@]}") ;;
fuzz) needs=("${FUZZ[@]}") ;;
model) needs=("${MODEL[@]}") ;;
arm64) needs=("${ARM64[@]}") ;;
musl) needs=("${MUSL[@]}") ;;
ci)
    needs=("${CHECK[@]}" "${TIDY[@]}" "${FUZZ[@]}" "${MODEL[@]}" "${ARM64[@]}" "${MUSL[@]}" "${MAN[@]}")
    wanted=("${WANTED_BY_CHECK[@]}")
    ;;
*)
    echo "usage: $0 build|check|tidy|fuzz|model|arm64|musl|ci" >&2
    exit 2
    ;;
esac

missing=()
for need in "${needs[@]}"; do
    present "${need% *}" || [[ " ${missing[*]} " == *" ${need#* } "* ]] || missing+=("${need#* }")
done
needed=${#missing[@]}
for want in "${wanted[@]}"; do
    present "${want% *}" || missing+=("${want#* }")
done
[ ${#missing[@]} -gt 0 ] || exit 0

give_up() {
    if [ "$needed" = 0 ]; then
        echo "shmq: $1; going on without ${missing[*]}" >&2
        exit 0
    fi
    echo "shmq: $1; install these packages (Debian's names) by hand and try again: ${missing[*]}" >&2
    exit 1
}

command -v apt-get >/dev/null || give_up "packages are missing and there is no apt-get here"
as_root=()
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || give_up "packages are missing, and without root or sudo none can be installed"
    as_root=(sudo)
    # Without a terminal sudo could only fail, or wait for a password that nobody types; and nobody is asked
    # for one at every run for the sake of what can be done without.
    [ -t 0 ] && [ "$needed" -gt 0 ] || as_root=(sudo -n)
fi

echo "This needs packages that are not installed. Installing now, with ${as_root[*]:+${as_root[*]} }apt-get:"
echo "    ${missing[*]}"
install() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q --no-install-recommends "${missing[@]}"
}
drop_wanted() { # apt-get installs all or nothing
    [ "$needed" -gt 0 ] && [ "$needed" -lt ${#missing[@]} ] && missing=("${missing[@]:0:$needed}")
}
# A machine that is fresh has no package lists yet, or old ones.
install || { "${as_root[@]}" apt-get update -q && install; } || { drop_wanted && install; } ||
    give_up "apt-get could not install what is missing"
