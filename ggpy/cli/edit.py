"""ggpy-edit: change metadata and names in a GGUF file, without quantizing again."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ggpy.cli.common import command_parser, run_command
from ggpy.errors import GGPyError, printable


def build_parser() -> argparse.ArgumentParser:
    """The parser of `ggpy-edit`."""
    parser = command_parser(
        "ggpy-edit",
        "Change keys, the chat template and names in a GGUF file; tensor data stays as it is.\n"
        "Changes after which the file could not be loaded any more are refused.",
        epilog="Without -o the file itself is changed: only its head where that takes the same room, else a new file replaces it\n"
        "when it is complete. types: uint8 int8 uint16 int16 uint32 int32 uint64 int64 float32 float64 bool\n"
        "string; array:TYPE with a JSON array",
    )
    parser.add_argument("file", metavar="FILE", help="a .gguf file")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="give a key a value; it keeps its type, a new one needs it: KEY:TYPE=VALUE. May be repeated, as the next two",
    )
    parser.add_argument("--delete", action="append", default=[], metavar="KEY", help="delete a key")
    parser.add_argument("--rename", action="append", default=[], metavar="OLD=NEW", help="rename a key or a tensor")
    parser.add_argument("--template", metavar="JINJA", help="a file with the chat template to put in")
    parser.add_argument("-o", "--output", metavar="OUT", help="write another file and leave FILE as it is")
    parser.add_argument("--force", action="store_true", help="replace an existing OUT")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(_edit, build_parser().parse_args(argv))


def _edit(args: argparse.Namespace) -> None:
    from pathlib import Path

    from ggpy.mend.edit import Changes, edit, read_template
    from ggpy.mend.values import parse_assignment

    try:
        assignments = [parse_assignment(argument) for argument in args.set]
    except ValueError as error:
        raise GGPyError(f"--set: {error}") from None
    if args.template:
        assignments.append(read_template(Path(args.template)))
    rename = {}
    for argument in args.rename:
        old, equals, new = argument.partition("=")
        if not (old and equals and new) or old in rename:
            raise GGPyError(f"--rename: '{printable(argument, 80)}' is not OLD=NEW, each OLD once")
        rename[old] = new
    changes = Changes(assignments, args.delete, rename)
    if not (changes.set or changes.delete or changes.rename):
        raise GGPyError("nothing to change: give --set, --delete, --rename or --template")
    done = edit(Path(args.file), changes, Path(args.output) if args.output else None, force=args.force)
    for line in done.said:
        print(line)
    how = "changed in place" if done.in_place else "written"
    print(f"{printable(done.path)}: {how}")
