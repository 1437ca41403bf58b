"""The grids of the formats below three and a half bits: the few groups of neighbouring values that an index can name.

A grid is a list of groups of eight or four levels, chosen by ggml's authors for being what weights most often come near to; which groups
are in it is a fact of the format that follows from no formula. What does: every grid is in ascending order of the number whose digits are
the group's levels, counted from the lowest level, the first value's digit being the lowest. So a grid is a set, and a set is one bit for
each group that might be in it, in that order, lowest bit of a byte first. What might be in it are all groups, or all whose digits have an
even sum.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Grid:
    """Groups of `size` of the `levels`, those whose bits are set in `members`, base64; `even`: only even sums of digits have a bit."""

    levels: tuple[int, ...]
    size: int
    even: bool
    members: str

    @cached_property
    def groups(self) -> NDArray[np.int8]:
        """int8 (entries, size), by index; read-only."""
        digits = np.indices((len(self.levels),) * self.size, np.uint8).reshape(self.size, -1)[::-1].T  # first digit fastest
        if self.even:
            digits = digits[digits.sum(axis=1) % 2 == 0]
        bits = np.unpackbits(np.frombuffer(base64.b64decode(self.members), np.uint8), count=len(digits), bitorder="little")
        groups = np.array(self.levels, np.int8)[digits[bits.astype(bool)]]
        groups.setflags(write=False)
        return groups


def with_parity(seven: np.ndarray) -> NDArray[np.uint8]:
    """Seven sign bits and, above them, the eighth that makes their number even; uint8 of any shape."""
    odd = seven ^ (seven >> 4)
    odd = odd ^ (odd >> 2)
    return (seven | (((odd ^ (odd >> 1)) & 1) << 7)).astype(np.uint8)


def signs_of(bits: np.ndarray) -> NDArray[np.float32]:
    """uint8 (n, m) -> float32 (n, 8 * m): -1 where a bit is set, lowest first, else 1."""
    return np.float32(1) - 2 * np.unpackbits(np.ascontiguousarray(bits), axis=1, bitorder="little").astype(np.float32)


IQ2_XXS = Grid(
    (8, 25, 43),
    8,
    True,
    "f/akmSCmQAAgCAYIACAATJgFYYIsCAQwBMAAAYAAaYJmAAIgAAIAACAEAAAAYEIECFIgQYAIAQAAIQAAQIKCAAIAQABAAIBAAAAAABMgAAgABQAAABAAAAgAACYAATEAAE"
    "AEAAAMAAAAAJgAgQAACAACCAAAAAAACIAgAAAgAAAAAAAAABAAAMCkSRQmQIAAIAqACIAIAYAEAQAEBCAEAAAAAQAAAAAmQAEAAAIAQCEAAAACAAKkDAAgARAAAgAAAQAA"
    "AAgAAAAAGAABAAAAIAAAAQAgJAAgAAAACAAAAAIAAAAACRAAAYAAAAgAAIAAQAAABQAAAABgAAAgAAAAAAAAAAABAAAAAAAAAAAAAAAAmAACgAAgCAIAAAACAAAAYAoECA"
    "AgACAAQAACCBAAgAAAAAAAAQAAAAAQAAAAABIkAAAQgAAACAAAAAEAAAIIAQAAAAAQAAAAAAAAAAAAAEAAABAAAAAAAAAAACAAQAACAAEAAAAgAAAAAAAgAAAAAAAAAAAA"
    "AAAAAAAAAAIAAAIAAAAAAAAAAAAA",
)
IQ2_XS = Grid(
    (8, 25, 43),
    8,
    True,
    "/9+/eRv+z5s0Ad6EKRAB/Jt3YQK8CRMiAJhAA4AA+FMmQYA4AQKABBAgAQBA4d+8iRPgTZgAwcAFCBAAwJuwQQKACRAAAIAgAAEAADMgCCAABQAAAgAAAAgAAP+ECRAgTI"
    "AEBAAEEAAgAJqAAQAACABCAEAQEAAAAJQhAAEEAgAAQBAAQQAAGsC/+VMmwJswAQqIGRgAAIC3YQIEARMkAAAIEYAEAAAmQBEBAEIACQgACAAAAAC8SRMgAJgCAwAACAAE"
    "AAA4IQKEAJEAAIAEAEAAQAAiCIgAAAFAGAAAAAAAAAiACRBEEMAAAAAAAAAEAgABgQAAAAAgQAEAQAAAAAAABAAAEAAAIAAAACAAQAQAeBMnwAB8AUICABAgAIABaQ4ECA"
    "ggABAAAAggAAABQAICEAYgAgAAAAAAAgAkQhMgEBAAAQQAAQAAACCAAAoASQAAAEAAAAYAAAEAAAAAIAAAAgAQAAAABAAEALAhAgAAAQCABABoAQQAAQIACACAAAAAAAAA"
    "AACAAAIICwAASAIAADAAADAAAAEB",
)
IQ2_S = Grid(
    (8, 25, 43),
    8,
    True,
    "/9+/f1P/zfs2Z97EL1BF/Pv/59v8b//mTfgCbcIEeF//TRE4L9qECBBGQwCA4N+9f9fm//s3b8CWKQMmwPv2b96Ef/MmTIA2YQIEgN/iTRgAb8IEBCAkQCAAAN7XORIFzo"
    "kzYQJE0BIAA/o2b8IEaBMmUAAwAQICAFAGTAAIcAIAAEAAggAgGMD/+3+mzfvzb96EedImDID/79+8Cf/mTZwAb8IECED2zZsgAd6ECRAITIAAAAC8f//mDfg3b8IEaBMm"
    "YADwb96ECfAmTIAAYAIFAADgTZgIAcAECAAAQEAAAAige9MmSIA3YQIEBBIgEAAQbcIECAAmQAQEAgIAAAAETAAABBAEgAAAAAAAAgCAeFvmRRmwb96ACVgHTAAA4F+8CR"
    "PgTZgAEcAEDAAAQBkwAQCIARCAAAAAAjAIEPvkTZgAZcBEAAAmQAAAgN6ECRAITIAAAFAEAAQEAJhAAQAADABQAAAAAAAACFBFTgAAEgAEIABAggYAGtAECAAQSEAAAAAA"
    "AAACAAAICAAAEAAACCAAGBYAQAAB",
)
IQ3_XXS = Grid(
    (4, 12, 20, 28, 36, 44, 52, 62),
    4,
    True,
    "txMCYDM1QRAXs5BAOQQAECCAhGAJICAAAEAABNAAAgEzcxgAEwMAADMRACADEQgIBQAQAAAFCBAEAAAAAAIBADMbAgA3EQAak4NBAFEAAFAAQCAAAggBQAAAAACDAAQAMQ"
    "MQJAMRDAATBCAgECAAAAAQCCAJAkAAQIAAAgAgAAGEwKAAAAAAQACBAQkIAAQABAAQBAAEAhAAAAAANBAAACAAARAJCEAAQCAAIAIAIAAQCgAgAhAAAAAAEAAABAIAAAQM"
    "BAABAAGAAAAEAJAAAAAABAAEACAAACAAAAIBAAAeICAAAAgBACAAJABBIAABAAEBAAMEAAAAEAAAAAAAAA==",
)
IQ3_S = Grid(
    (1, 3, 5, 7, 9, 11, 13, 15),
    4,
    False,
    "p1cjCKUKBZIXI4kiEAAiBKNJIhGkCgAJCCIFShAFgCIBiBIECQIAARQARQiiAEAIQAoAAgAEAAIVAEUIABEAABerBVIAUAIESxECCQIFAEEBpBEECSABBJIJghECAAQBKB"
    "QACkQRAAACCQIFAAIAAAAAkQBQAAAACgUCIAIABAGrVYoFKgWAKQWJJBIEAgAAkgAKgQKIABIlAhQKBAFAAIIACSQCAAAkEAIEgAEIAAGFAAIAACACACACQAEIAQAABKoE"
    "KpQCCAIqEAoAAQABRAEEARQAAQAAAhGKAYogAAgIQgQCAAQRAAIFIAQQQAAIAEAAAAIAAAAKAAUgAAAAABEEkQQCAQABhAoEIQgiAAAKIQIIAYAEARAKBSIAAAAABQAQgA"
    "EAAAKgAAIAAAAEAAAIABAAAAEAACEAAQgCAAAEEQQAkQRAECoEAgQAAAAEAQIIQQAIAACEAYAAEAIgCBIAAQRAAAAAAARAAAAKAAAAAAAABAAAABQABAAAAAAAACoACgAA"
    "AQABAIEAAAAQAAAEABAEIAQBARACAAEAAAAAACAACAAEAAkAABAAAAEAIAAAAAEAAAAACgAAAAAAAJEABUABEAQABAIQACgAAAASQQIBAAIAAAQAACQACAAAIggBAAABAA"
    "AAAAQABAAAAAQAAAIAAAAAAQAAAAAAAAA=",
)
IQ1_S = Grid(
    (-1, 0, 1),
    8,
    False,
    "VSUUhaACQlEIRTGohiCKohoIKiAUhVAUgiBERSUVBaACgiCIGAAIgqADKqCIu6oKkKoLACIACqqMgqAIQFEIRSGIgFAUQlEIijAImKAIgCoIRSEUhSBIQlUIRQEswqAgii"
    "YAKiSoqqII4q8ICCgoAKACQiiqKCCogCAKmwi5uqggyq6Joq6qOnzr6rq7gg64IrrK0w6SAiIAIiCoiroKggIIACpK4KI7IiArogCBQIGqiigIIgEUhVAVgiAJRSFUhaAI"
    "AiOoOiCEgiBUQlEIoiAIlVAUAioIuKiCgKBIAiAIgqJoogIoqyoIhSAIgjAIRUAARSEUhaAAQlEARQEpggCKgioIoTAUBVAUgigIRSEUhSACAiCqKgAgErGKriiouqGqqH"
    "AAggoIAigiAoQAggBIgKDqsCqqwiCLuiLq2qeLi26okrAqqnKLikQMKiBIhEAoiioIqiDIzKIioq+aoOioAgACACqoiAAggKCLoqIouqCAgjIKur64uv7roqArogiKCijq"
    "ogChMgIM+qTq3u8rqC6Nvn7r+vd/v+Z9ut5p+yf/vyb6EunhiiIQqr4OhKoIsqgLgq7/uiTpg4AEYixo8qgKpCsAAioICOKqEgACgioKpiDJgomQgigAogCMgBMAgggIAG"
    "yKqqq7Aqa+iqDKAoBrly7QsukQghAuqt4oFdGlBAAKggCKgiAIAaEggqo5uiIyhKAJgBgAiqJiAoEURFEARSGsglAUQlEIqiAoqocKEioIRSEUBaAIQlEIRQEgAqBAoiIA"
    "iAAIoghqim64qqqAACAKguLIIiEIRFAUQlEJiiAVhVAUhgoIqioqgAAKQlEIRSGoAFAUQlEI4iCIggoYgioIqqKqirCLAgoqqiAogoCqCigIKACpiAIioL4LKLgIirpLsq"
    "7/uqT4rqogUihotqAw5oAKAigIImpigCAKAqqqK6rqoqmgoggIECCgiiIAgg4ARSEUhaAKQFEIRSGpBgBKqgIIpQAQDUQUgigIRSEUBQAIgoKs8iAAAACqCigKuiDqogIA"
    "gkgJKOkUABFLRVEARQGoAlAUQlEIiCQIiCgKQAgARQEUBaACQFEIRQE=",
)
