#!/bin/sh
# usage: check_exports.sh LIBRARY HEADER
# The library exports exactly the functions that the header declares. The header goes through the preprocessor here, so
# that this does not share the reading of it with the build.
set -eu
library=$1 header=$2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# -P leaves no line markers; a function type in a typedef reads "(*ht_name)(" and so has no "(" after the name.
"${CC:-cc}" -E -P -x c "$header" | tr '\n' ' ' | grep -oE '\bht_[a-z0-9_]+ *\(' | tr -d ' (' |
    sort -u >"$folder/declared"
# Third field on: a version node or an absolute symbol would show here too, and be a surprise.
nm -D --defined-only "$library" | awk '{ print $NF }' | sort -u >"$folder/exported"
[ -s "$folder/declared" ] || { echo "no declarations found in $header"; exit 1; }
if ! diff -u "$folder/declared" "$folder/exported"; then
    echo "$library does not export exactly what $header declares (-: missing, +: too much)"
    exit 1
fi
echo "$(wc -l <"$folder/exported") functions exported, all of $header"
