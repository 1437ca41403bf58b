"""What is written is read back, byte for byte; what GGUF cannot hold is refused before a byte is written."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from gguf_bytes import ARRAY, I32, STRING, U32, array, entry, gguf, string, tensor, u32
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ggpy.blocks import BLOCKS
from ggpy.errors import GGPyError, GGUFError
from ggpy.gguf import GGUFFile, GGUFWriter, ValueType, open_gguf

GOOD = sorted((Path(__file__).resolve().parents[2] / "formats" / "gguf" / "good").glob("*.gguf"))
F32_FORMAT = BLOCKS["F32"]


def rewrite(file: GGUFFile, path: Path) -> None:
    """The same content, written anew."""
    with GGUFWriter(path, alignment=file.alignment, force=True) as writer:
        for key in file.metadata:
            writer.copy(file.metadata, key)
        for t in file.tensors.values():
            writer.add_tensor(t.name, t.shape, t.format)
        for t in file.tensors.values():
            writer.write_tensor(t.name, t.data)


def contents(file: GGUFFile) -> tuple:
    keys = [(key, file.metadata.value_type(key), file.metadata.raw(key)) for key in file.metadata]
    return keys, [(t.name, t.shape, t.format.name, t.data.tobytes()) for t in file.tensors.values()]


@pytest.mark.parametrize("path", [p for p in GOOD if p.stem != "shapes"], ids=lambda p: p.stem)
def test_rewriting_keeps_everything(path: Path, tmp_path: Path):
    with open_gguf(path) as file:
        rewrite(file, tmp_path / "again.gguf")
        with open_gguf(tmp_path / "again.gguf") as again:
            assert contents(again) == contents(file)
            assert (again.version, again.alignment) == (3, file.alignment)


def test_exact_bytes(tmp_path: Path):
    path = tmp_path / "m.gguf"
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    with GGUFWriter(path) as writer:
        writer.add("name", "llama")
        writer.add("ids", [1, -2])
        writer.add_tensor("t", values.shape, F32_FORMAT)
        writer.add_tensor("u", (1,), F32_FORMAT)
        assert writer.file_size == 256
        writer.write_tensor("u", values[0, 1:2])
        writer.write_tensor("t", [values[0].tobytes(), bytearray(), memoryview(values[1])])
        assert writer.file_size == 256
    ids = array(I32, 2, b"\1\0\0\0\xfe\xff\xff\xff")
    data = values.tobytes() + b"\0" * 8 + values[0, 1:2].tobytes() + b"\0" * 28
    entries = [entry("name", STRING, string("llama")), entry("ids", ARRAY, ids)]
    assert path.read_bytes() == gguf(entries, [tensor("t", [3, 2], 0, 0), tensor("u", [1], 0, 32)], data)


def test_alignment_is_declared(tmp_path: Path):
    path = tmp_path / "m.gguf"
    with GGUFWriter(path, alignment=256) as writer:
        writer.add("general.alignment", 256)
        writer.add_tensor("t", (1,), F32_FORMAT)
        writer.write_tensor("t", np.ones(1, np.float32))
    alignment = entry("general.alignment", U32, u32(256))
    assert path.read_bytes() == gguf([alignment], [tensor("t", [1], 0, 0)], b"\0\0\x80?" + b"\0" * 252, alignment=256)
    for bad in (0, 3, -32, 2**32):
        with pytest.raises(ValueError, match=f"alignment {bad} is not a power of two"):
            GGUFWriter(path, alignment=bad)
    with pytest.raises(ValueError, match="does not say 32"), GGUFWriter(tmp_path / "n.gguf") as writer:
        writer.add("general.alignment", 64)


@pytest.mark.parametrize(
    "value, kind, element",
    [
        ("text", ValueType.STRING, None),
        (True, ValueType.BOOL, None),
        (0, ValueType.UINT32, None),
        (2**32 - 1, ValueType.UINT32, None),
        (2**32, ValueType.UINT64, None),
        (-1, ValueType.INT32, None),
        (-(2**31) - 1, ValueType.INT64, None),
        (0.5, ValueType.FLOAT32, None),
        (math.inf, ValueType.FLOAT32, None),
        (np.int8(-1), ValueType.INT8, None),
        (np.float64(0.1), ValueType.FLOAT64, None),
        (np.float16(0.5), ValueType.FLOAT32, None),
        (np.bool(True), ValueType.BOOL, None),
        (["a", ""], ValueType.ARRAY, ValueType.STRING),
        ([1, 2], ValueType.ARRAY, ValueType.INT32),
        ([2**31], ValueType.ARRAY, ValueType.UINT32),
        ([2**63], ValueType.ARRAY, ValueType.UINT64),
        ([1, 0.5], ValueType.ARRAY, ValueType.FLOAT32),
        ((True, False), ValueType.ARRAY, ValueType.BOOL),
        ([np.int16(3), np.int16(4)], ValueType.ARRAY, ValueType.INT16),
        (np.arange(3, dtype=np.uint16), ValueType.ARRAY, ValueType.UINT16),
        (np.arange(3, dtype=">f4"), ValueType.ARRAY, ValueType.FLOAT32),
        (np.array([True, False]), ValueType.ARRAY, ValueType.BOOL),
        ([[1, 2], ["x"], [[True]]], ValueType.ARRAY, ValueType.ARRAY),
    ],
)
def test_types_chosen_for_values(value, kind: ValueType, element: ValueType | None, tmp_path: Path):
    with GGUFWriter(tmp_path / "m.gguf") as writer:
        writer.add("k", value)
    with open_gguf(tmp_path / "m.gguf") as file:
        assert (file.metadata.value_type("k"), file.metadata.element_type("k")) == (kind, element)
        got = file.metadata["k"]
        if isinstance(got, np.ndarray):
            assert got.tolist() == list(np.asarray(value).tolist())
        elif element is ValueType.ARRAY:
            assert [list(v) for v in got] == value
        else:
            assert got == (list(value) if element else value)


@pytest.mark.parametrize("kind", [kind for kind in ValueType if kind is not ValueType.ARRAY])
def test_type_given(kind: ValueType, tmp_path: Path):
    value = "1" if kind is ValueType.STRING else kind is ValueType.BOOL or 1
    with GGUFWriter(tmp_path / "m.gguf") as writer:
        writer.add("scalar", value, kind)
        writer.add("list", [value, value], kind)
        writer.add("empty", [], kind)
    with open_gguf(tmp_path / "m.gguf") as file:
        assert file.metadata["scalar"] == value and file.metadata.value_type("scalar") is kind
        assert list(file.metadata["list"]) == [value, value] and file.metadata.element_type("list") is kind
        assert len(file.metadata["empty"]) == 0 and file.metadata.element_type("empty") is kind


def endless() -> list:
    value: list = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value, kind, complaint",
    [
        (None, None, "no value type holds NoneType"),
        ({}, None, "no value type holds dict"),
        (b"raw", None, "no value type holds bytes"),
        ([], None, "an empty list does not say"),
        ([1, "a"], None, "no value type holds int, str"),
        (2**64, None, "does not fit 64 bits"),
        ([-1, 2**63], None, "does not fit 64 bits"),
        (256, ValueType.UINT8, "256 does not fit uint8, which holds 0 to 255"),
        (-1, ValueType.UINT32, "-1 does not fit uint32"),
        ([1, 2**31], ValueType.INT32, "2147483648 does not fit int32"),
        (1e39, None, "1e+39 does not fit float32"),
        (10**400, ValueType.FLOAT64, "does not fit float64"),
        (1.0, ValueType.UINT32, "1.0 is not of type uint32"),
        (True, ValueType.UINT32, "True is not of type uint32"),
        (1, ValueType.BOOL, "1 is not of type bool"),
        ("1", ValueType.UINT32, "'1' is not of type uint32"),
        (1, ValueType.STRING, "1 is not of type string"),
        ([1], ValueType.STRING, "a list of strings holds something else"),
        (1, ValueType.ARRAY, "1 is not of type array"),
        (np.zeros((2, 2)), None, "an array of shape (2, 2) has no place in metadata"),
        (np.zeros(2, complex), None, "no value type holds arrays of complex128"),
        ("\ud800", None, "lone surrogate (U+D800)"),
        (["ok", "a\udfff"], None, "lone surrogate (U+DFFF)"),
        (endless(), None, "nested deeper than 16"),
    ],
)
def test_values_refused(value, kind: ValueType | None, complaint: str, tmp_path: Path):
    with pytest.raises(ValueError) as caught, GGUFWriter(tmp_path / "m.gguf") as writer:
        writer.add("k", value, kind)
    assert str(caught.value).startswith("key 'k': ") and complaint in str(caught.value)
    assert not list(tmp_path.iterdir())


def declare_twice(w: GGUFWriter) -> None:
    w.add("k", 1)
    w.add("k", 1)


def tensor_twice(w: GGUFWriter) -> None:
    w.add_tensor("t", (1,), F32_FORMAT)
    w.add_tensor("t", (1,), F32_FORMAT)


def written(w: GGUFWriter) -> GGUFWriter:
    w.add_tensor("t", (4,), F32_FORMAT)
    w.write_tensor("t", np.zeros(4, np.float32))
    return w


def declared(w: GGUFWriter) -> GGUFWriter:
    w.add_tensor("t", (4,), F32_FORMAT)
    return w


@pytest.mark.parametrize(
    "misuse, complaint",
    [
        (declare_twice, "key 'k' is declared twice"),
        (tensor_twice, "tensor 't' is declared twice"),
        (lambda w: w.add("", 1), "is empty or longer"),
        (lambda w: w.add("k" * 65536, 1), "is empty or longer than 65535 bytes"),
        (lambda w: w.add_tensor("n" * 64, (1,), F32_FORMAT), "longer than the 63 bytes"),
        (lambda w: w.add_tensor("t", (), F32_FORMAT), r"shape \(\) is not 1 to 4"),
        (lambda w: w.add_tensor("t", (1,) * 5, F32_FORMAT), "is not 1 to 4 dimensions"),
        (lambda w: w.add_tensor("t", (-1,), F32_FORMAT), "is not 1 to 4 dimensions"),
        (lambda w: w.add_tensor("t", (2**31, 2**31), F32_FORMAT), "at most 2\\^60 values"),
        (lambda w: w.add_tensor("t", (32, 8), BLOCKS["Q4_K"]), "tensor 't': a row of 8 values is not a whole number of Q4_K blocks"),
        (lambda w: w.write_tensor("t", b""), "tensor 't' is not declared"),
        (lambda w: written(w).write_tensor("t", b"\0" * 16), "tensor 't' is written already"),
        (lambda w: written(w).add("k", 1), "the header is written"),
        (lambda w: written(w).add_tensor("u", (1,), F32_FORMAT), "the header is written"),
        (lambda w: declared(w).write_tensor("t", b"\0" * 15), "has 16 bytes; only 15 were given"),
        (lambda w: declared(w).write_tensor("t", b"\0" * 17), "has 16 bytes; 17 were given"),
        (lambda w: declared(w).write_tensor("t", (b"\0" * 9 for _ in range(2))), "has 16 bytes; 18 were given"),
        (lambda w: declared(w).write_tensor("t", np.zeros(2, np.float64)), "F32 data is given as uint8 blocks or float32, not float64"),
        (lambda w: declared(w).write_tensor("t", np.zeros(4, np.int32)), "not int32"),
        (declared, "1 declared tensors were not written, the first of them 't'"),
    ],
)
def test_misuse(misuse, complaint: str, tmp_path: Path):
    with pytest.raises(ValueError, match=complaint), GGUFWriter(tmp_path / "m.gguf") as writer:
        misuse(writer)
    assert not list(tmp_path.iterdir())


def test_use_without_with(tmp_path: Path):
    writer = declared(GGUFWriter(tmp_path / "m.gguf"))
    with pytest.raises(ValueError, match="`with` block"):
        writer.write_tensor("t", b"\0" * 16)


def test_arrays_that_are_not_contiguous(tmp_path: Path):
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    with GGUFWriter(tmp_path / "m.gguf") as writer:
        writer.add_tensor("t", (4, 3), F32_FORMAT)
        writer.write_tensor("t", values.T)
    with open_gguf(tmp_path / "m.gguf") as file:
        assert np.array_equal(file.tensors["t"].dequantize(), values.T)


def test_views_are_read_only_and_outlive_the_file(tmp_path: Path):
    with GGUFWriter(tmp_path / "m.gguf") as writer:
        declared(writer).write_tensor("t", np.arange(4, dtype=np.float32))
        del writer
    file = open_gguf(tmp_path / "m.gguf")
    view = file.tensors["t"].data
    assert view.shape == (1, 16) and not view.flags.writeable and not view.flags.owndata
    file.close()
    file.close()
    assert file.closed
    assert view.view(np.float32).tolist() == [[0.0, 1.0, 2.0, 3.0]]
    for use in (lambda: file.tensors["t"].data, file.check_unchanged):
        with pytest.raises(GGUFError, match="the file is closed"):
            use()


def test_changes_under_the_map_are_noticed(tmp_path: Path):
    path = tmp_path / "m.gguf"
    with GGUFWriter(path) as writer:
        written(writer)
    with open_gguf(path) as file:
        file.check_unchanged()
        with GGUFWriter(path, force=True) as writer:
            written(writer)
        file.check_unchanged()
    with open_gguf(path) as file, path.open("r+b") as other:
        other.truncate(90)
        with pytest.raises(GGUFError, match=r"changed while it was open \(it had 96 bytes and has 90\)"):
            file.check_unchanged()


scalars = st.one_of(st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(width=32), st.text(st.characters(exclude_categories=["Cs"])))
lists = st.one_of(
    st.lists(st.booleans(), min_size=1),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1),
    st.lists(st.floats(width=32), min_size=1),
    st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1),
)
nested = st.recursive(lists, lambda inner: st.lists(inner, min_size=1, max_size=3), max_leaves=5)
keys = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(lambda k: k != "general.alignment")


def same(a, b) -> bool:
    if isinstance(a, np.ndarray | list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b or (isinstance(a, float | np.floating) and np.isnan(a) and np.isnan(b)))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(keys, st.one_of(scalars, nested), max_size=6),
    st.dictionaries(keys.filter(lambda k: len(k.encode()) < 64), st.lists(st.integers(0, 3), min_size=1, max_size=4), max_size=4),
    st.sampled_from([1, 2, 16, 32, 128]),
    st.randoms(use_true_random=False),
)
def test_round_trip(tmp_path: Path, values: dict, shapes: dict, alignment: int, random):
    path = tmp_path / "m.gguf"
    arrays = {name: np.frombuffer(random.randbytes(4 * math.prod(shape)), np.uint8) for name, shape in shapes.items()}
    with GGUFWriter(path, alignment=alignment, force=True) as writer:
        for key, value in values.items():
            writer.add(key, value)
        for name, shape in shapes.items():
            writer.add_tensor(name, shape, F32_FORMAT)
        for name in random.sample(list(arrays), len(arrays)):
            writer.write_tensor(name, arrays[name])
    with open_gguf(path) as file:
        assert all(same(file.metadata[key], value) for key, value in values.items())
        assert {name: (list(t.shape), t.data.tobytes()) for name, t in file.tensors.items()} == {
            name: (shape, arrays[name].tobytes()) for name, shape in shapes.items()
        }
        rewrite(file, tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == path.read_bytes()


def test_targets(tmp_path: Path):
    def write(path: Path, **options) -> None:
        with GGUFWriter(path, **options) as writer:
            written(writer)

    path = tmp_path / "m.gguf"
    write(path)
    first = path.read_bytes()
    with pytest.raises(GGPyError, match="exists already; name another output, or replace it with --force"):
        write(path)
    path.write_bytes(b"old")
    write(path, force=True)
    assert path.read_bytes() == first
    for other, complaint in ((tmp_path, "is not a regular file"), (Path("/dev/null"), "is not a regular file")):
        with pytest.raises(GGPyError, match=complaint):
            write(other, force=True)
    with pytest.raises(GGPyError, match="No such file or directory"):
        write(tmp_path / "absent" / "m.gguf")
    with pytest.raises(GGPyError, match="null byte"):
        write(tmp_path / "a\0b")
    link = tmp_path / "link.gguf"
    link.symlink_to("nowhere.gguf")
    with pytest.raises(GGPyError, match="exists already"):
        write(link)
    write(link, force=True)
    assert not link.is_symlink() and link.read_bytes() == first
    write(tmp_path / ("n" * 250 + ".gguf"))
    assert sorted(p.name[:4] for p in tmp_path.iterdir()) == ["link", "m.gg", "nnnn"]


def test_mode_follows_the_umask(tmp_path: Path):
    with GGUFWriter(tmp_path / "m.gguf") as writer:
        written(writer)
    (tmp_path / "plain").touch()
    assert (tmp_path / "m.gguf").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_more_than_a_reader_accepts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for limit, value in (("MAX_ENTRIES", 3), ("MAX_METADATA_BYTES", 60)):
        with monkeypatch.context() as patch:
            patch.setattr("ggpy.gguf.writer." + limit, value)
            with (
                pytest.raises(ValueError, match="3 keys and 0 tensors take 66 bytes before the data"),
                GGUFWriter(tmp_path / "m.gguf") as writer,
            ):
                for key in "abc":
                    writer.add(key, True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("n_tensors", [0, 1])
def test_unfinished_file_reads_back(n_tensors: int, tmp_path: Path):
    with GGUFWriter(tmp_path / "m.gguf") as writer:
        writer.add("general.architecture", "llama")
        if n_tensors:
            written(writer)
        with open_gguf(writer.partial) as file:
            assert (file.metadata["general.architecture"], len(file.tensors)) == ("llama", n_tensors)
            assert file.file_size == writer.file_size
        partial = writer.partial
        assert not (tmp_path / "m.gguf").exists()
    assert not partial.exists() and (tmp_path / "m.gguf").exists()
    with pytest.raises(ValueError, match="`with` block"):
        GGUFWriter(tmp_path / "n.gguf").partial  # noqa: B018
