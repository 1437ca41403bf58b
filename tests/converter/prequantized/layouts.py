"""Random weights as other quantizers store them, written integer by integer, and the floats they stand for."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..checkpoints import Entries, stored

NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334, -0.09105003625154495,
    0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
)  # fmt: skip
FP4 = (0.0, 0.0052083333, 0.66666667, 1.0, 0.33333333, 0.5, 0.16666667, 0.25)
FP4 = (*FP4, *(-x for x in FP4))


@dataclass(frozen=True)
class Layer:
    """settings: the checkpoint's quantization_config. entries: the tensors of one weight, by what is appended to its module's name.
    rows: the float32 weight they stand for."""

    settings: dict[str, Any]
    entries: Entries
    rows: np.ndarray


def pack(integers: Iterable[int], bits: int, per_word: int | None = None) -> list[int]:
    """32-bit words, signed: one stream of bits, low first, or `per_word` integers a word."""
    integers = list(integers)
    if per_word is None:
        stream = sum(value << (bits * i) for i, value in enumerate(integers))
        words = [(stream >> (32 * i)) & 0xFFFFFFFF for i in range(math.ceil(len(integers) * bits / 32))]
    else:
        pieces = [integers[i : i + per_word] for i in range(0, len(integers), per_word)]
        words = [sum(value << (bits * i) for i, value in enumerate(piece)) for piece in pieces]
    return [word - (1 << 32) if word >> 31 else word for word in words]


def int32(words: list[list[int]]) -> tuple[str, tuple[int, ...], bytes]:
    return stored(np.array(words, np.int32), "I32")


def raw(dtype: str, values: np.ndarray) -> tuple[str, tuple[int, ...], bytes]:
    return dtype, values.shape, values.tobytes()


def random_scales(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """float32 numbers that the dtype holds."""
    scales = (0.002 + 0.01 * rng.random(shape)).astype(np.float32)
    if dtype == "F16":
        return scales.astype(np.float16).astype(np.float32)
    return (scales.view(np.uint32) & 0xFFFF0000).view(np.float32) if dtype == "BF16" else scales


def products(quants: np.ndarray, zeros: np.ndarray, scales: np.ndarray, group_of: list[int]) -> np.ndarray:
    """float32 (rows, columns): each weight for itself. quants (rows, columns); zeros and scales (rows, groups)."""
    rows = np.empty(quants.shape, np.float32)
    for r in range(len(quants)):
        for c in range(quants.shape[1]):
            g = group_of[c]
            rows[r, c] = np.float32(int(quants[r, c]) - int(zeros[r, g])) * scales[r, g]
    return rows


def gptq(
    rng: np.random.Generator,
    outputs: int,
    inputs: int,
    *,
    bits: int = 4,
    group: int = 32,
    symmetric: bool = True,
    order: str = "none",
    version: str = "gptq",
    dtype: str = "F16",
) -> Layer:
    """order: "none" (no g_idx), "trivial", "blocks" (groups in another order) or "scattered"."""
    size = inputs if group == -1 else group
    n_groups = math.ceil(inputs / size)
    group_of = [i // size for i in range(inputs)]
    if order == "blocks":
        group_of = [n_groups - 1 - g for g in group_of]
    elif order == "scattered":
        group_of = [int(g) for g in rng.permutation(group_of)]
    quants = rng.integers(0, 1 << bits, (outputs, inputs))
    zeros = np.full((outputs, n_groups), 1 << (bits - 1)) if symmetric else rng.integers(1, 1 << bits, (outputs, n_groups))
    scales = random_scales(rng, (outputs, n_groups), dtype)
    less = 1 if version == "gptq" else 0
    columns = [pack(quants[o].tolist(), bits) for o in range(outputs)]
    entries: Entries = {
        ".qweight": int32([[column[w] for column in columns] for w in range(len(columns[0]))]),
        ".qzeros": int32([pack((zeros[:, g] - less).tolist(), bits) for g in range(n_groups)]),
        ".scales": stored(np.ascontiguousarray(scales.T), dtype),
    }
    if order != "none":
        entries[".g_idx"] = stored(np.array(group_of, np.int32), "I32")
    settings = {"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": order == "scattered", "checkpoint_format": version}
    return Layer(settings, entries, products(quants, zeros, scales, group_of))


def awq(rng: np.random.Generator, outputs: int, inputs: int, *, group: int = 32, dtype: str = "F16") -> Layer:
    n_groups = math.ceil(inputs / group)
    quants = rng.integers(0, 16, (outputs, inputs))
    zeros, scales = rng.integers(0, 16, (outputs, n_groups)), random_scales(rng, (outputs, n_groups), dtype)

    def words(by_output: np.ndarray) -> list[int]:
        mixed = [int(by_output[8 * w + place]) for w in range(outputs // 8) for place in (0, 2, 4, 6, 1, 3, 5, 7)]
        return pack(mixed, 4)

    entries: Entries = {
        ".qweight": int32([words(quants[:, i]) for i in range(inputs)]),
        ".qzeros": int32([words(zeros[:, g]) for g in range(n_groups)]),
        ".scales": stored(np.ascontiguousarray(scales.T), dtype),
    }
    settings = {"quant_method": "awq", "bits": 4, "group_size": group, "version": "gemm", "zero_point": True}
    return Layer(settings, entries, products(quants, zeros, scales, [i // group for i in range(inputs)]))


def bnb_int8(rng: np.random.Generator, rows: int, columns: int) -> Layer:
    quants, scb = rng.integers(-127, 128, (rows, columns)), (0.05 + rng.random(rows)).astype(np.float32)
    entries: Entries = {".weight": raw("I8", quants.astype(np.int8)), ".SCB": stored(scb), ".weight_format": ("U8", (), b"\0")}
    scales = (scb / np.float32(127))[:, None]
    settings = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    return Layer(settings, entries, products(quants, np.zeros((rows, 1), int), scales, [0] * columns))


def bnb_4bit(rng: np.random.Generator, rows: int, columns: int, *, kind: str = "nf4", block: int = 64, double: bool = False) -> Layer:
    n, codebook = rows * columns, np.array(NF4 if kind == "nf4" else FP4, np.float32)
    n_blocks = math.ceil(n / block)
    quants = rng.integers(0, 16, n + n % 2)
    state = {"quant_type": kind, "blocksize": block, "dtype": "bfloat16", "shape": [rows, columns]}
    entries: Entries = {
        ".weight": raw("U8", np.array([[16 * int(quants[i]) + int(quants[i + 1])] for i in range(0, len(quants), 2)], np.uint8)),
        ".weight.quant_map": stored(codebook),
    }
    absmax = random_scales(rng, (n_blocks,), "F32")
    if double:
        codes, nested_map = rng.integers(0, 256, n_blocks), np.linspace(-1, 1, 256).astype(np.float32)
        nested, offset = random_scales(rng, (math.ceil(n_blocks / 256),), "F32"), np.float32(0.03125)
        absmax = np.array([nested_map[a] * nested[j // 256] + offset for j, a in enumerate(codes)], np.float32)
        entries |= {
            ".weight.absmax": raw("U8", codes.astype(np.uint8)),
            ".weight.nested_absmax": stored(nested),
            ".weight.nested_quant_map": stored(nested_map),
        }
        state |= {"nested_blocksize": 256, "nested_offset": float(offset), "nested_dtype": "float32"}
    else:
        entries[".weight.absmax"] = stored(absmax)
    text = json.dumps(state).encode()
    entries[f".weight.quant_state.bitsandbytes__{kind}"] = ("U8", (len(text),), text)
    values = np.array([codebook[quants[i]] * absmax[i // block] for i in range(n)], np.float32)
    settings = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": kind}
    return Layer(settings, entries, values.reshape(rows, columns))


def packed(
    rng: np.random.Generator, rows: int, columns: int, *, bits: int = 4, group: int | None = 32, symmetric: bool = True, order: bool = False
) -> Layer:
    """compressed-tensors pack-quantized; group None: a scale for each row."""
    size = group or columns
    n_groups, per_word, half = math.ceil(columns / size), 32 // bits, 1 << (bits - 1)
    group_of = [c // size for c in range(columns)]
    if order:
        group_of = [int(g) for g in rng.permutation(group_of)]
    quants, scales = rng.integers(-half, half, (rows, columns)), random_scales(rng, (rows, n_groups), "BF16")
    zeros = np.zeros((rows, n_groups), int) if symmetric else rng.integers(-half, half, (rows, n_groups))
    entries: Entries = {
        ".weight_packed": int32([pack((quants[r] + half).tolist(), bits, per_word) for r in range(rows)]),
        ".weight_scale": stored(scales, "BF16"),
        ".weight_shape": raw("I64", np.array([rows, columns], np.int64)),
    }
    if not symmetric:
        by_group = [pack((zeros[:, g] + half).tolist(), bits, per_word) for g in range(n_groups)]
        entries[".weight_zero_point"] = int32([[words[w] for words in by_group] for w in range(len(by_group[0]))])
    if order:
        entries[".weight_g_idx"] = stored(np.array(group_of, np.int32), "I32")
    return Layer(scheme("pack-quantized", bits, group, "int"), entries, products(quants, zeros, scales, group_of))


def int8(rng: np.random.Generator, rows: int, columns: int, *, group: int | None = None, symmetric: bool = True) -> Layer:
    """compressed-tensors int-quantized."""
    size = group or columns
    n_groups = math.ceil(columns / size)
    quants, scales = rng.integers(-128, 128, (rows, columns)), random_scales(rng, (rows, n_groups), "F32")
    zeros = np.zeros((rows, n_groups), int) if symmetric else rng.integers(-20, 20, (rows, n_groups))
    entries: Entries = {".weight": raw("I8", quants.astype(np.int8)), ".weight_scale": stored(scales)}
    if not symmetric:
        entries[".weight_zero_point"] = raw("I8", zeros.astype(np.int8))
    return Layer(scheme("int-quantized", 8, group, "int"), entries, products(quants, zeros, scales, [c // size for c in range(columns)]))


def scheme(format: str, bits: int, group: int | None, kind: str) -> dict[str, Any]:
    weights = {"num_bits": bits, "type": kind, "symmetric": True, "strategy": "group" if group else "channel", "group_size": group}
    return {
        "quant_method": "compressed-tensors",
        "format": format,
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
    }


def fp8(rng: np.random.Generator, rows: int, columns: int, *, scaled: str = "row", kind: str = "E4M3", method: str = "fp8") -> Layer:
    """scaled: "tensor", "row" or "block" of 16 × 32."""
    codes = rng.integers(0, 256, (rows, columns))
    codes[(codes & 0x7C) == 0x7C] &= 0x83  # neither NaN nor infinity of either kind
    size = {"tensor": (rows, columns), "row": (1, columns), "block": (16, 32)}[scaled]
    scales = random_scales(rng, (math.ceil(rows / size[0]), math.ceil(columns / size[1])), "F32")
    decode: Callable[[int], float] = e4m3 if kind == "E4M3" else e5m2
    values = np.empty((rows, columns), np.float32)
    for r in range(rows):
        for c in range(columns):
            values[r, c] = np.float32(decode(int(codes[r, c]))) * scales[r // size[0], c // size[1]]
    suffix = ".weight_scale_inv" if scaled == "block" and method == "fp8" else ".weight_scale"
    shape = () if scaled == "tensor" else scales.shape
    entries: Entries = {".weight": raw(f"F8_{kind}", codes.astype(np.uint8)), suffix: ("F32", shape, scales.tobytes())}
    settings: dict[str, Any] = {"quant_method": method} | ({"weight_block_size": list(size)} if scaled == "block" else {})
    if method != "fp8":
        settings = scheme("float-quantized", 8, None, "float")
        if scaled == "block":
            settings["config_groups"]["group_0"]["weights"] |= {"strategy": "block", "block_structure": list(size)}
    return Layer(settings, entries, values)


def e4m3(code: int) -> float:
    exponent, mantissa = (code >> 3) & 15, code & 7
    magnitude = mantissa / 8 * 2.0**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7)
    return -magnitude if code & 128 else magnitude


def e5m2(code: int) -> float:
    exponent, mantissa = (code >> 2) & 31, code & 3
    magnitude = mantissa / 4 * 2.0**-14 if exponent == 0 else (1 + mantissa / 4) * 2.0 ** (exponent - 15)
    return -magnitude if code & 128 else magnitude
