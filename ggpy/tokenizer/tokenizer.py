"""Text to token ids and back, from the metadata of a GGUF file alone."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from ggpy.errors import TokenizerError, printable
from ggpy.gguf import Metadata
from ggpy.log import Log
from ggpy.tokenizer.byte_level import ByteLevelBPE
from ggpy.tokenizer.pretokenizers import PRE_TOKENIZERS, PreTokenizer
from ggpy.tokenizer.program import PRE_TOKENIZER_KEY, read_program
from ggpy.tokenizer.sentencepiece_bpe import SentencePieceBPE
from ggpy.tokenizer.sentencepiece_unigram import SentencePieceUnigram
from ggpy.tokenizer.special import SpecialTokens, settle_roles
from ggpy.tokenizer.stream import StreamDecoder
from ggpy.tokenizer.token_table import TokenTable, TokenType, read_token_table

log = Log(__name__)

_SENTENCEPIECE_DEFAULTS = {"bos": 1, "eos": 2}
_UNIGRAM_DEFAULTS = {"eos": 1, "unk": 2, "pad": 0}
_TEXT_ITSELF = (TokenType.CONTROL, TokenType.UNKNOWN, TokenType.USER_DEFINED)
_HIDDEN = (TokenType.CONTROL, TokenType.UNKNOWN)


class Model(Protocol):
    """What cuts ordinary text, free of special tokens, into tokens."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]: ...

    def token_bytes(self, text: str) -> bytes: ...


class Tokenizer:
    """The tokenizer of one model file.

    bos, eos, eot: ids, or None. end_ids: every id that ends a generation. add_bos, add_eos: what `add_special` adds.
    chat_template: Jinja source, or None.
    """

    def __init__(
        self, table: TokenTable, model: Model, metadata: Metadata, *, add_bos: bool, add_space_prefix: bool, add_eos: bool = False
    ):
        table, self.end_ids = settle_roles(table)
        self._table, self._model = table, model
        self._special = SpecialTokens(table, _stripping(table, metadata))
        self._bytes: list[bytes | None] = [None] * len(table.tokens)
        self.bos, self.eos, self.eot = (table.special.get(role) for role in ("bos", "eos", "eot"))
        self.add_bos = metadata.boolean("tokenizer.ggml.add_bos_token", add_bos)
        self.add_eos = metadata.boolean("tokenizer.ggml.add_eos_token", add_eos)
        self.add_space_prefix = metadata.boolean("tokenizer.ggml.add_space_prefix", add_space_prefix)
        self.chat_template: str | None = metadata.string("tokenizer.chat_template", None)
        for role, wanted, i in (("bos", self.add_bos, self.bos), ("eos", self.add_eos, self.eos)):
            if wanted and i is None:
                log.warning("%s: text should get a %s token, but tokenizer.ggml.%s_token_id gives none", table.where, role.upper(), role)

    @property
    def n_vocab(self) -> int:
        return len(self._table.tokens)

    @property
    def vocabulary(self) -> Sequence[str]:
        """The tokens' texts by id, as the file has them."""
        return self._table.tokens

    def of_type(self, *types: TokenType) -> list[int]:
        """The ids of all tokens of these types, ascending."""
        return self._table.of_type(*types)

    def special_id(self, role: str) -> int | None:
        """The id of a role ("pad", "unk", "fim_pre", …; see SPECIAL_ID_KEYS), or None."""
        return self._table.special.get(role)

    def token_type(self, id: int) -> TokenType:
        """What kind of token `id` is; ValueError for an id that is no token."""
        return TokenType(int(self._table.types[self._checked(id)]))

    def encode(self, text: str, *, add_special: bool = False, parse_special: bool = False) -> list[int]:
        """The ids of any text; lone surrogates become U+FFFD.

        add_special: put BOS in front and EOS behind where the model wants them. parse_special: control tokens spelled in the text become
        those tokens; leave it off for text that others wrote.
        """
        bos = [self.bos] if add_special and self.add_bos and self.bos is not None else []
        eos = [self.eos] if add_special and self.add_eos and self.eos is not None else []
        parts = self._special.split(_well_formed(text), parse_special)
        texts: list[str] = []
        after_special = True
        for part in parts:
            if isinstance(part, str):
                texts.append(" " + part if self._wants_space(after_special) else part)
            after_special = isinstance(part, int)
        encoded = iter(self._model.encode(texts))
        ids = [i for part in parts for i in ((part,) if isinstance(part, int) else next(encoded))]
        return bos + ids + eos

    def decode(self, ids: Iterable[int], *, special: bool = True) -> str:
        """The text of `ids`; bytes that are no UTF-8 become U+FFFD. Without `special`, control tokens print nothing.

        The space that encoding puts in front of a text is taken away again: for a text that goes on, use `stream`.
        """
        checked = [self._checked(i) for i in ids]
        pieces = [self._shown(i, special) for i in checked]
        if self.add_space_prefix and not isinstance(self._model, ByteLevelBPE):
            first = next((at for at, i in enumerate(checked) if self._table.types[i] not in _HIDDEN), None)
            if first is not None:
                pieces[first] = pieces[first].removeprefix(b" ")
        return b"".join(pieces).decode("utf-8", "replace")

    def token_bytes(self, id: int) -> bytes:
        """The bytes of one token; control tokens give their text. ValueError for an id that is no token."""
        id = self._checked(id)
        known = self._bytes[id]
        if known is None:
            known = self._bytes[id] = self._spell(id)
        return known

    def stream(self, *, special: bool = False) -> StreamDecoder:
        """A decoder for tokens that arrive one by one; without `special`, control tokens print nothing."""
        return StreamDecoder(lambda i: self._shown(self._checked(i), special))

    def _wants_space(self, after_special: bool) -> bool:
        return after_special and self.add_space_prefix and isinstance(self._model, SentencePieceBPE)

    def _shown(self, id: int, special: bool) -> bytes:
        return self.token_bytes(id) if special or self._table.types[id] not in _HIDDEN else b""

    def _spell(self, id: int) -> bytes:
        text, kind = self._table.tokens[id], self._table.types[id]
        if kind in _TEXT_ITSELF:
            return text.encode()
        if kind == TokenType.BYTE:
            return bytes((int(text[3:5], 16),))
        return self._model.token_bytes(text) if kind == TokenType.NORMAL else b""

    def _checked(self, id: int) -> int:
        index = operator.index(id)
        if not 0 <= index < self.n_vocab:
            raise ValueError(f"token id {index} is out of range; there are {self.n_vocab} tokens")
        return index


