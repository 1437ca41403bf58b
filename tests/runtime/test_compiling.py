"""Kernels are compiled by this process and its helpers; whatever becomes of a helper, every kernel is."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from ggpy.runtime import compiled, compiling
from ggpy.runtime.compiling import compile_kernels

NAMES = [("a", "add"), ("b", "attention"), ("c", "linear"), ("d", "embed"), ("e", "linear"), ("f", "rope"), ("g", "norm")]

ANSWER = "print(json.dumps([name + ' of helper', 3]), end='\\nabc', flush=True)"


@pytest.fixture
def helper(monkeypatch: pytest.MonkeyPatch):
    """Stands in for numba here, and lets a test say what a helper does with each `name`; returns the helpers started."""
    started: list[subprocess.Popen[bytes]] = []

    def set_up(reaction: str, seconds: float = 0.05) -> list[subprocess.Popen[bytes]]:
        code = f"import json, os, sys, time\nfor line in sys.stdin:\n    name = json.loads(line)[0]\n    {reaction}"

        def start() -> subprocess.Popen[bytes]:
            pipe = subprocess.PIPE
            started.append(subprocess.Popen([sys.executable, "-S", "-c", code], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL))
            return started[-1]

        def compile_here(name: compiling.Name) -> compiling.Object:
            time.sleep(seconds)
            return b"here", f"{name[0]} here"

        monkeypatch.setattr(compiling, "_start", start)
        monkeypatch.setattr(compiling, "compile_kernel", compile_here)
        return started

    return set_up


def test_the_longest_come_first_and_helpers_take_their_share(helper):
    helpers = helper(ANSWER)
    told, kept = [], {}
    done = compile_kernels(NAMES, 2, lambda *call: told.append(call), lambda name, code, entry: kept.update({name: (code, entry)}))
    assert set(done) == set(NAMES) and kept == done
    assert [name[1] for name, _, _ in told][:3] == ["linear", "linear", "attention"]
    assert [(begun, total) for _, begun, total in told] == [(i, 7) for i in range(7)]
    by_helper = [name for name in NAMES if done[name] == (b"abc", f"{name[0]} of helper")]
    by_us = [name for name in NAMES if done[name] == (b"here", f"{name[0]} here")]
    assert by_helper and by_us and len(by_helper) + len(by_us) == 7
    assert len(helpers) == 1 and helpers[0].returncode is not None


@pytest.mark.parametrize(("threads", "count", "expected"), [(1, 7, 0), (2, 5, 0), (2, 6, 1), (8, 7, 1), (64, 60, 3)])
def test_no_more_helpers_than_there_are_processors_and_work_for(helper, threads, count, expected):
    helpers = helper(ANSWER, 0.0)
    assert len(compile_kernels([(str(i), "add") for i in range(count)], threads)) == count
    assert len(helpers) == expected


CUT_SHORT = "print('[\"x\", 500]', end='\\nabc', flush=True); os._exit(0)"


@pytest.mark.parametrize("reaction", ["os._exit(1)", "print('no JSON', flush=True)", "print(7, flush=True)", CUT_SHORT])
def test_what_a_helper_fails_at_is_compiled_here(helper, reaction):
    helper(reaction)
    told = []
    done = compile_kernels(NAMES, 2, lambda *call: told.append(call[0]))
    assert done == {name: (b"here", f"{name[0]} here") for name in NAMES}
    assert sorted(told) == NAMES  # each once


def test_a_helper_that_cannot_be_started_is_done_without(helper, monkeypatch):
    helper(ANSWER, 0.0)

    def refuse() -> None:
        raise PermissionError("no more processes")

    monkeypatch.setattr(compiling, "_start", refuse)
    assert set(compile_kernels(NAMES, 4)) == set(NAMES)


@pytest.mark.parametrize("at", [0, 1, 5])
def test_an_interrupted_announcement_ends_all_of_it(helper, at):
    helpers = helper(ANSWER)

    def announce(name: compiling.Name, begun: int, total: int) -> None:
        if begun == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compile_kernels(NAMES, 2, announce)
    assert all(process.poll() is not None for process in helpers)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("Thread") and "_feed" in thread.name]


def test_an_error_here_ends_the_helpers(helper, monkeypatch):
    helpers = helper("time.sleep(60)")

    def fail(name: compiling.Name) -> None:
        raise RuntimeError(f"{name[0]} does not compile")

    monkeypatch.setattr(compiling, "compile_kernel", fail)
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="does not compile"):
        compile_kernels(NAMES, 2)
    assert time.monotonic() - began < 30 and helpers[0].returncode is not None


@pytest.mark.slow
def test_a_real_helper_compiles_what_this_process_can_load():
    names = [
        ("pointwise", "add"),
        ("pointwise", "take_rows"),
        ("rope", "rope"),
        ("rope", "append"),
        ("activations", "int8_32"),
        ("f32", "embed"),
    ]
    done = compile_kernels(names, 2)
    assert set(done) == set(names)
    assert all(compiled._link(code, entry) for code, entry in done.values())
