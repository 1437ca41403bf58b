"""The tokenizer files of a checkpoint: read within bounds, checked for type, never run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ggpy.arch.hf_config import HFConfig
from ggpy.converter.files import RangeFile, parse_json
from ggpy.errors import CheckpointError, TokenizerError, printable
from ggpy.tokenizer import program

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Engine

T = TypeVar("T")

MAX_TOKENIZER_BYTES = 64 << 20
MAX_CONFIG_BYTES = 8 << 20  # Gemma's tokenizer_config.json lists 6000 added tokens in 1.1 MB
MAX_TEMPLATE_BYTES = 1 << 20
MAX_TOKEN_ID = 2**31 - 1


@dataclass(frozen=True)
class AddedToken:
    """A token that the checkpoint adds to those of the model; `special`: a control token."""

    id: int
    text: str
    special: bool


@dataclass(frozen=True)
class TokenizerFiles:
    """What lies in a checkpoint directory; objects are empty where their file is absent.

    model: tokenizer.model. json, json_text: tokenizer.json. config: tokenizer_config.json. special_map: special_tokens_map.json.
    generation: generation_config.json. added: added_tokens.json. template: chat_template.jinja, or what chat_template.json holds.
    """

    folder: Path
    model: bytes | None
    json: HFConfig | None
    json_text: str
    config: HFConfig
    special_map: HFConfig
    generation: HFConfig
    added: HFConfig
    template: str | None

    def added_tokens(self) -> dict[int, AddedToken]:
        """The added tokens by id; tokenizer_config.json overrules tokenizer.json, which overrules added_tokens.json."""
        listed = {token.id: token for token in self._from_added_tokens()}
        if self.json is not None:
            listed |= {token.id: token for token in self._from_list(self.json)}
        return listed | {token.id: token for token in self._from_decoder()}

    def _from_added_tokens(self) -> Iterator[AddedToken]:
        for text in self.added:
            yield AddedToken(self.added.integer(text, minimum=0, maximum=MAX_TOKEN_ID), text, special=False)

    @staticmethod
    def _from_list(json: HFConfig) -> Iterator[AddedToken]:
        entries = json.get("added_tokens", [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise json.refuse("added_tokens", "a list of objects")
        for at, entry in enumerate(entries):
            token = HFConfig(entry, f"{json.where}: added_tokens {at}")
            yield AddedToken(
                token.integer("id", minimum=0, maximum=MAX_TOKEN_ID), token.string("content"), special=token.boolean("special", False)
            )

    def _from_decoder(self) -> Iterator[AddedToken]:
        decoder = self.config.section("added_tokens_decoder")
        for key in decoder:
            if not (key.isascii() and key.isdigit() and int(key) <= MAX_TOKEN_ID):
                raise CheckpointError(f"{decoder.where}: key '{printable(key, 40)}' is no token id")
            token = decoder.section(key)
            yield AddedToken(int(key), token.string("content"), special=token.boolean("special", False))


def read_tokenizer_files(folder: Path) -> TokenizerFiles:
    """Everything about the tokenizer that lies in `folder`. Raises CheckpointError for files that are too large, damaged or no files."""
    json_path = folder / "tokenizer.json"
    raw = _read(json_path, MAX_TOKENIZER_BYTES)
    json = None if raw is None else HFConfig(parse_json(raw, str(json_path)), str(json_path))
    return TokenizerFiles(
        folder,
        model=_read(folder / "tokenizer.model", MAX_TOKENIZER_BYTES),
        json=json,
        json_text="" if raw is None else raw.decode("utf-8"),
        config=_object(folder / "tokenizer_config.json"),
        special_map=_object(folder / "special_tokens_map.json"),
        generation=_object(folder / "generation_config.json"),
        added=_object(folder / "added_tokens.json"),
        template=_template(folder),
    )


def load_engine(text: str, where: str) -> Engine:
    """The `tokenizers` tokenizer of a tokenizer.json. Raises CheckpointError where it refuses the file."""
    from tokenizers import Tokenizer as Engine

    return guarded(lambda: Engine.from_str(text), where)


def guarded(action: Callable[[], T], where: str) -> T:
    """What `action` gives; whatever `tokenizers` raises, a Rust panic too, becomes CheckpointError."""
    try:
        return program.guarded(action, where)
    except TokenizerError as error:
        raise CheckpointError(str(error)) from None


def parts_of(section: HFConfig) -> Iterator[dict[str, Any]]:
    """A component of a tokenizer.json and, where it is a sequence, its parts; other nesting does not occur."""
    yield dict(section)
    for key in ("pretokenizers", "normalizers", "decoders", "processors"):
        parts = section.get(key, [])
        if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
            raise section.refuse(key, "a list of objects")
        yield from parts


def _read(path: Path, max_bytes: int) -> bytes | None:
    if not path.exists():
        return None
    file = RangeFile(path)
    try:
        if file.size > max_bytes:
            raise CheckpointError(f"{path}: {file.size} bytes, more than the {max_bytes} that are allowed for it")
        return file.read(0, file.size).tobytes()
    finally:
        file.close()


def _object(path: Path) -> HFConfig:
    raw = _read(path, MAX_CONFIG_BYTES)
    values: dict[str, Any] = {} if raw is None else parse_json(raw, str(path))
    return HFConfig(values, str(path))


def _template(folder: Path) -> str | None:
    path = folder / "chat_template.jinja"
    raw = _read(path, MAX_TEMPLATE_BYTES)
    if raw is None:
        return _object(folder / "chat_template.json").string("chat_template", None)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: not UTF-8 at byte {error.start}") from None
