"""Every command on the small model: fields of --json, and what people see."""
import json
import math
import pathlib

import pytest

pytestmark = pytest.mark.check

GREEDY = ("--temp", "0", "--quiet")
QUESTION = "Name three colours."


@pytest.fixture(scope="module")
def answer(hetero, model):
    return hetero("run", model, "-p", QUESTION, "-n", 24, "--json", "--logprobs", 3, *GREEDY).json


def test_devices(hetero):
    found = hetero("devices", "--json").json
    assert set(found) == {"devices", "missing"}
    cpu = next(device for device in found["devices"] if device["name"] == "cpu")
    assert {"name", "kind", "runtime", "description", "memory_bytes", "dtypes", "static_lengths",
            "unified_memory"} <= set(cpu)
    assert cpu["kind"] == "cpu" and cpu["memory_bytes"] > 0 and cpu["static_lengths"] == []
    assert {"int4", "int8"} <= set(cpu["dtypes"])
    for missing in found["missing"]:
        assert missing["name"] and missing["why"]
    shown = hetero("devices")
    assert shown.code == 0 and cpu["runtime"] in shown.out
    for missing in found["missing"]:
        assert missing["why"] in shown.out


def test_simulated_devices_are_listed_with_all_only(hetero):
    real, every = hetero("devices", "--json").json, hetero("devices", "--all", "--json").json
    simulated = [device for device in every["devices"] if device["name"].startswith("sim:")]
    assert len(simulated) >= 12 and not any(device["name"].startswith("sim:") for device in real["devices"])
    assert [d for d in every["devices"] if d not in simulated] == real["devices"] and every["missing"] == real["missing"]
    shown = hetero("devices").out
    assert "sim:" not in shown and f"{len(simulated)} simulated devices: see them with --all" in shown
    shown = hetero("devices", "--all").out
    assert all(device["name"] in shown for device in simulated) and "--all" not in shown
    assert "--all" in hetero("devices", "--help").out
    assert hetero("run", "--all", "x").code == 2


def test_inspect(hetero, model):
    info = hetero("inspect", model, "--json").json
    assert info["arch"] == "llama" and info["layers"] == 30 and info["vocabulary"] == 49152
    assert 134_000_000 < info["parameters"] < 136_000_000
    assert info["file_bytes"] == pathlib.Path(model).stat().st_size
    assert info["context_length"] > 0 and info["tensors_by_type"]["Q4_1"] > 0
    assert {row["type"]: row["tensors"] for row in info["types"]} == info["tensors_by_type"]
    assert info["tokenizer"].startswith("gpt2") and info["chat_template"]
    shown = hetero("inspect", model)
    assert shown.code == 0 and "llama" in shown.out and "Q4_1" in shown.out


def test_tokenize(hetero, model, tmp_path):
    text = "Hello, wörld!\n<|im_start|>"
    both = hetero("tokenize", model, "-p", text, "--json").json
    plain = hetero("tokenize", model, "-p", text, "--json", "--no-special").json
    assert len(both["ids"]) == len(both["pieces"]) and both["ids"][-1] == 1
    assert len(plain["ids"]) > len(both["ids"]) and 1 not in plain["ids"]
    # this model adds no BOS
    assert hetero("tokenize", model, "-p", text, "--json", "--no-special", "--parse-special").json == both
    file = tmp_path / "text"
    file.write_text(text, encoding="utf-8")
    assert hetero("tokenize", model, "-f", file, "--json").json == both
    assert hetero("tokenize", model, "-f", "-", "--json", stdin=text.encode()).json == both
    shown = hetero("tokenize", model, "-p", text).out.splitlines()
    assert [int(line.split()[0]) for line in shown] == both["ids"]
    assert '"\\n"' in " ".join(shown)
    assert hetero("tokenize", model, "-p", "", "--json").json["ids"] == []


def test_run_json(answer):
    assert {"prompt_ids", "ids", "text", "stop", "prefill_ms", "decode_ms", "prefill_tps", "decode_tps", "devices_used",
            "top"} <= set(answer)
    assert answer["stop"] == "limit" and len(answer["ids"]) == 24 and answer["text"]
    assert answer["prompt_ids"][0] == 1 and "cpu" in answer["devices_used"]
    assert answer["prefill_ms"] > 0 and answer["decode_ms"] > 0
    assert answer["prefill_tps"] == pytest.approx(1000 * len(answer["prompt_ids"]) / answer["prefill_ms"], rel=1e-3)
    assert answer["decode_tps"] == pytest.approx(1000 * 23 / answer["decode_ms"], rel=1e-3)
    assert len(answer["top"]) == 24
    for token, row in zip(answer["ids"], answer["top"]):
        assert len(row) == 3 and row[0]["id"] == token  # greedy takes the best
        assert 0 >= row[0]["logprob"] >= row[1]["logprob"] >= row[2]["logprob"]


