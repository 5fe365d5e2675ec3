"""Trains tiny vocabularies on tests/data/text.txt and records how the libraries that trained them tokenize, for
tests/golden/vocabularies.json. Run it where the PyPI packages tokenizers and sentencepiece are installed; the test needs neither."""
import io
import json
import pathlib
import random

import sentencepiece
import sentencepiece.sentencepiece_model_pb2 as model_pb2
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, trainers

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXT = (ROOT / "tests" / "data" / "text.txt").read_text(encoding="utf-8")
LINES = [line for line in TEXT.splitlines() if line]
SCRAPS = [" ", "  ", "\n", "\t", "the", "The ", "12", "1234", "'s", "'LL", "\u00e9", "e\u0301", "\u4f60\u597d", "\ud55c\uad6d", "!",
          "...", "\ufb01", "\uff21", "\u00bd", "\U0001f999", "\u0410\u0431", "_", "-", "$", "\u200b", "\u3000", "x", "<b>"]
QWEN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def texts():
    pick = random.Random(4)
    return [line[:60] for line in pick.sample(LINES, min(6, len(LINES)))] + [
        "".join(pick.choice(SCRAPS) for _ in range(pick.randrange(1, 10))) for _ in range(18)]


def byte_level():
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(tokenizers.Regex(QWEN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.train_from_iterator(LINES, trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    return {"model": "gpt2", "pre": "qwen2", "tokens": tokens, "types": [1] * len(tokens), "merges": merges, "keys": {},
            "texts": [[text, tokenizer.encode(text).ids] for text in texts()]}


def wordpiece():
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(LINES, trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False))
    vocabulary = tokenizer.get_vocab()
    names = sorted(vocabulary, key=vocabulary.get)
    tokens = [t if t in special else t[2:] if t.startswith("##") else "\u2581" + t for t in names]
    return {"model": "bert", "tokens": tokens, "types": [3 if t in special else 1 for t in names],
            "keys": {"bos_token_id": 2, "seperator_token_id": 3, "unknown_token_id": 1},
            "texts": [[text, tokenizer.encode(text).ids] for text in texts()]}


def pieces(kind, **options):
    """SentencePiece's own: what it calls unigram or BPE, with its table of replacements."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(LINES), model_writer=out, vocab_size=360, model_type=kind,
                                             hard_vocab_limit=False, minloglevel=2, **options)
    proto = model_pb2.ModelProto()
    proto.ParseFromString(out.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())
    return {"model": {"unigram": "t5", "bpe": "llama"}[kind], "tokens": [p.piece for p in proto.pieces],
            "types": [p.type for p in proto.pieces], "scores": [p.score for p in proto.pieces],
            "charsmap": proto.normalizer_spec.precompiled_charsmap.hex(),
            "keys": {"add_space_prefix": proto.normalizer_spec.add_dummy_prefix,
                     "remove_extra_whitespaces": proto.normalizer_spec.remove_extra_whitespaces,
                     "unknown_token_id": processor.unk_id(), "bos_token_id": processor.bos_id(),
                     "eos_token_id": processor.eos_id()},
            "texts": [[text, processor.encode(text)] for text in texts()]}


if __name__ == "__main__":
    rule = ROOT / "build" / "rule.tsv" # a small table: the usual one is 240 KB
    rule.write_text("FB01\t66 69\n9\t20\n3000\t20\nFF21\t41\n65 301\tE9\n200B\t\n")
    found = {"byte-level": byte_level(), "wordpiece": wordpiece()}
    for name, kind, options in (("unigram", "unigram", {}), ("unigram-bytes", "unigram", {"byte_fallback": True}),
                                ("bpe-bytes", "bpe", {"byte_fallback": True}),
                                ("bpe-spaces", "bpe", {"remove_extra_whitespaces": False, "add_dummy_prefix": False})):
        found[name] = pieces(kind, normalization_rule_tsv=str(rule), **options)
    target = ROOT / "tests" / "golden" / "vocabularies.json"
    target.write_text(json.dumps(found, ensure_ascii=True, indent=None, separators=(",", ":")).replace("],[", "],\n[") + "\n")
