"""hetero profile: what it prints, that what it keeps is used, and what it draws."""
import json
import os
import pathlib
import re
import subprocess
import xml.etree.ElementTree as ElementTree

import pytest

TABLES = ["matmul", "curve", "order", "shape", "joins", "bandwidth", "graphs"]
SVG = ".//svg"


def run(binary, cache, *arguments, code=0):
    done = subprocess.run([binary, "profile", *arguments], capture_output=True, text=True, timeout=300, check=False,
                          env={**os.environ, "XDG_CACHE_HOME": str(cache)})
    assert done.returncode == code, done.stderr
    return done


def profile(binary, cache, *arguments):
    return run(binary, cache, "shape:tiny", "--quick", *arguments).stdout


def stored(binary, cache, *arguments, code=0):
    return run(binary, cache, "--stored", *arguments, code=code)


def points(answer, table, device):
    return [row for row in answer["tables"][table] if row["device"] == device]


@pytest.fixture(scope="module")
def measured(binary, tmp_path_factory):
    """The CPU's profile on its first core alone, kept in a cache of its own, and its answer."""
    cache = tmp_path_factory.mktemp("profile")
    return cache, json.loads(profile(binary, cache, "--json", "--devices", "cpu:cpus=0"))


@pytest.fixture
def kept(measured, tmp_path):
    """A copy of that cache which a test may change: its folder, and the file's content."""
    file = pathlib.Path(measured[1]["path"])
    copy = tmp_path / "hetero" / "profile" / file.name
    copy.parent.mkdir(parents=True)
    copy.write_bytes(file.read_bytes())
    return tmp_path, copy


def test_kernels(binary, gpu, tmp_path):
    answer = json.loads(profile(binary, tmp_path, "--json", "--devices", gpu))
    assert answer["devices"] == ["opencl:0"]
    rows = answer["tables"]["matmul"]
    # shape:tiny has four matrices a layer, timed with 1, 64 and 256 tokens, and a head, timed with one
    assert sorted(row["tokens"] for row in rows) == [1] * 5 + [64] * 4 + [256] * 4
    assert all(0 < row["us"] <= row["us_by_rule"] and row["tried"] > 0 and row["kernel"] for row in rows)
    tiles = list((tmp_path / "hetero" / "opencl").glob("tiles-*.json"))
    assert len(tiles) == 1
    tiles = json.loads(tiles[0].read_text(encoding="utf-8"))["tiles"]
    assert len(tiles) == len({(row["rows"], row["cols"], row["tokens"]) for row in rows})
    # a queue of its own: each way to wait, in each state
    ways = {row["what"] for row in points(answer, "joins", "opencl:0")}
    assert ways == {f"{way}, {state}" for way in ("finish", "event", "callback", "flag")
                    for state in ("alone", "after 5 ms", "behind 20")}
    check_tables(answer, "opencl:0")


def check_tables(answer, device):
    assert list(answer["tables"]) == TABLES
    curve = points(answer, "curve", device)
    lengths = [row["tokens"] for row in curve]
    assert lengths == sorted(set(lengths)) and {1, 32, 33, 64, 65, 128, 129, 256} <= set(lengths)
    for row in curve + points(answer, "shape", device):
        assert row["us"] > 0
        assert row["gflops"] == pytest.approx(2e-3 * row["rows"] * row["cols"] * row["tokens"] / row["us"], rel=1e-3)
    assert {row["what"] for row in points(answer, "shape", device)} >= {"1:4", "1:1", "4:1", "1/4 of rows", "all rows"}
    assert all(0 < row["us"] <= row["us_p99"] for row in points(answer, "joins", device))
    alone = [row for row in points(answer, "bandwidth", device) if row["with"] is None]
    assert len(alone) == 1 and alone[0]["gbps"] > 0


def test_cpu(measured):
    cache, answer = measured
    assert answer["devices"] == ["cpu:cpus=0"] and answer["path"].startswith(str(cache)) and answer["stale"] == []
    check_tables(answer, "cpu:cpus=0")
    # it does everything in one way, computes in its caller, and takes any length
    assert not answer["tables"]["matmul"] and not answer["tables"]["order"] and not answer["tables"]["graphs"]
    assert {row["what"] for row in answer["tables"]["joins"]} == {"caller, alone", "caller, after 5 ms",
                                                                  "caller, behind 20"}
    content = json.loads(pathlib.Path(answer["path"]).read_text(encoding="utf-8"))
    assert content["tables"] == answer["tables"] and content["model"] == "shape:tiny" and content["quick"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", content["date"]) and content["version"]


def test_static_graphs(binary, npu, tmp_path):
    device = f"{npu}:lengths=1+64" if npu != "openvino:CPU" else "openvino:CPU:cpus=0:lengths=1+64"
    answer = json.loads(profile(binary, tmp_path, "--json", "--devices", device))
    check_tables(answer, device)
    assert [(row["what"], row["tokens"]) for row in answer["tables"]["order"]] == [("activations", 64), ("weights", 64)]
    graphs = answer["tables"]["graphs"]
    assert {row["tokens"] for row in graphs} == {1, 64} and all(row["us"] > 0 and row["bytes"] > 0 for row in graphs)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="a pair that shares no core needs two")
