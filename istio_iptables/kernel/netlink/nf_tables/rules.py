"""rules: a rule as expressions, as nft(8) writes the line that formats/nft has for it."""

from __future__ import annotations

import os

from ....rules import model
from ....rules.nftables import model as nftables
from . import expressions as nft
from .sets import KEY_TYPES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any, TypeAlias

    from ....rules.model import Match, Rule, Target
    from ....rules.nftables.model import Listing
    from .expressions import Expression

    #: Returns the name of the set that has the values of a match, and its ID in the transaction.
    SetOf: TypeAlias = Callable[[Listing], tuple[str, int]]

#: Where a header has its fields: base, offset and length in bytes (linux/ip.h, ipv6.h, tcp.h, udp.h).
ADDRESS_FIELDS = {
    ("source", "ipv4"): (nft.NETWORK, 12, 4),
    ("destination", "ipv4"): (nft.NETWORK, 16, 4),
    ("source", "ipv6"): (nft.NETWORK, 8, 16),
    ("destination", "ipv6"): (nft.NETWORK, 24, 16),
}
PORT_FIELDS = {"source": (nft.TRANSPORT, 0, 2), "destination": (nft.TRANSPORT, 2, 2)}
OWNER_KEYS = {"user": nft.META_SKUID, "group": nft.META_SKGID}
#: Bytes of an interface's name, with the zero at its end (IFNAMSIZ).
NAME_SIZE = 16
#: Bits of linux/netfilter/nf_conntrack_common.h.
STATES = {"INVALID": 1, "ESTABLISHED": 2, "RELATED": 4, "NEW": 8, "UNTRACKED": 64}
VERDICTS = {"ACCEPT": nft.ACCEPT, "DROP": nft.DROP, "RETURN": nft.RETURN}

#: Attributes of a rule's userdata (NFTNL_UDATA_RULE_COMMENT).
_COMMENT = 0


def expressions(rule: Rule, set_of: SetOf) -> list[Expression]:
    """Return a rule's matches, counter and target. Raises KeyError for a part that is foreign."""
    found: list[Expression] = []
    implied = _Implied()
    for match in rule.matches:
        if not isinstance(match, model.Comment):
            found += implied.before(match)
            found += _MATCH[type(match)](match, set_of)
    found.append(nft.counter(rule.counters.packets, rule.counters.bytes))
    return found + _TARGET[type(rule.target)](rule.target)


def comment_of(rule: Rule) -> bytes:
    """Return the userdata of a rule: its comment, for nft to print."""
    texts = [match.text.encode() + b"\0" for match in rule.matches if isinstance(match, model.Comment)]
    return b"".join([bytes((_COMMENT, len(text))) + text for text in texts])


class _Implied:
    """What the matches so far have made sure of: a header can only be looked into if it is there."""

    def __init__(self) -> None:
        self._family = self._protocol = ""

    def before(self, match: Match) -> Iterator[Expression]:
        """Yield what has to be compared before a match."""
        if isinstance(match, nftables.Addresses) and match.family != self._family:
            yield from _family(match.family)
        elif isinstance(match, nftables.Ports) and match.protocol != self._protocol:
            yield from _protocol(match.protocol)
        if isinstance(match, (nftables.Addresses, nftables.NfProto)):
            self._family = match.family
        elif isinstance(match, nftables.Ports) or (isinstance(match, model.Transport) and not match.negated):
            self._protocol = match.protocol


# --- matches ----------------------------------------------------------------------------------


def _family(family: model.Family) -> list[Expression]:
    number = bytes((model.ADDRESS_FAMILIES[family],))
    return [nft.meta(nft.META_NFPROTO), nft.compare(nft.EQ, number)]


def _protocol(protocol: model.Protocol, *, negated: bool = False) -> list[Expression]:
    number = bytes((model.PROTOCOL_NUMBERS[protocol],))
    return [nft.meta(nft.META_L4PROTO), nft.compare(_equal(negated), number)]


def _equal(negated: bool) -> int:
    return nft.NEQ if negated else nft.EQ


def _addresses(match: nftables.Addresses, set_of: SetOf) -> list[Expression]:
    base, offset, size = ADDRESS_FIELDS[match.direction, match.family]
    if len(match.ranges) == 1:
        [(first, last)] = match.ranges
        count = last - first + 1
        if count & (count - 1) == 0 and first % count == 0 and count > 1:
            return _network(match, first, 8 * size - count.bit_length() + 1)
    return [nft.payload(base, offset, size), *_values(match, set_of)]


