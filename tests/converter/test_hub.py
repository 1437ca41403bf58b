"""Hub repositories: only the files that are needed, downloads that go on where they were cut off, and one line for what goes wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ggpy
from ggpy.converter import hub as module
from ggpy.converter.hub import choose_file
from ggpy.errors import GGPyError

from .checkpoints import write_checkpoint
from .fake_hub import COMMIT, FakeHub, serve

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed (pip install -e '.[hub]')")
OTHERS = ("pytorch_model.bin", "model.fp16.safetensors", "original/consolidated.00.pth", "onnx/model.onnx", "training_args.bin", "code.py",
          "imatrix.gguf.txt", "events.json")  # fmt: skip
FIND = "import sys; from ggpy.converter.hub import find_source; print(find_source(sys.argv[1], lambda line: print(line, file=sys.stderr)))"

FIND_TEXTS = """
import sys
from ggpy.converter.hub import find_texts
from ggpy.errors import GGPyError
for name in sys.argv[1:]:
    try:
        path = find_texts(name)
        print(*[path.name] if path.is_file() else sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()))
    except GGPyError as error:
        print(error)
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[FakeHub, dict[str, str]]]:
    fake = FakeHub()
    folder = write_checkpoint(tmp_path / "Tiny")
    fake.repositories["owner/tiny"] = {path.name: path.read_bytes() for path in folder.iterdir()} | dict.fromkeys(OTHERS, b"not needed")
    sharded = write_checkpoint(tmp_path / "Sharded", shards=2)
    fake.repositories["owner/sharded"] = {p.name: p.read_bytes() for p in sharded.iterdir()} | {"model-00003-of-00002.safetensors": b"old"}
    with serve(fake) as endpoint:
        environment = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_TOKEN": ""}
        yield fake, environment


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the client reads the environment when it is imported."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HTTP", "http", "ALL_PROXY", "all_proxy"))}
    path = {"PYTHONPATH": str(Path(ggpy.__file__).parents[1])}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=clean | path | environment, capture_output=True, text=True, check=False, timeout=120)


