"""Taking a legacy table apart: what no program that writes tables through libiptc puts into one."""

from __future__ import annotations

import errno
import struct

import pytest

from istio_iptables.kernel.xtables import read_tables

HEAD = {"ipv4": 112, "ipv6": 168}
OFFSETS_AT = {"ipv4": 88, "ipv6": 140}


class Blob:
    """A table in the making."""

    def __init__(self, family: str) -> None:
        self.family = family
        self.data = b""

    def add(self, target: bytes, payload: bytes) -> int:
        """Add an entry without matches and return where it is."""
        at, head = len(self.data), bytearray(HEAD[self.family])
        body = payload + bytes(-len(payload) % 8)
        struct.pack_into("=HH", head, OFFSETS_AT[self.family], len(head), len(head) + 32 + len(body))
        self.data += bytes(head) + struct.pack("=H29sB", 32 + len(body), target, 0) + body
        return at

    def verdict(self, number: int) -> int:
        return self.add(b"", struct.pack("=i", number))

    def chain(self, name: bytes) -> int:
        return self.add(b"ERROR", name.ljust(32, b"\0"))


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_chains_out_of_order_and_hooks_that_are_not_in_use(family: str) -> None:
    blob = Blob(family)
    blob.verdict(-2)  # the policy of OUTPUT, which has no rules
    forward = blob.verdict(-1)
    blob.verdict(-2)
    blob.chain(b"b\0remains")
    in_b = blob.verdict(-4)
    middle = blob.verdict(-5)
    blob.verdict(-5)
    blob.chain(b"a")
    blob.verdict(in_b)
    blob.verdict(middle)
    blob.add(b"LOG\0remains", bytes(8))
    blob.verdict(-5)
    blob.chain(b"ERROR")
    output_and_forward = 1 << 3 | 1 << 2
    info = (output_and_forward, 0, 0, forward, 0, 0, 0, 0, 0, 0, 0, 13, len(blob.data))
    chains = read_tables.chains_of(blob.data, info, family)  # type: ignore[arg-type]
    assert [(name, [target for _, target in rules]) for name, rules in chains] == [
        ("OUTPUT", []),
        ("FORWARD", ["DROP"]),
        ("a", ["b", "b", "LOG"]),
        ("b", ["QUEUE", "RETURN"]),
    ]


# --- what no Linux has ------------------------------------------------------------------------


def none_of_linux(family: str, data: bytes, hooks: int = 1 << 3) -> None:
    info = (hooks, *[0] * 12)
    with pytest.raises(OSError, match="Bad message") as caught:
        read_tables.chains_of(data, info, family)  # type: ignore[arg-type]
    assert caught.value.errno == errno.EBADMSG


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_sizes_that_cannot_be(family: str) -> None:
    whole = Blob(family)
    whole.verdict(-2)
    whole.chain(b"ERROR")
    assert read_tables.chains_of(whole.data, (1 << 3, *[0] * 12), family) == [("OUTPUT", [])]  # type: ignore[arg-type]
    for cut in (1, HEAD[family] - 1, len(whole.data) - 1):
        none_of_linux(family, whole.data[:cut])
    least = HEAD[family] + 32 + 4
    for target_at, size in (
        (0, 0),  # which would never end
        (HEAD[family] - 1, least),
        (HEAD[family], least - 1),
        (HEAD[family] + 8, least),
        (HEAD[family], 0xFFFF),
    ):
        odd = bytearray(whole.data)
        struct.pack_into("=HH", odd, OFFSETS_AT[family], target_at, size)
        none_of_linux(family, bytes(odd))


def test_rules_of_no_chain_and_jumps_to_none() -> None:
    blob = Blob("ipv4")
    blob.verdict(-2)
    blob.chain(b"ERROR")
    none_of_linux("ipv4", blob.data, hooks=0)
    jump = Blob("ipv4")
    jump.chain(b"a")
    jump.verdict(0)  # to before the first rule of the only chain
    jump.verdict(-5)
    jump.chain(b"ERROR")
    none_of_linux("ipv4", jump.data, hooks=0)


def test_no_entries_are_no_chains() -> None:
    assert read_tables.chains_of(b"", (0, *[0] * 12), "ipv4") == []
