"""iptables_save: what iptables-save prints. Every line is kept: read, or not read and with the reason.

Written again, and read once more, it is the same.
"""

from __future__ import annotations

from collections.abc import Iterator

from istio_iptables.formats import iptables_dump
from tests.fuzz.holding import allowed, files, printable, text_of

FILES = (
    "tests/fixtures/iptables/*.txt",
    "tests/fixtures/istio/*.txt",
    "tests/fixtures/releases/*/*.legacy.txt",
    "tests/fixtures/releases/*/*.nft.txt",
)


def corpus() -> Iterator[bytes]:
    yield from files(*FILES)
    yield b'*nat\n:OUTPUT - [0:0]\n[1:60] -A OUTPUT -m comment --comment "a \\"b\\" -j DROP"\nCOMMIT\n'


def check(data: bytes) -> None:
    text = text_of(data)
    if text is None:
        return
    iptables_dump.is_dump(text)
    found = allowed(lambda: iptables_dump.read(text))
    if found is None:
        return
    assert iptables_dump.read(iptables_dump.written(found)) == found
    printable(line.why for line in found.unread)  # its text is the dump's
