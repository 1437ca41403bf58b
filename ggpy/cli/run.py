"""ggpy-run: chat with a model, get one answer, or let it continue a text."""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ggpy.cli.common import (
    command_parser,
    non_negative_float,
    non_negative_int,
    positive_int,
    probability,
    real_number,
    run_command,
    starting,
)
from ggpy.cli.status import Status
from ggpy.errors import GGPyError

if TYPE_CHECKING:
    from ggpy import Model
    from ggpy.chat.commands import Session

DEMO_TOKENS = 96
CONTINUED_TOKENS = 256  # of a plain continuation, which may have no end of its own

EPILOG = """\
With a terminal and no PROMPT it is a chat: /help shows what can be typed beside questions, Ctrl-C stops an answer, Ctrl-D leaves.
With a PROMPT, or text piped to stdin, it is one answer on stdout; everything else goes to stderr.

  ggpy-run --demo "In the beginning"
  ggpy-run model.gguf "Why is the sky blue?" --temp 0
  git diff | ggpy-run model.gguf --system "Write a commit message for this diff."
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of `ggpy-run`."""
    parser = command_parser("ggpy-run", "Chat with a model, or get one answer.", epilog=EPILOG)
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        help="a .gguf file; or a checkpoint directory or Hub repository (owner/model), with an optional :type, converted once (to Q4_K_M)",
    )
    parser.add_argument("prompt", metavar="PROMPT", nargs="?", help="what to answer; - reads it from stdin")
    parser.add_argument("--demo", action="store_true", help="run the small model that ggpy brings along, instead of MODEL")
    parser.add_argument(
        "-n",
        "--tokens",
        type=non_negative_int,
        metavar="N",
        help="most tokens of an answer (default: until its end; 256 without a template)",
    )
    parser.add_argument("--temp", type=non_negative_float, metavar="T", help="temperature; 0 always takes the likeliest (default 0.8)")
    parser.add_argument("--top-k", type=non_negative_int, default=40, metavar="K", help="choose among the K likeliest; 0: all (default 40)")
    parser.add_argument("--top-p", type=probability, default=0.95, metavar="P", help="… among the likeliest that sum to P (default 0.95)")
    parser.add_argument("--min-p", type=probability, default=0.05, metavar="P", help="… not below P times the likeliest (default 0.05)")
    parser.add_argument("--repeat-penalty", type=real_number(0.01), default=1.0, metavar="R", help="above 1: avoid repetition (default 1)")
    parser.add_argument("--seed", type=non_negative_int, metavar="S", help="makes the choices repeatable")
    parser.add_argument("--system", metavar="TEXT", help="the system message")
    parser.add_argument("--raw", action="store_true", help="continue PROMPT as it is, without the chat template")
    parser.add_argument("--threads", type=positive_int, metavar="N", help="threads (default: what this process may use)")
    parser.add_argument("--ctx", type=positive_int, metavar="N", help="context in tokens (default: the model's, at most 4096)")
    parser.add_argument("--json", action="store_true", help="write the answer and its figures as one JSON object")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = build_parser()
    args = parser.parse_intermixed_args(argv)  # an option may stand between MODEL and PROMPT
    if args.demo and args.prompt is None:
        args.model, args.prompt = None, args.model
    if args.demo == (args.model is not None):
        parser.error("give either MODEL or --demo" + (", and at most one PROMPT" if args.demo else ""))
    if args.json and args.prompt is None and sys.stdin.isatty():
        parser.error("--json needs a PROMPT, or text on stdin")
    return run_command(run, args)


