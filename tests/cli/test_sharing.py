"""Several devices in one pass: the plan, its timeline, what bench says of both, and what is refused."""
import json
import os

import pytest

pytestmark = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two lanes need two cores")

LENGTH = 96
CUTS = ["row", "head,feature", "query,feature", "causal", "layer"]
SLICE = {"device", "row_begin", "row_end", "reduction_begin", "reduction_end", "head_begin", "head_end", "token_begin",
         "token_end", "predicted_us", "bytes", "products", "rest"}
WHOLE = {"left", "operators", "memory", "tokens", "regime", "joins_per_layer", "predicted_ms", "single_device_ms", "lanes",
         "dropped"}
LAYERS, QUERIES, HEADS, FEATURES = 30, 9, 3, 1536  # SmolLM2


@pytest.fixture(scope="module")
def lanes(hetero, lacks):
    if not any(d["name"] == "opencl:0" for d in hetero("devices", "--json").json["devices"]):
        lacks("opencl", "no opencl:0")
    return ("--devices", "cpu:cpus=0,opencl:0:cpus=1", "--strategy", "tensor")


@pytest.fixture(scope="module")
def plan(hetero, model, lanes):
    kept = {}

    def of(cuts, *length):
        length = length or ("--length", LENGTH)
        if (cuts, length) not in kept:
            kept[cuts, length] = hetero("plan", model, *lanes, "--cuts", cuts, *length, "--json").json
        return kept[cuts, length]

    return of


def is_partition(ranges, total):
    """Ranges lie one behind the other and are all of [0, total)."""
    at = 0
    for begin, end in sorted(ranges):
        if begin != at or end < begin:
            return False
        at = end
    return at == total


def ranges(operator, what):
    return [(s[what + "_begin"], s[what + "_end"]) for s in operator["slices"]]


def area(operator):
    """Rows x columns x tokens of all slices."""
    return sum((s["row_end"] - s["row_begin"]) * (s["reduction_end"] - s["reduction_begin"]) *
               (s["token_end"] - s["token_begin"]) for s in operator["slices"])


def is_last(name):
    return name.startswith(f"blk.{LAYERS - 1}.") and not name.endswith((".attn_norm", ".attn_qkv", ".rope"))


def expected_tokens(operator, tokens):
    """Only the last token goes through the end of the last layer and the head."""
    last = is_last(operator["name"]) or operator["name"].startswith("output")
    return (tokens - 1, tokens) if last or not operator["name"].startswith(("blk.", "token_embd")) else (0, tokens)


def check_operator(operator, tokens):
    name, cut = operator["name"], operator["strategy"]
    begin, end = expected_tokens(operator, tokens)
    for one in operator["slices"]:
        assert set(one) == SLICE
        assert begin <= one["token_begin"] < one["token_end"] <= end, name
        assert one["row_end"] <= max(operator["rows"], FEATURES) and one["reduction_end"] <= operator["cols"], name
    moved = [(b - begin, e - begin) for b, e in ranges(operator, "token")]
    if cut == "every":  # each device for itself
        assert len({s["device"] for s in operator["slices"]}) == len(operator["slices"]) == 2
        assert moved == [(0, end - begin)] * 2
    elif cut in ("causal", "sequence") or (cut == "single" and not operator["rows"]):
        assert is_partition(moved, end - begin), name
    elif cut == "head" and not operator["rows"]:
        assert is_partition(ranges(operator, "head"), HEADS), name
    elif cut == "query" and not operator["rows"]:
        assert is_partition(ranges(operator, "head"), QUERIES), name
    elif cut in ("feature", "row") and not operator["rows"]:
        assert is_partition(ranges(operator, "row"), FEATURES), name
    else:
        assert area(operator) == operator["rows"] * operator["cols"] * (end - begin), name
    if cut in ("row", "feature", "head", "query") and operator["rows"]:
        by_columns = any(s["reduction_end"] - s["reduction_begin"] < operator["cols"] for s in operator["slices"])
        assert is_partition(ranges(operator, "reduction"), operator["cols"]) if by_columns else \
            is_partition(ranges(operator, "row"), operator["rows"]), name
        assert len(operator["slices"]) == 2


