"""CRC-32 put together from pieces is that of the whole."""

from __future__ import annotations

import zlib

from hypothesis import given
from hypothesis import strategies as st

from ggpy.converter.checksums import joined_crc32


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_pieces_make_the_whole(pieces: list[bytes]):
    assert joined_crc32((len(piece), zlib.crc32(piece)) for piece in pieces) == zlib.crc32(b"".join(pieces))


def test_long_pieces():
    data = bytes(range(256)) * 9000
    assert joined_crc32([(2**20, zlib.crc32(data[: 2**20])), (len(data) - 2**20, zlib.crc32(data[2**20 :]))]) == zlib.crc32(data)
