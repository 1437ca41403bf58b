"""The chat loop: commands, interruption, what is shown and what is escaped."""

from __future__ import annotations

import io
import signal
from collections.abc import Callable, Iterable

import pytest

from ggpy.chat import commands
from ggpy.chat.commands import COMMANDS, command, execute
from ggpy.chat.session import Chat, Continuation
from ggpy.chat.terminal import chat, show, visible
from tests.chat.fake_model import FakeModel, FakeTokenizer


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def typed(lines: Iterable[str | type[BaseException]]) -> Callable[[], str]:
    """A reader of these lines and exceptions; Ctrl-D at their end."""
    waiting = iter([*lines, EOFError])

    def read_line() -> str:
        line = next(waiting)
        if isinstance(line, str):
            return line
        raise line

    return read_line


def talk(session: Chat | Continuation, *lines: str | type[BaseException]) -> tuple[str, str]:
    """What appears on stdout and on stderr."""
    out, err = io.StringIO(), io.StringIO()
    chat(session, typed(lines), out, err)
    return out.getvalue(), err.getvalue()


def test_questions_are_answered_until_the_end_of_input():
    out, err = talk(Chat(FakeModel(["Hi there", "Bye"])), "Hello", "", "  ", "See you")
    assert out == "Hi there\nBye\n"
    assert err.splitlines()[0].startswith("3 tokens, ") and err.splitlines()[0].endswith(" per second")


def test_help_shows_every_command():
    out, err = talk(Chat(FakeModel([])), "/help")
    assert out == ""
    for name, entry in COMMANDS.items():
        assert f"/{name}" in err and entry.summary in err
    assert {"help", "reset", "system", "exit"} <= set(COMMANDS)


def test_reset_forgets_but_keeps_the_system_message():
    model = FakeModel(["one", "two"])
    talk(Chat(model, "Be brief."), "first", "/reset", "second")
    assert "Be brief." in model.prompts[1] and "first" not in model.prompts[1]


def test_system_is_shown_and_set():
    model = FakeModel(["one", "two"])
    session = Chat(model)
    _, err = talk(session, "first", "/system", "/system  Talk like a pirate. ", "/system", "second")
    assert "there is no system message" in err and "system message: Talk like a pirate." in err
    assert session.system == "Talk like a pirate." and "first" not in model.prompts[1] and "pirate" in model.prompts[1]


def test_system_needs_a_template():
    _, err = talk(Continuation(FakeModel([])), "/system x")
    assert "takes no system message" in err


def test_exit_leaves_before_the_end_of_input():
    out, _ = talk(Chat(FakeModel(["one", "two"])), "a", "/exit", "b")
    assert out == "one\n"


def test_an_unknown_command_is_said_and_a_path_is_a_question():
    model = FakeModel(["a folder"])
    out, err = talk(Chat(model), "/rest", "/usr/bin is full, why?")
    assert "/rest is no command; /help shows them all" in err and out == "a folder\n"
    assert len(model.prompts) == 1


def test_a_new_command_is_one_function(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(commands, "COMMANDS", dict(COMMANDS))

    @command("undo")
    def undo(session: commands.Session, argument: str, say: commands.Say) -> None:
        """take back the last question and its answer"""
        assert isinstance(session, Chat)
        del session.messages[-2:]

    session = Chat(FakeModel(["one"]))
    session.send("a")
    said: list[str] = []
    assert execute("/undo", session, said.append) and session.messages == []
    execute("/help", session, said.append)
    assert any("take back the last question" in line for line in said)


def test_ctrl_c_at_the_prompt_explains_how_to_leave():
    out, err = talk(Chat(FakeModel(["one"])), KeyboardInterrupt, "a")
    assert err.startswith("Ctrl-D or /exit leaves\n") and out == "one\n"


def test_ctrl_c_stops_the_answer_and_not_the_program():
    presses = iter([False, True])

    def press() -> None:
        if next(presses, False):
            signal.raise_signal(signal.SIGINT)
            pytest.fail("Ctrl-C was swallowed")

    model = FakeModel(["one two three four", "five"], before_step=press)
    session = Chat(model)
    out, err = talk(session, "Count", "On")
    assert out == "one \nfive\n"
    assert err.startswith("stopped\n") and "one <|im_end|>" in model.prompts[1]


def test_a_full_context_is_said_and_the_chat_goes_on():
    session = Chat(FakeModel(["ok", "fine"], context=120))
    out, err = talk(session, "short", "long " * 50, "/reset", "again")
    assert out == "ok\nfine\n"
    assert "error: the prompt has" in err and "/reset starts anew" in err


def test_a_context_nearly_full_is_said():
    model = FakeModel(["ok"], context=50)
    _, err = talk(Chat(model), "12345678901234567890")
    assert "the context is nearly full: " in err and "of 50 tokens" in err
    _, err = talk(Chat(FakeModel(["ok"])), "12345678901234567890")
    assert "full" not in err


def test_an_empty_answer_is_said():
    out, err = talk(Chat(FakeModel([""])), "a")
    assert out.strip() == "" and err.startswith("the answer is empty; 2 tokens")


def test_a_model_without_a_template_continues_what_is_typed():
    out, _ = talk(Continuation(FakeModel(["upon a time"], tokenizer=FakeTokenizer(None))), "Once")
    assert out == "upon a time\n"


def test_control_characters_are_escaped_on_a_terminal_only():
    nasty = "a\x1b[31mred\x07\u202e\r\nb\tc\x9b"
    for out, expected in ((Terminal(), "a\\x1b[31mred\\x07\\u202e\nb\tc\\x9b\n"), (io.StringIO(), nasty + "\n")):
        assert show(Continuation(FakeModel([nasty])).stream("x"), out) == nasty
        assert out.getvalue() == expected


@pytest.mark.parametrize("text", ["", "plain", "tab\tand\nline", "ünï 🙂 中文 👩‍👩‍👧"])
def test_ordinary_text_is_shown_as_it_is(text: str):
    assert visible(text) == text


def test_lines_about_an_answer_are_dim_on_a_terminal():
    err = Terminal()
    chat(Chat(FakeModel(["one"])), typed(["a"]), io.StringIO(), err)
    assert err.getvalue().startswith("\x1b[2m2 tokens")
