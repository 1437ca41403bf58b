"""Compiled encoders against their NumPy twins and ggml's bytes: any weights, any number of blocks, any number of threads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ggpy.blocks import BLOCKS, BlockFormat
from ggpy.errors import GGPyError
from ggpy.runtime import encode as encode_module
from ggpy.runtime.encode import FLOATS, encode_measured, encode_rows, has_encoder, widened

ROOT = Path(__file__).resolve().parents[2]
WRITTEN = [f for f in BLOCKS.values() if f.encode is not None]
COMPILED = [f for f in WRITTEN if has_encoder(f)]


def by_name(block_format: BlockFormat) -> str:
    return block_format.name


def reference(values: np.ndarray, block_format: BlockFormat) -> np.ndarray:
    assert block_format.encode is not None
    return block_format.encode(values.reshape(-1, block_format.block_values)).reshape(len(values), -1)


def hard_weights() -> Iterator[tuple[str, np.ndarray]]:
    """Weights on which roundings, clamps, ties and overflows fall: (name, float32 (rows, 256))."""
    random = np.random.default_rng(11)
    shape = (64, 256)
    normal = random.standard_normal(shape)
    bits = random.integers(0, 2**32, shape, dtype=np.uint64).astype(np.uint32).view(np.float32)
    yield "normal", normal * 0.02
    yield "few digits", (normal * 0.02).astype(np.float16)
    yield "integers", random.integers(-3, 4, shape)
    yield "positive", random.random(shape) + 10 * random.random((64, 1))
    yield "negative", -random.random(shape) - 10 * random.random((64, 1))
    yield "sparse", normal * (random.random(shape) < 0.05)
    yield "zeros of both signs", np.where(random.random(shape) < 0.5, 0.0, -0.0)
    yield "constant sub-blocks", np.repeat(random.standard_normal((64, 8)), 32, axis=1)
    yield "sub-blocks far apart", normal * np.repeat(10.0 ** random.integers(-12, 3, (64, 8)), 32, axis=1)
    yield "values far apart", normal * 10.0 ** random.integers(-6, 3, shape)
    yield "about the smallest scale", normal * 10.0 ** random.integers(-45, -10, (64, 1))
    yield "sums overflow", normal * 10.0 ** random.integers(5, 38, (64, 1))
    yield "any finite bits", np.where(np.isfinite(bits), bits, 1)


@pytest.fixture(scope="module")
def hard() -> dict[str, np.ndarray]:
    with np.errstate(all="ignore"):
        return {name: np.clip(values, -3e38, 3e38).astype(np.float32) for name, values in hard_weights()}


def test_formats_that_a_conversion_writes_are_compiled():
    written = {
        "F32",
        "F16",
        "BF16",
        "Q4_0",
        "Q4_1",
        "Q5_0",
        "Q5_1",
        "Q8_0",
        "Q2_K",
        "Q3_K",
        "Q4_K",
        "Q5_K",
        "Q6_K",
        "IQ4_NL",
        "IQ4_XS",
        "TQ1_0",
        "TQ2_0",
        "MXFP4",
    }
    assert written <= {f.name for f in COMPILED}


@pytest.mark.parametrize("block_format", COMPILED, ids=by_name)
def test_equal_to_the_reference(hard: dict[str, np.ndarray], block_format: BlockFormat):
    for name, values in hard.items():
        assert np.array_equal(encode_rows(values, block_format, 2), reference(values, block_format)), name


@pytest.mark.parametrize("block_format", [f for f in COMPILED if f.block_values > 1], ids=by_name)
def test_equal_to_ggml(shared: Path, block_format: BlockFormat):
    with np.load(shared / "golden" / "encode.npz") as golden:
        values, expected = golden["x"], golden[f"{block_format.name}.blocks"]
    assert np.array_equal(encode_rows(values, block_format, 2), expected)


@pytest.mark.parametrize("block_format", COMPILED, ids=by_name)
@pytest.mark.parametrize("n_blocks", [0, 1, 2, 3, 17, 131])
def test_any_number_of_blocks(block_format: BlockFormat, n_blocks: int):
    values = np.random.default_rng(n_blocks).standard_normal((1, n_blocks * block_format.block_values)).astype(np.float32)
    assert np.array_equal(encode_rows(values, block_format), reference(values, block_format))


@pytest.mark.parametrize("block_format", COMPILED, ids=by_name)
def test_threads_change_nothing(block_format: BlockFormat):
    values = np.random.default_rng(7).standard_normal((1537, 256)).astype(np.float32)  # 24 chunks and a part of one
    expected = reference(values, block_format)
    for threads in (1, 2, 5):
        assert np.array_equal(encode_rows(values, block_format, threads), expected)


@pytest.mark.parametrize("block_format", COMPILED, ids=by_name)
def test_nothing_is_written_outside_the_blocks(block_format: BlockFormat):
    values = np.random.default_rng(2).standard_normal((3, block_format.block_values)).astype(np.float32)
    memory = np.full(3 * block_format.block_bytes + 128, 0xA5, np.uint8)
    out = memory[64:-64].reshape(3, -1)
    assert encode_rows(values, block_format, 1, out) is out
    assert (memory[:64] == 0xA5).all() and (memory[-64:] == 0xA5).all()
    assert np.array_equal(out, reference(values, block_format))


def narrowed(values: np.ndarray, source: str) -> np.ndarray:
    """`values` as FLOATS has them, cut to what the format holds."""
    if source == "BF16":
        return (values.view(np.uint32) >> 16).astype(FLOATS["BF16"])
    return np.clip(values, -65504, 65504).astype(FLOATS[source])


@pytest.mark.parametrize("block_format", WRITTEN, ids=by_name)
@pytest.mark.parametrize("source", FLOATS)
def test_narrow_floats_are_widened_on_the_way(hard: dict[str, np.ndarray], source: str, block_format: BlockFormat):
    for name, values in hard.items():
        stored = narrowed(values, source)
        blocks, peak = encode_measured(stored, block_format, 2)
        wide = widened(stored)
        assert wide.dtype == np.float32 and np.array_equal(blocks, reference(wide, block_format)), name
        assert peak == np.abs(wide).max(), name


@pytest.mark.parametrize("block_format", WRITTEN, ids=by_name)
@pytest.mark.parametrize(("source", "infinite"), [("F16", 0x7C00), ("BF16", 0xFF80)])
def test_faults_of_narrow_floats_are_named(block_format: BlockFormat, source: str, infinite: int):
    stored = np.zeros((2, 512), np.uint16)
    stored.flat[[700, 900]] = infinite
    with pytest.raises(ValueError, match=rf"^{block_format.name} cannot encode -?inf at index 700: weights must be finite$"):
        encode_rows(stored.view(FLOATS[source]), block_format)


@pytest.mark.parametrize("block_format", WRITTEN, ids=by_name)
def test_the_peak_is_the_largest_magnitude_wherever_it_is(block_format: BlockFormat):
    assert encode_measured(np.empty((0, 256), np.float32), block_format).peak == 0
    for index in (0, 200_000, 512 * 511 + 7, 512 * 512 - 1):
        values = np.zeros((512, 512), np.float32)
        values.flat[index] = -3.5
        assert encode_measured(values, block_format, 3).peak == 3.5


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("block_format", WRITTEN, ids=by_name)
def test_the_first_value_that_is_not_finite_is_named(block_format: BlockFormat, bad: float):
    for index in (0, 15, 16, 50_000, 262_143):
        values = np.ones((512, 512), np.float32)
        values.flat[[index, 150_000, 262_143]] = bad
        first = min(index, 150_000)
        for threads in (1, 3):
            with pytest.raises(ValueError, match=rf"^{block_format.name} cannot encode {bad} at index {first}: weights must be finite$"):
                encode_rows(values, block_format, threads)


@pytest.mark.parametrize("block_format", WRITTEN, ids=by_name)
def test_without_a_compiled_encoder_the_reference_serves(monkeypatch: pytest.MonkeyPatch, block_format: BlockFormat):
    monkeypatch.setattr(encode_module, "has_encoder", lambda block_format: False)
    monkeypatch.setattr(encode_module, "kernel", None)
    values = np.random.default_rng(9).standard_normal((5, 1024)).astype(np.float32)
    assert np.array_equal(encode_rows(values, block_format), reference(values, block_format))
    wide = np.zeros((2, 1 << 18), np.float32)
    wide[1, 7] = np.nan
    with pytest.raises(ValueError, match=rf"cannot encode nan at index {(1 << 18) + 7}:"):
        encode_rows(wide, block_format)


def test_rows_and_buffers_that_do_not_fit_are_refused():
    q8_0, values = BLOCKS["Q8_0"], np.zeros((2, 64), np.float32)
    with pytest.raises(ValueError, match="a row of 33 values is not a whole number of Q8_0 blocks of 32"):
        encode_rows(values[:, :33], q8_0)
    for out in (np.empty((2, 67), np.uint8), np.empty((2, 68), np.int8), np.empty((2, 136), np.uint8)[:, ::2]):
        with pytest.raises(ValueError, match="out must be contiguous uint8"):
            encode_rows(values, q8_0, out=out)
    with pytest.raises(GGPyError, match="no encoder for Q8_K blocks"):
        encode_rows(np.zeros((1, 256), np.float32), BLOCKS["Q8_K"])


def test_exponents_of_mxfp4_are_those_of_a_rounded_logarithm():
    """Peaks about every power of two, where the logarithm in float32 may be that of the power, and values in the middle between codes."""
    powers = np.concatenate((2.0 ** np.arange(-149, 128), [np.inf])).astype(np.float32).view(np.uint32)
    bits = (powers[:, None] + np.array([-47, -46, -45, -44, -43, -23, -22, -11, -10, -6, -5, -3, -2, -1, 0, 1])).ravel()
    peaks = bits[(bits > 0) & (bits < 0x7F800000)].astype(np.uint32).view(np.float32)
    values = peaks[:, None] * np.random.default_rng(5).uniform(-1, 1, (len(peaks), 32)).astype(np.float32)
    below = np.exp2(np.floor(np.log2(peaks.astype(np.float64))))
    values[:, 8:24] = below[:, None] * np.array([1, 2, 3, 4, 5, 6, 7, 8, -1, -2, -3, -5, -7, 0.5, -0.5, 0.25]) / 8
    values[:, 3] = -peaks
    assert np.array_equal(encode_rows(values, BLOCKS["MXFP4"]), reference(values, BLOCKS["MXFP4"]))


def test_views_and_other_floats_are_taken():
    q4_0 = BLOCKS["Q4_0"]
    values = np.random.default_rng(3).standard_normal((6, 128)).astype(np.float32)
    assert np.array_equal(encode_rows(values[::2, 32:96], q4_0), reference(values[::2, 32:96].copy(), q4_0))
    assert np.array_equal(encode_rows(values.astype(np.float64), q4_0), reference(values, q4_0))


OTHER_CPU = """
import json, sys
import numpy as np
from ggpy.blocks import BLOCKS
from ggpy.runtime.encode import encode_rows
values = np.load(sys.argv[1])
wrong = []
for name in sys.argv[2:]:
    encode = BLOCKS[name].encode
    expected = encode(values.reshape(-1, BLOCKS[name].block_values)).reshape(len(values), -1)
    if not np.array_equal(encode_rows(values, BLOCKS[name], 2), expected):
        wrong.append(name)
print(json.dumps(wrong))
"""


@pytest.mark.skipif(sys.platform == "darwin" or os.uname().machine != "x86_64", reason="compiles for another x86-64 processor")
def test_equal_where_only_avx2_and_fused_multiply_add_are_there(tmp_path: Path, hard: dict[str, np.ndarray]):
    np.save(tmp_path / "values.npy", np.concatenate(list(hard.values())))
    names = [f.name for f in COMPILED]
    command = [sys.executable, "-c", OTHER_CPU, str(tmp_path / "values.npy"), *names]
    done = subprocess.run(command, env=os.environ | {"NUMBA_CPU_NAME": "haswell"}, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


def test_importing_the_encoder_imports_no_numba():
    code = "import sys, ggpy.runtime.encode; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