def test_run_text_is_the_same_text(hetero, model, answer):
    done = hetero("run", model, "-p", QUESTION, "-n", 24, "--temp", "0")
    assert done.code == 0 and done.out == answer["text"].rstrip("\n") + "\n"
    assert done.err.startswith("prefill ") and "decode 24 tokens" in done.err and "on cpu" in done.err
    assert hetero("run", model, "-p", QUESTION, "-n", 2, *GREEDY).err == ""


def test_run_raw_and_system(hetero, model):
    raw = hetero("run", model, "-p", "The capital of France is", "--raw", "-n", 3, "--json", *GREEDY).json
    assert raw["prompt_ids"] == hetero("tokenize", model, "-p", "The capital of France is", "--json").json["ids"]
    system = hetero("run", model, "-p", "Hi", "--system", "Be terse.", "-n", 1, "--json", *GREEDY).json
    pieces = hetero("tokenize", model, "-p", "Be terse.", "--json").json["ids"]
    joined = ",".join(map(str, system["prompt_ids"]))
    assert ",".join(map(str, pieces)) in joined


def test_run_prompt_from_file_and_standard_input(hetero, model, tmp_path, answer):
    file = tmp_path / "prompt"
    file.write_text(QUESTION)
    for arguments, stdin in ((("-f", file), b""), (("-f", "-"), QUESTION.encode())):
        other = hetero("run", model, *arguments, "-n", 24, "--json", *GREEDY, stdin=stdin).json
        assert other["ids"] == answer["ids"] and "top" not in other


def test_stop_string(hetero, model, answer):
    text = answer["text"]
    stop = text[8:12]
    cut = hetero("run", model, "-p", QUESTION, "-n", 24, "--json", "--stop", stop, "--stop", "unlikely", *GREEDY).json
    assert cut["stop"] == "string" and cut["text"] == text[:text.index(stop)]
    shown = hetero("run", model, "-p", QUESTION, "-n", 24, "--stop", stop, *GREEDY)
    assert stop not in shown.out and shown.out.rstrip("\n") == cut["text"].rstrip("\n")
    hetero("run", model, "-p", "x", "--stop", "").refuses("stop")


def test_seed(hetero, model):
    def ids(*options):
        return hetero("run", model, "-p", "Tell me a story.", "-n", 16, "--temp", "1.5", "--json", "--quiet", *options).json

    first = ids("--seed", 7)
    assert first["seed"] == 7 and first["ids"] == ids("--seed", 7)["ids"]
    assert len({tuple(ids("--seed", seed)["ids"]) for seed in range(4)}) > 1
    random = ids()
    assert random["ids"] == ids("--seed", random["seed"])["ids"]


def test_context_limit(hetero, model):
    long = "word " * 200
    hetero("run", model, "-p", long, "--ctx", 64, "--quiet").refuses("context", "64")
    hetero("score", model, "-p", long, "--ctx", 64, "--quiet").refuses("context", "64")
    full = hetero("run", model, "--raw", "-p", "word " * 40, "-n", 0, "--ctx", 48, "--json", *GREEDY).json
    assert full["stop"] in ("context", "end")
    assert len(full["prompt_ids"]) + len(full["ids"]) <= 49


def test_score(hetero, model):
    exact = ("--precision", "exact", "--json")  # where prefill and decode agree to the last digits shown here
    answer = hetero("run", model, "-p", QUESTION, "-n", 8, "--logprobs", 1, *exact, *GREEDY).json
    ids = answer["prompt_ids"] + answer["ids"]
    scored = hetero("score", model, "--ids", ",".join(map(str, ids)), "--top", 2, "--quiet", *exact).json
    assert scored["ids"] == ids and len(scored["logprobs"]) == len(ids) == len(scored["top"])
    assert scored["logprobs"][0] is None
    assert all(value <= 0 for value in scored["logprobs"][1:])
    start = len(answer["prompt_ids"])
    for i in range(start, len(ids)):  # what follows token i - 1 is what was sampled as token i
        assert scored["top"][i - 1][0]["logprob"] >= scored["logprobs"][i]
        assert scored["logprobs"][i] == pytest.approx(answer["top"][i - start][0]["logprob"], abs=0.01)
    plain = hetero("score", model, "--ids", "1,2,3", "--json", "--quiet").json
    assert set(plain) == {"ids", "logprobs"}


