"""native: native nftables rules in a namespace, and a program in place of nft."""

from __future__ import annotations

import re
import stat
from pathlib import Path

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


def in_place_of_nft(folder: Path, script: str) -> str:
    """Return a PATH on which nft is a shell script, to which the real one is $NFT."""
    folder.mkdir()
    program = folder / "nft"
    program.write_text(f"#!/bin/bash\nNFT=/usr/sbin/nft\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return f"{folder}:/usr/sbin:/usr/bin:/sbin:/bin"


def iptables(scratch: Scratch) -> list[str]:
    """Return all owned rules in the tables of iptables."""
    return [
        line for variant in VARIANTS for family in FAMILIES for line in owned(scratch.save(variant, family))
    ]
