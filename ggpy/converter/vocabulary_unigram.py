"""tokenizer.json of a unigram model, as transformers makes it of sentencepiece's.

The pieces and their scores are listed. The normalizer holds sentencepiece's character map; what else it and the pre-tokenizer do, white
space in front, behind and in a row, is seen from texts. Anything further has no place in GGUF, and is refused.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ggpy.arch.hf_config import HFConfig
from ggpy.converter.vocabulary_files import guarded, parts_of
from ggpy.converter.vocabulary_pieces import Pieces
from ggpy.errors import CheckpointError, printable
from ggpy.tokenizer import TokenType
from ggpy.tokenizer.token_table import BYTE_TOKEN

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Engine

LARGEST_SCORE = 1e30  # float32 holds it; sums stay finite
_SPACE = "▁"
_NORMALIZERS = ("Precompiled", "Strip", "Replace", "Prepend")
_PRE_TOKENIZERS = ("Metaspace", "WhitespaceSplit")


def read_unigram(json: HFConfig, engine: Engine, warnings: list[str]) -> Pieces:
    """The pieces of a unigram model. Raises CheckpointError for damaged files and for what GGUF cannot say."""
    model = json.section("model")
    texts, scores = _vocabulary(model)
    unknown = model.integer("unk_id", minimum=0, maximum=len(texts) - 1)
    has_bytes = model.boolean("byte_fallback", False)
    types = [TokenType.BYTE if has_bytes and BYTE_TOKEN.fullmatch(text) else TokenType.NORMAL for text in texts]
    types[unknown] = TokenType.UNKNOWN
    _refuse_other_parts(json)
    if has_bytes:
        warnings.append(f"{json.where}: it spells unknown text in bytes, which ggpy does; llama.cpp reads the unknown token instead")

    def ids(text: str) -> Sequence[int]:
        return guarded(lambda: engine.encode(text, add_special_tokens=False).ids, json.where)

    keys: dict[str, Any] = {
        "tokenizer.ggml.unknown_token_id": unknown,
        "tokenizer.ggml.remove_extra_whitespaces": ids("a  a") == ids("a a"),
    }
    charsmap = _charsmap(json)
    if charsmap is not None:
        keys["tokenizer.ggml.precompiled_charsmap"] = charsmap
    first = guarded(lambda: engine.encode("a", add_special_tokens=False).tokens, json.where)
    return Pieces(
        "t5", "default", texts, types, json.where, scores, add_space_prefix=bool(first) and first[0].startswith(_SPACE), further=keys
    )


def _vocabulary(model: HFConfig) -> tuple[list[str], list[float]]:
    """(texts, scores) by id."""
    entries = model.get("vocab")
    if not isinstance(entries, list) or not entries:
        raise model.refuse("vocab", "a list of pieces and their scores")
    for i, entry in enumerate(entries):
        good = isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str) and type(entry[1]) in (int, float)
        if not good or not entry[0] or not abs(entry[1]) < LARGEST_SCORE:
            raise CheckpointError(f"{model.where}: piece {i} is {printable(repr(entry), 80)}; expected a text and a score")
    return [text for text, _ in entries], [float(score) for _, score in entries]


def _refuse_other_parts(json: HFConfig) -> None:
    for section, known in (("normalizer", _NORMALIZERS), ("pre_tokenizer", _PRE_TOKENIZERS)):
        for part in parts_of(json.section(section)):
            kind = part.get("type", "Sequence")
            if kind not in (*known, "Sequence"):
                what = f"GGUF says of unigram models only {', '.join(known)}"
                raise CheckpointError(f"{json.where}: {section} {printable(repr(kind), 40)}; {what}")
            pattern = part.get("pattern")
            if kind == "Replace" and not (isinstance(pattern, dict) and set("".join(map(str, pattern.values()))) <= set(" {2,}+\\s▁")):
                raise CheckpointError(f"{json.where}: normalizer Replace of {printable(repr(pattern), 60)}; GGUF knows that of spaces only")


def _charsmap(json: HFConfig) -> np.ndarray | None:
    """The character map, uint8."""
    maps = [part.get("precompiled_charsmap") for part in parts_of(json.section("normalizer")) if part.get("type") == "Precompiled"]
    if not any(maps):
        return None
    if len(maps) > 1 or not isinstance(maps[0], str):
        raise CheckpointError(f"{json.where}: normalizer Precompiled: expected one precompiled_charsmap, in base64")
    try:
        return np.frombuffer(base64.b64decode(maps[0], validate=True), np.uint8)
    except (binascii.Error, ValueError) as error:
        raise CheckpointError(f"{json.where}: precompiled_charsmap is no base64: {printable(error)}") from None
