"""The loop around every encoder: threads take chunks of blocks, look for NaN and Inf, encode.

Words of an encoder, int64: [source address, target address, number of blocks, address of a counter, address of a fault]. The source is
float32 and contiguous, the target takes the blocks. Counter: 0 at the start. Fault: an int64 that is lowered to the index of the first
NaN or Inf; blocks that hold one are not written. All blocks are looked at, so the index does not depend on the threads.
"""

from __future__ import annotations

from collections.abc import Callable

from ggpy.kernels.options import Kernel, inline, kernel
from ggpy.simd.lanes import first_bit, lanes_less, larger
from ggpy.simd.memory import atomic_add, atomic_min, load_f32x16, load_i64
from ggpy.simd.vectors import bitcast, constant, f32x16, i32x16

CHUNK_VALUES = 1 << 14  # values a thread takes at a time: enough to forget the counter, few enough to share evenly

_bits = bitcast(f32x16, i32x16)
_magnitude = constant(i32x16, 0x7FFFFFFF)
_largest_finite = constant(i32x16, 0x7F7FFFFF)
_zero_bits = constant(i32x16, 0)


@inline
def magnitude_bits(values):
    """Bits of |values|, int32: they order as the magnitudes do, with Inf above all numbers and NaN above Inf."""
    return _bits(values) & _magnitude()


@inline
def _is_finite(source, count):
    """Whether `count` float32, a multiple of 16, are all finite."""
    most = _zero_bits()
    for i in range(0, count, 16):
        most = larger(most, magnitude_bits(load_f32x16(source + 4 * i)))
    return lanes_less(_largest_finite(), most) == 0


@inline
def _first_fault(source, count):
    """Index of the first NaN or Inf of `count` float32, a multiple of 16; `count` if there is none."""
    for i in range(0, count, 16):
        faults = lanes_less(_largest_finite(), magnitude_bits(load_f32x16(source + 4 * i)))
        if faults != 0:
            return i + first_bit(faults)
    return count


def encoder(encode_blocks: Callable, block_values: int, block_bytes: int, together: int = 1) -> Kernel:
    """The kernel that encodes by `encode_blocks(source, target, count)`, which takes 1 to `together` finite neighbouring blocks."""
    chunk = together * max(1, CHUNK_VALUES // (block_values * together))

    @inline
    def encode_chunk(source, target, first, last, fault):
        for block in range(first, last, together):
            count = min(together, last - block)
            start = source + 4 * block_values * block
            if _is_finite(start, count * block_values):
                encode_blocks(start, target + block_bytes * block, count)
            else:
                atomic_min(fault, block * block_values + _first_fault(start, count * block_values))

    @kernel
    def encode(args, ith, nth):
        source, target, blocks = load_i64(args), load_i64(args + 8), load_i64(args + 16)
        counter, fault = load_i64(args + 24), load_i64(args + 32)
        first = atomic_add(counter, chunk)
        while first < blocks:
            encode_chunk(source, target, first, min(first + chunk, blocks), fault)
            first = atomic_add(counter, chunk)

    return encode
