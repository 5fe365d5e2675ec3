#!/bin/sh
# usage: setup.sh build|unit|test|ci|cross
# Sees to it that the Debian packages are there which building, testing or CI needs. Root gets them installed; anyone
# else is told the one command to type. Asks the network for nothing when nothing is missing.
set -eu
compile="gcc libc6-dev make cmake pkg-config libpcre2-dev libutf8proc-dev libjansson-dev libedit-dev opencl-headers
         libcurl4-openssl-dev libssl-dev"
build="$compile python3 python3-pip ca-certificates"
unit="$compile libcmocka-dev"
test="$build libcmocka-dev binutils python3-venv pocl-opencl-icd ocl-icd-libopencl1 oclgrind clang chromium"
cross="make cmake pkg-config gcc-aarch64-linux-gnu qemu-user opencl-headers libpcre2-dev:arm64 libutf8proc-dev:arm64
       libjansson-dev:arm64 libedit-dev:arm64 libcurl4-openssl-dev:arm64 libssl-dev:arm64
       libcmocka-dev:arm64"
ci="$test git clang-14 libclang-rt-14-dev llvm-14 clang-format-14 clang-tidy-14 gcc-mingw-w64-x86-64-posix"
case ${1-} in
    build) wanted=$build ;;
    unit) wanted=$unit ;;
    test) wanted=$test ;;
    ci) wanted=$ci ;;
    cross) wanted=$cross ;;
    *) sed -n '2,4s/^# //p' "$0"; exit 2 ;;
esac

if ! command -v dpkg-query >/dev/null; then
    echo "Not a Debian system: going on with what is there. On Debian these packages are used:" $wanted >&2
    exit 0
fi
missing=
for package in $wanted; do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    case $state in installed*) ;; *) missing="$missing $package" ;; esac # once for each processor that it is there for
done
[ -n "$missing" ] || exit 0
foreign= # another processor's packages, which apt-get must be told of first
case $missing in *:arm64*) dpkg --print-foreign-architectures | grep -qx arm64 || foreign=arm64 ;; esac
if [ "$(id -u)" -ne 0 ]; then
    echo "Some Debian packages are missing. Type this, then the same make command again:" >&2
    [ -z "$foreign" ] || echo "  sudo dpkg --add-architecture $foreign && sudo apt-get update" >&2
    echo "  sudo apt-get install -y$missing" >&2
    exit 1
fi
echo "Installing Debian packages:$missing"
export DEBIAN_FRONTEND=noninteractive
[ -z "$foreign" ] || dpkg --add-architecture "$foreign"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2086 # the list is words
{ apt-get update -q && apt-get install -y -q --no-install-recommends $missing; } >"$log" 2>&1 || {
    tail -n 20 "$log" >&2
    echo "apt-get could not install:$missing" >&2
    exit 1
}
