"""The documents lead to one another, and nowhere else but to what is there."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.research_data import PROJECT

DOCUMENTS = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md")])
PICTURES = sorted(PROJECT.glob("docs/pictures/*"))
TARGET = re.compile(r'(?:\]\(|\bsrc="|\bsrcset=")([^)"\s]+)')


def links(document: Path) -> Iterator[tuple[Path, str]]:
    """Files that a document links to, each with the place in it (empty: none)."""
    for target in TARGET.findall(document.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", target):
            name, _, place = target.partition("#")
            yield ((document.parent / name).resolve() if name else document), place


def places(document: Path) -> set[str]:
    """Names by which the headings of a document are linked to."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_what_is_there(document: Path) -> None:
    for target, place in links(document):
        assert target.exists(), target
        assert not place or place in places(target), f"{target.name}#{place}"


def test_every_document_and_picture_is_linked_from_another() -> None:
    linked = {target for page in DOCUMENTS for target, _ in links(page) if target != page}

    assert {path.name for path in {*DOCUMENTS, *PICTURES} - linked} == {"README.md"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_nothing_is_said_twice(document: Path) -> None:
    prose = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = [line for line in prose.splitlines() if len(line) > 40]

    assert sorted(line for line in set(lines) if lines.count(line) > 1) == []
