"""z3_judge: whether two rule sets of iptables have the same verdict for every packet, decided by Z3.

A reading of its own of what rules do, from iptables(8) and iptables-extensions(8), and of the way of packets
through a pod, from SPEC section 9 and the kernel's sources: one packet of bit-vectors goes through all hooks,
and every field is a term that says what it has become. It shares nothing with the interpreter but the rules.

It knows the tables raw, mangle and nat, and the matches and targets of rules/model.py but the foreign ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import z3

from istio_iptables.rules import model
from istio_iptables.rules.model import IPV4, NO_ID

from .z3_packets import (
    NAME_BITS,
    Kind,
    Sent,
    Term,
    any_packet,
    constant,
    number,
    packet_of,
    possible,
    replaced,
)


class Pod(NamedTuple):
    """A pod: the addresses of `lo` and of an interface, by which all leaves that is not for the pod.

    By `others`, which have no addresses, packets come in, too. What has one of the marks `delivered` is for
    the pod itself (`ip rule ... fwmark`).
    """

    interface: str
    loopback: Mapping[model.Family, tuple[int, ...]]
    own: Mapping[model.Family, int]
    delivered: tuple[int, ...] = ()
    others: tuple[str, ...] = ()


class Proxy(NamedTuple):
    """The proxy: who it is, and where it listens for what is sent."""

    uids: tuple[int, ...]
    gids: tuple[int, ...]
    port: int


#: The verdicts, by their numbers in terms.
VERDICTS = ("none yet", "direct", "redirected", "tproxied", "dropped", "rejected", "loops")
_NONE, _DIRECT, _REDIRECTED, _TPROXIED, _DROPPED, _REJECTED, _LOOPS = range(len(VERDICTS))
_STATES = {
    "first": "NEW",
    "expected": "RELATED",
    "later": "ESTABLISHED",
    "error": "RELATED",
    "invalid": "INVALID",
}
_PROTOCOLS = {"tcp": 6, "udp": 17}


# --- what is asked ----------------------------------------------------------------------------


class Verdict(NamedTuple):
    """One of VERDICTS, with the port of those that have one."""

    code: str
    port: int

    def __str__(self) -> str:
        return f"{self.code} {self.port or ''}".rstrip()


class Judge:
    """Two rule sets in a pod, and the packets of one kind: whether they have the same verdict for all."""

    def __init__(
        self,
        one: Iterable[model.Table],
        other: Iterable[model.Table],
        pod: Pod,
        proxy: Proxy,
        kind: Kind,
    ) -> None:
        self._kind, self._pod = kind, pod
        self._sent = any_packet(kind)
        self._verdicts = [_Way(rules, pod, proxy, kind, self._sent).verdict() for rules in (one, other)]

    def packet(self) -> dict[str, int | str] | None:
        """Return a packet for which the rule sets have different verdicts, None if there is none."""
        solver = z3.SolverFor("QF_BV")
        ours, theirs = self._verdicts
        interfaces = (self._pod.interface, *self._pod.others)
        solver.add(possible(self._sent, self._kind, interfaces), z3.simplify(ours != theirs))
        answer = solver.check()
        if answer == z3.unsat:
            return None
        assert answer == z3.sat, "the solver gives up"
        return packet_of(solver.model(), self._sent, self._kind)

    def verdicts(self, packet: Mapping[str, int | str]) -> tuple[Verdict, Verdict]:
        """Return both verdicts for one packet with the fields of `Sent`; those that are missing are 0."""
        one, other = (_verdict(replaced(each, self._sent, self._kind, packet)) for each in self._verdicts)
        return one, other


def _verdict(term: Term) -> Verdict:
    found = z3.simplify(term).as_long()
    return Verdict(VERDICTS[found >> 16], found & 0xFFFF)


# --- the way of packets -----------------------------------------------------------------------

_EMPTY, _LO = (constant(number(text), NAME_BITS) for text in ("", "lo"))


class _Way:
    """Packets of one kind on their way through the rules of a pod. Each field is a term over `Sent`."""

    def __init__(self, rules: Iterable[model.Table], pod: Pod, proxy: Proxy, kind: Kind, sent: Sent) -> None:
        self._tables = {table.name: table for table in rules if table.family == kind.family}
        self._pod, self._proxy, self._kind, self._sent = pod, proxy, kind, sent
        self._bits = 32 if kind.family == IPV4 else 128
        self._cable = constant(number(pod.interface), NAME_BITS)
        self.protocol, self.source, self.source_port = sent.protocol, sent.source, sent.source_port
        self.destination, self.destination_port = sent.destination, sent.destination_port
        self.uid, self.gid, self.mark = sent.uid, sent.gid, sent.mark
        self.connection_mark = sent.connection_mark
        self.came_by, self.leaves_by = sent.name, _EMPTY
        self.tracked = False  #: conntrack has looked at it
        self.zoned: Term = z3.BoolVal(False)  #: a rule has chosen its zone
        self.ended, self.redirected, self.tproxied = constant(_NONE, 8), constant(0, 16), constant(0, 16)
        self.destination_decided: Term = z3.BoolVal(False)
        self.hook = ""

    def verdict(self) -> Term:
        """Return the verdict as a term: a number of VERDICTS, then a port of 16 bits."""
        if self._kind.direction == "out":
            self._from_a_socket()
        else:
            self._from_the_cable()
        by_proxy = z3.Or(
            *(self._sent.uid == uid for uid in self._proxy.uids),
            *(self._sent.gid == gid for gid in self._proxy.gids),
        )
        looping = z3.And(by_proxy, self.protocol == 6, self.redirected == self._proxy.port)
        if self._kind.direction == "in":
            looping = z3.BoolVal(False)
        arrived = z3.If(
            self.tproxied != 0,
            z3.Concat(constant(_TPROXIED, 8), self.tproxied),
            z3.If(
                self.redirected == 0,
                constant(_DIRECT << 16, 24),
                z3.If(
                    looping,
                    constant(_LOOPS << 16, 24),
                    z3.Concat(constant(_REDIRECTED, 8), self.redirected),
                ),
            ),
        )
        return z3.If(self.ended == _NONE, arrived, z3.Concat(self.ended, constant(0, 16)))

    def _set(self, on: Term, **fields: Term) -> None:
        for name, value in fields.items():
            setattr(self, name, z3.If(on, value, getattr(self, name)))

    def _end(self, on: Term, how: int) -> None:
        self._set(z3.And(on, self.ended == _NONE), ended=constant(how, 8))

    @property
    def _alive(self) -> Term:
        return self.ended == _NONE

    # --- addresses and routes ------------------------------------------------------------------

    def _within(self, address: Term, first: int, last: int) -> Term:
        return z3.And(z3.UGE(address, first), z3.ULE(address, last))

    def _is_loopback(self, address: Term) -> Term:
        if self._kind.family == IPV4:
            return self._within(address, 127 << 24, (128 << 24) - 1)
        return address == 1

    def _is_own(self, address: Term) -> Term:
        known = (*self._pod.loopback[self._kind.family], self._pod.own[self._kind.family])
        return z3.Or(self._is_loopback(address), *(address == each for each in known))

    def _is_group(self, address: Term) -> Term:
        """IPv4 multicast and broadcast. A destination of IPv6 multicast has the route that others have."""
        if self._kind.family != IPV4:
            return z3.BoolVal(False)
        return z3.Or(self._within(address, 224 << 24, (240 << 24) - 1), address == 0xFFFFFFFF)

    def _has_mark(self) -> Term:
        return z3.Or(*(self.mark == mark for mark in self._pod.delivered))

    def _stays(self) -> Term:
        """Whether what is sent leaves by lo: to an own address, or with a mark that says so.

        To a group it leaves by the interface that has its source, if one has.
        """
        plainly = z3.Or(self._is_own(self.destination), self._has_mark())
        if self._kind.family != IPV4:
            return plainly
        of_lo = z3.Or(*(self.source == each for each in self._pod.loopback[IPV4]))
        to_group = z3.If(of_lo, z3.BoolVal(True), z3.And(self.source != self._pod.own[IPV4], plainly))
        return z3.If(self._is_group(self.destination), to_group, plainly)

    def _strays(self, stays: Term) -> Term:
        """What has a source of 127.0.0.0/8 leaves by lo alone."""
        return z3.And(self._kind.family == IPV4, z3.Not(stays), self._is_loopback(self.source))

    # --- from a socket -------------------------------------------------------------------------

    def _from_a_socket(self) -> None:
        stays = self._stays()
        self._end(self._strays(stays), _REJECTED)
        self.leaves_by = z3.If(stays, _LO, self._cable)
        self.hook = "OUTPUT"
        self._table("raw")
        self.tracked = True
        before = self.mark
        self._table("mangle")
        stays = self._routed_again(self.mark != before, stays)
        there = self.destination
        self._nat()
        stays = self._routed_again(self.destination != there, stays)
        self.leaves_by = z3.If(stays, _LO, self._cable)
        self.hook = "POSTROUTING"
        self._table("mangle")
        # What leaves by the cable has arrived as far as the pod is concerned; the rest comes back by lo.
        self.leaves_by, self.came_by = _EMPTY, _LO
        self.uid = self.gid = constant(NO_ID, 32)
        if self._kind.phase == "invalid":  # it has no connection, so it is as if conntrack had not seen it
            self.tracked, self.zoned = False, z3.BoolVal(False)
        self._back_by_lo(stays)

    def _routed_again(self, on: Term, stays: Term) -> Term:
        again = self._stays()
        self._end(z3.And(on, self._strays(again)), _DROPPED)
        return z3.If(on, again, stays)

    def _back_by_lo(self, stays: Term) -> None:
        self.hook = "PREROUTING"
        self._table("raw", stays)
        self.tracked = True
        self._table("mangle", stays)
        # nat has decided about its connection in OUTPUT.
        self.hook = "INPUT"
        self._table("mangle", stays)

    # --- from the cable ------------------------------------------------------------------------

    def _from_the_cable(self) -> None:
        old = self._kind.family == IPV4
        no_host = self._no_host(self.source)
        if not old:
            self._end(z3.Or(self._is_loopback(self.source), self._is_loopback(self.destination)), _DROPPED)
            self._end(no_host, _DROPPED)
        self.hook = "PREROUTING"
        self._table("raw")
        self.tracked = True
        self._table("mangle")
        self._nat()
        if old:
            self._end(no_host, _DROPPED)
            self._end(z3.Or(self._is_loopback(self.source), self._is_loopback(self.destination)), _DROPPED)
            self._end(self._is_own(self.source), _DROPPED)
        arrives = z3.Or(self._is_own(self.destination), self._is_group(self.destination), self._has_mark())
        if not old:
            arrives = self._arrives_by_ipv6(arrives)
        self.hook = "INPUT"
        self._table("mangle", arrives)
        goes_on = z3.Not(arrives)
        self._end(z3.And(goes_on, self.tproxied != 0), _DROPPED)
        self.leaves_by = self._cable
        self.hook = "FORWARD"
        self._table("mangle", goes_on)
        self.hook = "POSTROUTING"
        self._table("mangle", goes_on)

    def _no_host(self, source: Term) -> Term:
        """Addresses from which nothing may come: groups, and ::ffff:0:0/96."""
        if self._kind.family == IPV4:
            return self._is_group(source)
        return z3.Or(
            self._within(source, 0xFFFF << 32, (0x10000 << 32) - 1),
            self._within(source, 0xFF << 120, (1 << 128) - 1),
        )

    def _arrives_by_ipv6(self, arrives: Term) -> Term:
        """Addresses of the link alone are looked for on the interface that the packet came by."""
        of_link = z3.Or(
            self._within(self.destination, 0xFE80 << 112, (0xFEC0 << 112) - 1),
            self._within(self.destination, 0xFF << 120, (1 << 128) - 1),
        )
        self._end(z3.And(of_link, self.came_by != self._cable), _REJECTED)
        return z3.And(arrives, z3.Not(of_link))

    # --- tables and chains ---------------------------------------------------------------------

    def _table(self, name: str, on: Term | None = None) -> None:
        table = self._tables.get(name)  # type: ignore[call-overload]  # one of its keys
        if table:
            self._chain(table, self.hook, self._alive if on is None else z3.And(on, self._alive))

    def _nat(self) -> None:
        """nat is asked for the first packet of a connection alone."""
        if self._kind.phase in ("first", "expected"):
            self._table("nat")

    def _chain(self, table: model.Table, name: str, here: Term) -> tuple[Term, Term]:
        """Return which packets come back from a chain, and which leave the table there."""
        back: Term = z3.BoolVal(False)
        accepted: Term = z3.BoolVal(False)
        for rule in table.chain(name).in_order:
            hit = z3.And(here, self._alive, *(self._holds(match) for match in rule.matches))
            target = rule.target
            if isinstance(target, model.Jump):
                returned, left = self._chain(table, target.chain, hit)
                accepted = z3.Or(accepted, left)
                here = z3.And(here, z3.Not(hit))
                if target.goto:
                    back = z3.Or(back, returned)
                else:
                    here = z3.Or(here, returned)
            elif target == model.RETURN:
                back, here = z3.Or(back, hit), z3.And(here, z3.Not(hit))
            elif self._does(target, hit):
                accepted, here = z3.Or(accepted, hit), z3.And(here, z3.Not(hit))
        return z3.Or(back, here), accepted

    def _does(self, target: model.Target, hit: Term) -> bool:
        """Do what a target does with packets; return whether these leave the table then."""
        if isinstance(target, model.SetMark):
            kept = model.FULL_MASK & ~target.mask
            self._set(hit, mark=(self.mark & kept) ^ constant(target.value, 32))
        elif isinstance(target, model.SaveMark):
            self._set(z3.And(hit, self._has_entry), connection_mark=self.mark)
        elif isinstance(target, model.RestoreMark):
            self._set(z3.And(hit, self._has_entry), mark=self.connection_mark)
            self._assert_no_zone()
        elif isinstance(target, model.ConntrackZone):
            if not self.tracked:
                self.zoned = z3.Or(self.zoned, hit)
        elif isinstance(target, model.TProxy):
            self._set(hit, tproxied=constant(target.port, 16), mark=constant(target.mark, 32))
            return True
        elif isinstance(target, model.Redirect):
            self._redirect(target, hit)
            return True
        elif target == model.DROP:
            self._end(hit, _DROPPED)
        else:
            assert target == model.ACCEPT, target
            return True
        return False

    def _redirect(self, target: model.Redirect, hit: Term) -> None:
        """REDIRECT: to the loopback address for what is sent, else to an address of the interface."""
        family = self._kind.family
        self._set(hit, redirected=constant(target.port, 16), destination_port=constant(target.port, 16))
        if self.hook == "OUTPUT":
            self._set(hit, destination=constant(0x7F000001 if family == IPV4 else 1, self._bits))
            return
        has_one = self.came_by == self._cable
        if family != IPV4:  # of the scope of the destination; the pod has one address, which is global
            scopes = (
                (0, 0xFFFFFFFF),
                (0xFE80 << 112, (0xFEC0 << 112) - 1),
                (0xFEC0 << 112, (0xFF00 << 112) - 1),
            )
            others = z3.Or(*(self._within(self.destination, *scope) for scope in scopes))
            has_one = z3.And(has_one, z3.Not(others))
        self._end(z3.And(hit, z3.Not(has_one)), _DROPPED)
        self._set(hit, destination=constant(self._pod.own[family], self._bits))

    # --- matches -------------------------------------------------------------------------------

    @property
    def _has_entry(self) -> bool:
        return self.tracked and self._kind.phase != "invalid"

    def _assert_no_zone(self) -> None:
        """A zone comes with a mark of its own, until conntrack has found the connection: not known here."""
        assert self.tracked or z3.is_false(z3.simplify(self.zoned)), "a connection mark in raw, after CT"

    def _holds(self, match: model.Match) -> Term:
        if isinstance(match, model.ConnectionMark) and not self._has_entry:
            self._assert_no_zone()
            return z3.BoolVal(False)  # there is no connection, so it has no mark, negated or not
        found = _HOLDS[type(match)](self, match)
        return z3.Not(found) if getattr(match, "negated", False) else found

    def _cidr(self, address: Term, cidr: model.Cidr) -> Term:
        free = cidr.bits - cidr.prefix
        return z3.LShR(address, free) == constant(cidr.address >> free, self._bits)

    def _port(self, port: Term, ports: Iterable[model.PortRange]) -> Term:
        return z3.Or(*(self._within(port, each.first, each.last) for each in ports))

    def _state(self, match: model.ConntrackState) -> Term:
        """Before conntrack has seen a packet it is INVALID, or NEW if a rule has chosen its zone."""
        assert match.states.isdisjoint({"SNAT", "DNAT"})
        if self.tracked:
            return z3.BoolVal(_STATES[self._kind.phase] in match.states)
        return z3.If(self.zoned, z3.BoolVal("NEW" in match.states), z3.BoolVal("INVALID" in match.states))


def _interface(name: Term, pattern: str) -> Term:
    """A trailing `+` stands for any ending (iptables(8), --in-interface)."""
    if not pattern.endswith("+"):
        return name == number(pattern)
    start = pattern[:-1].encode("utf-8", "surrogateescape")
    if not start:
        return z3.BoolVal(True)
    size = NAME_BITS
    return z3.Extract(size - 1, size - 8 * len(start), name) == int.from_bytes(start, "big")


_HOLDS: Mapping[type[model.Match], Callable[[_Way, Any], Term]] = {
    model.InInterface: lambda way, m: _interface(way.came_by, m.name),
    model.OutInterface: lambda way, m: _interface(way.leaves_by, m.name),
    model.Source: lambda way, m: way._cidr(way.source, m.cidr),
    model.Destination: lambda way, m: way._cidr(way.destination, m.cidr),
    model.Transport: lambda way, m: way.protocol == _PROTOCOLS[m.protocol],
    model.SourcePort: lambda way, m: way._port(way.source_port, [m.ports]),
    model.DestinationPort: lambda way, m: way._port(way.destination_port, [m.ports]),
    model.DestinationPorts: lambda way, m: way._port(way.destination_port, m.ports),
    model.UidOwner: lambda way, m: way.uid == m.uid,
    model.GidOwner: lambda way, m: way.gid == m.gid,
    model.Mark: lambda way, m: (way.mark & m.mask) == m.value,
    model.ConnectionMark: lambda way, m: (way.connection_mark & m.mask) == m.value,
    model.ConntrackState: lambda way, m: way._state(m),
    model.Comment: lambda way, m: z3.BoolVal(True),
}
