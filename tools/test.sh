#!/bin/sh
# usage: test.sh unit|check|all|soak [BUILD]
# all: sets up what tests need (Debian packages, .venv, models), builds, runs ctest and pytest. check: the quick part of the
# same. unit: the C tests that need neither Python nor a model. soak: what takes longer, see tools/soak.py; the environment
# says for how many SECONDS and by which SEED. None touches the network when everything is there.
set -eu
cd "$(dirname "$0")/.."
what=${1-} build=${2-build}
case $what in unit | check | all | soak) ;; *) sed -n '2,5s/^# //p' "$0"; exit 2 ;; esac
jobs=$(nproc)

# compile TARGET-OPTIONS...
compile() {
    # shellcheck disable=SC2086 # CMAKE_FLAGS are words
    cmake -S . -B "$build" -DBUILD_TESTING=ON ${CMAKE_FLAGS-} >/dev/null
    cmake --build "$build" -j "$jobs" "$@"
}

if [ "$what" = unit ]; then
    sh tools/setup.sh unit
    compile --target unit_tests
    cd "$build"
    HETERO_QUICK=unit exec ctest --output-on-failure -j "$jobs" -L unit
fi

sh tools/setup.sh test
# The environment is made again when the list of what belongs in it has changed. The stamp is written last, so that an
# interrupted installation is not taken for a whole one.
if ! cmp -s tests/requirements.txt .venv/requirements.txt; then
    echo "Making .venv (Python packages for the tests)"
    [ -x .venv/bin/python ] || python3 -m venv .venv
    .venv/bin/python -m pip install -q --progress-bar on --disable-pip-version-check -r tests/requirements.txt
    cp tests/requirements.txt .venv/requirements.txt
fi
if [ "$what" = check ]; then
    python3 tools/fetch_models.py smollm2
else
    python3 tools/fetch_models.py smollm2 gemma3
fi
compile

# Tests find the binary through this and need no other setting.
HETERO=$(cd "$build" && pwd)/hetero
export HETERO
# The environment that is active: runtimes are looked for there, and nowhere below the current folder.
: "${VIRTUAL_ENV:=$PWD/.venv}"
export VIRTUAL_ENV
[ "$what" != soak ] || exec .venv/bin/python tools/soak.py "$build" "$SECONDS" "$SEED"

python_tests() {
    .venv/bin/python -m pytest -c tests/pytest.ini -rs "$@"
}

failed=0
if [ "$what" = check ]; then
    export HETERO_QUICK=1
    (cd "$build" && ctest --output-on-failure -j "$jobs" -L check) || failed=1
    python_tests -m check tests/cli tests/golden || failed=1
else
    (cd "$build" && ctest --output-on-failure -j "$jobs" -LE soak) || failed=1
    # What mostly keeps one core busy, and asks for no times, runs beside the models' golden values.
    beside="tests/golden/test_tiny.py tests/golden/test_broken.py tests/cli/test_reproduce.py tests/cli/test_usage.py"
    ignored=$(printf ' --ignore=%s' $beside)
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    # shellcheck disable=SC2086 # words
    python_tests -m "not soak" $beside >"$log" 2>&1 &
    # shellcheck disable=SC2086
    python_tests -m "not soak" $ignored tests/golden || failed=1
    wait $! || failed=1
    cat "$log"
    # shellcheck disable=SC2086
    python_tests -m "not soak" $ignored tests/cli || failed=1
fi

# A test run that silently had no GPU would look like one that had: say which devices were not there, and why.
if [ -x "$HETERO" ]; then
    "$HETERO" devices --json 2>/dev/null | .venv/bin/python -c '
import json, sys
for device in json.load(sys.stdin).get("missing", []):
    print("not tested: {name}: {why}".format(**device))' || true
fi
exit $failed
