"""plan: which connections prove what the settings promise, as far as they can be made inside the pod.

This module does not decide where a connection has to arrive. It traces connections through the rules that
follow from the settings (trace.py), and chooses connections that those rules capture. So every setting
counts, whatever rule it became.
"""

from __future__ import annotations

from itertools import chain, count, islice

from ..policy.terms import IPV6_LOOPBACK, passthrough_source
from ..remedies import become
from ..rules.istio import DNS_AGENT_PORT, DNS_PORT, PROBE_PORT
from ..rules.lists import union
from ..rules.model import IPV4, Cidr
from ..settings.config import Everything
from ..startup.c_modules import socket
from ..startup.record import Record
from .model import Identity, Probe, Skipped
from .trace import Packet, Tracer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..rules.model import Family, Ruleset
    from ..settings.config import Config
    from .model import Kind, Pick, Protocol, Route
    from .trace import Outcome

#: CIDRs that no host uses (RFC 5737, 2544, 3849, 9637): they are dialled first, so that no connection reaches
#: a real host.
_UNUSED = {
    "ipv4": (
        Cidr(4, 0xC0000200, 24),  # 192.0.2.0/24
        Cidr(4, 0xC6336400, 24),  # 198.51.100.0/24
        Cidr(4, 0xCB007100, 24),  # 203.0.113.0/24
        Cidr(4, 0xC6120000, 15),  # 198.18.0.0/15
    ),
    "ipv6": (Cidr(6, 0x20010DB8 << 96, 32), Cidr(6, 0x3FFF << 112, 20)),
}
#: Where an address is looked for last, private CIDRs first. A probe gets no further than one hop.
_ANYWHERE = {
    "ipv4": (
        Cidr(4, 10 << 24, 8),
        Cidr(4, 0xAC100000, 12),
        Cidr(4, 0xC0A80000, 16),
        Cidr(4, 64 << 24, 2),
        Cidr(4, 128 << 24, 2),
    ),
    "ipv6": (Cidr(6, 0xFD << 120, 8), Cidr(6, 0x2000 << 112, 3)),
}
#: The UID of `nobody` and the GID of `nogroup`, who have no rights.
_UNPRIVILEGED = 65534
#: How many addresses a probe has, so that it can be dialled again, and how many are drawn at random to find
#: them.
_ADDRESSES, _DRAWS = 3, 12
#: How many members of a list are tried at most: each trial goes through all rules.
_ENOUGH = 8


#: How DNS servers are queried.
_QUERIES: tuple[Protocol, ...] = ("udp", "tcp")


class Situation(Record):
    """What the plan depends on: this process and its network namespace.

    `may_become`: the process can make connections as any other user. `addresses` are those of its interfaces,
    as CIDRs that keep their host bits. `route` finds the interface that leads to an address. `pick`, if
    given, chooses among equivalent addresses: connection tracking may still remember an earlier probe.
    `servers` are the DNS servers of this process, where the settings name none since they capture all DNS.
    """

    identity: Identity
    may_become: bool
    addresses: tuple[Cidr, ...]
    route: Route
    pick: Pick | None = None
    servers: tuple[Cidr, ...] = ()


class _Target(Record):
    """A destination, the interface that leads to it, and what the rules do with a connection to it."""

    address: int
    port: int
    interface: str
    identity: Identity
    trace: Outcome
    watched: int
    protocol: Protocol = "tcp"
    dns: bool = False


def plan(config: Config, ruleset: Ruleset, situation: Situation, port: int) -> tuple[Probe | Skipped, ...]:
    """Return the probes for a Config and the rules that follow from it, and those that cannot be made.

    `port` is the port to connect to, if the settings let it be captured; otherwise another port is taken.
    """
    planner = _Planner(config, ruleset, situation, port)
    inbound = [item for family in config.families for item in planner.inbound(family)]
    outbound = [item for family in config.families for item in planner.outbound(family)]
    dns = [item for family in config.families if config.captures_dns(family) for item in planner.dns(family)]
    return (*inbound, *outbound, *dns)


