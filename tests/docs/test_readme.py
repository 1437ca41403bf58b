"""What the README shows is what happens: its Python example runs, its commands exist, CI runs its two lines word for word."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from ggpy.cli.main import VERBS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "docs" / "quickstart.md"]
DEMO = ROOT / "ggpy" / "demo"


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """One after the other, as a reader would type them, with the demo checkpoint as `hf-checkpoint`."""
    (tmp_path / "hf-checkpoint").symlink_to(DEMO, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for example in blocks(page, "python"):
        exec(compile(example, page.name, "exec"), names)
    assert len(capsys.readouterr().out) > 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_have_the_options_shown(page: Path):
    shown = [line.partition("#")[0] for block in blocks(page, "sh") for line in block.splitlines()]
    commands = [part.split("|")[-1].strip() for line in shown for part in line.split("&&")]
    ours = [shlex.split(command) for command in commands if command.startswith("ggpy")]
    assert ours
    for program, *arguments in ours:
        verb = program.removeprefix("ggpy-")
        assert verb in VERBS, program
        import_module(f"ggpy.cli.{verb}").build_parser().parse_args(arguments)


def test_ci_runs_the_two_lines_of_the_readme():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for command in ('pip install . && ggpy-run --demo "In the beginning"', "pip install -e '.[dev]' && pytest"):
        assert command in lines
        assert f'readme "{command}"' in script.replace('\\"', '"')
