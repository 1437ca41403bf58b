"""Which pre-tokenizer a tokenizer.json has: found by what it does to texts that every known one cuts in its own way."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ggpy.converter.vocabulary_files import guarded
from ggpy.errors import CheckpointError, printable
from ggpy.tokenizer.pretokenizers import PRE_TOKENIZERS

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Engine

Spans = list[tuple[int, int]]

# Short texts, so that a pattern made to backtrack for ever is noticed between two of them.
MAX_SECONDS = 10.0
TELLING_TEXTS: tuple[str, ...] = (
    "Hello, world! How are you?",
    "I've told him they'll say we're here; she'd know it's 'twas'm 'tis",
    "d'You'Ve o'Ll Ankara'daki Bob'S",
    "I'VE TOLD HIM THEY'LL SAY WE'RE HERE, SHE'D KNOW IT'S O'Clock 'RE 'M",
    "don'T you'Ve ı'll Ünlü'ler Ankara'da naïve's",
    "1 12 123 1234 12345 123456 1234567 12345678 123456789",
    "a1b22c333d4444 v1.2.3 3.14159 1,234,567.89 $5 50% #1 x=12345",
    "½ ² ٣٤٥٦ Ⅻ 一二三 １２３４",
    "a  b   c    d     e      f       g        h         i",
    "   leading",
    "trailing   ",
    "                 \n                                 x",
    "\tone\t\ttwo\t\t\tthree \t four\t ",
    "one\ntwo\n\nthree\n\n\nfour \n five\n \nsix \n\n seven\n  eight",
    "one\r\ntwo\r\n\r\nthree\rfour \r\n x",
    "end.\nnext!\n\nmore?\n (x)\n",
    "nbsp\u00a0nbsp em\u2003space ideographic\u3000space\u3000",
    "punct: ;;; ... !!! ??? --- ___ ''' \"\"\" ``` ,., .!? (()) [[]] {{}} <<>> ||",
    "a+b=c a-b a*b a/b a^b a~b a|b a<b a>b a$b a`b a&b a@b a#b",
    ".com (abc) [abc] {abc} #abc @abc /abc/def \\abc _abc -abc =abc",
    "path/to/file//\n https://example.com/a?b=c&d=e#f //\n/\r\n",
    "camelCase PascalCase snake_case HTTPServer iPhone XMLHttpRequest aBCdEF",
    "ÉCOLE École éCOLE ΑΒΓ Αβγ αΒΓ ПРИВЕТ Привет дЖ ǅ ǆ ʰA aʰ",
    "漢字かな交じり文カタカナ한국어띄어쓰기 中文，标点。「引号」！？",
    "我想在apple工作1314151天～ 你好world再见",
    "한국어 텍스트 입니다 ㄱㄴㄷ ㅏㅑ",
    "ㄅㄆㄇ ⼀⼁ ･ﾟ ｱｲｳ ﾊﾟ",
    "สวัสดีครับ ภาษาไทย ລາວ ភាសាខ្មែរ မြန်မာ",
    "हिन्दी भाषा বাংলা தமிழ் తెలుగు",
    "العربية، نص؟ فارسی۔ עִבְרִית",
    "e\u0301 a\u0308\u0323 n\u0303o \u0301 x\u20dd",
    "🚀 (normal) 😶‍🌫️🦙🦙 ✅👩‍👩‍👧 ❤️ 🇩🇪",
    "「」『』、。：；！？…—–‘’“”～・《》 Ａｂｃ！＃",
    "<sentinel:12> IMGIMGABCZ IMGIMGAZ <|x|> </s>",
    "if (x == 1) {\n\treturn a[i]++;\n}\n\n# comment\n    def f(self):\n        pass",
    "\x00\x01\x7f\u200b\u200e\ufeff\ufffd",
    "ſ 'ſ it'ſ K Ω Å",
    "a\u2028b\u2029c\x85d\x0be\x0cf",
    "word 12  34word   5word6 7\n8\n\n9 \n 10\t11",
    " \u00a0 \t \n x \u3000\n",
    "1234567890 12345678901 123456789012a 1234.5678",
)


@dataclass(frozen=True)
class Choice:
    """name: the value of `tokenizer.ggml.pre`. cuts, merges: whether the readers that know the name cut, and merge, as the source does."""

    name: str
    cuts: bool
    merges: bool


def choose_pre(engine: Engine, ignore_merges: bool, clean_spaces: bool, where: str, warnings: list[str]) -> Choice:
    """The name for `tokenizer.ggml.pre` under which a reader of the file cuts text as `engine` does.

    Of names that cut alike, the first that also treats merges alike, and spaces before punctuation in written text. Where none cuts alike,
    the nearest, with a warning that says what will differ. Raises CheckpointError for a pre-tokenizer that takes too long or fails.
    """
    source = cuts_of(engine.pre_tokenizer, where)
    known: dict[tuple[str, ...], int] = {}
    for pre in PRE_TOKENIZERS.values():
        if pre.patterns not in known:
            known[pre.patterns] = sum(a != b for a, b in zip(source, cuts_of(pattern_cutter(pre.patterns), where), strict=True))

    def distance(name: str) -> tuple[int, bool, bool]:
        pre = PRE_TOKENIZERS[name]
        return known[pre.patterns], pre.ignore_merges != ignore_merges, pre.clean_spaces != clean_spaces

    best = min(PRE_TOKENIZERS, key=distance)
    n_different, other_merges, _ = distance(best)
    if n_different:
        warnings.append(_explain(best, n_different, source, where))
    if other_merges:
        wanted = "words that are tokens are taken whole" if ignore_merges else "words are always merged from parts"
        warnings.append(f"{where}: {wanted}, and no known pre-tokenizer that cuts alike does that; '{best}' is written")
    return Choice(best, not n_different, not other_merges)


def pattern_cutter(patterns: tuple[str, ...]) -> Any:
    """A `tokenizers` pre-tokenizer that splits by each pattern in turn."""
    from tokenizers import Regex, pre_tokenizers

    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns])


def cuts_of(cutter: Any, where: str) -> list[Spans]:
    """(start, stop) of each word of each telling text."""
    if cutter is None:
        return [[(0, len(text))] for text in TELLING_TEXTS]
    cuts, start = [], time.monotonic()
    for text in TELLING_TEXTS:
        words = guarded(lambda text=text: cutter.pre_tokenize_str(text), where)
        cuts.append([span for _, span in words])
        if time.monotonic() - start > MAX_SECONDS:
            raise CheckpointError(f"{where}: its pre-tokenizer takes more than {MAX_SECONDS:.0f} s for {len(cuts)} short texts")
    return cuts


def _explain(name: str, n_different: int, source: list[Spans], where: str) -> str:
    nearest = cuts_of(pattern_cutter(PRE_TOKENIZERS[name].patterns), where)
    text, wanted, got = next((t, a, b) for t, a, b in zip(TELLING_TEXTS, source, nearest, strict=True) if a != b)
    at = next(i for i, (a, b) in enumerate(zip([*wanted, None], [*got, None], strict=False)) if a != b)
    lo, hi = (wanted[at] if at < len(wanted) else got[at])[0], max(span[1] for span in (wanted[at : at + 2] + got[at : at + 2]))
    shown = [" | ".join(text[a:b] for a, b in spans if lo <= a < hi) for spans in (wanted, got)]
    return (
        f"{where}: its pre-tokenizer is none of those that readers of GGUF know; the nearest, '{name}', is written, and cuts "
        f"{n_different} of {len(TELLING_TEXTS)} test texts otherwise, such as '{printable(shown[0], 60)}' into "
        f"'{printable(shown[1], 60)}': in llama.cpp the model will read such text as it was not trained to"
    )
