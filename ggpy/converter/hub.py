"""Models named by their Hugging Face Hub repository: found in the local cache or downloaded, and only the files that are needed.

`owner/model`, `owner/model@revision`, and for repositories of GGUF files `owner/model:type`. The client, huggingface_hub, is optional; it
resumes what was cut off, checks sizes, and keeps its cache; HF_HUB_OFFLINE=1 makes it look nowhere else.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ggpy.converter.files import read_json
from ggpy.errors import CheckpointError, GGPyError, printable
from ggpy.quantize.texts import SUFFIXES as TEXT_SUFFIXES

SMALL_FILES = re.compile(
    r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|chat_template|quantize_config|adapter_config)\.json"
    r"|tokenizer\.model|chat_template\.jinja|README\.md"
)
_INDEX, _SINGLE, _ADAPTER = "model.safetensors.index.json", "model.safetensors", "adapter_model.safetensors"
_MAX_INDEX_BYTES = 64 << 20
_REPOSITORY = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[\w./-]+))?(?::(?P<type>[\w-]+))?")
_DATASET = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[\w./-]+))?(?::(?P<file>[\w./-]+))?")
_PART = re.compile(r"-(\d{5})-of-(\d{5})(?=\.gguf$)")
_NO_MODEL = re.compile(r"(mmproj|imatrix)", re.IGNORECASE)

Say = Callable[[str], None]


class Repository:
    """A repository and revision on the Hub, or what the cache has of it. kind: "model" or "dataset". `files`: the names of what lies in it.

    Raises CheckpointError where it cannot be looked at: not there, not allowed, no network and not in the cache.
    """

    def __init__(self, name: str, id: str, revision: str | None, kind: str = "model"):
        self.name, self._id, self._revision, self._kind = name, id, revision, kind
        self._cached: Path | None = None
        with _explained(name):
            self.files = self._list()

    @property
    def is_cached(self) -> bool:
        """Whether the Hub was out of reach, and `files` are those in the local cache."""
        return self._cached is not None

    def _list(self) -> list[str]:
        from huggingface_hub import HfApi, snapshot_download  # pyright: ignore[reportMissingImports]
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError  # pyright: ignore[reportMissingImports]

        try:
            # Unlike list_repo_files, it does not try again for half a minute where there is no network.
            found = HfApi().repo_info(self._id, repo_type=self._kind, revision=self._revision, timeout=10)
            return [file.rfilename for file in found.siblings or []]  # pyright: ignore[reportAttributeAccessIssue]
        except HfHubHTTPError:
            raise
        except Exception as offline:  # no network, by choice or not: of the HTTP library, which differs between versions
            try:
                # Asked for nothing, the client does not mind that most of the repository was never downloaded.
                self._cached = Path(
                    snapshot_download(self._id, repo_type=self._kind, revision=self._revision, local_files_only=True, allow_patterns=["/"])
                )
            except LocalEntryNotFoundError:
                raise offline from None
            return sorted(path.relative_to(self._cached).as_posix() for path in self._cached.rglob("*") if path.is_file())

    def fetch(self, files: Iterable[str]) -> Path:
        """The local folder that holds these files, downloaded where they are not."""
        from huggingface_hub import snapshot_download  # pyright: ignore[reportMissingImports]

        if self._cached is not None:
            return self._cached
        with _explained(self.name):
            names = [re.sub(r"([\[*?])", r"[\1]", file) for file in files]
            return Path(snapshot_download(self._id, repo_type=self._kind, revision=self._revision, allow_patterns=names))


def find_source(name: str, say: Say = lambda line: None) -> Path:
    """The path called `name`, or a local copy of what a conversion reads of the Hub repository of that name: a checkpoint, an adapter, or
    where it has neither, or a type is named, a GGUF file. say: takes lines for the user.

    Raises CheckpointError for what is neither a path nor a repository, for a missing huggingface_hub, and for a download that fails.
    """
    path = Path(name)
    if path.exists():
        return path
    parts = _REPOSITORY.fullmatch(name)
    if parts is None:
        raise CheckpointError(f"{printable(name)}: no such directory or file, and no Hub repository (owner/model)")
    if not _has_client():
        raise CheckpointError(
            f"{printable(name)}: no such directory; to download a Hub repository of that name, install its client: pip install 'ggpy[hub]'"
        )
    repository = Repository(name, parts["id"], parts["revision"])
    if parts["type"] is None and any(file in repository.files for file in (_SINGLE, _INDEX, _ADAPTER)):
        return fetch_checkpoint(repository)
    file = fetch_gguf(repository, parts["type"], say)
    if file is None:
        if parts["type"]:
            raise CheckpointError(f"{printable(name)}: the repository has no GGUF files; name it without :{parts['type']} and use --type")
        pickles = [file for file in repository.files if file.endswith((".bin", ".pt", ".pth"))]
        hint = f", only pickled ones ({printable(pickles[0], 80)}), which can run code and are never read" if pickles else ""
        place = "what the local cache has of the repository" if repository.is_cached else "the repository"
        raise CheckpointError(f"{printable(name)}: {place} has no {_SINGLE}, no {_INDEX} and no GGUF file{hint}")
    return file


def find_texts(name: str) -> Path:
    """The text file or folder called `name`, or a local copy of the texts in the Hub data set of that name: owner/name[@revision], with
    :FILE for one file of it. Raises CheckpointError as `find_source`, and for a data set that has no such files."""
    path = Path(name)
    parts = None if path.exists() else _DATASET.fullmatch(name)
    if parts is None or (name.endswith(TEXT_SUFFIXES) and not parts["file"]):
        return path
    if not _has_client():
        raise CheckpointError(f"{printable(name)}: no such text; to download a Hub data set of that name: pip install 'ggpy[hub]'")
    repository = Repository(name, parts["id"], parts["revision"], "dataset")
    texts = [file for file in repository.files if file.lower().endswith(TEXT_SUFFIXES) and file != "README.md"]
    wanted = [file for file in texts if file == parts["file"]] if parts["file"] else texts
    if not wanted:
        there = f"; it has {', '.join(printable(file, 80) for file in (texts or repository.files)[:20])}" if repository.files else ""
        raise CheckpointError(
            f"{printable(name)}: the data set has no {printable(parts['file'] or 'file', 80)} of {', '.join(TEXT_SUFFIXES)}{there}"
        )
    folder = repository.fetch(wanted)
    return folder / wanted[0] if len(wanted) == 1 else folder


def find_gguf(name: str, type: str | None, say: Say) -> Path | None:
    """The GGUF file of a Hub repository, `owner/model[@revision]`; None for what is no repository, or one without such files."""
    parts = _REPOSITORY.fullmatch(name)
    if parts is None or not _has_client():
        return None
    return fetch_gguf(Repository(name, parts["id"], parts["revision"]), type, say)


def fetch_checkpoint(repository: Repository) -> Path:
    """The folder with config, tokenizer and weights: of all weights that a repository may have, those that conversion reads."""
    wanted = [file for file in repository.files if SMALL_FILES.fullmatch(file)]
    weights = [file for file in (_SINGLE, _INDEX, _ADAPTER) if file in repository.files][:1]
    if weights == [_INDEX]:
        folder = repository.fetch([*wanted, _INDEX])
        places = read_json(folder / _INDEX, _MAX_INDEX_BYTES).get("weight_map", {})
        shards = {shard for shard in places.values() if isinstance(shard, str)} if isinstance(places, dict) else set()
        weights = [_INDEX, *sorted(shards & set(repository.files))]
    return repository.fetch([*wanted, *weights])


def fetch_gguf(repository: Repository, type: str | None, say: Say) -> Path | None:
    """The file of `type`, with its other parts where it is split; None where the repository has no GGUF files."""
    file = choose_file([file for file in repository.files if file.lower().endswith(".gguf")], type, repository.name)
    if file is None:
        return None
    say(f"{repository.name}: taking {file}")
    found = _PART.search(file)
    parts = [_PART.sub(f"-{i + 1:05d}-of-{found[2]}", file) for i in range(int(found[2]))] if found else [file]
    return repository.fetch([part for part in parts if part in repository.files]) / file


def choose_file(files: Iterable[str], type: str | None, name: str, default: str = "q4_k_m") -> str | None:
    """The file of a repository that is of `type`, by its name, of a split one the first part; None for no files.

    GGPyError when none or several fit.
    """
    candidates = sorted(file for file in files if not _NO_MODEL.search(Path(file).name) and _is_first(file))
    if not candidates:
        return None
    wanted = (type or default).lower()
    fitting = [file for file in candidates if wanted in _words(file)] if type or len(candidates) > 1 else candidates
    if len(fitting) != 1:
        there = ", ".join(map(printable, candidates[:20]))
        raise GGPyError(f"{printable(name)}: {len(fitting)} files are of type {printable(wanted, 40)}; the repository has {there}")
    return fitting[0]


def _is_first(file: str) -> bool:
    found = _PART.search(file)
    return found is None or int(found[1]) == 1


def _words(file: str) -> list[str]:
    return Path(_PART.sub("", file)).stem.lower().replace(".", "-").split("-")


def _has_client() -> bool:
    try:
        import huggingface_hub  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        return False
    return True


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turns what the client raises into one line that says what to do."""
    try:
        yield
    except (GGPyError, KeyboardInterrupt):
        raise
    except Exception as error:  # the client's own errors, and those of the HTTP library below it, have no common base
        raise CheckpointError(f"{printable(name)}: {_explain(error)}") from None


def _explain(error: Any) -> str:
    from huggingface_hub import errors  # pyright: ignore[reportMissingImports]

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return "the repository is gated: ask for access on its page, then log in with `hf auth login` or set HF_TOKEN"
    if isinstance(error, errors.RevisionNotFoundError):
        return "the repository has no such revision; name a branch, a tag or a commit after the @"
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 403):
        return "no such repository on the Hub, or a private one: check the name, or log in with `hf auth login` or set HF_TOKEN"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "not in the local cache, and HF_HUB_OFFLINE forbids to download it"
    first = printable(str(error).splitlines()[0] if str(error) else type(error).__name__, 300)
    if status is not None:
        return f"download failed: the Hub answers {status}: {first}"
    return f"download failed, and it is not whole in the local cache: {first}; try again to continue it"