def test_pairs(binary, tmp_path):
    answer = json.loads(profile(binary, tmp_path, "--json", "--devices", "cpu:cpus=0,cpu:cpus=1,cpu:cpus=0-1"))
    pairs = {(row["device"], row["with"]) for row in answer["tables"]["bandwidth"] if row["with"]}
    assert pairs == {("cpu:cpus=0", "cpu:cpus=1"), ("cpu:cpus=1", "cpu:cpus=0")}


def test_table(binary, measured):
    lines = stored(binary, measured[0]).stdout.splitlines()
    assert lines[0].split()[:2] == ["TABLE", "DEVICE"] and lines[-1].startswith("saved in ")
    rows = [row for name in TABLES for row in measured[1]["tables"][name]]
    assert len(lines) == len(rows) + 2


def test_failing_device_is_left_out(binary, tmp_path):
    done = run(binary, tmp_path, "shape:tiny", "--quick", "--json", "--devices", "opencl:99,cpu:cpus=0")
    assert "opencl:99" in done.stderr and json.loads(done.stdout)["devices"] == ["cpu:cpus=0"]
    done = run(binary, tmp_path, "shape:tiny", "--quick", "--quiet", "--devices", "opencl:99", code=1)
    assert done.stdout == "" and "opencl:99" in done.stderr


def test_load(binary, kept):
    cache, file = kept
    answer = json.loads(stored(binary, cache, "--json").stdout)
    content = json.loads(file.read_text(encoding="utf-8"))
    assert answer["path"] == str(file) and answer["stale"] == []
    assert {key: answer[key] for key in content if key != "tables"} == {
        key: value for key, value in content.items() if key != "tables"}
    for table in TABLES:
        assert len(answer["tables"][table]) == len(content["tables"][table])
        for got, want in zip(answer["tables"][table], content["tables"][table]):
            assert got.keys() == want.keys()
            for key, value in want.items():
                assert got[key] == (pytest.approx(value, rel=1e-4) if isinstance(value, float) else value)


@pytest.mark.parametrize("field,value,says", [("runtime", "hetero of old", "its runtime was hetero of old"),
                                              ("description", "Another", "its processor was Another"),
                                              ("cores", "1", "its cores were 1 and are 0 now")])
def test_stale(binary, kept, field, value, says):
    cache, file = kept
    content = json.loads(file.read_text(encoding="utf-8"))
    content["fingerprints"][0][field] = value
    file.write_text(json.dumps(content), encoding="utf-8")
    done = stored(binary, cache, "--json")
    stale = json.loads(done.stdout)["stale"]
    assert len(stale) == 1 and stale[0].startswith("cpu:cpus=0: ") and says in stale[0]
    assert done.stderr.splitlines() == [f"hetero: stale: {stale[0]}"]
    stored(binary, cache, "--quiet", "--report", str(cache / "r.html"))
    assert says in (cache / "r.html").read_text(encoding="utf-8")


def test_device_that_went_away(binary, kept):
    cache, file = kept
    file.write_text(file.read_text(encoding="utf-8").replace("cpu:cpus=0", "opencl:99"), encoding="utf-8")
    stale = json.loads(stored(binary, cache, "--json", "--quiet").stdout)["stale"]
    assert len(stale) == 1 and stale[0].startswith("opencl:99: it cannot be opened now: ")


def test_nothing_stored(binary, tmp_path):
    done = stored(binary, tmp_path, code=1)
    assert "no profile is kept here yet" in done.stderr and done.stdout == ""


