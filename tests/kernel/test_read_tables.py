"""Reading legacy tables without libiptc: what libiptc itself reads is the second opinion, to the byte."""

from __future__ import annotations

import ast
import errno
import struct
from collections.abc import Iterator

import pytest

from istio_iptables.kernel.xtables import read_tables
from tests.support.applying import ALL_SORTS, traffic

from ..support.scratch import FAMILIES, KERNEL, Family, Scratch

pytestmark = KERNEL

#: Read a table by libiptc's own functions and print what legacy_tables.read returns.
BY_LIBIPTC = """
import ctypes, struct, sys
family, name = sys.argv[1:]
soname, prefix = {"ipv4": ("libip4tc.so.2", "iptc"), "ipv6": ("libip6tc.so.2", "ip6tc")}[family]
library = ctypes.CDLL(soname)

def call(function, result, *arguments):
    found = getattr(library, f"{prefix}_{function}")
    found.restype = result
    return found(*arguments)

handle = ctypes.c_void_p(call("init", ctypes.c_void_p, name.encode()))

def entries(chain):
    address = call("first_rule", ctypes.c_void_p, chain, handle)
    while address:
        (size,) = struct.unpack("=H", ctypes.string_at(address + {"ipv4": 90, "ipv6": 142}[family], 2))
        target = call("get_target", ctypes.c_char_p, ctypes.c_void_p(address), handle)
        yield ctypes.string_at(address, size), (target or b"").decode()
        address = call("next_rule", ctypes.c_void_p, ctypes.c_void_p(address), handle)

chains, chain = [], call("first_chain", ctypes.c_char_p, handle)
while chain:
    chains.append((chain.decode(), list(entries(chain))))
    chain = call("next_chain", ctypes.c_char_p, handle)
print(chains)
"""

#: Chains with nothing in them and out of order; jumps forward and back, gotos, rules that only count, every
#: verdict, foreign matches and targets, policies, and counters.
STRANGE = """
*filter
:INPUT DROP [7:700]
:FORWARD ACCEPT [1:2]
:OUTPUT DROP [0:0]
:zebra - [0:0]
:EMPTY - [0:0]
:a - [0:0]
:REJECTED - [0:0]
:twenty-eight-characters-long - [0:0]
[5:500] -A INPUT -i eth+ -j zebra
-A INPUT -g a
-A INPUT
-A INPUT -m state --state NEW -m comment --comment "a comment" -j REJECTED
-A INPUT -m statistic --mode random --probability 0.25 -j DROP
-A OUTPUT -j EMPTY
-A OUTPUT -p tcp -m tcp --tcp-flags SYN,ACK SYN -j twenty-eight-characters-long
-A zebra -j a
-A zebra -j RETURN
[18446744073709551615:3] -A a -p udp -m multiport --dports 1,2:3 -j LOG --log-prefix "strange "
-A a -p udp -j QUEUE
-A a -p tcp -j NFQUEUE --queue-num 5
-A REJECTED -p tcp -j REJECT --reject-with tcp-reset
-A twenty-eight-characters-long -m limit --limit 3/hour -j ACCEPT
COMMIT
*mangle
:PREROUTING ACCEPT [0:0]
:INPUT DROP [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING DROP [3:3]
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
-A PREROUTING -j KUBE-SERVICES
-A POSTROUTING ! -o lo -j MASQUERADE --random
-A KUBE-SERVICES -p tcp -m addrtype --dst-type LOCAL -j REDIRECT --to-ports 1-9
COMMIT
*raw
:PREROUTING DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A OUTPUT -j CT --notrack
COMMIT
"""
TABLES = ("filter", "mangle", "nat", "raw")


@pytest.fixture
def scratch() -> Iterator[Scratch]:
    with Scratch(addresses=True) as made:
        yield made


def by_libiptc(scratch: Scratch, family: Family, table: str) -> list[read_tables.Chain]:
    done = scratch.python(BY_LIBIPTC, family, table)
    assert done.returncode == 0, done.stderr
    read: list[read_tables.Chain] = ast.literal_eval(done.stdout)
    return read