def found(environment: dict[str, str], name: str) -> Path:
    done = run(environment, "-c", FIND, name)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def fault(environment: dict[str, str], name: str) -> str:
    done = run(environment, "-m", "ggpy", "convert", name, "-o", "/nowhere/out.gguf")
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("ggpy-convert: error: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_only_the_files_that_are_needed(hub: tuple[FakeHub, dict[str, str]], tmp_path: Path):
    fake, environment = hub
    folder = found(environment, "owner/tiny@v1")
    assert fake.downloaded == ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert {path.name: path.read_bytes() for path in folder.iterdir()}.items() <= fake.repositories["owner/tiny"].items()
    done = run(environment, "-m", "ggpy", "convert", "owner/tiny@v1", "-t", "f32", "-o", str(tmp_path / "out.gguf"))
    assert done.returncode == 0 and (tmp_path / "out.gguf").is_file(), done.stderr
    assert sorted(path.name for path in found(environment, f"owner/sharded@{COMMIT}").iterdir()) == [
        "config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json",
        "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip


def test_a_download_goes_on_where_it_was_cut_off(hub: tuple[FakeHub, dict[str, str]]):
    fake, environment = hub
    fake.repositories["owner/tiny"]["model.safetensors"] += b"\0" * 12_000_000  # the client keeps whole pieces of 10 MiB
    fake.cut["model.safetensors"] = 11_000_000
    folder = found(environment, "owner/tiny")
    assert (folder / "model.safetensors").read_bytes() == fake.repositories["owner/tiny"]["model.safetensors"]
    ranges = [asked[2] for asked in fake.asked if asked[0] == "GET" and asked[1].endswith("/model.safetensors")]
    assert ranges == [None, f"bytes={10 * 2**20}-"]


def test_what_is_in_the_cache_needs_no_network(hub: tuple[FakeHub, dict[str, str]]):
    fake, environment = hub
    folder = found(environment, "owner/tiny")
    before = len(fake.asked)
    assert found(environment | {"HF_HUB_OFFLINE": "1"}, "owner/tiny") == folder and len(fake.asked) == before
    assert found(environment | {"HF_ENDPOINT": "http://127.0.0.1:9"}, "owner/tiny") == folder
    assert "not in the local cache, and HF_HUB_OFFLINE" in fault(environment | {"HF_HUB_OFFLINE": "1"}, "owner/sharded")
    assert "not whole in the local cache" in fault(environment | {"HF_ENDPOINT": "http://127.0.0.1:9"}, "owner/sharded")


def test_faults_are_one_line(hub: tuple[FakeHub, dict[str, str]]):
    fake, environment = hub
    assert "owner/none: no such repository on the Hub, or a private one" in fault(environment, "owner/none")
    assert "owner/tiny@v9: the repository has no such revision" in fault(environment, "owner/tiny@v9")
    fake.gated.add("owner/tiny")
    assert "owner/tiny: the repository is gated: ask for access on its page" in fault(environment, "owner/tiny")
    fake.repositories["owner/pickled"] = {"config.json": b"{}", "pytorch_model.bin": b"\x80\x02"}
    assert "only pickled ones (pytorch_model.bin), which can run code" in fault(environment, "owner/pickled")
    assert "no GGUF files; name it without :q8_0" in fault(environment, "owner/sharded:q8_0")
    assert "no such directory or file, and no Hub repository" in fault(environment, "owner/model/file")
    fake.wrong["model-00001-of-00002.safetensors"] = b"far too short"
    assert "owner/sharded: download failed" in fault(environment, "owner/sharded")
    assert fake.downloaded[-1] != "pytorch_model.bin"


def test_repositories_of_gguf_files(hub: tuple[FakeHub, dict[str, str]]):
    fake, environment = hub
    parts = {f"m-Q8_0-{i:05d}-of-00002.gguf": b"part %d" % i for i in (1, 2)}
    fake.repositories["owner/ggufs"] = {"config.json": b"{}", "m-Q4_K_M.gguf": b"q4", "mmproj-m-Q4_K_M.gguf": b"eyes"} | parts
    done = run(environment, "-c", FIND, "owner/ggufs:q8_0")
    assert "owner/ggufs:q8_0: taking m-Q8_0-00001-of-00002.gguf" in done.stderr
    file = Path(done.stdout.strip())
    assert file.read_bytes() == b"part 1" and sorted(path.name for path in file.parent.iterdir()) == sorted(parts)
    assert found(environment, "owner/ggufs").read_bytes() == b"q4"
    assert "0 files are of type q5_0; the repository has m-Q4_K_M.gguf, m-Q8_0-00001-of-00002.gguf" in fault(
        environment, "owner/ggufs:q5_0"
    )
    assert "mmproj-m-Q4_K_M.gguf" not in fake.downloaded


def test_texts_of_a_data_set(hub: tuple[FakeHub, dict[str, str]], tmp_path: Path):
    fake, environment = hub
    fake.repositories["owner/texts"] = {"README.md": b"about", "data/a.jsonl": b'"one"', "b.txt": b"two", "c.parquet": b"?"}
    fake.repositories["owner/tables"] = {"data/train.parquet": b"?"}
    names = [str(tmp_path / "Tiny" / "config.json"), "owner/texts:b.txt", "owner/texts@v1", "owner/texts:c.txt", "owner/tables", "owner/no"]
    done = run(environment, "-c", FIND_TEXTS, *names)
    assert done.returncode == 0, done.stderr
    local, one, both, missing, tables, nowhere = done.stdout.splitlines()
    assert local == "config.json"
    assert one == "b.txt"
    assert both == "b.txt data/a.jsonl"
    assert "owner/texts:c.txt: the data set has no c.txt of .txt, .md, .jsonl; it has data/a.jsonl, b.txt" in missing
    assert "owner/tables: the data set has no file of .txt, .md, .jsonl; it has data/train.parquet" in tables
    assert "no such repository on the Hub" in nowhere
    assert not any("parquet" in path for _, path, _ in fake.asked)


def test_adapters(hub: tuple[FakeHub, dict[str, str]]):
    fake, environment = hub
    fake.repositories["owner/lora"] = {
        "adapter_config.json": json.dumps({"r": 1}).encode(),
        "adapter_model.safetensors": b"x",
        "optimizer.pt": b"",
    }
    assert sorted(path.name for path in found(environment, "owner/lora").iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]


def test_without_the_client(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(GGPyError, match=r"pip install 'ggpy\[hub\]'"):
        module.find_source("owner/model")
    assert module.find_gguf("owner/model", None, print) is None


def test_parts_of_a_split_file_are_one():
    files = [f"m-q8_0-{i:05d}-of-00003.gguf" for i in (1, 2, 3)]
    assert choose_file(files, None, "owner/model") == files[0] == choose_file([*files, "imatrix-q8_0.gguf"], "Q8_0", "owner/model")
