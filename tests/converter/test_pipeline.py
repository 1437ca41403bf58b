"""Conversion from end to end: bytes, types, determinism, refusals, and that a bad ending leaves nothing behind."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

import ggpy
from ggpy.blocks import BLOCKS, dequantize
from ggpy.converter import Progress, convert, proof, stream
from ggpy.converter.pipeline import default_output
from ggpy.converter.recipes import RECIPES, find_recipe
from ggpy.errors import CheckpointError, GGPyError, GGUFError
from ggpy.gguf import GGUFWriter, ValueType, open_gguf

from .checkpoints import CONFIG, random_weights, safetensors_bytes, stored, with_header, write_checkpoint

WIDE = CONFIG | {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2}
NORM, EMBEDDING = "model.norm.weight", "model.embed_tokens.weight"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of 256 and 512: every K-quant fits."""
    return write_checkpoint(tmp_path_factory.mktemp("wide") / "Wide", WIDE, dtype="BF16")


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("recipe", [name for name, recipe in RECIPES.items() if not recipe.needs_importance])
def test_every_recipe_holds_the_bytes_of_the_reference_encoders(
    checkpoint: Path, tmp_path: Path, recipe: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(stream, "CHUNK_VALUES", 10_000)  # many chunks a tensor, none of them of equal size
    report = convert(checkpoint, tmp_path / "out.gguf", recipe, measure_error=True)
    convert(checkpoint, tmp_path / "f32.gguf", "f32")
    with open_gguf(tmp_path / "out.gguf") as file, open_gguf(tmp_path / "f32.gguf") as exact:
        assert file.metadata["general.file_type"] == RECIPES[recipe].file_type
        for found in report.tensors:
            tensor, values = file.tensors[found.name], exact.tensors[found.name].dequantize()
            encode = tensor.format.encode
            assert encode is not None and tensor.format.name == found.format and tensor.n_bytes == found.n_bytes
            expected = encode(values.reshape(-1, tensor.format.block_values))
            np.testing.assert_array_equal(tensor.data.reshape(expected.shape), expected)
            error = np.linalg.norm(tensor.dequantize() - values) / np.linalg.norm(values)
            assert found.relative_rmse == pytest.approx(error, rel=1e-3, abs=1e-9)


def test_the_gguf_package_reads_it(checkpoint: Path, tmp_path: Path):
    peer = pytest.importorskip("gguf", reason="gguf is not installed (pip install -e '.[dev]')")
    report = convert(checkpoint, tmp_path / "out.gguf")
    tensors = {t.name: t for t in peer.GGUFReader(tmp_path / "out.gguf").tensors}
    with open_gguf(tmp_path / "out.gguf") as file:
        for found in report.tensors:
            theirs = tensors[found.name]
            assert theirs.tensor_type.name == found.format and tuple(reversed(theirs.shape)) == found.shape
            np.testing.assert_array_equal(
                peer.dequantize(theirs.data, theirs.tensor_type).ravel(), file.tensors[found.name].dequantize().ravel()
            )


def test_sharding_and_dtype_change_no_byte(checkpoint: Path, tmp_path: Path):
    weights = {name: (values.view("<u4") & 0xFFFF0000).view("<f4") for name, values in random_weights(WIDE).items()}
    convert(checkpoint, tmp_path / "a.gguf", verify="bytes")  # a certificate names the types of the source
    convert(write_checkpoint(tmp_path / "b" / "Wide", WIDE, weights, shards=4), tmp_path / "b.gguf", verify="bytes")
    assert digest(tmp_path / "a.gguf") == digest(tmp_path / "b.gguf")


@pytest.mark.parametrize("recipe", ["q4_k_m", "q8_0"])
def test_the_same_bytes_every_time(checkpoint: Path, tmp_path: Path, recipe: str):
    """Threads, hash seed, time zone, locale, threads of the linear algebra beneath NumPy: none of them may show."""
    expected = convert(checkpoint, tmp_path / "0.gguf", recipe, threads=1).path
    script = "import sys, ggpy; ggpy.convert(sys.argv[1], sys.argv[2], sys.argv[3], threads=int(sys.argv[4]))"
    surroundings = (
        (1, {"PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}),
        (2, {"PYTHONHASHSEED": "2", "LC_ALL": "C", "PYTHONUTF8": "0", "OPENBLAS_NUM_THREADS": "2"}),
        (3, {"PYTHONHASHSEED": "3", "LC_ALL": "tr_TR.UTF-8", "TZ": "America/St_Johns", "OPENBLAS_NUM_THREADS": "3"}),
    )
    for threads, changes in surroundings:
        command = [sys.executable, "-c", script, checkpoint, tmp_path / f"{threads}.gguf", recipe, str(threads)]
        subprocess.run(command, env=os.environ | {"PYTHONPATH": str(Path(ggpy.__file__).parents[1])} | changes, check=True)
        assert digest(tmp_path / f"{threads}.gguf") == digest(expected)


def test_requantizing_gives_what_converting_gives(checkpoint: Path, tmp_path: Path):
    convert(checkpoint, tmp_path / "f32.gguf", "f32")
    convert(checkpoint, tmp_path / "bf16.gguf", "bf16")
    for recipe in ("q4_k_m", "q8_0", "q5_0"):
        direct = convert(checkpoint, tmp_path / "direct.gguf", recipe, force=True)
        for source in ("f32", "bf16"):
            again = convert(tmp_path / f"{source}.gguf", tmp_path / "again.gguf", recipe, force=True)
            assert again.warnings == () and [t.format for t in again.tensors] == [t.format for t in direct.tensors]
            with open_gguf(direct.path) as a, open_gguf(again.path) as b:
                assert all(np.array_equal(a.tensors[name].data, b.tensors[name].data) for name in a.tensors)


def test_requantizing_keeps_metadata_to_the_byte(tmp_path: Path):
    kinds = {
        "general.architecture": ("novel", None),
        "general.alignment": (64, ValueType.UINT32),
        "novel.block_count": (1, ValueType.UINT64),
        "novel.numbers": (np.arange(5, dtype=np.int16), None),
        "novel.flags": ([True, False], None),
        "novel.nested": ([[1, 2], [3]], None),
        "novel.texts": (["ä", ""], None),
        "novel.double": (0.1, ValueType.FLOAT64),
        "general.file_type": (0, ValueType.INT32),
        "split.count": (1, ValueType.UINT16),
    }
    values = np.random.default_rng(0).standard_normal((3, 256), np.float32)
    with GGUFWriter(tmp_path / "a.gguf", alignment=64) as writer:
        for key, (value, kind) in kinds.items():
            writer.add(key, value, kind)
        writer.add_tensor("blk.0.ffn_up.weight", values.shape, BLOCKS["F32"])
        writer.add_tensor("positions", (4,), BLOCKS["I32"])
        writer.write_tensor("blk.0.ffn_up.weight", values)
        writer.write_tensor("positions", np.arange(4, dtype=np.int32))
    report = convert(tmp_path / "a.gguf", tmp_path / "b.gguf", "q6_k")
    assert "novel is new to ggpy" in report.warnings[0]
    with open_gguf(tmp_path / "a.gguf") as a, open_gguf(tmp_path / "b.gguf") as b:
        kept = [key for key in kinds if key not in ("general.file_type", "split.count")]
        assert set(b.metadata) == {*kept, "general.file_type", "general.quantization_version", "ggpy.tensor_crc32"}
        for key in kept:
            assert (b.metadata.raw(key), b.metadata.value_type(key)) == (a.metadata.raw(key), a.metadata.value_type(key))
        assert (b.metadata["general.file_type"], b.metadata["general.quantization_version"]) == (18, 2)
        assert b.alignment == 64 and b.tensors["positions"].format.name == "I32"
        np.testing.assert_array_equal(b.tensors["positions"].data, a.tensors["positions"].data)


def test_quantizing_twice_is_said(checkpoint: Path, tmp_path: Path):
    convert(checkpoint, tmp_path / "q8.gguf", "q8_0", verify="bytes")
    report = convert(tmp_path / "q8.gguf", tmp_path / "q4.gguf", "q4_k_m")
    assert "is Q8_0 already" in report.warnings[0]
    same = convert(tmp_path / "q8.gguf", tmp_path / "same.gguf", "q8_0", measure_error=True, verify="bytes")
    assert same.warnings == () and digest(same.path) == digest(tmp_path / "q8.gguf")
    with pytest.raises(CheckpointError, match="strict"):
        convert(tmp_path / "q8.gguf", tmp_path / "strict.gguf", "q4_k_m", strict=True)


def test_what_cannot_be_decoded_is_refused(tmp_path: Path):
    with GGUFWriter(tmp_path / "a.gguf") as writer:
        writer.add("general.architecture", "llama")
        writer.add_tensor("blk.0.ffn_up.weight", (2, 256), BLOCKS["Q8_1"])
        writer.write_tensor("blk.0.ffn_up.weight", bytes(2 * BLOCKS["Q8_1"].row_bytes(256)))
    with pytest.raises(GGPyError, match="Q8_1, which ggpy cannot decode"):
        convert(tmp_path / "a.gguf", tmp_path / "b.gguf", "q8_0")
    assert left_in(tmp_path) == ["a.gguf"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("recipe", ["f32", "f16", "q8_0", "q4_k_m"])
def test_weights_that_are_no_numbers_are_refused_with_their_index(tmp_path: Path, value: float, recipe: str):
    weights = random_weights(CONFIG)
    weights["model.layers.1.mlp.up_proj.weight"][95, 3] = value
    folder = write_checkpoint(tmp_path / "model", weights=weights)
    with pytest.raises(CheckpointError, match=rf"model\.layers\.1\.mlp\.up_proj\.weight is {value} at index \[95, 3\]"):
        convert(folder, tmp_path / "out.gguf", recipe)
    assert left_in(tmp_path) == ["model"]


def test_values_beyond_half_precision_get_a_wider_type(tmp_path: Path):
    weights = random_weights(CONFIG)
    weights["model.layers.0.mlp.up_proj.weight"][0, 0] = 1e30
    weights["model.layers.1.mlp.up_proj.weight"] *= 1e-30
    report = convert(write_checkpoint(tmp_path / "f32", weights=weights), tmp_path / "out.gguf", "q4_0", measure_error=True)
    wider = {t.name: (t.format, t.wanted) for t in report.tensors if t.format == "F32" and len(t.shape) > 1}
    assert wider == {f"blk.{i}.ffn_up.weight": ("F32", "Q4_0") for i in range(2)}
    assert "overflow the half-precision numbers of Q4_0" in report.warnings[0]
    assert "too small for the half-precision numbers of Q4_0" in report.warnings[1]
    report = convert(write_checkpoint(tmp_path / "bf16", weights=weights, dtype="BF16"), tmp_path / "out.gguf", "f16", force=True)
    assert {t.format for t in report.tensors if t.wanted} == {"BF16"}


def test_rows_of_zeros_need_no_wider_type(tmp_path: Path):
    weights = random_weights(CONFIG)
    weights["model.layers.0.mlp.up_proj.weight"][:] = 0
    report = convert(write_checkpoint(tmp_path / "model", weights=weights), tmp_path / "out.gguf", "q4_0")
    assert not any(t.format == "F32" and len(t.shape) > 1 for t in report.tensors)


def test_an_existing_target_is_kept_unless_forced(checkpoint: Path, tmp_path: Path):
    target = tmp_path / "out.gguf"
    target.write_bytes(b"mine")
    with pytest.raises(GGPyError, match="exists already"):
        convert(checkpoint, target, "q8_0")
    assert target.read_bytes() == b"mine" and left_in(tmp_path) == ["out.gguf"]
    convert(checkpoint, target, "q8_0", force=True)
    open_gguf(target).close()


@pytest.mark.parametrize("how", ["itself", "symbolic link", "hard link"])
def test_the_input_is_never_the_output(checkpoint: Path, tmp_path: Path, how: str):
    source, target = convert(checkpoint, tmp_path / "a.gguf", "f16").path, tmp_path / "b.gguf"
    if how == "symbolic link":
        target.symlink_to(source)
    elif how == "hard link":
        target.hardlink_to(source)
    else:
        target = source
    before = digest(source)
    with pytest.raises(GGPyError, match="is the input"):
        convert(source, target, "q8_0", force=True)
    with pytest.raises(GGPyError, match="is the input"):
        convert(checkpoint, checkpoint / "model.safetensors", "q8_0", force=True)
    assert digest(source) == before


def test_faults_of_arguments(checkpoint: Path, tmp_path: Path):
    with pytest.raises(GGPyError, match="'q3' is not one ggpy writes"):
        convert(checkpoint, tmp_path / "out.gguf", "q3")
    with pytest.raises(GGUFError, match="No such file"):
        convert(tmp_path / "nothing", tmp_path / "out.gguf")
    with pytest.raises(GGPyError, match="No such file"):
        convert(checkpoint, tmp_path / "nowhere" / "out.gguf")
    assert left_in(tmp_path) == []


def test_the_default_name(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    first = convert(checkpoint, type="q8_0").path
    second = convert(first, type="Q4_K").path
    assert (first, second) == (Path("Wide-Q8_0.gguf"), Path("Wide-Q4_K_M.gguf"))
    recipe = find_recipe("q8_0")
    assert default_output("Llama-3.2-1B-Instruct.f16", recipe) == Path("Llama-3.2-1B-Instruct-Q8_0.gguf")
    assert default_output("model-7", recipe) == Path("model-7-Q8_0.gguf")


def test_progress_counts_every_weight_and_byte(checkpoint: Path, tmp_path: Path):
    seen: list[Progress] = []
    report = convert(checkpoint, tmp_path / "out.gguf", "q8_0", on_progress=seen.append)
    encoded, verified = ([p for p in seen if p.stage == stage] for stage in ("encode", "verify"))
    assert [p.done for p in encoded] == sorted(p.done for p in encoded)
    assert encoded[-1].done == encoded[-1].total == report.n_values
    assert verified[-1].done == report.n_bytes and {p.what for p in encoded} == {t.name for t in report.tensors}


def test_the_report_adds_up(checkpoint: Path, tmp_path: Path):
    report = convert(checkpoint, tmp_path / "out.gguf", "q4_k_m", measure_error=True)
    assert report.file_bytes == report.path.stat().st_size and report.verified and report.recipe == "Q4_K_M"
    assert sum(kind.n_bytes for kind in report.kinds()) == report.n_bytes == sum(t.n_bytes for t in report.tensors)
    down = next(kind for kind in report.kinds() if kind.kind == "ffn_down")
    assert down.formats == {"Q4_K": 2, "Q6_K": 2} and down.bits_per_weight == (4.5 + 6.5625) / 2
    table = str(report)
    assert "ffn_down" in table and "2 Q4_K, 2 Q6_K" in table and "5.531" in table and "read back" in table
    assert "350 texts give the same ids" in (report.tokenizer or "")
    assert report.error_table().splitlines()[1].split()[3].endswith("%")
    assert report.to_json()["tensors"][0]["relative_rmse"] == report.tensors[0].relative_rmse


def test_fallbacks_are_listed(tmp_path: Path):
    report = convert(write_checkpoint(tmp_path / "model"), tmp_path / "out.gguf", "q4_k_m")
    assert {(t.format, t.wanted) for t in report.fallbacks} == {("Q5_0", "Q4_K"), ("Q8_0", "Q6_K")}
    assert "are Q5_0, not Q4_K" in str(report)


def test_a_byte_that_changes_behind_the_writers_back_is_found(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    verify = proof.verify_file

    def flip_and_verify(path: Path, *others) -> None:
        raw = bytearray(path.read_bytes())
        raw[-5000] ^= 1
        path.write_bytes(raw)
        verify(path, *others)

    monkeypatch.setattr(proof, "verify_file", flip_and_verify)
    (tmp_path / "out.gguf").write_bytes(b"mine")
    with pytest.raises(GGPyError, match="reads back different"):
        convert(checkpoint, tmp_path / "out.gguf", "q8_0", force=True)
    assert left_in(tmp_path) == ["out.gguf"] and (tmp_path / "out.gguf").read_bytes() == b"mine"


def test_a_shard_that_shrinks_meanwhile_ends_the_conversion(tmp_path: Path):
    folder = write_checkpoint(tmp_path / "model", WIDE)
    shrunk = False

    def shrink(progress: Progress) -> None:
        nonlocal shrunk
        if progress.stage == "encode" and not shrunk:
            os.truncate(folder / "model.safetensors", 100_000)
            shrunk = True

    with pytest.raises(CheckpointError, match="cut short while being read"):
        convert(folder, tmp_path / "out.gguf", "q8_0", threads=1, on_progress=shrink)
    assert left_in(tmp_path) == ["model"]


def test_the_checkpoint_directory_is_left_alone(tmp_path: Path):
    folder = write_checkpoint(tmp_path / "model")
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}
    convert(folder, tmp_path / "out.gguf", "f16")
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")} == before


def test_experts_and_three_dimensions(tmp_path: Path):
    """Tensors of stacked matrices are encoded row by row like any other."""
    values = np.random.default_rng(0).standard_normal((3, 5, 256), np.float32)
    with GGUFWriter(tmp_path / "a.gguf") as writer:
        writer.add("general.architecture", "llama")
        writer.add("llama.block_count", 1)
        writer.add_tensor("blk.0.ffn_up_exps.weight", values.shape, BLOCKS["F32"])
        writer.write_tensor("blk.0.ffn_up_exps.weight", values)
    convert(tmp_path / "a.gguf", tmp_path / "b.gguf", "q4_k_m")
    with open_gguf(tmp_path / "b.gguf") as file:
        tensor, encode = file.tensors["blk.0.ffn_up_exps.weight"], BLOCKS["Q4_K"].encode
        assert encode is not None and tensor.shape == values.shape
        expected = dequantize(encode(values.reshape(-1, 256)), BLOCKS["Q4_K"])
        np.testing.assert_array_equal(tensor.dequantize(), expected.reshape(values.shape))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells a process's peak")
def test_memory_does_not_grow_with_the_model(tmp_path: Path):
    """An embedding of 600 MB, a hole in the file, takes no more than a few chunks."""
    config = CONFIG | {"vocab_size": 300_000, "hidden_size": 1024, "num_attention_heads": 16, "tie_word_embeddings": True}
    folder = write_checkpoint(tmp_path / "model")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    write_with_hole(folder / "model.safetensors", random_weights(config | {"vocab_size": 1}), (300_000, 1024))
    script = (  # the system's other figure, ru_maxrss, begins with that of the process that started this one
        "import sys, ggpy; ggpy.convert(sys.argv[1], sys.argv[2], 'q8_0', threads=2);"
        "print(next(int(line.split()[1]) // 1024 for line in open('/proc/self/status', encoding='utf-8') if line.startswith('VmHWM')))"
    )
    command = [sys.executable, "-c", script, folder, tmp_path / "out.gguf"]
    done = subprocess.run(command, cwd=Path(ggpy.__file__).parents[1], check=True, capture_output=True, text=True, encoding="utf-8")
    assert int(done.stdout) < 500  # MiB, most of it for a vocabulary of 300 000 tokens


def write_with_hole(path: Path, weights: dict[str, np.ndarray], shape: tuple[int, int]) -> None:
    """A BF16 safetensors file whose embedding of `shape` comes last and is all zeros that were never written."""
    entries = {name: stored(values, "BF16") for name, values in weights.items() if name != EMBEDDING}
    n_bytes = 2 * math.prod(shape)
    raw = safetensors_bytes(entries)
    n_header = int.from_bytes(raw[:8], "little")
    header, end = json.loads(raw[8 : 8 + n_header]), len(raw) - 8 - n_header
    header[EMBEDDING] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + n_bytes]}
    path.write_bytes(with_header(json.dumps(header).encode(), raw[8 + n_header :]))
    os.truncate(path, path.stat().st_size + n_bytes)


def test_a_safetensors_file_without_tensors_lacks_all(tmp_path: Path):
    folder = write_checkpoint(tmp_path / "model")
    (folder / "model.safetensors").write_bytes(safetensors_bytes({}))
    with pytest.raises(CheckpointError, match="20 tensors are missing"):
        convert(folder, tmp_path / "out.gguf")
