#!/bin/sh
# usage: kernels.sh TEST_OPS
# Every MATMUL kernel in the table for GPUs, whatever the rule would choose: option kernel= takes the candidates one by one.
# Exit status 77: skipped, there is no OpenCL device.
set -u
test_ops=$1
failed=0 kernel=0
# The most candidates that any number of tokens has (fast precision, one token); a larger number begins again at the first.
while [ $kernel -lt 21 ]; do
    output=$("$test_ops" --small "opencl:0:variant=simt:int8=on:kernel=$kernel" 2>&1)
    status=$?
    case $output in *skipped*) echo "$output" | grep skipped; exit 77 ;; esac
    if [ $status -ne 0 ]; then
        echo "kernel $kernel:"
        echo "$output" | head -n 30
        failed=1
    fi
    kernel=$((kernel + 1))
done
exit $failed
