"""The loop around every encoder: threads take chunks of blocks, widen them to float32, look for NaN and Inf, encode.

Words of an encoder, int64: [source address, target address, number of blocks, address of a counter, address of a fault, address of a
peak, kind of source]. The source is contiguous, float32, float16 or bfloat16 as the kind says; the target takes the blocks. Counter: 0 at
the start. Fault: an int64 that is lowered to the index of the first NaN or Inf; groups of blocks that hold one are not written. All blocks
are looked at, so the index does not depend on the threads. Peak: an int64 that is raised to the bits of the largest magnitude, as float32.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ggpy.kernels.options import Kernel, inline, kernel
from ggpy.simd.lanes import first_bit, lanes_less, larger, largest_lane, scratch
from ggpy.simd.memory import atomic_add, atomic_max, atomic_min, load, load_f16x16, load_f32x16, load_i64, store, store_f32x16
from ggpy.simd.vectors import bitcast, constant, convert, f16x16, f32x16, i32x16, u16x16, u32x16

CHUNK_VALUES = 1 << 14  # values a thread takes at a time: enough to forget the counter, few enough to share evenly
FROM_F32, FROM_F16, FROM_BF16 = 0, 1, 2  # kinds of source

_bits = bitcast(f32x16, i32x16)
_magnitude = constant(i32x16, 0x7FFFFFFF)
_largest_finite = constant(i32x16, 0x7F7FFFFF)
no_magnitudes = constant(i32x16, 0)

_f16_to_f32, _u16_to_u32 = convert(f16x16, f32x16), convert(u16x16, u32x16)
_load_u16x16, _store_u32x16 = load(u16x16), store(u32x16)
_sixteen = constant(u32x16, 16)


@inline
def magnitude_bits(values):
    """Bits of |values|, int32: they order as the magnitudes do, with Inf above all numbers and NaN above Inf."""
    return _bits(values) & _magnitude()


@inline
def value_bytes(kind):
    return 4 if kind == FROM_F32 else 2


@inline
def widen(source, kind, count, target):
    """`count` floats of any kind, a multiple of 16, as float32 at `target`; exact."""
    if kind == FROM_F32:
        for i in range(0, 4 * count, 64):
            store_f32x16(target + i, load_f32x16(source + i))
    elif kind == FROM_F16:
        for i in range(0, count, 16):
            store_f32x16(target + 4 * i, _f16_to_f32(load_f16x16(source + 2 * i)))
    else:
        for i in range(0, count, 16):
            _store_u32x16(target + 4 * i, _u16_to_u32(_load_u16x16(source + 2 * i)) << _sixteen())


@inline
def _largest_magnitudes(source, count):
    """Sixteen `magnitude_bits`: the largest of every sixteenth of `count` float32, a multiple of 16."""
    most = no_magnitudes()
    for i in range(0, count, 16):
        most = larger(most, magnitude_bits(load_f32x16(source + 4 * i)))
    return most


@inline
def _first_fault(source, count):
    """Index of the first NaN or Inf of `count` float32, a multiple of 16; `count` if there is none."""
    for i in range(0, count, 16):
        faults = lanes_less(_largest_finite(), magnitude_bits(load_f32x16(source + 4 * i)))
        if faults != 0:
            return i + first_bit(faults)
    return count


def chunk_encoder(encode_blocks: Callable, block_values: int, block_bytes: int, together: int) -> Callable:
    """encode_chunk(source, kind, target, first, last, fault, about) encodes blocks first..last; it returns `_largest_magnitudes` of those
    that are finite, sixteen int32.

    encode_blocks(source, target, count, block, about) takes `together` finite neighbouring blocks as float32, of which the first is number
    `block`, and writes the first `count`, at least one. about: what else it is to know, any one type.
    """
    wide = scratch(4 * block_values * together)

    @inline
    def encode_chunk(source, kind, target, first, last, fault, about):
        most = no_magnitudes()
        for block in range(first, last, together):
            count = min(together, last - block)
            if kind == FROM_F32 and count == together:
                start = source + 4 * block_values * block
            else:
                start = wide()
                widen(source + value_bytes(kind) * block_values * block, kind, count * block_values, start)
                for i in range(count, together):
                    widen(start + 4 * block_values * (count - 1), FROM_F32, block_values, start + 4 * block_values * i)
            magnitudes = _largest_magnitudes(start, count * block_values)
            if lanes_less(_largest_finite(), magnitudes) == 0:
                most = larger(most, magnitudes)
                encode_blocks(start, target + block_bytes * block, count, block, about)
            else:
                atomic_min(fault, block * block_values + _first_fault(start, count * block_values))
        return most

    return encode_chunk


def chunk_size(block_values: int, together: int) -> int:
    """How many blocks a thread takes at a time: a multiple of `together`."""
    return together * max(1, CHUNK_VALUES // (block_values * together))


def encoder(encode_blocks: Callable, block_values: int, block_bytes: int, together: int = 1) -> Kernel:
    """The kernel that encodes by `encode_blocks(source, target, count)`, which takes `together` finite neighbouring blocks and writes the
    first `count`, at least one."""

    @inline
    def encode_anywhere(source, target, count, block, about):
        encode_blocks(source, target, count)

    chunk, encode_chunk = chunk_size(block_values, together), chunk_encoder(encode_anywhere, block_values, block_bytes, together)

    @kernel
    def encode(args, ith, nth):
        source, target, blocks = load_i64(args), load_i64(args + 8), load_i64(args + 16)
        counter, fault, peak, kind = load_i64(args + 24), load_i64(args + 32), load_i64(args + 40), load_i64(args + 48)
        first, most = atomic_add(counter, chunk), no_magnitudes()
        while first < blocks:
            most = larger(most, encode_chunk(source, kind, target, first, min(first + chunk, blocks), fault, 0))
            first = atomic_add(counter, chunk)
        atomic_max(peak, np.int64(largest_lane(most)))

    return encode
