"""Whose is it: SPEC section 3, "Whose is it": ambient mode, foreign rules, lookalikes.

The expected values are SPEC's, and what Istio's ambient mode writes into a pod.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence

import pytest

from ..support.scratch import COMMANDS, FAMILIES, KERNEL, VARIANTS, Family, Result, Scratch, Variant
from ..support.snapshots import COMMANDS_THAT_WRITE, LOCATIONS, NATIVE, everything

pytestmark = KERNEL

every_variant = pytest.mark.parametrize("variant", VARIANTS)
every_family = pytest.mark.parametrize("family", FAMILIES)
every_location = pytest.mark.parametrize("location", LOCATIONS)


@pytest.fixture
def scratch() -> Iterator[Scratch]:
    """A namespace with a usable address of either family."""
    with Scratch(addresses=True) as made:
        yield made


def refused(scratch: Scratch, options: Sequence[str], *reasons: str) -> None:
    """Every command that writes ends with 1, gives the reasons, and touches nothing."""
    before = everything(scratch)
    for command in COMMANDS_THAT_WRITE:
        done = scratch.tool(*options, *command)
        assert done.returncode == 1, (command, done.stdout, done.stderr)
        for reason in reasons:
            assert reason.lower() in done.stderr.lower(), (command, done.stderr)
        assert everything(scratch) == before, command


def shown(done: Result) -> str:
    return (done.stdout + done.stderr).lower()


# --- ambient mode ---------------------------------------------------------------------------

#: What istio-cni of ambient mode writes into a pod.
AMBIENT = """\
*mangle
:ISTIO_OUTPUT - [0:0]
:ISTIO_PRERT - [0:0]
[1:60] -A PREROUTING -j ISTIO_PRERT
[2:120] -A OUTPUT -j ISTIO_OUTPUT
[3:180] -A ISTIO_OUTPUT -m connmark --mark 0x111/0xfff -j CONNMARK --restore-mark
[4:240] -A ISTIO_PRERT -m mark --mark 0x539/0xfff -j CONNMARK --set-xmark 0x111/0xfff
COMMIT
*nat
:ISTIO_OUTPUT - [0:0]
:ISTIO_PRERT - [0:0]
[5:300] -A PREROUTING -j ISTIO_PRERT
[6:360] -A OUTPUT -j ISTIO_OUTPUT
[7:420] -A ISTIO_OUTPUT -d {probe} -p tcp -m tcp -j ACCEPT
[8:480] -A ISTIO_OUTPUT -p tcp -m mark --mark 0x111/0xfff -j ACCEPT
[9:540] -A ISTIO_OUTPUT ! -d {loopback} -o lo -j ACCEPT
[10:600] -A ISTIO_OUTPUT ! -d {loopback} -p tcp -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15001
[11:660] -A ISTIO_PRERT -s {probe} -p tcp -m tcp -j ACCEPT
[12:720] -A ISTIO_PRERT ! -d {loopback} -p tcp ! --dport 15008 -m mark ! --mark 0x539/0xfff {to_inbound}
COMMIT
"""
AMBIENT_DNS = """\
*raw
:ISTIO_OUTPUT - [0:0]
:ISTIO_PRERT - [0:0]
-A PREROUTING -j ISTIO_PRERT
-A OUTPUT -j ISTIO_OUTPUT
-A ISTIO_OUTPUT -p udp -m mark --mark 0x539/0xfff -m udp --dport 53 -j CT --zone 1
-A ISTIO_PRERT -p udp -m mark ! --mark 0x539/0xfff -m udp --sport 53 -j CT --zone 1
COMMIT
*nat
-I ISTIO_OUTPUT ! -o lo -p udp -m mark ! --mark 0x539/0xfff -m udp --dport 53 -j REDIRECT --to-ports 15053
-I ISTIO_OUTPUT 2 ! -d {loopback} -p tcp --dport 53 -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15053
COMMIT
"""
TO_INBOUND = {"to_inbound": "-j REDIRECT --to-ports 15006"}
#: By family, what the scripts above have in braces.
ADDRESSES: dict[str, dict[str, str]] = {
    "ipv4": {**TO_INBOUND, "loopback": "127.0.0.1/32", "probe": "169.254.7.127/32"},
    "ipv6": {**TO_INBOUND, "loopback": "::1/128", "probe": "fd16:9254:7127:1337:ffff:ffff:ffff:ffff/128"},
}
AMBIENT_NFT = """\
table inet istio-ambient-mangle {
	chain prerouting {
		type filter hook prerouting priority mangle; policy accept;
		jump istio-prerouting
	}
	chain output {
		type route hook output priority mangle; policy accept;
		jump istio-output
	}
	chain istio-prerouting {
		meta mark & 0x00000fff == 0x00000539 counter ct mark set ct mark & 0xfffff000 | 0x00000111
	}
	chain istio-output {
		ct mark & 0x00000fff == 0x00000111 counter meta mark set ct mark
	}
}
table inet istio-ambient-nat {
	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		jump istio-prerouting
	}
	chain output {
		type nat hook output priority -100; policy accept;
		jump istio-output
	}
	chain istio-prerouting {
		tcp dport != 15008 meta mark & 0x00000fff != 0x00000539 counter redirect to :15006
	}
	chain istio-output {
		meta l4proto tcp meta mark & 0x00000fff == 0x00000111 counter accept
		meta l4proto tcp meta mark & 0x00000fff != 0x00000539 counter redirect to :15001
	}
}
"""


def make_ambient(scratch: Scratch, kind: str) -> None:
    """Put ambient mode's rules and its routing into a pod; kind: a location."""
    if kind == "native":
        scratch.nft(script=AMBIENT_NFT)
    for family in FAMILIES:
        script = (AMBIENT + AMBIENT_DNS).format(**ADDRESSES[family])
        for variant in VARIANTS:
            if variant == kind:
                scratch.restore(variant, family, script, "--counters")
        option = "-4" if family == "ipv4" else "-6"
        mark = ["fwmark", "0x111/0xfff", "pref", "32764", "lookup", "100"]
        scratch.ip(option, "rule", "add", *mark)
        scratch.ip(option, "route", "add", "local", "default", "dev", "lo", "table", "100")


