"""written: what was read from rules, as the texts of settings that make these rules again."""

from __future__ import annotations

from ..policy import listed
from ..rules.istio import PROGRAM
from ..rules.model import IPV4, IPV6, Cidr, MarkLookup, PortRange
from ..settings.declared import BY_NAME, OWNER_GROUPS, OWNER_GROUPS_EXCLUDED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ..rules.model import Family, Listed, RoutingObject
    from .reading import Listing, Reading
    from .settings_of import ReadBack

_LOOPBACK_CIDR = "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR"
#: The loopback addresses that -i may name (settings/parsers.py), by IP version.
_LOOPBACK = {4: 0x7F000001, 6: 1}


def captures_everything(readings: Iterable[Reading]) -> bool:
    """Tell whether `*` may be what all destinations are captured by: one rule a family, for every packet."""
    return all(
        [cidr.is_everything for cidr in reading.destinations.members] == [True] and not reading.names_loopback
        for reading in readings
    )


def settings_text(
    readings: Sequence[Reading],
    routing: Iterable[RoutingObject],
    *,
    native: bool = False,
    compact: bool = False,
    wildcard: bool = False,
) -> dict[str, str]:
    """Return the settings that differ from their defaults, by long flag name, in the order of --help.

    What all families have in common is taken from the first reading. `compact` and `native` are settings that
    no single rule tells; with `wildcard` all destinations are `*` rather than 0.0.0.0/0.
    """
    first = readings[0]
    found: dict[str, str | None] = {
        "envoy-port": _number(first.outbound_port),
        "inbound-capture-port": _number(first.inbound_port),
        "inbound-tunnel-port": _number(first.tunnel_port),
        "proxy-uid": _numbers(first.proxy_uids),
        "proxy-gid": _numbers(first.proxy_gids) if first.proxy_gids != first.proxy_uids else None,
        **_inbound(first),
        **_outbound(readings, wildcard=wildcard),
        **_groups(first),
        **_dns(readings),
        _LOOPBACK_CIDR: next((str(r.loopback) for r in readings if r.family == IPV4 and r.loopback), None),
        "istio-inbound-tproxy-mark": _number(first.tproxy_mark),
        "istio-inbound-tproxy-route-table": _route_table(routing),
        "dual-stack": _switch(_is_on(IPV6, readings)),
        "native-nftables": _switch(native),
        "compact": _switch(compact),
        "rule-comments": _switch(any(reading.rule_comments for reading in readings)),
    }
    return {
        name: text
        for name, setting in BY_NAME.items()
        if (text := found.get(name)) is not None and text != setting.default
    }


def _is_on(family: Family, readings: Iterable[Reading]) -> bool:
    return any(reading.family == family for reading in readings)


def _number(number: int | None) -> str | None:
    return None if number is None else str(number)


def _numbers(numbers: Iterable[int]) -> str | None:
    return ",".join(map(str, numbers)) or None


def _switch(on: bool) -> str:
    return "true" if on else "false"


def _inbound(reading: Reading) -> Mapping[str, str | None]:
    every = reading.captures_all_inbound
    excluded = _ports(reading.inbound_ports_excluded, listed.INBOUND_PORTS_EXCLUDED)
    return {
        "istio-inbound-interception-mode": "TPROXY" if reading.tproxy else "REDIRECT",
        "istio-inbound-ports": "*" if every else _ports(reading.inbound_ports, listed.INBOUND_PORTS),
        "istio-local-exclude-ports": excluded if every else None,
        "drop-invalid": _switch(reading.drop_invalid),
    }


def _groups(reading: Reading) -> Mapping[str, str | None]:
    if reading.owner_groups is None:
        return {OWNER_GROUPS_EXCLUDED: _numbers(reading.owner_groups_excluded)}
    return {OWNER_GROUPS: _numbers(reading.owner_groups) or ""}


