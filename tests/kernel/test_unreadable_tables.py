"""Tables of iptables that iptables-nft cannot read, since another program used nft: SPEC section 5."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from ..support.scratch import FAMILIES, KERNEL, Family, Scratch
from ..support.snapshots import LOCATIONS, everything, routing, rules

pytestmark = KERNEL

every_family = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture
def scratch() -> Iterator[Scratch]:
    """A namespace with a usable address of either family."""
    with Scratch(addresses=True) as made:
        yield made


# --- a table that iptables-nft cannot read --------------------------------------------------

TABLES = {"ipv4": "ip", "ipv6": "ip6"}


def masquerade(family: Family) -> str:
    """Return a script of nft, which iptables-nft cannot read: its target MASQUERADE is another expression."""
    return f"""table {TABLES[family]} nat {{
        chain POSTROUTING {{
            type nat hook postrouting priority 100; policy accept;
            oifname "eth0" masquerade
        }}
    }}"""


def foreign_chain(scratch: Scratch, family: Family) -> str:
    return scratch.nft("list", "chain", TABLES[family], "nat", "POSTROUTING")


@every_family
def test_iptables_nft_is_not_chosen_where_it_cannot_read_a_table(scratch: Scratch, family: Family) -> None:
    """Though the namespace has rules of nft, which would otherwise decide for it; all commands work."""
    scratch.nft(script=masquerade(family))
    before = foreign_chain(scratch, family)
    done = scratch.apply("--dual-stack")
    assert {variant for variant, _, _ in rules(scratch) if variant == "legacy"}
    assert "libiptc" in done.stderr
    assert "nothing to do" in scratch.apply("--dual-stack").stderr
    assert scratch.tool("--dual-stack", "diff").returncode == 0
    scratch.apply("--dual-stack", "-b", "80", "--reconcile")
    scratch.apply("cleanup")
    assert rules(scratch) == {}
    assert foreign_chain(scratch, family) == before


@every_family
def test_iptables_nft_that_cannot_read_a_table_is_refused_before_anything_is_written(
    scratch: Scratch, family: Family
) -> None:
    scratch.nft(script=masquerade(family))
    before = everything(scratch)
    for command in ([], ["--reconcile"]):
        done = scratch.tool(*LOCATIONS["nft"], "--dual-stack", *command)
        assert done.returncode == 1, done.stderr
        assert "nat" in done.stderr
        assert "modprobe" not in done.stderr
        assert everything(scratch) == before


@every_family
def test_a_table_that_became_unreadable_is_cleaned_by_handle(scratch: Scratch, family: Family) -> None:
    """Until then every other command ends with 1 and says what to do; afterwards another backend does it."""
    options = ["--dual-stack", "-c", "eth1", "--redirect-dns", "--capture-all-dns"]
    scratch.apply(*LOCATIONS["nft"], *options)
    scratch.nft(script=masquerade(family))
    foreign = foreign_chain(scratch, family)
    before = everything(scratch)
    for command in ([], ["diff"], ["-b", "80", "--reconcile"]):
        done = scratch.tool(*options, *command)
        assert done.returncode == 1, (command, done.stdout, done.stderr)
        assert "cleanup" in done.stderr, (command, done.stderr)
        assert everything(scratch) == before
    scratch.apply("cleanup")
    assert foreign_chain(scratch, family) == foreign
    left = scratch.nft("list", "ruleset")
    assert "ISTIO_" not in left
    assert "istio" not in left
    assert "eth1" not in left
    scratch.apply(*options)
    assert {variant for variant, _, _ in rules(scratch)} == {"legacy"}
    assert "nothing to do" in scratch.apply(*options).stderr
    assert foreign_chain(scratch, family) == foreign
    again = scratch.apply("cleanup")
    assert "ISTIO_" not in scratch.nft("list", "ruleset"), again.stderr
    assert rules(scratch) == {}


def test_cleaning_by_handle_leaves_foreign_rules_between_owned_ones(scratch: Scratch) -> None:
    """Rules of the same chains, before and after the owned ones, with counters."""
    scratch.check(
        "iptables-nft", "-t", "nat", "-A", "OUTPUT", "-d", "10.9.0.1", "-c", "3", "300", "-j", "ACCEPT"
    )
    scratch.apply(*LOCATIONS["nft"], "-c", "eth1")
    scratch.check(
        "iptables-nft", "-t", "nat", "-A", "OUTPUT", "-d", "10.9.0.2", "-c", "4", "400", "-j", "ACCEPT"
    )
    scratch.nft(script=masquerade("ipv4"))
    scratch.apply("cleanup")
    listed = scratch.nft("list", "chain", "ip", "nat", "OUTPUT")
    found = re.findall(r"ip daddr (\S+) counter packets (\d+) bytes (\d+) accept", listed)
    assert found == [("10.9.0.1", "3", "300"), ("10.9.0.2", "4", "400")]
    assert "ISTIO" not in scratch.nft("list", "table", "ip", "nat")
    assert len(re.findall(r"counter", listed)) == 2


@every_family
def test_a_chain_of_odd_priority_is_named_and_no_module_is_asked_for(
    scratch: Scratch, family: Family
) -> None:
    script = (
        f"table {TABLES[family]} nat {{ chain PREROUTING {{ type nat hook prerouting priority -99; }}; }}"
    )
    scratch.nft(script=script)
    before = scratch.state(counters=True)
    done = scratch.tool(*LOCATIONS["nft"], "--dual-stack")
    assert done.returncode == 1, done.stderr
    assert "nat" in done.stderr
    assert "module" not in done.stderr
    assert "modprobe" not in done.stderr
    assert scratch.state(counters=True) == before


def unreadable_nat(scratch: Scratch, script: str) -> None:
    """Load rules with iptables-nft, then have nft make the table unreadable for it."""
    scratch.restore("nft", "ipv4", script)
    scratch.nft(script=masquerade("ipv4"))
    assert "incompatible" in scratch.check("iptables-nft-save", "-t", "nat")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (
            """*nat