@every_location
@pytest.mark.parametrize("kind", LOCATIONS)
def test_ambient_mode_is_left_alone_and_named(scratch: Scratch, kind: str, location: str) -> None:
    """Its ISTIO_OUTPUT is not this tool's, whichever location is asked for."""
    make_ambient(scratch, kind)
    refused(scratch, [*LOCATIONS[location], "--dual-stack"], "ambient")


@pytest.mark.parametrize("kind", LOCATIONS)
def test_diff_names_ambient_mode_and_calls_nothing_owned(scratch: Scratch, kind: str) -> None:
    make_ambient(scratch, kind)
    before = everything(scratch)
    for location in ("legacy", "nft") if kind != "native" else ("native",):
        done = scratch.tool(*LOCATIONS[location], "--dual-stack", "diff")
        assert done.returncode in (1, 3), done.stderr
        assert "ambient" in shown(done)
        # A line that begins with `-` is one of this tool's that would be removed.
        assert not [line for line in done.stdout.splitlines() if line.startswith("-")], done.stdout
    assert everything(scratch) == before


@every_variant
@every_family
def test_ambient_mode_in_one_table_of_one_family_is_enough(
    scratch: Scratch, variant: Variant, family: Family
) -> None:
    """With IPv6 off, too: what is in the namespace counts, not what would be written."""
    mangle = re.sub(r"^\[\d+:\d+\] ", "", AMBIENT.partition("*nat")[0], flags=re.MULTILINE)
    scratch.restore(variant, family, mangle)
    refused(scratch, [], "ambient")


LOOKUP = "fwmark 0x111/0xfff pref 32764 lookup 100"


def add_lookup(scratch: Scratch, family: Family, lookup: str) -> None:
    scratch.ip("-4" if family == "ipv4" else "-6", "rule", "add", *lookup.split())


@every_location
@every_family
def test_the_routing_rule_of_ambient_mode_is_enough(scratch: Scratch, family: Family, location: str) -> None:
    """Without a table or chain of its own, too."""
    add_lookup(scratch, family, LOOKUP)
    refused(scratch, LOCATIONS[location], "ambient", f"{family} ip rule {LOOKUP}")
    assert "ambient" in shown(scratch.tool(*LOCATIONS[location], "diff"))


