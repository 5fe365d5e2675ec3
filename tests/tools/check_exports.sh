#!/bin/sh
# usage: check_exports.sh HEADER SHARED-LIBRARY STATIC-LIBRARY
# Both libraries export exactly the functions that HEADER, and what it includes, declare. The header goes through the
# preprocessor here, so that this does not share the reading of it with the build.
set -eu
header=$1 shared=$2 static=$3
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# -P leaves no line markers; a function type in a typedef reads "(*ht_name)(" and so has no "(" after the name.
"${CC:-cc}" -E -P -x c -I "$(dirname "$header")" "$header" | tr '\n' ' ' | grep -oE '\bht_[a-z0-9_]+ *\(' | tr -d ' (' |
    sort -u >"$folder/declared"
[ -s "$folder/declared" ] || { echo "no declarations found in $header"; exit 1; }
# The last field alone: a version node or an absolute symbol would show here too, and be a surprise.
nm -D --defined-only "$shared" | awk '{ print $NF }' | sort -u >"$folder/shared"
nm -g --defined-only "$static" | awk 'NF == 3 { print $NF }' | sort -u >"$folder/static"
for library in shared static; do
    if ! diff -u "$folder/declared" "$folder/$library"; then
        echo "the $library library does not export exactly what $header declares (-: missing, +: too much)"
        exit 1
    fi
done
echo "$(wc -l <"$folder/declared") functions exported by both libraries, all of $header"
