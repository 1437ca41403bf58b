"""Changing a GGUF file's metadata and names; its tensor data stays as it is, to the byte."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

from ggpy.arch import ARCHS
from ggpy.chat.templates import parse
from ggpy.converter.certificate.record import read_certificate, withdrawn
from ggpy.converter.files import RangeFile
from ggpy.errors import GGPyError, GGUFError, printable
from ggpy.gguf import GGUFFile, GGUFWriter, Metadata, Tensor, ValueType, open_gguf
from ggpy.gguf.reader import parse_metadata
from ggpy.gguf.table import align
from ggpy.gguf.types import ALIGNMENT_KEY
from ggpy.mend.values import Assignment, value_for
from ggpy.tokenizer import load_tokenizer

_MAX_TEMPLATE_BYTES = 1 << 20
_COPY_BYTES = 1 << 24
_TEMPLATE = "tokenizer.chat_template"
_CERTIFICATE = "ggpy.certificate."


@dataclass(frozen=True)
class Changes:
    """What to change. set: keys and their values; delete: keys; rename: old name -> new one, of keys or tensors."""

    set: Sequence[Assignment] = ()
    delete: Sequence[str] = ()
    rename: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Edited:
    """path: the file that has the changes. in_place: whether its head alone was written. said: what was done, one line each."""

    path: Path
    in_place: bool
    said: tuple[str, ...]


def read_template(path: Path) -> Assignment:
    """The assignment of the chat template in a file. Raises GGPyError for one that is no text or no template."""
    file = RangeFile(path)
    try:
        if file.size > _MAX_TEMPLATE_BYTES:
            raise GGPyError(f"{printable(path)}: {file.size} bytes, more than the {_MAX_TEMPLATE_BYTES} that are allowed for a template")
        text = file.read(0, file.size).tobytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise GGPyError(f"{printable(path)}: not UTF-8 at byte {error.start}") from None
    finally:
        file.close()
    return Assignment(_TEMPLATE, text, ValueType.STRING)


def edit(path: Path, changes: Changes, out: Path | None = None, *, force: bool = False) -> Edited:
    """Write `path` with the changes to `out`, or change it itself.

    Without `out` the head of the file is written over where it takes the same room, which a crash in that moment may leave half done;
    where it does not, a new file replaces the old one when it is complete. Raises GGPyError for changes that are senseless or would leave
    a file that can be read no more, and as `GGUFWriter` does.
    """
    with open_gguf(path) as gguf:
        if len(gguf.paths) > 1:
            raise GGPyError(f"{printable(path)}: one of {len(gguf.paths)} parts of a model; convert it into one file first")
        if out is not None and out.exists() and out.samefile(path):
            raise GGPyError(f"{printable(out)}: is the input; leave out -o to change it")
        draft = GGUFWriter(out or path, alignment=gguf.alignment)
        said = _declare(draft, gguf, changes)
        _refuse_damage(gguf, draft, changes)
        if out is None and _fits(gguf, draft):
            _write_head(path, draft.header().ljust(gguf.data_offset, b"\0"))
            return Edited(path, True, tuple(said))
        with GGUFWriter(out or path, alignment=gguf.alignment, force=force or out is None) as writer:
            _declare(writer, gguf, changes)
            file = RangeFile(path)
            try:
                for tensor in gguf.tensors.values():
                    writer.write_tensor(changes.rename.get(tensor.name, tensor.name), _pieces(file, tensor))
            finally:
                file.close()
        return Edited(out or path, False, tuple(said))


def _declare(writer: GGUFWriter, gguf: GGUFFile, changes: Changes) -> list[str]:
    """Everything the new file has, in the order of the old one, new keys last; and what that changes, in lines."""
    metadata, said = gguf.metadata, []
    assigned = {assignment.key: assignment for assignment in changes.set}
    _refuse_nonsense(gguf, changes, assigned)
    stale = _makes_stale(gguf, changes)
    for key in metadata:
        new = changes.rename.get(key, key)
        if key in changes.delete:
            said.append(f"{key}: deleted")
        elif stale and key.startswith(_CERTIFICATE) and (nothing := withdrawn(key, metadata)) is not None:
            writer.add(key, *nothing)
        elif key in assigned:
            _add(writer, assigned[key], metadata)
            said.append(f"{key}: {_shown(metadata[key])} → {printable(assigned[key].text, 60)}")
        else:
            _copy(writer, metadata, key, new)
            if new != key:
                said.append(f"{key}: now {new}")
    for key, assignment in assigned.items():
        if key not in metadata:
            _add(writer, assignment, metadata)
            said.append(f"{key}: added, {printable(assignment.text, 60)}")
    for tensor in gguf.tensors.values():
        new = changes.rename.get(tensor.name, tensor.name)
        writer.add_tensor(new, tensor.shape, tensor.format)
        if new != tensor.name:
            said.append(f"tensor {tensor.name}: now {new}")
    if stale and read_certificate(metadata) is not None:
        said.append("the certificate of its conversion is withdrawn: it is of the file as it was")
    return [printable(line, 300) for line in said]


def _add(writer: GGUFWriter, assignment: Assignment, metadata: Metadata) -> None:
    value, kind = value_for(assignment, metadata)
    try:
        writer.add(assignment.key, value, kind)
    except ValueError as error:
        raise GGPyError(str(error)) from None


def _copy(writer: GGUFWriter, metadata: Metadata, key: str, new: str) -> None:
    try:
        writer.copy(metadata, key, new)
    except ValueError as error:
        raise GGPyError(str(error)) from None


def _shown(value: object) -> str:
    return printable(value, 60) if isinstance(value, str) or not hasattr(value, "__len__") else f"{len(value)} elements"  # type: ignore[arg-type]


def _refuse_nonsense(gguf: GGUFFile, changes: Changes, assigned: Mapping[str, Assignment]) -> None:
    metadata, tensors = gguf.metadata, gguf.tensors
    for key in changes.delete:
        if key not in metadata:
            raise GGPyError(f"{printable(gguf.path)}: key '{printable(key, 80)}' cannot be deleted: the file has no such key")
    for old, new in changes.rename.items():
        if old not in metadata and old not in tensors:
            raise GGPyError(f"{printable(gguf.path)}: '{printable(old, 80)}' cannot be renamed: the file has no such key or tensor")
        if new in metadata or new in tensors:
            raise GGPyError(f"{printable(gguf.path)}: '{printable(old, 80)}' cannot be renamed: there is a '{printable(new, 80)}' already")
    touched = [*assigned, *changes.delete, *changes.rename]
    twice = next((name for i, name in enumerate(touched) if name in touched[:i]), None)
    if twice is not None or len(changes.set) != len(assigned):
        raise GGPyError(f"'{printable(twice or changes.set[-1].key, 80)}' is changed twice")
    fixed = next((name for name in touched if name == ALIGNMENT_KEY or name.startswith("split.")), None)
    if fixed is not None:
        raise GGPyError(f"key '{fixed}' cannot be changed: it says where the data lies")
    if _TEMPLATE in assigned:
        parse(assigned[_TEMPLATE].text)


def _makes_stale(gguf: GGUFFile, changes: Changes) -> bool:
    arch = gguf.metadata.get("general.architecture")
    touched = [*(assignment.key for assignment in changes.set), *changes.delete, *changes.rename, *changes.rename.values()]
    about_model = (f"{arch}.", "tokenizer.ggml.", "general.architecture")
    return any(name in gguf.tensors or name.startswith(about_model) for name in touched)


def _refuse_damage(gguf: GGUFFile, draft: GGUFWriter, changes: Changes) -> None:
    """What could be read before must be readable afterwards."""
    metadata = parse_metadata(draft.path, draft.header())
    tensors = {changes.rename.get(name, name): tensor for name, tensor in gguf.tensors.items()}
    for check in (_check_model, _check_tokenizer):
        if _fault(lambda check=check: check(gguf.metadata, gguf.tensors)) is None:
            fault = _fault(lambda check=check: check(metadata, tensors))
            if fault is not None:
                raise GGPyError(f"the file would not work any more: {fault}")


def _fault(check: Callable[[], None]) -> str | None:
    try:
        check()
    except GGUFError as error:
        return error.what
    except GGPyError as error:
        return str(error)
    return None


def _check_model(metadata: Metadata, tensors: Mapping[str, Tensor]) -> None:
    arch = ARCHS.get(metadata.string("general.architecture"))
    if arch is None:
        raise GGPyError(f"general.architecture is '{printable(metadata['general.architecture'], 40)}', which ggpy does not run")
    file = SimpleNamespace(path=metadata.path, metadata=metadata, tensors=tensors)
    config = arch.config(file)  # type: ignore[arg-type]
    missing = [name for name in arch.shapes(config) if not name.endswith("?") and name not in tensors]
    if missing:
        raise GGPyError(f"tensor {missing[0]} is missing")


def _check_tokenizer(metadata: Metadata, tensors: Mapping[str, Tensor]) -> None:
    tokenizer = load_tokenizer(metadata)
    embedding = tensors.get("token_embd.weight")
    if embedding is not None and embedding.shape[0] != tokenizer.n_vocab:
        raise GGPyError(f"there are {tokenizer.n_vocab} tokens, but {embedding.shape[0]} rows in token_embd.weight")
    ids = [key for key in metadata if key.startswith("tokenizer.ggml.") and key.endswith("_token_id")]
    outside = next((key for key in ids if not 0 <= int(metadata.integer(key)) < tokenizer.n_vocab), None)
    if outside is not None:
        raise GGPyError(f"{outside} is {metadata[outside]}, with {tokenizer.n_vocab} tokens")


def _fits(gguf: GGUFFile, draft: GGUFWriter) -> bool:
    """Whether the data may stay where it is: begins where readers will look for it, each tensor behind the last."""
    at = align(len(draft.header()), gguf.alignment) if gguf.tensors else gguf.data_offset
    for tensor in gguf.tensors.values():
        if tensor.offset != at:
            return False
        at += align(tensor.n_bytes, gguf.alignment)
    return bool(gguf.tensors)


def _write_head(path: Path, header: bytes) -> None:
    with path.open("r+b") as file:
        file.write(header)
        file.flush()
        os.fsync(file.fileno())


def _pieces(file: RangeFile, tensor: Tensor) -> Iterator[memoryview]:
    for start in range(0, tensor.n_bytes, _COPY_BYTES):
        yield file.read(tensor.offset + start, min(_COPY_BYTES, tensor.n_bytes - start)).data
