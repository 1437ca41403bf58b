"""The pre-tokenizers of byte-level BPE by the names that `tokenizer.ggml.pre` may hold.

A pre-tokenizer cuts text into words before any merge; cut otherwise, a model reads tokens it was not trained on. The names are llama.cpp's;
the patterns are those of the tokenizers the names stand for, in the syntax of Oniguruma, which is what `tokenizers` runs. Where llama.cpp
must rewrite a pattern for its own regex engine (case-insensitive contractions; upper and lower case outside ASCII), the original stands
here, since it is what the model was trained with.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class PreTokenizer:
    """How one family of tokenizers cuts text.

    patterns: each splits what the ones before it left; matches and the gaps between them become words.
    ignore_merges: a word that is a token is that token, whatever the merges say.
    add_bos: whether text starts with BOS where the file does not say.
    clean_spaces: whether llama.cpp drops spaces before punctuation when it writes text.
    program: where not empty, cuts instead of `patterns`. normalizer: where not empty, what text goes through before. Both are JSON of
    `tokenizers`; see ggpy.tokenizer.program.
    """

    patterns: tuple[str, ...]
    ignore_merges: bool = False
    add_bos: bool = False
    clean_spaces: bool = True
    program: str = ""
    normalizer: str = ""


_CONTRACTION = r"'s|'t|'re|'ve|'m|'ll|'d"
_ANY_CASE = rf"(?i:{_CONTRACTION})"
_NEWLINES_OR_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_PUNCTUATION_RUN = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_UPPER_NO_HAN, _LOWER_NO_HAN = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
# Groups of three digits counted from the right end of a number. Counting is bounded: unbounded, a megabyte of digits takes hours.
_DIGITS_FROM_RIGHT = r"\d{1,3}(?=(?:\d{3}){0,80}\b)"
_ASCII_PUNCTUATION = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"""


def _any_of(ranges: str) -> str:
    """A run of the code points in `ranges`, given in hexadecimal: editors and terminals like to normalize the characters themselves."""
    return "[" + "".join(re.sub("[0-9a-f]+", r"\\x{\g<0>}", part) for part in ranges.split()) + "]+"


def _cased_words(upper: str, lower: str, suffix: str) -> str:
    """Words that change from upper to lower case at most once, each with an optional `suffix`."""
    lead = r"[^\r\n\p{L}\p{N}]?"
    return rf"{lead}{upper}*{lower}+{suffix}|{lead}{upper}+{lower}*{suffix}"


