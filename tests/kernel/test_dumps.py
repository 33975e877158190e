"""All tables of a namespace as texts, and the sysctls that go with them. Reading makes nothing."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator

import pytest

from istio_iptables.formats import iptables_dump, nft_dump
from istio_iptables.kernel.dumps import Dumps, Printed, read_dumps
from istio_iptables.kernel.nft_command import NftCommand
from istio_iptables.kernel.sysctls import Sysctls, read_sysctls

from ..support.failing import hidden
from ..support.scratch import COMMANDS, FAMILIES, VARIANTS, Family, Fork, Scratch

_NOBODY = 65534
_EVERYTHING = [(f"iptables-{variant}", family) for variant in VARIANTS for family in FAMILIES]


@pytest.fixture
def scratch() -> Iterator[Scratch]:
    with Scratch() as made:
        yield made


def read(scratch: Scratch, *, with_handles: bool = False) -> Dumps:
    with scratch.inside():
        return read_dumps(with_handles=with_handles)


def found(dumps: Dumps) -> list[tuple[str, Family | None]]:
    return [(each.location, each.family) for each in dumps.printed]


def fill(scratch: Scratch) -> None:
    """Put a rule into a table of each variant and family, and into a table of nftables."""
    for variant, family in ((variant, family) for variant in VARIANTS for family in FAMILIES):
        scratch.restore(variant, family, "*mangle\n-A OUTPUT -m mark --mark 5 -j ACCEPT\nCOMMIT\n")
    scratch.nft(
        script="table inet own { chain out { type filter hook output priority 0; meta skuid 0 counter; }; }"
    )


def test_a_namespace_without_tables(scratch: Scratch) -> None:
    generation = scratch.generation()
    assert read(scratch) == Dumps()
    assert (scratch.legacy_tables(), scratch.generation()) == (set(), generation)


def test_all_tables_of_all_backends(scratch: Scratch) -> None:
    fill(scratch)
    before = scratch.state(), scratch.legacy_tables(), scratch.generation()
    dumps = read(scratch)
    assert (scratch.state(), scratch.legacy_tables(), scratch.generation()) == before
    assert not dumps.unreadable
    assert found(dumps) == [*_EVERYTHING, ("nftables", None)]
    for each in dumps.printed[:-1]:
        assert each.family
        assert f"{COMMANDS[each.family]}-" in each.command
        dump = iptables_dump.read(each.text)
        assert [table.name for table in dump.tables] == ["mangle"]
        assert "[0:0] -A OUTPUT -m mark --mark 0x5 -j ACCEPT" in each.text
        assert not dump.unread
    ruleset = dumps.printed[-1]
    objects = nft_dump.parse(ruleset.text).objects
    assert {each["table"]["name"] for each in objects if "table" in each} == {"own"}
    # Numbers, no names: who reads it may be elsewhere. And the same rules in nft's words, by handle.
    texts = nft_dump.rule_texts(ruleset.rule_texts)
    assert '"right": 0' in ruleset.text
    assert any("skuid 0 counter" in text for text in texts.values())


@pytest.mark.parametrize(("variant", "family"), [(v, f) for v in VARIANTS for f in FAMILIES])
def test_only_what_is_there_is_printed(scratch: Scratch, variant: str, family: Family) -> None:
    scratch.restore(variant, family, "*raw\n-A OUTPUT -j ACCEPT\nCOMMIT\n")  # type: ignore[arg-type]
    legacy = scratch.legacy_tables()
    dumps = read(scratch)
    expected: list[tuple[str, Family | None]] = [(f"iptables-{variant}", family)]
    assert found(dumps) == expected
    assert found(read(scratch, with_handles=True)) == expected + (
        [("nftables", None)] if variant == "nft" else []
    )
    assert scratch.legacy_tables() == legacy == ({f"{family}/raw"} if variant == "legacy" else set())


def test_a_table_of_iptables_nft_that_is_dormant_is_printed_by_nft(scratch: Scratch) -> None:
    """iptables-nft-save does not say that the table does nothing."""
    fill(scratch)
    scratch.nft(script="add table ip mangle { flags dormant; }")
    printed = read(scratch).printed
    assert [each.command for each in printed if each.location == "nftables"] == [
        "nft -j list table ip mangle",
        "nft -j list table inet own",
    ]


def test_a_table_that_is_only_nftables_starts_no_iptables(scratch: Scratch) -> None:
    scratch.nft(script="table ip own { chain c { }; }")
    assert found(read(scratch)) == [("nftables", None)]


def test_who_may_not_read_is_told_so(scratch: Scratch) -> None:
    fill(scratch)

    def as_nobody() -> int:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
        dumps = read_dumps()
        whats = [each.what for each in dumps.unreadable]
        assert not dumps.printed
        assert whats == [*(f"the tables of {name} ({family})" for name, family in _EVERYTHING), _NFTABLES]
        assert all("root" in each.remedy for each in dumps.unreadable), dumps.unreadable
        assert "only root can read" in str(dumps.unreadable[0])
        return 0

    with scratch.inside(), Fork(as_nobody) as child:
        assert child.wait() == 0


_NFTABLES = "the tables of nftables"
_LEGACY, _NFT, _NFTABLES_COMMAND = (
    "/usr/sbin/xtables-legacy-multi",
    "/usr/sbin/xtables-nft-multi",
    "/usr/sbin/nft",
)
_PRINT = """
import json
from istio_iptables.kernel.dumps import read_dumps
dumps = read_dumps()
print(json.dumps([[each.location for each in dumps.printed], [str(each) for each in dumps.unreadable]]))
"""


@pytest.mark.parametrize(
    ("hide", "left", "missing"),
    [
        (_LEGACY, ["iptables-nft"] * 2 + ["nftables"], ["iptables-legacy-save", "ip6tables-legacy-save"]),
        (_NFT, ["iptables-legacy"] * 2 + ["nftables"], ["iptables-nft-save", "ip6tables-nft-save"]),
        (_NFTABLES_COMMAND, ["iptables-legacy"] * 2 + ["iptables-nft"] * 2, ["nft"]),
    ],
)  # fmt: skip
def test_programs_that_are_missing(scratch: Scratch, hide: str, left: list[str], missing: list[str]) -> None:
    fill(scratch)
    done = scratch.run(*hidden(hide), sys.executable, "-c", _PRINT)
    assert done.returncode == 0, done.stderr
    printed, unreadable = json.loads(done.stdout)
    assert printed == left
    assert len(unreadable) == len(missing)
    for name, text in zip(missing, unreadable, strict=True):
        assert f"the command {name} is not installed" in text
        assert "install the package" in text
        assert "--force" not in text


def test_programs_that_fail(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    """An XTABLES_LIBDIR without the extension that a rule needs: the program says so, and it is told."""
    scratch.restore("nft", "ipv4", "*filter\n-A OUTPUT -m mark --mark 5 -j ACCEPT\nCOMMIT\n")
    scratch.restore("legacy", "ipv4", "*raw\n-A OUTPUT -m mark --mark 5 -j ACCEPT\nCOMMIT\n")
    monkeypatch.setenv("XTABLES_LIBDIR", "/nonexistent")
    dumps = read(scratch)
    assert ("iptables-legacy", "ipv4") not in found(dumps)
    [failure] = [each for each in dumps.unreadable if "iptables-legacy (ipv4)" in each.what]
    assert failure.cause.startswith("iptables-legacy-save failed")


def test_json_that_nft_breaks(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    """nft 1.0.6 writes bytes of its memory as flags of a table with an owner; here they are made up."""
    scratch.nft(script="table inet good { chain c { }; }; table ip bad { chain c { }; }")
    whole, table = NftCommand.ruleset, NftCommand.table
    broken = '{"nftables": [{"table": {"flags": "\x01\x02'

    def one(self: NftCommand, family: str, name: str) -> str:
        return broken if name == "bad" else table(self, family, name)

    monkeypatch.setattr(NftCommand, "ruleset", lambda self: (broken, whole(self)[1]))
    monkeypatch.setattr(NftCommand, "table", one)
    dumps = read(scratch)
    [printed] = dumps.printed
    assert isinstance(printed, Printed)
    objects = nft_dump.parse(printed.text).objects
    assert [each["table"]["name"] for each in objects if "table" in each] == ["good"]
    assert [each.what for each in dumps.unreadable] == ["the table ip bad"]


# --- sysctls ----------------------------------------------------------------------------------


def sysctl(scratch: Scratch, name: str, value: int) -> None:
    scratch.check("sysctl", "-qw", f"net.{name}={value}")


def test_sysctls(scratch: Scratch) -> None:
    scratch.check("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "p0")
    for name in ("all", "eth0", "p0", "lo"):
        sysctl(scratch, f"ipv4.conf.{name}.rp_filter", 0)
    for family in ("ipv4.ip_forward", "ipv6.conf.all.forwarding"):
        sysctl(scratch, family, 0)
    with scratch.inside():
        assert read_sysctls() == Sysctls({"ipv4": False, "ipv6": False})
    sysctl(scratch, "ipv4.ip_forward", 1)
    sysctl(scratch, "ipv4.conf.eth0.forwarding", 0)
    sysctl(scratch, "ipv4.conf.eth0.route_localnet", 1)
    sysctl(scratch, "ipv4.conf.all.rp_filter", 1)
    sysctl(scratch, "ipv4.conf.p0.rp_filter", 2)
    with scratch.inside():
        assert read_sysctls() == Sysctls(
            {"ipv4": True, "ipv6": False},
            forwarding=frozenset({("ipv4", "eth0")}),
            route_localnet=frozenset({"eth0"}),
            rp_filter={"eth0": 1, "p0": 2, "lo": 1},
        )
    sysctl(scratch, "ipv4.conf.all.route_localnet", 1)
    sysctl(scratch, "ipv6.conf.all.forwarding", 1)
    with scratch.inside():
        assert read_sysctls().route_localnet == {"eth0", "p0", "lo"}
        assert read_sysctls().forwards["ipv6"]