@pytest.mark.parametrize("length", [("--length", LENGTH), ("--decode",)])
@pytest.mark.parametrize("cuts", CUTS)
def test_slices_are_all_of_every_operator(plan, cuts, length):
    if cuts == "causal" and length == ("--decode",):
        pytest.skip("one token cannot be shared by tokens")
    made = plan(cuts, *length)
    tokens = 1 if length == ("--decode",) else LENGTH
    assert set(made) == WHOLE and made["tokens"] == tokens
    names = [o["name"] for o in made["operators"]]
    assert len(names) == len(set(names))
    layers = [int(n.split(".")[1]) for n in names if n.startswith("blk.")]
    assert layers == sorted(layers) and set(layers) == set(range(LAYERS))
    for operator in made["operators"]:
        assert set(operator) == {"name", "rows", "cols", "strategy", "slices"}
        check_operator(operator, tokens)
    used = {s["device"] for o in made["operators"] for s in o["slices"]}
    assert set(made["memory"]) == used and set(made["single_device_ms"]) == {"cpu", "opencl:0"}
    assert len(used) == (1 if made["regime"] == "single" else 2)
    for device in made["memory"].values():
        assert device["bytes"] > 0 and device["graph_limit"] is None and device["emulated"] is False
    assert made["predicted_ms"] > 0 and all(ms > 0 for ms in made["single_device_ms"].values())
    assert made["lanes"] and all(0 < lane["busy_ms"] + lane["wait_ms"] <= made["predicted_ms"] * 1.001
                                 for lane in made["lanes"].values())
    assert all(s["predicted_us"] > 0 for o in made["operators"] for s in o["slices"])


@pytest.mark.parametrize("cuts,used,joins", [
    ("row", {"row", "head"}, {"shares": {5}, "owner": {2, 4}}), # attention has no rows: heads stand for them
    ("head,feature", {"head", "feature"}, {"shares": {2}, "owner": {2}}),
    ("query,feature", {"query", "feature"}, {"shares": {2, 3}, "owner": {2}}), # 3: where a head's keys are waited for
    ("causal", {"causal"}, {"causal": {1}}), ("layer", {"layer"}, {"owner": {2, 4, 6}})])
def test_only_these_cuts(plan, cuts, used, joins):
    made = plan(cuts)
    assert made["joins_per_layer"] in joins[made["regime"]]
    found = {o["strategy"] for o in made["operators"] if o["name"].startswith("blk.")}
    assert found & used and found <= used | {"single", "every"}


def test_decode_has_nothing_to_cut_by_tokens(hetero, model, lanes):
    made = hetero("plan", model, *lanes, "--cuts", "causal", "--decode", "--json").json
    assert made["regime"] == "single" and made["joins_per_layer"] == 0


def test_table(hetero, model, lanes):
    shown = hetero("plan", model, *lanes, "--cuts", "causal", "--length", LENGTH)
    lines = shown.out.splitlines()
    assert shown.code == 0 and len(lines) < 40
    assert lines[0].split() == ["cpu", "opencl:0"] and lines[1].split()[:5] == [
        "OPERATOR", "ROWS", "COLUMNS", "TOKENS", "CUT"]
    qkv = next(line for line in lines if line.startswith("blk.0-28.attn_qkv "))
    assert qkv.split()[1:7] == ["960", "576", str(LENGTH), "causal", "tokens", qkv.split()[6]]
    assert qkv.split()[6].startswith("0-") and qkv.count("tokens ") == 2 and f"-{LENGTH - 1} " in qkv
    assert any(line.startswith("blk.29.attn_qkv ") for line in lines)
    assert f"{LENGTH} tokens; regime causal, 1 join per layer" in lines and "; alone: cpu " in lines[-1]


# ---- timelines --------------------------------------------------------------------------------------------------------


def check_trace(text, pids):
    trace = json.loads(text)
    events = trace["traceEvents"]
    names = {(e["pid"], e["args"]["name"]) for e in events if e["ph"] == "M" and e["name"] == "process_name"}
    assert names == {(1, "predicted"), (2, "measured")} & {(p, n) for p in pids for n in ("predicted", "measured")}
    tracks = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["ph"] == "M" and e["name"] == "thread_name"}
    found = {}
    for event in events:
        assert event["ph"] in ("M", "X")
        if event["ph"] == "X":
            assert set(event) == {"name", "cat", "ph", "pid", "tid", "ts", "dur", "args"}
            assert event["ts"] >= 0 and event["dur"] >= 0
            assert event["cat"] == ("wait" if event["name"] == "wait" else "operator")
            found.setdefault((event["pid"], event["tid"]), []).append(event)
    assert {pid for pid, _ in found} == set(pids) and set(found) <= set(tracks)
    for track in found.values():  # in order, and nothing at the same time
        for one, next_one in zip(track, track[1:]):
            assert one["ts"] + one["dur"] <= next_one["ts"] + 1e-2, (one, next_one)
    return tracks, found


