"""Text to token ids and back, as the GGUF file says: `sentencepiece` and `tokenizers` do the work. Never imports numba."""

from __future__ import annotations

from ggpy.tokenizer.stream import StreamDecoder
from ggpy.tokenizer.token_table import TokenType
from ggpy.tokenizer.tokenizer import Tokenizer, load_tokenizer

__all__ = ["StreamDecoder", "TokenType", "Tokenizer", "load_tokenizer"]
