"""How the rules are written, and what programs print about rules read. Nothing here touches the machine."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..rules.model import Family

#: The command iptables(8) of each family; iptables-save and iptables-restore have the same prefix.
IPTABLES: Mapping[Family, str] = {"ipv4": "iptables", "ipv6": "ip6tables"}
#: How nft(8) names each family: in its tables and in its matches.
NFT_FAMILIES: Mapping[Family, str] = {"ipv4": "ip", "ipv6": "ip6"}
