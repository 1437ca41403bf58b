"""The noise that `tools/dither.py` adds is one step wide, whatever the format."""

import numpy as np
import pytest
from dither import steps

from ggpy.blocks import BLOCKS, dequantize
from ggpy.errors import GGPyError
from ggpy.runtime.encode import encode_rows


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q4_K", "Q5_K", "Q6_K"])
def test_a_step_is_the_distance_of_neighbouring_levels(name):
    values = np.random.default_rng(0).standard_normal((4, 512), dtype=np.float32)
    blocks = encode_rows(values, BLOCKS[name])
    found, decoded = steps(blocks, BLOCKS[name]), dequantize(blocks, BLOCKS[name])
    for row in range(4):
        for first in range(0, 512, 16):  # the least sub-block
            part, step = decoded[row, first : first + 16], found[row, first]
            assert (found[row, first : first + 16] == step).all()
            multiples = (part - part[0]) / step
            assert np.allclose(multiples, np.rint(multiples), atol=1e-2)
            assert np.rint(np.abs(multiples)).astype(int).any()


def test_formats_without_a_step_are_refused():
    with pytest.raises(GGPyError, match="IQ4_NL has no uniform step"):
        steps(np.zeros((1, 18), np.uint8), BLOCKS["IQ4_NL"])
