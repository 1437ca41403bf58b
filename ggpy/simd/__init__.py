"""Portable vectors for Numba code.

Numba has no vector type; here a vector such as `u8x32` is a Numba type whose value is an LLVM vector, and every operation is a small
intrinsic that emits LLVM IR. LLVM splits wide vectors on narrower machines; only the int8 dot product is chosen per CPU (`dot.py`).

target.py      which CPU is compiled for, and by which instructions it multiplies int8 (imports no numba)
vectors.py     the types, their operators, splat, shuffles, conversions
memory.py      loads, stores, prefetch and atomics on plain addresses (`intp`: in Numba `uint64 + int64` is a float)
arithmetic.py  fma, reductions, selection, rounding
dot.py         the 4-way int8 dot product into int32
matrix.py      register tiles: many tokens by sixteen rows

Import from the modules; this package itself stays free of numba so that `target` can be asked cheaply.
"""
