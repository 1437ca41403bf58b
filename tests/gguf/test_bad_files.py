"""Every illegal file is refused by one exception that names the fault, in little memory; every prefix of a legal one, too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gguf_bytes import ARRAY, STRING, U8, array, entry, gguf, string, tensor, u32, u64

from ggpy.errors import GGUFError
from ggpy.gguf import open_gguf
from ggpy.gguf.types import MAX_ENTRIES, MAX_KEY_BYTES, MAX_METADATA_BYTES

FOLDER = Path(__file__).resolve().parents[2] / "formats" / "gguf"
BAD = json.loads((FOLDER / "bad" / "manifest.json").read_text(encoding="utf-8"))


def refusal(path: Path) -> GGUFError:
    with pytest.raises(GGUFError) as caught:
        open_gguf(path)
    error = caught.value
    assert error.path == path
    assert error.offset is None or 0 <= error.offset <= path.stat().st_size
    assert str(path) in str(error) and error.what in str(error)
    assert str(error).isprintable(), "a complaint is one line without control characters"
    return error


@pytest.mark.parametrize("name", BAD)
def test_bad_file_is_refused(name: str):
    assert BAD[name] in refusal(FOLDER / "bad" / name).what


def test_refusals_take_little_memory():
    """All bad files one after another raise the peak by far less than the 100 MB that one may take."""
    script = (
        "import resource, sys; from pathlib import Path; from ggpy.errors import GGUFError; from ggpy.gguf import open_gguf\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in Path(sys.argv[1]).glob('*.gguf'):\n"
        "    try: open_gguf(path)\n"
        "    except GGUFError: pass\n"
        "    else: sys.exit(f'{path} was accepted')\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", script, FOLDER / "bad"], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 20_000, "KiB"


@pytest.mark.parametrize("name", ["small_v3", "value_types", "shapes", "alignment_64"])
def test_prefixes_are_refused(name: str, tmp_path: Path):
    raw, path = (FOLDER / "good" / f"{name}.gguf").read_bytes(), tmp_path / "cut.gguf"
    for length in range(0, len(raw), 1 + len(raw) // 1000):
        path.write_bytes(raw[:length])
        refusal(path)


def test_split_part_opens_when_asked():
    with open_gguf(FOLDER / "bad" / "split_2_of_3.gguf", only_this_part=True) as file:
        assert file.metadata["split.count"] == 3


def test_long_key_and_long_value(tmp_path: Path):
    path = tmp_path / "long.gguf"
    path.write_bytes(gguf([entry("k" * MAX_KEY_BYTES, U8, b"\1"), entry("k", STRING, string("v" * 10**6))]))
    with open_gguf(path) as file:
        assert file.metadata["k"] == "v" * 10**6
    path.write_bytes(gguf([entry("k" * (MAX_KEY_BYTES + 1), U8, b"\1")]))
    assert "65536 bytes long; at most 65535" in refusal(path).what
    path.write_bytes(gguf([entry("general.alignment", STRING, string("v" * 10**6))]))
    assert len(str(refusal(path))) < 500


def test_deep_nesting_needs_no_stack(tmp_path: Path):
    path = tmp_path / "deep.gguf"
    path.write_bytes(gguf([entry("k", ARRAY, array(ARRAY, 1) * 10**5)]))
    assert "nested deeper than 16" in refusal(path).what


def test_elements_are_bounded_over_the_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ggpy.gguf.values.MAX_ELEMENTS", 1000)
    path = tmp_path / "elements.gguf"
    strings = entry("strings", ARRAY, array(STRING, 500, string("") * 500))
    path.write_bytes(gguf([strings, entry("arrays", ARRAY, array(ARRAY, 500) + array(U8, 0) * 500)]))
    with open_gguf(path) as file:
        assert len(file.metadata["strings"]) == len(file.metadata["arrays"]) == 500
    path.write_bytes(gguf([strings, entry("arrays", ARRAY, array(ARRAY, 501) + array(U8, 0) * 501)]))
    assert "its 501 elements make more than 1000 strings and arrays" in refusal(path).what


def test_counts_are_bounded_in_sparse_files(tmp_path: Path):
    """A file can have any size without taking room: counts that fit in it are no reason to allocate."""
    path = tmp_path / "sparse.gguf"
    for raw, fault in (
        (gguf(n_keys=MAX_ENTRIES + 1), f"{MAX_ENTRIES + 1} keys; at most"),
        (gguf(n_tensors=MAX_ENTRIES + 1), f"{MAX_ENTRIES + 1} tensors; at most"),
        (gguf([string("k") + u32(ARRAY) + array(U8, 2**34)]), f"all metadata together may take {MAX_METADATA_BYTES}"),
        (gguf([string("k") + u32(STRING) + u64(2**34)]), f"all metadata together may take {MAX_METADATA_BYTES}"),
    ):
        path.write_bytes(raw)
        os.truncate(path, 2**35)
        started = time.process_time()
        assert fault in refusal(path).what
        assert time.process_time() - started < 1


@pytest.mark.parametrize("n_keys, n_tensors", [(200_000, 0), (0, 50_000)])
def test_parsing_is_linear(n_keys: int, n_tensors: int, tmp_path: Path):
    path = tmp_path / "many.gguf"
    entries = [entry(f"key.{i}", U8, b"\1") for i in range(n_keys)]
    path.write_bytes(gguf(entries, [tensor(f"t.{i}", [1], 0, 32 * i) for i in range(n_tensors)], b"\0" * 32 * n_tensors))
    started = time.process_time()
    with open_gguf(path) as file:
        assert (len(file.metadata), len(file.tensors)) == (n_keys, n_tensors)
    assert time.process_time() - started < 5


def test_a_large_vocabulary_is_fast(tmp_path: Path):
    path = tmp_path / "vocabulary.gguf"
    tokens = [f"token {i}" for i in range(128_000)]
    path.write_bytes(gguf([entry("tokens", ARRAY, array(STRING, len(tokens), b"".join(map(string, tokens))))]))
    started = time.process_time()
    with open_gguf(path) as file:
        assert time.process_time() - started < 1
        assert file.metadata.strings("tokens") == tokens


def test_what_is_no_regular_file(tmp_path: Path):
    assert "a directory" in refusal_at_once(tmp_path)
    assert "No such file" in refusal_at_once(tmp_path / "absent.gguf")
    os.mkfifo(tmp_path / "fifo.gguf")
    assert "a FIFO" in refusal_at_once(tmp_path / "fifo.gguf")
    assert "a device" in refusal_at_once(Path("/dev/zero"))
    (tmp_path / "loop.gguf").symlink_to("loop.gguf")
    assert "symbolic link" in refusal_at_once(tmp_path / "loop.gguf")
    assert "null byte" in refusal_at_once(Path("a\0b"))
    assert "file name too long" in refusal_at_once(tmp_path / ("n" * 300)).lower()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_unreadable_file(tmp_path: Path):
    path = tmp_path / "secret.gguf"
    path.write_bytes(gguf())
    path.chmod(0)
    assert "Permission denied" in refusal_at_once(path)


def refusal_at_once(path: Path) -> str:
    started = time.monotonic()
    with pytest.raises(GGUFError) as caught:
        open_gguf(path)
    assert time.monotonic() - started < 1
    return caught.value.what
