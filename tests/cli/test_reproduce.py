"""hetero reproduce: its tables say what the paper says, two runs agree, and a browser shows the report."""
import html.parser
import json
import math
import os
import re
import shutil
import subprocess

import pytest

SOC = "snapdragon-8-gen-3"


def start(binary, folder, soc, core):
    return subprocess.Popen([binary, "reproduce", "--soc", soc, "--out", str(folder)], stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, preexec_fn=lambda: os.sched_setaffinity(0, {core}))


def finish(run):
    said, _ = run.communicate(timeout=600)
    assert run.returncode == 0, said


@pytest.fixture(scope="module")
def folders(binary, tmp_path_factory):
    """Of two runs, side by side: each needs one core."""
    folder, cores = tmp_path_factory.mktemp("reproduce"), sorted(os.sched_getaffinity(0))
    both = [(folder / name, start(binary, folder / name, SOC, core)) for name, core in (("out", cores[0]), ("again", cores[-1]))]
    for _, run in both:
        finish(run)
    return [out for out, _ in both]


@pytest.fixture(scope="module")
def folder(folders):
    return folders[0]


@pytest.fixture(scope="module")
def tables(folder):
    """By name: rows as dicts."""
    answer = json.loads((folder / "tables.json").read_text())
    assert answer["soc"] == SOC
    return {name: [dict(zip(sheet["columns"], row)) for row in sheet["rows"]]
            for part in answer["experiments"].values() for name, sheet in part["tables"].items()}


def test_paper(tables):
    """Within 10% of each figure, or inside its range; what was put in is said to be."""
    rows = tables["paper-figures"]
    assert {row["tag"] for row in rows} >= {"GPU", "NPU", "memory", "GPU-1", "GPU-2", "NPU-1", "NPU-2", "NPU-3", "decode"}
    for row in rows:
        ends = [float(end) for end in row["paper"].split("–")]
        assert 0.9 * ends[0] <= row["simulated"] <= 1.1 * ends[-1], row
        assert row["is"] in ("input", "fitted", "predicted")
    assert any(row["is"] == "predicted" for row in rows)


def test_decisions(tables):
    rows = tables["decisions-taken"]
    ratio = float(rows[0]["here"].split(":")[0])
    assert 2.5 < ratio < 3.5
    down = rows[1]["here"]
    assert re.search(r"npu: \d\d% of rows, tokens 0-255", down) and "gpu: 100% of rows, tokens 256-319" in down
    assert all(row["here"] == "the activations" for row in rows[2:]) and len(rows) == 4


def test_curves(tables):
    flops = tables["flops-by-tokens"]
    assert flops[1]["GPU"] / flops[0]["GPU"] == pytest.approx(2, rel=0.05)  # memory-bound: linear
    assert flops[-1]["GPU"] == pytest.approx(flops[-3]["GPU"], rel=0.01)  # then a plateau
    stairs = {row["tokens"]: row["ms"] for row in tables["npu-staircase"]}
    assert stairs[33] > 1.1 * stairs[32] and stairs[64] < 1.05 * stairs[33]
    assert all(row["sum"] < 62 for row in tables["bandwidth-of-weights"] if row["sum"])


def test_speeds(tables):
    """Sharing pays where the paper says that it does, and ours is never much slower than a cut of single operators."""
    for name, rows in tables.items():
        if not name.startswith("prefill-"):
            continue
        for row in rows:
            assert row["tensor"] > 2 * row["GPU"], (name, row)
            assert row["NPU online"] < row["NPU padded"], (name, row)
            assert row["hetero"] > 0.97 * max(row["tensor"], row["GPU"], row["layer"]), (name, row)
    for row in tables["decode-rates"]:
        assert row["hetero"] > 0.97 * max(row["GPU"], row["tensor"]), row
    steps = [row["tokens a second"] for row in tables["ablation-llama-3-8b-300"]]
    assert steps[4] > 2 * steps[0]
    for row in tables["odd-lengths"]:
        assert row["hetero"] > 0.95 * max(row["padding"], row["pipeline"], row["tensor"]), row
    for name in ("sync-llama-3-8b", "sync-internlm2-1.8b"):
        assert all(row["flag"] > row["finish"] for row in tables[name])


def test_game(tables):
    speed, frames = tables["game-speed-prefill"], tables["game-frames-prefill"]
    assert all(a["hetero learning"] > b["hetero learning"] for a, b in zip(speed, speed[1:]))
    assert all(row["hetero learning"] > row["GPU"] for row in frames)  # a GPU that we fill has no time for frames


