"""The pictures of the documentation are those that the tool makes, and every page shows those that it has."""

from __future__ import annotations

import re
import runpy
from xml.etree import ElementTree

import pytest

from tests.support.pages import ROOT

TOOL = runpy.run_path(str(ROOT / "tools/pictures.py"))
FOLDER = ROOT / "docs/pictures"


@pytest.mark.parametrize("name", TOOL["DRAWINGS"])
def test_pictures_are_those_that_the_tool_makes(name: str):
    there = (FOLDER / f"{name}.svg").read_text(encoding="utf-8")
    assert there == TOOL["drawn"](name), "stale: make pictures"
    ElementTree.fromstring(there)


def test_every_picture_is_shown_with_words_for_who_cannot_see_it():
    files = {path.relative_to(ROOT / "docs").as_posix() for path in FOLDER.iterdir()}
    assert files == {f"pictures/{name}.svg" for name in TOOL["DRAWINGS"]}
    text = (ROOT / "docs/packet-flow.md").read_text()
    shown = {path: words for words, path in re.findall(r"!\[([^\]]*)\]\((pictures/[^)]+)\)", text)}
    assert set(shown) == files
    assert all(len(words.split()) >= 6 for words in shown.values())


def test_the_first_picture_of_the_readme_is_one_of_them():
    text = (ROOT / "README.md").read_text()
    [first, *_] = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert first == "docs/pictures/redirect.svg"
    assert text.index(first) < text.index("\n## ")
