"""Every error a user can meet: one line that names the file, key, tensor or argument, the value, and what would be right."""

from __future__ import annotations

import os

_MAX_TEXT = 200
_ESCAPED = {*range(0x20), *range(0x7F, 0xA0), 0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xFEFF}


def printable(text: object, limit: int = _MAX_TEXT) -> str:
    """`text` as one safe line: control, bidirectional and surrogate characters escaped, cut after `limit` characters."""
    text = str(text)
    cut = text[:limit]
    safe = "".join(_escape(c) if ord(c) in _ESCAPED or 0xD800 <= ord(c) < 0xE000 else c for c in cut)
    return safe if len(text) <= limit else f"{safe}… ({len(text)} characters)"


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


class GGPyError(Exception):
    """Base of all errors that are the input's or the user's, not a defect of ggpy. Its text is one printable line."""

    def __init__(self, message: str):
        super().__init__(printable(message, 2000))


class GGUFError(GGPyError):
    """A file that is not legal GGUF. `path`: the file; `offset`: byte where the fault lies, or None; `what`: fault, value, expectation."""

    def __init__(self, path: str | os.PathLike[str], offset: int | None, what: str):
        self.path, self.offset, self.what = path, offset, what
        super().__init__(f"{printable(os.fspath(path))}: {what}" + ("" if offset is None else f" (at byte {offset})"))


class CheckpointError(GGPyError):
    """A Hugging Face directory that cannot be converted: a file, key or tensor in it is missing, damaged or not supported."""


class ModelError(GGPyError):
    """A legal GGUF file that cannot be run: hyper-parameters, tensors or memory do not fit."""


class TokenizerError(GGPyError):
    """Tokenizer data that is damaged or of a kind that is not supported."""


class TemplateError(GGPyError):
    """A chat template that is refused, fails, or exceeds its budget of steps, output or time."""


class ContextError(GGPyError):
    """A prompt or a continuation that does not fit the context; the message gives both numbers."""
