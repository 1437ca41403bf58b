"""The model card of a converted file: where it comes from, how it was made, what it takes, and how good it was found to be."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ggpy import __version__
from ggpy.converter import Report
from ggpy.errors import GGPyError, printable
from ggpy.gguf import open_gguf

MARK = "<!-- made by ggpy-convert -->"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SNAPSHOT = re.compile(r"models--(?P<owner>[^/]+)--(?P<name>[^/]+)/snapshots/(?P<revision>[0-9a-f]{7,64})$")
_READ_BYTES = 1 << 22


@dataclass(frozen=True)
class Manifest:
    """What a card says. source: as the user named it; repository, revision: of the Hub, where it comes from there. command: the exact one.
    sha256: of the file. name, license: from its metadata. perplexity: on the text named, where it was measured."""

    report: Report
    source: str
    repository: str | None
    revision: str | None
    command: str
    sha256: str
    name: str
    license: str | None = None
    perplexity: tuple[str, float, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """As JSON values, the report with every tensor included; of paths the last part."""
        return {
            "ggpy": __version__,
            "source": {"name": self.source, "repository": self.repository, "revision": self.revision},
            "command": self.command,
            "sha256": self.sha256,
            "perplexity": None if self.perplexity is None else dict(zip(("text", "value", "error"), self.perplexity, strict=True)),
            "report": self.report.to_json() | {"path": self.report.path.name},
        }


def manifest(
    report: Report, source: str, found: Path, arguments: Sequence[str], perplexity: tuple[str, float, float] | None = None
) -> Manifest:
    """The manifest of a finished conversion. source: as the user named it; found: where it was found; arguments: of ggpy-convert."""
    snapshot = _SNAPSHOT.search(found.resolve().as_posix())
    repository, revision = (f"{snapshot['owner']}/{snapshot['name']}", snapshot["revision"]) if snapshot else (None, None)
    with open_gguf(report.path) as file:
        name, license = (file.metadata.get(key) for key in ("general.name", "general.license"))
    return Manifest(
        report,
        source if repository else Path(source).name,
        repository,
        revision,
        shlex.join(["ggpy-convert", *arguments]),
        file_sha256(report.path),
        name if isinstance(name, str) else report.path.stem,
        license if isinstance(license, str) else None,
        perplexity,
    )


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def render_card(manifest: Manifest) -> str:
    """The card in Markdown, with the YAML head the Hub reads."""
    report = manifest.report
    return "\n".join(
        [*_head(manifest), "", MARK, *_origin(manifest), "", *_types(report), "", *_quality(manifest), "", *_checksums(manifest), ""]
    )


def _head(manifest: Manifest) -> list[str]:
    lines = ["---"]
    if manifest.repository:
        lines += [f"base_model: {json.dumps(manifest.repository)}", "base_model_relation: quantized"]
    if manifest.license:
        lines.append(f"license: {json.dumps(manifest.license)}")
    return [*lines, "tags:", "- gguf", "---"]


def _origin(manifest: Manifest) -> list[str]:
    of = f"[{manifest.repository}](https://huggingface.co/{manifest.repository})" if manifest.repository else f"`{_code(manifest.source)}`"
    revision = f", revision `{manifest.revision}`" if manifest.revision else ""
    return [
        f"# {_text(manifest.name)}, {manifest.report.recipe}",
        "",
        f"GGUF made from {of}{revision} by ggpy {__version__}:",
        "",
        "```sh",
        printable(manifest.command, 2000).replace("```", "` ` `"),
        "```",
    ]


def _types(report: Report) -> list[str]:
    bits = f"{report.n_values:,} weights in {report.n_bytes:,} bytes: {report.bits_per_weight:.3f} bits per weight."
    values, sizes, counts = Counter[str](), Counter[str](), Counter[str]()
    for tensor in report.tensors:
        values[tensor.format] += tensor.n_values
        sizes[tensor.format] += tensor.n_bytes
        counts[tensor.format] += 1
    rows = [f"| {name} | {counts[name]} | {values[name]:,} | {size:,} |" for name, size in sizes.most_common()]
    return [bits, "", "| type | tensors | weights | bytes |", "|---|---|---|---|", *rows]


def _quality(manifest: Manifest) -> list[str]:
    certificate, lines = manifest.report.certificate, []
    if certificate is not None:
        state = "" if certificate.passed else " **This is more than the types explain.**"
        lines.append(
            f"Measured on a short text ({certificate.text}, {certificate.tokens} tokens) against the source in float32: KL divergence "
            f"{certificate.kl:.3g} nats per token, {certificate.top1:.1%} same most likely token. `ggpy verify` repeats it.{state}"
        )
    else:
        lines.append(f"Not compared with its source: {_text(manifest.report.uncertified or 'it was converted without')}.")
    if manifest.perplexity is not None:
        text, value, error = manifest.perplexity
        lines.append(f"Perplexity on `{_code(text)}`: {value:.4f} ± {error:.4f}.")
    return lines


def _checksums(manifest: Manifest) -> list[str]:
    return ["```text", f"{manifest.sha256}  {printable(manifest.report.path.name)}", "```"]


def _text(text: str) -> str:
    """One line of Markdown that is nothing but text."""
    return re.sub(r"([\\`*_\[\]<>#|])", r"\\\1", printable(text))


def _code(text: str) -> str:
    return printable(text).replace("`", "'")


def check_repository(name: str) -> None:
    """Raises GGPyError for what is no Hub repository, and for a missing huggingface_hub package: before the work, not after it."""
    if not _REPOSITORY.fullmatch(name):
        raise GGPyError(f"--push: '{printable(name, 80)}' is no Hub repository, expected OWNER/REPO")
    try:
        import huggingface_hub  # pyright: ignore[reportMissingImports]  # noqa: F401
    except ImportError:
        raise GGPyError("--push needs the Hub's client: pip install 'ggpy[hub]'") from None


def push(manifest: Manifest, repository: str, *, force: bool = False) -> str:
    """Upload the file, its card and its manifest to a repository of the Hub, which is made where it is not; its address.

    A README.md that ggpy did not write is replaced with `force` alone. Raises GGPyError in one line for whatever the Hub refuses.
    """
    from huggingface_hub import HfApi  # pyright: ignore[reportMissingImports]

    api, path = HfApi(), manifest.report.path
    try:
        address = str(api.create_repo(repository, exist_ok=True))
        if not force and api.file_exists(repository, "README.md") and MARK not in _remote_card(api, repository):
            raise GGPyError(f"{repository}: has a README.md that is not ggpy's; replace it with --force")
        api.upload_file(path_or_fileobj=str(path), path_in_repo=path.name, repo_id=repository)
        listed = json.dumps(manifest.to_json(), indent=2, allow_nan=False).encode()
        api.upload_file(path_or_fileobj=listed, path_in_repo=f"{path.stem}.manifest.json", repo_id=repository)
        api.upload_file(path_or_fileobj=render_card(manifest).encode(), path_in_repo="README.md", repo_id=repository)
    except GGPyError:
        raise
    except Exception as error:  # the client's own errors, and those of the HTTP library below it, have no common base
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise GGPyError(f"{repository}: cannot be pushed to: {printable(first)}") from None
    return address


def _remote_card(api: Any, repository: str) -> str:
    return Path(api.hf_hub_download(repository, "README.md")).read_text(encoding="utf-8", errors="replace")
