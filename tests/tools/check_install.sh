#!/bin/sh
# usage: check_install.sh BUILD EXAMPLES
# Installs BUILD into an empty prefix and compiles every example there as a user would: with what pkg-config says, and
# nothing of the source tree. Both the shared and the static library.
set -eu
build=$1 examples=$2
prefix=$(mktemp -d)
trap 'rm -rf "$prefix"' EXIT

cmake --install "$build" --prefix "$prefix" >"$prefix/log" || { cat "$prefix/log"; exit 1; }
pc=$(find "$prefix" -name hetero.pc)
[ -n "$pc" ] || { echo "hetero.pc was not installed"; exit 1; }
# The prefix in the file is the one configured; --define-prefix takes the file's own place instead.
config() { PKG_CONFIG_PATH=$(dirname "$pc") pkg-config --define-prefix "$@" hetero; }

cat >"$prefix/version.c" <<'C'
#include <hetero.h>
#include <stdio.h>

int main(void) {
    ht_error error = {0};
    ht_model *model = NULL;
    puts(ht_version());
    return ht_model_open("/nonexistent.gguf", &model, &error) == HT_OK || !error.text[0];
}
C
libdir=$(config --variable=libdir)
for source in "$prefix/version.c" "$examples"/*.c; do
    [ -e "$source" ] || continue
    # shellcheck disable=SC2046 # flags are words
    "${CC:-cc}" -std=gnu17 "$source" -o "$prefix/shared" $(config --cflags --libs)
    # The static library is chosen by its name, the rest as pkg-config orders it.
    # shellcheck disable=SC2046
    "${CC:-cc}" -std=gnu17 "$source" -o "$prefix/static" \
        $(config --cflags) $(config --static --libs | sed 's/-lhetero\b/-l:libhetero.a/')
    if [ "$source" = "$prefix/version.c" ]; then
        LD_LIBRARY_PATH=$libdir "$prefix/shared" || { echo "the shared example failed"; exit 1; }
        "$prefix/static" || { echo "the static example failed"; exit 1; }
    fi
done
if command -v readelf >/dev/null; then
    readelf -d "$prefix/shared" | grep -q 'libhetero\.so\.0\]' || { echo "no soname libhetero.so.0"; exit 1; }
fi
# The command is there unless the build had none.
[ ! -e "$build/hetero" ] || "$prefix/bin/hetero" --version >/dev/null || { echo "installed hetero fails"; exit 1; }