def test_simulated_beside_real(binary, kept):
    """A profile of simulated devices, however new, is shown where it is asked for only."""
    cache, file = kept
    content = file.read_text(encoding="utf-8").replace("cpu:cpus=0", "sim:snapdragon-8-gen-3/cpu")
    newer = file.with_name("newer.json")
    newer.write_text(content, encoding="utf-8")
    os.utime(newer, (2e9, 2e9))
    assert json.loads(stored(binary, cache, "--json", "--quiet").stdout)["devices"] == ["cpu:cpus=0"]
    for name in ("sim:snapdragon-8-gen-3", "sim:snapdragon-8-gen-3/cpu"):
        answer = json.loads(stored(binary, cache, "--json", "--quiet", "--devices", name).stdout)
        assert answer["devices"] == ["sim:snapdragon-8-gen-3/cpu"]
    assert "no profile is kept here yet of sim:other" in stored(binary, cache, "--devices", "sim:other", code=1).stderr
    file.unlink()
    assert "no profile is kept here yet of this machine's devices" in stored(binary, cache, code=1).stderr


def spoil(content, path, value):
    *way, last = path
    at = content
    for key in way:
        at = at[key]
    at[last] = value
    return json.dumps(content)


@pytest.mark.parametrize("path,value", [
    (["tables", "curve", 0, "device"], "cpu:cpus=7"), (["tables", "curve", 0, "us"], "1"),
    (["tables", "curve", 0, "us"], -1.0), (["tables", "curve", 0, "tokens"], 0),
    (["tables", "curve", 0, "rows"], 2**40), (["tables", "bandwidth", 0, "with"], "nobody"),
    (["tables", "curve", 0], None), (["fingerprints"], []), (["fingerprints", 0], 1), (["machine"], None)])
def test_spoilt_file(binary, kept, path, value):
    cache, file = kept
    file.write_text(spoil(json.loads(file.read_text(encoding="utf-8")), path, value), encoding="utf-8")
    done = stored(binary, cache, code=2)
    assert "not a profile" in done.stderr and str(file) in done.stderr


def test_cut_file(binary, kept):
    cache, file = kept
    file.write_bytes(file.read_bytes()[:500])
    assert str(file) in stored(binary, cache, code=2).stderr


def check_report(text):
    """Well-formed, readable on a phone, complete in itself, every figure with marks and a unit; the figures' titles."""
    page = ElementTree.fromstring(text)
    assert 'name="viewport"' in text and "prefers-color-scheme:dark" in text
    assert "http" not in text and "<script" not in text and "src=" not in text and "url(" not in text
    assert not re.search(r'[" >-](nan|inf)[" <]', text)
    figures = page.findall(".//figure")
    for figure in figures:
        marks = figure.findall(f"{SVG}//circle") + figure.findall(f"{SVG}//rect")
        labels = [label.text for label in figure.findall(f"{SVG}//text")]
        assert marks and figure.find("figcaption").text
        assert any(unit in label for label in labels for unit in ("ms", "µs", "GFLOP/s", "GB/s", "MiB")), labels
        for mark in marks:
            at = float(mark.get("cx") or mark.get("x")), float(mark.get("cy") or mark.get("y"))
            assert 0 <= at[0] <= 420 and 0 <= at[1] <= float(figure.find("svg").get("viewBox").split()[3])
    return page, [figure.find("figcaption").text for figure in figures]


def test_report(binary, measured, tmp_path):
    file = tmp_path / "report.html"
    stored(binary, measured[0], "--report", str(file))
    page, titles = check_report(file.read_text(encoding="utf-8"))
    assert "cpu:cpus=0" in titles and "All devices: arithmetic a second" in titles and "Each alone" in titles
    tables = measured[1]["tables"]
    sections = {section.get("id"): section for section in page.findall(".//section")}
    assert set(sections) == {name for name in TABLES if tables[name]}
    for name, section in sections.items():  # every point is in the table, and in a figure
        assert len(section.findall(".//tr")) == len(tables[name]) + 1
        marks = section.findall(f"{SVG}//circle") + section.findall(f"{SVG}//rect")
        assert len(marks) == len(tables[name]) * (2 if name == "curve" else 1)


def test_report_of_what_was_just_measured(binary, gpu, npu, tmp_path):
    file = tmp_path / "report.html"
    devices = "opencl:0,openvino:CPU:cpus=0:lengths=1+64" if npu == "openvino:CPU" else f"opencl:0,{npu}"
    answer = json.loads(profile(binary, tmp_path, "--devices", devices, "--json", "--report", str(file)))
    page, _ = check_report(file.read_text(encoding="utf-8"))
    assert {section.get("id") for section in page.findall(".//section")} == {
        name for name in TABLES if answer["tables"][name]} == set(TABLES)


def test_report_that_cannot_be_written(binary, measured, tmp_path):
    done = stored(binary, measured[0], "--report", str(tmp_path / "nowhere" / "r.html"), code=1)
    assert "cannot be written" in done.stderr
