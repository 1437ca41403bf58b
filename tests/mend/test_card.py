"""Model cards, and pushing them: the Hub's client is replaced at its interface, `HfApi`."""

from __future__ import annotations

import hashlib
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from ggpy.cli.convert import main

from .conftest import DEMO


class Hub:
    """What `huggingface_hub.HfApi` is asked, and a repository that remembers it."""

    def __init__(self, readme: str | None = None, fault: str | None = None):
        self.files: dict[str, bytes] = {} if readme is None else {"README.md": readme.encode()}
        self.fault, self.made = fault, ""

    def create_repo(self, repo_id: str, exist_ok: bool) -> str:
        if self.fault:
            raise RuntimeError(self.fault)
        self.made = repo_id
        return f"https://huggingface.co/{repo_id}"

    def file_exists(self, repo_id: str, filename: str) -> bool:
        return filename in self.files

    def hf_hub_download(self, repo_id: str, filename: str) -> str:
        path = Path(self.folder) / filename
        path.write_bytes(self.files[filename])
        return str(path)

    def upload_file(self, *, path_or_fileobj: Any, path_in_repo: str, repo_id: str) -> None:
        self.files[path_in_repo] = path_or_fileobj if isinstance(path_or_fileobj, bytes) else Path(path_or_fileobj).read_bytes()

    folder = "."


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def install(**options: Any) -> Hub:
        made = Hub(**options)
        made.folder = str(tmp_path)
        monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(HfApi=lambda: made))
        return made

    return install


def test_a_card_says_where_from_how_and_how_good(tmp_path: Path):
    snapshot = tmp_path / "models--owner--Tiny" / "snapshots" / "0123456789abcdef"
    snapshot.mkdir(parents=True)
    for file in DEMO.iterdir():
        (snapshot / file.name).symlink_to(file)
    out, card, text = tmp_path / "out.gguf", tmp_path / "card.md", tmp_path / "text.txt"
    text.write_text("Once upon a time there was a little girl. " * 40, encoding="utf-8")
    assert main([str(snapshot), "-o", str(out), "-t", "q8_0", "--card", str(card), "--perplexity", str(text)]) == 0
    shown = card.read_text(encoding="utf-8")
    assert 'base_model: "owner/Tiny"' in shown and "revision `0123456789abcdef`" in shown and "-t q8_0 --card" in shown
    assert f"{hashlib.sha256(out.read_bytes()).hexdigest()}  out.gguf" in shown
    assert "| Q8_0 | 22 |" in shown and "KL divergence 0.000" in shown and "Perplexity on `text.txt`: " in shown
    assert main([str(snapshot), "-o", str(tmp_path / "other.gguf"), "--card", str(card)]) == 1  # neither replaced nor converted first
    assert not (tmp_path / "other.gguf").exists()


def test_a_push_uploads_file_card_and_manifest(hub: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    made = hub()
    assert main([str(DEMO), "-o", str(tmp_path / "demo-Q4_0.gguf"), "-t", "q4_0", "--push", "me/demo-GGUF"]) == 0
    assert set(made.files) == {"demo-Q4_0.gguf", "demo-Q4_0.manifest.json", "README.md"} and made.made == "me/demo-GGUF"
    listed = json.loads(made.files["demo-Q4_0.manifest.json"])
    assert listed["sha256"] == hashlib.sha256(made.files["demo-Q4_0.gguf"]).hexdigest()
    assert listed["report"]["certificate"]["passed"] is True and listed["report"]["path"] == "demo-Q4_0.gguf"
    assert str(tmp_path) not in json.dumps(listed["source"]) and "pushed to https://huggingface.co/me/demo-GGUF" in capsys.readouterr().err
    assert (
        main([str(DEMO), "-o", str(tmp_path / "demo-Q8_0.gguf"), "-t", "q8_0", "--push", "me/demo-GGUF"]) == 0
    )  # its own card it replaces


@pytest.mark.parametrize(
    ("arguments", "options", "line"),
    [
        (["--push", "nonsense"], {}, "'nonsense' is no Hub repository"),
        (["--push", "me/x"], {"readme": "# Mine"}, "has a README.md that is not ggpy's"),
        (["--push", "me/x"], {"fault": "403 Forbidden\nmore"}, "me/x: cannot be pushed to: 403 Forbidden"),
        (["--perplexity", "no.txt"], {}, "--perplexity is for the card"),
        (["--card", "c.md", "--perplexity", "no.txt"], {}, "no.txt: no such text file"),
    ],
)
def test_refusals(hub: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], options: dict, line: str):
    hub(**options)
    assert main([str(DEMO), "-o", str(tmp_path / "a.gguf"), "-t", "q8_0", *arguments]) == 1
    assert line in capsys.readouterr().err.splitlines()[-1]


def test_without_the_hubs_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert main([str(DEMO), "-o", str(tmp_path / "a.gguf"), "--push", "me/x"]) == 1
    assert "pip install 'ggpy[hub]'" in capsys.readouterr().err and not (tmp_path / "a.gguf").exists()
