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
    "finetuned": False, # rope.scaling.finetuned False: no positions at all
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
    "gemma3": dict(halves=True, post_norms=True, pattern=6, local_base=10000.0, activation="gelu", embedding_root=True),
    "gpt-oss": dict(halves=True, pattern=2),
    "lfm2": dict(halves=True, pattern=0, final_norm="token_embd_norm"),
    "lfm2moe": dict(halves=True, final_norm="token_embd_norm"),
    "granitehybrid": dict(logit_divisor=True, finetuned=True),
    "deepseek2": {},
    "command-r": dict(parallel=True),
    "olmo2": dict(halves=True, post_norms=True, pattern=4, local_base="same", norm_whole=True),
}


class Traits:
    """those of a family as attributes"""

    def __init__(self, arch):
        vars(self).update(DEFAULTS, **FAMILIES[arch])
