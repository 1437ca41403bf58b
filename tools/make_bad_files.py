"""Make the files in formats/gguf/good and formats/gguf/bad, with their manifests.

    python tools/make_bad_files.py

Every bad file is a small legal one with one fault. Its name begins with the class of the fault, and `bad/manifest.json` says what a reader
must complain about. Every good file comes with what it holds. All bytes are made by hand in gguf_bytes.py, so nothing here trusts ggpy.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gguf_bytes import ARRAY, BOOL, F32, F64, I8, I16, I32, I64, STRING, U8, U16, U32, U64, array, entry, gguf, string, tensor, u32, u64

FOLDER = Path(__file__).resolve().parents[1] / "formats" / "gguf"
HUGE = 2**64 - 1

GGML_F32, GGML_F16, GGML_Q4_0, GGML_Q4_K = 0, 1, 2, 12

ARCHITECTURE = entry("general.architecture", STRING, string("llama"))
COUNT = entry("llama.block_count", U32, u32(7))
ENTRIES = [ARCHITECTURE, COUNT]
TENSORS = [tensor("a", [8], GGML_F32, 0), tensor("b", [4, 2], GGML_F32, 32)]
DATA = struct.pack("<16f", *range(16))
VALID = gguf(ENTRIES, TENSORS, DATA)


def with_entry(*added: bytes) -> bytes:
    return gguf([ARCHITECTURE, *added], TENSORS, DATA)


def with_tensors(*tensors: bytes) -> bytes:
    return gguf(ENTRIES, tensors, DATA)


def bad_files() -> Iterator[tuple[str, bytes, str]]:
    """Name, bytes, and words that must stand in the complaint."""
    for faults in (headers, counts, strings, value_types, alignments, tensors, duplicates, splits, foreign):
        yield from faults()


def headers() -> Iterator[tuple[str, bytes, str]]:
    yield "header_empty", b"", "the file is empty"
    yield "header_magic_only", VALID[:4], "the header takes 24 bytes, but the file has 4"
    yield "header_cut", VALID[:20], "the header takes 24 bytes, but the file has 20"
    yield "header_magic_reversed", b"FUGG" + VALID[4:], "it begins with the bytes 46 55 47 47"
    for version in (0, 1, 4, 2**32 - 1):
        yield f"header_version_{version}", gguf(ENTRIES, TENSORS, DATA, version=version), f"version {version} is not supported"
    swapped = b"GGUF" + struct.pack(">IQQ", 3, 0, 0)
    yield "header_big_endian", swapped, "version 0x03000000: the file is big-endian"


def counts() -> Iterator[tuple[str, bytes, str]]:
    for count in (3, 2**32, 2**63, HUGE):
        yield (
            f"counts_tensors_{count:#x}",
            gguf(ENTRIES, TENSORS, DATA, n_tensors=count),
            "tensor" if count == 3 else f"{count} tensors take",
        )
    wraps = 2**64 // 32 + 1  # times the 32 bytes of the smallest entry: 32 in 64 bits
    yield "counts_tensors_wrap", gguf(ENTRIES, TENSORS, DATA, n_tensors=wraps), f"{wraps} tensors take"
    for count in (1000, 2**63, HUGE):
        yield f"counts_keys_{count:#x}", gguf(ENTRIES, TENSORS, DATA, n_keys=count), f"{count} keys take"
    yield "counts_keys_one_too_many", gguf(ENTRIES, TENSORS, DATA, n_keys=3), "dimensions"
    yield "counts_keys_one_too_few", gguf(ENTRIES, TENSORS, DATA, n_keys=1), "dimensions"


def strings() -> Iterator[tuple[str, bytes, str]]:
    for length in (10**6, 2**63, HUGE):
        name = f"{length:#x}"
        lying = string("general.name", length) + u32(STRING) + string("x")
        yield f"strings_key_length_{name}", with_entry(lying), "its name is" if length > 65535 else "cut short"
        yield f"strings_value_length_{name}", with_entry(entry("k", STRING, string("x", length))), f"its value takes {length} bytes"
        body = string("x") + string("y", length)
        yield f"strings_element_length_{name}", with_entry(entry("k", ARRAY, array(STRING, 2, body))), f"string 1 of 2 takes {length} bytes"
        lying = string("t", length) + u32(1) + u64(8) + u32(GGML_F32) + u64(0)
        yield f"strings_tensor_name_length_{name}", with_tensors(lying), f"its name is {length} bytes long; at most 64"
    yield "strings_empty_key", with_entry(entry("", U8, b"\1")), "its name is empty"
    for name, raw in (
        ("stray_byte", b"ab\xff"),
        ("cut_character", b"ab\xe2\x82"),
        ("overlong", b"\xc0\xafab"),
        ("surrogate", b"\xed\xa0\x80ab"),
        ("beyond_unicode", b"\xf4\x90\x80\x80"),
    ):
        yield f"strings_value_{name}", with_entry(entry("k", STRING, string(raw))), "its value is not UTF-8"
        yield f"strings_element_{name}", with_entry(entry("k", ARRAY, array(STRING, 1, string(raw)))), "string 0 is not UTF-8"
    yield "strings_key_not_utf8", with_entry(entry(b"k\xff", U8, b"\1")), "its name is not UTF-8: byte 0xff"
    yield "strings_tensor_name_not_utf8", with_tensors(tensor(b"t\xff", [8], GGML_F32, 0)), "its name is not UTF-8: byte 0xff"
    ansi = "\x1b[2J\x1b]0;owned\x07\u202e\x9b31m"
    yield "strings_ansi_key", with_entry(entry(ansi, BOOL, b"\7")), "\\x1b[2J\\x1b]0;owned\\x07\\u202e\\x9b31m"
    yield "strings_ansi_tensor", with_tensors(tensor(ansi, [8], 99, 0)), "\\x1b[2J\\x1b]0;owned\\x07\\u202e\\x9b31m"


def value_types() -> Iterator[tuple[str, bytes, str]]:
    for number in (13, 255, 2**32 - 1):
        yield f"value_types_{number}", with_entry(entry("k", number, b"\0" * 8)), f"its value type is {number}; value types are 0 to 12"
        raw = array(number, 1, b"\0" * 8)
        yield f"value_types_element_{number}", with_entry(entry("k", ARRAY, raw)), f"the type of its elements is {number}"
    yield "value_types_bool_2", with_entry(entry("k", BOOL, b"\2")), "a bool is 0 or 1, this one is 2"
    yield "value_types_bool_element_255", with_entry(entry("k", ARRAY, array(BOOL, 3, b"\0\1\xff"))), "a bool is 0 or 1, element 2 is 255"
    sizes = {U8: 1, I8: 1, U16: 2, I16: 2, U32: 4, I32: 4, F32: 4, BOOL: 1, STRING: 8, ARRAY: 12, U64: 8, I64: 8, F64: 8}
    for kind, size in sizes.items():
        for count in sorted({1000, HUGE, min(HUGE, 2**64 // size + 1)}):  # the last one wraps to less than a file in 64 bits
            raw = array(kind, count, b"\0" * 16)
            yield f"value_types_array_of_{kind}_{count:#x}", with_entry(entry("k", ARRAY, raw)), f"an array of {count} "
    for depth in (17, 200):
        raw = array(ARRAY, 1) * (depth - 1) + array(U8, 1, b"\1")
        yield f"value_types_nested_{depth}", with_entry(entry("k", ARRAY, raw)), "arrays are nested deeper than 16"
    raw = array(ARRAY, 2, array(ARRAY, HUGE) + array(U8, 0))
    yield "value_types_nested_count", with_entry(entry("k", ARRAY, raw)), f"an array of {HUGE} array elements"
    cut = gguf([entry("k", ARRAY, array(ARRAY, 3, array(U8, 1, b"\1")))], data=b"\0" * 23)
    yield "value_types_nested_cut", cut, "the file has"
    yield "value_types_cut_scalar", gguf([entry("kk", U64, b"\1\2\3")]), "its value takes 8 bytes, but the file has 3 left"


def alignments() -> Iterator[tuple[str, bytes, str]]:
    for value in (0, 3, 24, 2**32 - 1):
        bad = with_entry(entry("general.alignment", U32, u32(value)))
        yield f"alignment_{value}", bad, f"key 'general.alignment' is {value} (uint32); expected a power of two"
    yield "alignment_uint64", with_entry(entry("general.alignment", U64, u64(32))), "expected a power of two as uint32"
    yield "alignment_string", with_entry(entry("general.alignment", STRING, string("32"))), "key 'general.alignment' is '32' (string)"
    yield "alignment_array", with_entry(entry("general.alignment", ARRAY, array(U32, 1, u32(32)))), "is an array of 1 uint32 elements"
    yield "alignment_2147483648", with_entry(entry("general.alignment", U32, u32(2**31))), "its offset 32 is not a multiple"
    one = gguf([entry("general.alignment", U32, u32(2**31))], TENSORS[:1], DATA)
    yield "alignment_past_end", one, "ends past the end of the file"


def tensors() -> Iterator[tuple[str, bytes, str]]:
    for rank in (0, 5, 2**32 - 1):
        bad = tensor("t", [1] * min(rank, 5), GGML_F32, 0, rank)
        yield f"tensors_dimensions_{rank}", with_tensors(bad), f"it has {rank} dimensions; 1 to 4"
    for name, shape in (
        ("2e63", [2**63]),
        ("all_ones", [HUGE]),
        ("product_wraps_to_0", [2**32, 2**32]),
        ("product_wraps_to_32", [2**32 + 8, 2**32 - 8, 2**32, 2**32]),
        ("zero_beside_huge", [0, 2**62, 2**62]),
    ):
        yield f"tensors_shape_{name}", with_tensors(tensor("t", shape, GGML_F32, 0)), "make more than 2^60 values"
    yield "tensors_bytes_wrap", with_tensors(tensor("t", [2**60], GGML_F32, 0)), "ends past the end of the file"
    yield "tensors_one_value_too_many", with_tensors(tensor("t", [17], GGML_F32, 0)), "its data, 68 bytes"
    for number in (4, 31, 99, 2**32 - 1):
        yield f"tensors_type_{number}", with_tensors(tensor("t", [8], number, 0)), f"its type is {number}"
    yield "tensors_half_a_block", with_tensors(tensor("t", [16], GGML_Q4_0, 0)), "its rows of 16 values are no whole blocks of Q4_0"
    yield "tensors_row_no_block", with_tensors(tensor("t", [32, 8], GGML_Q4_K, 0)), "its rows of 32 values are no whole blocks of Q4_K"
    for offset in (1, 16, 33):
        yield f"tensors_offset_{offset}", with_tensors(tensor("t", [1], GGML_F32, offset)), f"its offset {offset} is not a multiple of"
    for offset in (64, 2**31, 2**63, 2**64 - 32):
        yield f"tensors_offset_{offset:#x}", with_tensors(tensor("t", [8], GGML_F32, offset)), "ends past the end of the file"
    yield "tensors_data_cut", VALID[:-1], "ends past the end of the file"
    yield "tensors_data_absent", VALID[: -len(DATA)], "ends past the end of the file"
    table = gguf(ENTRIES, TENSORS, alignment=1)
    yield "tensors_table_cut", table[:-1], "its offset takes 8 bytes, but the file has 7 left"
    same = tensor("b", [8], GGML_F32, 0)
    yield "tensors_overlap_same", with_tensors(TENSORS[0], same), "overlaps that of"
    yield "tensors_overlap_partly", with_tensors(tensor("a", [9], GGML_F32, 0), tensor("b", [1], GGML_F32, 32)), "overlaps that of"
    inside = tensor("a", [16], GGML_F32, 0), tensor("b", [1], GGML_F32, 32)
    yield "tensors_overlap_inside", with_tensors(*inside), "its data overlaps that of 'a'"
    yield "tensors_name_65_bytes", with_tensors(tensor("n" * 65, [8], GGML_F32, 0)), "its name is 65 bytes long; at most 64"


def duplicates() -> Iterator[tuple[str, bytes, str]]:
    yield "duplicates_key", with_entry(COUNT, COUNT), "key 'llama.block_count': stands in the file twice"
    yield "duplicates_key_other_type", with_entry(COUNT, entry("llama.block_count", STRING, string("7"))), "stands in the file twice"
    yield "duplicates_tensor", with_tensors(TENSORS[0], tensor("a", [8], GGML_F32, 32)), "tensor 'a': stands in the file twice"


def splits() -> Iterator[tuple[str, bytes, str]]:
    part = with_entry(entry("split.no", U16, b"\1\0"), entry("split.count", U16, b"\3\0"))
    yield "split_2_of_3", part, "part 2 of a model split into 3 files"


def foreign() -> Iterator[tuple[str, bytes, str]]:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 98362432\n"
    yield "content_git_lfs_pointer", pointer, "a Git LFS pointer"
    page = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body></body></html>\n"
    yield "content_html", page, "a web page (HTML)"
    yield "content_html_after_bom", b"\xef\xbb\xbf\n  " + page.lower(), "a web page (HTML)"
    yield "content_zip", b"PK\3\4\x14\0\0\0\0\0" + b"\0" * 40 + b"archive/data.pkl", "a zip archive"
    yield "content_pickle_2", b"\x80\2}q\0X\5\0\0\0modelq\1K\1s.", "a Python pickle"
    yield "content_pickle_4", b"\x80\4\x95\x0f\0\0\0\0\0\0\0}\x94\x8c\5model\x94K\1s.", "a Python pickle"
    index = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    yield "content_safetensors", u64(len(index)) + index + b"\0" * 4, "a safetensors file"
    for magic, name in ((b"lmgg", "GGML"), (b"fmgg", "GGMF"), (b"tjgg", "GGJT"), (b"algg", "GGLA")):
        yield f"content_{name.lower()}", magic + u32(1) + b"\0" * 32, f"the old {name} format"
    yield "content_gzip", b"\x1f\x8b\x08\0" + b"\0" * 16, "gzip data"
    yield "content_zstd", b"\x28\xb5\x2f\xfd" + b"\0" * 16, "Zstandard data"
    yield "content_json", b'{"error":"Repository not found"}', 'JSON text, not a model; it begins \'{"error"'
    yield "content_text", b"Entry not found\n", "text, not a model; it begins 'Entry not found'"
    yield "content_zeros", b"\0" * 600, "its first 512 bytes are zero"
    yield "content_noise", bytes((37 * i * i + 11) & 0xFF for i in range(64)), "it begins with the bytes 0b 30 9f 58"


def good_files() -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    """Name, bytes, and what they hold: shapes with the rows first, data as hex."""
    for version in (2, 3):
        yield f"empty_v{version}", gguf(version=version), {"version": version, "metadata": {}, "tensors": {}}
        held = {
            "general.architecture": "llama",
            "llama.block_count": 7,
        }
        placed = {"a": ([8], "F32", DATA[:32]), "b": ([2, 4], "F32", DATA[32:])}
        yield f"small_v{version}", gguf(ENTRIES, TENSORS, DATA, version=version), _holds(held, placed, version=version)
    yield _value_types()
    yield _texts()
    for alignment in (1, 2, 8, 64, 1024):
        head = [entry("general.alignment", U32, u32(alignment))]
        space = max(alignment, 4)
        table = [tensor("a", [1], GGML_F32, 0), tensor("b", [1], GGML_F32, space)]
        data = DATA[4:8] + b"\0" * (space - 4) + DATA[8:12]
        placed = {"a": ([1], "F32", DATA[4:8]), "b": ([1], "F32", DATA[8:12])}
        raw = gguf(head, table, data, alignment=alignment)
        yield f"alignment_{alignment}", raw, _holds({"general.alignment": alignment}, placed)
    yield _shapes()


def _value_types() -> tuple[str, bytes, dict[str, Any]]:
    scalars = {
        U8: ("B", [0, 1, 255]),
        I8: ("b", [-128, -1, 127]),
        U16: ("H", [0, 258, 65535]),
        I16: ("h", [-32768, 258, 32767]),
        U32: ("I", [0, 16909060, 2**32 - 1]),
        I32: ("i", [-(2**31), 16909060, 2**31 - 1]),
        F32: ("f", [-0.5, 2.0**-149, 1.5e38]),
        BOOL: ("?", [False, True, True]),
        U64: ("Q", [0, 72623859790382856, 2**64 - 1]),
        I64: ("q", [-(2**63), 72623859790382856, 2**63 - 1]),
        F64: ("d", [-0.5, 5e-324, 1.5e308]),
    }
    entries, held = [], {}
    for kind, (code, values) in scalars.items():
        values = list(struct.unpack(f"<3{code}", struct.pack(f"<3{code}", *values)))
        for index, value in enumerate(values):
            entries.append(entry(f"scalar.{kind}.{index}", kind, struct.pack(f"<{code}", value)))
            held[f"scalar.{kind}.{index}"] = value
        entries += (
            entry(f"array.{kind}", ARRAY, array(kind, 3, struct.pack(f"<3{code}", *values))),
            entry(f"empty.{kind}", ARRAY, array(kind, 0)),
        )
        held |= {f"array.{kind}": values, f"empty.{kind}": []}
    entries += [
        entry(f"scalar.{STRING}", STRING, string("text")),
        entry(f"array.{STRING}", ARRAY, array(STRING, 2, string("one") + string("two"))),
        entry(f"empty.{STRING}", ARRAY, array(STRING, 0)),
        entry(f"empty.{ARRAY}", ARRAY, array(ARRAY, 0)),
        entry("nested.2", ARRAY, array(ARRAY, 3, array(U8, 2, b"\1\2") + array(STRING, 1, string("x")) + array(U16, 0))),
        entry("nested.16", ARRAY, array(ARRAY, 1) * 15 + array(I8, 1, b"\xff")),
        entry("after", U8, b"\7"),
    ]
    deep: Any = [-1]
    for _ in range(15):
        deep = [deep]
    held |= {f"scalar.{STRING}": "text", f"array.{STRING}": ["one", "two"], f"empty.{STRING}": [], f"empty.{ARRAY}": []}
    held |= {"nested.2": [[1, 2], ["x"], []], "nested.16": deep, "after": 7}
    return "value_types", gguf(entries), _holds(held, {})


def _texts() -> tuple[str, bytes, dict[str, Any]]:
    texts = ["", "\0", "a\0b", "naïve", "日本語", "🦙", "\x1b[31mred", "\u202eright to left", "\r\n\t", "▁the", "\ufeff", "\U0010ffff"]
    entries = [entry(f"text.{i}", STRING, string(text)) for i, text in enumerate(texts)]
    entries += entry("all", ARRAY, array(STRING, len(texts), b"".join(map(string, texts)))), entry("Ünusual Key!", U8, b"\1")
    return "texts", gguf(entries), _holds({f"text.{i}": text for i, text in enumerate(texts)} | {"all": texts, "Ünusual Key!": 1}, {})


def _shapes() -> tuple[str, bytes, dict[str, Any]]:
    """All ranks, blocks, data out of order with gaps and no padding at the end, a tensor of nothing, a name of 64 bytes."""
    q4_0 = bytes(range(18)) * 2
    layout = {
        "four": ([1, 2, 1, 3], GGML_F32, "F32", 128, DATA[:24]),
        "half": ([3], GGML_F16, "F16", 0, DATA[:6]),
        "blocks": ([2, 32], GGML_Q4_0, "Q4_0", 64, q4_0),
        "nothing": ([0, 32], GGML_Q4_0, "Q4_0", 64, b""),
        "n" * 64: ([1, 1], GGML_F32, "F32", 256, DATA[4:8]),
    }
    data = bytearray(260)
    table = []
    for name, (shape, number, _, offset, raw) in layout.items():
        data[offset : offset + len(raw)] = raw
        table.append(tensor(name, shape[::-1], number, offset))
    return (
        "shapes",
        gguf(ENTRIES, table, bytes(data)),
        _holds(
            {"general.architecture": "llama", "llama.block_count": 7},
            {name: (shape, block_format, raw) for name, (shape, _, block_format, _, raw) in layout.items()},
        ),
    )


def _holds(metadata: dict[str, Any], tensors: dict[str, tuple[list[int], str, bytes]], version: int = 3) -> dict[str, Any]:
    placed = {name: {"shape": shape, "type": kind, "data": raw.hex()} for name, (shape, kind, raw) in tensors.items()}
    return {"version": version, "metadata": metadata, "tensors": placed}


def main() -> None:
    good, bad = {}, {}
    for folder in ("good", "bad"):
        (FOLDER / folder).mkdir(parents=True, exist_ok=True)
        for stale in (FOLDER / folder).glob("*.gguf"):
            stale.unlink()
    for name, raw, holds in good_files():
        (FOLDER / "good" / f"{name}.gguf").write_bytes(raw)
        good[f"{name}.gguf"] = holds
    for name, raw, fault in bad_files():
        (FOLDER / "bad" / f"{name}.gguf").write_bytes(raw)
        bad[f"{name}.gguf"] = fault
    for folder, manifest in (("good", good), ("bad", bad)):
        text = json.dumps(manifest, indent=1, ensure_ascii=True, sort_keys=False)
        (FOLDER / folder / "manifest.json").write_text(text + "\n", encoding="utf-8")
    print(f"{len(good)} good and {len(bad)} bad files in {FOLDER}")


if __name__ == "__main__":
    main()
