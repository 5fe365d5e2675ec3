#!/bin/sh
# usage: kernels.sh TEST_OPS
# Every MATMUL kernel in the table for GPUs, whatever the rule would choose: option kernel= takes the candidates one by one.
# `make test` has them compiled without optimisation, `make soak` with it (tests/CMakeLists.txt). A compiler of a driver for
# CPUs takes its time and one thread, so every core does some.
# Exit status 77: skipped, there is no OpenCL device (a failure where HETERO_REQUIRE names opencl: TEST_OPS fails then).
set -u
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# 21: the most candidates that any number of tokens has (fast precision, one token); a larger number begins again at the first.
seq 0 20 | xargs -P "$(nproc)" -I K sh -c \
    '"$1" --small opencl:0:variant=simt:int8=on:kernel=K >"$2/K" 2>&1 || echo "kernel K failed" >>"$2/failed"' - "$1" "$folder"
if grep -q '^skipped' "$folder/0"; then
    grep '^skipped' "$folder/0"
    exit 77
fi
[ ! -e "$folder/failed" ] && exit 0
cat "$folder/failed"
grep -h -v '^\[ ' "$folder"/[0-9]* | head -n 40
exit 1
