"""What runs fast: one file per block format and per op, compiled once per CPU and cached as object code.

A kernel is `void(args, ith, nth)`: `args` is the address of int64 words, `ith` of `nth` threads calls it. Threads share work by taking
chunks from a counter, so a thread that the machine slows down takes fewer. Which thread computes a row never changes its value.

This package imports no numba; `ggpy.runtime.compiled` imports its modules only to compile.
"""
