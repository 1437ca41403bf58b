"""Every link between the repository's pages leads somewhere, and what must have a page has one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ggpy.arch import ARCHS
from ggpy.blocks import BLOCKS

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "formats").rglob("*.md")])
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors that headings of a page have, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path):
    for target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if target.startswith(("http:", "https:", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        file = page if not name else (page.parent / name).resolve()
        assert file.exists() and file.is_relative_to(ROOT), f"{page.relative_to(ROOT)} links to {target}, which does not exist"
        if anchor:
            assert anchor in anchors(file), f"{page.relative_to(ROOT)} links to {target}, but there is no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_named_in_pages_exist(page: Path):
    """A path in backticks that begins with a folder of the checkout is a file of it; <…>, NAME and {…} stand for others."""
    folders = ("ggpy/", "formats/", "tests/", "tools/", "docs/")
    for path in re.findall(r"`([\w./-]+)`", page.read_text(encoding="utf-8")):
        if path.startswith(folders) and not re.search(r"\b[A-Z]+\b|\bexample\b|mine", path):
            assert (ROOT / path).exists(), f"{page.relative_to(ROOT)} names {path}, which does not exist"


def test_every_page_in_docs_can_be_reached_from_the_readme():
    seen, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        for target in LINK.findall(page.read_text(encoding="utf-8")):
            file = (page.parent / target.partition("#")[0]).resolve()
            todo += sorted(file.glob("*.md")) if file.is_dir() else [file] if file.is_file() else []
    unreachable = [str(page.relative_to(ROOT)) for page in PAGES if page.is_relative_to(ROOT / "docs") and page not in seen]
    assert not unreachable, f"no way from README.md to {', '.join(unreachable)}"


@pytest.mark.parametrize("name", sorted(name for name, block in BLOCKS.items() if block.decode is not None))
def test_every_block_format_that_can_be_read_has_its_page(name: str):
    assert (ROOT / "formats" / "blocks" / f"{name.lower()}.md").is_file()


@pytest.mark.parametrize("name", sorted(ARCHS))
def test_every_architecture_has_its_page(name: str):
    assert (ROOT / "docs" / "architectures" / f"{name}.md").is_file()
