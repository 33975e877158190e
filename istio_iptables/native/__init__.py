"""Native: the rules as nftables has them, typed data that is made from a Ruleset.

The policy speaks of iptables' tables, one set for each family. Here they become three tables of family
inet (SPEC section 4): both families in one, and each list a set, with the same verdict for every packet.
Nothing here knows how nft(8) writes or prints a rule: see formats/nft.py and formats/nft_json.py.
"""

from __future__ import annotations

from .tables import (
    NATIVE_FAMILY,
    NATIVE_TABLES,
    Addresses,
    FamilyTProxy,
    Hook,
    NativeChain,
    NativeTable,
    NetworkFamily,
    Owners,
    Ports,
    set_name,
    set_of,
)
from .translation import translate

__all__ = [
    "NATIVE_FAMILY",
    "NATIVE_TABLES",
    "Addresses",
    "FamilyTProxy",
    "Hook",
    "NativeChain",
    "NativeTable",
    "NetworkFamily",
    "Owners",
    "Ports",
    "set_name",
    "set_of",
    "translate",
]
