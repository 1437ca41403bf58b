"""Synthetic checkpoints have the tensors of the model they stand for, and convert."""

from __future__ import annotations

from pathlib import Path

import make_checkpoint
import make_synthetic
import numpy as np
import pytest
from sentencepiece import SentencePieceProcessor

import ggpy
from ggpy.converter.checkpoint import Checkpoint

from .run_tool import run_tool

SHAPE = make_synthetic.Shape(2, 256, 512, 4, 2, 2000, 10000.0, 128, tied=False)


@pytest.mark.parametrize("shard_bytes", [10**9, 10**6])
def test_it_converts_without_a_warning(tmp_path: Path, shard_bytes: int):
    folder = tmp_path / "Made"
    n_bytes = make_checkpoint.write(SHAPE, folder, shard_bytes=shard_bytes)
    shards = sorted(path.name for path in folder.glob("*.safetensors"))
    assert (shards == ["model.safetensors"]) == (shard_bytes > n_bytes) and sum((folder / name).stat().st_size for name in shards) > n_bytes
    report = ggpy.convert(folder, tmp_path / "out.gguf", "bf16")
    assert report.warnings == () and "texts give the same ids" in (report.tokenizer or "")
    assert {t.name: t.shape for t in report.tensors} == make_synthetic.tensors(SHAPE)
    with ggpy.open_gguf(tmp_path / "out.gguf") as file:
        gate, up = (file.tensors[f"blk.0.ffn_{name}.weight"].dequantize() for name in ("gate", "up"))
        assert not np.array_equal(gate, up) and gate.std() == pytest.approx(make_checkpoint.DEVIATION, rel=0.05)
        assert (file.tensors["output_norm.weight"].dequantize() == 1).all()


def test_the_vocabulary_is_of_the_size_asked_for_and_works(tmp_path: Path):
    processor = SentencePieceProcessor()
    processor.LoadFromSerializedProto(make_checkpoint.sentencepiece_model(128256))
    assert processor.GetPieceSize() == 128256 and len({processor.IdToPiece(i) for i in range(128256)}) == 128256
    ids = processor.EncodeAsIds("the quick fox, 42 é")
    assert processor.DecodeIds(ids) == "the quick fox, 42 é" and len(ids) < 19


def test_holes_take_no_room(tmp_path: Path):
    make_checkpoint.write(make_synthetic.SHAPES["7b"], tmp_path, holes=True)
    with Checkpoint(tmp_path) as checkpoint:
        assert sum(t.n_bytes for t in checkpoint.tensors.values()) == 2 * 6_738_415_616
        assert not checkpoint.tensors["lm_head.weight"].read(31999, 32000).any()
    assert sum(512 * path.stat().st_blocks for path in tmp_path.iterdir()) < 10**7
    assert len(list(tmp_path.glob("*.safetensors"))) == 3


def test_a_file_in_the_way_is_one_line(tmp_path: Path):
    (tmp_path / "x").write_bytes(b"")
    done = run_tool("make_checkpoint", "135m", tmp_path / "x", "--holes")
    assert done.returncode == 1 and done.stderr.startswith("make_checkpoint: error: ") and done.stderr.count("\n") == 1
