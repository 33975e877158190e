"""applying: the iptables backends, settings that make rules of all sorts, and the rules in a namespace."""

from __future__ import annotations

import re
import shlex
import socket

import pytest

from tests.support import everyone
from tests.support.saved import normalise_save

from ..support.scratch import (
    FAMILIES,
    IPV4_ADDRESS,
    IPV6_ADDRESS,
    VARIANTS,
    Family,
    Scratch,
    Variant,
)

#: How each backend is asked for, and where its rules are.
BACKENDS: dict[str, tuple[list[str], Variant]] = {
    "libiptc": ([], "legacy"),
    "iptables-legacy-restore": (["--force-iptables-binary", "legacy"], "legacy"),
    "iptables-nft-restore": (["--force-iptables-binary", "nft"], "nft"),
}


every_backend = pytest.mark.parametrize("backend", BACKENDS)


#: Everything that leaves traces: all tables, both families, routes, addresses, tagged rules.
ALL_SORTS = shlex.split(
    "--dual-stack -m TPROXY -t 1400 -r 140 -c eth1,net+ -k vm0 -b 80,8000-8100 -i 10.0.0.0/8,fd00::/8 "
    "-x 10.1.0.0/16 -o 123 -q 443 --redirect-dns --capture-all-dns --drop-invalid"
)


#: The prefix of a command that has no right at all.
NOBODY = everyone.user(65534, "--bounding-set=-all")


def traffic(scratch: Scratch) -> None:
    """Have rules of all tables count something: UDP, and TCP to a port where no process listens."""
    addresses = [
        (socket.AF_INET, ("127.0.0.1", 53)),
        (socket.AF_INET, (IPV4_ADDRESS, 80)),
        (socket.AF_INET6, ("::1", 53)),
        (socket.AF_INET6, (IPV6_ADDRESS, 80)),
    ]
    with scratch.inside():
        for family, address in addresses:
            with socket.socket(family, socket.SOCK_DGRAM) as datagram:
                datagram.sendto(b"x", address)
            with socket.socket(family, socket.SOCK_STREAM) as stream:
                stream.settimeout(0.05)
                stream.connect_ex(address)


def rules_of(scratch: Scratch) -> dict[tuple[str, str], list[str]]:
    """Return all iptables rules, in both variants, as tests/support/oracle.py writes them."""
    found: dict[tuple[str, str], list[str]] = {}
    for family in FAMILIES:
        for variant in VARIANTS:
            for table, lines in normalise_save(scratch.save(variant, family)).items():
                assert (family, table) not in found, f"{family} {table} is in both variants"
                found[family, table] = lines
    return found


def ip_commands(script: str) -> list[str]:
    return [
        line.removeprefix("# ")
        for line in script.splitlines()
        if re.match("# ip (-6 )?(rule|route|addr)", line)
    ]


def families_of(script: str) -> dict[Family, str]:
    """Split what a dry run prints into the scripts of the two families."""
    if not script.startswith("# ipv4:"):
        return {"ipv4": script}
    ipv4, ipv6 = script.split("# ipv6:")
    return {"ipv4": ipv4, "ipv6": f"# ipv6:{ipv6}"}
