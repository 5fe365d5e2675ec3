"""What is too long for `make test`, in an order drawn by a seed, for as long as is given.

usage: soak.py BUILD SECONDS SEED    SEED: a number or a word, a commit's hash say; "": drawn and printed

Pieces are ctests with the label soak, Python tests with the mark soak (a function each), and tests of random cases in greater
number. Each runs once at most, but those of random cases, which begin again with other numbers while time is left. No piece
starts when the time is over, and what still runs at twice the time is ended and counts as not reached. Prints what ran and what
did not; exit status 1 if a piece failed. One piece again, as printed: the command stands on its line.
"""
import hashlib
import os
import pathlib
import random
import shlex
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
RANDOM = ["lanes", "solve", "tokenizer"] # ctests that begin where HETERO_SEED says; lanes as long as HETERO_SOAK
LIMIT = 1800 # seconds for one piece: it hangs


def output(*command):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def pieces(build):
    listed = output("ctest", "--test-dir", build, "-N", "-L", "soak").splitlines()
    for name in [line.split(": ", 1)[1] for line in listed if line.lstrip().startswith("Test ") and "#" in line]:
        yield name, ["ctest", "--test-dir", build, "--output-on-failure", "-R", f"^{name}$"]
    pytest = [sys.executable, "-m", "pytest", "-c", "tests/pytest.ini", "-q", "-m", "soak"]
    ids = output(*pytest, "--collect-only", "tests/cli", "tests/golden").splitlines()
    for test in dict.fromkeys("tests/" + line.split("[")[0] for line in ids if "::" in line):
        yield test, [*pytest, test]


def run(command, most):
    """Exit status (None: still running after `most` seconds, and ended with all that it started) and output."""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          start_new_session=True) as child:
        try:
            text, _ = child.communicate(timeout=most)
            return child.returncode, text
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            return None, f"{child.communicate()[0]}\nstill running after {most:.0f} s"


def main(build, seconds, seed):
    seed = seed or str(random.SystemRandom().randrange(10**6))
    print(f"soak: {seconds} seconds, SEED={seed}", flush=True)
    os.environ.update(HETERO=str(pathlib.Path(build).resolve() / "hetero"), HETERO_SOAK="1000")
    draw = random.Random(hashlib.sha256(seed.encode()).digest())
    todo = [*pieces(build), *((name, None) for name in RANDOM)]
    draw.shuffle(todo)
    end, ran, failed, left = time.monotonic() + seconds, 0, [], []
    while todo and time.monotonic() < end:
        name, command = todo.pop(0)
        if command is None: # again when all others have run
            todo.append((name, None))
            number = draw.randrange(1, 2**31)
            command = ["env", f"HETERO_SEED={number}", "ctest", "--test-dir", build, "--output-on-failure", "-R", f"^{name}$"]
        start = time.monotonic()
        print(f"soak: {name}: {shlex.join(map(str, command))}", flush=True)
        most = min(LIMIT, end - start + seconds)
        code, text = run(command, most)
        if code is None and most < LIMIT: # the time is up, and that is all: not a fault
            print(f"soak: {name}: not finished ({time.monotonic() - start:.0f} s)", flush=True)
            left.append(name)
            continue
        wrong = code != 0
        ran += 1
        print(f"soak: {name}: {'FAILED' if wrong else 'passed'} ({time.monotonic() - start:.0f} s)", flush=True)
        if wrong:
            failed.append(name)
            print(text, flush=True)
    left += [name for name, command in todo if command]
    print(f"soak: SEED={seed}: {ran} pieces ran, {len(failed)} failed, {len(left)} not reached: {' '.join(left)}")
    for name in failed:
        print(f"soak: failed: {name}")
    return bool(failed)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], float(sys.argv[2]), sys.argv[3]))
