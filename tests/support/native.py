"""native: native nftables rules in a namespace, and a program in place of nft."""

from __future__ import annotations

import re
from pathlib import Path

from ..support.in_place import in_place_of
from ..support.scratch import FAMILIES, VARIANTS, Scratch, owned

NATIVE = ["--native-nftables"]


#: The flags for each location.
LOCATIONS: dict[str, list[str]] = {
    "legacy": ["--force-iptables-binary", "legacy"],
    "nft": ["--force-iptables-binary", "nft"],
    "native": NATIVE,
}


def native(scratch: Scratch, *, counters: bool = False) -> dict[str, list[str]]:
    """Return the owned native tables as nft prints them, their chains and sets sorted: by table."""
    found = {}
    for line in scratch.nft("list", "tables").splitlines():
        family, name = line.split()[1:]
        if family == "inet" and name.startswith("istio-proxy-"):
            text = scratch.nft("list", "table", family, name)
            if not counters:
                text = re.sub(r" packets \d+ bytes \d+", "", text)
            text = re.sub(r"^table.*\{\n|^\}\n", "", text, flags=re.MULTILINE)
            found[name] = sorted(part.strip() for part in re.split(r"^(?=\t\w)", text, flags=re.MULTILINE))
    return found


def network(scratch: Scratch) -> dict[str, list[str]]:
    """Return addresses, routing rules (whose priority the kernel chooses anew) and routes."""
    found = {key: text.splitlines() for key, text in scratch.network().items()}
    return {key: sorted(re.sub(r"^\d+:", "", line) for line in lines) for key, lines in found.items()}


def in_place_of_nft(folder: Path, script: str) -> tuple[str, ...]:
    """Return how to begin a command for which nft is a shell script, to which the real one is $NFT."""
    return in_place_of("nft", folder, f"NFT=$REAL\n{script}")


def iptables(scratch: Scratch) -> list[str]:
    """Return all owned rules in the tables of iptables."""
    return [
        line for variant in VARIANTS for family in FAMILIES for line in owned(scratch.save(variant, family))
    ]
