"""What options of iptables mean, asked of the kernel: which rules count a packet, and what targets do to it.

Every rule of a probe has options and no target. For each packet that is sent, the rules that counted it have
to be those whose condition the interpreter finds true, and no condition may be left open.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from istio_iptables.formats.iptables_dump import read
from istio_iptables.formats.iptables_restore import split_args
from istio_iptables.interpreter.action import Unknown
from istio_iptables.interpreter.addresses import address, block
from istio_iptables.interpreter.algebra import One, value_of
from istio_iptables.interpreter.iptables_options import foreign_match, foreign_target
from istio_iptables.interpreter.iptables_sets import read as read_sets
from istio_iptables.interpreter.known import Known, Scope
from istio_iptables.interpreter.packet import Packet
from istio_iptables.interpreter.program import IPTABLES_HOOKS, Base, Program, Rule, Table
from istio_iptables.interpreter.routing import Network, Route
from istio_iptables.interpreter.surroundings import Surroundings
from istio_iptables.interpreter.walk import Walk
from istio_iptables.rules.model import FAMILIES, IPV4, NO_ID
from tests.support import one_packet
from tests.support.netns import Namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from istio_iptables.rules.model import Family

VARIANTS = ("legacy", "nft")
PROTOCOLS = {"udp": 17, "tcp": 6, "icmp": 1}

#: The addresses of the namespace and around it, by family.
WORDS: dict[Family, dict[str, str]] = {
    "ipv4": {
        "own": "10.9.0.1",
        "other": "10.9.0.2",
        "odd": "10.0.0.1/255.0.0.255",
        "net": "10.9.0.0/24",
        "range": "10.9.0.0-10.9.0.1",
        "loopback": "127.0.0.1",
        "far": "192.0.2.7",
        "icmp": "icmp -m icmp --icmp-type",
        "echo": "8",
        "ping": "icmp",
    },
    "ipv6": {
        "own": "fd09::1",
        "other": "fd09::2",
        "odd": "fd00::1/ff00::ffff",
        "net": "fd09::/64",
        "range": "fd09::-fd09::1",
        "loopback": "::1",
        "far": "2001:db8::7",
        "icmp": "ipv6-icmp -m icmp6 --icmpv6-type",
        "echo": "128",
        "ping": "icmpv6",
    },
}

#: Options for every chain. `[!]`: both as it is and negated.
OPTIONS = """
[!] -s {own}
[!] -d {other}
[!] -d {odd}
[!] -d {net}
[!] -p udp
[!] -p tcp
[!] -p {ping}
[!] -p 47
-p tcp -m tcp [!] --dport 1:79
-p tcp -m tcp [!] --tcp-flags FIN,SYN,RST,ACK SYN
-p udp -m udp [!] --dport 5000
-p udp -m udp [!] --sport 40000:41000
-p udp -m udp [!] --sport 40000:41000 [!] --dport 5000
-p {icmp} {echo}
-p {icmp} {echo}/0
-p {icmp} {echo}/1
-p udp -m multiport [!] --ports 53,5000:5001
-p udp -m multiport [!] --dports 53
-p udp -m multiport [!] --sports 40000:40100,53
-m mark [!] --mark 0x1f
-m mark [!] --mark 0x10/0xf0
-m mark [!] --mark 0x0/0xf0
-m connmark [!] --mark 0x0
-m connmark [!] --mark 0x1/0xf
-m conntrack [!] --ctstate NEW
-m conntrack [!] --ctstate ESTABLISHED
-m conntrack [!] --ctstate INVALID,UNTRACKED
-m conntrack [!] --ctstate NEW,DNAT
-m conntrack --ctdir ORIGINAL
-m conntrack --ctdir REPLY
-m conntrack [!] --ctproto 17
-m conntrack [!] --ctstatus NONE
-m conntrack [!] --ctstatus SEEN_REPLY
-m conntrack [!] --ctstatus CONFIRMED
-m conntrack [!] --ctstatus ASSURED,EXPECTED
-m conntrack [!] --ctorigsrc {own}
-m conntrack [!] --ctorigdst {net}
-p udp -m conntrack [!] --ctorigdstport 5000
-p udp -m conntrack [!] --ctorigsrcport 40000:40100
-m conntrack [!] --ctstate UNTRACKED [!] --ctproto 17
-m conntrack [!] --ctstate NEW --ctdir REPLY
-m state [!] --state NEW
-m state [!] --state UNTRACKED
-m addrtype [!] --dst-type LOCAL
-m addrtype [!] --src-type LOCAL
-m addrtype [!] --dst-type UNICAST
-m addrtype [!] --src-type UNICAST
-m addrtype [!] --dst-type MULTICAST
-m iprange [!] --dst-range {range}
-m iprange [!] --src-range {range}
-m set [!] --match-set ips dst
-m set [!] --match-set ips src
-m set [!] --match-set ips dst,src
-m set [!] --match-set nets dst
-m set [!] --match-set both dst,dst
-m set [!] --match-set both dst,src
-m set [!] --match-set both dst
-m set [!] --match-set ports dst
-m set [!] --match-set ports src
-m set [!] --match-set list dst
-m set [!] --match-set empty dst
-m comment --comment hello
"""
IPV4_ONLY = """
[!] -f
-m addrtype [!] --dst-type BROADCAST
-m addrtype [!] --dst-type LOCAL,BROADCAST
-m addrtype [!] --dst-type UNSPEC
-p icmp -m icmp --icmp-type any
"""
IPV6_ONLY = """
-m addrtype [!] --dst-type LOCAL,UNICAST
-m addrtype [!] --dst-type MULTICAST,LOCAL
"""
OUTPUT_ONLY = """
[!] -o out0
[!] -o out+
-o +
-m owner [!] --uid-owner 1000
-m owner [!] --uid-owner 999-1001
-m owner [!] --gid-owner 1001
-m owner [!] --gid-owner 5
-m owner [!] --gid-owner 5 --suppl-groups
-m owner [!] --gid-owner 1001 --suppl-groups
-m owner [!] --socket-exists
-m owner [!] --uid-owner 1000 [!] --gid-owner 5
-m addrtype --dst-type LOCAL --limit-iface-out
-m addrtype [!] --src-type LOCAL --limit-iface-out
-m addrtype --dst-type UNICAST --limit-iface-out
-m set [!] --match-set ways dst,dst
"""
INPUT_ONLY = """
[!] -i lo
[!] -i l+
[!] -i eth0
-m addrtype --dst-type LOCAL --limit-iface-in
-m addrtype [!] --dst-type LOCAL --limit-iface-in
-m addrtype --src-type UNICAST --limit-iface-in
-m set [!] --match-set ways dst,src
"""

#: What answers is dropped, so that one packet is sent and no other.
RAW = """\
*raw
-A OUTPUT -p udp -m udp --dport 9 -j CT --notrack
-A OUTPUT -p {icmp} {echo} -j ACCEPT
-A OUTPUT -p {ping} -j DROP
-A OUTPUT -p tcp -m tcp --tcp-flags RST RST -j DROP
COMMIT
"""

SETS = """\
create ips hash:ip family {inet}
create nets hash:net family {inet}
create both hash:ip,port family {inet}
create ports bitmap:port range 0-65535
create ways hash:net,iface family {inet}
create empty hash:ip family {inet}
create list list:set
add ips {other}
add ips {loopback}
add nets {net}
add nets {own} nomatch
add nets {far}
add both {other},tcp:80
add both {loopback},udp:5000
add both {other},{ping}:{echo}/0
add ports 80
add ports 5000
add ways {net},out0
add ways {loopback},lo
add list empty
add list nets
"""


def options(*blocks: str, family: Family) -> list[str]:
    """The options of blocks of lines, both ways where they have [!]."""
    found = []
    for line in "".join(blocks).format(**WORDS[family]).splitlines():
        for word in ("", "! ") if "[!]" in line else ("",):
            found += [line.replace("[!] ", word)] if line else []
    return found


def packets(family: Family) -> list[dict[str, Any]]:
    """What is sent, with the interface that it leaves by; see one_packet."""
    own, other, loopback, far = (WORDS[family][name] for name in ("own", "other", "loopback", "far"))
    user = {"uid": 1000, "gid": 1001, "groups": [5, 6]}
    found: list[dict[str, Any]] = [
        {"protocol": "udp", "source": [loopback, 40000], "to": [loopback, 5000], "by": "lo", **user},
        {"protocol": "udp", "source": [own, 40001], "to": [own, 53], "by": "lo", "mark": 0x1F},
        {
            "protocol": "udp",
            "source": [own, 45000],
            "to": [other, 5000],
            "by": "out0",
            "mark": 0x10,
            **user,
        },
        {"protocol": "udp", "source": [own, 40002], "to": [far, 5001], "by": "out0", "mark": 0x5, "gid": 5},
        {"protocol": "tcp", "source": [own, 40003], "to": [other, 80], "by": "out0", **user},
        {"protocol": "tcp", "source": [loopback, 40004], "to": [loopback, 81], "by": "lo"},
        {"protocol": "icmp", "source": [own, 0], "to": [other, 0], "by": "out0"},
        {"protocol": "icmp", "source": [loopback, 0], "to": [loopback, 0], "by": "lo"},
        {"protocol": 47, "source": [own, 0], "to": [other, 0], "by": "out0", "state": "NEW"},
        {"protocol": "udp", "source": [own, 40005], "to": [own, 5000], "by": "lo", "reply": True},
        {"protocol": "udp", "source": [own, 40006], "to": [other, 9], "by": "out0", "state": "UNTRACKED"},
    ]
    if family == IPV4:
        for number, (to, by) in enumerate(
            [("10.9.0.255", "out0"), ("255.255.255.255", "out0"), ("224.0.0.5", "out0")]
        ):
            found.append({"protocol": "udp", "source": [own, 40010 + number], "to": [to, 5000], "by": by})
    else:
        found.append({"protocol": "udp", "source": [own, 40010], "to": ["ff05::5", 5000], "by": "out0"})
    return found


def as_packet(sent: dict[str, Any], family: Family) -> Packet:
    """A packet as its first hook has it, behind conntrack."""
    (source, source_port), (to, port) = sent["source"], sent["to"]
    protocol = PROTOCOLS.get(sent["protocol"], sent["protocol"])
    if protocol == 1 and family != IPV4:
        protocol = 58
    first = Packet(
        family,
        protocol,
        address(source)[1],
        address(to)[1],
        source_port,
        port,
        sent_to=sent["by"],
        uid=sent.get("uid", 0),
        gid=sent.get("gid", 0),
        groups=tuple(sent.get("groups", ())),
        mark=sent.get("mark", 0),
        tracked=True,
        icmp_type=128 if protocol == 58 else 8,
        state=sent.get("state", "NEW"),
        first="state" not in sent,
        original_source=address(source)[1],
        original_destination=address(to)[1],
        original_source_port=source_port,
        original_port=port,
    )
    if not sent.get("reply"):
        return first
    return first.replace(
        source=first.destination,
        destination=first.source,
        source_port=port,
        destination_port=source_port,
        uid=0,
        gid=0,
        mark=0,
        state="ESTABLISHED",
        first=False,
        direction="reply",
        status="SEEN_REPLY CONFIRMED",
    )


@pytest.fixture
def place(namespace: Namespace) -> Namespace:
    """A namespace with an interface on which nobody answers, and a way out by it."""
    namespace.ip(
        "link add out0 type veth peer name nobody0",
        "link set out0 arp off",
        "addr add 10.9.0.1/24 dev out0",
        "addr add fd09::1/64 dev out0 nodad",
        "link set nobody0 up",
        "link set out0 up",
        "route add default dev out0",
        "route add ::/0 dev out0",
    )
    return namespace


def network_of(namespace: Namespace) -> Network:
    """The table `local` of a namespace."""
    routes = []
    for option, family in (("-4", IPV4), ("-6", "ipv6")):
        listed = json.loads(namespace.run(["ip", option, "-j", "route", "show", "table", "local"]).stdout)
        for each in listed:
            span = block(each["dst"]).span
            assert span
            routes.append(Route(family, "local", each.get("type", "unicast"), *span, each.get("dev", "")))
    return Network(routes=tuple(routes))


def command(family: Family, variant: str) -> str:
    """The name of iptables."""
    return f"{'iptables' if family == IPV4 else 'ip6tables'}-{variant}"


def send(namespace: Namespace, sent: dict[str, Any], zero: list[str]) -> None:
    """Send a packet; all counters are zero before."""
    namespace.run(zero)
    order = {**sent, "between": zero}
    namespace.run([sys.executable, "-I", "-S", one_packet.__file__, json.dumps(order)])


def counted(namespace: Namespace, family: Family, variant: str) -> Iterator[tuple[str, str, int]]:
    """The rules without a target: chain, options and the number of packets."""
    for table in read(namespace.run([f"{command(family, variant)}-save", "-c"]).stdout).tables:
        for rule in table.rules:
            if " -j " not in f" {rule.options}":
                assert rule.counters
                yield rule.chain, rule.options, rule.counters.packets


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.skipif(not shutil.which("ipset"), reason="the command ipset is not installed")
def test_rules_count_the_packets_that_meet_their_options(place: Namespace, family: Family, variant: str):
    words = {**WORDS[family], "inet": "inet" if family == IPV4 else "inet6"}
    saved = SETS.format(**words)
    place.run(["ipset", "restore"], stdin=saved)
    known = Known(network_of(place), read_sets(place.run(["ipset", "save"]).stdout))
    own = IPV4_ONLY if family == IPV4 else IPV6_ONLY
    of_chain = {
        "OUTPUT": options(OPTIONS, own, OUTPUT_ONLY, family=family),
        "INPUT": options(OPTIONS, own, INPUT_ONLY, family=family),
    }
    rules = "".join(f"-A {chain} {each}\n" for chain, found in of_chain.items() for each in found)
    raw = RAW.format(**WORDS[family])
    restored = f"{raw}*filter\n{rules}COMMIT\n"
    place.run([f"{command(family, variant)}-restore"], stdin=restored)
    zero = [command(family, variant), "-Z"]
    scope = Scope(known, family)
    wrong: list[str] = []
    asked: set[tuple[str, str]] = set()
    for sent in packets(family):
        packet = as_packet(sent, family)
        send(place, sent, zero)
        arrived = packet.replace(received_on="lo", sent_to="", uid=NO_ID, gid=NO_ID, confirmed=True)
        at = {"OUTPUT": packet, "INPUT": arrived}
        for chain, found, count in counted(place, family, variant):
            if chain == "INPUT" and sent["by"] != "lo":
                continue
            value = value_of(foreign_match(split_args(found), scope), at[chain])
            if value is not bool(count):
                wrong.append(f"{chain} {found}: {value}, but {count} packets: {sent}")
            asked.add((chain, found))
    assert not wrong, "\n".join(wrong)
    assert len(asked) > 150  # iptables-save prints some options of a block alike


@pytest.mark.parametrize("family", FAMILIES)
def test_what_the_kernel_itself_sends_has_no_owner(place: Namespace, family: Family):
    """A reset is from a socket of the kernel's own with IPv4, and from none with IPv6."""
    loopback = WORDS[family]["loopback"]
    owners = options(
        """
        [!] --socket-exists
        [!] --uid-owner 0
        [!] --gid-owner 5
        [!] --gid-owner 5 --suppl-groups
        ! --uid-owner 7 ! --gid-owner 5
        ! --uid-owner 7 --gid-owner 5
        """.replace("  ", ""),
        family=family,
    )
    reset = "-p tcp -m tcp --tcp-flags RST RST -m owner"
    rules = "".join(f"-A OUTPUT {reset} {each}\n" for each in owners)
    place.run([f"{command(family, 'legacy')}-restore"], stdin=f"*filter\n{rules}COMMIT\n")
    sent = {"protocol": "tcp", "source": [loopback, 41001], "to": [loopback, 9], "by": "lo"}
    send(place, sent, [command(family, "legacy"), "-Z"])
    answer = as_packet({**sent, "uid": NO_ID, "gid": NO_ID}, family).replace(flags=0x14)
    for _, found, count in counted(place, family, "legacy"):
        assert value_of(foreign_match(split_args(found)), answer) in (bool(count), None), found
        if found.endswith(("-m owner --socket-exists", "! --gid-owner 5 --suppl-groups")):
            assert count == (family == IPV4), found


