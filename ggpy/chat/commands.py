"""What can be typed after a slash in a chat. One decorated function is one command: /help, completion and the docs read the table.

@command("undo")
def undo(session, argument, say):
    "take back the last question and its answer"
    del session.messages[-2:]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ggpy.chat.session import Chat, Continuation

Session = Chat | Continuation
Say = Callable[[str], None]


class Leave(Exception):
    """Raised by a command to end the chat."""


@dataclass(frozen=True)
class Command:
    """name: without the slash; argument: how /help shows what may follow; summary: the function's docstring."""

    name: str
    argument: str
    summary: str
    run: Callable[[Session, str, Say], None]


COMMANDS: dict[str, Command] = {}


def command(name: str, argument: str = "") -> Callable[[Callable[[Session, str, Say], None]], Callable[[Session, str, Say], None]]:
    """Make a function the command /name. It gets the session, what was typed behind the name, and `say`, which shows a line."""

    def register(function: Callable[[Session, str, Say], None]) -> Callable[[Session, str, Say], None]:
        assert name not in COMMANDS and function.__doc__
        COMMANDS[name] = Command(name, argument, function.__doc__, function)
        return function

    return register


def execute(line: str, session: Session, say: Say) -> bool:
    """Run `line` if it is a command; returns whether it was. Leave: the chat is to end.

    A slash alone does not make a command: `/usr/bin is full` is a question, `/rest` an unknown command.
    """
    name, _, argument = line.strip().partition(" ")
    if not name.startswith("/") or "/" in name[1:]:
        return False
    if found := COMMANDS.get(name[1:]):
        found.run(session, argument.strip(), say)
    else:
        say(f"{name} is no command; /help shows them all")
    return True


@command("help")
def show_help(session: Session, argument: str, say: Say) -> None:
    """show the commands"""
    usages = {f"/{c.name} {c.argument}".rstrip(): c.summary for c in COMMANDS.values()}
    width = max(map(len, usages))
    for usage, summary in usages.items():
        say(f"{usage:<{width}}  {summary}")
    say("Ctrl-C stops an answer, Ctrl-D leaves")


@command("reset")
def reset(session: Session, argument: str, say: Say) -> None:
    """forget the conversation, but not the system message"""
    session.reset()
    say("the conversation starts anew")


@command("system", "[TEXT]")
def set_system(session: Session, argument: str, say: Say) -> None:
    """show the system message, or set it and start anew"""
    if not isinstance(session, Chat):
        say("this model has no chat template, so it takes no system message")
    elif not argument:
        say("there is no system message" if session.system is None else f"system message: {session.system}")
    else:
        session.system = argument
        session.reset()
        say("the system message is set; the conversation starts anew")


@command("exit")
def leave(session: Session, argument: str, say: Say) -> None:
    """leave the chat"""
    raise Leave
