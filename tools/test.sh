#!/bin/sh
# usage: test.sh check|all [BUILD]
# all: sets up what tests need (Debian packages, .venv, models), builds, runs ctest and pytest. check: the quick part of
# the same. Neither touches the network when everything is there.
set -eu
cd "$(dirname "$0")/.."
what=${1-} build=${2-build}
case $what in check | all) ;; *) sed -n '2,4s/^# //p' "$0"; exit 2 ;; esac

sh tools/setup.sh test
# The environment is made again when the list of what belongs in it has changed. The stamp is written last, so that an
# interrupted installation is not taken for a whole one.
if ! cmp -s tests/requirements.txt .venv/requirements.txt; then
    echo "Making .venv (Python packages for the tests)"
    [ -x .venv/bin/python ] || python3 -m venv .venv
    .venv/bin/python -m pip install -q --progress-bar on --disable-pip-version-check -r tests/requirements.txt
    cp tests/requirements.txt .venv/requirements.txt
fi
if [ "$what" = all ]; then
    python3 tools/fetch_models.py smollm2 gemma3
else
    python3 tools/fetch_models.py smollm2
fi

jobs=$(nproc)
# shellcheck disable=SC2086 # CMAKE_FLAGS are words
cmake -S . -B "$build" -DBUILD_TESTING=ON ${CMAKE_FLAGS-} >/dev/null
cmake --build "$build" -j "$jobs"

# Tests find the binary through this and need no other setting.
HETERO=$(cd "$build" && pwd)/hetero
export HETERO
only= marks=
[ "$what" = all ] || { only="-L check"; marks="-m check"; export HETERO_QUICK=1; }
failed=0
# One test at a time: most use every core themselves, and some measure.
# shellcheck disable=SC2086
(cd "$build" && ctest --output-on-failure $only) || failed=1
folders=
for folder in tests/cli tests/golden tests/ops; do
    # A folder without Python tests would make pytest fail for want of tests.
    if find "$folder" -name 'test_*.py' 2>/dev/null | grep -q .; then folders="$folders $folder"; fi
done
if [ -n "$folders" ]; then
    # shellcheck disable=SC2086
    .venv/bin/python -m pytest -c tests/pytest.ini -rs $marks $folders || failed=1
fi

# A test run that silently had no GPU would look like one that had: say which devices were not there, and why.
if [ -x "$HETERO" ]; then
    "$HETERO" devices --json 2>/dev/null | .venv/bin/python -c '
import json, sys
for device in json.load(sys.stdin).get("missing", []):
    print("not tested: {name}: {why}".format(**device))' || true
fi
exit $failed