:ISTIO_PRERT - [0:0]
:ISTIO_OUTPUT - [0:0]
-A OUTPUT -j ISTIO_OUTPUT
-A ISTIO_OUTPUT -p tcp -m mark --mark 0x111/0xfff -j ACCEPT
COMMIT
""",
            "ambient",
        ),
        (
            "*nat\n:ISTIO_OUTPUT - [0:0]\n-A ISTIO_OUTPUT -m mark --mark 0x20 -j RETURN\nCOMMIT\n",
            "-A ISTIO_OUTPUT -m mark --mark 0x20 -j RETURN",
        ),
    ],
    ids=["ambient mode", "foreign rule"],
)
def test_what_is_foreign_in_an_unreadable_table_is_not_removed_by_handle(
    scratch: Scratch, script: str, reason: str
) -> None:
    unreadable_nat(scratch, script)
    before = everything(scratch)
    done = scratch.tool("cleanup")
    assert done.returncode == 1, done.stderr
    assert reason in done.stderr
    assert everything(scratch) == before


def test_a_chain_that_only_nft_can_show_is_not_removed_by_handle(scratch: Scratch) -> None:
    """A rule by nft in ISTIO_OUTPUT itself is foreign."""
    scratch.apply(*LOCATIONS["nft"])
    scratch.nft("add", "rule", "ip", "nat", "ISTIO_OUTPUT", "tcp", "dport", "9", "redirect", "to", ":9")
    before = everything(scratch)
    done = scratch.tool("cleanup")
    assert done.returncode == 1, done.stderr
    assert "ISTIO_OUTPUT" in done.stderr
    assert everything(scratch) == before


def test_what_istios_tools_left_in_an_unreadable_table_is_removed_by_handle(scratch: Scratch) -> None:
    """And what any program could have written is named and left."""
    script = """*nat
:ISTIO_OUTPUT - [0:0]
-A PREROUTING -i eth1 -j RETURN
-A OUTPUT -p tcp -j ISTIO_OUTPUT
-A OUTPUT -p udp -m udp --dport 53 -m owner --uid-owner 1337 -j RETURN
-A OUTPUT -p udp -m udp --dport 53 -j REDIRECT --to-ports 15053
-A OUTPUT -p udp -m udp --dport 54 -j REDIRECT --to-ports 15053
-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN
COMMIT
"""
    unreadable_nat(scratch, script)
    done = scratch.apply("cleanup")
    # The one that is left reads 54.
    assert scratch.check("iptables-nft", "-t", "nat", "-S", "OUTPUT").splitlines()[1:] == [
        "-A OUTPUT -p udp -m udp --dport 54 -j REDIRECT --to-ports 15053"
    ]
    assert "ISTIO" not in scratch.nft("list", "table", "ip", "nat")
    assert "iptables-nft -t nat -D PREROUTING -i eth1 -j RETURN" in done.stderr
    assert "-A OUTPUT -p udp -m udp --dport 53 -j REDIRECT --to-ports 15053" in done.stderr


def test_a_table_that_both_can_read_is_used_as_it_is(scratch: Scratch) -> None:
    """A base chain of another name at the same hook does not stop iptables-nft."""
    scratch.nft(
        script="""table ip nat {
        chain postrouting {
            type nat hook postrouting priority 100
            oifname "eth0" masquerade
        }
    }"""
    )
    before = scratch.nft("list", "chain", "ip", "nat", "postrouting")
    scratch.apply(*LOCATIONS["nft"])
    assert "nothing to do" in scratch.apply(*LOCATIONS["nft"]).stderr
    scratch.apply("cleanup")
    assert scratch.nft("list", "chain", "ip", "nat", "postrouting") == before
    assert rules(scratch) == {}


def test_routes_go_with_the_marks_of_an_unreadable_mangle_table(scratch: Scratch) -> None:
    """The marks of TPROXY rules tell which routes are owned, in this table as in any other."""
    before = routing(scratch)
    scratch.apply(*LOCATIONS["nft"], "-m", "TPROXY", "-t", "1400", "-r", "140")
    scratch.nft(
        script="""table ip mangle {
        chain POSTROUTING {
            type filter hook postrouting priority -150; policy accept
            ct mark set 0x7
        }
    }"""
    )
    assert "incompatible" in scratch.check("iptables-nft-save", "-t", "mangle")
    scratch.apply("cleanup")
    assert routing(scratch) == before
    left = scratch.nft("list", "ruleset")
    assert "ISTIO" not in left
    assert "ct mark set 0x00000007" in left
    assert left.count("mark") == 1
    assert rules(scratch) == {}
