"""What options of iptables mean, asked of the kernel: which rules count a packet.

Every rule of a probe has options and no target. For each packet that is sent, the rules that counted it have
to be those whose condition the interpreter finds true, and no condition may be left open.
"""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from istio_iptables.formats.iptables_restore import split_args
from istio_iptables.interpreter.addresses import block
from istio_iptables.interpreter.algebra import value_of
from istio_iptables.interpreter.iptables_options import foreign_match
from istio_iptables.interpreter.iptables_sets import read as read_sets
from istio_iptables.interpreter.known import Known, Scope
from istio_iptables.interpreter.routing import Network, Route
from istio_iptables.rules.model import FAMILIES, IPV4, NO_ID
from tests.support.iptables_meaning import VARIANTS, WORDS, as_packet, command, counted, send, wire
from tests.support.netns import Namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from istio_iptables.rules.model import Family


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


@pytest.fixture
def place(namespace: Namespace) -> Namespace:
    """A namespace with a way out."""
    return wire(namespace)


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
