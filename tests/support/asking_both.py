"""asking_both: the prover and Z3 asked the same: whether two rule sets of a pod have the same verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from istio_iptables.interpreter.journey import World
from istio_iptables.interpreter.known import Known
from istio_iptables.interpreter.packet import Packet
from istio_iptables.interpreter.program import Program
from istio_iptables.interpreter.regions import Region
from istio_iptables.interpreter.verdict import Proxy
from istio_iptables.prove.compare import Difference, differences
from istio_iptables.prove.example import example
from istio_iptables.prove.outcomes import Outcome, outcomes, simplified
from istio_iptables.prove.space import OTHER_INTERFACE, Packets, packets
from istio_iptables.rules import model
from istio_iptables.rules.model import FULL_MASK, Cidr, LocalAddress, MarkLookup, Ruleset
from istio_iptables.trace.packet import Question
from istio_iptables.trace.world import network_of, of_ruleset, with_objects

from . import z3_judge
from .z3_packets import HOSTS, Kind, Sent

#: The pod of all pairs: its own addresses on eth0, and a default route by it.
OWN = (Cidr(4, 0x0A000002, 32), Cidr(6, (0xFD << 120) | 2, 128))
NETWORK = network_of(OWN, Question("out"))


def interfaces_of(*rules: Ruleset) -> tuple[str, ...]:
    """Return interfaces that rules tell from others, one of those that a pattern is for, and one of none."""
    names = {
        match.name
        for ruleset in rules
        for _, _, rule in ruleset.rules()
        for match in rule.matches
        if isinstance(match, (model.InInterface, model.OutInterface))
    }
    found = {"any", *(name.removesuffix("+") for name in names)}
    found |= {f"{name[:-1]}7" for name in names if name.endswith("+")}
    return tuple(sorted(found - {"", "lo", "eth0"}))


def world_of(ruleset: Ruleset, others: tuple[str, ...], *, native: bool = False) -> World:
    """Return the pod with some rules, and with further interfaces, which have no addresses."""
    network = with_objects(NETWORK, ruleset.routing)
    network = network.replace(interfaces=(*network.interfaces, *others))
    return World(Program(tuple(of_ruleset(ruleset, Known(network), native=native))), network)


def pod_of(ruleset: Ruleset, family: model.Family, others: tuple[str, ...]) -> z3_judge.Pod:
    """Return the same as the judge has it."""
    more = tuple(
        each.cidr.address
        for each in ruleset.routing
        if isinstance(each, LocalAddress) and each.family == "ipv6"
    )
    delivered = tuple(
        each.mark for each in ruleset.routing if isinstance(each, MarkLookup) and each.family == family
    )
    own: Mapping[model.Family, int] = {each.family: each.address for each in OWN}
    return z3_judge.Pod("eth0", {"ipv4": (0x7F000001,), "ipv6": (1, *more)}, own, delivered, others)


class Proved(NamedTuple):
    """What the prover says of two rule sets and one kind of packets."""

    every: Packets
    one: tuple[Outcome, ...]
    other: tuple[Outcome, ...]
    found: list[Difference]


def proved(one: World, other: World, proxy: Proxy, kind: Kind) -> Proved:
    """Ask the prover."""
    every = packets((one, other), *kind)
    for field in ("source", "destination"):
        hosts, _ = every.possible.divide(field, (HOSTS[kind.family],))
        every = every.replace(possible=hosts)
    ours, theirs = (outcomes(simplified(each), every, proxy) for each in (one, other))
    return Proved(every, ours, theirs, list(differences(ours, theirs)))


class Judged(NamedTuple):
    """What both say: whether there is a difference, and what they do not agree on, in words."""

    differs: bool
    caught: bool
    disagreements: tuple[str, ...]


def judged(one: Ruleset, other: Ruleset, proxy: Proxy, kind: Kind, *, native: bool = False) -> Judged:
    """Ask both, and each about the packet of the other; and both about a packet of some outcomes."""
    others = interfaces_of(one, other)
    before, after = (world_of(each, others, native=native) for each in (one, other))
    answer = proved(before, after, proxy, kind)
    whose = z3_judge.Proxy(proxy.uids, proxy.gids, proxy.outbound_port)
    judge = z3_judge.Judge(one.tables, other.tables, pod_of(one, kind.family, others), whose, kind)
    packet = judge.packet()
    wrong = [] if packet is None else _wrong(answer, judge, packet, differs=True)
    for region in [difference.region for difference in answer.found[:_MOST]]:
        wrong += _wrong(answer, judge, _values(example(region, answer.every), kind), differs=True)
    for outcome in (*_some(answer.one), *_some(answer.other)):
        wrong += _wrong(answer, judge, _values(example(outcome.region, answer.every), kind))
    if (packet is None) == bool(answer.found):
        wrong.append(f"Z3 finds a difference: {packet}; the prover: {answer.found[:1]}")
    return Judged(packet is not None, bool(answer.found), tuple(wrong))


#: Packets of each list that are looked at.
_MOST = 4


def _some(found: tuple[Outcome, ...]) -> tuple[Outcome, ...]:
    return found[:: len(found) // _MOST + 1]


def _wrong(
    answer: Proved, judge: z3_judge.Judge, packet: Mapping[str, int | str], differs: bool = False
) -> list[str]:
    """Return in what both disagree about one packet, nothing if they do not."""
    by_z3 = [str(each) for each in judge.verdicts(packet)]
    box = _box(packet, answer.every)
    by_prover = [
        [str(outcome.verdict) for outcome in each if outcome.region & box]
        for each in (answer.one, answer.other)
    ]
    if [[each] for each in by_z3] == by_prover and (by_z3[0] != by_z3[1] or not differs):
        return []
    return [f"{packet}: Z3 {by_z3}, the prover {by_prover}"]


def _values(packet: Packet, kind: Kind) -> dict[str, int | str]:
    fields = [name for name in Sent._fields if name != "name"]
    values: dict[str, Any] = {name: getattr(packet, name) for name in fields}
    return values if kind.direction == "out" else {**values, "name": packet.received_on}


def _box(packet: Mapping[str, int | str], every: Packets) -> Region:
    """Return the region of one packet."""
    region = Region.whole(every.space)
    for field in every.free:
        value = packet["name" if field == "received_on" else field]
        values: Any = ((value, value),)
        if isinstance(value, str):
            values = frozenset({_word(value, every.space.words[field])})
        elif field in every.space.marks:
            values = frozenset({(value, FULL_MASK)})
        region, _ = region.divide(field, values)
    return region


def _word(name: str, words: frozenset[str]) -> str:
    """Return the word that stands for an interface."""
    if name in words:
        return name
    patterns = [each for each in words if each.endswith("/other") and each != OTHER_INTERFACE]
    fitting = [each for each in patterns if name.startswith(each.removesuffix("/other"))]
    return max(fitting, key=len, default=OTHER_INTERFACE)
