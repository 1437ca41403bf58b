"""Models split over several files: any part leads to all of them, and parts that do not belong together are refused by name."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ggpy.errors import GGUFError
from ggpy.gguf import open_gguf
from ggpy.gguf.split import part_paths
from tests.runtime.tiny import write_llama
from tests.split_model import split_file


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("whole") / "tiny.gguf", "Q8_0", vocab=260, d_model=64, d_ff=96, layers=1)


@pytest.mark.parametrize("given", [0, 1, 2])
def test_any_part_opens_the_whole(whole: Path, tmp_path: Path, given: int):
    paths = split_file(whole, tmp_path, 3)
    with open_gguf(whole) as expected, open_gguf(paths[given]) as file:
        assert list(file.tensors) == list(expected.tensors) and file.paths == paths and file.path == paths[0]
        assert dict(file.metadata).keys() == dict(expected.metadata).keys() | {"split.no", "split.count", "split.tensors.count"}
        assert file.file_size == sum(path.stat().st_size for path in paths)
        for name, tensor in file.tensors.items():
            np.testing.assert_array_equal(tensor.data, expected.tensors[name].data)
            with open_gguf(file.path_of(name), only_this_part=True) as part:
                assert part.tensors[name].offset == tensor.offset
        file.check_unchanged()
        paths[2].touch()
        with pytest.raises(GGUFError, match=r"tiny-00003-of-00003.gguf: the file changed"):
            file.check_unchanged()
    assert file.closed


def test_a_first_part_without_tensors(whole: Path, tmp_path: Path):
    """As `llama-gguf-split --no-tensor-first-split` makes it."""
    shutil.copy(whole, tmp_path / "tiny.gguf")
    paths = split_file(whole, tmp_path, 14)
    with open_gguf(paths[0], only_this_part=True) as first, open_gguf(paths[5]) as file, open_gguf(whole) as expected:
        assert not first.tensors and list(file.tensors) == list(expected.tensors)


def refusal(path: Path) -> str:
    with pytest.raises(GGUFError) as caught:
        open_gguf(path)
    return str(caught.value)


def test_a_missing_part_is_named(whole: Path, tmp_path: Path):
    paths = split_file(whole, tmp_path, 3)
    paths[1].unlink()
    assert "part 1 of a model split into 3 files; 1 of them are not beside it: tiny-00002-of-00003.gguf" in refusal(paths[0])
    assert "tiny-00002-of-00003.gguf: No such file" in refusal(paths[1])


def test_a_renamed_part_is_refused(whole: Path, tmp_path: Path):
    paths = split_file(whole, tmp_path, 3)
    other = paths[1].rename(tmp_path / "model.gguf")
    assert "part 2 of a model split into 3 files, but it is not named NAME-00002-of-00003.gguf" in refusal(other)
    other.rename(paths[1])
    shutil.copy(paths[2], paths[1])
    assert "tiny-00002-of-00003.gguf: key 'split.no' is 2, expected 1 by its name" in refusal(paths[0])
    assert "part 3 of a model split into 3 files, but it is not named NAME-00003-of-00003.gguf" in refusal(paths[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({1: {"split.count": 4}}, "tiny-00002-of-00003.gguf: key 'split.count' is 4, in the other parts 3"),
        ({2: {"split.count": None}}, "tiny-00003-of-00003.gguf: key 'split.count' is missing"),
        ({2: {"split.no": None}}, "tiny-00003-of-00003.gguf: key 'split.no' is missing"),
        ({1: {"split.tensors.count": 7}}, "tiny-00002-of-00003.gguf: key 'split.tensors.count' is 7, in the first part 11"),
        ({i: {"split.tensors.count": 12} for i in range(3)}, "key 'split.tensors.count' is 12, but the 3 parts have 11 tensors"),
        ({1: {"general.architecture": "qwen2"}}, "tiny-00002-of-00003.gguf: key 'general.architecture' differs from that in tiny-00001"),
        ({1: {"general.name": "Other"}}, "tiny-00002-of-00003.gguf: key 'general.name' is not in tiny-00001-of-00003.gguf"),
        ({0: {"split.count": 65_536}}, "key 'split.count' is 65536"),
    ],
)
def test_parts_that_do_not_belong_together(whole: Path, tmp_path: Path, changes: dict[int, dict[str, Any]], message: str):
    if changes.get(0, {}).get("split.count") == 65_536:
        paths = split_file(whole, tmp_path, 3)
        raw = paths[0].read_bytes()  # a uint16 cannot say it, a uint32 can
        at = raw.index(b"split.count") + len(b"split.count")
        paths[0].write_bytes(raw[:at] + b"\x04\0\0\0" + (65_536).to_bytes(4, "little") + raw[at + 6 :])
    else:
        paths = split_file(whole, tmp_path, 3, changes)
    assert message in refusal(paths[0])


def test_a_tensor_in_two_parts(whole: Path, tmp_path: Path):
    paths = split_file(whole, tmp_path, 3, {i: {"split.tensors.count": 12} for i in range(3)}, repeat="token_embd.weight")
    assert "tiny-00003-of-00003.gguf: tensor 'token_embd.weight' is in tiny-00001-of-00003.gguf already" in refusal(paths[0])


def test_a_damaged_part_is_named(whole: Path, tmp_path: Path):
    paths = split_file(whole, tmp_path, 3)
    paths[2].write_bytes(paths[2].read_bytes()[:-100])
    assert refusal(paths[0]).startswith(str(paths[2]))
    paths[2].unlink()
    paths[2].mkdir()
    assert "00003-of-00003.gguf: a directory" in refusal(paths[0])


@pytest.mark.parametrize("name", ["a.gguf", "a-00001-of-00000.gguf", "a-00004-of-00003.gguf", "a-1-of-3.gguf", "a-00000-of-00003.gguf"])
def test_names_that_are_no_parts(name: str):
    assert part_paths(name) == [Path(name)]


def test_parts_lie_in_the_same_folder():
    assert part_paths("x/../y/a-00002-of-00002.gguf") == [Path("x/../y/a-00001-of-00002.gguf"), Path("x/../y/a-00002-of-00002.gguf")]


def test_inspect_shows_the_whole_and_what_there_is(whole: Path, tmp_path: Path):
    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "ggpy", "inspect", *map(str, arguments)], capture_output=True, text=True, check=False)

    paths = split_file(whole, tmp_path, 3)
    done = run(paths[1], "--tensors")
    assert done.returncode == 0 and ", 3 parts\n" in done.stdout and "11 tensors" in done.stdout
    assert {line.split()[-1] for line in done.stdout.split("offset  part\n")[1].splitlines()} == {"1", "2", "3"}
    assert json.loads(run(paths[1], "--json").stdout)["files"] == list(map(str, paths))
    paths[2].unlink()
    done = run(paths[1])
    assert done.returncode == 0 and "not beside it: tiny-00003-of-00003.gguf" in done.stderr and "part 2 of 3" in done.stdout