def test_other_chips(binary, tables, tmp_path):
    """A figure that is changed changes results; a chip without an NPU has what it can have."""
    soc = tmp_path / "gpu.json"
    soc.write_text(json.dumps({"name": "lonely", "memory": {"peak_GBps": {"value": 100, "source": "test"}}, "processors": [
        {"name": "gpu", "kind": "gpu", "reached_TFLOPS": {"value": 1, "source": "test"}},
        {"name": "cpu", "kind": "cpu", "cores": "0-3", "reached_TFLOPS": {"value": 0.2, "source": "test"}}]}))
    finish(start(binary, tmp_path / "out", soc, min(os.sched_getaffinity(0))))
    answer = json.loads((tmp_path / "out" / "tables.json").read_text())
    row = answer["experiments"]["prefill"]["tables"]["prefill-llama-3-8b"]["rows"][1]
    assert row[1] > 0 and row[2] is None and row[7] >= 0.97 * row[1]  # the GPU; no NPU; all that there is
    wide = tables["sweep-bandwidth-decode"]
    assert wide[-1]["hetero"] > 2 * wide[0]["hetero"]


def test_again(folders):
    for name in ("tables.json", "report.html"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name


def test_refusals(hetero, tmp_path):
    hetero("reproduce", "--soc", "no-such-chip", "--out", tmp_path / "x").refuses("no-such-chip", "snapdragon-8-gen-3")
    bad = tmp_path / "bad.json"
    bad.write_text('{"name": "bad",\n"memory": {"peak_GBps": 3}}')
    hetero("reproduce", "--soc", bad, "--out", tmp_path / "x").refuses("bad.json: line 2: memory.peak_GBps")
    assert not (tmp_path / "x").exists()


# ---- against real chips ---------------------------------------------------------------------------------------------------


def rows_of(table):
    return [dict(zip(table["columns"], row)) for row in table["rows"]]


@pytest.fixture(scope="module")
def validated(hetero):
    return hetero("reproduce", "--validate", "--json").json


def test_validate(hetero, validated, tmp_path):
    """Every row and its prediction, how far off they are, what was fitted; the same bytes each time, with files or without."""
    answer = validated
    for name in ("a", "b"):
        assert hetero("reproduce", "--validate", "--out", tmp_path / name).code == 0
    assert json.loads((tmp_path / "a" / "tables.json").read_text()) == answer
    for name in ("tables.json", "report.html"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    tables = {name: rows_of(table) for name, table in answer["experiments"]["validate"]["tables"].items()}
    rows = tables["validate-rows"]
    assert len(rows) > 150 and "soc" not in answer
    for row in rows:
        if row["predicted"] is not None:
            assert row["ratio"] == pytest.approx(row["predicted"] / row["measured"], rel=1e-6)
    for summary in tables["validate-summary"]:
        mine = [row for row in rows if row["use"] == summary["use"] and summary["phase"] in (row["phase"], "both")]
        assert summary["rows"] == len(mine) and summary["predicted"] <= len(mine)
        known = [row["ratio"] for row in mine if row["ratio"] is not None]
        assert summary["within 40% (%)"] == pytest.approx(100 * sum(abs(r - 1) <= 0.4 for r in known) / len(known))
    assert 4 * tables["validate-parameters"][-1]["value"] <= sum(row["use"] == "fit" for row in rows)
    assert all(row["why"] for row in tables["validate-left-out"])
    page = Figures()
    page.feed((tmp_path / "a" / "report.html").read_text())
    assert sum(len(drawn) for _, drawn in page.figures) == sum(row["predicted"] is not None for row in rows)
    assert len(page.figures) == 2


def test_validate_one_chip(hetero, tmp_path):
    """One chip's rows, with a figure changed; the same rows are in that chip's own report."""
    usual = hetero("reproduce", "--validate", "--soc", SOC, "--json").json
    slow = hetero("reproduce", "--validate", "--soc", SOC + "@npu.bandwidth_GBps=4", "--json").json
    pairs = list(zip(*(rows_of(a["experiments"]["validate"]["tables"]["validate-rows"]) for a in (usual, slow))))
    assert pairs and {a["chip"] for a, _ in pairs} == {SOC}
    for a, b in pairs:
        if a["processor"] == "npu" and a["phase"] == "decode":
            assert b["predicted"] < a["predicted"] / 4
        if a["processor"] != "npu":
            assert b["predicted"] == a["predicted"]
    text = hetero("reproduce", "--validate", "--soc", SOC).out
    assert "mllm PR#624" in text and "How far off" in text
    hetero("reproduce", "--validate", "--soc", "no-such-chip").refuses("no-such-chip", "snapdragon-8-gen-3")
    hetero("reproduce", "--validate", "--out", "/proc/x").refuses("/proc/x", code=1)


def test_validate_in_report(tables):
    assert {row["chip"] for row in tables["validate-rows"]} == {SOC}


def test_energies(validated, tables):
    """Kraken's: the rail times what a token is predicted to take. Ours: each strategy over the GPU's, inside its range."""
    answer = validated["experiments"]["validate"]["tables"]
    rows = rows_of(answer["validate-energy"])
    speeds = {(row["processor"], row["engine"], row["model"], row["prompt"]): row["predicted"]
              for row in rows_of(answer["validate-rows"]) if row["phase"] == "decode" and row["chip"] == "ryzen-ai-7-350"}
    checked = 0
    for row in rows:
        assert row["use"] == "test" and row["from"] <= row["predicted"] <= row["to"]
        speed = speeds.get((row["processor"], row["engine"], row["model"], 1024))
        if row["what"] == "J a token" and speed:
            assert row["predicted"] == pytest.approx(row["rail W"] / speed, rel=1e-6)
            checked += 1
    assert checked == 3 and {row["what"] for row in rows} == {"J a token", "all processors, W"}
    for phase in ("prefill", "decode"):
        rows = tables[f"energy-{phase}"]
        for row in rows:
            assert row["times the GPU's"] == 1 or row["setup"] != "GPU"
            assert row["J from"] <= row["J a token"] <= row["J to"] and row["times from"] <= row["times the GPU's"] <= row["times to"]
    ratios = {row["setup"]: row["llama-3-8b"] for row in tables["energy-ratios-prefill"]}
    assert ratios["NPU pipeline"] < 0.5 and ratios["GPU"] == 1


# ---- chips compared -----------------------------------------------------------------------------------------------------


def test_compare(hetero, tmp_path):
    """Two chips and a small model: the best of all is no slower than any alone, and terms multiply to the gain."""
    few = ["reproduce", "shape:smollm2-135m", "--soc", SOC, "--soc", "ryzen-ai-7-350@memory.base_W=3"]
    first = hetero(*few, "--out", tmp_path / "a", "--json").json
    text = hetero(*few, "--out", tmp_path / "b").out
    for name in ("tables.json", "report.html"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    assert json.loads((tmp_path / "a" / "tables.json").read_text()) == first and "soc" not in first
    assert "limits decode" in text and "from or why not" in text and "report.html" in text
    found = {name: rows_of(sheet) for part in first["experiments"].values() for name, sheet in part["tables"].items()}
    speeds, plans = found["chips-smollm2-135m"], found["plans-smollm2-135m"]
    assert [row["chip"] for row in speeds] == [SOC, "ryzen-ai-7-350"] and len(plans) == 6
    for row in plans:
        assert row["times"] >= 1 and row["times"] == pytest.approx(row["tokens a second"] / row["its tokens a second"], rel=1e-6)
        assert row["J from"] < row["J a token"] < row["J to"]
        shares = [int(share) for share in re.findall(r"(\d+)%", row["best plan"])]
        assert 90 <= sum(shares) <= 101 or row["best plan"].endswith("alone")
        assert re.search(r"(memory|unit|arithmetic|operators|launches) \d+%", row["limited by"])
    for phase in ("prefill", "decode"):
        for row in found[f"planners-{phase}"]:
            product = math.prod(1 + (row[name] or 0) / 100 for name in row if name.endswith(" %") and name not in ("gain %", "fast joins %"))
            assert product == pytest.approx(1 + row["gain %"] / 100, abs=0.01)
            assert row["gain %"] == pytest.approx(100 * (row["ours"] / row["the paper's"] - 1), abs=0.06)
            assert row["from or why not"]
    page = Figures()
    page.feed((tmp_path / "a" / "report.html").read_text())
    assert not page.remote and not page.scripts


def test_compare_limits(hetero, tmp_path):
    """What is made scarce is what limits: memory, or room for graphs."""
    wide = f"{SOC}@memory.together_GBps=900@memory.reached_GBps=900@gpu.bandwidth_GBps=900@npu.bandwidth_GBps=900@cpu.bandwidth_GBps=900"
    first = hetero("reproduce", "shape:llama-3.2-1b", "--soc", SOC, "--soc", wide, "--soc", SOC + "@npu.session_GiB=0.1@npu.sessions=1",
                   "--out", tmp_path / "a", "--json").json
    rows = rows_of(first["experiments"]["chips"]["tables"]["chips-llama-3.2-1b"])
    assert rows[0]["limits decode"].startswith("memory") and not rows[1]["limits decode"].startswith("memory")
    assert rows[2]["limits prefill"].startswith("graph memory (+") and "graph" not in rows[0]["limits prefill"]


def test_compare_refusals(hetero, tmp_path):
    hetero("reproduce", "--soc", SOC, "--soc", "no-such-chip", "--out", tmp_path / "x").refuses("no-such-chip", SOC)
    hetero("reproduce", "shape:no-such-model", "--out", tmp_path / "x").refuses("no-such-model")
    hetero("reproduce", "shape:smollm2-135m", "--validate").refuses("--validate takes no MODEL")
    assert not (tmp_path / "x").exists()


# ---- the report ---------------------------------------------------------------------------------------------------------


class Figures(html.parser.HTMLParser):
    """Counts what is drawn in each svg."""

    def __init__(self):
        super().__init__()
        self.figures, self.inside, self.remote, self.scripts = [], False, [], 0

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.scripts += tag == "script"
        self.remote += [value for key, value in attributes if key in ("src", "href") and not (value or "").startswith("#")]
        if tag == "svg":
            self.figures.append((values["aria-label"], []))
            self.inside = True
        elif self.inside and tag in ("rect", "circle"):
            self.figures[-1][1].append(values)

    def handle_endtag(self, tag):
        if tag == "svg":
            self.inside = False


def test_report(folder):
    page = Figures()
    text = (folder / "report.html").read_text()
    page.feed(text)
    assert not page.remote and not page.scripts and "url(" not in text
    assert len(page.figures) > 25
    for title, drawn in page.figures:
        assert drawn, f"{title}: empty"
        numbers = [float(mark[key]) for mark in drawn for key in ("x", "y", "cx", "cy", "width") if key in mark]
        assert all(math.isfinite(n) and -1 <= n <= 3000 for n in numbers), title
    assert "nan" not in re.sub(r"<[^>]*>", " ", text).lower().split()
    assert "prefers-color-scheme:dark" in text


# What a browser makes of it, as seen from inside: figures without a size, and how far the page is wider than its window.
PROBE = """<script>
addEventListener('error', e => document.title = 'ERROR ' + e.message);
addEventListener('load', () => {
  const empty = [...document.querySelectorAll('svg')].filter(s => {
    const box = s.getBoundingClientRect(), drawn = [...s.querySelectorAll('rect,circle')];
    return box.width < 200 || box.height < 60 || !drawn.some(d => d.getBoundingClientRect().height > 1)});
  document.body.setAttribute('data-probe', JSON.stringify({figures: document.querySelectorAll('svg').length,
    empty: empty.length, wider: document.documentElement.scrollWidth - innerWidth, width: innerWidth}))});
</script>"""


@pytest.mark.parametrize("width", [500, 1280])  # 500: the narrowest window that headless Chromium has
def test_browser(folder, tmp_path, lacks, width):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        lacks("chromium", "no Chromium on this machine: the report is not looked at")
    page = tmp_path / "probed.html"
    page.write_text((folder / "report.html").read_text().replace("</body>", PROBE + "</body>"))
    done = subprocess.run([chromium, "--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={width},900",
                           "--enable-logging=stderr", "--v=0", f"--user-data-dir={tmp_path / 'profile'}",
                           "--virtual-time-budget=3000", "--dump-dom", page.as_uri()],
                          capture_output=True, text=True, timeout=120, check=False)
    found = re.search(r'data-probe="([^"]*)"', done.stdout)
    assert found, done.stderr
    probe = json.loads(found.group(1).replace("&quot;", '"'))
    assert probe["figures"] > 25 and probe["empty"] == 0 and probe["wider"] <= 0, probe
    assert abs(probe["width"] - width) < 20
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not console and "ERROR" not in re.search("<title>([^<]*)", done.stdout).group(1), console
