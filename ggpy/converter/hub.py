"""Models named by their Hugging Face Hub repository: found in the local cache or downloaded, and only the files a conversion reads."""

from __future__ import annotations

import re
from pathlib import Path

from ggpy.errors import CheckpointError, printable

FILES = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer*",
    "*token*.json",
    "*.jinja",
    "README.md",
)
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")


def find_source(name: str) -> Path:
    """The path called `name`, or a local copy of the Hub repository of that name, `owner/model` or `owner/model@revision`.

    Raises CheckpointError for what is neither, for a missing huggingface_hub package, and for a download that fails.
    """
    path = Path(name)
    if path.exists():
        return path
    if not _REPOSITORY.fullmatch(name):
        raise CheckpointError(f"{printable(name)}: no such directory or file, and no Hub repository (owner/model)")
    try:
        from huggingface_hub import snapshot_download  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise CheckpointError(
            f"{printable(name)}: no such directory; to download a Hub repository of that name, install its client: pip install 'ggpy[hub]'"
        ) from None
    repository, _, revision = name.partition("@")
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=list(FILES)))
    except Exception as error:  # the client's own errors, and those of the HTTP library below it, have no common base
        raise CheckpointError(
            f"{printable(name)}: download failed: {printable(str(error).splitlines()[0] if str(error) else type(error).__name__)}"
        ) from None
