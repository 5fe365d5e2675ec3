#!/bin/sh
# usage: oclgrind.sh TEST_OPS VARIANT...
# Small shapes of the operators on oclgrind's device, which checks every access to memory: any line in its log fails, for
# its exit status says nothing. Both ways to write a kernel run on it: vectors for CPUs, many work-items for GPUs.
# Exit status 77: skipped, there is no oclgrind (a failure where HETERO_REQUIRE names it).
set -eu
test_ops=$1
shift
lacks() {
    case ,${HETERO_REQUIRE-}, in *,oclgrind,*) echo "failed, for HETERO_REQUIRE names it: $*"; exit 1 ;; esac
    echo "skipped: $*"
    exit 77
}
program=$(command -v oclgrind) || lacks "oclgrind is not installed"
driver=
for folder in "${program%/bin/*}"/lib "${program%/bin/*}"/lib/*; do
    [ -f "$folder/oclgrind/liboclgrind-rt-icd.so" ] && driver=$folder/oclgrind/liboclgrind-rt-icd.so
done
[ -n "$driver" ] || lacks "oclgrind's liboclgrind-rt-icd.so is not there"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# The loader that we open sees this driver alone, so opencl:0 cannot be another device. (What oclgrind preloads stands in
# for a loader that was linked, not for one opened by name.) Nothing is to come from an earlier run's cache.
mkdir "$folder/vendors" "$folder/cache"
echo "$driver" >"$folder/vendors/oclgrind.icd"
failed=0
for variant; do # vector, simt:int8=on (without int8, fast precision is exact precision once more)
    # cmocka writes "[  PASSED  ]"; a device that is not there is a line "skipped: ...", not a failure
    if ! OCL_ICD_VENDORS=$folder/vendors XDG_CACHE_HOME=$folder/cache \
        oclgrind --build-options -cl-opt-disable --log "$folder/log" "$test_ops" --small "opencl:0:variant=$variant" >"$folder/output" 2>&1 ||
        grep -q '^skipped' "$folder/output"; then
        echo "variant=$variant: wrong results, or no device:"
        head -n 50 "$folder/output"
        failed=1
    fi
    if [ -s "$folder/log" ]; then
        echo "variant=$variant: $(grep -c . "$folder/log") lines in oclgrind's log, beginning with:"
        head -n 40 "$folder/log"
        failed=1
    fi
    rm -f "$folder/log"
done
exit $failed
