#!/bin/sh
# usage: fuzz.sh SECONDS [BUILD]
# Builds every fuzzing target (tests/fuzz/fuzz_NAME.c) with clang, ASan and UBSan, and runs them all within SECONDS, as many
# side by side as there are cores. What is found lies in BUILD/NAME-crash-...; corpora stay in BUILD/corpus-NAME for the next time.
set -eu
cd "$(dirname "$0")/.."
seconds=${1-} build=${2-build-fuzz}
case $seconds in '' | *[!0-9]*) sed -n '2,4s/^# //p' "$0"; exit 2 ;; esac
jobs=$(nproc)
# shellcheck disable=SC2086 # CMAKE_FLAGS are words
cmake -S . -B "$build" -DCMAKE_C_COMPILER=clang-14 -DHETERO_FUZZ=ON -DHETERO_SANITIZE=address,undefined -DBUILD_TESTING=OFF \
    ${CMAKE_FLAGS-} >/dev/null
cmake --build "$build" -j "$jobs" --target fuzz

names= n=0
for source in tests/fuzz/fuzz_*.c; do
    name=${source##*/fuzz_}
    name=${name%.c}
    names="$names $name" n=$((n + 1))
    mkdir -p "$build/corpus-$name"
done
# Small whole models of every family and weight type, for the fuzzer to spoil.
cp tests/golden/*.gguf "$build/corpus-gguf"
[ ! -x .venv/bin/python ] || .venv/bin/python tests/tools/make_tiny.py "$build/corpus-gguf"
cp socs/*.json "$build/corpus-soc"

each=$((seconds * jobs / n))
[ "$each" -gt 0 ] || each=1
# Old sanitizer run times cannot place their shadow memory in the address space that new kernels hand out at random.
fixed=
setarch "$(uname -m)" -R true 2>/dev/null && fixed="setarch $(uname -m) -R"
# shellcheck disable=SC2016 # for the inner shell
printf '%s\n' $names | xargs -P "$jobs" -I NAME sh -c '
    build=$1 each=$2 name=$3 seeds=
    shift 3
    [ ! -d "tests/fuzz/seeds/$name" ] || seeds=tests/fuzz/seeds/$name
    "$@" "$build/tests/fuzz_$name" -max_total_time="$each" -timeout=10 -rss_limit_mb=2048 -max_len=131072 -print_final_stats=1 \
        -artifact_prefix="$build/$name-" "$build/corpus-$name" $seeds >"$build/$name.log" 2>&1 && result=passed || result=FAILED
    executed=$(sed -n "s/^stat::number_of_executed_units: *//p" "$build/$name.log" | tail -n 1)
    echo "fuzz_$name: $result, ${executed:-0} inputs in $each s"
    [ "$result" = passed ] || { tail -n 60 "$build/$name.log"; exit 1; }
' - "$build" "$each" NAME $fixed