class _Planner:
    """The plan for one Config, in one situation."""

    def __init__(self, config: Config, ruleset: Ruleset, situation: Situation, port: int) -> None:
        self._config = config
        self._tracer = Tracer(ruleset)
        self._self = situation.identity
        self._may_become = situation.may_become
        self._addresses = situation.addresses
        self._route = situation.route
        self._pick = situation.pick
        self._servers = config.dns_servers or situation.servers
        self._port = port
        self._proxy = Identity(config.proxy_uids[0], config.proxy_gids[0])

    # --- inbound ----------------------------------------------------------------------------

    def inbound(self, family: Family) -> list[Probe | Skipped]:
        """Plan connections of the proxy to its own pod, which count as inbound.

        If there are several proxy UIDs, the rules redirect these connections for the first one, and for
        others only if no earlier rule returns them.
        """
        proxies = [self._proxy.replace(uid=uid) for uid in self._config.proxy_uids]
        dialling = proxies if self._may_become else [self._self] if self._is_proxy(self._self) else []
        found = [self._inbound_of(family, identity) for identity in dialling]
        probes = [item for item in found if isinstance(item, Probe)]
        if probes:
            return list(probes)
        possible = [self._inbound_of(family, identity) for identity in proxies]
        if any(isinstance(item, Probe) for item in possible):  # as a user that this process is not
            return [self._cannot_become("inbound", family)]
        reason = possible[0]
        return [Skipped("inbound", family, f"the settings leave it alone: {reason}", "", required=False)]

    def _is_proxy(self, identity: Identity) -> bool:
        """Tell whether the rules take an identity for the proxy's, by its user or its group."""
        return identity.uid in self._config.proxy_uids or identity.gid in self._config.proxy_gids

    def _inbound_of(self, family: Family, identity: Identity) -> Probe | str:
        """Return the inbound probe of an identity, or the reason why the rules do not capture it."""
        reason = ""
        passthrough = passthrough_source(family).address
        # From ::1, not from ::6, which the kernel would choose: the rules return what comes from ::6.
        ways = [(passthrough, 0x7F000001 if family == IPV4 else IPV6_LOOPBACK.address)]
        # The pod's own address works too, where 127.0.0.6 is within the loopback CIDR of the settings.
        ways += [(own.address, own.address) for own in self._own(family)]
        for address, origin in ways:
            for port in self._ports():
                packet = Packet(family, origin, address, port, "lo", identity)
                decided = self._tracer.trace(packet)
                if decided.port == self._config.inbound_port:
                    return Probe(
                        "inbound",
                        family,
                        identity,
                        _text(family, origin),
                        _text(family, address),
                        port,
                        "lo",
                        self._config.inbound_port,
                        True,
                        decided.reason,
                    )
                reason = reason or decided.reason
        return reason

    def _own(self, family: Family) -> list[Cidr]:
        """Return the pod's own addresses, without the usual ones of the loopback interface."""
        usual = (Cidr(4, 127 << 24, 8), IPV6_LOOPBACK, passthrough_source(family))
        link_local = Cidr(6, 0xFE80 << 112, 10)  # dialling one needs a zone
        return [
            own
            for own in self._addresses
            if own.family == family
            and not any(
                cidr.version == own.version and cidr.address <= own.address <= cidr.last
                for cidr in (*usual, link_local)
            )
        ]

    def _on_link(self, family: Family) -> list[Cidr]:
        """Return some of the pod's own addresses that other hosts are in one subnet with."""
        return [own for own in self._own(family) if own.prefix < own.bits][:_ENOUGH]

    # --- outbound ---------------------------------------------------------------------------

    def outbound(self, family: Family) -> list[Probe | Skipped]:
        """Plan connections to a captured address: by a user other than the proxy, and by the proxy."""
        other = self._other_user()
        target, alone = self._target(family, other)
        if target is None and alone is None and next(self._destinations(family), None) is None:
            alone = self._excluded(family, other)
        if target is None and alone is None:
            why = "no route leads to an address that the settings capture"
            return [Skipped("outbound", family, why, "", required=False)]
        if target is None:
            assert alone is not None
            dialling = other if self._may_become else self._self
            return [self._probe("outbound", family, alone, dialling, False)]
        return self._both_ways(family, target)

    def _both_ways(self, family: Family, target: _Target) -> list[Probe | Skipped]:
        """Plan connections to a captured destination, by a user other than the proxy and by the proxy."""
        if self._may_become:
            return [
                self._probe("outbound", family, target, target.identity, True),
                *self._exemptions(family, target),
            ]
        captured = self._tracer.trace(self._packet(family, target, self._self)).port == target.watched
        # The proxy's own calls to its pod arrive there, too, if one port is both outbound and inbound.
        if captured and not self._is_proxy(self._self):
            return [
                self._probe("outbound", family, target, self._self, True),
                self._cannot_become("exempt", family, target),
            ]
        why = "only root can dial as a user other than the proxy"
        found: list[Probe | Skipped] = [
            Skipped("outbound", family, why, "", False, target.protocol, target.dns)
        ]
        if self._is_proxy(self._self):
            return [*found, self._probe("exempt", family, target, self._self, False)]
        return [*found, self._cannot_become("exempt", family, target)]

    # --- DNS --------------------------------------------------------------------------------

    def dns(self, family: Family) -> list[Probe | Skipped]:
        """Plan queries to a captured server: over UDP and TCP, by a user other than the proxy and by it."""
        other = self._other_user()
        found: list[Probe | Skipped] = []
        for protocol in _QUERIES:
            reason = "no route leads to a server"
            for address in self._dns_addresses(family):
                target = self._dns_target(family, address, other, protocol)
                if target is not None and target.trace.port == DNS_AGENT_PORT:
                    found += self._both_ways(family, target)
                    break
                if target is not None:
                    reason = f"the settings leave it alone: {target.trace.reason}"
            else:
                found.append(Skipped("outbound", family, reason, "", False, protocol, True))
        return found

    def _dns_target(
        self, family: Family, address: int, identity: Identity, protocol: Protocol
    ) -> _Target | None:
        interface = self._route(family, _text(family, address))
        if interface is None:
            return None
        packet = Packet(family, 0, address, DNS_PORT, interface, identity, protocol)
        decided = self._tracer.trace(packet)
        return _Target(address, DNS_PORT, interface, identity, decided, DNS_AGENT_PORT, protocol, True)

    def _dns_addresses(self, family: Family) -> Iterator[int]:
        """Yield the addresses of servers; if all DNS is captured, also addresses that no host has.

        A server comes first: another program may have a rule for it alone, as docker has for its own.
        """
        yield from [server.address for server in self._servers if server.family == family][:_ENOUGH]
        if self._config.capture_all_dns:
            yield from self._free_addresses((*_UNUSED[family], *self._on_link(family), *_ANYWHERE[family]))

    def _exemptions(self, family: Family, target: _Target) -> Iterator[Probe]:
        """Yield a probe for each UID and each GID of the proxy, separately.

        Each UID is combined with a captured group, and each GID with a captured user: with both of the proxy,
        the exemption of one hides that the other's is missing. With TPROXY, root with the proxy's GID is the
        proxy.
        """
        other = target.identity
        for uid in dict.fromkeys(self._config.proxy_uids):
            yield self._probe("exempt-uid", family, target, other.replace(uid=uid), False)
        for gid in dict.fromkeys(self._config.proxy_gids):
            yield self._probe("exempt-gid", family, target, other.replace(gid=gid), False)

    def _probe(self, kind: Kind, family: Family, target: _Target, identity: Identity, arrives: bool) -> Probe:
        decided = self._tracer.trace(self._packet(family, target, identity))
        address, *others = self._addresses_like(family, target, identity)
        return Probe(
            kind,
            family,
            identity,
            "",
            address,
            target.port,
            target.interface,
            target.watched,
            arrives,
            decided.reason,
            None if arrives else decided.port,
            tuple(others),
            target.protocol,
            target.dns,
        )

    def _addresses_like(self, family: Family, target: _Target, identity: Identity) -> list[str]:
        """Return equivalent addresses near a target, at random; only the target's own if none may be chosen.

        The rules treat them alike, and the same interface leads to them. If the target is in a subnet of this
        pod, no other address is taken: it could be a neighbour's.
        """
        neighbours = any(
            own.family == family
            and own.address >> (own.bits - own.prefix) == target.address >> (own.bits - own.prefix)
            for own in self._addresses
        )
        is_server = target.dns and target.address in {s.address for s in self._servers if s.family == family}
        if self._pick is None or neighbours or is_server:
            return [_text(family, target.address)]
        first, last = self._around(family, target.address)
        drawn = [first + self._pick(last - first + 1) for _ in range(_DRAWS)]
        alike = (address for address in drawn if self._is_like(family, target, identity, address))
        found = dict.fromkeys(_text(family, address) for address in islice(alike, _ADDRESSES))
        return [*found] or [_text(family, target.address)]

    def _around(self, family: Family, address: int) -> tuple[int, int]:
        """Return the first and last address of the /24 or /112 around an address, within its listed CIDR."""
        low = 0xFF if family == IPV4 else 0xFFFF
        first, last = address & ~low | 1, (address | low) - 1
        for cidr in self._listed(family):
            start = _first(cidr)
            if start <= address <= cidr.last:
                return max(min(first, address), start), min(max(last, address), cidr.last)
        return min(first, address), max(last, address)

    def _is_like(self, family: Family, target: _Target, identity: Identity, address: int) -> bool:
        other = target.replace(address=address)
        return (
            all(
                self._tracer.trace(self._packet(family, target, who))
                == self._tracer.trace(self._packet(family, other, who))
                for who in (identity, target.identity)
            )
            and self._route(family, _text(family, address)) == target.interface
        )

    def _packet(self, family: Family, target: _Target, identity: Identity) -> Packet:
        # Only the rule for 127.0.0.6 and ::6 matches the source, and the kernel chooses neither as a source.
        return Packet(family, 0, target.address, target.port, target.interface, identity, target.protocol)

    def _target(self, family: Family, other: Identity) -> tuple[_Target | None, _Target | None]:
        """Return a destination that is captured (or None), and the first one that is left alone (or None)."""
        alone: _Target | None = None
        for address in self._destinations(family):
            interface = self._route(family, _text(family, address))
            if interface is None:
                continue
            for port in self._outbound_ports():
                packet = Packet(family, 0, address, port, interface, other)
                decided = self._tracer.trace(packet)
                target = _Target(address, port, interface, other, decided, self._config.outbound_port)
                if decided.port == self._config.outbound_port:
                    return target, alone
                alone = alone or target
            if not self._config.outbound_cidrs and not self._config.outbound_ports:
                break  # none is captured
        return None, alone

    def _excluded(self, family: Family, other: Identity) -> _Target | None:
        """Return a destination that is left alone, where the settings exclude all that they would capture."""
        own = {own.address for own in self._addresses if own.family == family}
        for cidr in (*_UNUSED[family], *self._on_link(family)):
            address = _first(cidr) | 1
            interface = self._route(family, _text(family, address))
            if interface is None or address in own:
                continue
            packet = Packet(family, 0, address, self._outbound_ports()[0], interface, other)
            decided = self._tracer.trace(packet)
            if decided.port != self._config.outbound_port:
                outbound_port = self._config.outbound_port
                return _Target(address, packet.port, interface, other, decided, outbound_port)
        return None

    def _destinations(self, family: Family) -> Iterator[int]:
        """Yield addresses that might be captured and that no host has, or at least not this pod."""
        listed = self._listed(family)
        yield from self._free_addresses(listed)
        if not listed or self._config.outbound_ports:
            yield from self._free_addresses((*_UNUSED[family], *self._on_link(family), *_ANYWHERE[family]))

    def _listed(self, family: Family) -> tuple[Cidr, ...]:
        """Return the first listed destinations of a family, nothing if all destinations are captured."""
        cidrs = self._config.outbound_cidrs
        if isinstance(cidrs, Everything):
            return ()
        return tuple(islice((cidr for cidr in cidrs if cidr.family == family), _ENOUGH))

    def _free_addresses(self, cidrs: Iterable[Cidr]) -> Iterator[int]:
        """Yield one address of each CIDR that is neither excluded nor this pod's own."""
        closed = [(n.address, n.last, n.version) for n in self._config.outbound_cidrs_excluded]
        closed += [(own.address, own.address, own.version) for own in self._addresses]
        by_version = {v: union((a, b) for a, b, version in closed if version == v) for v in (4, 6)}
        for cidr in cidrs:
            first = _first(cidr)
            address = first + 1 if cidr.prefix < cidr.bits - 1 else first  # .0 is the network address
            for low, high in by_version[cidr.version]:
                if low <= address <= high:
                    address = high + 1
            if address <= first + (1 << (cidr.bits - cidr.prefix)) - 1:
                yield address

    def _other_user(self) -> Identity:
        """Return an identity that is not the proxy, one whose traffic is captured if there is one.

        It is this process itself, if possible, so that the connection is one that could really happen.
        """
        groups, exempt = self._config.owner_groups, set(self._config.proxy_gids)
        candidates: Iterable[int] = chain((self._self.gid, _UNPRIVILEGED), count(1))
        if isinstance(groups, Everything):
            exempt |= set(self._config.owner_groups_excluded)
        else:
            candidates = groups
        users = chain((self._self.uid, _UNPRIVILEGED), count(1))
        uid = next(uid for uid in users if uid not in self._config.proxy_uids)
        gid = next((gid for gid in candidates if gid not in exempt), self._self.gid)
        return Identity(uid, gid)

    def _cannot_become(self, kind: Kind, family: Family, target: _Target | None = None) -> Skipped:
        why = f"this process ({self._self}) may not become the proxy ({self._proxy})"
        proxy = f"UID {self._proxy.uid}"
        skipped = Skipped(kind, family, why, become(proxy), required=True)
        return skipped.replace(protocol=target.protocol, dns=target.dns) if target else skipped

    # --- ports ------------------------------------------------------------------------------

    def _ports(self) -> tuple[int, ...]:
        """Return the ports to try: the probe port, unless it has another meaning, and one that has none."""
        special = {self._config.inbound_port, self._config.outbound_port, self._config.tunnel_port, DNS_PORT}
        closed = union((ports.first, ports.last) for ports in self._config.outbound_ports_excluded)
        wanted = () if self._port in special else (self._port,)
        free = (
            port
            for port in chain(range(PROBE_PORT, 65536), range(1, PROBE_PORT))
            if port not in special and not any(first <= port <= last for first, last in closed)
        )
        return (*wanted, *islice(free, 1))

    def _outbound_ports(self) -> tuple[int, ...]:
        """Return the ports to try: those of _ports, or the captured ports if only some are captured."""
        if self._config.outbound_cidrs or not self._config.outbound_ports:
            return self._ports()
        return tuple(ports.first for ports in self._config.outbound_ports[:_ENOUGH])


def _first(cidr: Cidr) -> int:
    """Return the first address of a CIDR that may have host bits."""
    return cidr.address >> (cidr.bits - cidr.prefix) << (cidr.bits - cidr.prefix)


def _text(family: Family, address: int) -> str:
    if family == IPV4:
        return socket.inet_ntop(socket.AF_INET, address.to_bytes(4, "big"))
    return socket.inet_ntop(socket.AF_INET6, address.to_bytes(16, "big"))
