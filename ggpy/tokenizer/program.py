"""What keys of our own say of a tokenizer: among them a pre-tokenizer that no name of `tokenizer.ggml.pre` stands for, kept in the file as
`tokenizers` writes it.

Keys of GGUF files that only ggpy reads: `ggpy.tokenizer.pre_tokenizer` and `ggpy.tokenizer.normalizer` hold those sections of
tokenizer.json, `ggpy.tokenizer.ignore_merges` says whether a word that is a token is taken whole. Each is there only where
`tokenizer.ggml.pre` does not say the same. `ggpy.tokenizer.precompiled_charsmap` and `ggpy.tokenizer.remove_extra_whitespaces` say of
SentencePiece BPE what keys of `tokenizer.ggml` say of unigram alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from ggpy.errors import TokenizerError, printable
from ggpy.gguf import Metadata
from ggpy.tokenizer.pretokenizers import PreTokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Engine

T = TypeVar("T")

PRE_TOKENIZER_KEY = "ggpy.tokenizer.pre_tokenizer"
NORMALIZER_KEY = "ggpy.tokenizer.normalizer"
IGNORE_MERGES_KEY = "ggpy.tokenizer.ignore_merges"
CHARSMAP_KEY = "ggpy.tokenizer.precompiled_charsmap"
MERGE_SPACES_KEY = "ggpy.tokenizer.remove_extra_whitespaces"
PROGRAM_KEYS = (PRE_TOKENIZER_KEY, NORMALIZER_KEY, IGNORE_MERGES_KEY, CHARSMAP_KEY, MERGE_SPACES_KEY)
MAX_PROGRAM = 2**16  # characters; the longest published ones, which list scripts by their ranges, have 3,000


def read_program(metadata: Metadata, named: PreTokenizer) -> PreTokenizer:
    """`named` with what the keys of the file say otherwise. Raises GGUFError for keys of a wrong type or size."""
    for key in (PRE_TOKENIZER_KEY, NORMALIZER_KEY):
        if len(metadata.string(key, "")) > MAX_PROGRAM:
            metadata.refuse(key, f"at most {MAX_PROGRAM} characters")
    return replace(
        named,
        program=metadata.string(PRE_TOKENIZER_KEY, ""),
        normalizer=metadata.string(NORMALIZER_KEY, ""),
        ignore_merges=metadata.boolean(IGNORE_MERGES_KEY, named.ignore_merges),
    )


def load_sections(pre: PreTokenizer, where: str) -> tuple[Any, Any]:
    """The `tokenizers` pre-tokenizer of `pre.program` and normalizer of `pre.normalizer`, each None where that is empty.

    Raises TokenizerError for what is no JSON and for what `tokenizers` refuses.
    """
    return (
        _load(pre.program, "pre_tokenizer", f"{where}: {PRE_TOKENIZER_KEY}").pre_tokenizer if pre.program else None,
        _load(pre.normalizer, "normalizer", f"{where}: {NORMALIZER_KEY}").normalizer if pre.normalizer else None,
    )


def guarded(action: Callable[[], T], where: str) -> T:
    """What `action` gives; whatever `tokenizers` raises, a Rust panic too, becomes TokenizerError."""
    try:
        return action()
    except Exception as error:
        raise TokenizerError(f"{where}: tokenizers refuses it: {printable(error)}") from None
    except BaseException as error:  # panics are no Exception, and the class cannot be imported
        if type(error).__name__ != "PanicException":
            raise
        raise TokenizerError(f"{where}: tokenizers fails on it: {printable(error)}") from None


def _load(text: str, section: str, where: str) -> Engine:
    from tokenizers import Tokenizer as Engine

    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{where}: no JSON: {printable(error)}") from None
    empty = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {}, "merges": []}}
    return guarded(lambda: Engine.from_str(json.dumps(empty | {section: value})), where)
