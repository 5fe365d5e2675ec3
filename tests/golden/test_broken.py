"""Files that are whole as GGUF but wrong as models: one line that names the culprit, exit 2, no crash."""
import subprocess

import numpy as np
import pytest

from test_tiny import make_tiny # which knows where the tools are
import tiny_families # noqa: E402

pytestmark = pytest.mark.check

def mixture(**keys):
    return dict(keys={**make_tiny.CASES["qwen3moe"]["keys"], **keys})


def keyed(case, **keys):
    """changed keys of a case, dots as in the file"""
    return dict(keys={**make_tiny.CASES[case].get("keys", {}), **{key.replace("__", "."): value for key, value in keys.items()}})


def without(case, tensor, *names):
    return (case, dict(shapes={tensor: None}), [tensor, "missing", *names])


def positive(values):
    values.flat[1] = 0.25


BROKEN = { # what is wrong -> (case, changes, what the line must name)
    "unknown family": ("llama", dict(arch="gpt99"), ["gpt99", "docs/models.md"]),
    "no matrix": ("llama", dict(shapes={"blk.1.ffn_up.weight": None}), ["blk.1.ffn_up.weight", "missing"]),
    "no norm": ("gemma3", dict(shapes={"blk.6.post_ffw_norm.weight": None}), ["blk.6.post_ffw_norm.weight", "missing"]),
    "no embedding": ("llama", dict(shapes={"token_embd.weight": None}), ["token_embd.weight", "missing"]),
    "no bias": ("qwen2", dict(shapes={"blk.0.attn_k.bias": None}), ["blk.0.attn_k.bias", "missing"]),
    "rows": ("llama", dict(shapes={"blk.0.attn_k.weight": (48, 64)}), ["blk.0.attn_k.weight", "[64, 48"]),
    "columns": ("llama", dict(shapes={"blk.0.ffn_down.weight": (64, 64)}), ["blk.0.ffn_down.weight", "[64, 64"]),
    "norm's length": ("qwen3", dict(shapes={"blk.1.attn_q_norm.weight": (16,)}), ["blk.1.attn_q_norm.weight"]),
    "head's rows": ("llama", dict(shapes={"output.weight": (100, 64)}), ["output.weight"]),
    "few embeddings": ("llama", dict(shapes={"token_embd.weight": (100, 64)}), ["token_embd.weight", "100", "289"]),
    "flat matrix": ("llama", dict(shapes={"blk.0.attn_q.weight": (64 * 64,)}), ["blk.0.attn_q.weight"]),
    "heads and kv heads": ("llama", dict(kv_heads=3), ["head_count", "4", "3"]),
    "more kv heads": ("llama", dict(kv_heads=8), ["llama.attention.head_count_kv"]),
    "no heads": ("llama", dict(heads=0, shapes={f"blk.{i}.attn_{n}.weight": None for i in (0, 1) for n in ("q", "output")}),
                 ["llama.attention.head_count"]),
    "odd heads": ("llama", dict(head_dim=15), ["15"]),
    "wide heads": ("llama", dict(head_dim=2048), ["llama.attention.key_length"]),
    "values differ": ("llama", dict(value_dim=8), ["value_length", "key_length"]),
    "layers": ("llama", dict(layers=2000), ["llama.block_count"]),
    "context": ("llama", dict(context=0), ["llama.context_length"]),
    "no epsilon": ("llama", dict(eps=None), ["layer_norm_rms_epsilon"]),
    "epsilon": ("llama", dict(eps=float("nan")), ["layer_norm_rms_epsilon"]),
    "rope base": ("llama", dict(base=0.0), ["base"]),
    "rope dimensions": ("llama", dict(rope_dim=18), ["llama.rope.dimension_count"]),
    "rope scaling": ("llama", dict(scaling=dict(type="octave", factor=2.0)), ["llama.rope.scaling.type", "octave"]),
    "rope factor": ("llama", dict(scaling=dict(type="linear", factor=-2.0)), ["rope.scaling.factor"]),
    "nothing": ("llama-freqs", {}, []), # the harness itself must not break what it writes
    "experts": ("gemma3", dict(keys={"expert_count": 8}), ["gemma3.expert_count"]),
    "no expert used": ("qwen3moe", mixture(expert_used_count=0), ["qwen3moe.expert_used_count 0"]),
    "more used than there are": ("qwen3moe", mixture(expert_used_count=9), ["qwen3moe.expert_used_count 9", "expert_count 8"]),
    "too many experts": ("qwen3moe", mixture(expert_count=1025), ["qwen3moe.expert_count", "1024"]),
    "router's columns": ("qwen3moe", dict(shapes={"blk.0.ffn_gate_inp.weight": (8, 32)}), ["blk.0.ffn_gate_inp.weight", "[32, 8"]),
    "unknown weights": ("qwen3moe", mixture(expert_gating_func=4), ["qwen3moe.expert_gating_func 4"]),
    "no experts": ("olmoe", keyed("olmoe", expert_count=0), ["olmoe.expert_count"]),
    "shared expert too wide": ("qwen2moe", keyed("qwen2moe", expert_shared_feed_forward_length=1 << 21), ["qwen2moe.expert_shared"]),
    "no gate of the shared expert": without("qwen2moe", "blk.0.ffn_gate_inp_shexp.weight"),
    "no bias for choosing": without("glm4moe", "blk.1.exp_probs_b.bias"),
    "period of queries": ("mistral4", keyed("mistral4", attention__temperature_length=0), ["mistral4.attention.temperature_length"]),
    "all layers guess": ("glm4moe", keyed("glm4moe", nextn_predict_layers=5), ["glm4moe.nextn_predict_layers"]),
    "groups of experts": ("qwen3moe", mixture(expert_group_count=3), ["qwen3moe.expert_count 8", "expert_group_count 3"]),
    "experts of too few groups": ("qwen3moe", mixture(expert_group_count=4, expert_group_used_count=1), ["3 experts", "1 of 4 groups"]),
    "scale of experts": ("qwen3moe", mixture(expert_weights_scale=float("inf")), ["qwen3moe.expert_weights_scale"]),
    "experts' rows": ("qwen3moe", dict(shapes={"blk.1.ffn_down_exps.weight": (8, 32, 48)}), ["blk.1.ffn_down_exps.weight"]),
    "no experts' tensor": ("qwen3moe", dict(shapes={"blk.0.ffn_up_exps.weight": None}), ["blk.0.ffn_up_exps.weight", "missing"]),
    **{f"no {name}": without("gpt-oss", f"blk.1.{name}.bias") for name in (
        "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")},
    "no sinks": without("gpt-oss", "blk.1.attn_sinks.weight"),
    "no bias for choosing": without("lfm2moe", "blk.2.exp_probs_b.bias"),
    "no bias for choosing, optional": ("deepseek2", dict(shapes={"blk.1.exp_probs_b.bias": None}), []),
    "no shared router": without("qwen35moe", "blk.0.ffn_gate_inp_shexp.weight"),
    "no norm of queries": without("command-r-plus", "blk.0.attn_q_norm.weight"),
    "no norm of keys": without("command-r-plus", "blk.0.attn_k_norm.weight"),
    "gate twice": ("qwen35moe-merged", dict(extra={"blk.0.ffn_gate_exps.weight": np.zeros((8, 32, 64), np.float32)}),
                   ["layer 0", "ffn_gate_up_exps", "ffn_gate_exps"]),
    "up twice": ("qwen35moe-merged", dict(extra={"blk.0.ffn_up_exps.weight": np.zeros((8, 32, 64), np.float32)}),
                 ["layer 0", "ffn_gate_up_exps", "ffn_up_exps"]),
    "logits' scale": ("command-r", keyed("command-r", logit_scale=-0.1), ["command-r.logit_scale", "-0.1", "1e-06..1e+06"]),
    "negative scale of experts": ("qwen3moe", mixture(expert_weights_scale=-1.0), ["qwen3moe.expert_weights_scale", "is -1,"]),
    "huge scale of experts": ("qwen3moe", mixture(expert_weights_scale=1e30), ["qwen3moe.expert_weights_scale", "1e+30", "1e-06..1e+06"]),
    "scale of experts, as absent": ("qwen3moe", mixture(expert_weights_scale=0.0), []),
    "attention's scale": ("qwen35", keyed("qwen35", attention__scale=-0.1), ["qwen35.attention.scale", "-0.1"]),
    "huge attention's scale": ("granitehybrid", keyed("granitehybrid", attention__scale=1e38), ["granitehybrid.attention.scale", "1e+38"]),
    "residual scale": ("granitehybrid", keyed("granitehybrid", residual_scale=1e30), [
        "granitehybrid.residual_scale", "is 1e+30, which is not in 1e-06..1e+06"]),
    "multiplier": ("deepseek2", dict(scaling={**tiny_families.YARN, "yarn_log_multiplier": 1e30}), [
        "deepseek2.rope.scaling.yarn_log_multiplier", "1e+30", "0..1000"]),
    "growing states": ("qwen35", dict(edits={"blk.1.ssm_a": positive}), ["blk.1.ssm_a", "value 1 is 0.25"]),
    "growing scan": ("granitehybrid", dict(edits={"blk.1.ssm_a": positive}), ["blk.1.ssm_a", "value 1 is 0.25"]),
    "too many flags": ("olmo2-window", keyed("olmo2-window", attention__sliding_window_pattern=[True] * 5), [
        "olmo2.attention.sliding_window_pattern", "5 items for 4 layers"]),
    "too few flags": ("olmo2-window", keyed("olmo2-window", attention__sliding_window_pattern=[True] * 3), [
        "olmo2.attention.sliding_window_pattern", "3 items for 4 layers"]),
    "too many layers' heads": ("lfm2", dict(kv_heads=[0, 0, 2, 0, 2, 2]), ["lfm2.attention.head_count_kv", "6 items for 5 layers"]),
    "heads of layers": ("lfm2", dict(kv_heads=[0, 0, 3, 0, 2]), ["layer 4 has 6 heads for 2 key-value heads", "2 at most"]),
    "softcapping": ("gemma3", dict(keys={"final_logit_softcapping": -30.0}), ["gemma3.final_logit_softcapping"]),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken(binary, tmp_path, what):
    case, changes, names = BROKEN[what]
    path = tmp_path / "broken.gguf"
    if changes.get("layers", 0) > 1000: # the key is enough: nobody wants to write the tensors
        changes = {**changes, "shapes": {f"blk.{i}.{n}.weight": None for i in range(2, 2000) for n in (
            "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down", "attn_norm", "ffn_norm")}}
    make_tiny.write(case, path, **changes)
    # inspect would show the vocabulary of a file whose architecture is not supported
    command = ["score", path, "--ids", "1", "--devices", "cpu"] if names else ["inspect", path]
    done = subprocess.run([binary, *command], capture_output=True, text=True, timeout=60, check=False)
    if not names:
        assert done.returncode == 0, done.stderr
        return
    assert done.returncode == 2 and done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    for name in ["broken.gguf", *names]:
        assert name in lines[0], lines[0]


def spoil(value):
    def edit(values):
        values.reshape(-1, values.shape[-1])[3, 5] = value
    return edit


def block_scale(value):
    def edit(blocks): # 17 bytes each, of which the first is the scale's exponent
        blocks.reshape(-1, 17)[2, 0] = value
    return edit


NAN, INF, WIDE = float("nan"), float("inf"), "a scale of 2^17, above 2^16, is too large"
UNUSABLE = { # what is wrong -> (case, tensor, edit, what is said of it; None: it is taken)
    "router": ("qwen3moe", "blk.0.ffn_gate_inp.weight", spoil(NAN), "not numbers"),
    "infinite router": ("qwen3moe", "blk.0.ffn_gate_inp.weight", spoil(INF), "not numbers"),
    "shared router": ("qwen35moe", "blk.0.ffn_gate_inp_shexp.weight", lambda values: values.put(5, NAN), "not numbers"),
    "experts' gate": ("gpt-oss", "blk.0.ffn_gate_exps.weight", spoil(NAN), "not numbers"),
    "experts' up": ("gpt-oss", "blk.0.ffn_up_exps.weight", spoil(-INF), "not numbers"),
    "largest scale": ("gpt-oss-mxfp4", "blk.0.ffn_up_exps.weight", block_scale(143), None),
    "scale": ("gpt-oss-mxfp4", "blk.0.ffn_up_exps.weight", block_scale(144), WIDE),
    "wide scale": ("gpt-oss-mxfp4", "blk.1.ffn_down_exps.weight", block_scale(254), "2^127, above 2^16, is too large"),
    "no scale": ("gpt-oss-mxfp4", "blk.0.ffn_gate_exps.weight", block_scale(255), "not numbers"),
}


@pytest.mark.parametrize("name", ["cpu", "gpu"])
@pytest.mark.parametrize("what", UNUSABLE)
def test_unusable_weights(binary, request, tmp_path, name, what):
    """Every device refuses what the mixtures' choices, clamps and sigmoids would swallow, with the same words."""
    case, tensor, edit, says = UNUSABLE[what]
    name = request.getfixturevalue("gpu") if name == "gpu" else name # or there is none
    make_tiny.write(case, tmp_path / "bad.gguf", edits={tensor: edit})
    done = subprocess.run([binary, "score", tmp_path / "bad.gguf", "--ids", "1,2,3,4", "--devices", name], capture_output=True,
                          text=True, timeout=60, check=False)
    assert done.returncode == (2 if says else 0), done.stderr
    assert not says or (tensor in done.stderr and says in done.stderr), done.stderr


@pytest.mark.parametrize("kind,names", [(None, ["tokenizer.ggml.model", "missing"]), ("morse", ["tokenizer.ggml.model", "morse"])])
def test_without_tokenizer(binary, tmp_path, score, command_json, kind, names):
    """Token ids are scored as ever, and benches run; who has text is told why that is not to be."""
    whole, bare = tmp_path / "whole.gguf", tmp_path / "bare.gguf"
    make_tiny.write("llama-tied", whole)
    make_tiny.write("llama-tied", bare, tokenizer=kind)
    ids = make_tiny.ids("llama-tied")[:20]
    assert score(bare, ids, "exact") == score(whole, ids, "exact")
    assert command_json("bench", bare, "--prompt", 8, "--gen", 2, "-r", 1)
    assert command_json("inspect", bare)["tokenizer"] == ""
    for command in (["tokenize", bare, "-p", "hello"], ["run", bare, "--raw", "-p", "hello"], ["score", bare, "-p", "hello"]):
        done = subprocess.run([binary, *command], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2 and done.stdout == ""
        for name in ["bare.gguf", "token ids only", *names]:
            assert name in done.stderr.splitlines()[-1], done.stderr


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """A model whose context is shorter than what commands take where nobody says how much."""
    path = tmp_path_factory.mktemp("short") / "short.gguf"
    make_tiny.write("qwen3moe", path, context=100)
    return path


def test_defaults_fit_the_context(binary, command_json, short):
    bench = command_json("bench", short, "--devices", "cpu", "-r", 1)["rows"]
    assert [(row.get("prompt"), row.get("gen")) for row in bench] == [(64, None), (None, 64)]
    bench = command_json("bench", short, "--devices", "cpu", "-r", 1, "--ctx", 20)["rows"]
    assert [(row.get("prompt"), row.get("gen")) for row in bench] == [(20, None), (None, 19)]
    report = command_json("report", short, "--devices", "cpu")
    assert [(row.get("prompt"), row.get("gen")) for row in report["bench"][:3]] == [(64, None), (100, None), (None, 16)]
    asked = subprocess.run([binary, "bench", short, "--devices", "cpu", "--prompt", "128"], capture_output=True, text=True,
                           timeout=60, check=False)
    assert asked.returncode and "128 tokens exceed the model's own 100" in asked.stderr


def test_quantize_tells_what_stays(binary, short, tmp_path):
    done = subprocess.run([binary, "quantize", short, tmp_path / "out.gguf", "q4_0"], capture_output=True, text=True, timeout=60,
                          check=False)
    assert done.returncode == 0
    lines = [line for line in done.stderr.splitlines() if "F32" in line]
    assert len(lines) == 1
    for part in ("4 tensors are F32", "blk.0.ffn_down_exps.weight first", "48 values", "32", "Q4_0"):
        assert part in lines[0], lines[0]
    done = subprocess.run([binary, "quantize", short, tmp_path / "out.gguf", "f16"], capture_output=True, text=True, timeout=60,
                          check=False)
    assert done.returncode == 0 and "F32" not in done.stderr


def test_no_pieces_without_tokenizer(binary, tmp_path):
    make_tiny.write("llama-tied", tmp_path / "bare.gguf", tokenizer=None)
    done = subprocess.run([binary, "score", tmp_path / "bare.gguf", "--ids", "1,2,3", "--top", "2", "--devices", "cpu"],
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 4 and '"' not in done.stdout

def test_indexer(binary, tmp_path):
    """An indexer chooses all tokens of a context as long as its top_k; a longer context is refused."""
    path, ids = tmp_path / "m.gguf", make_tiny.ids("mistral4")
    make_tiny.write("mistral4", path, arch="deepseek32", **keyed("mistral4", attention__indexer__top_k=30, expert_gating_func=1))
    for n, code in (30, 0), (31, 2):
        done = subprocess.run([binary, "score", path, "--ids", ",".join(map(str, ids[:n]))], capture_output=True,
                              text=True, timeout=60, check=False)
        assert done.returncode == code and "30" in done.stderr and "indexer" in done.stderr
