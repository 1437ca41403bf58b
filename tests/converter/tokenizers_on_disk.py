"""Small tokenizers, trained by the libraries that own the formats, as the files of a checkpoint directory."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from ggpy.tokenizer import TokenType

TEXT = [
    "In the beginning God created the heaven and the earth.",
    "And the earth was without form, and void; and darkness was upon the face of the deep.",
    "And God said, Let there be light: and there was light. 1 12 123 1234 don't I've they'll we're",
    "def main(argv):\n    return 0  # comment\n\n\tif x == 1:\n\t\tpass",
    "Über die Größe, été à l'école, привет мир, 你好世界, こんにちは",
] * 8


@cache
def sentencepiece_model(vocab_size: int = 420, **options: Any) -> bytes:
    """tokenizer.model as Llama has it: BPE, byte fallback, no normalization."""
    model = io.BytesIO()
    settings: dict[str, Any] = {
        "model_type": "bpe",
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "character_coverage": 0.99,
    }
    SentencePieceTrainer.Train(
        sentence_iterator=iter(TEXT), model_writer=model, vocab_size=vocab_size, minloglevel=2, num_threads=1, **settings | options
    )
    return model.getvalue()


def rewritten_as_merges(model: bytes, *, metaspace: bool = False) -> dict[str, Any]:
    """The tokenizer.json that transformers makes of a tokenizer.model: a merge for every way to split a piece into two."""
    processor = SentencePieceProcessor()
    processor.LoadFromSerializedProto(model)
    n = processor.GetPieceSize()
    ids = {processor.IdToPiece(i): i for i in range(n)}
    ranked = sorted((i for i in range(n) if not processor.IsByte(i) and not processor.IsControl(i)), key=lambda i: -processor.GetScore(i))
    merges = []
    for piece in map(processor.IdToPiece, ranked):
        cuts = [(piece[:at], piece[at:]) for at in range(1, len(piece)) if piece[:at] in ids and piece[at:] in ids]
        merges += sorted(cuts, key=lambda cut: (ids[cut[0]], ids[cut[1]]))
    engine = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if metaspace:
        engine.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    else:
        engine.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    engine.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    engine.add_special_tokens(["<unk>", "<s>", "</s>"])
    return json.loads(engine.to_str())


def rewritten_unigram(model: bytes, *, words: bool = False) -> dict[str, Any]:
    """The tokenizer.json that transformers makes of a unigram tokenizer.model; words: as of T5, which looks at words one by one."""
    from ggpy.converter.vocabulary_sentencepiece import read_sentencepiece

    read = read_sentencepiece(model, "", [])
    assert read.scores is not None
    has_bytes = any(kind is TokenType.BYTE for kind in read.types)
    pieces = list(zip(read.texts, read.scores, strict=True))
    engine = Tokenizer(models.Unigram(pieces, read.types.index(TokenType.UNKNOWN), has_bytes))
    charsmap = read.further.get("tokenizer.ggml.precompiled_charsmap")
    parts = [] if charsmap is None else [normalizers.Precompiled(charsmap.tobytes())]
    if read.further["tokenizer.ggml.remove_extra_whitespaces"]:
        parts += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    engine.normalizer = normalizers.Sequence(parts)
    marks = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    engine.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), marks]) if words else marks
    engine.decoder = decoders.Metaspace()
    engine.add_special_tokens(["<unk>", "<s>", "</s>"])
    return json.loads(engine.to_str())


@cache
def _byte_level(vocab_size: int) -> str:
    engine = Tokenizer(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    engine.train_from_iterator(TEXT, trainer)
    engine.add_tokens([AddedToken("<tool>", normalized=False)])
    return engine.to_str()


def byte_level_json(pre_tokenizer: Any = None, vocab_size: int = 400) -> dict[str, Any]:
    """tokenizer.json of a byte-level BPE tokenizer, cut as GPT-2 does or by another `tokenizers` pre-tokenizer."""
    engine = Tokenizer.from_str(_byte_level(vocab_size))
    if pre_tokenizer is not None:
        engine.pre_tokenizer = pre_tokenizer
    return json.loads(engine.to_str())


def write_tokenizer(folder: Path, **files: Any) -> Path:
    """Write `files`, named with _ for the last dot, as bytes, text or JSON."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        path = folder / ".".join(name.rsplit("_", 1))
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder
