"""What other people wrote into rules, dumps and manifests does not reach a reader's terminal as commands."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from istio_iptables.cli import streams
from istio_iptables.visible import visible
from tests.support.command import run

DUMP = """*nat
:OUTPUT ACCEPT [0:0]
-A OUTPUT -p tcp -m comment --comment "a\x1b[8m\x1b]0;title\x07\x9b2J\u202eb" -j ACCEPT
COMMIT
"""


def test_control_characters_are_escaped_but_for_newlines_and_tabs() -> None:
    assert visible("a\tb\nc\r\x1b[2J\x07\x7f\x9b\u202e\u2069ä") == (
        "a\tb\nc\\x0d\\x1b[2J\\x07\\x7f\\x9b\\u202e\\u2069ä"
    )


@pytest.mark.parametrize("style", ["\x1b[1m", "\x1b[0m", "\x1b[31m", "\x1b[1;31m"])
def test_styles_are_left_where_they_are_used(style: str) -> None:
    assert visible(f"a{style}b", styled=True) == f"a{style}b"
    assert visible(f"a{style}b") == f"a\\x1b{style[1:]}b"


@pytest.mark.parametrize(
    "sequence", ["\x1b[2J", "\x1b[m", "\x1b[?25l", "\x1b]0;title\x07", "\x1bc", "\x1b[H\x1b[1m"]
)
def test_of_sequences_only_styles_are_left(sequence: str) -> None:
    shown = visible(f"a{sequence}b", styled=True)
    assert shown.replace("\x1b[1m", "").isprintable(), shown
    assert shown.startswith("a\\x1b")


@pytest.mark.parametrize("words", [("trace", "out", "--to=10.1.1.1:80"), ("prove",)], ids=["trace", "prove"])
def test_a_dump_with_control_characters(tmp_path: Path, words: tuple[str, ...]) -> None:
    file = tmp_path / "dump"
    file.write_text(DUMP)
    done = run(*words, f"--file={file}")
    for text in (done.output, done.errors):
        assert all(character.isprintable() or character in "\n\t" for character in text)
    assert r"a\x1b[8m\x1b]0;title\x07\x9b2J\u202eb" in done.output


def test_a_line_that_could_not_be_written_does_not_silence_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line that matters most, why a run failed, comes last."""
    read, write = os.pipe()
    kept = os.dup(2)
    try:
        with open("/dev/full", "w", encoding="utf-8") as full:
            monkeypatch.setattr(sys, "stderr", full)
            os.dup2(write, 2)
            streams.complain("lost\n")
            streams.complain("said\n")
            assert os.read(read, 100) == b"said\n"
            with open(os.devnull, "wb") as nothing:  # what is left in `full` is not written
                os.dup2(nothing.fileno(), full.fileno())
    finally:
        os.dup2(kept, 2)
        for descriptor in (read, write, kept):
            os.close(descriptor)