@pytest.mark.parametrize(
    "lookup",
    [
        LOOKUP.replace("0x111/", "0x112/"),
        LOOKUP.replace("/0xfff", ""),
        LOOKUP.replace("32764", "32763"),
        LOOKUP.replace("100", "101"),
    ],
)
def test_a_routing_rule_that_is_like_that_of_ambient_mode_is_foreign(scratch: Scratch, lookup: str) -> None:
    add_lookup(scratch, "ipv4", lookup)
    before = scratch.network()
    scratch.apply()
    assert scratch.tool("diff").returncode == 0
    scratch.apply("cleanup")
    assert scratch.network() == before


# --- a chain of one of the names, with something foreign in it ------------------------------

#: Table, chain, and a rule that neither this tool nor one of Istio's writes there.
FOREIGN_IN_CHAIN = {
    "nat, no condition": ("nat", "ISTIO_INBOUND", "-j ACCEPT"),
    "nat, a source": ("nat", "ISTIO_OUTPUT", "-s {net} -j RETURN"),
    "nat, a mark": ("nat", "ISTIO_OUTPUT", "-m mark --mark 0x20 -j RETURN"),
    "nat, a comment": ("nat", "ISTIO_REDIRECT", '-p tcp -m comment --comment "of another program" -j ACCEPT'),
    "nat, a foreign chain": ("nat", "ISTIO_OUTPUT", "-j FOREIGN"),
    "nat, goto": ("nat", "ISTIO_INBOUND", "-p tcp -g ISTIO_IN_REDIRECT"),
    "nat, another destination": ("nat", "ISTIO_REDIRECT", "-p tcp -j DNAT --to-destination {host}"),
    "mangle, verdict": ("mangle", "ISTIO_DIVERT", "-j DROP"),
    "mangle, a DSCP": ("mangle", "ISTIO_INBOUND", "-p tcp -j DSCP --set-dscp 0x0a"),
    "mangle, ACCEPT in DROP": ("mangle", "ISTIO_DROP", "-p tcp -j ACCEPT"),
    "raw, no tracking": ("raw", "ISTIO_OUTPUT_DNS", "-p udp -m udp --dport 53 -j CT --notrack"),
    "raw, zone": ("raw", "ISTIO_INBOUND", "-p udp -m udp --sport 53 -j CT --zone 3"),
}
NETWORKS = {
    "ipv4": {"net": "10.9.0.0/16", "host": "10.9.0.1"},
    "ipv6": {"net": "fd09::/16", "host": "fd09::1"},
}


def put_foreign(scratch: Scratch, variant: Variant, family: Family, case: str) -> tuple[str, str]:
    """Append the foreign rule to the chain, which is made if it does not exist: chain and rule."""
    table, chain, rule = FOREIGN_IN_CHAIN[case]
    rule = rule.format(**NETWORKS[family])
    command = f"{COMMANDS[family]}-{variant}"
    needed = {chain, *re.findall(r"-[jg] ((?:ISTIO|FOREIGN)\w*)", rule)}
    for name in needed:
        if scratch.run(command, "-t", table, "-S", name).returncode:
            scratch.check(command, "-t", table, "-N", name)
    scratch.check(command, "-t", table, "-A", chain, *shlex.split(rule))
    return chain, rule


@pytest.mark.parametrize("case", FOREIGN_IN_CHAIN)
@every_variant
def test_a_chain_with_something_foreign_in_it_is_refused(
    scratch: Scratch, variant: Variant, case: str
) -> None:
    """Half of the cases in IPv4, half in IPv6."""
    family = FAMILIES[list(FOREIGN_IN_CHAIN).index(case) % 2]
    chain, rule = put_foreign(scratch, variant, family, case)
    refused(scratch, [*LOCATIONS[variant], "--dual-stack"], chain, rule.split()[-1])


@every_variant
@every_family
def test_a_foreign_rule_among_owned_ones_is_refused(
    scratch: Scratch, family: Family, variant: Variant
) -> None:
    """The rule is named, and diff names it too."""
    options = [*LOCATIONS[variant], "--dual-stack"]
    scratch.apply(*options)
    chain, rule = put_foreign(scratch, variant, family, "nat, a source")
    refused(scratch, options, f"-A {chain} {rule}")
    done = scratch.tool(*options, "diff")
    assert done.returncode in (1, 3)
    assert rule in shown(done) or rule in done.stdout + done.stderr