def test_score_of_text_and_chunks(hetero, model):
    text = "The quick brown fox jumps over the lazy dog."
    ids = hetero("tokenize", model, "-p", text, "--json").json["ids"]
    whole = hetero("score", model, "-p", text, "--precision", "exact", "--json", "--quiet").json
    assert whole["ids"] == ids
    for chunk in (1, 3):
        parts = hetero("score", model, "-p", text, "--precision", "exact", "--chunk", chunk, "--json", "--quiet").json
        assert parts["logprobs"][1:] == pytest.approx(whole["logprobs"][1:], abs=0.01)
    shown = hetero("score", model, "-p", text, "--top", 1, "--quiet")
    assert shown.code == 0 and "nats" in shown.out.splitlines()[-1] and len(shown.out.splitlines()) == len(ids) + 1


def test_score_refuses_bad_ids(hetero, model):
    hetero("score", model, "--ids", "1,49152").refuses("49152")


def test_threads_give_the_same_answer(hetero, model, answer):
    for threads in (1, 2):
        other = hetero("run", model, "-p", QUESTION, "-n", 8, "--json", "--threads", threads, *GREEDY).json
        assert other["ids"] == answer["ids"][:8]


@pytest.mark.parametrize("strategy", ["layer", "tensor"])
def test_strategy_that_needs_two_devices(hetero, model, strategy):
    hetero("run", model, "-p", "x", "--devices", "cpu", "--strategy", strategy).refuses(
        f"strategy {strategy} needs at least two devices")


@pytest.mark.parametrize("options", [("--strategy", "single"), ("--strategy", "auto"), ("--sync", "flag"),
                                     ("--npu-memory", "512M"), ("--openvino", "/"), ("--onnxruntime", "/"),
                                     ("--log-level", "error"), ("--devices", "cpu"), ("--precision", "exact")])
def test_options_accepted_by_every_model_command(hetero, model, options):
    assert hetero("score", model, "--ids", "1,2", "--quiet", *options).code == 0
    assert hetero("tokenize", model, "-p", "x", *options).code == 0
    assert hetero("inspect", model, *options).code == 0


def test_unknown_device(hetero, model):
    done = hetero("run", model, "-p", "x", "--devices", "quantum:0")
    assert done.code in (1, 2) and "quantum:0" in done.err and len(done.err.splitlines()) == 1


def test_perplexity(hetero, model, tmp_path):
    text = tmp_path / "text"
    text.write_text("The sun rises in the east and sets in the west. " * 12)
    result = hetero("perplexity", model, "-f", text, "--json", "--reference", "exact").json
    assert {"perplexity", "tokens", "kl_mean", "kl_max", "top1_agreement"} <= set(result)
    assert 1 < result["perplexity"] < 100 and result["tokens"] > 0
    assert 0 <= result["kl_mean"] <= result["kl_max"] and 0.5 < result["top1_agreement"] <= 1
    alone = hetero("perplexity", model, "-f", text, "--json").json
    assert alone["perplexity"] == pytest.approx(result["perplexity"]) and alone["kl_mean"] is None
    shown = hetero("perplexity", model, "-f", text)
    assert shown.out.startswith("perplexity ") and shown.err == ""
    text.write_text("short")
    hetero("perplexity", model, "-f", text).refuses("short")
    hetero("perplexity", model).refuses("-f FILE")


def test_quantize(hetero, model, tmp_path):
    out = tmp_path / "out.gguf"
    done = hetero("quantize", model, out, "q8_0", "--json").json
    assert done["in_bytes"] > 0 and done["out_bytes"] == out.stat().st_size > done["in_bytes"]
    info = hetero("inspect", out, "--json").json
    assert info["quantisation"] == "Q8_0" and info["layers"] == 30
    assert hetero("run", out, "-p", QUESTION, "-n", 4, "--json", *GREEDY).json["text"]
    hetero("quantize", model, out, "q9_9").refuses("q9_9")
    hetero("quantize", model, tmp_path / "no" / "out.gguf", "q4_0").refuses("out.gguf", code=1)


def test_quantize_does_not_destroy_its_input(hetero, model, tmp_path):
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(pathlib.Path(model).read_bytes())
    done = hetero("quantize", copy, copy, "q8_0")
    if done.code:
        assert copy.read_bytes() == pathlib.Path(model).read_bytes()
    assert hetero("inspect", copy).code == 0


def test_bench(hetero, model):
    result = hetero("bench", model, "--prompt", "8,16", "--gen", 4, "-r", 2, "--threads", "1,2", "--json").json
    assert result["machine"] and result["commit"] and len(result["rows"]) == 6
    for row in result["rows"]:
        assert {"devices", "threads", "strategy", "precision", "sync", "tps_median", "tps_min", "tps_max",
                "predicted_tps", "cuts", "joins", "peak_rss_bytes"} <= set(row)
        assert row["cuts"] is None and row["joins"] == 0
        assert ("prompt" in row) != ("gen" in row) and row["predicted_tps"] is None
        assert 0 < row["tps_min"] <= row["tps_median"] <= row["tps_max"] and row["peak_rss_bytes"] > 0
    assert [(row["threads"], row.get("prompt")) for row in result["rows"]] == [
        (1, 8), (1, 16), (1, None), (2, 8), (2, 16), (2, None)]


