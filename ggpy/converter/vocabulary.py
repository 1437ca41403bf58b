"""A checkpoint's tokenizer as the `tokenizer.*` metadata of a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ggpy.arch.hf_config import HFConfig
from ggpy.converter.vocabulary_files import TokenizerFiles, load_engine, read_tokenizer_files
from ggpy.converter.vocabulary_json import read_tokenizer_json
from ggpy.converter.vocabulary_pieces import Pieces
from ggpy.converter.vocabulary_sentencepiece import read_sentencepiece
from ggpy.converter.vocabulary_special import added_ends, chat_templates, special_ids, special_keys
from ggpy.errors import CheckpointError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Engine

_KINDS_WITHOUT_READER = {"tekken.json": "Mistral's own format", "vocab.json": "a slow tokenizer", "vocab.txt": "WordPiece"}
_MAX_VOCABULARY = 2**24


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer ready to be written.

    metadata: `tokenizer.*` keys in file order; token types are int32 and scores float32 arrays, ids ints, flags bools. source: the file
    the tokens come from. warnings: what GGUF cannot say or the checkpoint leaves open, one line each.
    """

    metadata: dict[str, Any]
    source: str
    warnings: tuple[str, ...]

    @property
    def n_tokens(self) -> int:
        return len(self.metadata["tokenizer.ggml.tokens"])


def read_vocabulary(folder: Path, config: Mapping[str, Any]) -> Vocabulary:
    """The tokenizer of the checkpoint in `folder`, with as many tokens as `config` (config.json) gives `vocab_size`.

    tokenizer.model is taken where there is one, tokenizer.json otherwise. Raises CheckpointError for files that are missing, damaged or of
    a kind that is not supported; nothing in them is run.
    """
    config = config if isinstance(config, HFConfig) else HFConfig(config, str(folder / "config.json"))
    files, warnings = read_tokenizer_files(folder), []
    engine = _load_engine(files, warnings)
    pieces = _read_pieces(files, engine, warnings)
    pieces.add(files.added_tokens().values(), _n_rows(files, config, pieces), warnings)
    roles = special_ids(files, config, pieces.texts, warnings)
    add_bos, add_eos = added_ends(files, engine, roles, pieces.model, warnings)
    metadata: dict[str, Any] = {
        "tokenizer.ggml.model": pieces.model,
        "tokenizer.ggml.pre": pieces.pre,
        "tokenizer.ggml.tokens": pieces.texts,
        "tokenizer.ggml.scores": None if pieces.scores is None else np.array(pieces.scores, np.float32),
        "tokenizer.ggml.token_type": np.array(pieces.types, np.int32),
        "tokenizer.ggml.merges": pieces.merges,
        **special_keys(roles),
        "tokenizer.ggml.add_bos_token": add_bos,
        "tokenizer.ggml.add_eos_token": add_eos,
        "tokenizer.ggml.add_space_prefix": _add_space_prefix(files, pieces),
        **pieces.further,
        **chat_templates(files, warnings),
    }
    return Vocabulary({key: value for key, value in metadata.items() if value is not None}, Path(pieces.where).name, tuple(warnings))


def _load_engine(files: TokenizerFiles, warnings: list[str]) -> Engine | None:
    if files.json is None:
        return None
    try:
        return load_engine(files.json_text, files.json.where)
    except CheckpointError as error:
        if files.model is None:
            raise
        warnings.append(f"{error}; tokenizer.model is taken alone")
        return None


def _read_pieces(files: TokenizerFiles, engine: Engine | None, warnings: list[str]) -> Pieces:
    if files.model is not None:
        try:
            return read_sentencepiece(files.model, str(files.folder / "tokenizer.model"), warnings)
        except CheckpointError as error:
            if files.json is None:
                raise
            warnings.append(f"{error}; tokenizer.json is taken instead")
    if files.json is None or engine is None:
        others = [f"{name} ({what})" for name, what in _KINDS_WITHOUT_READER.items() if (files.folder / name).exists()]
        hint = f"; {' and '.join(others)} cannot be read" if others else ""
        raise CheckpointError(f"{files.folder}: no tokenizer.model and no tokenizer.json{hint}")
    return read_tokenizer_json(files.json, engine, files.config.boolean("clean_up_tokenization_spaces", True), warnings)


def _n_rows(files: TokenizerFiles, config: HFConfig, pieces: Pieces) -> int:
    """The rows of the embedding as config.json says, or as many as there are tokens."""
    n_known = max(len(pieces.texts), 1 + max(files.added_tokens(), default=-1))
    section = config if "vocab_size" in config else config.section("text_config")
    return section.integer("vocab_size", min(n_known, _MAX_VOCABULARY), maximum=_MAX_VOCABULARY)


def _add_space_prefix(files: TokenizerFiles, pieces: Pieces) -> bool:
    if pieces.model == "gpt2":
        return False  # readers put no space before the text here, and would only strip one when they write text
    return files.config.boolean("add_prefix_space", pieces.add_space_prefix)
