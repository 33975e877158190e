"""words: settings in the sentences of clauses."""

from __future__ import annotations

from ..rules.istio import PASSTHROUGH_IPV4, PASSTHROUGH_IPV6
from ..rules.model import IPV4
from ..settings.config import ALL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..rules.model import Family
    from ..settings.config import Config, Everything

_FEW = 6


def listed(members: Everything | Iterable[object]) -> str:
    """Return members of a list of settings: a few of them, if there are many.

    >>> listed((80, 443)), listed(range(2000))
    ('80, 443', '0, 1, 2, 3, 4, 5 and 1994 more')
    """
    if members == ALL:
        return "any address"
    texts = [_text(each) for each in members]  # type: ignore[union-attr]  # not ALL
    few = ", ".join(texts[:_FEW]) or "none"
    return f"{few} and {len(texts) - _FEW} more" if len(texts) > _FEW else few


def _text(member: object) -> str:
    """Return a member of a list; the route to a host is its address."""
    text = str(member)
    return text.removesuffix("/128" if ":" in text else "/32")


def proxy_words(config: Config) -> str:
    """Return the proxy, as the settings have it."""
    return f"the proxy (UID {listed(config.proxy_uids)}, GID {listed(config.proxy_gids)})"


def groups_words(config: Config) -> str:
    """Return the groups whose outbound traffic is not captured."""
    if config.owner_groups == ALL:
        return f"groups {listed(config.owner_groups_excluded)}"
    return f"other groups than {listed(config.owner_groups)}"


def family_words(family: Family) -> str:
    """Return a family as people call it."""
    return "IPv4" if family == IPV4 else "IPv6"


def loopback_words(config: Config, family: Family) -> str:
    """Return the loopback network that is the pod's own."""
    return _text(config.ipv4_loopback) if family == IPV4 else "::1"


def passthrough_words(family: Family) -> str:
    """Return the address that the proxy passes inbound traffic on from."""
    return _text(PASSTHROUGH_IPV4 if family == IPV4 else PASSTHROUGH_IPV6)


def dns_words(config: Config, family: Family) -> str:
    """Return the DNS servers that are captured."""
    return "any server" if config.capture_all_dns else listed(config.dns_servers_of(family))


def inbound_words(config: Config) -> str:
    """Return the inbound ports that are captured."""
    if config.inbound_ports != ALL:
        return f"port {listed(config.inbound_ports)}"
    excluded = config.inbound_ports_excluded
    return f"any port but {listed(excluded)}" if excluded else "any port"
