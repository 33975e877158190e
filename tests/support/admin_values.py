"""admin_values: addresses, ports, marks and users that rules of an administrator are about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from .pod_settings import OTHERS, OWN

T = TypeVar("T")
PORTS = ("53", "80", "443", "8000", "8001", "9002", "15006", "16006", "15053")
NETWORKS = {
    "ipv4": (
        *(f"{text}/32" for text in (*OWN[4], *OTHERS[4], "10.96.0.1", "10.244.1.5")),
        "10.88.0.0/24",
        "192.168.50.0/24",
        "198.18.0.0/15",
        "198.18.0.0/24",
        "127.0.0.0/8",
        "10.0.0.0/8",
        "0.0.0.0/1",
    ),
    "ipv6": (
        *(f"{text}/128" for text in (*OWN[6], *OTHERS[6], "fd00:96::1", "::6")),
        "fd88::/64",
        "fd50::/64",
        "2001:db8::/32",
        "2001:db8:53::/48",
        "fd00::/8",
        "::/1",
    ),
}
#: Where nat may send something: here, to neighbours, and far away.
TARGETS = {
    "ipv4": (
        "127.0.0.1",
        "10.88.0.2",
        "10.99.0.1",
        "192.168.50.2",
        "10.244.1.5",
        "198.19.0.1",
        "203.0.113.1",
    ),
    "ipv6": ("::1", "fd88::2", "fd50::2", "fd00:244::5", "2001:db8:19::1", "2001:db8:bad:1::1"),
}
SOURCES = {
    "ipv4": ("10.88.0.2", "10.89.0.2", "10.99.0.1", "10.7.7.7"),
    "ipv6": ("fd88::2", "fd89::2", "fd77::7"),
}
INTERFACES = ("eth0", "lo1", "lo", "vm0", "vm+", "lo+", "eth+", "vm1")
IDS = ("0", "1000", "1337", "1338", "999-1337", "2000")
MARKS = ("0x0", "0x1", "0x10", "0x539", "0x53a", "0x2000", "0x4000", "0x4d")
MASKS = ("", "/0xff", "/0x4000", "/0xf0f", "/0xffffffff")


def some(values: Sequence[T]) -> SearchStrategy[T]:
    """One of some values."""
    return st.sampled_from(values)


def seldom(text: str) -> SearchStrategy[str]:
    """A text, more often none."""
    return st.sampled_from(["", "", "", text])


def with_port(address: str, port: str) -> str:
    """Return an address with a port, IPv6 in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
