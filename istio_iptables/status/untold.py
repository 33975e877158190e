"""untold: settings that rules do not depend on, so that they cannot be told from them, and why."""

from __future__ import annotations

from .. import policy
from ..settings.config import Everything
from ..settings.declared import OWNER_GROUPS, OWNER_GROUPS_EXCLUDED
from ..startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..settings.config import Config


#: Stands for DNS servers whose family is off: DNS is captured because of them, and no rule has their address.
#: It is an address for examples (RFC 3849).
UNKNOWN_SERVER = "2001:db8::53"


class Untold(Record):
    """A setting, by its long flag name, and why these rules do not tell its value.

    `partly`: they tell some of it. Otherwise they would be the same with any value.
    """

    setting: str
    why: str
    partly: bool = False


def untold(config: Config, *, native: bool) -> tuple[Untold, ...]:
    """Return the settings that could have other values than those read, with the same rules.

    `config` is what was read from the rules.
    """
    return tuple(_untold(config, native))


def _untold(config: Config, native: bool) -> Iterator[Untold]:
    if not isinstance(config.inbound_ports, Everything):
        yield Untold("istio-local-exclude-ports", "it counts only if all inbound ports are captured")
    if not isinstance(config.owner_groups, Everything):
        yield Untold(OWNER_GROUPS_EXCLUDED, f"it counts only if {OWNER_GROUPS} is '*'")
    yield from _tproxy(config)
    yield from _dns(config)
    yield from _families(config)
    if native:
        yield Untold("compact", "native nftables has a set for every list anyway")
    elif policy.build(config.replace(compact=not config.compact)) == policy.build(config):
        yield Untold("compact", "no list here has members that it could join")
    yield from _lists(config, native)


def _tproxy(config: Config) -> Iterator[Untold]:
    if not config.tproxy:
        yield Untold("istio-inbound-tproxy-mark", "it counts only in mode TPROXY")
    if not (config.tproxy and config.captures_inbound):
        why = "it counts only in mode TPROXY, if inbound ports are captured"
        yield Untold("istio-inbound-tproxy-route-table", why)


def _dns(config: Config) -> Iterator[Untold]:
    if not config.redirect_dns:
        yield Untold("redirect-dns", "it does nothing if /etc/resolv.conf names no server", partly=True)
        yield Untold("capture-all-dns", "it counts only with --redirect-dns")
        yield Untold("dns-single-zone", "it counts only with --redirect-dns")
    elif not (config.capture_all_dns or any(map(config.dns_servers_of, config.families))):
        why = "/etc/resolv.conf names servers of IPv6 alone, which is off, so that no rule has them"
        yield Untold("redirect-dns", f"{why}: {UNKNOWN_SERVER} stands for them", partly=True)


def _families(config: Config) -> Iterator[Untold]:
    if config.ipv6:
        yield Untold("dual-stack", "a pod that has no IPv4 address captures IPv6 without it", partly=True)
        return
    yield Untold("dual-stack", "it does nothing in a pod without an IPv6 address", partly=True)
    for name in ("istio-service-cidr", "istio-service-exclude-cidr"):
        yield Untold(name, "its IPv6 CIDRs have no rules, since IPv6 is not captured", partly=True)


def _lists(config: Config, native: bool) -> Iterator[Untold]:
    """Yield the lists that were joined: which members they were joined from is not known."""
    if not (native or config.compact):
        return
    lists = {
        "istio-inbound-ports": config.inbound_ports,
        "istio-local-exclude-ports": config.inbound_ports_excluded,
        "istio-service-cidr": config.outbound_cidrs,
        "istio-service-exclude-cidr": config.outbound_cidrs_excluded,
        "istio-outbound-ports": config.outbound_ports,
        "istio-local-outbound-ports-exclude": config.outbound_ports_excluded,
        OWNER_GROUPS: config.owner_groups if native else (),
        OWNER_GROUPS_EXCLUDED: config.owner_groups_excluded if native else (),
    }
    for name, members in lists.items():
        if not isinstance(members, Everything) and members:
            yield Untold(name, "its members were joined: their order and number are not known", partly=True)
