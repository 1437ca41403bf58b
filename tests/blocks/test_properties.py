"""What holds for any weights and any bytes, not only for those in the vectors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ggpy.blocks import BLOCKS, BlockFormat, Field, dequantize
from ggpy.blocks.block_format import join_fields, split_fields
from ggpy.errors import GGPyError

from .error_bounds import ERROR_BOUNDS
from .pages import FOLDER, same_bits, tables

DECODED = [f for f in BLOCKS.values() if f.decode is not None]
ENCODED = [f for f in BLOCKS.values() if f.encode is not None]
SETTLED = ("F32", "F16", "BF16", "Q4_0", "Q5_0", "Q8_0")  # one pass through the format changes no value in a second
WITH_MINIMUM = {"Q4_1": 15, "Q5_1": 31}  # settled where the minimum does not swamp the scale; the largest quant

few = settings(max_examples=40, deadline=None)


def by_name(block_format: BlockFormat) -> str:
    return block_format.name


def encode(block_format: BlockFormat, values: np.ndarray) -> np.ndarray:
    assert block_format.encode is not None
    return block_format.encode(values.reshape(-1, block_format.block_values))


def weights(limit: float) -> st.SearchStrategy[np.ndarray]:
    """256 finite float32 up to `limit`: any floats, or a few spread over magnitudes, or one value nearly everywhere."""
    one = st.floats(-limit, limit, width=32)
    return (
        arrays(np.float32, 256, elements=one)
        | arrays(np.float32, 256, elements=one, fill=one)
        | st.builds(_spread, st.integers(0, 2**32 - 1))
    )


def _spread(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    scales = np.repeat(10.0 ** random.uniform(-6, 3, 16), 16)
    return (random.standard_normal(256) * scales).astype(np.float32)


@pytest.mark.parametrize("block_format", ENCODED, ids=by_name)
@few
@given(values=weights(32768.0))
def test_error_stays_within_the_bound(block_format: BlockFormat, values: np.ndarray):
    blocks = encode(block_format, values)
    decoded = dequantize(blocks, block_format).ravel().astype(np.float64)
    bound = ERROR_BOUNDS[block_format.name](values.astype(np.float64), blocks)
    error = np.abs(decoded - values)
    worst = int(np.argmax(error - bound))
    assert (error <= bound).all(), f"value {worst}: {values[worst]} came back as {decoded[worst]}, allowed {bound[worst]}"


@pytest.mark.parametrize("block_format", ENCODED, ids=by_name)
def test_error_on_normal_weights_is_what_the_page_says(block_format: BlockFormat):
    stated = float(dict(tables(FOLDER / f"{block_format.name.lower()}.md")[0])["relative error"])
    values = (np.random.default_rng(1).standard_normal(64 * 256) * 0.02).astype(np.float32)
    decoded = dequantize(encode(block_format, values), block_format).ravel()
    assert np.sqrt(np.mean((decoded - values) ** 2) / np.mean(values**2)) == pytest.approx(stated, rel=0.02)


@pytest.mark.parametrize("name", SETTLED)
@few
@given(values=weights(32768.0))
def test_a_second_pass_changes_nothing(name: str, values: np.ndarray):
    first = encode(BLOCKS[name], values)
    decoded = dequantize(first, BLOCKS[name])
    assert np.array_equal(dequantize(encode(BLOCKS[name], decoded), BLOCKS[name]), decoded)


@pytest.mark.parametrize("name", WITH_MINIMUM)
@few
@given(seed=st.integers(0, 2**32 - 1), offset=st.floats(-100, 100))
def test_a_second_pass_changes_nothing_where_the_minimum_does_not_swamp_the_scale(name: str, seed: int, offset: float):
    values = np.random.default_rng(seed).uniform(offset - 1, offset + 1, 256).astype(np.float32)
    decoded = dequantize(encode(BLOCKS[name], values), BLOCKS[name])
    again = dequantize(encode(BLOCKS[name], decoded), BLOCKS[name])
    step = np.spacing(np.abs(decoded).max())  # d * q + m is rounded: that much may move
    assert np.abs(again - decoded).max() <= WITH_MINIMUM[name] * step


@pytest.mark.parametrize("name", ["F32", "F16", "BF16"])
@few
@given(data=st.data())
def test_bytes_of_single_floats_survive(name: str, data: st.DataObject):
    block_format = BLOCKS[name]
    blocks = data.draw(arrays(np.uint8, (64, block_format.block_bytes), elements=st.integers(0, 255)))
    decoded = dequantize(blocks, block_format)
    finite = np.isfinite(decoded[:, 0])
    assert np.array_equal(encode(block_format, decoded[finite]), blocks[finite])


@pytest.mark.parametrize("block_format", DECODED, ids=by_name)
@few
@given(data=st.data())
def test_every_byte_pattern_decodes(block_format: BlockFormat, data: st.DataObject):
    n = block_format.block_bytes
    blocks = data.draw(
        arrays(np.uint8, (3, n), elements=st.integers(0, 255)) | arrays(np.uint8, (3, n), elements=st.sampled_from([0, 0x7C, 0x7F, 255]))
    )
    values = dequantize(blocks, block_format)
    assert values.shape == (3, block_format.block_values) and values.dtype == np.float32
    assert same_bits(values, np.stack([dequantize(row[None], block_format)[0] for row in blocks]))


HARD = {
    "zeros": np.zeros(512),
    "zeros below": np.full(512, -0.0),
    "denormals": np.linspace(-1e-40, 1e-40, 512),
    "tiny": np.linspace(-1e-30, 1e-30, 512),
    "below the smallest scale": np.linspace(-1e-12, 3e-13, 512),
    "one outlier": np.where(np.arange(512) == 77, 30000.0, np.linspace(-1e-3, 1e-3, 512)),
    "one value": np.full(512, -0.3),
    "zero but for one": np.where(np.arange(512) == 300, 1e-4, -0.0),
    "largest binary16": np.linspace(-65504, 65504, 512),
}
SINGLE = ("F32", "F16", "BF16")


@pytest.mark.parametrize("kind", HARD)
@pytest.mark.parametrize("block_format", ENCODED, ids=by_name)
def test_hard_weights_come_back_finite(block_format: BlockFormat, kind: str):
    values = HARD[kind].astype(np.float32)
    decoded = dequantize(encode(block_format, values), block_format).ravel()
    assert np.isfinite(decoded).all()
    assert np.abs(decoded).max() <= 2 * np.abs(values).max() + 2.0**-24
    if block_format.encode_weighted is not None:
        importance = np.where(np.arange(512) % 3 == 0, 0, np.linspace(0, 5, 512)).astype(np.float32)
        blocks = block_format.encode_weighted(values[None], importance)
        assert np.isfinite(dequantize(blocks, block_format)).all()


@pytest.mark.parametrize("block_format", [f for f in ENCODED if f.name not in SINGLE], ids=by_name)
def test_huge_weights_give_infinite_scales_and_no_error(block_format: BlockFormat):
    values = np.linspace(-1e9, 1e9, 512, dtype=np.float32)
    decoded = dequantize(encode(block_format, values), block_format)
    assert decoded.size == 512 and np.isfinite(decoded).all() == (block_format.name == "MXFP4")  # whose scale has float32's range


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("block_format", ENCODED, ids=by_name)
def test_nan_and_infinity_are_refused(block_format: BlockFormat, bad: float):
    for index in (0, 100, 511):
        values = np.linspace(-1, 1, 512, dtype=np.float32)
        values[[index, 511]] = bad
        with pytest.raises(ValueError, match=rf"^{block_format.name} cannot encode {bad} at index {index}: weights must be finite$"):
            encode(block_format, values)


@pytest.mark.parametrize("block_format", DECODED, ids=by_name)
def test_rows_of_any_number_decode(block_format: BlockFormat):
    random = np.random.default_rng(3)
    for rows in (0, 1, 3):
        data = random.integers(0, 256, (rows, 2 * block_format.block_bytes), dtype=np.uint8)
        values = dequantize(data, block_format)
        assert values.shape == (rows, 2 * block_format.block_values)
    wide = random.integers(0, 256, (5, 3 * block_format.block_bytes), dtype=np.uint8)
    part = wide[::2, : 2 * block_format.block_bytes]  # rows of a view lie apart
    assert same_bits(dequantize(part, block_format), dequantize(part.copy(), block_format))


def test_large_tensors_decode_in_pieces_as_in_one():
    q4_0 = BLOCKS["Q4_0"]
    data = np.random.default_rng(4).integers(0, 256, (9, 1000 * q4_0.block_bytes), dtype=np.uint8)
    assert q4_0.decode is not None
    assert same_bits(dequantize(data, q4_0).reshape(-1, 32), q4_0.decode(data.reshape(-1, q4_0.block_bytes)))


def test_sizes_that_do_not_fit_are_refused():
    q4_k = BLOCKS["Q4_K"]
    assert q4_k.row_bytes(512) == 288 and q4_k.row_bytes(0) == 0
    with pytest.raises(ValueError, match="a row of 257 values is not a whole number of Q4_K blocks of 256"):
        q4_k.row_bytes(257)
    with pytest.raises(ValueError, match="-256 values"):
        q4_k.row_bytes(-256)
    with pytest.raises(ValueError, match="a row of 145 bytes is not a whole number of Q4_K blocks of 144 bytes"):
        dequantize(np.zeros((1, 145), np.uint8), q4_k)


@pytest.mark.parametrize("name", [f.name for f in BLOCKS.values() if f.decode is None])
def test_a_format_without_a_decoder_says_so(name: str):
    with pytest.raises(GGPyError, match=f"no decoder for {name} blocks"):
        dequantize(np.zeros((1, BLOCKS[name].block_bytes), np.uint8), BLOCKS[name])


@given(data=arrays(np.uint8, (4, 7), elements=st.integers(0, 255)))
def test_fields_split_and_join(data: np.ndarray):
    fields = (Field("a", np.dtype("u1"), 1), Field("b", np.dtype("<i2"), 2), Field("c", np.dtype("<u2"), 1))
    parts = split_fields(data, fields)
    assert [part.shape for part in parts] == [(4, 1), (4, 2), (4, 1)]
    assert int(parts[2][0, 0]) == int(data[0, 5]) + 256 * int(data[0, 6])
    assert np.array_equal(join_fields(fields, *parts), data)
