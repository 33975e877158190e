"""iptables_family: which family rules are of that iptables-save has printed, as far as they tell."""

from __future__ import annotations

from itertools import pairwise

from ..rules.model import IPV4, IPV6

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ..rules.model import Family


def family_of(rules: Iterable[Sequence[str]]) -> Family | None:
    """Return the family of rules, each a list of arguments; None if nothing tells, or they contradict."""
    found = {family for args in rules for family in _told(args)}
    return found.pop() if len(found) == 1 else None


def _told(args: Sequence[str]) -> Iterable[Family]:
    values = [arg for arg in args if arg != "!"]
    for option, value in pairwise(values):
        tells = _TELLING.get(option)
        family = tells(value) if tells else None
        if family:
            yield family


def _of_address(text: str) -> Family | None:
    """Return the family of an address, perhaps in brackets, with a mask, a port, or as a range."""
    if text.startswith("[") or text.count(":") > 1:
        return IPV6
    return IPV4 if text.count(".") >= 3 else None


def _word(ipv4: frozenset[str], ipv6: frozenset[str]) -> Callable[[str], Family | None]:
    return lambda text: IPV4 if text in ipv4 else IPV6 if text in ipv6 else None


def _of_reject(text: str) -> Family | None:
    return IPV6 if text.startswith("icmp6-") else IPV4 if text.startswith("icmp-") else None


_MODULES = _word(
    frozenset({"icmp", "ttl", "realm"}),
    frozenset(
        {"icmp6", "icmpv6", "ipv6-icmp", "hl", "frag", "rt", "hbh", "dst", "mh", "ipv6header", "eui64", "srh"}
    ),
)
_TARGETS = _word(frozenset({"TTL", "CLUSTERIP", "ULOG"}), frozenset({"HL", "DNPT", "SNPT"}))

#: The options that have an address.
_ADDRESSES = (
    (
        "-s",
        "-d",
        "--src-range",
        "--dst-range",
        "--mask",
        "--to-source",
        "--to-destination",
        "--to",
        "--on-ip",
    ),
    ("--gateway", "--ctorigsrc", "--ctorigdst", "--ctreplsrc", "--ctrepldst"),
)

#: What each option tells. A protocol tells nothing: both programs take the names of both families.
_TELLING: Mapping[str, Callable[[str], Family | None]] = {
    **{option: _of_address for options in _ADDRESSES for option in options},
    "-m": _MODULES,
    "-j": _TARGETS,
    "--reject-with": _of_reject,
}
