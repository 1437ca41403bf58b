"""Runs a recorded program: tape, recorder, executor, buffers, KV cache, compiled-kernel cache, host.

host.py       how many threads this process may use
compiled.py   kernels as object code, cached on disk, loaded by llvmlite alone
parallel.py   threads that walk a tape, GIL released
"""
