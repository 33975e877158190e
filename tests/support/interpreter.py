"""An interpreter of rules: what happens to a packet in one table, with iptables or with native nftables.

It shares nothing with the translation and the joining of lists that it judges: it goes from rule to rule, as
the kernel does. The sources are iptables-extensions(8) and nft(8), and for what they leave open the kernel's
xt_owner.c, nft_meta.c, xt_TPROXY.c, nft_tproxy.c, xt_CT.c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from istio_iptables.rules import model
from istio_iptables.rules.model import Match, Rule, Ruleset, Table
from istio_iptables.rules.nftables import model as nftables
from istio_iptables.rules.nftables.model import NativeTable

if TYPE_CHECKING:
    from istio_iptables.rules.model import Family

#: Chains by name, as a table of either kind has them.
Chains = Mapping[str, Sequence[Rule]]


@dataclass(frozen=True)
class Packet:
    """A packet where a hook has it. `uid` and `gid` are None if it belongs to no socket."""

    hook: str  #: PREROUTING or OUTPUT
    family: Family
    interface: str
    source: int
    destination: int
    protocol: str
    source_port: int
    destination_port: int
    uid: int | None
    gid: int | None
    mark: int
    connection_mark: int
    state: str
    listening: bool  #: a process listens on the proxy's port


@dataclass
class Outcome:
    """What rules make of a packet; `verdict` None: they let it pass."""

    mark: int
    connection_mark: int
    verdict: tuple[str, int] | str | None = None
    zone: int = 0


def outcome(chains: Chains, start: str, packet: Packet) -> Outcome:
    """Return what happens to a packet that enters at a chain."""
    found = Outcome(packet.mark, packet.connection_mark)
    found.verdict = _walk(chains, start, packet, found)
    return found


def in_iptables(table: Table, packet: Packet) -> Outcome:
    """What happens to a packet in a table of iptables."""
    return outcome({chain.name: chain.in_order for chain in table.chains}, packet.hook, packet)


def in_nftables(table: NativeTable | None, packet: Packet) -> Outcome:
    """What happens to a packet in a native table, which sees packets of both families."""
    chains = table.chains if table else ()
    hook = packet.hook.lower()
    starts = [chain.name for chain in chains if chain.hook and chain.hook.hook == hook]
    assert len(starts) <= 1
    start = starts[0] if starts else ""
    return outcome({chain.name: chain.rules for chain in chains}, start, packet)


def _walk(chains: Chains, name: str, packet: Packet, found: Outcome) -> Any:
    """Return a verdict that ends the way through the table, or None if the end of the chain is reached."""
    for rule in chains.get(name, ()):
        now = replace(packet, mark=found.mark, connection_mark=found.connection_mark)
        if not all(holds(match, now) for match in rule.matches):
            continue
        target = rule.target
        if isinstance(target, model.Jump):
            verdict = _walk(chains, target.chain, packet, found)
            if verdict or target.goto:
                return verdict
        elif target == model.RETURN:
            return None
        elif verdict := _act(target, now, found):
            return verdict
    return None


def _act(target: Any, packet: Packet, found: Outcome) -> Any:
    if isinstance(target, model.Verdict):
        return target.name
    if isinstance(target, model.Redirect):
        return ("redirect", target.port)
    if isinstance(target, model.TProxy):
        if packet.listening:
            found.mark = target.mark
            return ("tproxy", target.port)
        # nft goes on to the next rule, iptables drops
        return None if isinstance(target, nftables.FamilyTProxy) else "DROP"
    if isinstance(target, model.SetMark):
        assert target.mask == 0xFFFFFFFF
        found.mark = target.value
    elif isinstance(target, model.SaveMark):
        found.connection_mark = packet.mark
    elif isinstance(target, model.RestoreMark):
        found.mark = packet.connection_mark
    elif isinstance(target, model.ConntrackZone):
        found.zone = found.zone or target.zone  # who has a zone keeps it
    else:
        raise AssertionError(f"no such target: {target}")
    return None


def holds(match: Match, packet: Packet) -> bool:
    """Tell whether a match holds for a packet."""
    return _HOLDS[type(match)](match, packet)


def _interface(match: Any, packet: Packet) -> bool:
    wildcard = match.name.endswith("+")
    same = packet.interface.startswith(match.name[:-1]) if wildcard else packet.interface == match.name
    return bool(same != match.negated)


def _incoming(match: Any, packet: Packet) -> bool:
    assert packet.hook == "PREROUTING"
    return _interface(match, packet)


def _outgoing(match: Any, packet: Packet) -> bool:
    assert packet.hook == "OUTPUT"
    return _interface(match, packet)


def _network(number: int, match: Any, packet: Packet) -> bool:
    assert match.cidr.family == packet.family
    return bool((match.cidr.address <= number <= match.cidr.last) != match.negated)


def _any_port(number: int, match: Any, ranges: Iterable[Any]) -> bool:
    return bool(any(ports.first <= number <= ports.last for ports in ranges) != match.negated)


def _owner(number: int | None, wanted: int, match: Any) -> bool:
    return bool(
        (number is not None and number == wanted) != match.negated
    )  # without a socket: not that owner


def _within(number: int, ranges: Iterable[tuple[int, int]]) -> bool:
    return any(first <= number <= last for first, last in ranges)


def _addresses(match: Any, packet: Packet) -> bool:
    number = packet.source if match.direction == "source" else packet.destination
    return bool(match.family == packet.family and _within(number, match.ranges) != match.negated)


def _ports(match: Any, packet: Packet) -> bool:
    number = packet.source_port if match.direction == "source" else packet.destination_port
    return bool(match.protocol == packet.protocol and _within(number, match.ranges) != match.negated)


def _owners(match: Any, packet: Packet) -> bool:
    number = packet.uid if match.kind == "user" else packet.gid
    return bool(number is not None and _within(number, match.ids) != match.negated)  # without a socket: never


_HOLDS: Mapping[type[Match], Callable[[Any, Packet], bool]] = {
    model.InInterface: _incoming,
    model.OutInterface: _outgoing,
    model.Source: lambda match, packet: _network(packet.source, match, packet),
    model.Destination: lambda match, packet: _network(packet.destination, match, packet),
    model.Transport: lambda match, packet: (packet.protocol == match.protocol) != match.negated,
    model.SourcePort: lambda match, packet: _any_port(packet.source_port, match, [match.ports]),
    model.DestinationPort: lambda match, packet: _any_port(packet.destination_port, match, [match.ports]),
    model.DestinationPorts: lambda match, packet: _any_port(packet.destination_port, match, match.ports),
    model.UidOwner: lambda match, packet: _owner(packet.uid, match.uid, match),
    model.GidOwner: lambda match, packet: _owner(packet.gid, match.gid, match),
    model.Mark: lambda match, packet: (packet.mark == match.value) != match.negated,
    model.ConnectionMark: lambda match, packet: (packet.connection_mark == match.value) != match.negated,
    model.ConntrackState: lambda match, packet: (packet.state in match.states) != match.negated,
    model.Comment: lambda _match, _packet: True,
    nftables.NfProto: lambda match, packet: match.family == packet.family,
    nftables.Addresses: _addresses,
    nftables.Ports: _ports,
    nftables.Owners: _owners,
}


# --- packets that may make a difference -------------------------------------------------------


def _values(ruleset: Ruleset) -> dict[str, set[Any]]:
    """Everything that rules compare with, and for numbers what is next to it."""
    found: dict[str, set[Any]] = {
        "ipv4": {0x0A000001, 0x7F000001},
        "ipv6": {1, 6},
        "port": {53, 80},
        "owner": {0, 1000},
        "mark": {0, 1337, 1338},
        "interface": {"lo", "eth0"},
    }
    for table, _, rule in ruleset.rules():
        for match in rule.matches:
            if isinstance(match, (model.Source, model.Destination)):
                found[table.family] |= _around(match.cidr.address, match.cidr.last)
            elif isinstance(match, (model.SourcePort, model.DestinationPort)):
                found["port"] |= _around(match.ports.first, match.ports.last)
            elif isinstance(match, model.UidOwner):
                found["owner"].add(match.uid)
            elif isinstance(match, model.GidOwner):
                found["owner"].add(match.gid)
            elif isinstance(match, (model.Mark, model.ConnectionMark)):
                found["mark"].add(match.value)
            elif isinstance(match, (model.InInterface, model.OutInterface)):
                found["interface"] |= {match.name.removesuffix("+") or "eth9", match.name.replace("+", "x")}
    return found


def _around(first: int, last: int) -> set[int]:
    return {first, last, max(first - 1, 0), last + 1, (first + last) // 2}


@st.composite
def packets(draw: DrawFn, ruleset: Ruleset, families: Sequence[Family] = ("ipv4", "ipv6")) -> Packet:
    """Packets made of what the rules compare with."""
    values = {name: sorted(found) for name, found in _values(ruleset).items()}
    family = draw(st.sampled_from(families))
    top = 2**32 if family == "ipv4" else 2**128
    addresses = st.sampled_from([number for number in values[family] if number < top])
    ports = st.sampled_from([number for number in values["port"] if number < 2**16])
    owners: SearchStrategy[int | None] = st.sampled_from(values["owner"]) | st.none()
    uid, gid = draw(owners), draw(owners)
    return Packet(
        hook=draw(st.sampled_from(["PREROUTING", "OUTPUT"])),
        family=family,
        interface=draw(st.sampled_from(values["interface"])),
        source=draw(addresses),
        destination=draw(addresses),
        protocol=draw(st.sampled_from(["tcp", "tcp", "tcp", "udp", "sctp"])),
        source_port=draw(ports),
        destination_port=draw(ports),
        uid=None if gid is None else uid,
        gid=None if uid is None else gid,  # a socket has both
        mark=draw(st.sampled_from(values["mark"])),
        connection_mark=draw(st.sampled_from(values["mark"])),
        state=draw(st.sampled_from(["NEW", "ESTABLISHED", "RELATED", "INVALID"])),
        listening=draw(st.booleans()),
    )
