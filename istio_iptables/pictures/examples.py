"""examples: connections that show what settings do, one for each thing that they say."""

from __future__ import annotations

from ..interpreter.packet import UDP
from ..rules.istio import DNS_PORT, PASSTHROUGH_IPV4, PASSTHROUGH_IPV6, PROGRAM
from ..rules.model import FAMILIES, IPV4, IPV6, NO_ID, Cidr
from ..settings.config import Everything
from ..settings.packet_parsers import Endpoint
from ..startup.record import Record
from ..trace.packet import Question, words
from .subject import EXAMPLE_OWN, followed, interface_of, outcome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..interpreter.routing import Network
    from ..rules.model import Family, PortRange
    from ..settings.config import Config
    from .model import Outcome
    from .subject import Subject

#: Services outside, of the networks for documentation (RFC 5737, RFC 3849); then any, if those are excluded.
_SERVICES = {
    "ipv4": (0xCB00710A, 0xC633640A, 0xC000020A, 0x0A60000A, 0x08080808, 0x01010101),
    "ipv6": (0x20010DB8000000000000000000000050, 0xFD00000000000000000000000000000A, (0x2600 << 112) + 10),
}
_LOCALHOST = {"ipv4": 0x7F000001, "ipv6": 1}
_PORTS = (80, 8080, 9000, 443, 3000, 5000, 50000, 60000)
_APPLICATION = 1000


class Example(Record):
    """A connection: a title, and the packet that begins it."""

    id: str
    title: str
    question: Question

    def command(self, settings: str = "", *, live: bool = False) -> str:
        """Return the command that follows it, through the rules of `settings` (arguments), or live ones."""
        parts = (PROGRAM, settings, "trace", *words(self.question), "--live" if live else "")
        return " ".join(part for part in parts if part)


def examples(config: Config, network: Network) -> tuple[Example, ...]:
    """Return the connections that show what settings do."""
    made = _Making(config, network)
    found = [*made.outbound(), *made.of_the_proxy(), *made.inbound(), *made.other_family()]
    return tuple(Example(f"e{at}", title, question) for at, (title, question) in enumerate(found, 1))


def outcomes(subject: Subject, config: Config) -> tuple[Outcome, ...]:
    """Return what becomes of each of them."""
    found = examples(config, subject.world.network)
    return tuple(outcome(each.title, followed(subject, each.question)) for each in found)