def without_remains(chains: list[read_tables.Chain], family: Family) -> list[read_tables.Chain]:
    """Clear what stands behind the names of extensions: the kernel leaves there what is in the reader's
    memory."""

    def cleared(entry: bytes) -> bytes:
        data, at = bytearray(entry), {"ipv4": 112, "ipv6": 168}[family]
        while at < len(data):
            (size,) = struct.unpack_from("=H", data, at)
            name = data[at + 2 : at + 31].partition(b"\0")[0]
            data[at + 2 : at + 31] = name.ljust(29, b"\0")
            at += size
        return bytes(data)

    return [(name, [(cleared(entry), target) for entry, target in rules]) for name, rules in chains]


def assert_same(scratch: Scratch, family: Family) -> dict[str, list[read_tables.Chain]]:
    found = {}
    for table in TABLES:
        wanted = by_libiptc(scratch, family, table)
        with scratch.inside():
            found[table] = read_tables.read(family, table)  # type: ignore[arg-type]
        assert found[table] == without_remains(wanted, family)
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_foreign_tables(scratch: Scratch, family: Family) -> None:
    scratch.restore("legacy", family, STRANGE, "--counters")
    found = assert_same(scratch, family)
    chains = dict(found["filter"])
    builtin = ["INPUT", "FORWARD", "OUTPUT"]
    assert [*chains] == [*builtin, "EMPTY", "REJECTED", "a", "twenty-eight-characters-long", "zebra"]
    assert [name for _, name in chains["INPUT"]] == ["zebra", "a", "", "REJECTED", "DROP"]
    assert [name for _, name in chains["a"]] == ["LOG", "QUEUE", "NFQUEUE"]
    assert chains["EMPTY"] == chains["FORWARD"] == []
    assert [len(rules) for _, rules in found["mangle"]] == [0] * 5


@pytest.mark.parametrize("arguments", [["--dual-stack"], ALL_SORTS], ids=["simple", "all sorts"])
def test_our_tables(scratch: Scratch, arguments: list[str]) -> None:
    scratch.apply(*arguments)
    traffic(scratch)
    for family in FAMILIES:
        assert "ISTIO_OUTPUT" in dict(assert_same(scratch, family)["nat"])


@pytest.mark.parametrize("family", FAMILIES)
def test_whether_a_table_exists(scratch: Scratch, family: Family) -> None:
    with scratch.inside():
        assert read_tables.exists(family, "raw")
        assert not read_tables.exists(family, "nonesuch")  # type: ignore[arg-type]
    assert scratch.legacy_tables() == {f"{family}/raw"}


class Meddler:
    """Does something to the kernel before the n-th of its answers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, change: object) -> None:
        self.answers = 0
        original = read_tables._Socket._ask

        def ask(kernel: read_tables._Socket, option: int, request: bytes) -> bytes:
            self.answers += 1
            if self.answers == at or at == 0:
                change()  # type: ignore[operator]
            return original(kernel, option, request)

        monkeypatch.setattr(read_tables._Socket, "_ask", ask)


@pytest.mark.parametrize("at", [2, 3], ids=["another size", "other chains"])
def test_a_table_that_changes_while_it_is_read_is_read_again(
    scratch: Scratch, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    scratch.restore("legacy", "ipv4", STRANGE)
    meddler = Meddler(monkeypatch, at, lambda: scratch.check("iptables-legacy", "-I", "INPUT", "-j", "zebra"))
    with scratch.inside():
        found = dict(read_tables.read("ipv4", "filter"))  # type: ignore[arg-type]
    assert [name for _, name in found["INPUT"]][:2] == ["zebra", "zebra"]
    assert meddler.answers > 3


def test_a_table_that_never_stops_changing_is_given_up(
    scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    Meddler(monkeypatch, 0, lambda: scratch.check("iptables-legacy", "-A", "INPUT", "-j", "ACCEPT"))
    with scratch.inside(), pytest.raises(OSError, match="keeps changing") as caught:
        read_tables.read("ipv4", "filter")  # type: ignore[arg-type]
    assert caught.value.errno == errno.EAGAIN