def run(args: argparse.Namespace) -> None:
    """Do what `args` ask. Raises GGPyError for a model that cannot be run or a prompt that does not fit."""
    status = Status(args.prog)
    prompt = read_prompt(args.prompt)
    if prompt is None and not sys.stdout.isatty():
        raise GGPyError("no PROMPT, and stdout is no terminal to chat on")
    if prompt is not None and not prompt:
        raise GGPyError("the prompt is empty")
    began = time.perf_counter()
    with load_model(args, status) as model:
        with starting():
            session = open_session(model, args, status)
        loaded = time.perf_counter() - began
        if prompt is None:
            from ggpy.chat.terminal import chat, line_reader

            status.say(f"{model.path.name}: {model.context} tokens of context; /help shows the commands")
            chat(session, line_reader(), sys.stdout, sys.stderr)
        elif args.json:
            text = "".join(step.text for step in session.stream(prompt))
            print(json.dumps(as_json(session, text, loaded)))
        else:
            from ggpy.chat.terminal import show

            show(session.stream(prompt), sys.stdout)
            report_cut(session, args, status)


def read_prompt(prompt: str | None) -> str | None:
    """The prompt given, or stdin's text where none is given and it is no terminal; None: chat."""
    if prompt == "-" or (prompt is None and not sys.stdin.isatty()):
        return sys.stdin.buffer.read().decode("utf-8", "replace").removesuffix("\n")
    return prompt


def load_model(args: argparse.Namespace, status: Status) -> Model:
    """Find the model, convert it where needed, load it; what takes time is shown."""
    from ggpy.cli.model_file import find_demo, find_model

    path = find_demo(status, args.threads) if args.demo else find_model(args.model, status, args.threads)
    import ggpy

    told = False

    def on_compile(kernel: tuple[str, str], done: int, total: int) -> None:
        nonlocal told
        if not told:
            gc.enable()  # numba leaves much behind
            status.say(f"compiling {total} kernels for this machine, once")
            told = True
        status.show(f"compiling {'.'.join(kernel)} ({done + 1} of {total})")

    with starting():
        model = ggpy.load(path, threads=args.threads, context=args.ctx, on_compile=on_compile)
    status.clear()
    return model


def open_session(model: Model, args: argparse.Namespace, status: Status) -> Session:
    """A conversation, or plain continuation for --raw and for models without a chat template."""
    from ggpy.chat.session import Chat, Continuation

    settings: dict[str, Any] = {
        "max_tokens": args.tokens,
        "temperature": (0.0 if args.demo else 0.8) if args.temp is None else args.temp,
        "top_k": args.top_k,
        "top_p": args.top_p,
        "min_p": args.min_p,
        "repeat_penalty": args.repeat_penalty,
        "seed": args.seed,
    }
    if model.tokenizer.chat_template is not None and not args.raw:
        return Chat(model, args.system, **settings)
    if args.system is not None:
        raise GGPyError("--system needs a chat template: " + ("--raw leaves it out" if args.raw else "the model has none"))
    if not args.raw and not args.demo:
        status.say("the model has no chat template: the text is continued as it is")
    if args.tokens is None:
        settings["max_tokens"] = DEMO_TOKENS if args.demo else CONTINUED_TOKENS
    return Continuation(model, **settings)


def report_cut(session: Session, args: argparse.Namespace, status: Status) -> None:
    """Say why an answer ended where it was not the model that ended it, nor the user."""
    if session.finish == "context":
        status.say(f"cut off: the context of {session.model.context} tokens is full")
    elif session.finish == "length" and args.tokens is None and not args.demo:
        status.say(f"cut off after {session.usage.generated_tokens} tokens; -n sets another limit")


def as_json(session: Session, text: str, load_seconds: float) -> dict[str, object]:
    """The object that --json prints."""
    usage, speed = session.usage, session.usage.tokens_per_second
    return {
        "text": text,
        "finish": session.finish,
        "prompt_tokens": usage.prompt_tokens,
        "generated_tokens": usage.generated_tokens,
        "load_seconds": round(load_seconds, 3),
        "first_token_seconds": round(usage.first_seconds, 3),
        "tokens_per_second": None if speed is None else round(speed, 2),
    }


if __name__ == "__main__":
    sys.exit(main())