def load_tokenizer(metadata: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that a GGUF file's metadata describes.

    Raises GGUFError for keys that are missing or of a wrong type, TokenizerError for data that contradict themselves and for kinds of
    tokenizers that are not supported.
    """
    metadata = metadata if isinstance(metadata, Metadata) else Metadata.of(metadata)
    kind = metadata.string("tokenizer.ggml.model")
    if kind not in _LOADERS:
        supported = ", ".join(f"'{name}'" for name in _LOADERS)
        raise TokenizerError(
            f"{printable(metadata.path)}: tokenizer.ggml.model '{printable(kind, 40)}' is not supported; supported are {supported}"
        )
    return _LOADERS[kind](read_token_table(metadata), metadata)


def _load_sentencepiece(table: TokenTable, metadata: Metadata) -> Tokenizer:
    table = _with_defaults(table, _SENTENCEPIECE_DEFAULTS)
    model = SentencePieceBPE(table, metadata, metadata.boolean("tokenizer.ggml.add_space_prefix", True))
    return Tokenizer(table, model, metadata, add_bos=True, add_space_prefix=True)


def _load_unigram(table: TokenTable, metadata: Metadata) -> Tokenizer:
    table = _with_defaults(table, _UNIGRAM_DEFAULTS)
    add_space_prefix = metadata.boolean("tokenizer.ggml.add_space_prefix", False)
    model = SentencePieceUnigram(table, metadata, add_space_prefix)
    return Tokenizer(table, model, metadata, add_bos=False, add_eos=True, add_space_prefix=add_space_prefix)


def _with_defaults(table: TokenTable, roles: Mapping[str, int]) -> TokenTable:
    return replace(table, special={role: i for role, i in roles.items() if i < len(table.tokens)} | table.special)


def _load_byte_level(table: TokenTable, metadata: Metadata) -> Tokenizer:
    pre = _pre_tokenizer(metadata)
    model = ByteLevelBPE(table, metadata.packed_strings("tokenizer.ggml.merges"), pre)
    return Tokenizer(table, model, metadata, add_bos=pre.add_bos, add_space_prefix=False)


_LOADERS = {"llama": _load_sentencepiece, "t5": _load_unigram, "gpt2": _load_byte_level}


def _pre_tokenizer(metadata: Metadata) -> PreTokenizer:
    name = metadata.string("tokenizer.ggml.pre", "")
    where = printable(metadata.path)
    if PRE_TOKENIZER_KEY in metadata and name not in PRE_TOKENIZERS:
        return read_program(metadata, PRE_TOKENIZERS["default"])
    if not name:
        log.warning("%s: tokenizer.ggml.pre is missing; 'default' is taken, and the model may read text as it was not trained to", where)
        name = "default"
    if name not in PRE_TOKENIZERS:
        raise TokenizerError(f"{where}: tokenizer.ggml.pre '{printable(name, 40)}' is not known; known are {', '.join(PRE_TOKENIZERS)}")
    return read_program(metadata, PRE_TOKENIZERS[name])


def _stripping(table: TokenTable, metadata: Metadata) -> Iterable[int]:
    """The special tokens that take white space after them along. The file cannot say so; llama.cpp knows it of Phi-3 by its name."""
    name = metadata.string("general.name", "").lower()
    if "phi-3" not in name and "phi3" not in name:
        return ()
    special = table.of_type(TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNKNOWN)
    return [i for i in special if table.tokens[i] not in ("<unk>", "<s>", "<|endoftext|>")]


def _well_formed(text: str) -> str:
    """`text` with surrogate pairs joined and lone surrogates replaced, so that it has a UTF-8 form."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