def test_bench_sequences(hetero, model):
    rows = hetero("bench", model, "--prompt", 4, "--gen", "4,6", "--sequences", "1,3", "-r", 1, "--json").json["rows"]
    assert [(row.get("prompt"), row.get("gen"), row["sequences"]) for row in rows] == [
        (4, None, 1), (None, 4, 1), (None, 4, 3), (None, 6, 1), (None, 6, 3)]
    assert all(row["tps_median"] > 0 for row in rows)
    shown = hetero("bench", model, "--prompt", 0, "--gen", 4, "--sequences", 3, "-r", 1).out
    assert " 4x3 " in shown
    hetero("bench", model, "--sequences", 65).refuses("sequences")
    hetero("bench", model, "--sequences", 0).refuses("sequences")


def test_bench_table_and_left_out_phases(hetero, model):
    shown = hetero("bench", model, "--prompt", 0, "--gen", 2, "-r", 1, "--precision", "fast,exact", "--sync", "auto,flag",
                   "--strategy", "single")
    lines = shown.out.splitlines()
    assert shown.code == 0 and len(lines) == 2 + 4 and all(line.startswith("gen ") for line in lines[2:])
    assert sum(" exact " in line for line in lines) == 2 and sum(" flag " in line for line in lines) == 2
    rows = hetero("bench", model, "--gen", 0, "--prompt", 4, "-r", 1, "--json").json["rows"]
    assert [row["prompt"] for row in rows] == [4]
    several = hetero("bench", model, "--gen", 0, "--prompt", 4, "-r", 1, "--devices", "cpu", "--devices", "cpu", "--json")
    assert len(several.json["rows"]) == 2
    hetero("bench", model, "--prompt", 4, "--strategy", "tensor", "--devices", "cpu", "--json").refuses("strategy tensor")


def test_output_that_cannot_be_written(binary, model):
    import subprocess

    with open("/dev/full", "wb") as full:
        done = subprocess.run([binary, "inspect", model, "--json"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1 and b"standard output" in done.stderr


def test_json_is_one_line(hetero, model):
    done = hetero("score", model, "--ids", "1,2", "--json", "--quiet")
    assert done.out.count("\n") == 1 and math.isfinite(json.loads(done.out)["logprobs"][1])


def test_users_text_is_plain(hetero, model):
    plain = hetero("run", model, "-p", "Hi<|im_end|>", "-n", 1, "--json", *GREEDY).json["prompt_ids"]
    parsed = hetero("run", model, "-p", "Hi<|im_end|>", "-n", 1, "--json", "--parse-special", *GREEDY).json["prompt_ids"]
    assert plain.count(2) == 2 and parsed.count(2) == 3
    marks = hetero("run", model, "-p", "Hi", "-n", 1, "--json", "--no-special", *GREEDY).json["prompt_ids"]
    assert marks.count(1) == 3 and marks.count(2) == 2
    raw = hetero("run", model, "-p", "<|im_start|>user", "--raw", "-n", 1, "--json", *GREEDY).json["prompt_ids"]
    assert 1 not in raw
    scored = hetero("score", model, "-p", "a<|im_end|>", "--json").json["ids"]
    assert 2 not in scored and hetero("score", model, "-p", "a<|im_end|>", "--json", "--parse-special").json["ids"][-1] == 2


def test_seed_0_is_a_seed(hetero, model):
    texts = [hetero("run", model, "-p", "Tell me a story.", "-n", 16, "--seed", 0, "--temp", 1.5, "--json").json for _ in range(2)]
    assert texts[0]["text"] == texts[1]["text"] and texts[0]["seed"] == 0
    talks = [hetero("chat", model, "--seed", 0, "--ctx", 80, "--temp", 1.5, stdin=b"Tell me a story.\n").out for _ in range(2)]
    assert talks[0] == talks[1] != ""


def test_stop_at_a_control_token(hetero, model):
    whole = hetero("run", model, "-p", "Say hi.", "--json", *GREEDY).json
    stopped = hetero("run", model, "-p", "Say hi.", "--json", "--stop", "<|im_end|>", *GREEDY).json
    assert whole["stop"] == "end" and stopped["stop"] == "string" and stopped["ids"] == whole["ids"]


def test_byte_order_mark(hetero, model, tmp_path):
    file = tmp_path / "text"
    file.write_bytes(b"\xef\xbb\xbfHello")
    marked = hetero("tokenize", model, "-f", file, "--json")
    assert marked.json == hetero("tokenize", model, "-p", "Hello", "--json").json and "byte order mark" in marked.err
    assert "byte order mark" not in hetero("tokenize", model, "-f", file, "--json", "--quiet").err
