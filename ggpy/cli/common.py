"""What every command shares: exit codes, one-line errors, interruption, and argument types that validate.

Exit codes: 0 success, 1 an error in one line on stderr, 2 bad usage, 130 interrupted (Ctrl-C), 143 terminated (SIGTERM).
"""

from __future__ import annotations

import _thread
import argparse
import contextlib
import gc
import io
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TypeVar

from ggpy import __version__
from ggpy.errors import GGPyError, printable

N = TypeVar("N", int, float)

SUCCESS, FAILURE, USAGE, FOUND, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 130, 143


class Terminated(BaseException):
    """SIGTERM: unwinds like Ctrl-C, so that temporary files are removed."""


def command_parser(prog: str, description: str, **options: object) -> argparse.ArgumentParser:
    """A parser for the command `prog`, with the options that all commands have. `options` go to ArgumentParser."""
    options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
    parser = argparse.ArgumentParser(prog=prog, description=description, allow_abbrev=False, **options)  # pyright: ignore[reportArgumentType]
    parser.add_argument("--version", action="version", version=f"{prog} {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(prog=prog)
    return parser


def run_command(function: Callable[[argparse.Namespace], int | None], args: argparse.Namespace) -> int:
    """Call `function(args)` and return the exit code; every exception becomes one line on stderr.

    `args` comes from a `command_parser`. A reader that closes the pipe early, as `head` does, is no error.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a character the terminal lacks must not end the command
    try:
        with _sigterm_unwinds(), _no_interruption_is_lost():
            code = function(args) or SUCCESS
            sys.stdout.flush()
            return code
    except KeyboardInterrupt:
        return _report(args, "interrupted", INTERRUPTED)
    except Terminated:
        return _report(args, "terminated", TERMINATED)
    except BrokenPipeError:
        return SUCCESS
    except GGPyError as error:
        return _report(args, f"error: {error}", FAILURE)
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        return _report(args, f"error: {named}{error.strerror or error}", FAILURE)
    except MemoryError:
        return _report(args, "error: not enough memory", FAILURE)
    except Exception as error:
        return _report(
            args, f"error: a defect in ggpy, please report it with the output of --debug: {type(error).__name__}: {error}", FAILURE
        )
    finally:
        _settle_stdout()


def _report(args: argparse.Namespace, message: str, code: int) -> int:
    with contextlib.suppress(OSError):
        if args.debug and code == FAILURE:
            import traceback

            traceback.print_exc()
        print(f"{args.prog}: {printable(message, 2000)}", file=sys.stderr, flush=True)
    return code


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """For what a command does before it gets to work: nothing that is made there is looked at by the garbage collector, then or later.

    Modules, a model's tables and its program are 10^5 objects that stay. Going through them again and again takes a seventh of the time
    that a small model needs to begin, at the end of the process once more.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


@contextlib.contextmanager
def _sigterm_unwinds() -> Iterator[None]:
    def unwind(number: int, frame: FrameType | None) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _interrupt(number: signal.Signals) -> None:
    """Send the main thread a signal, waking it from what it waits for where the system can."""
    if sys.platform == "win32":
        _thread.interrupt_main(number)
    else:
        signal.pthread_kill(threading.main_thread().ident or 0, number)


@contextlib.contextmanager
def _no_interruption_is_lost() -> Iterator[None]:
    """Python drops what is raised in a finalizer or a weak reference's callback, of which imports run many, with a traceback on stderr.
    An interruption that falls there is sent again."""
    usual, signals = sys.unraisablehook, {KeyboardInterrupt: signal.SIGINT, Terminated: signal.SIGTERM}

    def send_again(unraisable: sys.UnraisableHookArgs) -> None:
        number = signals.get(unraisable.exc_type)
        if number is None:
            usual(unraisable)
        else:
            threading.Timer(0.01, _interrupt, [number]).start()

    sys.unraisablehook = send_again
    try:
        yield
    finally:
        sys.unraisablehook = usual


def _settle_stdout() -> None:
    """Flush; where nobody reads or the disk is full, drop what is buffered, or Python would complain about it at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)


def whole_number(minimum: int | None = None, maximum: int | None = None) -> Callable[[str], int]:
    """An argument type: an integer from `minimum` to `maximum`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"'{printable(text, 40)}' is not a whole number") from None
        return _bounded(value, minimum, maximum)

    return parse


def real_number(minimum: float | None = None, maximum: float | None = None) -> Callable[[str], float]:
    """An argument type: a finite number from `minimum` to `maximum`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise argparse.ArgumentTypeError(f"'{printable(text, 40)}' is not a finite number")
        return _bounded(value, minimum, maximum)

    return parse


def list_of(item: Callable[[str], int]) -> Callable[[str], list[int]]:
    """An argument type: `item`s separated by commas, at least one."""
    return lambda text: [item(part) for part in text.split(",")]


positive_int = whole_number(1)
non_negative_int = whole_number(0)
non_negative_float = real_number(0)
probability = real_number(0, 1)


def _bounded(value: N, minimum: N | None, maximum: N | None) -> N:
    if minimum is not None and value < minimum:
        raise argparse.ArgumentTypeError(f"{value} is below {minimum}")
    if maximum is not None and value > maximum:
        raise argparse.ArgumentTypeError(f"{value} is above {maximum}")
    return value
