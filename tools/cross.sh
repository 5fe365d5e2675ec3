#!/bin/sh
# usage: cross.sh build|test [FOLDER]
# build: for 64-bit ARM Linux with Debian's cross compiler, packages included; or, where ANDROID_NDK names an NDK, for
# Android (arm64-v8a) with the libraries that PREFIX_LIBS/lib/pkgconfig describes. test: builds for Linux and tests under qemu.
set -eu
cd "$(dirname "$0")/.."
what=${1-} build=${2-build-aarch64}
case $what in build | test) ;; *) sed -n '2,4s/^# //p' "$0"; exit 2 ;; esac

fail() {
    echo "make cross: $*" >&2
    exit 1
}
jobs=${JOBS-$(nproc)}

if [ "$what" = build ] && [ -n "${ANDROID_NDK-}" ]; then
    toolchain=$ANDROID_NDK/build/cmake/android.toolchain.cmake
    [ -e "$toolchain" ] || fail "ANDROID_NDK=$ANDROID_NDK is no Android NDK: there is no $toolchain"
    [ -n "${PREFIX_LIBS-}" ] || fail "PREFIX_LIBS must name the folder where pcre2, utf8proc and jansson for Android are installed"
    [ -d "$PREFIX_LIBS/lib/pkgconfig" ] || fail "PREFIX_LIBS=$PREFIX_LIBS has no lib/pkgconfig"
    PKG_CONFIG_LIBDIR=$PREFIX_LIBS/lib/pkgconfig
    export PKG_CONFIG_LIBDIR
    # shellcheck disable=SC2086 # CMAKE_FLAGS are words
    cmake -S . -B "$build" -DCMAKE_TOOLCHAIN_FILE="$toolchain" -DANDROID_ABI=arm64-v8a -DANDROID_PLATFORM=android-28 \
        -DBUILD_TESTING=OFF ${CMAKE_FLAGS-}
    exec cmake --build "$build" -j "$jobs"
fi

sh tools/setup.sh cross
# shellcheck disable=SC2086
cmake -S . -B "$build" -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64-linux.cmake -DBUILD_TESTING=ON ${CMAKE_FLAGS-} >/dev/null
cmake --build "$build" -j "$jobs"
[ "$what" = test ] || exit 0

# Needs .venv and models/ as `make check` leaves them. QEMU_CPU chooses the processor of single tests.
[ -x .venv/bin/python ] || fail "no .venv: run 'make check' once"
# qemu shows programs this machine's own /proc/cpuinfo, which no ARM program expects (ONNX Runtime crashes on it).
build=$(cd "$build" && pwd)
mkdir -p "$build/sysroot/proc"
printf 'processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\nCPU implementer\t: 0x41\nCPU part\t: 0xd49\n' >"$build/sysroot/proc/cpuinfo"
HETERO=$build/hetero-qemu
printf '#!/bin/sh\nexec qemu-aarch64 -cpu "${QEMU_CPU-max}" -L "%s" "%s" "$@"\n' "$build/sysroot" "$build/hetero" >"$HETERO"
chmod +x "$HETERO"
HETERO_FLAGS="asimd asimddp i8mm" # of qemu's processor "max"
export HETERO HETERO_FLAGS
failed=0
(cd "$build" && ctest --output-on-failure -L cross) || failed=1
# All three tables have the same exact kernels, which qemu, computing floats in software, takes minutes for: one of them.
.venv/bin/python -m pytest -c tests/pytest.ini -rs -rP -m check \
    -k "not last_token and not scalar-smollm2 and not (exact and (neon-smollm2 or dotprod-smollm2))" tests/cli/test_aarch64.py \
    tests/golden/test_golden.py || failed=1
# Small models of what the two above have not: experts, states, sinks, latent rows; by NEON alone, each in one way of feeding.
.venv/bin/python -m pytest -c tests/pytest.ini -rs -m "check and not soak" \
    -k "test_llama_cpp and not scalar and (lfm2moe or qwen35- or granitehybrid-moe or gpt-oss- or deepseek2-lite)" \
    tests/golden/test_tiny.py || failed=1
exit $failed
