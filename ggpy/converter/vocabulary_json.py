"""tokenizer.json: byte-level BPE, and SentencePiece BPE that was rewritten as merges; unigram is read by a neighbour."""

from __future__ import annotations

from collections.abc import Iterator
from json import dumps
from typing import TYPE_CHECKING, Any

from ggpy.arch.hf_config import HFConfig
from ggpy.converter.vocabulary_files import MAX_TOKEN_ID, guarded, parts_of
from ggpy.converter.vocabulary_pieces import Pieces
from ggpy.converter.vocabulary_pre import Choice, choose_pre
from ggpy.converter.vocabulary_unigram import read_unigram
from ggpy.errors import CheckpointError, printable
from ggpy.tokenizer import TokenType
from ggpy.tokenizer.program import IGNORE_MERGES_KEY, MAX_PROGRAM, NORMALIZER_KEY, PRE_TOKENIZER_KEY
from ggpy.tokenizer.token_table import BYTE_TOKEN

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Engine

_SPACE = "▁"
_UNSUPPORTED_BPE = ("continuing_subword_prefix", "end_of_word_suffix", "dropout")


def read_tokenizer_json(json: HFConfig, engine: Engine, clean_spaces: bool, warnings: list[str]) -> Pieces:
    """The model of a tokenizer.json, without added tokens.

    clean_spaces: `clean_up_tokenization_spaces` of tokenizer_config.json. Raises CheckpointError for damaged files and for kinds of
    models that are not supported.
    """
    model = json.section("model")
    kind = model.string("type", "BPE")
    if kind == "Unigram":
        return read_unigram(json, engine, warnings)
    if kind != "BPE":
        what = "supported are Unigram, and BPE, byte-level or with byte fallback"
        raise CheckpointError(f"{json.where}: the model is {printable(kind, 40)}; {what}")
    for key in _UNSUPPORTED_BPE:
        if model.get(key):
            raise model.refuse(key, "none, as GGUF cannot say it")
    texts = _texts(model)
    merges = list(_merges(model))
    types = {part.get("type") for key in ("pre_tokenizer", "decoder") for part in parts_of(json.section(key))}
    if "ByteLevel" in types:
        pieces = Pieces("gpt2", "", texts, [TokenType.NORMAL] * len(texts), json.where, merges=[" ".join(pair) for pair in merges])
        ignore_merges = model.boolean("ignore_merges", False)
        choice = choose_pre(engine, ignore_merges, clean_spaces, json.where, warnings)
        _check_byte_level(json, merges)
        pieces.pre, pieces.further = choice.name, _program(json, choice, ignore_merges, warnings)
        return pieces
    if not model.boolean("byte_fallback", False):
        raise CheckpointError(f"{json.where}: BPE that is neither byte-level nor falls back to bytes is not supported")
    return _sentencepiece(json, model, texts, merges, engine)


def uses_metaspace(json: HFConfig) -> bool:
    """Whether spaces are marked by Metaspace, which puts no mark before a text that starts with a space (sentencepiece does)."""
    return any(part.get("type") == "Metaspace" for part in parts_of(json.section("pre_tokenizer")))


def _sentencepiece(json: HFConfig, model: HFConfig, texts: list[str], merges: list[tuple[str, str]], engine: Engine) -> Pieces:
    unknown = model.get("unk_token")
    types = [TokenType.BYTE if BYTE_TOKEN.fullmatch(text) else TokenType.UNKNOWN if text == unknown else TokenType.NORMAL for text in texts]
    pieces = Pieces("llama", "default", texts, types, json.where, scores=_scores(texts, merges))
    first = guarded(lambda: engine.encode("a", add_special_tokens=False).tokens, json.where)
    pieces.add_space_prefix = bool(first) and first[0].startswith(_SPACE)
    return pieces


def _scores(texts: list[str], merges: list[tuple[str, str]]) -> list[float]:
    """Scores that merge in the order of `merges`: minus the rank of the first merge that makes a piece; single characters come last."""
    rank: dict[str, int] = {}
    for at, (left, right) in enumerate(merges):
        rank.setdefault(left + right, at)
    return [-float(rank.get(text, len(merges))) for text in texts]


def _texts(model: HFConfig) -> list[str]:
    vocabulary = model.section("vocab")
    ids = {text: vocabulary.integer(text, minimum=0, maximum=MAX_TOKEN_ID) for text in vocabulary}
    if not ids:
        raise model.refuse("vocab", "at least one token")
    n = max(ids.values()) + 1
    if n > 8 * len(ids) + 2**16:
        raise CheckpointError(f"{vocabulary.where}: the largest id is {n - 1}, with {len(ids)} tokens")
    texts = [""] * n
    for text, i in ids.items():
        if not text or texts[i]:
            raise CheckpointError(
                f"{vocabulary.where}: token {i} is '{printable(text, 40)}' and '{printable(texts[i], 40)}'; expected one text"
            )
        texts[i] = text
    return texts


def _merges(model: HFConfig) -> Iterator[tuple[str, str]]:
    """The merges, written as "a b" or as ["a", "b"]."""
    merges = model.get("merges", [])
    if not isinstance(merges, list):
        raise model.refuse("merges", "a list")
    for at, merge in enumerate(merges):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) and part for part in pair):
            raise CheckpointError(f"{model.where}: merge {at} is {printable(repr(merge), 80)}; expected two tokens")
        yield pair[0], pair[1]


def _check_byte_level(json: HFConfig, merges: list[tuple[str, str]]) -> None:
    spaced = next((at for at, pair in enumerate(merges) if " " in pair[0] + pair[1]), None)
    if spaced is not None:
        raise CheckpointError(f"{json.where}: merge {spaced} has a space in a token, which byte-level BPE spells 'Ġ'")


def _program(json: HFConfig, choice: Choice, ignore_merges: bool, warnings: list[str]) -> dict[str, Any]:
    """The keys that only ggpy reads, for what `tokenizer.ggml.pre` cannot say; see ggpy.tokenizer.program."""
    keys: dict[str, Any] = {} if choice.merges else {IGNORE_MERGES_KEY: ignore_merges}
    cutter, normalizer = json.section("pre_tokenizer"), json.section("normalizer")
    prefixed = any(part.get("type") == "ByteLevel" and part.get("add_prefix_space") for part in parts_of(cutter))
    if prefixed:
        warnings.append(f"{json.where}: a space is put before the text, which ggpy reads from the file and llama.cpp cannot")
    if any(part.get("type") == "ByteLevel" for part in parts_of(cutter)) and (prefixed or not choice.cuts):
        keys[PRE_TOKENIZER_KEY] = dumps(dict(cutter), ensure_ascii=False)
    normalizers = sorted({str(part["type"]) for part in parts_of(normalizer) if part.get("type", "Sequence") != "Sequence"})
    if normalizers:
        names = printable(", ".join(normalizers), 80)
        warnings.append(f"{json.where}: text is normalized ({names}), which ggpy reads from the file; llama.cpp reads text as it is")
        keys[NORMALIZER_KEY] = dumps(dict(normalizer), ensure_ascii=False)
    for key in (PRE_TOKENIZER_KEY, NORMALIZER_KEY):
        if len(keys.get(key, "")) > MAX_PROGRAM:
            warnings.append(
                f"{json.where}: {len(keys.pop(key))} characters, more than the {MAX_PROGRAM} that are allowed for {key}: left out"
            )
    return keys
