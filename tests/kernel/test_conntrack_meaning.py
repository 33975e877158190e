"""What matches on connections mean, asked of the kernel: nat, zones, and packets without an entry.

Rules that set a bit of the mark each stand before and behind what changes the connection; the mark that a
packet has at the end, and that of the answer and of the next packet, has to be the one foretold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from ..support.fixed_packets import BEYOND, FAR, NEAR, NEAR_SIDE, OWN, SIDE, echo, seen, tcp, udp
from ..support.testbed import Setup, Step, Testbed, lines
from ..support.truth import Compared, compare

SERVICE, SNAT = "10.96.0.1", "10.88.0.7"

#: What is done to connections, before which hooks of nat have been asked.
NAT = f"""\
*nat
-A OUTPUT -d {SERVICE} -p udp -j DNAT --to-destination {FAR}:5353
-A OUTPUT -d {SERVICE} -p tcp -j REDIRECT --to-ports 15001
-A PREROUTING -d {SIDE} -p udp --dport 53 -j DNAT --to-destination {OWN}:5353
-A PREROUTING -d {SIDE} -p tcp -j REDIRECT --to-ports 15006
-A POSTROUTING -d 198.18.0.0/16 -j SNAT --to-source {SNAT}
-A POSTROUTING -p udp -s 127.0.0.1 -j SNAT --to-source :7777
COMMIT
"""
#: Options of conntrack; each is asked as it is and negated.
OPTIONS = (
    "--ctstate DNAT",
    "--ctstate SNAT",
    "--ctstate NEW,SNAT",
    f"--ctorigdst {SERVICE}",
    "--ctorigdstport 53",
    f"--ctreplsrc {FAR}",
    "--ctreplsrcport 5353",
    f"--ctrepldst {SNAT}",
    "--ctrepldstport 7777",
    f"--ctorigsrc {OWN}",
    "--ctdir REPLY",
)
NATIVE = (
    f"ct original ip daddr {SERVICE}",
    f"ct original ip saddr {OWN}",
    f"ct reply ip saddr {FAR}",
    f"ct reply ip daddr {SNAT}",
    f"ct reply ip daddr != {SNAT}",
    "meta l4proto udp ct original proto-dst 53",
    "meta l4proto udp ct reply proto-src 5353",
    "meta l4proto udp ct reply proto-dst { 7777, 40000 }",
    "ct status dnat",
    "ct status & snat == 0",
    "ct direction reply",
    "ct state { new, established }",
    "ct zone 0",
    "ct zone 3-5",
    "ct original zone 3",
    "ct reply zone 4",
    "ct original zone != 5",
)


PACKETS = (
    udp(OWN, SERVICE, 53),
    udp(OWN, FAR, 53),
    udp(OWN, BEYOND, 53),
    udp("127.0.0.1", "127.0.0.1", 53),
    udp(OWN, OWN, 5353),
    tcp(OWN, SERVICE, 80),
    tcp(OWN, FAR, 80),
    udp(NEAR_SIDE, SIDE, 53, "lo1"),
    udp(NEAR, OWN, 53, "eth0"),
    tcp(NEAR_SIDE, SIDE, 80, "lo1"),
)


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    with Testbed() as made:
        yield made


def talks(bed: Testbed, *steps: Step) -> list[Compared]:
    """Send the packets, answers and later ones through some rules; all foretold has to have happened."""
    return seen(bed, Setup(steps), PACKETS, talk=True)


def probes(chain: str, options: Sequence[str], first_bit: int) -> list[str]:
    """Return rules of iptables that set a bit each."""
    return [
        f"-A {chain} -m conntrack {option} -j MARK --or-mark {1 << bit:#x}"
        for bit, option in enumerate(options, first_bit)
    ]


def both_ways(options: Sequence[str]) -> list[str]:
    """Return options as they are and negated, where iptables takes that."""
    return [*options, *(f"! {option}" for option in options if not option.startswith("--ctdir"))]


def native(chain: str, hook: str, priority: int, first: Sequence[str] = ()) -> str:
    """Return a chain of nft with probes, behind other rules."""
    rules = [f"{probe} meta mark set meta mark or {1 << bit:#x}" for bit, probe in enumerate(NATIVE)]
    body = lines(f"        {rule}" for rule in (*first, *rules))
    return f"    chain {chain} {{\n        type filter hook {hook} priority {priority}\n{body}    }}\n"


@pytest.mark.parametrize("variant", ["legacy", "nft"])
@pytest.mark.parametrize("chain", ["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"])
def test_options_behind_nat(bed: Testbed, variant: str, chain: str) -> None:
    """Of OUTPUT and INPUT the table security is behind nat, of the others mangle before it."""
    table = "security" if chain in ("INPUT", "OUTPUT") else "mangle"
    text = f"{NAT}*{table}\n{lines(probes(chain, both_ways(OPTIONS), 0))}COMMIT\n"
    found = talks(bed, Step(f"{variant} ipv4", text))
    assert not any(each.depends for each in found)
    assert len({each.observed.event.mark for each in found if each.observed.event}) >= 3


@pytest.mark.parametrize(
    ("hook", "priority"), [("prerouting", -90), ("input", 110), ("output", 10), ("postrouting", 110)]
)
def test_expressions_behind_nat(bed: Testbed, hook: str, priority: int) -> None:
    """`ct reply` of a first packet is what nat has made of it so far."""
    zones = "*raw\n-A OUTPUT -p tcp -j CT --zone 5\n-A PREROUTING -i lo1 -j CT --zone 5\nCOMMIT\n"
    text = f"table ip probe {{\n{native('probe', hook, priority)}}}\n"
    found = talks(bed, Step("legacy ipv4", f"{zones}{NAT}"), Step("nft", text))
    assert not any(each.depends for each in found)
    assert len({each.observed.event.mark for each in found if each.observed.event}) >= 3


ZONES = ("--zone 5", "--zone-orig 3", "--zone-reply 4", "--zone-orig 5", "--notrack")


@pytest.mark.parametrize("zone", ZONES)
def test_zones_and_what_has_none(bed: Testbed, zone: str) -> None:
    """Zones of both directions or of one, and what conntrack leaves alone, later in raw and behind it."""
    raw = [f"-A {chain} -p udp -j CT {zone}" for chain in ("OUTPUT", "PREROUTING")]
    options = both_ways(("--ctstate NEW", "--ctstate INVALID", "--ctstate UNTRACKED", "--ctdir ORIGINAL"))
    raw += [*probes("OUTPUT", options, 17), *probes("PREROUTING", options, 17)]
    text = f"*raw\n{lines(raw)}COMMIT\n{NAT}"
    chains = native("sent", "output", 10) + native("came", "prerouting", -90)
    found = talks(bed, Step("legacy ipv4", text), Step("nft", f"table ip probe {{\n{chains}}}\n"))
    assert not any(each.depends for each in found)


@pytest.mark.parametrize(
    "statement",
    ["ct zone set 5", "ct original zone set 3", "ct reply zone set 4", "notrack"],
)
def test_zones_of_nft(bed: Testbed, statement: str) -> None:
    """The rules behind one that sets a zone do not find it before conntrack has seen the packet."""
    first = [f"meta l4proto udp {statement}"]
    chains = native("sent", "output", -310, first) + native("came", "prerouting", -310, first)
    found = talks(bed, Step("nft", f"table ip probe {{\n{chains}}}\n"), Step("legacy ipv4", NAT))
    assert not any(each.depends for each in found)


def test_a_zone_of_nft_undoes_notrack(bed: Testbed) -> None:
    """What then becomes of the packet is not foretold; iptables leaves it alone, whoever said so."""
    first = "*raw\n-A OUTPUT -p udp -j CT --notrack\n-A OUTPUT -p udp -j CT --zone 5\nCOMMIT\n"
    assert not any(each.depends for each in talks(bed, Step("legacy ipv4", first)))
    again = (
        "table ip probe { chain out { type filter hook output priority -290; udp dport 53 ct zone set 5; }; }"
    )
    try:
        bed.load(Setup((Step("legacy ipv4", first), Step("nft", again))))
        [found] = compare(bed, bed.world(), udp(OWN, FAR, 53), talk=False)
        assert found.observed.event
        assert (found.observed.event.state, str(found.foretold.verdict)) == ("NEW original", "depends")
    finally:
        bed.unload()


@pytest.mark.parametrize("variant", ["legacy", "nft"])
def test_options_of_a_packet_that_has_got_a_zone_and_no_entry_yet(bed: Testbed, variant: str) -> None:
    """The zone is kept in an entry without addresses, which rules of the table raw see."""
    zone = [f"-A {chain} -p udp -j CT --zone 5" for chain in ("OUTPUT", "PREROUTING")]
    options = (*OPTIONS, "--ctproto 17", "--ctorigdst 0.0.0.0/1", "--ctstate NEW --ctorigdst 0.0.0.0/1")
    both = [*both_ways(options[:-1]), options[-1]]
    rules = [*zone, *probes("OUTPUT", both, 0), *probes("PREROUTING", both, 0)]
    found = talks(bed, Step(f"{variant} ipv4", f"*raw\n{lines(rules)}COMMIT\n{NAT}"))
    assert not any(each.depends for each in found)


def test_an_echo_has_no_ports(bed: Testbed) -> None:
    """In their place there are its type and code, and its number."""
    text = f"*mangle\n{lines(probes('OUTPUT', ['--ctorigdstport 2048'], 0))}COMMIT\n"
    [found] = seen(bed, Setup((Step("legacy ipv4", text),)), [echo(OWN, FAR)])
    assert found.observed.event
    assert found.observed.event.mark == 1
    assert {way.packet.mark for way in found.foretold.ways} == {0, 1}


@pytest.mark.parametrize("variant", ["legacy", "nft"])
def test_the_mark_of_a_template_stays_for_the_next_packet(bed: Testbed, variant: str) -> None:
    """What one packet leaves there another one finds, so nothing about it is foretold."""
    rules = (
        "-A OUTPUT -p udp -j CT --zone 5",
        "-A OUTPUT -p udp -m connmark --mark 0x7 -j MARK --set-mark 0x1",
        "-A OUTPUT -p udp -m udp --dport 53 -j CONNMARK --set-mark 0x7",
    )
    step = Step(f"{variant} ipv4", f"*raw\n{lines(rules)}COMMIT\n")
    found = seen(bed, Setup((step,)), [udp(OWN, FAR, port) for port in (54, 53, 54)])
    assert [each.observed.event.mark for each in found if each.observed.event] == [0, 0, 1]
    assert [each.depends for each in found] == [False, True, False]
    assert {way.packet.mark for way in found[2].foretold.ways} == {0, 1}
