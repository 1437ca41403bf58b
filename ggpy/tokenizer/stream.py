"""From tokens to text while they arrive."""

from __future__ import annotations

import codecs
from collections.abc import Callable


class StreamDecoder:
    """Turns a stream of tokens into text, holding bytes back until they are whole characters.

    Bytes that can be no UTF-8 become U+FFFD. Nothing is stripped: a stream continues a text.
    """

    def __init__(self, token_bytes: Callable[[int], bytes]):
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, id: int) -> str:
        """The characters that are whole with token `id`; often empty. ValueError for an id that is no token."""
        return self._decoder.decode(self._token_bytes(id))

    def flush(self) -> str:
        """What was held back, as U+FFFD where it is half a character; the decoder can be used again."""
        text = self._decoder.decode(b"", True)
        self._decoder.reset()
        return text