def _network(match: nftables.Addresses, address: int, prefix: int) -> list[Expression]:
    """Compare the first bits of an address; whole bytes are loaded alone."""
    base, offset, size = ADDRESS_FIELDS[match.direction, match.family]
    value, compared = address.to_bytes(size, "big"), _equal(match.negated)
    if prefix and prefix % 8 == 0:
        return [nft.payload(base, offset, prefix // 8), nft.compare(compared, value[: prefix // 8])]
    mask = ((1 << prefix) - 1) << (8 * size - prefix)
    return [
        nft.payload(base, offset, size),
        nft.mask(mask.to_bytes(size, "big")),
        nft.compare(compared, value),
    ]


def _ports(match: nftables.Ports, set_of: SetOf) -> list[Expression]:
    return [nft.payload(*PORT_FIELDS[match.direction]), *_values(match, set_of)]


def _owners(match: nftables.Owners, set_of: SetOf) -> list[Expression]:
    single = all(first == last for first, last in match.ids)
    # Only big endian numbers can be greater or less.
    ordered = [] if single else [nft.big_endian()]
    return [nft.meta(OWNER_KEYS[match.kind]), *ordered, *_values(match, set_of)]


def _values(match: Listing, set_of: SetOf) -> list[Expression]:
    """Compare what was loaded with one value, a range or a set."""
    kind, ranges = nftables.set_of(match)
    if len(ranges) > 1:
        return [nft.lookup(*set_of(match), negated=match.negated)]
    key = KEY_TYPES[kind]
    [(first, last)] = ranges
    if first == last:
        order = nft.HOST if key.is_host else "big"
        return [nft.compare(_equal(match.negated), first.to_bytes(key.size, order))]
    ends = first.to_bytes(key.size, "big"), last.to_bytes(key.size, "big")
    if match.negated:
        return [nft.outside(*ends)]
    return [nft.compare(nft.GTE, ends[0]), nft.compare(nft.LTE, ends[1])]


def _interface(key: int) -> Callable[[model.InInterface | model.OutInterface, SetOf], list[Expression]]:
    def found(match: model.InInterface | model.OutInterface, _: SetOf) -> list[Expression]:
        name = os.fsencode(match.name)
        value = name[:-1] if name.endswith(b"+") else name.ljust(NAME_SIZE, b"\0")
        return [nft.meta(key), nft.compare(_equal(match.negated), value)]

    return found


def _mark(match: model.Mark, _: SetOf) -> list[Expression]:
    return [nft.meta(nft.META_MARK), nft.compare(_equal(match.negated), nft.host(match.value))]


def _connection_mark(match: model.ConnectionMark, _: SetOf) -> list[Expression]:
    return [nft.conntrack(nft.CT_MARK), nft.compare(_equal(match.negated), nft.host(match.value))]


def _states(match: model.ConntrackState, _: SetOf) -> list[Expression]:
    bits = nft.host(sum(STATES[state] for state in match.states))
    if match.negated:
        return [nft.conntrack(nft.CT_STATE), nft.compare(nft.NEQ, bits)]
    return [nft.conntrack(nft.CT_STATE), nft.mask(bits), nft.compare(nft.NEQ, bytes(len(bits)))]


_MATCH: Mapping[type[Match], Callable[[Any, SetOf], list[Expression]]] = {
    nftables.NfProto: lambda match, _: _family(match.family),
    nftables.Addresses: _addresses,
    nftables.Ports: _ports,
    nftables.Owners: _owners,
    model.InInterface: _interface(nft.META_IIFNAME),
    model.OutInterface: _interface(nft.META_OIFNAME),
    model.Transport: lambda match, _: _protocol(match.protocol, negated=match.negated),
    model.Mark: _mark,
    model.ConnectionMark: _connection_mark,
    model.ConntrackState: _states,
}

# --- targets ----------------------------------------------------------------------------------


def _port(port: int) -> Expression:
    return nft.immediate(port.to_bytes(2, "big"))


def _tproxy(target: nftables.FamilyTProxy) -> list[Expression]:
    handed_over = [_port(target.port), nft.tproxy(model.ADDRESS_FAMILIES[target.family])]
    return [*handed_over, *_set_mark(target.mark), nft.verdict(nft.ACCEPT)]


def _set_mark(mark: int) -> list[Expression]:
    return [nft.immediate(nft.host(mark)), nft.set_meta(nft.META_MARK)]


_TARGET: Mapping[type[Target], Callable[[Any], list[Expression]]] = {
    model.Jump: lambda target: [nft.verdict(nft.GOTO if target.goto else nft.JUMP, target.chain)],
    model.Verdict: lambda target: [nft.verdict(VERDICTS[target.name])],
    model.Redirect: lambda target: [_port(target.port), nft.redirect()],
    model.SetMark: lambda target: _set_mark(target.value),
    model.SaveMark: lambda _: [nft.meta(nft.META_MARK), nft.set_conntrack(nft.CT_MARK)],
    model.RestoreMark: lambda _: [nft.conntrack(nft.CT_MARK), nft.set_meta(nft.META_MARK)],
    nftables.FamilyTProxy: _tproxy,
    model.ConntrackZone: lambda target: [
        nft.immediate(nft.host(target.zone, 2)),
        nft.set_conntrack(nft.CT_ZONE),
    ],
}