class _Making:
    def __init__(self, config: Config, network: Network) -> None:
        self._config = config
        self._network = network
        self._family: Family = config.families[0]
        self._uid = next(uid for uid in range(_APPLICATION, NO_ID) if uid not in config.proxy_uids)
        groups = config.owner_groups
        self._gid = groups[0] if not isinstance(groups, Everything) and groups else self._uid
        self._proxy = {"uid": 0 if config.tproxy else config.proxy_uids[0], "gid": config.proxy_gids[0]}

    # --- what the application sends

    def outbound(self) -> Iterator[tuple[str, Question]]:
        """Yield what the application sends."""
        config = self._config
        captured, other = self._captured(), self._not_listed()
        if captured:
            yield "the application calls a service", self._out(captured, self._port())
        if other:
            yield "the application calls an address that is not listed", self._out(other, self._port())
        for cidr in self._first(config.outbound_cidrs_excluded):
            inside = Cidr(cidr.version, cidr.address + (1 if cidr.prefix < cidr.bits else 0), cidr.bits)
            yield f"the application calls an excluded address ({cidr})", self._out(inside, self._port())
        for port in config.outbound_ports_excluded[:1]:
            to = captured or other or self._service(0)
            yield f"the application calls an excluded port ({port.first})", self._out(to, port.first)
        for port in config.outbound_ports[:1]:
            to = other or captured or self._service(0)
            yield (
                f"the application calls a port that is always captured ({port.first})",
                self._out(to, port.first),
            )
        for group in config.owner_groups_excluded[:1]:
            of_group = self._out(captured or self._service(0), self._port()).replace(gid=group)
            yield f"a process of an excluded group ({group}) calls a service", of_group
        yield "the application calls itself by the pod's address", self._out(self._own(), self._app_port())
        yield "the application calls localhost", self._out(self._local(), self._app_port())
        yield "the application asks a DNS server", self._out(self._server(), DNS_PORT).replace(protocol=UDP)

    def _out(self, to: Cidr, port: int) -> Question:
        return Question("out", Endpoint(to, port), uid=self._uid, gid=self._gid)

    # --- what the proxy sends

    def of_the_proxy(self) -> Iterator[tuple[str, Question]]:
        """Yield what the proxy sends."""
        service = self._captured() or self._service(0)
        yield "Envoy calls a service", self._sent(service, self._port())
        yield "Envoy calls a service that this pod itself serves", self._sent(self._own(), self._app_port())
        to_application = self._sent(self._own(), self._app_port())
        if self._config.tproxy:
            to_application = to_application.replace(mark=self._config.tproxy_mark)
        else:
            source = PASSTHROUGH_IPV4 if self._family == IPV4 else PASSTHROUGH_IPV6
            to_application = to_application.replace(source=Endpoint(source))
        yield "Envoy hands a connection to the application", to_application
        if self._config.captures_dns(self._family):
            yield "the agent asks a DNS server", self._sent(self._server(), DNS_PORT).replace(protocol=UDP)

    def _sent(self, to: Cidr, port: int) -> Question:
        return Question("out", Endpoint(to, port), uid=self._proxy["uid"], gid=self._proxy["gid"])

    # --- what comes in

    def inbound(self) -> Iterator[tuple[str, Question]]:
        """Yield what comes in."""
        config = self._config
        ports = config.inbound_ports
        listed = not isinstance(ports, Everything)
        excluded = () if listed else config.inbound_ports_excluded
        if not isinstance(ports, Everything) and ports:
            yield "a client calls a captured port of the application", self._in(ports[0].first)
            yield "a client calls another port of the application", self._in(_free(_PORTS, ports))
        else:
            yield "a client calls the application", self._in(_free(_PORTS[1:], excluded))
        for port in excluded[:1]:
            yield f"a client calls an excluded port ({port.first})", self._in(port.first)
        yield f"a client calls the tunnel port ({config.tunnel_port})", self._in(config.tunnel_port)
        for interface in config.interfaces_excluded[:1]:
            by = self._in(self._app_port()).replace(interface=interface_of(interface))
            yield f"a client calls by an excluded interface ({interface})", by
        for interface in config.rerouted_interfaces[:1]:
            to = Endpoint(self._captured() or self._service(0), self._port())
            by_vm = Question("in", to, interface=interface_of(interface))
            yield f"the virtual machine behind {interface} calls a service", by_vm
        if config.drop_invalid:
            yield (
                "a packet of no known connection comes in",
                self._in(self._app_port()).replace(state="INVALID"),
            )

    def _in(self, port: int) -> Question:
        return Question("in", Endpoint(self._own(), port))

    # --- the other family

    def other_family(self) -> Iterator[tuple[str, Question]]:
        """Yield a connection of IPv6 each way: captured, or past the rules if IPv6 is off."""
        self._family = IPV6 if self._config.families[0] == IPV4 else IPV4
        off = "" if self._family in self._config.families else ", which is off"
        captured = self._captured() or self._service(0)
        yield f"the application calls a service over IPv6{off}", self._out(captured, self._port())
        yield f"a client calls the application over IPv6{off}", self._in(self._app_port())

    # --- addresses and ports

    def _first(self, cidrs: Iterable[Cidr]) -> list[Cidr]:
        return [cidr for cidr in cidrs if cidr.family == self._family][:1]

    def _own(self) -> Cidr:
        own = self._network.own(self._family)
        address = own[0].address if own else EXAMPLE_OWN[FAMILIES.index(self._family)].address
        return self._host(address)

    def _local(self) -> Cidr:
        return self._host(_LOCALHOST[self._family])

    def _host(self, address: int) -> Cidr:
        return Cidr(4, address, 32) if self._family == IPV4 else Cidr(6, address, 128)

    def _service(self, at: int) -> Cidr:
        return self._host(_SERVICES[self._family][at])

    def _captured(self) -> Cidr | None:
        """Return an address outside that is captured, None if there is none."""
        cidrs = self._config.outbound_cidrs
        candidates: Iterable[int] = _SERVICES[self._family]
        if not isinstance(cidrs, Everything):
            candidates = [cidr.address + bool(cidr.prefix < cidr.bits) for cidr in self._of_family(cidrs)]
        return self._not_in(candidates, self._config.outbound_cidrs_excluded)

    def _not_listed(self) -> Cidr | None:
        """Return an address outside that is neither captured nor excluded, None if there is none."""
        cidrs = self._config.outbound_cidrs
        if isinstance(cidrs, Everything):
            return None
        return self._not_in(_SERVICES[self._family], (*cidrs, *self._config.outbound_cidrs_excluded))

    def _of_family(self, cidrs: Iterable[Cidr]) -> list[Cidr]:
        return [cidr for cidr in cidrs if cidr.family == self._family]

    def _not_in(self, candidates: Iterable[int], cidrs: Iterable[Cidr]) -> Cidr | None:
        excluded = [*self._of_family(cidrs), self._own(), *self._loopback()]
        for address in candidates:
            if not any(cidr.address <= address <= cidr.last for cidr in excluded):
                return self._host(address)
        return None

    def _loopback(self) -> list[Cidr]:
        return self._of_family((Cidr(4, 0x7F000000, 8), Cidr(6, 1, 128)))

    def _server(self) -> Cidr:
        servers = self._config.dns_servers_of(self._family)
        return servers[0] if servers else self._service(1)

    def _port(self) -> int:
        return _free(_PORTS, self._config.outbound_ports_excluded, self._config.outbound_ports)

    def _app_port(self) -> int:
        ports = self._config.inbound_ports
        if not isinstance(ports, Everything) and ports:
            return ports[0].first
        return _free(_PORTS[1:], self._config.inbound_ports_excluded, self._config.outbound_ports_excluded)


def _free(candidates: Iterable[int], *taken: Iterable[PortRange]) -> int:
    """Return the first port that is in none of some lists; the first one of all if there is none."""
    ranges = [ports for each in taken for ports in each]
    found = [port for port in candidates if not any(ports.first <= port <= ports.last for ports in ranges)]
    return (found or list(candidates))[0]