# --- targets ------------------------------------------------------------------------------------------------

#: What follows each other in a chain: targets on marks.
MARKS = [
    ["MARK --set-mark 0x5"],
    ["MARK --set-xmark 0x5/0xf"],
    ["MARK --set-mark 0x30/0xf"],
    ["MARK --set-xmark 0x30/0xf"],
    ["MARK --and-mark 0x18"],
    ["MARK --or-mark 0x60"],
    ["MARK --xor-mark 0x3c"],
    ["CONNMARK --set-mark 0x5"],
    ["CONNMARK --set-mark 0x30/0xf", "CONNMARK --xor-mark 0x11"],
    ["CONNMARK --or-mark 0x60", "CONNMARK --and-mark 0x41"],
    ["CONNMARK --save-mark", "MARK --set-mark 0x1", "CONNMARK --restore-mark --mask 0xf0"],
    ["CONNMARK --set-mark 0xabcd", "CONNMARK --save-mark --nfmask 0xf --ctmask 0xff"],
    ["CONNMARK --set-mark 0xabcd", "CONNMARK --restore-mark --nfmask 0xf --ctmask 0xff"],
    ["CT --notrack", "CONNMARK --restore-mark"],
]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_targets_change_marks_as_the_kernel_does(place: Namespace, family: Family, variant: str):
    """Behind them, only the rules with the marks that the interpreter finds count the packet."""
    own, other = WORDS[family]["own"], WORDS[family]["other"]
    for targets in MARKS:
        sent = {"protocol": "udp", "source": [own, 41000], "to": [other, 7], "by": "out0", "mark": 0x1F}
        before = as_packet(sent, family).replace(tracked=False)
        raw = [each for each in targets if each.startswith("CT")]
        mangle = [each for each in targets if each not in raw]
        after = walked([("raw", raw), ("mangle", mangle)], family, before)
        marks = (f"-m mark --mark {after.mark:#x}", f"-m mark ! --mark {after.mark:#x}")
        connection = f"-m connmark --mark {after.connection_mark:#x}"
        probes = "".join(f"-A OUTPUT -p udp {each}\n" for each in (*marks, connection))
        lines = "".join(f"-A OUTPUT -j {each}\n" for each in mangle)
        first = "".join(f"-A OUTPUT -j {each}\n" for each in raw)
        text = f"*raw\n{first}COMMIT\n*mangle\n{lines}COMMIT\n*filter\n{probes}COMMIT\n"
        place.run([f"{command(family, variant)}-restore"], stdin=text)
        send(place, sent, [command(family, variant), "-Z"])
        place.run(["conntrack", "-F"], check=False)
        found = [count for _, _, count in counted(place, family, variant)]
        assert found == [1, 0, 0 if raw else 1], targets


