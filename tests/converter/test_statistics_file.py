"""Files of statistics: read by others, merged to the same bytes, refused where they are damaged."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from ggpy.cli.calibrate import main
from ggpy.converter.count import count_inputs
from ggpy.converter.imatrix import read_imatrix
from ggpy.converter.statistics_file import INPUTS, StatisticsFile, merge_statistics
from ggpy.errors import GGPyError
from ggpy.gguf import GGUFWriter, open_gguf
from tests.runtime.tiny import write_llama

PARTS = ("To be, or not to be, that is the question. " * 40, "ABC " * 99, "It was the best of times, it was the worst of times. " * 9)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, three texts and the statistics of each and of all."""
    folder = tmp_path_factory.mktemp("statistics")
    write_llama(folder / "model.gguf", experts=3, d_model=64, d_ff=96)
    write_llama(folder / "other.gguf", d_model=32, d_ff=64)
    (folder / "texts").mkdir()
    for number, text in enumerate(PARTS):
        (folder / "texts" / f"{number}.txt").write_text(text, encoding="utf-8")
        count(folder, f"texts/{number}.txt", f"{number}.gguf", threads=1 + number % 2)
    count(folder, "texts", "all.gguf", threads=2)
    return folder


def count(folder: Path, text: str, out: str, model: str = "model.gguf", **options: object) -> Path:
    settings = {"hessians": True, "chunk_tokens": 32} | options
    count_inputs(folder / model, folder / text, folder / out, **settings)  # pyright: ignore[reportArgumentType]
    return folder / out


def test_parts_in_whatever_order_make_the_bytes_of_the_whole(folder: Path, tmp_path: Path):
    whole = (folder / "all.gguf").read_bytes()
    for order in itertools.permutations(range(3)):
        out = tmp_path / f"{order}.gguf"
        merge_statistics([folder / f"{number}.gguf" for number in order], out)
        assert out.read_bytes() == whole
    merge_statistics([folder / "2.gguf", folder / "0.gguf"], tmp_path / "some.gguf")
    merge_statistics([folder / "1.gguf", tmp_path / "some.gguf"], tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == whole


def test_it_is_an_importance_matrix(folder: Path):
    matrix = read_imatrix(folder / "all.gguf")
    assert matrix.datasets == ("0.txt", "1.txt", "2.txt")
    assert matrix.chunks == sum(read_imatrix(folder / f"{number}.gguf").chunks for number in range(3)) == 117
    assert matrix.chunk_tokens == 32
    with StatisticsFile(folder / "all.gguf") as file:
        for counts in file.counts:
            for number in range(len(counts.squares)):
                gram = file.gram(counts, number)
                assert gram is not None
                for name in counts.names:
                    np.testing.assert_allclose(matrix.entries[name].importance[number], gram.importance, rtol=1e-5, atol=1e-6)
    assert "output.weight" not in matrix.entries
    assert matrix.entries["blk.0.ffn_down_exps.weight"].sums.shape == (3, 96)


def test_what_does_not_belong_together_is_not_merged(folder: Path, tmp_path: Path):
    other = count(folder, "texts/0.txt", "other-0.gguf", "other.gguf", force=True)
    plain = count(folder, "texts/0.txt", "plain.gguf", hessians=False, force=True)
    long = count(folder, "texts/0.txt", "long.gguf", chunk_tokens=64, force=True)
    for path, message in ((other, "different models"), (plain, "only one of them has Hessians"), (long, "chunks of 64 and 32 tokens")):
        with pytest.raises(GGPyError, match=message):
            merge_statistics([folder / "0.gguf", path], tmp_path / "out.gguf")
    assert not list(tmp_path.iterdir())
    with pytest.raises(GGPyError, match="exists"):
        merge_statistics([folder / "0.gguf", folder / "1.gguf"], folder / "2.gguf")


def test_damaged_files_are_refused(folder: Path, tmp_path: Path):
    def rewritten(name: str, change: str) -> Path:
        path = tmp_path / f"{name}.gguf"
        with open_gguf(folder / "0.gguf") as file, GGUFWriter(path, force=True) as writer:
            for key in file.metadata:
                if not (change == "key" and key == INPUTS):
                    writer.copy(file.metadata, key)
            for tensor in file.tensors.values():
                shape = (*tensor.shape[:-1], tensor.shape[-1] - 1) if change == "shape" and tensor.name.endswith(".gram") else tensor.shape
                if not (change == "tensor" and tensor.name.endswith(".squares")):
                    writer.add_tensor(tensor.name, shape, tensor.format)
            for tensor in file.tensors.values():
                data = np.array(tensor.data)
                if change == "shape" and tensor.name.endswith(".gram"):
                    data = data[:, :-8]
                if change == "large" and tensor.name.endswith(".squares"):
                    data[0, :8] = 127
                if change == "negative" and tensor.name.endswith(".squares"):
                    data[0, :8] = 255
                if not (change == "tensor" and tensor.name.endswith(".squares")):
                    writer.write_tensor(tensor.name, data)
        return path

    for change, message in (
        ("key", "key ggpy.statistics.inputs is missing"),
        ("tensor", "has no .squares"),
        ("shape", "expected I64"),
        ("large", "sums of squares"),
        ("negative", "sums of squares"),
    ):
        with pytest.raises(GGPyError, match=message):
            StatisticsFile(rewritten(change, change))


def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out.gguf"
    command = [str(folder / "model.gguf"), str(folder / "texts" / "0.txt"), "-o", str(out), "--ctx", "32", "--chunks", "3"]
    assert main(command) == 0
    assert "over 96 tokens of 1 text" in capsys.readouterr().out
    assert read_imatrix(out).chunks == 3
    assert main(command) == 1
    assert "exists already" in capsys.readouterr().err
    assert main([*command, "--force", "--ctx", "512"]) == 1
    assert "context ends at 256" in capsys.readouterr().err
    assert main(["--merge", str(out), "-o", str(tmp_path / "merged.gguf")]) == 1
    assert "two files or more" in capsys.readouterr().err
    assert main(["--merge", str(out), str(out), "-o", str(tmp_path / "merged.gguf")]) == 0
    assert read_imatrix(tmp_path / "merged.gguf").chunks == 6
    assert main(["--merge", str(out), str(folder / "model.gguf"), "-o", str(tmp_path / "m.gguf")]) == 1
    assert "no statistics of ggpy calibrate" in capsys.readouterr().err
    for wrong in (["-o", "x"], ["a", "-o", "x"], ["a", "b", "--merge", "c", "-o", "x"]):
        with pytest.raises(SystemExit):
            main(wrong)