@every_variant
def test_a_foreign_rule_in_a_family_that_is_off_is_refused_by_cleanup(
    scratch: Scratch, variant: Variant
) -> None:
    """Cleanup looks into both families, whatever the settings."""
    put_foreign(scratch, variant, "ipv6", "nat, no condition")
    before = everything(scratch)
    done = scratch.tool("cleanup")
    assert done.returncode == 1, done.stderr
    assert "ISTIO_INBOUND" in done.stderr
    assert everything(scratch) == before


#: What another program's table of one of our names may hold: the table, and what is in it.
FOREIGN_NATIVE = {
    "chain": ("nat", "chain accounting {\n counter\n}"),
    "base chain": ("nat", "chain input {\n type filter hook input priority 0\n}"),
    "rule": (
        "nat",
        """chain output {
            type nat hook output priority -100; policy accept
            jump istio-output
        }
        chain istio-output {
            ip daddr 10.9.0.0/16 counter accept
        }""",
    ),
    "a target that owned rules have": (
        "nat",
        "chain istio-redirect {\n ip saddr 10.9.0.1 tcp dport 80 counter redirect to :8080\n}",
    ),
    "policy": ("mangle", "chain prerouting {\n type filter hook prerouting priority mangle; policy drop\n}"),
    "set": ("nat", "set allowed {\n type ipv4_addr\n elements = { 10.9.0.1 }\n}"),
    "flag": ("nat", "flags dormant\nchain istio-output {\n tcp dport 15008 counter return\n}"),
    "raw": ("raw", "chain istio-output-dns {\n udp dport 53 counter notrack\n}"),
    "counter": ("nat", "counter hits {\n packets 3 bytes 4\n}"),
}


@pytest.mark.parametrize("case", FOREIGN_NATIVE)
def test_a_native_table_of_another_program_is_refused(scratch: Scratch, case: str) -> None:
    table, content = FOREIGN_NATIVE[case]
    name = f"istio-proxy-{table}"
    scratch.nft(script=f"table inet {name} {{\n{content}\n}}\n")
    refused(scratch, [*NATIVE, "--dual-stack"], name)


OUTPUT_CHAIN = ("inet", "istio-proxy-nat", "istio-output")


def test_a_foreign_rule_in_an_applied_native_table_is_refused(scratch: Scratch) -> None:
    scratch.apply(*NATIVE)
    scratch.nft("add", "rule", *OUTPUT_CHAIN, "ip", "daddr", "10.9.0.1", "drop")
    number = len(re.findall(r"counter packets", scratch.nft("list", "chain", *OUTPUT_CHAIN))) + 1
    refused(scratch, NATIVE, f"rule {number} of chain istio-output (ip daddr 10.9.0.1 drop)")
    done = scratch.tool(*NATIVE, "diff")
    assert done.returncode in (1, 3)
    assert "istio-output" in done.stdout + done.stderr


def test_native_tables_of_another_family_are_foreign(scratch: Scratch) -> None:
    """`table ip istio-proxy-nat` is none of the three tables of family inet."""
    scratch.nft(script="table ip istio-proxy-nat {\nchain istio-output {\ncounter drop\n}\n}\n")
    before = scratch.nft("list", "table", "ip", "istio-proxy-nat")
    for command in COMMANDS_THAT_WRITE:
        scratch.apply(*NATIVE, *command)
        assert scratch.nft("list", "table", "ip", "istio-proxy-nat") == before
    assert "inet" not in scratch.nft("list", "tables")


# --- foreign rules that are like Istio's, but are not ----------------------------------------