def walked(tables: list[tuple[str, list[str]]], family: Family, packet: Packet) -> Packet:
    """What the interpreter makes of a packet that goes through OUTPUT of some tables, in their order."""
    made = []
    for name, targets in tables:
        kind, priority = IPTABLES_HOOKS[name, "OUTPUT"]
        rules = tuple(
            Rule(number, each, foreign_target(["-j", *each.split()]))
            for number, each in enumerate(targets, 1)
        )
        base = Base("OUTPUT", "output", priority, kind)
        made.append(Table("iptables", name, name, frozenset({family}), (base,), {"OUTPUT": rules}))
    walk: Walk[Packet | None] = Walk(Program(tuple(made)), family, One(), Surroundings())
    found = walk.hook("output", packet)
    assert found is not None
    return found


#: Targets of nat, and the address and ports that connections are made to.
TRANSLATIONS = [
    ("REDIRECT --to-ports 8080-8090", "far", (8080, 8085, 8090, 8079, 8091, 7)),
    ("REDIRECT --to-ports 8090", "far", (8080, 8090)),
    ("REDIRECT", "far", (8081,)),
    ("REDIRECT --to-ports 8090 --random", "far", (7,)),
    ("DNAT --to-destination {host}:8080-8090", "far", (8080, 8085, 8090, 8079, 8091, 7)),
    ("DNAT --to-destination {plain}", "far", (8082,)),
    ("DNAT --to-destination {host}:8083 --persistent", "far", (7,)),
    ("DNAT --to-destination {host}:8083-8086/90", "far", (90, 91, 93)),
    ("DNAT --to-destination {host}:8083-8086/8083", "far", (8083, 8086)),
    ("DNAT --to-destination :8084", "own", (7,)),
    ("DNAT --to-destination :8084-8086", "own", (8085, 7)),
    ("NETMAP --to {block}", "other", (8085,)),
]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_connections_arrive_where_the_interpreter_sends_them(place: Namespace, family: Family, variant: str):
    plain = WORDS[family]["own"]
    words = {**WORDS[family], "plain": plain, "host": plain if family == IPV4 else f"[{plain}]"}
    # The block that `other` is moved to: its last bits stay, and both such addresses are there.
    words["block"] = "10.77.0.0/24" if family == IPV4 else "fd77::/64"
    place.ip(f"addr add {'10.77.0.2/32' if family == IPV4 else 'fd77::2/128'} dev lo nodad")
    place.listen("anybody", tcp=range(8080, 8092), addresses=["::" if family != IPV4 else "0.0.0.0"])
    for target, to, ports in TRANSLATIONS:
        target = target.format(**words)
        chain = f"*nat\n-A OUTPUT -p tcp -j {target}\nCOMMIT\n"
        place.run([f"{command(family, variant)}-restore"], stdin=chain)
        for port in ports:
            call = place.connect(words[to], port)
            assert call.arrival, (target, port, call.error)
            sent = {"protocol": "tcp", "source": [words["own"], 1], "to": [words[to], port], "by": "out0"}
            after = walked([("nat", [target])], family, as_packet(sent, family))
            found = address(call.arrival.local[0])[1], call.arrival.local[1]
            assert found == (after.destination, after.destination_port), (target, port)


def test_an_address_of_several_is_not_foretold(place: Namespace):
    """The kernel chooses one by a hash of both ends: connections to one address go to different ones."""
    place.ip(*(f"addr add 10.78.0.{last}/32 dev lo" for last in range(1, 9)))
    place.listen("anybody", tcp=[8080], addresses=["0.0.0.0"])
    target = "DNAT --to-destination 10.78.0.1-10.78.0.8:8080"
    place.run(["iptables-legacy-restore"], stdin=f"*nat\n-A OUTPUT -p tcp -j {target}\nCOMMIT\n")
    arrivals = [place.connect(f"192.0.2.{last}", 80).arrival for last in range(1, 17)]
    assert len({arrival.local[0] for arrival in arrivals if arrival}) > 1
    assert foreign_target(["-j", *target.split()]) == (Unknown(target),)