@pytest.mark.parametrize("options", [("--length", LENGTH), ("--length", LENGTH, "--run"), ("--decode", "--run")])
@pytest.mark.parametrize("cuts", CUTS)
def test_trace(hetero, model, lanes, tmp_path, cuts, options):
    if cuts == "causal" and options[0] == "--decode":
        pytest.skip("one token cannot be shared by tokens")
    path = tmp_path / "trace.json"
    made = hetero("plan", model, *lanes, "--cuts", cuts, *options, "--trace", path, "--json").json
    pids = [1, 2] if "--run" in options else [1]
    tracks, found = check_trace(path.read_text(), pids)
    assert {name for (pid, _), name in tracks.items() if pid == 1} == {"cpu", "opencl:0"}
    used = {s["device"] for o in made["operators"] for s in o["slices"]}
    assert {(pid, tracks[pid, tid]) for pid, tid in found} == {(pid, device) for pid in pids for device in used}
    events = [e for track in found.values() for e in track]
    assert any(e["name"] == "wait" for e in events) == (len(used) == 2)
    operators = {o["name"] for o in made["operators"]}
    assert {e["name"] for e in events if e["pid"] == 1} - {"wait"} == operators
    if "--run" in options:  # greedy choice is not part of it
        measured = {e["name"] for e in events if e["pid"] == 2} - {"wait"}
        assert operators - measured <= {made["operators"][-1]["name"]} and measured <= operators
    slices = {(o["name"], s["device"]) for o in made["operators"] for s in o["slices"]}
    assert {(e["name"], e["args"]["device"]) for e in events if e["pid"] == 1 and e["name"] != "wait"} == slices
    end = max(e["ts"] + e["dur"] for e in events if e["pid"] == 1)
    # the planner counts joins for lanes, too, that have nothing to tell, and leaves out by how much a lane lags behind the one
    # whose keys it waits for
    assert 0.4 * made["predicted_ms"] < end / 1e3 < 1.3 * made["predicted_ms"]


def test_trace_of_one_device(hetero, model, tmp_path):
    path = tmp_path / "trace.json"
    hetero("plan", model, "--devices", "cpu", "--length", 16, "--trace", path).refuses("no predicted times")
    assert not path.exists()
    assert hetero("plan", model, "--devices", "cpu", "--length", 16, "--trace", path, "--run").code == 0
    tracks, found = check_trace(path.read_text(), [2])
    assert list(tracks.values()) == ["cpu"]
    names = [e["name"] for e in found[2, 1]]
    assert len(names) > 9 * LAYERS and "wait" not in names
    hetero("plan", model, "--length", 16, "--run").refuses("--run", "--trace")
    nowhere = tmp_path / "no" / "trace.json"
    done = hetero("plan", model, "--devices", "cpu", "--length", 16, "--trace", nowhere, "--run")
    done.refuses(str(nowhere), code=1)


# ---- plans that are kept ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(hetero, model, lanes, tmp_path_factory):
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    shown = hetero("plan", model, *lanes, "--cuts", "causal", "--length", LENGTH, "--save", path)
    assert shown.code == 0
    return path, shown.out


def test_kept_plan_is_the_same(hetero, saved):
    path, shown = saved
    assert hetero("plan", "--load", path).out == shown
    again = path.with_name("again.json")
    again.write_text(hetero("plan", "--load", path, "--json").out)
    assert hetero("plan", "--load", again).out == shown
    assert hetero("plan", "--load", again, "--json").out == again.read_text()


def test_emulated_device_is_named(hetero, saved, tmp_path):
    plan = json.loads(saved[0].read_text())
    plan["memory"]["opencl:0"]["emulated"] = True
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan))
    shown = hetero("plan", "--load", path).out
    assert [line for line in shown.splitlines() if "emulated: timings are not meaningful" in line][0].startswith("opencl:0 holds ")


