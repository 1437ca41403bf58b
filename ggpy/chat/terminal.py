"""The chat on a terminal: a line is read, the answer appears as it comes. Ctrl-C stops the answer, Ctrl-D ends the chat."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TextIO

try:
    import termios
except ImportError:  # Windows
    termios = None

from ggpy.chat.commands import COMMANDS, Leave, Session, execute
from ggpy.chat.session import Chat, Step
from ggpy.errors import GGPyError, printable

NEARLY_FULL = 0.8  # of the context
_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"

ReadLine = Callable[[], str]
"""Returns a line; raises EOFError at the end of input and KeyboardInterrupt on Ctrl-C."""


def visible(text: str) -> str:
    """`text` for a terminal: control and bidirectional characters are escaped, line breaks and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in "\n\t" else printable(c) for c in text.replace("\r\n", "\n"))


def show(steps: Generator[Step, None, None], out: TextIO) -> str:
    """Write an answer while it comes and end it with a line break; returns it. Control characters are escaped on a terminal only.

    Ctrl-C raises KeyboardInterrupt after the token, or the batch of the prompt, that is being computed.
    """
    clean = visible if out.isatty() else str
    parts: list[str] = []
    try:
        with _silent_keyboard():
            for step in steps:
                parts.append(step.text)
                out.write(clean(step.text))
                out.flush()
    finally:
        steps.close()
        text = "".join(parts)
        if text and not text.endswith("\n"):
            out.write("\n")
            out.flush()
    return text


@contextlib.contextmanager
def _silent_keyboard() -> Iterator[None]:
    """What is typed meanwhile does not appear in the answer's midst; it waits for the next prompt."""
    if termios is None or not sys.stdin.isatty():
        yield
        return
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    silent = [*before]
    silent[3] &= ~termios.ECHO
    termios.tcsetattr(keyboard, termios.TCSANOW, silent)
    try:
        yield
    finally:
        termios.tcsetattr(keyboard, termios.TCSANOW, before)


def chat(session: Session, read_line: ReadLine, out: TextIO, err: TextIO) -> None:
    """Talk until Ctrl-D or /exit. Answers go to `out`, everything about them to `err`."""

    def say(line: str) -> None:
        line = printable(line, 2000)
        print(f"{_DIM}{line}{_PLAIN}" if err.isatty() else line, file=err, flush=True)

    while True:
        try:
            line = read_line()
        except KeyboardInterrupt:
            say("Ctrl-D or /exit leaves")
            continue
        except EOFError:
            return
        try:
            if line.strip() and not execute(line, session, say):
                answer(session, line, say, out)
        except Leave:
            return


def answer(session: Session, question: str, say: Callable[[str], None], out: TextIO) -> None:
    """One question and its answer, stopped by Ctrl-C. What the user can mend, such as a full context, is said and not raised."""
    try:
        text = show(session.stream(question), out)
    except KeyboardInterrupt:
        say("stopped")
        return
    except GGPyError as error:
        say(f"error: {error}" + ("; /reset starts anew" if isinstance(session, Chat) and session.messages else ""))
        return
    say(summary(session) if text.strip() else f"the answer is empty; {summary(session)}")


def summary(session: Session) -> str:
    """A line about the answer just given, and whether the context is nearly full."""
    usage, context = session.usage, session.model.context
    speed = usage.tokens_per_second
    parts = [f"{usage.generated_tokens} token" + "s" * (usage.generated_tokens != 1), *([f"{speed:.0f} per second"] if speed else [])]
    if session.finish == "length":
        parts.append("cut off at the limit of -n")
    if session.finish == "context":
        parts.append(f"cut off: the context of {context} tokens is full; /reset starts anew")
    elif session.used >= NEARLY_FULL * context:
        parts.append(f"the context is nearly full: {session.used} of {context} tokens; /reset starts anew")
    return ", ".join(parts)


def line_reader() -> ReadLine:
    """Reads lines with editing, history of this chat, and completion of commands."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import Completer, Completion
    from prompt_toolkit.document import Document

    class Commands(Completer):
        def get_completions(self, document: Document, complete_event: object) -> Iterable[Completion]:
            typed = document.text_before_cursor
            if typed.startswith("/") and " " not in typed:
                for name in COMMANDS:
                    if name.startswith(typed[1:]):
                        yield Completion(name, start_position=1 - len(typed), display=f"/{name}", display_meta=COMMANDS[name].summary)

    session: PromptSession[str] = PromptSession(completer=Commands(), complete_while_typing=True, reserve_space_for_menu=len(COMMANDS))
    return lambda: session.prompt("> ")
