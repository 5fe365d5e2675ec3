"""End-to-end tests of the command: what a user types, and what comes back.

The binary is $HETERO, or build/hetero of this checkout; models come from models/ (`make models`)."""
import json
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("HETERO", str(ROOT / "build" / "hetero"))
TIMEOUT = 120  # seconds; no command here needs a tenth of it


@pytest.fixture(scope="session")
def binary():
    assert os.access(BINARY, os.X_OK), f"{BINARY}: not built; set HETERO to the binary"
    return BINARY


@pytest.fixture(scope="session")
def model(lacks):
    path = ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    if not path.exists():
        lacks("models", f"{path} is missing: make models")
    return str(path)


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """Nothing of the user's own: the chat's history goes to a folder of the tests."""
    state = tmp_path_factory.mktemp("state")
    return {**os.environ, "XDG_STATE_HOME": str(state), "HOME": str(state), "LC_ALL": "C.UTF-8", "TERM": "dumb"}


class Result:
    def __init__(self, done):
        self.code, self.out_bytes = done.returncode, done.stdout
        self.err = done.stderr.decode("utf-8", "replace")

    @property
    def out(self):
        return self.out_bytes.decode("utf-8")

    @property
    def json(self):
        assert self.code == 0, self.err
        return json.loads(self.out_bytes)

    def refuses(self, *texts, code=2):
        """One line on standard error that holds all of texts, nothing on standard output."""
        assert self.code == code, (self.code, self.err)
        assert self.out_bytes == b""
        lines = self.err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("hetero"), self.err
        for text in texts:
            assert text in lines[0]


@pytest.fixture(scope="session")
def hetero(binary, environment):
    def run(*arguments, stdin=b"", timeout=TIMEOUT, env=None):
        done = subprocess.run([binary, *map(os.fsencode, map(str, arguments))], input=stdin, capture_output=True,
                              env={**environment, **(env or {})}, timeout=timeout, check=False)
        assert done.returncode >= 0, f"killed by signal {-done.returncode}: {done.stderr!r}"
        return Result(done)

    return run