DAMAGE = [
    (lambda p: p.pop("operators"), "operators is missing"),
    (lambda p: p.pop("regime"), "regime is missing"),
    (lambda p: p.update(tokens=-1), "tokens must be a whole number"),
    (lambda p: p.update(predicted_ms="soon"), "predicted_ms must be a number"),
    (lambda p: p["single_device_ms"].update(cpu="x"), "single_device_ms.cpu must be a number"),
    (lambda p: p.update(dropped=["a\nb"]), "dropped must be lines of text"),
    (lambda p: p["memory"].pop("cpu"), "'cpu' is not listed in memory"),
    (lambda p: p["memory"]["cpu"].pop("emulated"), "memory.cpu.emulated"),
    (lambda p: p["memory"].update({"a\nb": p["memory"]["cpu"]}), "memory: a device's name"),
    (lambda p: p["operators"][3].pop("rows"), "operators[3].rows is missing"),
    (lambda p: p["operators"].insert(2, 7), "operators[2] must be an object"),
    (lambda p: p["operators"][4].update(name="a\x1b[2Jb"), "operators[4].name must be one line of text"),
    (lambda p: p["operators"][5]["slices"][0].update(row_end=1.5), "operators[5].slices[0].row_end must be a whole number"),
    (lambda p: p["operators"][1]["slices"][1].update(token_begin=9999),
     "operators[1].slices[1].token_end must not be less than token_begin"),
]


@pytest.mark.parametrize("damage,said", DAMAGE)
def test_damaged_plan_is_refused(hetero, saved, tmp_path, damage, said):
    plan = json.loads(saved[0].read_text())
    damage(plan)
    path = tmp_path / "damaged.json"
    path.write_text(json.dumps(plan))
    hetero("plan", "--load", path).refuses(str(path), said)


def test_file_that_is_no_plan(hetero, model, saved, tmp_path):
    path = tmp_path / "short.json"
    path.write_text(saved[0].read_text()[:1000])
    hetero("plan", "--load", path).refuses(str(path), "line ")
    path.write_text("[]")
    hetero("plan", "--load", path).refuses(str(path), "not a plan")
    hetero("plan", "--load", tmp_path / "absent").refuses("absent")
    hetero("plan", model, "--load", saved[0]).refuses("--load", "MODEL")
    hetero("plan", model, "--devices", "cpu", "--save", tmp_path / "no" / "plan.json").refuses("plan.json", code=1)


# ---- bench ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [1, 2])
def test_bench(hetero, model, lanes, rounds):
    rows = hetero("bench", model, *lanes, "--cuts", "causal", "--cuts", "head,feature", "--prompt", 32, "--gen", 4, "-r", 2,
                  "--rounds", rounds, "--json").json["rows"]
    assert [(row["cuts"], row.get("prompt"), row.get("gen")) for row in rows] == [
        ("causal", 32, None), ("causal", None, 4), ("head,feature", 32, None), ("head,feature", None, 4)]
    assert [row["joins"] for row in rows][:2] == [1, 0] and {row["joins"] for row in rows[2:]} <= {0, 2}
    for row in rows:
        assert row["predicted_tps"] > 0 and 0 < row["tps_min"] <= row["tps_median"] <= row["tps_max"]


def test_bench_in_turn_of_one_device(hetero, model):
    shown = hetero("bench", model, "--devices", "cpu", "--devices", "cpu", "--prompt", 8, "--gen", 0, "-r", 1, "--rounds", 3)
    lines = shown.out.splitlines()
    assert shown.code == 0 and len(lines) == 2 + 2
    assert lines[1].split()[5:7] == ["cuts", "joins"] and lines[2].split()[4:7] == ["auto", "-", "0"]
    hetero("bench", model, "--rounds", 0).refuses("--rounds", "'0'")


# ---- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["plan", "bench", "run", "score"])
def test_wrong_cut_is_named(hetero, command):
    hetero(command, "m.gguf", "--cuts", "row,diagonal,head").refuses("--cuts", "'diagonal'", "causal")
    hetero(command, "m.gguf", "--cuts", "").refuses("--cuts", "''")
    hetero(command, "m.gguf", "--cuts", "row,").refuses("--cuts", "''")


@pytest.mark.parametrize("strategy", ["tensor", "layer"])
@pytest.mark.parametrize("devices", ["cpu", "cpu:cpus=0", "cpu:cpus=0,opencl:0:cpus=0"])
def test_nothing_to_share_with(hetero, model, lanes, strategy, devices):
    hetero("plan", model, "--devices", devices, "--strategy", strategy).refuses(
        f"strategy {strategy} needs at least two devices that share no cores")