_GPT2 = rf"{_CONTRACTION}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_ANY_CASE}|{_WORD}|\p{{N}}{{1,3}}|{_PUNCTUATION_RUN}|{_NEWLINES_OR_SPACES}"
_QWEN2 = rf"{_ANY_CASE}|{_WORD}|\p{{N}}|{_PUNCTUATION_RUN}|{_NEWLINES_OR_SPACES}"
_QWEN35 = rf"{_ANY_CASE}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_NEWLINES_OR_SPACES}"
_UFAKZEKA = rf"{_WORD}|\p{{N}}|{_PUNCTUATION_RUN}|{_NEWLINES_OR_SPACES}"
_MINICPM5 = rf"{_ANY_CASE}|{_WORD}|\p{{N}}+|{_PUNCTUATION_RUN}|{_NEWLINES_OR_SPACES}"
_SPACES_BY_POWERS = "|".join(rf"\s{{{n}}}(?!\S)" for n in (512, 256, 128, 64, 32, 16, 8, 4)) + r"|\s{1,2}(?!\S)|\s{1}"
# The look-behind, not in the source, changes no cut: it spares looking for a newline again after each piece of a run of spaces.
_JAIS2 = rf"{_ANY_CASE}|{_WORD}|\p{{N}}{{1,3}}|{_PUNCTUATION_RUN}|(?<![^\S\r\n])\s*[\r\n]+|{_SPACES_BY_POWERS}"
_SEED_CODER = rf"{_ANY_CASE}|{_WORD}|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_NEWLINES_OR_SPACES}"
# Possessive, as in the source.
_BAILING = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
_EXAONE_MOE = (
    rf"{_ANY_CASE}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
)
_PUNCTUATION_AND_SLASHES = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"
_TEKKEN = rf"{_cased_words(_UPPER, _LOWER, '')}|\p{{N}}|{_PUNCTUATION_AND_SLASHES}|{_NEWLINES_OR_SPACES}"
_CASED = _cased_words(_UPPER, _LOWER, _ANY_CASE + "?")
_GPT4O = rf"{_CASED}|\p{{N}}{{1,3}}|{_PUNCTUATION_AND_SLASHES}|{_NEWLINES_OR_SPACES}"
_YOUTU = rf"{_CASED}|\p{{N}}|{_PUNCTUATION_AND_SLASHES}|{_NEWLINES_OR_SPACES}"
_KIMI_K2 = (
    rf"[\p{{Han}}]+|{_cased_words(_UPPER_NO_HAN, _LOWER_NO_HAN, _ANY_CASE + '?')}|\p{{N}}{{1,3}}|{_PUNCTUATION_RUN}|{_NEWLINES_OR_SPACES}"
)
_WORDS_WITH_MARKS = rf"{_ASCII_PUNCTUATION}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+| ?[\p{{P}}\p{{S}}]+"
_DEEPSEEK3 = rf"{_WORDS_WITH_MARKS}[\r\n]*|{_NEWLINES_OR_SPACES}"
_SPARK = rf"{_WORDS_WITH_MARKS}|[\r\n]|\s+(?!\S)|\s+"
_BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
_HAN_AND_KANA = "[一-龥぀-ゟ゠-ヿ]+"
_EAST_ASIAN = _any_of(
    "4e00-9fff 3400-4dbf f900-faff 3040-309f 30a0-30ff ff65-ff9f 2f00-2fdf 0e40-0e7f 0e80-0eff 1780-17ff 1000-109f aa60-aa7f a9e0-a9ff "
    "ac00-d7af 1100-11ff "
)  # Han, kana, Thai, Lao, Khmer, Myanmar, Hangul
_CASED_LETTERS = _any_of(
    "0041-005a 0061-007a 00b5 00c0-00d6 00d8-00f6 00f8-01ba 01bc-01bf 01c4-0293 0295-02af 0370-0373 0376 0377 037b-037d 037f 0386 "
    "0388-038a 038c 038e-03a1 03a3-03f5 03f7-0481 048a-052f 0531-0556 10a0-10c5 13a0-13f5 13f8-13fd 1c90-1cba 1cbd-1cbf 1d00-1d2b "
    "1d6b-1d77 1d79-1d9a 1e00-1f15 1f18-1f1d 1f20-1f45 1f48-1f4d 1f50-1f57 1f59 1f5b 1f5d 1f5f-1f7d 1f80-1fb4 1fb6-1fbc 1fbe 1fc2-1fc4 "
    "1fc6-1fcc 1fd0-1fd3 1fd6-1fdb 1fe0-1fec 1ff2-1ff4 1ff6-1ffc 2102 2107 210a-2113 2115 2119-211d 2124 2126 2128 212a-212d 212f-2134 "
    "2139 213c-213f 2145-2149 214e 2183 2184 2c00-2c7b 2c7e-2ce4 2ceb-2cee 2cf2 2cf3 a640-a66d a680-a69b a722-a76f a771-a787 a78b-a78e "
    "ab70-abbf fb00-fb06 fb13-fb17 ff21-ff3a ff41-ff5a 10400-1044f 104b0-104d3 104d8-104fb 10c80-10cb2 10cc0-10cf2 118a0-118df "
    "1e900-1e943 "
)  # letters with upper and lower case
_TRAILING_SPACE = r"(?<!\s)\s+$"  # the source has no look-behind; the cuts are the same, the time not quadratic in the spaces

_DIGITS_THEN_GPT2 = (r"\p{N}", _GPT2)
_GPT2_ALONE = (_GPT2,)

