"""What targets of iptables do to a packet, asked of the kernel."""

from __future__ import annotations

import pytest

from istio_iptables.interpreter.action import Unknown
from istio_iptables.interpreter.addresses import address
from istio_iptables.interpreter.algebra import One
from istio_iptables.interpreter.iptables_options import foreign_target
from istio_iptables.interpreter.packet import Packet
from istio_iptables.interpreter.program import IPTABLES_HOOKS, Base, Program, Rule, Table
from istio_iptables.interpreter.surroundings import Surroundings
from istio_iptables.interpreter.walk import Walk
from istio_iptables.rules.model import FAMILIES, IPV4
from tests.support.iptables_meaning import VARIANTS, WORDS, as_packet, command, counted, send, wire
from tests.support.netns import Namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from istio_iptables.rules.model import Family


@pytest.fixture
def place(namespace: Namespace) -> Namespace:
    """A namespace with a way out."""
    return wire(namespace)


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
    """The kernel chooses one by a hash of both ends: connections to one address go to different ones.

    Of this many none is foretold.
    """
    place.ip(*(f"addr add 10.78.0.{last}/32 dev lo" for last in range(1, 13)))
    place.listen("anybody", tcp=[8080], addresses=["0.0.0.0"])
    target = "DNAT --to-destination 10.78.0.1-10.78.0.12:8080"
    place.run(["iptables-legacy-restore"], stdin=f"*nat\n-A OUTPUT -p tcp -j {target}\nCOMMIT\n")
    arrivals = [place.connect(f"192.0.2.{last}", 80).arrival for last in range(1, 17)]
    assert len({arrival.local[0] for arrival in arrivals if arrival}) > 1
    assert foreign_target(["-j", *target.split()]) == (Unknown(target),)
