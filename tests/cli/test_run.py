"""`ggpy-run` as a process and as a function: arguments, stdin, exit codes, where things are written, the chat on a real terminal."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ggpy.cli import model_file
from ggpy.cli.model_file import DEMO, find_model
from ggpy.cli.run import build_parser, main
from ggpy.cli.status import Status
from ggpy.converter.hub import choose_file
from ggpy.errors import CheckpointError, GGPyError

GENESIS = " God created the heaven and the earth. And the earth was without form, and void"


@pytest.fixture(scope="module")
def demo_gguf() -> Path:
    """The bundled checkpoint as Q4_K_M, from the user's cache or converted into it."""
    return model_file.find_demo(Status("test"))


def run(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ggpy.cli.run", *arguments]
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=300, check=False, env=os.environ | {"PYTHONPATH": path} | environment
    )


def test_demo_continues_its_prompt_on_stdout(demo_gguf: Path):
    done = run("--demo", "In the beginning", "-n", "24")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(" God created the heaven and the earth. And the earth") and done.stdout.endswith("\n")


def test_the_first_demo_says_what_it_does_on_stderr(demo_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    kernels = model_file._model_cache().parent / "kernels"
    if kernels.is_dir():
        shutil.copytree(kernels, tmp_path / "kernels")  # compiling them again is not what is tested
    monkeypatch.setenv("GGPY_CACHE_DIR", str(tmp_path))
    assert main(["--demo", "In the beginning", "-n", "8"]) == 0
    out, err = capsys.readouterr()
    assert "In the beginning" not in out and out.startswith(" God created the heaven")
    assert "converting the bundled checkpoint to Q4_K_M" in err and "bits per weight" in err
    assert [path.suffix for path in (tmp_path / "models").iterdir()] == [".gguf"]
    assert main(["--demo", "In the beginning", "-n", "8"]) == 0
    again, err = capsys.readouterr()
    assert again == out and "converting" not in err


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Converted models of this test alone; the user's compiled kernels stay in use."""
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setattr(model_file, "_model_cache", lambda: folder)
    return folder


def test_a_damaged_file_in_the_cache_is_made_anew(demo_gguf: Path, own_cache: Path):
    whole = demo_gguf.read_bytes()
    damaged = own_cache / demo_gguf.name
    damaged.write_bytes(whole[: len(whole) // 2])
    assert model_file.find_demo(Status("test")) == damaged
    assert damaged.read_bytes() == whole


def test_json_has_the_answer_and_its_figures(demo_gguf: Path, capsys):
    assert main([str(demo_gguf), "In the beginning", "-n", "16", "--temp", "0", "--raw", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["text"].startswith(" God created") and answer["finish"] == "length"
    assert answer["generated_tokens"] == 16 and answer["prompt_tokens"] > 3
    assert answer["tokens_per_second"] > 0 and answer["load_seconds"] > 0


def test_stdin_is_the_prompt_where_it_is_piped(demo_gguf: Path):
    done = run(str(demo_gguf), "-n", "12", "--temp", "0", stdin="In the beginning\n")
    assert done.returncode == 0 and done.stdout.startswith(" God created the heaven")
    assert "no chat template" in done.stderr and len(done.stderr.splitlines()) == 1
    dash = run(str(demo_gguf), "-", "-n", "12", "--temp", "0", "--raw", stdin="In the beginning")
    assert dash.stdout == done.stdout and dash.stderr == ""


def test_a_prompt_leaves_stdin_alone(demo_gguf: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    """Where nobody will ever write to stdin, or close it, the answer must come all the same."""
    reading, writing = os.pipe()
    with os.fdopen(reading, encoding="utf-8") as silent, os.fdopen(writing, "w", encoding="utf-8"):
        monkeypatch.setattr(sys, "stdin", silent)
        assert main([str(demo_gguf), "In the beginning", "-n", "3", "--raw", "--temp", "0"]) == 0
    assert capsys.readouterr().out.startswith(" God")


def test_a_plain_continuation_that_is_cut_says_so(demo_gguf: Path, capsys):
    assert main([str(demo_gguf), "And it came to pass", "--ctx", "40", "--raw", "--seed", "1"]) == 0
    assert "the context of 40 tokens is full" in capsys.readouterr().err
    assert main([str(demo_gguf), "In the beginning", "--temp", "0", "--raw"]) == 0
    assert "cut off after 256 tokens; -n sets another limit" in capsys.readouterr().err


def test_the_same_seed_gives_the_same_text(demo_gguf: Path, capsys):
    def text(seed: str) -> str:
        assert main([str(demo_gguf), "And", "-n", "24", "--raw", "--seed", seed, "--temp", "1.5", "--min-p", "0"]) == 0
        return capsys.readouterr().out

    assert text("7") == text("7") != text("8")


def test_options_may_stand_between_model_and_prompt(demo_gguf: Path, capsys):
    assert main(["--temp", "0", str(demo_gguf), "-n", "4", "--raw", "In the beginning"]) == 0
    assert capsys.readouterr().out.startswith(" God")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--demo", "a", "b"],
        ["m.gguf", "a", "b"],
        ["m.gguf", "a", "--temp", "-1"],
        ["m.gguf", "a", "--temp", "nan"],
        ["m.gguf", "a", "--top-p", "1.5"],
        ["m.gguf", "a", "-n", "x"],
        ["m.gguf", "a", "--repeat-penalty", "0"],
        ["m.gguf", "a", "--ctx", "0"],
    ],
)
def test_bad_usage_exits_with_2(arguments: list[str], capsys):
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2 and "usage: ggpy-run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing.gguf", "hi"], "nothing.gguf: "),
        (["no-such-model", "hi"], "no-such-model: "),
        (["{demo}", "In the " * 700, "--raw"], "leaves no room in the context of 512"),
        (["{demo}", ""], "the prompt is empty"),
        (["{demo}", "hi", "--system", "Be brief."], "--system needs a chat template"),
        (["{demo}", "hi", "--system", "Be brief.", "--raw"], "--raw leaves it out"),
        ([__file__, "hi"], "test_run.py: "),
    ],
)
def test_errors_are_one_line_and_exit_with_1(demo_gguf: Path, arguments: list[str], said: str, capsys):
    assert main([argument.replace("{demo}", str(demo_gguf)) for argument in arguments]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("ggpy-run: error: ") and err.count("\n") == 1 and said in err


def test_help_imports_nothing_heavy():
    code = "import sys, ggpy.cli.run as r; r.build_parser().format_help(); print(*sys.modules)"
    path = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": path})
    assert not {"numpy", "numba", "llvmlite", "jinja2", "rich", "prompt_toolkit", "sentencepiece"} & set(done.stdout.split())


def test_every_option_is_explained():
    for action in build_parser()._actions:
        assert action.help, action.option_strings


def test_a_checkpoint_directory_is_converted_once(own_cache: Path, tmp_path: Path, capsys):
    copy = tmp_path / "my-model"
    shutil.copytree(DEMO, copy)
    first = find_model(f"{copy}:q8_0", Status("test"))
    assert "Q8_0" in capsys.readouterr().err and first.name.startswith("my-model-q8_0-")
    assert find_model(f"{copy}:Q8_0", Status("test")) == first and capsys.readouterr().err == ""
    (copy / "config.json").touch()
    second = find_model(f"{copy}:q8_0", Status("test"))
    assert second != first and second.read_bytes() == first.read_bytes()
    with pytest.raises(GGPyError, match="q9_9"):
        find_model(f"{copy}:q9_9", Status("test"))


def test_a_cache_that_cannot_be_written_is_replaced_by_a_temporary_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GGPY_CACHE_DIR", str(tmp_path / "file"))
    folder = model_file._model_cache()
    assert folder.is_dir() and tmp_path not in folder.parents


@pytest.mark.parametrize(
    ("files", "type", "chosen"),
    [
        (["m-Q4_K_M.gguf", "m-Q8_0.gguf"], None, "m-Q4_K_M.gguf"),
        (["m-Q4_K_M.gguf", "m-Q8_0.gguf"], "q8_0", "m-Q8_0.gguf"),
        (["m.Q4_K_M.gguf", "m.Q4_K_S.gguf"], "Q4_K_S", "m.Q4_K_S.gguf"),
        (["only-f16.gguf"], None, "only-f16.gguf"),
        ([], None, None),
        (["m-Q8_0.gguf", "m-f16.gguf"], None, GGPyError),
        (["m-Q8_0.gguf"], "q4_k_m", GGPyError),
        (["a-Q8_0.gguf", "b-Q8_0.gguf"], "q8_0", GGPyError),
    ],
)
def test_the_file_of_a_repository_is_chosen_by_its_type(files: list[str], type: str | None, chosen: str | type[Exception] | None):
    if chosen is GGPyError:
        with pytest.raises(GGPyError, match="the repository has"):
            choose_file(files, type, "owner/model")
    else:
        assert choose_file(files, type, "owner/model") == chosen


def test_a_hub_repository_needs_the_hub_client(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"pip install 'ggpy\[hub\]'"):
        find_model("some-owner/some-model:q8_0", Status("test"))


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_chat_on_a_terminal(demo_gguf: Path):
    """Question, answer, Ctrl-C during an answer, a command, Ctrl-D; on a pseudo-terminal, as a user would."""
    import pty
    import select

    pid, terminal = pty.fork()
    if pid == 0:
        os.environ |= {"PYTHONPATH": str(Path(__file__).parents[2]), "TERM": "xterm", "PYTHONUNBUFFERED": "1"}
        os.execv(sys.executable, [sys.executable, "-m", "ggpy.cli.run", "--demo", "--threads", "1"])
    seen = b""

    def wait_for(text: bytes, seconds: float = 60) -> None:
        nonlocal seen
        deadline = time.monotonic() + seconds
        while text not in seen:
            assert time.monotonic() < deadline, seen[-2000:].decode("utf-8", "replace")
            if select.select([terminal], [], [], 0.1)[0]:
                chunk = os.read(terminal, 65536)
                seen += chunk
                if b"\x1b[6n" in chunk:
                    os.write(terminal, b"\x1b[1;1R")  # where the cursor is, which prompt_toolkit asks a terminal
        seen = seen.split(text, 1)[1]

    def type_line(line: bytes) -> None:
        wait_for(b"\x1b[?2004h")  # bracketed paste: the prompt is there
        os.write(terminal, line)

    try:
        wait_for(b"/help shows the commands")
        type_line(b"In the beginning\r")
        wait_for(b"God created the heaven")
        wait_for(b"per second")
        type_line(b"/help\r")
        wait_for(b"forget the conversation")
        type_line(b"\x03")
        wait_for(b"Ctrl-D or /exit leaves")
        type_line(b"\x04")
        _, status = os.waitpid(pid, 0)
        pid = 0
        assert os.waitstatus_to_exitcode(status) == 0
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(terminal)
