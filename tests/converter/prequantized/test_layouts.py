"""Every layout, decoded and repacked, against weights worked out one by one; and layouts whose tensors do not fit each other."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ggpy.arch.hf_config import HFConfig
from ggpy.blocks import BLOCKS, dequantize
from ggpy.converter.prequantized import QuantizedMatrix, dequantized
from ggpy.converter.safetensors import SafetensorsFile
from ggpy.errors import CheckpointError

from ..checkpoints import Entries, safetensors_bytes, stored
from . import layouts
from .layouts import Layer

FOUR, ASYMMETRIC = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"), ("Q4_1", "Q5_0", "Q5_1", "Q8_0")

# name -> (the layer, what it is called, formats that hold it)
LAYERS: dict[str, tuple[Callable[..., Layer], dict[str, Any], str, tuple[str, ...]]] = {
    "gptq": (layouts.gptq, {}, "GPTQ 4-bit", FOUR),
    "gptq v2": (layouts.gptq, {"version": "gptq_v2", "order": "trivial"}, "GPTQ 4-bit", FOUR),
    "gptq asymmetric": (layouts.gptq, {"symmetric": False}, "GPTQ 4-bit", ASYMMETRIC),
    "gptq v2 asymmetric bf16": (layouts.gptq, {"symmetric": False, "version": "gptq_v2", "dtype": "BF16"}, "GPTQ 4-bit", ASYMMETRIC),
    "gptq f32": (layouts.gptq, {"dtype": "F32"}, "GPTQ 4-bit", FOUR),
    "gptq whole rows": (layouts.gptq, {"group": -1}, "GPTQ 4-bit", FOUR),
    "gptq 2": (layouts.gptq, {"bits": 2}, "GPTQ 2-bit", FOUR),
    "gptq 3": (layouts.gptq, {"bits": 3}, "GPTQ 3-bit", FOUR),
    "gptq 3 asymmetric": (layouts.gptq, {"bits": 3, "symmetric": False}, "GPTQ 3-bit", FOUR),
    "gptq 8": (layouts.gptq, {"bits": 8, "order": "trivial"}, "GPTQ 8-bit", ("Q8_0",)),
    "gptq 8 asymmetric": (layouts.gptq, {"bits": 8, "symmetric": False}, "GPTQ 8-bit", ()),
    "gptq reordered blocks": (layouts.gptq, {"order": "blocks"}, "GPTQ 4-bit", FOUR),
    "gptq act-order": (layouts.gptq, {"order": "scattered"}, "GPTQ 4-bit act-order", ()),
    "gptq act-order asymmetric": (layouts.gptq, {"order": "scattered", "symmetric": False}, "GPTQ 4-bit act-order", ()),
    "gptq odd groups": (layouts.gptq, {"group": 24}, "GPTQ 4-bit", ()),
    "gptq short last group": (layouts.gptq, {"group": 64}, "GPTQ 4-bit", FOUR),
    "awq": (layouts.awq, {}, "AWQ 4-bit", ASYMMETRIC),
    "awq bf16": (layouts.awq, {"dtype": "BF16"}, "AWQ 4-bit", ASYMMETRIC),
    "bnb int8": (layouts.bnb_int8, {}, "bitsandbytes int8", ("Q8_0",)),
    "bnb nf4": (layouts.bnb_4bit, {}, "bitsandbytes NF4", ()),
    "bnb fp4": (layouts.bnb_4bit, {"kind": "fp4", "block": 128}, "bitsandbytes FP4", ()),
    "bnb double": (layouts.bnb_4bit, {"double": True, "block": 32}, "bitsandbytes NF4 double-quantized", ()),
    "packed": (layouts.packed, {}, "compressed-tensors int4", FOUR),
    "packed asymmetric": (layouts.packed, {"symmetric": False}, "compressed-tensors int4", ASYMMETRIC),
    "packed by row": (layouts.packed, {"group": None}, "compressed-tensors int4", FOUR),
    "packed 8": (layouts.packed, {"bits": 8}, "compressed-tensors int8", ("Q8_0",)),
    "packed 5 asymmetric": (layouts.packed, {"bits": 5, "symmetric": False}, "compressed-tensors int5", ("Q5_1", "Q8_0")),
    "packed 3": (layouts.packed, {"bits": 3}, "compressed-tensors int3", FOUR),
    "packed act-order": (layouts.packed, {"order": True}, "compressed-tensors int4 act-order", ()),
    "int8": (layouts.int8, {}, "compressed-tensors int8", ("Q8_0",)),
    "int8 groups": (layouts.int8, {"group": 32}, "compressed-tensors int8", ("Q8_0",)),
    "int8 asymmetric": (layouts.int8, {"symmetric": False}, "compressed-tensors int8", ()),
    "fp8 rows": (layouts.fp8, {}, "FP8 E4M3", ()),
    "fp8 tensor": (layouts.fp8, {"scaled": "tensor"}, "FP8 E4M3", ()),
    "fp8 blocks": (layouts.fp8, {"scaled": "block"}, "FP8 E4M3 in blocks of 16 × 32", ()),
    "fp8 e5m2": (layouts.fp8, {"kind": "E5M2"}, "FP8 E5M2", ()),
    "fp8 compressed-tensors": (layouts.fp8, {"method": "compressed-tensors"}, "FP8 E4M3", ()),
    "fp8 compressed-tensors blocks": (
        layouts.fp8,
        {"method": "compressed-tensors", "scaled": "block"},
        "FP8 E4M3 in blocks of 16 × 32",
        (),
    ),
}
COLUMNS = 96


def rows_of(name: str) -> int:
    """Zeros of 2 and 3 bits fill whole words only over every 32 outputs."""
    return 64 if name.startswith(("gptq 2", "gptq 3")) else 40


@contextmanager
def opened(folder: Path, settings: dict[str, Any], entries: Entries):
    """The only weight of a checkpoint whose tensors are `entries`."""
    path = folder / "model.safetensors"
    path.write_bytes(safetensors_bytes({f"layer{suffix}": entry for suffix, entry in entries.items()}))
    file = SafetensorsFile(path)
    try:
        found = dequantized(HFConfig({"quantization_config": settings}, "config.json"), file.tensors)
        assert list(found) == ["layer.weight"] and isinstance(found["layer.weight"], QuantizedMatrix)
        yield found["layer.weight"]
    finally:
        file.close()


@pytest.mark.parametrize("name", LAYERS)
def test_every_weight_is_what_it_stands_for(tmp_path: Path, name: str):
    make, arguments, method, fits = LAYERS[name]
    rows = rows_of(name)
    layer = make(np.random.default_rng(list(LAYERS).index(name)), rows, COLUMNS, **arguments)
    with opened(tmp_path, layer.settings, layer.entries) as matrix:
        assert (matrix.shape, matrix.quantized.method, matrix.quantized.fits) == ((rows, COLUMNS), method, fits)
        read = matrix.open()
        np.testing.assert_array_equal(read(0, rows), layer.rows)
        for start, stop in ((0, 1), (7, 9), (13, 40), (39, 40)):
            np.testing.assert_array_equal(read(start, stop), layer.rows[start:stop])
        assert tuple(matrix.repacked) == fits and set(matrix.quantized.exact) <= set(fits)
        for format in fits:
            blocks = matrix.repacked[format]()
            found = dequantize(blocks(0, rows), BLOCKS[format])
            np.testing.assert_array_equal(dequantize(blocks(5, 21), BLOCKS[format]), found[5:21])
            if format in matrix.quantized.exact:
                np.testing.assert_array_equal(found, layer.rows)
            else:  # a scale, or a minimum, rounded to half precision: at most 2**-11 of it, and minimums are up to the whole range
                assert 0 < np.abs(found - layer.rows).max() <= 2.0**-11 * 1.01 * (np.abs(layer.rows).max() + np.ptp(layer.rows))


@pytest.mark.parametrize(
    ("name", "exact"),
    [
        ("gptq", FOUR),
        ("gptq asymmetric", ("Q5_0", "Q8_0")),
        ("gptq f32", ()),
        ("gptq 8", ("Q8_0",)),
        ("packed", FOUR),
        ("packed 8", ("Q8_0",)),
        ("awq", ("Q5_0", "Q8_0")),
        ("bnb int8", ()),
    ],
)
def test_which_formats_lose_no_bit(tmp_path: Path, name: str, exact: tuple[str, ...]):
    """Q4_0, Q5_0 and Q8_0 where scales are half-precision numbers; Q4_1 only where scale times zero is one, too, as 8 times a scale."""
    make, arguments, _, _ = LAYERS[name]
    layer = make(np.random.default_rng(0), rows_of(name), COLUMNS, **arguments)
    with opened(tmp_path, layer.settings, layer.entries) as matrix:
        assert matrix.quantized.exact == exact


def test_scales_beyond_half_precision_fit_no_block(tmp_path: Path):
    layer = layouts.gptq(np.random.default_rng(0), 8, 64, dtype="F32")
    for factor in (1e9, np.inf, np.nan):
        scales = np.frombuffer(layer.entries[".scales"][2], np.float32).reshape(2, 8).copy()
        scales[1, 3] *= factor
        with opened(tmp_path, layer.settings, layer.entries | {".scales": stored(scales)}) as matrix:
            assert matrix.quantized.fits == () and matrix.quantized.nearest == "Q8_0"


def test_a_stored_zero_wraps_as_it_was_written(tmp_path: Path):
    """A zero of 0 is stored less one, all bits set."""
    layer = layouts.gptq(np.random.default_rng(0), 8, 32)
    with opened(tmp_path, layer.settings, layer.entries | {".qzeros": layouts.int32([[-1]])}) as matrix:
        quants = np.rint(layer.rows / np.frombuffer(layer.entries[".scales"][2], np.float16).astype(np.float32)[:, None]) + 8
        scales = np.frombuffer(layer.entries[".scales"][2], np.float16).astype(np.float32)[:, None]
        np.testing.assert_array_equal(matrix.open()(0, 8), (quants * scales).astype(np.float32))


def test_layers_of_other_widths_where_the_config_allows_it(tmp_path: Path):
    layer = layouts.gptq(np.random.default_rng(0), 16, 64, bits=8)
    with opened(tmp_path, layer.settings | {"bits": 4, "group_size": 64, "dynamic": {"+:layer": {"bits": 8}}}, layer.entries) as matrix:
        np.testing.assert_array_equal(matrix.open()(0, 16), layer.rows)


def test_bytes_kept_as_other_dtypes(tmp_path: Path):
    """Training frameworks store the 4-bit bytes as bfloat16."""
    layer = layouts.bnb_4bit(np.random.default_rng(0), 8, 64)
    raw = layer.entries[".weight"][2]
    with opened(tmp_path, layer.settings, layer.entries | {".weight": ("BF16", (len(raw) // 2, 1), raw)}) as matrix:
        np.testing.assert_array_equal(matrix.open()(0, 8), layer.rows)


def test_blocks_written_as_a_word(tmp_path: Path):
    layer = layouts.fp8(np.random.default_rng(0), 40, 96, method="compressed-tensors", scaled="block")
    settings = dict(layer.settings)
    block_structure("16x32")(settings, {})
    with opened(tmp_path, settings, layer.entries) as matrix:
        np.testing.assert_array_equal(matrix.open()(0, 40), layer.rows)


def test_rows_that_begin_within_a_byte(tmp_path: Path):
    layer = layouts.bnb_4bit(np.random.default_rng(0), 7, 33, block=32)
    with opened(tmp_path, layer.settings, layer.entries) as matrix:
        read = matrix.open()
        for start in range(7):
            np.testing.assert_array_equal(read(start, 7), layer.rows[start:])


# --- what does not fit ------------------------------------------------------------------------------------------------

Change = Callable[[dict[str, Any], Entries], None]


def settings(**changes: Any) -> Change:
    return lambda settings, entries: settings.update(changes)


def tensor(suffix: str, entry: tuple[str, tuple[int, ...], bytes] | None) -> Change:
    def change(_: dict[str, Any], entries: Entries) -> None:
        if entry is None:
            del entries[suffix]
        else:
            entries[suffix] = entry

    return change


def state(without: tuple[str, ...] = (), **changes: Any) -> Change:
    """Other values in the JSON of a 4-bit weight."""

    def change(_: dict[str, Any], entries: Entries) -> None:
        name = next(name for name in entries if "quant_state" in name)
        values = {key: value for key, value in (json.loads(entries[name][2]) | changes).items() if key not in without}
        raw = json.dumps(values).encode()
        entries[name] = ("U8", (len(raw),), raw)

    return change


def bytes_of_state(raw: bytes) -> Change:
    return tensor(".weight.quant_state.bitsandbytes__nf4", ("U8", (len(raw),), raw))


def block_structure(value: Any) -> Change:
    weights = {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": value}
    return settings(config_groups={"group_0": {"weights": weights}})


def zeros(dtype: str, *shape: int) -> tuple[str, tuple[int, ...], bytes]:
    sizes = {"I32": 4, "F32": 4, "F16": 2, "I8": 1, "U8": 1, "I64": 8, "F8_E4M3": 1}
    return dtype, shape, bytes(sizes[dtype] * int(np.prod(shape)))


def g_idx(value: int) -> tuple[str, tuple[int, ...], bytes]:
    return stored(np.array([0] * 95 + [value], np.int32), "I32")


HOSTILE: list[tuple[str, Change, str]] = [
    ("gptq", settings(checkpoint_format="marlin"), "checkpoint_format is 'marlin', expected gptq or gptq_v2"),
    ("gptq", settings(bits=5), "bits is 5, expected one of 2, 3, 4, 8"),
    ("gptq", settings(bits="4"), "bits is '4', expected a whole number"),
    ("gptq", settings(bits=8), r"qzeros has shape \[3, 5\], expected 3 × 40 · 8 / 32 by the scales and 8 bits"),
    ("gptq", settings(group_size=64), "scales has 3 groups, expected 2 of 64 of 96 inputs"),
    ("gptq", settings(group_size=-2), "group_size is -2"),
    ("gptq", tensor(".qzeros", None), r"layer\.qzeros is missing"),
    ("gptq", tensor(".scales", None), r"layer\.scales is missing"),
    ("gptq", tensor(".scales", zeros("I32", 3, 40)), "scales is I32, expected F32 or F16 or BF16"),
    ("gptq", tensor(".qweight", zeros("I32", 12)), r"qweight has shape \[12\], expected \[inputs"),
    ("gptq", tensor(".qweight", zeros("I32", 12, 39)), r"qweight has shape \[12, 39\], expected \[12, 40\]"),
    ("gptq", tensor(".qweight", zeros("I32", 0, 40)), "no whole number of 4-bit inputs"),
    ("gptq 3", tensor(".qweight", zeros("I32", 10, 64)), "no whole number of 3-bit inputs"),
    ("gptq", tensor(".scales", zeros("F16", 0, 40)), r"qzeros has shape \[3, 5\], expected 0 × 40"),
    ("gptq", tensor(".g_idx", g_idx(3)), "g_idx is 3 at index 95, expected a group from 0 to 2"),
    ("gptq", tensor(".g_idx", g_idx(-1)), "g_idx is -1 at index 95, expected a group from 0 to 2"),
    ("gptq", tensor(".g_idx", zeros("I32", 95)), r"g_idx has shape \[95\], expected \[96\]"),
    ("gptq", tensor(".weight", zeros("F32", 2, 2)), "weight is there twice"),
    ("awq", settings(version="gemv_fast"), "version is 'gemv_fast', expected gemm"),
    ("awq", settings(bits=8), "bits is 8, expected 4"),
    ("awq", settings(group_size=48), "scales has 3 groups, expected 2 of 48 of 96 inputs"),
    ("awq", tensor(".qzeros", zeros("I32", 3, 6)), r"qzeros has shape \[3, 6\], expected \[3, 5\]"),
    ("awq", tensor(".scales", zeros("F16", 3, 41)), "expected groups and a multiple of 8 outputs"),
    ("awq", tensor(".scales", zeros("F16", 0, 40)), "expected groups and a multiple of 8 outputs"),
    ("bnb int8", tensor(".SCB", zeros("F32", 39)), r"SCB has shape \[39\], expected \[40\]"),
    ("bnb int8", tensor(".weight", None), r"layer\.weight is missing"),
    ("bnb int8", tensor(".weight", zeros("U8", 40, 96)), "weight is U8, expected I8"),
    ("bnb int8", tensor(".weight_format", ("U8", (), b"\2")), r"weight_format is \[2\], expected 0"),
    ("bnb nf4", bytes_of_state(b"[" * 60_000), "nested too deeply"),
    ("bnb nf4", bytes_of_state(b"{" * 70_000), "has 70000 bytes, expected a few of JSON"),
    ("bnb nf4", bytes_of_state(b'{"shape": [1], "shape": [2]}'), "not legal JSON: key 'shape' twice"),
    ("bnb nf4", state(shape=[40, -96]), r"shape is \[40, -96\], expected \[rows, columns\]"),
    ("bnb nf4", state(shape=[2**31 - 1, 2**31 - 1]), "weight has 1920 bytes, expected 2305843007066210304"),
    ("bnb nf4", state(shape=[40.0, 96]), r"expected \[rows, columns\]"),
    ("bnb nf4", state(without=("shape",)), "shape is missing"),
    ("bnb nf4", state(blocksize=0), "blocksize is 0"),
    ("bnb nf4", state(blocksize=2**31 - 1), "blocksize is 2147483647, expected a whole number from 1 to 65536"),
    ("bnb nf4", state(blocksize=32), r"absmax has shape \[60\], expected \[120\]"),
    ("bnb nf4", tensor(".weight.quant_map", zeros("F32", 15)), r"quant_map has shape \[15\], expected \[16\]"),
    ("bnb double", state(without=("nested_offset",)), "nested_offset is missing, expected a finite number"),
    ("bnb double", state(nested_offset="0"), "nested_offset is '0', expected a finite number"),
    ("bnb double", state(nested_blocksize=1), r"nested_absmax has shape \[1\], expected \[120\]"),
    ("bnb double", tensor(".weight.nested_absmax", None), r"layer\.weight\.nested_absmax is missing"),
    ("bnb double", tensor(".weight.nested_quant_map", zeros("F32", 16)), r"nested_quant_map has shape \[16\], expected \[256\]"),
    ("packed", settings(format="nvfp4-pack-quantized"), "format is 'nvfp4-pack-quantized', expected one of"),
    ("packed", settings(sparsity_config={"format": "sparse-24-bitmask"}), "sparsity_config is .* expected none"),
    ("packed", settings(config_groups={}), "expected room for 40 × 96 of a number of bits"),
    ("packed", settings(config_groups={"group_0": {"weights": {"num_bits": 33}}}), "num_bits is 33"),
    ("packed", tensor(".weight_shape", stored(np.array([[40, 96]]), "I32")), r"weight_shape has shape \[1, 2\], expected \[2\]"),
    ("packed", tensor(".weight_shape", stored(np.array([40, -96]), "I32")), "expected room for 40 × -96 of 4 bits"),
    ("packed", tensor(".weight_shape", stored(np.array([40, 97]), "I32")), "expected room for 40 × 97 of 4 bits"),
    ("packed", tensor(".weight_scale", zeros("F32", 40, 4)), "weight_scale has 4 groups for 96 columns"),
    ("packed", tensor(".weight_scale", zeros("F32", 39, 3)), r"weight_scale has shape \[39, 3\]"),
    ("packed", tensor(".weight_scale", zeros("F32", 40, 0)), r"weight_scale has shape \[40, 0\]"),
    ("packed asymmetric", tensor(".weight_zero_point", zeros("I32", 4, 3)), r"weight_zero_point has shape \[4, 3\], expected \[5, 3\]"),
    ("packed act-order", tensor(".weight_g_idx", g_idx(7)), "weight_g_idx is 7 at index 95, expected a group from 0 to 2"),
    ("int8 asymmetric", tensor(".weight_zero_point", zeros("I8", 39, 1)), "expected that of the scales"),
    ("int8", tensor(".weight", zeros("I8", 40, 0)), "expected rows and columns"),
    ("fp8 rows", tensor(".weight_scale", zeros("F32", 39, 1)), r"weight_scale has shape \[39, 1\] beside weights \[40, 96\]"),
    ("fp8 rows", tensor(".weight_scale", None), "is F8_E4M3 without a weight_scale_inv or weight_scale beside it"),
    ("fp8 blocks", settings(weight_block_size=[128]), r"weight_block_size is \[128\], expected \[rows, columns\]"),
    ("fp8 blocks", settings(weight_block_size=[16, 0]), r"weight_block_size is \[16, 0\]"),
    ("fp8 blocks", settings(weight_block_size=[16, 16]), "one per block of 16 × 16"),
    ("fp8 blocks", tensor(".weight", zeros("I8", 40, 96)), "weight is I8, expected F8_E4M3 or F8_E5M2"),
    ("fp8 compressed-tensors blocks", block_structure("128"), "block_structure is '128', expected"),
    ("fp8 compressed-tensors blocks", block_structure([16, 0]), r"block_structure is \[16, 0\], expected"),
    ("fp8 compressed-tensors blocks", block_structure("16x16"), "one per block of 16 × 16"),
    ("gptq", settings(quant_method="hqq"), "quant_method is 'hqq', expected one of gptq, awq, .*; convert the float checkpoint"),
    ("gptq", settings(quant_method="gguf"), "give the .gguf file itself"),
    ("gptq", settings(quant_method="mxfp4"), "quant_method is 'mxfp4'"),
    ("gptq", settings(quant_method=["gptq"]), "quant_method is .*expected a string"),
]


@pytest.mark.parametrize(("name", "change", "message"), HOSTILE, ids=[f"{name}-{i}" for i, (name, _, _) in enumerate(HOSTILE)])
def test_what_does_not_fit_is_refused_by_name(tmp_path: Path, name: str, change: Change, message: str):
    make, arguments, _, _ = LAYERS[name]
    layer = make(np.random.default_rng(0), rows_of(name), COLUMNS, **arguments)
    changed, entries = dict(layer.settings), dict(layer.entries)
    change(changed, entries)
    with pytest.raises(CheckpointError, match=message), opened(tmp_path, changed, entries):
        pass


def test_quantized_tensors_need_a_config(tmp_path: Path):
    layer = layouts.gptq(np.random.default_rng(0), 8, 32)
    with pytest.raises(CheckpointError, match=r"quantization_config is missing, .*layer\.qweight"), opened(tmp_path, {}, layer.entries):
        pass
