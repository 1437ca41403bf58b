"""The table of formats against the pages and vectors of `formats/blocks`."""

from __future__ import annotations

import json

import pytest

from ggpy.blocks import BLOCKS, BY_TYPE, BlockFormat, dequantize, grids

from .pages import FOLDER, cases, same_bits, tables, vectors

DTYPES = {"u8": "|u1", "i8": "|i1", "u16": "<u2", "i16": "<i2", "i32": "<i4", "i64": "<i8", "f16": "<f2", "f32": "<f4", "f64": "<f8"}
DECODED = [f for f in BLOCKS.values() if f.decode is not None]
ENCODED = [f for f in BLOCKS.values() if f.encode is not None]
WEIGHTED = [f for f in BLOCKS.values() if f.encode_weighted is not None]
KNOWN_BY_LAYOUT = [f for f in BLOCKS.values() if f.decode is None]


def by_name(block_format: BlockFormat) -> str:
    return block_format.name


def test_names_and_numbers_are_unique():
    assert len(BLOCKS) == len(BY_TYPE)
    assert all(BLOCKS[f.name] is f and BY_TYPE[f.ggml_type] is f for f in BY_TYPE.values())


@pytest.mark.parametrize("block_format", DECODED, ids=by_name)
def test_page_gives_number_sizes_and_layout(block_format: BlockFormat):
    about, layout = tables(FOLDER / f"{block_format.name.lower()}.md")[:2]
    facts = dict(about)
    assert facts["ggml type"] == str(block_format.ggml_type)
    assert facts["values per block"] == str(block_format.block_values)
    assert facts["bytes per block"] == str(block_format.block_bytes)
    assert float(facts["bits per weight"]) == block_format.bits_per_weight

    offset = 0
    for row, field in zip(layout[1:], block_format.fields, strict=True):
        name, dtype, count, start, meaning = row
        assert (name, DTYPES[dtype], count, start) == (field.name, field.dtype.str, str(field.count), str(offset))
        assert meaning
        offset += field.n_bytes


@pytest.mark.parametrize("block_format", DECODED, ids=by_name)
def test_page_says_whether_the_format_is_written(block_format: BlockFormat):
    encoding = (FOLDER / f"{block_format.name.lower()}.md").read_text(encoding="utf-8").split("## Encoding")[1]
    assert ("ggpy does not write" in encoding) == (block_format.encode is None)


@pytest.mark.parametrize("block_format", [f for f in ENCODED if f.block_values > 1], ids=by_name)
def test_page_says_what_importance_changes(block_format: BlockFormat):
    encoding = (FOLDER / f"{block_format.name.lower()}.md").read_text(encoding="utf-8").split("## Encoding")[1]
    changes = block_format.encode_weighted is not None
    assert ("(importance.md)" in encoding) == changes
    assert ("importance matrix changes nothing" in " ".join(encoding.split())) == (not changes)


def test_importance_page_lists_every_format_that_takes_it():
    (table,) = tables(FOLDER / "importance.md")
    assert {row[0] for row in table[1:]} == {f.name for f in WEIGHTED}


def test_layouts_page_lists_every_format_without_a_decoder():
    (table,) = tables(FOLDER / "layouts.md")
    listed = {row[0]: row[1:] for row in table[1:]}
    assert set(listed) == {f.name for f in KNOWN_BY_LAYOUT}
    for f in KNOWN_BY_LAYOUT:
        number, values, n_bytes, fields = listed[f.name]
        assert (int(number), int(values), int(n_bytes)) == (f.ggml_type, f.block_values, f.block_bytes)
        parsed = [part.replace(" × ", " ").split(" ") for part in fields.split(", ")]
        assert [(p[0], DTYPES[p[1]], int(p[2]) if p[2:] else 1) for p in parsed] == [(x.name, x.dtype.str, x.count) for x in f.fields]


@pytest.mark.parametrize("block_format", DECODED, ids=by_name)
def test_vectors_decode(block_format: BlockFormat):
    content = vectors(block_format.name)
    assert (content["format"], content["ggml_type"]) == (block_format.name, block_format.ggml_type)
    found = cases(block_format.name, "decode")
    assert found
    for case in found:
        assert same_bits(dequantize(case.blocks[None], block_format)[0], case.values), case.name


@pytest.mark.parametrize("block_format", ENCODED, ids=by_name)
def test_vectors_encode(block_format: BlockFormat):
    assert block_format.encode is not None
    found = cases(block_format.name, "encode")
    assert found
    for case in found:
        blocks = block_format.encode(case.values.reshape(-1, block_format.block_values))
        assert blocks.tobytes() == case.blocks.tobytes(), case.name
        assert case.decoded is not None
        assert same_bits(dequantize(blocks.reshape(1, -1), block_format)[0], case.decoded), case.name


@pytest.mark.parametrize("block_format", WEIGHTED, ids=by_name)
def test_vectors_encode_with_importance(block_format: BlockFormat):
    assert block_format.encode_weighted is not None
    found = cases(block_format.name, "encode_weighted")
    assert found
    for case in found:
        assert case.importance is not None
        assert block_format.encode_weighted(case.values[None], case.importance).tobytes() == case.blocks.tobytes(), case.name


def test_grids_page_has_every_group():
    stored = json.loads((FOLDER / "grids.json").read_text(encoding="utf-8"))
    assert set(stored) == {name for name, grid in vars(grids).items() if isinstance(grid, grids.Grid)}
    for name, about in stored.items():
        grid = getattr(grids, name)
        assert (about["levels"], about["size"], about["even"]) == (list(grid.levels), grid.size, grid.even), name
        assert about["members"] == grid.members and grid.groups.shape == (about["entries"], about["size"]), name


@pytest.mark.parametrize("block_format", DECODED, ids=by_name)
def test_vectors_stay_small(block_format: BlockFormat):
    assert (FOLDER / f"{block_format.name.lower()}.vectors.json").stat().st_size < 30_000
