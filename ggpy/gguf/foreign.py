"""Naming files that are not GGUF: what people download by mistake, and what to do instead."""

from __future__ import annotations

import struct

from ggpy.errors import printable

PEEK_BYTES = 512

_BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (
        b"version https://git-lfs",
        "a Git LFS pointer, not the model itself: fetch it with `git lfs pull`, or download the file from the hub",
    ),
    (b"PK\x03\x04", "a zip archive; torch.save writes such files, which are not GGUF: convert the model's safetensors instead"),
    (b"algg", "a LoRA adapter in the old GGLA format, which came before GGUF: convert the adapter's own directory with ggpy-convert"),
    (b"\x1f\x8b", "gzip data: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "Zstandard data: unpack it first"),
    (b"\xfd7zXZ\x00", "xz data: unpack it first"),
    (b"\x89HDF", "an HDF5 file (Keras weights?), not GGUF"),
)

_OLD_FORMATS = {b"lmgg": "GGML", b"fmgg": "GGMF", b"tjgg": "GGJT"}  # the magics as they lie in the file


def name_foreign(head: bytes, file_size: int) -> str:
    """What a file that does not begin with `GGUF` seems to be, judged by its first bytes (`PEEK_BYTES` of them are enough)."""
    for beginning, description in _BEGINNINGS:
        if head.startswith(beginning):
            return description
    if head[:4] in _OLD_FORMATS:
        return _name_old(head)
    if len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5:
        return (
            "a Python pickle (a PyTorch checkpoint?), which is never loaded because that runs code: convert the model's safetensors instead"
        )
    if len(head) > 8 and head[8:9] == b"{" and struct.unpack_from("<Q", head)[0] <= file_size - 8:
        return "a safetensors file: convert its folder with ggpy-convert"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--")):
        return "a web page (HTML), not a model: the download link led to a page; use the file's own link"
    if text.startswith((b"{", b"[")):
        return f"JSON text, not a model; it begins {_quoted(head)}"
    if head and not any(head):
        return f"not GGUF: its first {len(head)} bytes are zero, as in a download that did not finish"
    if b"\x00" not in head and _is_text(head):
        return f"text, not a model; it begins {_quoted(head)}"
    return f"not GGUF: it begins with the bytes {head[:4].hex(' ')}, a GGUF file with 47 47 55 46 ('GGUF')"


def _name_old(head: bytes) -> str:
    """GGML has no version, GGMF has 1, GGJT 1 to 3; ggml changed its blocks with 2 and 3, and none but those of 3 are read any more."""
    name = _OLD_FORMATS[head[:4]]
    version = struct.unpack_from("<I", head, 4)[0] if name != "GGML" and len(head) >= 8 else None
    script = ", or run llama.cpp's convert_llama_ggml_to_gguf.py on it" if (name, version) == ("GGJT", 3) else ""
    return (
        f"a file in the old {name} format{'' if version is None else f', version {version}'}, which came before GGUF and is not read: "
        f"download a GGUF of this model, or convert its Hugging Face checkpoint with ggpy-convert{script}"
    )


def _is_text(head: bytes) -> bool:
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > max(4, len(head) - 4)  # a character cut by the end of the peek
    return len(head) > 4


def _quoted(head: bytes) -> str:
    text = " ".join(head.decode("utf-8", errors="replace").split())
    return f"'{printable(text[:60])}{'…' if len(text) > 60 else ''}'"
