"""hetero profile: what it prints, and that what it keeps is used."""
import json
import os
import subprocess

import pytest

pytestmark = pytest.mark.check


def profile(binary, cache, *arguments):
    done = subprocess.run([binary, "profile", "shape:tiny", "--quick", *arguments], capture_output=True, text=True,
                          timeout=300, check=False, env={**os.environ, "XDG_CACHE_HOME": str(cache)})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_profile(binary, gpu, tmp_path):
    answer = json.loads(profile(binary, tmp_path, "--json", "--devices", gpu))
    assert answer["devices"] == ["opencl:0"]
    rows = answer["tables"]["matmul"]
    # shape:tiny has four matrices a layer, timed with 1, 64 and 256 tokens, and a head, timed with one
    assert sorted(row["tokens"] for row in rows) == [1] * 5 + [64] * 4 + [256] * 4
    assert all(0 < row["us"] <= row["us_by_rule"] and row["tried"] > 0 and row["kernel"] for row in rows)
    kept = json.loads(open(answer["path"], encoding="utf-8").read())
    assert len(kept["tiles"]) == len({(row["rows"], row["cols"], row["tokens"]) for row in rows}) and answer["path"].startswith(str(tmp_path))


def test_table(binary, gpu, tmp_path):
    table = profile(binary, tmp_path, "--devices", gpu).splitlines()
    assert table[0].split()[:2] == ["DEVICE", "OPERATOR"] and table[-1].startswith("kept in ")


def test_nothing_to_measure(binary, tmp_path):
    assert "nothing to measure" in profile(binary, tmp_path, "--devices", "cpu", "--quiet")
    assert json.loads(profile(binary, tmp_path, "--devices", "cpu", "--json", "--quiet"))["path"] is None
