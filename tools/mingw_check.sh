#!/bin/sh
# usage: mingw_check.sh [COMPILER]
# Compiles (does not link) all of src and cli for Windows, so that what differs by system stays in src/base/os_*. Needs the
# package gcc-mingw-w64-x86-64-posix and the headers of PCRE2, utf8proc and Jansson, which are the same on every system;
# OpenCL's, if they are there.
set -eu
cd "$(dirname "$0")/.."
compiler=${1-x86_64-w64-mingw32-gcc-posix}
command -v "$compiler" >/dev/null || {
    echo "mingw_check: no $compiler (apt-get install gcc-mingw-w64-x86-64-posix)"
    exit 77
}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# Only these headers: the system's own would shadow mingw's.
for header in pcre2.h utf8proc.h jansson.h jansson_config.h CL; do
    for folder in /usr/include "/usr/include/$(uname -m)-linux-gnu" /usr/local/include; do
        [ ! -e "$folder/$header" ] || { ln -sf "$folder/$header" "$scratch/$header" && break; }
    done
done
opencl=
[ ! -e "$scratch/CL" ] || opencl=-DHETERO_HAVE_OPENCL_HEADERS=1
mkdir "$scratch/generated"
echo '#define HETERO_COMMIT "unknown"' >"$scratch/generated/hetero_commit.h"

# What would only be a warning in C17 must not be: a function that the system does not have.
cat >"$scratch/one.sh" <<'ONE'
file=$1
shift
case $file in
*/isa_avx2.c) set -- "$@" -mavx2 -mfma -mf16c -mbmi2 ;;
*/isa_avx512.c) set -- "$@" -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx2 -mfma -mf16c -mbmi2 ;;
esac
"$@" "$file" || { echo "mingw_check: $file does not compile for Windows" >&2; exit 1; }
ONE
find src cli -name '*.c' ! -name 'os_posix*.c' | sort >"$scratch/files"
# shellcheck disable=SC2086 # one word or none
if xargs -P "$(nproc)" -I FILE sh "$scratch/one.sh" FILE "$compiler" -std=gnu17 -fsyntax-only -Wall -Wextra -Wshadow -Wundef \
    -Wstrict-prototypes -Wmissing-prototypes -Wno-unused-parameter -Wno-psabi -Werror -D__USE_MINGW_ANSI_STDIO=1 $opencl \
    -DHETERO_FLAGS='""' -Iinclude -Isrc -I"$scratch/generated" -isystem "$scratch" <"$scratch/files"; then
    echo "$(wc -l <"$scratch/files") files compile for Windows"
else
    exit 1
fi
