"""Write the golden vectors of the block formats, `formats/blocks/*.vectors.json`, from ggml's reference bytes.

    python tools/make_vectors.py GOLDEN_DIR [--check]

GOLDEN_DIR holds `encode.npz` and `decode.npz`, made by ggml's reference C code. Formats that these files do not cover (plain numbers, Q8_K)
are computed here without ggpy: by `struct`, `ml_dtypes`, and exact products in double precision. With --check nothing is written; the exit
code says whether the files are what would be written.
"""

from __future__ import annotations

import argparse
import json
import math
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np

FOLDER = Path(__file__).resolve().parents[1] / "formats" / "blocks"
GGML = "ggml's reference C code (libggml-base 0.25.3, baseline x86-64, no fused multiply-add)"
HERE = "IEEE 754 arithmetic in tools/make_vectors.py"

KINDS = (
    "gaussian", "laplace", "uniform", "outliers", "tiny", "huge", "zeros", "constant", "sparse", "alternating", "positive", "ramp",
    "negative", "mixed magnitudes", "heavy-tailed", "one-hot",
)  # rows 0..15 of encode.npz  # fmt: skip
SUPER_BLOCK_KINDS = ("outliers", "sparse", "mixed magnitudes")
WEIGHTED_KIND = "laplace"

BLOCKS_OF_32 = {"Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "IQ4_NL": 20, "MXFP4": 39}  # name: ggml type
SUPER_BLOCKS = {
    "Q2_K": 10, "Q3_K": 11, "Q4_K": 12, "Q5_K": 13, "Q6_K": 14, "IQ2_XXS": 16, "IQ2_XS": 17, "IQ3_XXS": 18, "IQ1_S": 19, "IQ3_S": 21,
    "IQ2_S": 22, "IQ4_XS": 23, "IQ1_M": 29, "TQ1_0": 34, "TQ2_0": 35,
}  # fmt: skip

NUMBERS = (0.0, -0.0, 1.0, -1.0, 0.1, -2.5, 3.14159274, 65504.0, 65519.0, -65520.0, 1e-5, 6e-8, 2.98e-8, -2.99e-8, 1e-7, 1.00048828,
           1.00390625, 1.01171875, -1.00390637, 1e-40, 3.0e38, -3.4e38)  # fmt: skip
INTEGERS = {
    "I8": (24, "b", (0, 1, -1, 127, -128)),
    "I16": (25, "<h", (0, 1, -1, 32767, -32768)),
    "I32": (26, "<i", (0, -1, 2**24 + 1, 2**24 + 3, 2**31 - 1, -(2**31))),
    "I64": (27, "<q", (0, -1, 2**24 + 1, 2**40 + 1, 2**63 - 1, -(2**63))),
}


def float32(value: float) -> np.float32:
    """The nearest float32; infinite where it is too large."""
    try:
        return np.frombuffer(struct.pack("<f", value), "<f4")[0]
    except OverflowError:
        return np.float32(math.copysign(math.inf, value))


def float16_bytes(value: float) -> bytes:
    """The nearest binary16; infinite where it is too large."""
    try:
        return struct.pack("<e", value)
    except OverflowError:
        return struct.pack("<e", math.copysign(math.inf, value))


def hexadecimal(array: np.ndarray) -> str:
    return array.astype(array.dtype.newbyteorder("<")).tobytes().hex()


def of_ggml(golden: Path, name: str, ggml_type: int, kinds: tuple[str, ...], block_values: int, n_decode: int) -> dict:
    """Vectors of a format that the golden files cover: one block of each kind of row, and some blocks of random bytes.

    Of formats that take importance, a row more: of a super-block, or, as the others weigh by the mean of a row, all of a row.
    """
    with np.load(golden / "encode.npz") as encode_file, np.load(golden / "decode.npz") as decode_file:
        encode, decode = (
            {key: file[key] for key in file.files if key in ("x", "importance") or key.startswith(f"{name}.")}
            for file in (encode_file, decode_file)
        )
    n_bytes = decode[f"{name}.blocks"].shape[1]
    written, weighted = [], []
    if f"{name}.imatrix.blocks" in encode:
        row = KINDS.index(WEIGHTED_KIND)
        cols = block_values if block_values == 256 else encode["x"].shape[1]
        weighted.append({
            "name": WEIGHTED_KIND,
            "values": hexadecimal(encode["x"][row, :cols]),
            "importance": hexadecimal(encode["importance"][:cols]),
            "blocks": hexadecimal(encode[f"{name}.imatrix.blocks"][row, : cols // block_values * n_bytes]),
        })  # fmt: skip
    for kind in kinds if f"{name}.blocks" in encode else ():
        row = KINDS.index(kind)
        written.append({
            "name": kind,
            "values": hexadecimal(encode["x"][row, :block_values]),
            "blocks": hexadecimal(encode[f"{name}.blocks"][row, :n_bytes]),
            "decoded": hexadecimal(encode[f"{name}.values"][row, :block_values]),
        })  # fmt: skip
    read = [
        {
            "name": f"random bytes {i}",
            "blocks": hexadecimal(decode[f"{name}.blocks"][i]),
            "values": hexadecimal(decode[f"{name}.values"][i]),
        }
        for i in range(n_decode)
    ]
    found = {"format": name, "ggml_type": ggml_type, "source": GGML, "decode": read, "encode": written}
    return found | ({"encode_weighted": weighted} if weighted else {})


def of_floats(name: str, ggml_type: int, to_bytes: Callable[[np.float32], bytes], special: dict[str, str], width: str) -> dict:
    """Vectors of a format of single floats: NUMBERS encoded, and named bit patterns decoded."""
    values = np.array([float32(v) for v in NUMBERS], "<f4")
    blocks = b"".join(to_bytes(v) for v in values)
    read = [{"name": label, "blocks": bits, "values": hexadecimal(_widen(bytes.fromhex(bits), width))} for label, bits in special.items()]
    decoded = hexadecimal(_widen(blocks, width))
    written = [{"name": "numbers", "values": hexadecimal(values), "blocks": blocks.hex(), "decoded": decoded}]
    return {"format": name, "ggml_type": ggml_type, "source": HERE, "decode": read, "encode": written}


def _widen(data: bytes, width: str) -> np.ndarray:
    """float32 of binary16 ("e"), bfloat16 ("b") or binary32 ("f") numbers."""
    if width == "b":
        return np.frombuffer(data, ml_dtypes.bfloat16).astype("<f4")
    numbers = [number for (number,) in struct.iter_unpack(f"<{width}", data)]
    return np.array([float32(number) for number in numbers], "<f4")


def of_numbers(name: str, ggml_type: int, code: str, numbers: tuple) -> dict:
    """Decode vectors of integers and doubles."""
    values = np.array([float32(number) for number in numbers], "<f4")
    blocks = b"".join(struct.pack(code, number) for number in numbers)
    read = [{"name": "numbers", "blocks": blocks.hex(), "values": hexadecimal(values)}]
    return {"format": name, "ggml_type": ggml_type, "source": HERE, "decode": read, "encode": []}


def of_q8_k() -> dict:
    """Decode vectors of Q8_K: scale times quant is exact in double precision, so rounding it once is what float32 does."""
    random = np.random.default_rng(8)
    read = []
    for d in (0.015625, -1.2345e-3, 1e-44, 3e37):
        scale, quants = float32(d), random.integers(-128, 128, 256).astype(np.int8)
        sums = quants.reshape(16, 16).sum(axis=1).astype("<i2")
        blocks = struct.pack("<f", scale) + quants.tobytes() + sums.tobytes()
        values = np.array([float32(float(scale) * int(q)) for q in quants], "<f4")
        read.append({"name": f"scale {d:g}", "blocks": blocks.hex(), "values": hexadecimal(values)})
    return {"format": "Q8_K", "ggml_type": 15, "source": HERE, "decode": read, "encode": []}


def of_scaled_quants(name: str, ggml_type: int, n_quants: int, decoded: Callable[[float, bytes], list[float]]) -> dict:
    """Decode vectors of a binary16 scale and `n_quants` bytes: products of a scale and a small integer, exact in double precision."""
    random = np.random.default_rng(ggml_type)
    read = []
    for d in (0.0625, -3.14159, 6e-8, 65504.0, -0.0, math.inf):
        scale, quants = float16_bytes(d), random.bytes(n_quants)
        values = np.array([float32(v) for v in decoded(*struct.unpack("<e", scale), quants)], "<f4")
        read.append({"name": f"scale {d:g}", "blocks": (scale + quants).hex(), "values": hexadecimal(values)})
    return {"format": name, "ggml_type": ggml_type, "source": HERE, "decode": read, "encode": []}


def _q1_0(d: float, quants: bytes) -> list[float]:
    return [d if byte >> bit & 1 else -d for byte in quants for bit in range(8)]


def _q2_0(d: float, quants: bytes) -> list[float]:
    return [((byte >> shift & 3) - 1) * d for byte in quants for shift in (0, 2, 4, 6)]


def of_nvfp4() -> dict:
    """Decode vectors of NVFP4 by the eight-bit and four-bit floats of `ml_dtypes`: every scale without a sign, and some with."""
    random = np.random.default_rng(40)
    read = []
    for first in (*range(0, 144, 16), 240):
        scales = np.arange(first, first + 16, dtype=np.uint8).reshape(4, 4)
        codes = random.integers(0, 16, (4, 4, 16), dtype=np.uint8)
        numbers = (scales & 0x7F).view(ml_dtypes.float8_e4m3fn).astype(np.float64)
        numbers[scales == 0x7F], numbers[scales == 0xFF] = 0, 480  # NaN there, not in ggml
        values = numbers[..., None] * (codes.view(ml_dtypes.float4_e2m1fn).astype(np.float64) + 0.0)
        quants = codes[..., :8] | codes[..., 8:] << 4
        blocks = np.concatenate((scales, quants.reshape(4, 32)), axis=1)
        read.append({"name": f"scales from {first}", "blocks": hexadecimal(blocks), "values": hexadecimal(values.astype(np.float32))})
    return {"format": "NVFP4", "ggml_type": 40, "source": HERE, "decode": read, "encode": []}


def vectors(golden: Path) -> list[dict]:
    """The vectors of every format that ggpy decodes."""
    found = [of_ggml(golden, name, number, KINDS, 32, 8) for name, number in BLOCKS_OF_32.items()]
    found += [of_ggml(golden, name, number, SUPER_BLOCK_KINDS, 256, 4) for name, number in SUPER_BLOCKS.items()]
    found += [of_numbers(name, *about) for name, about in INTEGERS.items()]
    found.append(of_numbers("F64", 28, "<d", (0.0, -0.0, 0.1, 1e-50, 1e300, -1e300, math.inf, 1 + 2**-24, 1 + 3 * 2**-24)))
    found.append(
        of_floats("F32", 0, lambda v: struct.pack("<f", v), {"infinity": "0000807f", "NaN": "0000c07f", "denormal": "01000000"}, "f")
    )
    found.append(of_floats("F16", 1, float16_bytes, {"infinity": "00fc", "NaN": "017e", "signalling NaN": "017c", "denormal": "0100"}, "e"))
    found.append(
        of_floats("BF16", 30, _bfloat16_bytes, {"infinity": "80ff", "NaN": "c17f", "signalling NaN": "817f", "denormal": "0100"}, "b")
    )
    found += [of_q8_k(), of_nvfp4(), of_scaled_quants("Q1_0", 41, 16, _q1_0), of_scaled_quants("Q2_0", 42, 16, _q2_0)]
    return found


def _bfloat16_bytes(value: np.float32) -> bytes:
    return np.array([value]).astype(ml_dtypes.bfloat16).tobytes()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write the golden vectors of the block formats.")
    parser.add_argument("golden", type=Path, help="folder with encode.npz and decode.npz")
    parser.add_argument("--check", action="store_true", help="compare with the files that are there; write nothing")
    options = parser.parse_args(argv)
    differing = []
    for content in vectors(options.golden):
        path = FOLDER / f"{content['format'].lower()}.vectors.json"
        text = json.dumps(content, indent=1) + "\n"
        if options.check:
            differing += [] if path.is_file() and path.read_text(encoding="utf-8") == text else [path.name]
        else:
            path.write_text(text, encoding="utf-8")
    for name in differing:
        print(f"{name} is not what {options.golden} gives", file=sys.stderr)
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
