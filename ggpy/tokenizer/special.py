"""Special tokens: which ones end a generation, and where they stand in a text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ggpy.tokenizer.token_table import TokenTable, TokenType

# The names by which llama.cpp knows tokens whose role the file does not give. Where several are there, the first is taken.
END_OF_TURN = (
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<｜end▁of▁sentence｜>",
    "<end_of_utterance>",
)
ROLE_NAMES: dict[str, tuple[str, ...]] = {
    "eot": END_OF_TURN,
    "eom": ("<|eom_id|>",),
    "fim_pre": (
        "<|fim_prefix|>",
        "<fim-prefix>",
        "<fim_prefix>",
        "<｜fim▁begin｜>",
        "<PRE>",
        "▁<PRE>",
        "<|code_prefix|>",
        "<|prefix|>",
    ),
    "fim_suf": ("<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>", "<|code_suffix|>", "<|suffix|>"),
    "fim_mid": ("<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>", "<|code_middle|>", "<|middle|>"),
    "fim_pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep": ("<|file_sep|>",),
}
END_OF_GENERATION = (
    *END_OF_TURN,
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "</s>",
    "<|eom_id|>",
    "[EOS]",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "[e~[",
)
_ENDING_ROLES = ("eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep")
_ALWAYS_SHOWN = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>")
_NAMES = frozenset((*END_OF_GENERATION, *_ALWAYS_SHOWN, *(name for names in ROLE_NAMES.values() for name in names)))
_WHITESPACE = " \t\n\v\f\r"


def settle_roles(table: TokenTable) -> tuple[TokenTable, frozenset[int]]:
    """The table with the roles that only the tokens' names tell, and the ids that end a generation, by llama.cpp's rules.

    A token that ends a generation is a control token, whatever the file says: its text in a message must not become it.
    """
    ids, special, types = table.find(_NAMES), dict(table.special), table.types.copy()
    for role, names in ROLE_NAMES.items():
        named = next((ids[name] for name in names if name in ids), None)
        if role not in special and named is not None:
            special[role] = named
            types[named] = TokenType.CONTROL
    ends = {special[role] for role in _ENDING_ROLES if role in special}
    for name in END_OF_GENERATION:
        if name in ids:
            ends.add(ids[name])
            types[ids[name]] = TokenType.CONTROL
    for name in _ALWAYS_SHOWN:
        if name in ids:
            types[ids[name]] = TokenType.USER_DEFINED
    ending = {table.tokens[i] for i in ends}
    if "<|end|>" in ending and ending & {"<|call|>", "<|calls|>"} and ending & {"<|return|>", "<|flush|>"}:
        ends.discard(ids["<|end|>"])  # ends a message, not the turn, in these vocabularies
        types[ids["<|end|>"]] = TokenType.USER_DEFINED
    if "</s>" in ending and ending & {"<|tool_response>", "<|plamo:eos|>"}:
        ends.discard(ids["</s>"])  # an HTML tag in these vocabularies
        types[ids["</s>"]] = TokenType.NORMAL
    return replace(table, types=types, special=special), frozenset(ends)


@dataclass(frozen=True, slots=True)
class SpecialToken:
    """A token that is looked for in the text itself. `strip_right`: it takes the white space after it along."""

    text: str
    id: int
    strip_right: bool


class SpecialTokens:
    """Finds special tokens in text as llama.cpp does: longer ones first anywhere in the text, then from left to right."""

    def __init__(self, table: TokenTable, strip_right: Iterable[int] = ()):
        stripping = frozenset(strip_right)

        def longest_first(*types: TokenType) -> list[SpecialToken]:
            found = [SpecialToken(table.tokens[i], i, i in stripping) for i in table.of_type(*types)]
            return sorted(found, key=lambda special: -len(special.text.encode()))

        self._user_defined = longest_first(TokenType.USER_DEFINED)
        self._all = longest_first(TokenType.USER_DEFINED, TokenType.CONTROL, TokenType.UNKNOWN)

    def split(self, text: str, parse_special: bool) -> list[str | int]:
        """`text` as pieces of ordinary text and ids of special tokens; control tokens are found only with `parse_special`."""
        if not text:
            return []
        characters = set(text)
        present = [s for s in (self._all if parse_special else self._user_defined) if s.text[0] in characters and s.text in text]
        if not present:
            return [text]
        taken = bytearray(len(text))
        spans: list[tuple[int, int, int]] = []
        for special in present:
            self._take(text, special, taken, spans)
        return _assemble(text, sorted(spans))

    @staticmethod
    def _take(text: str, special: SpecialToken, taken: bytearray, spans: list[tuple[int, int, int]]) -> None:
        length, at = len(special.text), text.find(special.text)
        while at >= 0:
            stop = at + length
            # What was taken before is at least as long, so it overlaps only where it covers the first or the last character.
            if taken[at] or taken[stop - 1]:
                at = text.find(special.text, at + 1)
                continue
            while special.strip_right and stop < len(text) and text[stop] in _WHITESPACE and not taken[stop]:
                stop += 1
            taken[at:stop] = b"\1" * (stop - at)
            spans.append((at, stop, special.id))
            at = text.find(special.text, stop)


def _assemble(text: str, spans: list[tuple[int, int, int]]) -> list[str | int]:
    parts: list[str | int] = []
    end = 0
    for start, stop, i in spans:
        if start > end:
            parts.append(text[end:start])
        parts.append(i)
        end = stop
    if end < len(text):
        parts.append(text[end:])
    return parts