def _dns(readings: Sequence[Reading]) -> Mapping[str, str | None]:
    on = any(reading.redirect_dns for reading in readings)
    return {
        "redirect-dns": _switch(on),
        "capture-all-dns": _switch(any(reading.capture_all_dns for reading in readings)),
        "dns-single-zone": _switch(any(reading.dns_single_zone for reading in readings)),
    }


def _route_table(routing: Iterable[RoutingObject]) -> str | None:
    return next((str(item.table) for item in routing if isinstance(item, MarkLookup)), None)


def _outbound(readings: Sequence[Reading], *, wildcard: bool) -> Mapping[str, str | None]:
    first = readings[0]
    captured = [text for reading in readings for text in _captured(reading)]
    no_ipv6 = not _is_on(IPV6, readings)
    if first.names_loopback and no_ipv6 and not any(map(_names_loopback, captured)):
        captured.append("::1/128")  # a loopback address of a family that is off: nothing else tells of it
    excluded = [
        text
        for reading in readings
        for text in _cidrs(reading.destinations_excluded, listed.DESTINATIONS_EXCLUDED)
    ]
    return {
        "istio-service-cidr": "*" if wildcard else ",".join(captured),
        "istio-service-exclude-cidr": ",".join(excluded),
        "istio-outbound-ports": _ports(first.outbound_ports, listed.OUTBOUND_PORTS),
        "istio-local-outbound-ports-exclude": _ports(
            first.outbound_ports_excluded, listed.OUTBOUND_PORTS_EXCLUDED
        ),
        "istio-exclude-interfaces": ",".join(first.interfaces_excluded),
        "kube-virt-interfaces": ",".join(first.rerouted_interfaces),
    }


def _captured(reading: Reading) -> Iterator[str]:
    for text in _cidrs(reading.destinations, listed.DESTINATIONS):
        yield _naming_loopback(Cidr.from_ipaddress(text)) if reading.names_loopback else text


def _naming_loopback(cidr: Cidr) -> str:
    """Return a CIDR by a loopback address, if there is one in it: 127.0.0.1/0 is 0.0.0.0/0, and names one."""
    loopback = _LOOPBACK[cidr.version]
    if not cidr.address <= loopback <= cidr.last:
        return str(cidr)
    host, _, _ = str(Cidr(cidr.version, loopback, cidr.bits)).partition("/")
    return f"{host}/{cidr.prefix}"


def _names_loopback(text: str) -> bool:
    return text.startswith("127.") or text.partition("/")[0] == "::1"


# --- lists --------------------------------------------------------------------------------------
#
# With --rule-comments, rules for a whole list say so. Of a list that has been joined into one range (80,81 to
# 80:81) two members are written, so that it is one again.


def _is_joined(listing: Listing, of: Listed) -> bool:
    return len(set(listing.members)) == 1 and of.reason in listing.comments


def _ports(listing: Listing, of: Listed) -> str:
    members: tuple[PortRange, ...] = listing.members
    if _is_joined(listing, of):
        members = (*members, PortRange(members[0].first, members[0].first))
    return ",".join(str(ports).replace(":", "-") for ports in members)


def _cidrs(listing: Listing, of: Listed) -> Iterator[str]:
    members: tuple[Cidr, ...] = listing.members
    if _is_joined(listing, of) and members[0].prefix < members[0].bits:
        members = (*members, members[0].replace(prefix=members[0].prefix + 1))
    yield from map(str, members)


#: A command line is shown as a whole up to this length; a list may have twenty thousand members.
_LONGEST_COMMAND = 2000


def command_line(read: ReadBack) -> str:
    """Return the command that makes the rules elsewhere, for a shell."""
    import shlex

    variables = [f"{name}={shlex.quote(value)}" for name, value in read.variables.items()]
    line = " ".join([*variables, PROGRAM, *map(shlex.quote, read.arguments)])
    if len(line) <= _LONGEST_COMMAND:
        return line
    return f"too long to be shown ({len(line)} characters): `status --json` has it"
