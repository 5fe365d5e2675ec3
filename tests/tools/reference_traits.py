"""What tells families apart in reference.py: those whose pass is made of its blocks, and in what they differ from Llama's."""

DEFAULTS = {
    "halves": False, # rope turns pairs (i, i + dim/2), else neighbours (2i, 2i + 1)
    "parallel": False, # both blocks of a layer read the same norm and are added at once
    "post_norms": False, # norms of what a block adds; elsewhere post_attention_norm is the feed-forward block's own
    # Where the file says a window and not which layers have it: every so manieth layer sees all tokens; 0: none; None: the
    # family has no windows.
    "pattern": None,
    "local_base": "wide", # of layers with a window: "wide": they turn as the others do, scaling included; "same": by the same base,
    # but without scaling; a number: by a base of their own, rope.freq_base_swa or this
    "norm_whole": False, # queries and keys are normed as whole rows
    "query_gate": False, # attn_q has each head's query, then a gate of what it gives
    "activation": "silu",
    "embedding_root": False, # embeddings times the root of their width
    "logit_divisor": False, # logit_scale divides
    "final_norm": "output_norm",
    "alone": False, # a layer is one block, which attn_norm stands before
    "positions": True, # False: nothing is rotated
    "embedding_normed": False, # by an RMS norm without weights
    "post_eps": None, # of norms of what blocks add; None: the model's
    "norm_after": False, # norms of queries and keys of heads follow the rotation
    "unit_norm": False, # they have no weights
    "still_every": 0, # every so manieth layer rotates nothing, and its queries grow with their position
    "chunk": 0, # layers of the pattern see the keys of their own run of so many positions, in place of a window
    "growth": 0.0, # of queries: attention.temperature_scale where the file does not say
    "gating": 1, # expert_gating_func where the file does not say: 1: softmax, 2: sigmoid
    "weighs_input": False, # experts weigh what they read
    "ignores": (), # tensors that the family has not, whatever a file has: "output.bias" of the model, "*attn_output.bias" of layers
    "mrope_halves": False, # halves where the file has sections of M-RoPE
    "plain_output": False, # the matrix behind attention has no bias, whatever the file has
    "finetuned": False, # rope.scaling.finetuned False: no positions at all
    "window_layers": 0, # only a model of so many layers has windows; 0: any
    "still_wide": False, # layers without a window know no positions, where others have one
    "query_scale": False, # queries grow with their position by attention.temperature_scale
    "logit_cap": False, # logits are capped by final_logit_softcapping
    "score_cap": False, # scores are capped by attn_logit_softcapping
}

QWEN = dict(halves=True)
FAMILIES = {
    "llama": {},
    "internlm2": {},
    "qwen2": QWEN,
    "qwen3": QWEN,
    "qwen3moe": QWEN,
    "qwen35": dict(QWEN, query_gate=True),
    "qwen35moe": dict(QWEN, query_gate=True),
    "qwen3next": dict(QWEN, query_gate=True),
    "mamba2": dict(alone=True, positions=False),
    "nemotron_h": dict(alone=True, activation="relu2", positions=False),
    "nemotron_h_moe": dict(alone=True, gating=2, activation="relu2", positions=False),
    "muse-glimmer": dict(logit_cap=True, post_norms=True, pattern=4, local_base="same", still_wide=True, embedding_normed=True, post_eps=1e-8),
    "gemma4": dict(logit_cap=True, halves=True, pattern=6, embedding_root=True), # reference_streams.py has its pass
    "gemma3n": dict(logit_cap=True, halves=True, pattern=5, local_base=10000.0, embedding_root=True), # likewise
    "gemma3": dict(halves=True, post_norms=True, pattern=6, local_base=10000.0, activation="gelu", embedding_root=True,
                   logit_cap=True),
    "gpt-oss": dict(halves=True, pattern=2),
    "nanbeige": {},
    "ernie4_5": dict(ignores=("*attn_output.bias", "*ffn_*.bias")),
    "mistral3": dict(query_scale=True),
    **dict.fromkeys(("qwen3vl", "seed_oss"), QWEN),
    "qwen2vl": dict(halves=True, ignores=("output.bias",)),
    "phi3": dict(halves=True, pattern=0),
    "gemma": dict(halves=True, activation="gelu", embedding_root=True),
    "gemma2": dict(halves=True, post_norms=True, pattern=2, activation="gelu", embedding_root=True, score_cap=True,
                   logit_cap=True),
    "granite": dict(logit_divisor=True, finetuned=True),
    "minicpm": dict(logit_divisor=True),
    "smollm3": dict(still_every=4),
    "glm4": dict(post_norms=True, mrope_halves=True),
    "hunyuan-dense": dict(halves=True, norm_after=True),
    "exaone4": dict(halves=True, post_norms=True, pattern=4, window_layers=64, still_wide=True),
    "cohere2": dict(parallel=True, pattern=4, still_wide=True),
    "lfm2": dict(halves=True, pattern=0, final_norm="token_embd_norm"),
    "lfm2moe": dict(halves=True, final_norm="token_embd_norm"),
    "granitehybrid": dict(logit_divisor=True, finetuned=True),
    "deepseek2": {},
    "command-r": dict(parallel=True),
    "mistral4": {},
    "granitemoe": dict(logit_divisor=True),
    "llama4": dict(norm_after=True, unit_norm=True, still_every=4, pattern=4, chunk=8192, growth=0.1, gating=2, weighs_input=True),
    "qwen2moe": QWEN,
    "qwen3vlmoe": QWEN,
    "olmoe": dict(halves=True, norm_whole=True),
    "phimoe": QWEN,
    "glm4moe": dict(halves=True, gating=2),
    "hunyuan-moe": dict(halves=True, norm_after=True),
    "ernie4_5-moe": dict(plain_output=True),
    "olmo2": dict(halves=True, post_norms=True, pattern=4, local_base="same", norm_whole=True),
}


class Traits:
    """those of a family as attributes"""

    def __init__(self, arch):
        vars(self).update(DEFAULTS, **FAMILIES[arch])
