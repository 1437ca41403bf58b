"""What runs fast: one file per block format and per op, compiled once per CPU and cached as object code.

A kernel is `void(args, ith, crew)`: `args` is the address of int64 words, `ith` the number of the calling thread, `crew` that of all
threads and what tells their claims from older ones (`claims.py`). Threads share work by claiming units from a counter, so a thread that
the machine slows down takes fewer. Which thread computes a row never changes its value.

This package imports no numba; `ggpy.runtime.compiled` imports its modules only to compile.
"""