def lookalikes(family: Family) -> str:
    """Rules that miss a form of Istio's tools by one value."""
    net, loopback = NETWORKS[family]["net"], ADDRESSES[family]["loopback"]
    to, other = ("127.0.0.1:15054", "127.0.0.2:15053") if family == "ipv4" else ("[::1]:15054", "[::2]:15053")
    return f"""\
*raw
[1:100] -A PREROUTING -p udp -m udp --sport 53 -j CT --zone 3
[2:100] -A PREROUTING -p tcp -m tcp --sport 53 -j CT --zone 1
[3:100] -A OUTPUT -p udp -m udp --dport 53 -j CT --zone 3
[4:100] -A OUTPUT -p udp -m udp --dport 5353 -j CT --zone 2
[5:100] -A OUTPUT -p udp -m udp --sport 15054 -m owner --uid-owner 1337 -j CT --zone 2
[6:100] -A OUTPUT -d {net} -p udp -m udp --dport 53 -j CT --notrack
COMMIT
*mangle
:ISTIOLIKE - [0:0]
[1:200] -A PREROUTING -p tcp -m mark --mark 0x7 -j CONNMARK --save-mark
[2:200] -A PREROUTING -p tcp -m mark --mark 0x539/0xff -j CONNMARK --save-mark
[3:200] -A PREROUTING -i eth1 -m comment --comment "was istio-iptables once" -j RETURN
[4:200] -A PREROUTING -p tcp -j ISTIOLIKE
[5:200] -A OUTPUT -o lo -p tcp -m mark --mark 0x53b -j RETURN
[6:200] -A OUTPUT -o eth0 -p tcp -m mark --mark 0x539 -j RETURN
[7:200] -A OUTPUT ! -d {loopback} -o lo -p tcp -m owner --uid-owner 1337 -j MARK --set-xmark 0x578/0xffffffff
[8:200] -A OUTPUT ! -d {loopback} -o lo -p tcp -m owner --uid-owner 1337 -j MARK --set-xmark 0x53a/0xfff
[9:200] -A OUTPUT -p tcp -m connmark --mark 0x53b -j CONNMARK --restore-mark
[10:200] -A OUTPUT -p udp -m connmark --mark 0x539 -j CONNMARK --restore-mark
[11:200] -A ISTIOLIKE -m comment --comment "-j ISTIO_OUTPUT" -j RETURN
COMMIT
*nat
:ISTIOLIKE - [0:0]
[1:300] -A PREROUTING -p tcp -j ISTIOLIKE
[2:300] -A PREROUTING -i eth1 -m comment --comment ISTIO_INBOUND -j RETURN
[3:300] -A OUTPUT -j ISTIOLIKE
[4:300] -A OUTPUT -d {net} -p udp -m udp --dport 53 -j REDIRECT --to-ports 15054
[5:300] -A OUTPUT -d {net} -p udp -m udp --dport 53 -j DNAT --to-destination {to}
[6:300] -A OUTPUT -d {net} -p udp -m udp --dport 53 -j DNAT --to-destination {other}
[7:300] -A OUTPUT -d {net} -p udp -m udp --dport 5353 -j REDIRECT --to-ports 15053
[8:300] -A OUTPUT -m comment --comment "istio-iptables and more" -j RETURN
[9:300] -A POSTROUTING -p udp -m udp --dport 15054 -j SNAT --to-source {loopback.partition("/")[0]}
[10:300] -A ISTIOLIKE -p tcp -m tcp --dport 15008 -j RETURN
COMMIT
*filter
[1:400] -A INPUT -m comment --comment istio-iptables -j DROP
COMMIT
"""


@every_variant
@every_family
def test_rules_that_are_only_like_istios_are_never_touched(
    scratch: Scratch, family: Family, variant: Variant
) -> None:
    """Byte for byte, with counters and in order, through apply, reconcile and cleanup, in all tables."""
    scratch.restore(variant, family, lookalikes(family), "--counters")
    alone = scratch.save(variant, family, counters=True)
    assert sum(line.startswith("[") for line in alone.splitlines()) == 28
    options = [*LOCATIONS[variant], "--dual-stack", "-m", "TPROXY", "--redirect-dns", "--capture-all-dns"]

    def foreign() -> list[str]:
        """Return the lines with counters: every owned one has none, as no packet passes here."""
        text = scratch.save(variant, family, counters=True)
        return [line for line in text.splitlines() if line.startswith("[") and not line.startswith("[0:0]")]

    before = foreign()
    for arguments in (options, [*options, "-c", "eth1", "--drop-invalid", "--reconcile"]):
        scratch.apply(*arguments)
        assert foreign() == before
    done = scratch.apply("cleanup")
    assert scratch.save(variant, family, counters=True) == alone
    assert " -D " not in done.stderr  # nothing that any program could have written is like these
