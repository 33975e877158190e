"""What the prover assumes of the kernel, one test for each assumption: docs/what-is-proved.md names them.

Rules and packets are made here by hand, and what is expected is written down: the interpreter is not asked.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from istio_iptables.interpreter.packet import ACK, SYN, TCP, UDP, Packet

from ..e2e.conversation import made_by
from ..support.drawn_packets import number
from ..support.known_connections import connection_of_later
from ..support.netns import Pod
from ..support.refuting import from_another_port
from ..support.testbed import Observed, Setup, Step, Testbed
from ..support.wire import Numbers

VARIANTS = ("legacy", "nft")
FAMILIES = ("ipv4", "ipv6")
_FIN = 0x01
POD = {"ipv4": "10.88.0.2", "ipv6": "fd88::2"}
SERVICE = {"ipv4": "198.18.0.1", "ipv6": "2001:db8::1"}
CLIENT = {"ipv4": "10.88.0.1", "ipv6": "fd88::1"}
_NFT = {"ipv4": "ip", "ipv6": "ip6"}
LOOPBACK = {"ipv4": "127.0.0.1", "ipv6": "::1"}

each_family = pytest.mark.parametrize("family", FAMILIES)
each_variant = pytest.mark.parametrize("variant", VARIANTS)


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    with Testbed() as made:
        yield made


@contextmanager
def rules(bed: Testbed, *steps: Step) -> Iterator[None]:
    """Have rules for a while."""
    try:
        bed.load(Setup(steps))
        yield
    finally:
        bed.unload()


def iptables(variant: str, family: str, **tables: str) -> Step:
    """Return rules for tables of iptables, one a line."""
    text = "".join(f"*{table}\n{lines.strip()}\nCOMMIT\n" for table, lines in tables.items())
    return Step(f"{variant} {family}", "\n".join(line.strip() for line in text.splitlines()) + "\n")


def outbound(family: str, to: str = "", **fields: Any) -> Packet:
    """Return a TCP packet that a process of user 1000 sends to port 80 of a service, with changes."""
    return _packet(family, POD[family], to or SERVICE[family], **{"uid": 1000, "gid": 1000, **fields})


def inbound(family: str, to: str = "", **fields: Any) -> Packet:
    """Return a TCP packet that comes in by eth0 to port 80 of the pod, with changes."""
    return _packet(family, CLIENT[family], to or POD[family], received_on="eth0", **fields)


def _packet(family: str, by: str, to: str, **fields: Any) -> Packet:
    values = {"protocol": TCP, "source": number(by), "destination": number(to), **fields}
    return Packet(family, source_port=20000, **{"destination_port": 80, **values})  # type: ignore[arg-type]


def send(bed: Testbed, packet: Packet, *, mark: int | None = None, zone: int = 0) -> Observed:
    """Send a packet, a first one, or a later one of a connection with a mark that conntrack knows."""
    packet = from_another_port(packet)
    bed.forget()
    if mark is not None:
        packet = packet.replace(connection_mark=mark, flags=ACK if packet.protocol == TCP else 0)
        packet = packet.replace(connection=connection_of_later(packet, zone, zone))
        bed.know(packet)
    return bed.send(packet, Numbers(packet.source_port, packet.source_port << 16, 1))


def arrived(observed: Observed) -> tuple[str, int]:
    """Return where a packet was seen last, and its port there."""
    assert observed.event, observed
    return observed.event.device, observed.event.packet.destination_port


def mark_of(observed: Observed) -> int:
    assert observed.event, observed
    return observed.event.mark


# --- hooks and tables -------------------------------------------------------------------------


@each_family
@each_variant
def test_tables_come_in_the_order_raw_conntrack_mangle_nat(bed: Testbed, family: str, variant: str) -> None:
    steps = {
        "raw": "-A OUTPUT -m mark --mark 0 -m conntrack --ctstate INVALID -j MARK --set-mark 1",
        "mangle": "-A OUTPUT -m mark --mark 1 -m conntrack --ctstate NEW -j MARK --set-mark 2",
        "nat": "-A OUTPUT -p tcp -m mark --mark 2 -j REDIRECT --to-ports 15001",
    }
    inward = {table: text.replace("OUTPUT", "PREROUTING") for table, text in steps.items()}
    with rules(bed, iptables(variant, family, **steps)):
        assert arrived(send(bed, outbound(family))) == ("lo", 15001)
    with rules(bed, iptables(variant, family, **inward)):
        assert arrived(send(bed, inbound(family))) == ("eth0", 15001)


@each_family
def test_native_chains_come_in_the_order_of_their_priorities(bed: Testbed, family: str) -> None:
    script = """
    table inet order {
        chain n { type nat hook output priority -100; meta l4proto tcp meta mark 2 redirect to :15001; }
        chain m { type route hook output priority -150; meta mark 1 ct state new meta mark set 2; }
        chain r { type filter hook output priority -300; meta mark 0 meta mark set 1; }
    }
    """
    with rules(bed, Step("nft", script)):
        assert arrived(send(bed, outbound(family))) == ("lo", 15001)


@each_family
@pytest.mark.parametrize("kind", ["nat", "filter"])
def test_chains_of_one_priority_come_in_the_order_of_their_making(
    bed: Testbed, family: str, kind: str
) -> None:
    """Nothing shows that order, so what depends on it is said to depend."""
    does = {"nat": "meta l4proto tcp redirect to :{}", "filter": "tcp dport 80 meta mark set {}"}[kind]
    tables = {
        port: f"table inet t{port} {{ chain o {{ type {kind} hook output priority -100; "
        f"{does.format(port)}; }}; }}"
        for port in (15001, 15006)
    }
    found = []
    for order in ((15001, 15006), (15006, 15001)):
        with rules(bed, *(Step("nft", tables[port]) for port in order)):
            seen = send(bed, outbound(family))
            found.append(arrived(seen)[1] if kind == "nat" else mark_of(seen))
    assert sorted(found) == [15001, 15006]


# --- nat --------------------------------------------------------------------------------------


@each_family
@each_variant
def test_nat_is_asked_for_the_first_packet_alone(bed: Testbed, family: str, variant: str) -> None:
    redirect = "-A {} -p tcp -j REDIRECT --to-ports 15001"
    tables = {"nat": "\n".join(redirect.format(chain) for chain in ("OUTPUT", "PREROUTING"))}
    with rules(bed, iptables(variant, family, **tables)):
        assert arrived(send(bed, outbound(family))) == ("lo", 15001)
        assert arrived(send(bed, outbound(family), mark=0)) == ("eth0", 80)
        assert arrived(send(bed, inbound(family))) == ("eth0", 15001)
        assert arrived(send(bed, inbound(family), mark=0)) == ("eth0", 80)


@each_family
@each_variant
def test_nat_is_not_asked_for_what_belongs_to_no_connection(bed: Testbed, family: str, variant: str) -> None:
    nat = "-A OUTPUT -p tcp -j REDIRECT --to-ports 15001\n-A PREROUTING -p tcp -j REDIRECT --to-ports 15001"
    invalid = "-A {} -m conntrack --ctstate INVALID -j MARK --set-mark 5"
    mangle = "\n".join(invalid.format(chain) for chain in ("POSTROUTING", "INPUT"))
    with rules(bed, iptables(variant, family, nat=nat, mangle=mangle)):
        for packet, device in ((outbound(family), "eth0"), (inbound(family), "eth0")):
            seen = send(bed, packet.replace(flags=_FIN | ACK))
            assert (arrived(seen), mark_of(seen)) == ((device, 80), 5)


@each_family
@each_variant
def test_nat_is_not_asked_for_errors_of_icmp_about_a_connection(family: str, variant: str) -> None:
    """Nobody listens where UDP is sent, out of the pod and into it: an error comes back, RELATED."""
    name, icmp = ("iptables", "icmp") if family == "ipv4" else ("ip6tables", "ipv6-icmp")
    both = ("PREROUTING", "OUTPUT")
    related = [f"-A {chain} -p {icmp} -m conntrack --ctstate RELATED -j ACCEPT" for chain in both]
    asked = [f"-A {chain} -p {icmp} -j ACCEPT" for chain in both]
    text = "\n".join(["*mangle", *related, "COMMIT", "*nat", *asked, "COMMIT", ""])
    with Pod() as pod:
        pod.run([f"{name}-{variant}-restore"], stdin=text)
        for sender, to in ((pod, CLIENT[family]), (pod.client, POD[family])):
            with made_by(sender, 0, 0, to, socket.SOCK_DGRAM) as caller:
                caller.settimeout(30)
                caller.connect((to, 9))
                caller.send(b"x")
                with pytest.raises(ConnectionRefusedError):
                    caller.recv(1)
        counted = {
            table: [
                int(line[1:].split(":")[0])
                for line in pod.run([f"{name}-{variant}-save", "-c", "-t", table]).stdout.splitlines()
                if f"-p {icmp}" in line
            ]
            for table in ("mangle", "nat")
        }
    assert counted == {"mangle": [1, 1], "nat": [0, 0]}


@each_family
@each_variant
def test_after_a_rule_of_nat_has_decided_no_other_chain_is_asked(
    bed: Testbed, family: str, variant: str
) -> None:
    """What OUTPUT has redirected comes back by lo, and PREROUTING is not asked again; nor for the rest."""
    nat = """
        -A OUTPUT -p tcp --dport 80 -j REDIRECT --to-ports 15001
        -A PREROUTING -p tcp -j REDIRECT --to-ports 15006
    """
    with rules(bed, iptables(variant, family, nat=nat)):
        assert arrived(send(bed, outbound(family))) == ("lo", 15001)
        assert arrived(send(bed, outbound(family, POD[family], destination_port=81))) == ("lo", 81)


@each_family
@each_variant
def test_redirect_goes_to_loopback_or_to_the_interface_that_a_packet_came_in_by(
    bed: Testbed, family: str, variant: str
) -> None:
    nat = "-A OUTPUT -p tcp -j REDIRECT --to-ports 9000\n-A PREROUTING -p tcp -j REDIRECT --to-ports 9000"
    with rules(bed, iptables(variant, family, nat=nat)):
        out = send(bed, outbound(family))
        come = send(bed, inbound(family, SERVICE[family]))
    assert out.event
    assert come.event
    assert out.event.packet.destination == number(LOOPBACK[family])
    assert come.event.packet.destination == number(POD[family])
    assert (out.how, come.how) == ("delivered", "delivered")


@each_variant
def test_redirect_keeps_the_scope_of_an_ipv6_address_or_drops(bed: Testbed, variant: str) -> None:
    nat = "-A PREROUTING -p tcp -j REDIRECT --to-ports 9000"
    with rules(bed, iptables(variant, "ipv6", nat=nat)):
        assert send(bed, inbound("ipv6", "fec0::7")).how == "dropped"
        assert send(bed, inbound("ipv6", SERVICE["ipv6"])).how == "delivered"


# --- routes -----------------------------------------------------------------------------------


@each_family
@each_variant
def test_what_a_rule_has_marked_or_redirected_is_routed_again_and_o_is_the_first_interface(
    bed: Testbed, family: str, variant: str
) -> None:
    """-o means the interface of the first route to the end of the hook, in POSTROUTING that of the last."""
    tables = {
        "mangle": """
            -A OUTPUT -p tcp --dport 80 -j MARK --set-mark 7
            -A POSTROUTING -o lo -j MARK --set-xmark 0x100/0x100
        """,
        "nat": """
            -A OUTPUT -o lo -p tcp --dport 80 -j REDIRECT --to-ports 15006
            -A OUTPUT -o eth0 -p tcp --dport 80 -j REDIRECT --to-ports 15001
        """,
    }
    command = "ip -6" if family == "ipv6" else "ip"
    routes = Step(command, "rule add fwmark 7 lookup 200\nroute add local default dev lo table 200\n")
    with rules(bed, iptables(variant, family, **tables), routes):
        seen = send(bed, outbound(family))
        later = send(bed, outbound(family), mark=0)
    assert (arrived(seen), mark_of(seen)) == (("lo", 15001), 0x107)
    assert (later.how, arrived(later), mark_of(later)) == ("delivered", ("lo", 80), 0x107)


@each_family
@each_variant
def test_what_leaves_by_lo_comes_back_without_its_socket_with_mark_and_connection(
    bed: Testbed, family: str, variant: str
) -> None:
    tables = {
        "mangle": """
            -A OUTPUT -m owner --uid-owner 1000 -j MARK --set-mark 7
            -A OUTPUT -j CONNMARK --save-mark
            -A POSTROUTING -m owner --uid-owner 1000 -j MARK --set-xmark 0x10/0x10
            -A PREROUTING -i lo -m connmark --mark 7 -m mark --mark 0x17 -j MARK --set-xmark 0x100/0x100
        """,
        "raw": "-A PREROUTING -i lo -m conntrack --ctstate NEW -j MARK --set-xmark 0x200/0x200",
    }
    tables["mangle"] = tables["mangle"].replace("--mark 0x17 ", "--mark 0x217 ")
    with rules(bed, iptables(variant, family, **tables)):
        seen = send(bed, outbound(family, POD[family]))
    assert (seen.how, mark_of(seen)) == ("delivered", 0x317)
    assert seen.event
    assert seen.event.uid is None


@each_family
def test_what_is_sent_to_no_address_stays_here(bed: Testbed, family: str) -> None:
    """A program that connects to 0.0.0.0 or :: has its own loopback address written there before."""
    nowhere = {"ipv4": "0.0.0.0", "ipv6": "::"}[family]
    mangle = "-A POSTROUTING -o lo -j MARK --set-mark 1"
    with rules(bed, iptables("legacy", family, mangle=mangle)):
        seen = send(bed, outbound(family, nowhere))
    assert (seen.how, arrived(seen), mark_of(seen)) == ("delivered", ("lo", 80), 1)


def test_a_source_of_127_leaves_by_lo_alone_and_comes_in_by_no_cable(bed: Testbed) -> None:
    source = number("127.0.0.1")
    counting = "-A PREROUTING -i eth0 -s 127.0.0.0/8 -j CONNMARK --set-mark 1"
    with rules(bed, iptables("legacy", "ipv4", mangle=counting)):
        assert send(bed, outbound("ipv4", source=source)).how == "rejected"
        assert send(bed, inbound("ipv4", source=source)).how == "dropped"
        own = number(POD["ipv4"])
        assert send(bed, inbound("ipv4", source=own)).how == "dropped"


@each_variant
def test_an_ipv6_address_of_the_link_is_routed_by_the_interface_that_it_came_in_by(
    bed: Testbed, variant: str
) -> None:
    """A mark that has all else delivered, by a route by lo, does nothing for it."""
    mangle = "-A PREROUTING -i eth0 -j MARK --set-mark 7"
    routes = Step("ip -6", "rule add fwmark 7 lookup 200\nroute add local default dev lo table 200\n")
    with rules(bed, iptables(variant, "ipv6", mangle=mangle), routes):
        assert send(bed, inbound("ipv6", "fe80::77")).how != "delivered"
        assert send(bed, inbound("ipv6", "2001:db8::77")).how == "delivered"


# --- owners -----------------------------------------------------------------------------------


@each_family
@each_variant
def test_owner_is_that_of_the_socket_and_its_main_group(bed: Testbed, family: str, variant: str) -> None:
    mangle = """
        -A OUTPUT -m owner --uid-owner 1000 -j MARK --set-xmark 0x1/0x1
        -A OUTPUT -m owner --gid-owner 1001 -j MARK --set-xmark 0x2/0x2
        -A OUTPUT -m owner ! --uid-owner 1000 -j MARK --set-xmark 0x4/0x4
        -A OUTPUT -m owner --gid-owner 1002 -j MARK --set-xmark 0x8/0x8
    """
    with rules(bed, iptables(variant, family, mangle=mangle)):
        assert mark_of(send(bed, outbound(family, gid=1001, groups=(1002,)))) == 0x3
        assert mark_of(send(bed, outbound(family, uid=7))) == 0x4


@each_family
def test_without_a_socket_a_negated_owner_matches_in_iptables_and_not_in_nftables(
    bed: Testbed, family: str
) -> None:
    """What is forwarded has no socket."""
    script = """
    table inet owners { chain p { type filter hook postrouting priority 10;
        meta skuid != 7 meta mark set meta mark | 0x10; }; }
    """
    mangle = """
        -A POSTROUTING -o vm0 -m owner ! --uid-owner 7 -j MARK --set-xmark 0x1/0x1
        -A POSTROUTING -o vm0 -m owner --uid-owner 0 -j MARK --set-xmark 0x2/0x2
    """
    vm = {"ipv4": "192.168.50.2", "ipv6": "fd50::2"}
    with rules(bed, iptables("legacy", family, mangle=mangle), Step("nft", script)):
        forwarded = send(bed, inbound(family, vm[family]))
        own = send(bed, outbound(family, vm[family]))
    assert (arrived(forwarded), mark_of(forwarded)) == (("vm0", 80), 0x1)
    assert mark_of(own) == 0x11


# --- connections ------------------------------------------------------------------------------


@each_family
@each_variant
def test_before_conntrack_there_is_no_connection_but_that_of_a_zone(
    bed: Testbed, family: str, variant: str
) -> None:
    """In raw no connection mark is known; a rule that chooses a zone has one of its own, which is 0."""
    known = """
        -A OUTPUT -m connmark --mark 7 -j MARK --set-xmark 0x1/0x1
        -A OUTPUT -m connmark --mark 0 -j MARK --set-xmark 0x2/0x2
    """
    after = known.replace("0x1/0x1", "0x10/0x10").replace("0x2/0x2", "0x20/0x20")
    with rules(bed, iptables(variant, family, raw=known, mangle=after)):
        assert mark_of(send(bed, outbound(family), mark=7)) == 0x10
    zoned = f"-A OUTPUT -j CT --zone 1\n{known}"
    with rules(bed, iptables(variant, family, raw=zoned, mangle=after)):
        assert mark_of(send(bed, outbound(family), mark=7, zone=1)) == 0x12


@each_family
@each_variant
def test_the_first_rule_that_chooses_a_zone_counts_and_a_connection_is_in_one_zone(
    bed: Testbed, family: str, variant: str
) -> None:
    raw = "-A OUTPUT -j CT --zone 1\n-A OUTPUT -j CT --zone 2"
    nat = "-A OUTPUT -p tcp -j REDIRECT --to-ports 15001"
    with rules(bed, iptables(variant, family, raw=raw, nat=nat)):
        first = send(bed, outbound(family))
        of_zone = send(bed, outbound(family), mark=0, zone=1)
        of_another = send(bed, outbound(family), mark=0, zone=2)
    assert first.connection
    assert (first.connection.zone, arrived(first)) == (1, ("lo", 15001))
    assert arrived(of_zone) == ("eth0", 80)
    assert arrived(of_another) == ("lo", 15001)  # there it is a first packet


@each_family
def test_tcp_that_begins_in_the_middle_is_a_first_packet_and_an_end_is_invalid(
    bed: Testbed, family: str
) -> None:
    mangle = """
        -A OUTPUT -m conntrack --ctstate NEW -j MARK --set-mark 1
        -A OUTPUT -m conntrack --ctstate INVALID -j MARK --set-mark 2
        -A OUTPUT -m conntrack --ctstate ESTABLISHED -j MARK --set-mark 3
    """
    with rules(bed, iptables("legacy", family, mangle=mangle)):
        marks = [mark_of(send(bed, outbound(family, flags=flags))) for flags in (SYN, ACK, _FIN | ACK)]
        marks.append(mark_of(send(bed, outbound(family), mark=0)))
    assert marks == [1, 1, 2, 3]


# --- TPROXY -----------------------------------------------------------------------------------


@each_family
@each_variant
def test_tproxy_needs_a_socket_and_a_local_route(bed: Testbed, family: str, variant: str) -> None:
    command = "ip -6" if family == "ipv6" else "ip"
    routes = Step(command, "rule add fwmark 7 lookup 200\nroute add local default dev lo table 200\n")
    hand_over = "-A PREROUTING -p tcp -j TPROXY --tproxy-mark 0x7/0xffffffff --on-port {}"
    beyond = inbound(family, SERVICE[family])
    with rules(bed, iptables(variant, family, mangle=hand_over.format(15006)), routes):
        seen = send(bed, beyond)
    assert seen.event
    assert (seen.how, seen.event.uid, seen.event.mark) == ("delivered", 15006, 7)
    assert seen.event.packet.destination == number(SERVICE[family])
    with rules(bed, iptables(variant, family, mangle=hand_over.format(15007)), routes):
        assert send(bed, beyond).how == "dropped"
    with rules(bed, iptables(variant, family, mangle=hand_over.format(15006))):
        assert send(bed, beyond).how == "dropped"
        assert send(bed, inbound(family)).how == "delivered"


@each_family
def test_tproxy_of_nftables_goes_on_without_a_socket(bed: Testbed, family: str) -> None:
    script = f"""
    table {_NFT[family]} hand {{ chain p {{ type filter hook prerouting priority -150;
        meta l4proto tcp tproxy to :15007 meta mark set 5 accept
        meta l4proto tcp meta mark set 6; }}; }}
    """
    with rules(bed, Step("nft", script)):
        seen = send(bed, inbound(family))
    assert (seen.how, mark_of(seen)) == ("delivered", 6)


@each_family
def test_udp_is_redirected_as_tcp_is(bed: Testbed, family: str) -> None:
    nat = "-A OUTPUT -p udp --dport 53 -j REDIRECT --to-ports 15053"
    with rules(bed, iptables("legacy", family, nat=nat)):
        query = outbound(family, protocol=UDP, destination_port=53, flags=0)
        assert arrived(send(bed, query)) == ("lo", 15053)
        assert arrived(send(bed, outbound(family, destination_port=53, flags=SYN))) == ("eth0", 53)