PRE_TOKENIZERS: dict[str, PreTokenizer] = {
    "gpt-2": PreTokenizer(_GPT2_ALONE),
    "smollm": PreTokenizer(_DIGITS_THEN_GPT2, clean_spaces=False),
    "llama-bpe": PreTokenizer((_LLAMA3,), ignore_merges=True, add_bos=True),
    "qwen2": PreTokenizer((_QWEN2,), clean_spaces=False),
    "default": PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
    "llama3": PreTokenizer((_LLAMA3,), ignore_merges=True, add_bos=True),
    "llama-v3": PreTokenizer((_LLAMA3,), ignore_merges=True, add_bos=True),
    "falcon3": PreTokenizer((_LLAMA3,), ignore_merges=True, add_bos=True),
    "falcon-h1": PreTokenizer((_LLAMA3,), ignore_merges=True, add_bos=True),
    "pixtral": PreTokenizer((_LLAMA3,), ignore_merges=True, add_bos=True),
    "midm-2.0": PreTokenizer((_LLAMA3,), ignore_merges=True, add_bos=True),
    "lfm2": PreTokenizer((_LLAMA3,), ignore_merges=True, add_bos=True),
    "jina-v5-nano": PreTokenizer((_LLAMA3,), ignore_merges=True, add_bos=True),
    "dbrx": PreTokenizer((_LLAMA3,)),
    "smaug-bpe": PreTokenizer((_LLAMA3,)),
    "chatglm-bpe": PreTokenizer((_LLAMA3,)),
    "glm4": PreTokenizer((_LLAMA3,), ignore_merges=True),
    "glm5": PreTokenizer((_LLAMA3,), ignore_merges=True),
    "jais-2": PreTokenizer((_JAIS2,)),
    "minicpm5": PreTokenizer((r"\p{N}{1,3}", _MINICPM5), ignore_merges=True),
    "phi-2": PreTokenizer(_GPT2_ALONE),
    "mpt": PreTokenizer(_GPT2_ALONE),
    "olmo": PreTokenizer(_GPT2_ALONE),
    "jais": PreTokenizer(_GPT2_ALONE),
    "jina-es": PreTokenizer(_GPT2_ALONE),
    "jina-de": PreTokenizer(_GPT2_ALONE),
    "jina-v2-es": PreTokenizer(_GPT2_ALONE),
    "jina-v2-de": PreTokenizer(_GPT2_ALONE),
    "jina-v1-en": PreTokenizer(_GPT2_ALONE),
    "jina-v2-code": PreTokenizer(_GPT2_ALONE),
    "roberta-bpe": PreTokenizer(_GPT2_ALONE),
    "gigachat": PreTokenizer(_GPT2_ALONE),
    "a.x-4.0": PreTokenizer(_GPT2_ALONE),
    "mellum": PreTokenizer(_GPT2_ALONE),
    "modern-bert": PreTokenizer(_GPT2_ALONE),
    "exaone4": PreTokenizer(_GPT2_ALONE),
    "trillion": PreTokenizer(_GPT2_ALONE, clean_spaces=False),
    "granite-docling": PreTokenizer(_GPT2_ALONE, clean_spaces=False),
    "starcoder": PreTokenizer(_DIGITS_THEN_GPT2),
    "refact": PreTokenizer(_DIGITS_THEN_GPT2),
    "codeshell": PreTokenizer(_DIGITS_THEN_GPT2),
    "exaone": PreTokenizer(_DIGITS_THEN_GPT2),
    "minerva-7b": PreTokenizer(_DIGITS_THEN_GPT2),
    "mellum2": PreTokenizer(_DIGITS_THEN_GPT2),
    "command-r": PreTokenizer(_DIGITS_THEN_GPT2, clean_spaces=False),
    "stablelm2": PreTokenizer((_QWEN2,)),
    "deepseek-r1-qwen": PreTokenizer((_QWEN2,), clean_spaces=False),
    "kormo": PreTokenizer((_QWEN2,), clean_spaces=False),
    "f2llmv2": PreTokenizer((_QWEN2,), clean_spaces=False),
    "hunyuan": PreTokenizer((_QWEN2,), clean_spaces=False),
    "solar-open": PreTokenizer((_QWEN2,), clean_spaces=False),
    "grok-2": PreTokenizer((_QWEN2,), clean_spaces=False),
    "megrez": PreTokenizer((_QWEN2,)),
    "qwen35": PreTokenizer((_QWEN35,), clean_spaces=False),
    "ufakzeka": PreTokenizer((_UFAKZEKA,), clean_spaces=False),
    "laguna": PreTokenizer((r"[^\n]+|[\n]+", _QWEN2), clean_spaces=False),
    "seed-coder": PreTokenizer((_SEED_CODER,), clean_spaces=False),
    "bailingmoe": PreTokenizer((_BAILING,), clean_spaces=False),
    "bailingmoe2": PreTokenizer((_BAILING,), clean_spaces=False),
    "llada-moe": PreTokenizer((_BAILING,), clean_spaces=False),
    "exaone-moe": PreTokenizer((_EXAONE_MOE,)),
    "falcon": PreTokenizer((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]")),
    "deepseek-llm": PreTokenizer(
        (r"[\r\n]", r"\s?" + _CASED_LETTERS, r"\s?[!-/:-~！-／：-～‘-‟　-。]+", _TRAILING_SPACE, "[一-龥ࠀ-一가-퟿]+", r"\p{N}+"),
        clean_spaces=False,
    ),
    "deepseek-coder": PreTokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}"), clean_spaces=False),
    "deepseek-v3": PreTokenizer((r"\p{N}{1,3}", _HAN_AND_KANA, _DEEPSEEK3), clean_spaces=False),
    "hunyuan-dense": PreTokenizer((r"\p{N}{1,3}", _HAN_AND_KANA, _DEEPSEEK3), clean_spaces=False),
    "joyai-llm": PreTokenizer((r"\p{N}{1,3}", _HAN_AND_KANA, _DEEPSEEK3), clean_spaces=False),
    "hy_v4": PreTokenizer((r"\p{N}{1,3}", _HAN_AND_KANA, _DEEPSEEK3), clean_spaces=False),
    "spark2_5": PreTokenizer((r"\p{N}{1,3}", _HAN_AND_KANA, _SPARK, r"\p{N}"), clean_spaces=False),
    "afmoe": PreTokenizer((_DIGITS_FROM_RIGHT, _EAST_ASIAN, _DEEPSEEK3), clean_spaces=False),
    "tekken": PreTokenizer((_TEKKEN,), ignore_merges=True, add_bos=True, clean_spaces=False),
    "gpt-4o": PreTokenizer((_GPT4O,), clean_spaces=False),
    "llama4": PreTokenizer((_GPT4O,), clean_spaces=False),
    "kanana2": PreTokenizer((_GPT4O,), clean_spaces=False),
    "talkie": PreTokenizer((_GPT4O,), clean_spaces=False),
    "minimax-m2": PreTokenizer((_GPT4O,), clean_spaces=False),
    "granite-embed-multi-97m": PreTokenizer((_GPT4O,), ignore_merges=True, clean_spaces=False),
    "youtu": PreTokenizer(
        ("[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+", _YOUTU), ignore_merges=True, clean_spaces=False
    ),
    "tiny_aya": PreTokenizer((_DIGITS_FROM_RIGHT, _GPT4O), clean_spaces=False),
    "cohere2moe": PreTokenizer((_DIGITS_FROM_RIGHT, _GPT4O), clean_spaces=False),
    "kimi-k2": PreTokenizer((_KIMI_K2,), clean_spaces=False),
    "poro-chat": PreTokenizer((_BLOOM,), clean_spaces=False),
    "bloom": PreTokenizer((_BLOOM,)),
    "gpt3-finnish": PreTokenizer((_BLOOM,)),
    "viking": PreTokenizer((_BLOOM, r"\p{N}"), clean_spaces=False),
    "superbpe": PreTokenizer((r"\p{N}+", r"(?=(\d{3}){1,80}(?!\d))"), clean_spaces=False),
    "chameleon": PreTokenizer(
        (
            "<sentinel:[0-9]+>",
            "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
            r"([\t\n]|    |  )",
            r"\p{N}",
            r"[\p{P}!-/:-@\[-`{-~]",
            _GPT2,
        ),
        add_bos=True,
        clean_spaces=False,
    ),
}
"""Name -> pre-tokenizer, the name first that a converter should write where several cut alike."""
