"""Exit codes and one-line errors, for every way a command can end; argument types; `ggpy VERB`."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest

from ggpy import __version__
from ggpy.cli import common
from ggpy.cli.main import VERBS, build_parser, main
from ggpy.errors import GGPyError

ROOT = Path(__file__).resolve().parents[2]


def end(error: BaseException | None = None, *, debug: bool = False, returns: int | None = None) -> int:
    def command(args: argparse.Namespace) -> int | None:
        print("data")
        if error is not None:
            raise error
        return returns

    return common.run_command(command, argparse.Namespace(prog="ggpy-test", debug=debug))


@pytest.mark.parametrize(
    "error, code, complaint",
    [
        (None, 0, ""),
        (GGPyError("m.gguf: is\x1b[31m bad\n"), 1, "ggpy-test: error: m.gguf: is\\x1b[31m bad\\x0a\n"),
        (FileNotFoundError(2, "No such file or directory", "a\nb"), 1, "ggpy-test: error: a\\x0ab: No such file or directory\n"),
        (OSError("odd"), 1, "ggpy-test: error: odd\n"),
        (MemoryError(), 1, "ggpy-test: error: not enough memory\n"),
        (KeyboardInterrupt(), 130, "ggpy-test: interrupted\n"),
        (common.Terminated(), 143, "ggpy-test: terminated\n"),
        (BrokenPipeError(), 0, ""),
        (
            KeyError("x"),
            1,
            "ggpy-test: error: a defect in ggpy, please report it with the output of --debug: KeyError: 'x'\n",
        ),
    ],
)
def test_every_end(error, code: int, complaint: str, capsys: pytest.CaptureFixture):
    assert end(error) == code
    out, err = capsys.readouterr()
    assert (out, err) == ("data\n", complaint)


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture):
    assert end(KeyError("x"), debug=True) == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback") and err.splitlines()[-1].startswith("ggpy-test: error: ")


def test_a_command_may_choose_its_code():
    assert end(returns=3) == 3
    with pytest.raises(SystemExit):
        end(SystemExit(2))


@pytest.mark.parametrize(
    "parse, text, value",
    [
        (common.positive_int, "1", 1),
        (common.non_negative_int, "0", 0),
        (common.whole_number(None, 5), "-7", -7),
        (common.probability, "0.5", 0.5),
        (common.non_negative_float, "0", 0.0),
        (common.list_of(common.positive_int), "1,2", [1, 2]),
    ],
)
def test_arguments(parse, text: str, value):
    assert parse(text) == value


@pytest.mark.parametrize(
    "parse, text, complaint",
    [
        (common.positive_int, "0", "0 is below 1"),
        (common.positive_int, "-1", "-1 is below 1"),
        (common.positive_int, "1.5", "'1.5' is not a whole number"),
        (common.positive_int, "\x1b[m", "'\\x1b[m' is not a whole number"),
        (common.positive_int, "9" * 5000, "is not a whole number"),
        (common.whole_number(1, 8), "9", "9 is above 8"),
        (common.probability, "1.01", "1.01 is above 1"),
        (common.non_negative_float, "nan", "'nan' is not a finite number"),
        (common.non_negative_float, "inf", "'inf' is not a finite number"),
        (common.non_negative_float, "-1e-9", "-1e-09 is below 0"),
        (common.list_of(common.positive_int), "1,,2", "'' is not a whole number"),
        (common.list_of(common.positive_int), "", "'' is not a whole number"),
    ],
)
def test_arguments_refused(parse, text: str, complaint: str):
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        parse(text)
    assert complaint in str(caught.value)


def test_usage_errors_are_code_2(capsys: pytest.CaptureFixture):
    parser = common.command_parser("ggpy-test", "Tests.")
    parser.add_argument("-n", type=common.positive_int)
    with pytest.raises(SystemExit) as caught:
        parser.parse_args(["-n", "0"])
    assert caught.value.code == common.USAGE
    assert capsys.readouterr().err.splitlines()[-1] == "ggpy-test: error: argument -n: 0 is below 1"


def test_options_are_not_abbreviated():
    parser = common.command_parser("ggpy-test", "Tests.")
    parser.add_argument("--threads")
    with pytest.raises(SystemExit):
        parser.parse_args(["--thr", "1"])


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["--nonsense"], ["--debug"]])
def test_no_verb(arguments: list[str], capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: ggpy VERB")


def test_help_lists_every_verb():
    text = build_parser().format_help()
    assert all(f"  {verb:<11}{summary}" in text for verb, summary in VERBS.items())


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_a_command(verb: str):
    module = import_module(f"ggpy.cli.{verb}")
    assert module.build_parser().prog == f"ggpy-{verb}"
    with pytest.raises(SystemExit) as caught:
        main([verb, "--help"])
    assert caught.value.code == 0


def test_module_and_version_import_little():
    script = (
        "import runpy, sys; sys.argv = ['ggpy', '--version']\n"
        "try: runpy.run_module('ggpy', run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'numpy', 'numba', 'rich'} & set(sys.modules), 'heavy imports'"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"ggpy {__version__}\n", "")


@pytest.mark.parametrize(("number", "code", "said"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")])
def test_an_interruption_inside_a_finalizer_still_ends_the_command(capsys: pytest.CaptureFixture[str], number: int, code: int, said: str):
    class Dropped:
        def __del__(self):
            signal.raise_signal(number)

    def command(_: argparse.Namespace) -> None:
        dropped = Dropped()
        del dropped
        time.sleep(5)

    assert common.run_command(command, argparse.Namespace(prog="ggpy-test", debug=False)) == code
    assert capsys.readouterr().err == f"ggpy-test: {said}\n"
