"""words: conditions and actions of rules in words, for people who do not read iptables."""

from __future__ import annotations

from ..interpreter import action as actions
from ..interpreter.condition import (
    LABELS,
    AllOf,
    AnyOf,
    Condition,
    In,
    Masked,
    Named,
    Not,
    OneOf,
    Same,
    Unmodelled,
)
from ..interpreter.packet import ICMP, ICMPV6, SCTP, TCP, UDP, address_text
from ..rules.model import FULL_MASK, NO_ID
from ..startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ..interpreter.action import Action
    from ..rules.model import Family
    from .model import Kind

#: Longer ones are not spelled out, if there is a word for what they are about.
_LONGEST = 60
#: As many values of a list are named; the rest is counted.
MOST_VALUES = 4


class Clause(Record):
    """A condition in words: `{}` in `template` stands for the values, of which one has to hold.

    `noun` is what the values are, in the plural. `of_family`: they are addresses, which tell the family.

    >>> Clause("to port {}", ("80", "443"), "ports", negated=True).text()
    'not to port 80 or 443'
    """

    template: str
    values: tuple[str, ...] = ()
    noun: str = ""
    negated: bool = False
    of_family: bool = False

    def text(self, most: int = MOST_VALUES) -> str:
        """Return it as a text that names no more than `most` values."""
        text = self.template.replace("{}", listed(self.values, self.noun, most))
        return f"not {text}" if self.negated else text

    def shape(self) -> tuple[object, ...]:
        """Return what two clauses have in common that differ in their values alone."""
        return (self.template, self.negated)


def listed(values: Sequence[str], noun: str, most: int = MOST_VALUES) -> str:
    """Return values as a list; of a long one the beginning, and how many more there are.

    >>> listed(("1", "2", "3", "4", "5", "6", "7"), "ports")
    '1, 2, 3, 4 … 3 more ports'
    """
    if len(values) > most + 1:
        return f"{', '.join(values[:most])} … {len(values) - most:,} more {noun}"
    if len(values) < 2:
        return "".join(values)
    return f"{', '.join(values[:-1])} or {values[-1]}"


# --- conditions -------------------------------------------------------------------------------

_PROTOCOLS = {TCP: "TCP", UDP: "UDP", ICMP: "ICMP", ICMPV6: "ICMPv6", SCTP: "SCTP"}
_FAMILIES = {"ipv4": "IPv4", "ipv6": "IPv6"}
#: The template and the noun of each field whose values are numbers or names.
_FIELDS: Mapping[str, tuple[str, str]] = {
    "family": ("{}", "families"),
    "protocol": ("{}", "protocols"),
    "uid": ("sent by UID {}", "users"),
    "gid": ("sent by GID {}", "groups"),
    "received_on": ("in by {}", "interfaces"),
    "sent_to": ("out by {}", "interfaces"),
    "source": ("from {}", "addresses"),
    "source_port": ("from port {}", "ports"),
    "destination": ("to {}", "addresses"),
    "destination_port": ("to port {}", "ports"),
    "mark": ("mark {}", "marks"),
    "connection_mark": ("connection mark {}", "marks"),
    "state": ("connection state {}", "states"),
}


#: The order in which a person says them.
_ORDER = tuple(template for template, _ in _FIELDS.values())


def clauses(conditions: Iterable[Condition], family: Family | None = None) -> list[Clause]:
    """Return conditions that all have to hold, in words, in the order in which a person says them.

    `family` is that of addresses, if it is known from elsewhere: an address is a number here.
    """
    parts = list(_flat(conditions))
    parts = [part for at, part in enumerate(parts) if not _is_implied(part, parts[:at])]
    for part in parts:
        if isinstance(part, OneOf) and part.field == "family" and len(part.words) == 1:
            [family] = part.words  # type: ignore[assignment]  # families are its words
    found = sorted(dict.fromkeys(_clause(part, family) for part in parts), key=_place)
    by_address = any(clause.of_family for clause in found)
    by_owner = any(clause.noun in ("users", "groups") and not clause.negated for clause in found)
    return [
        clause
        for clause in found
        if not (clause.noun == "families" and by_address) and not (clause.template == _SOCKET and by_owner)
    ]


def _is_implied(part: Condition, earlier: Iterable[Condition]) -> bool:
    """Tell whether a condition holds anyway where an earlier one does, of the same field."""
    return isinstance(part, In) and any(
        isinstance(each, In) and each.field == part.field and set(each.ranges) <= set(part.ranges)
        for each in earlier
    )


def _flat(conditions: Iterable[Condition]) -> Iterator[Condition]:
    for condition in conditions:
        if isinstance(condition, AllOf):
            yield from _flat(condition.parts)
        else:
            yield condition


def _place(clause: Clause) -> int:
    return _ORDER.index(clause.template) if clause.template in _ORDER else len(_ORDER)


#: What nftables' match of an owner asks before: a packet without a socket has none.
_SOCKET = "sent by a socket"


def _clause(condition: Condition, family: Family | None = None) -> Clause:
    if isinstance(condition, In) and condition.ranges == ((NO_ID, NO_ID),):
        return Clause(_SOCKET, negated=True)
    if isinstance(condition, Not):
        inner = _clause(condition.part, family)
        return inner.replace(negated=not inner.negated)
    if isinstance(condition, (AllOf, AnyOf)):
        return _several(condition, family)
    if isinstance(condition, Unmodelled):
        return Clause(f"“{condition.why}”, which is not modelled")
    if isinstance(condition, Same):
        return Clause(f"{_label(condition.field)} the same as {_label(condition.other)}")
    field: str = getattr(condition, "field", "")
    template, noun = _FIELDS.get(field, (f"{_label(field)} {{}}", "values"))
    return Clause(
        template, tuple(_values(condition, family)), noun, of_family=field in ("source", "destination")
    )


def _several(condition: AllOf | AnyOf, family: Family | None) -> Clause:
    parts = [_clause(part, family) for part in condition.parts]
    if not parts:
        return Clause("anything" if isinstance(condition, AllOf) else "nothing")
    if isinstance(condition, AnyOf) and len({part.shape() for part in parts}) == 1 and not parts[0].negated:
        return parts[0].replace(values=tuple(value for part in parts for value in part.values))
    joined = (" and " if isinstance(condition, AllOf) else " or ").join(part.text() for part in parts)
    if condition.about and len(joined) > _LONGEST:
        return Clause(f"{condition.about} as the rule says")
    return Clause(joined if len(parts) == 1 else f"({joined})")


def _label(field: str) -> str:
    return LABELS.get(field, field.replace("_", " "))


def _values(condition: Condition, family: Family | None) -> Iterator[str]:
    if isinstance(condition, Named):
        yield condition.pattern
    elif isinstance(condition, OneOf):
        yield from (_FAMILIES.get(word, word) for word in sorted(condition.words))
    elif isinstance(condition, Masked):
        masked = "" if condition.mask == FULL_MASK else f"/{condition.mask:#x}"
        yield f"{condition.value:#x}{masked}"
    elif isinstance(condition, In):
        for first, last in condition.ranges:
            yield _range(condition.field, first, last, family)


def _range(field: str, first: int, last: int, of: Family | None) -> str:
    if field in ("source", "destination", "original_destination"):
        return addresses(first, last, of)
    if field == "protocol" and first == last:
        return _PROTOCOLS.get(first, f"protocol {first}")
    if field in ("mark", "connection_mark"):
        return f"{first:#x}" if first == last else f"{first:#x}-{last:#x}"
    return str(first) if first == last else f"{first}-{last}"


def addresses(first: int, last: int, of: Family | None = None) -> str:
    """Return a range of addresses of a family: an address, a CIDR, or its two ends.

    If the family is not known, it is told by the size of the numbers: those below 1.0.0.0 are IPv6 then.

    >>> addresses(0x0A000000, 0x0AFFFFFF), addresses(6, 6)
    ('10.0.0.0/8', '::6')
    """
    family: Family = of or ("ipv4" if 0xFFFFFF < last <= FULL_MASK else "ipv6")
    bits = 32 if family == "ipv4" else 128
    size = last - first + 1
    if size == 1:
        return address_text(family, first)
    if not size & (size - 1) and not first & (size - 1):
        return f"{address_text(family, first)}/{bits - size.bit_length() + 1}"
    return f"{address_text(family, first)}-{address_text(family, last)}"


# --- actions ----------------------------------------------------------------------------------


class Effect(Record):
    """What a rule does: its kind, in words, and where it leads: `chain NAME` or `port NUMBER`."""

    kind: Kind
    text: str
    leads_to: tuple[str, ...] = ()


def effect(doing: Sequence[Action]) -> Effect:
    """Return what the actions of a rule do, one after the other."""
    found = [_effect(each) for each in doing if each != _COUNTER]
    if not found:
        return Effect("pass", "counted")
    deciding = min(found, key=lambda each: _DECIDING.index(each.kind) if each.kind in _DECIDING else -1)
    if (
        deciding.kind == "tproxy"
    ):  # nftables says besides that the packet leaves the table; of iptables it is part
        found = [each for each in found if each.kind != "accept"]
    text = ", ".join(each.text for each in found)
    return Effect(deciding.kind, text, tuple(target for each in found for target in each.leads_to))


#: What a rule of nftables does that has counters. Its counts are shown, if there are any.
_COUNTER = actions.Pass("counter")
#: The kinds that say more of what a rule does than those after them.
_DECIDING = ("tproxy", "call", "return", "accept", "mark", "pass")


def called(statements: Iterable[Condition | Action]) -> Iterator[str]:
    """Yield the names of the chains that the statements of a rule lead to."""
    for each in statements:
        if isinstance(each, actions.Call):
            yield each.chain
        elif isinstance(each, actions.Choose):
            yield from called(branch for _, branch in each.branches)


def _effect(action: Action) -> Effect:
    if isinstance(action, actions.Redirect):
        to = f"to port {action.port}" if action.port else "to its own port here"
        return Effect("redirect", to, (f"port {action.port}",) if action.port else ())
    if isinstance(action, actions.TProxy):
        marked = f", mark {action.flip:#x}" if action.flip else ""
        to = f"to port {action.port}" if action.port else "to its own port here"
        return Effect("tproxy", f"{to}{marked}", (f"port {action.port}",) if action.port else ())
    if isinstance(action, actions.Call):
        return Effect("call", action.chain, (f"chain {action.chain}",))
    if isinstance(action, actions.Return):
        return Effect("return", "as it is")
    if isinstance(action, actions.End):
        return _END[action.how]
    if isinstance(action, actions.Assign):
        return Effect("mark", _assigned(action))
    if isinstance(action, actions.Choose):
        return _chosen(action)
    return _other(action)


_END = {
    "accept": Effect("accept", "leaves this table"),
    "drop": Effect("drop", "dropped"),
    "reject": Effect("drop", "rejected"),
}


def _assigned(action: actions.Assign) -> str:
    which = "mark" if action.field == "mark" else "connection mark"
    if action.source:
        return "keep its mark" if action.field == "connection_mark" else "its connection's mark"
    if action.keep == 0:
        return f"{which} {action.flip:#x}"
    return f"{which} (… & {action.keep:#x}) ^ {action.flip:#x}"


def _chosen(action: actions.Choose) -> Effect:
    found = [(_clause(condition).text(), _effect(branch)) for condition, branch in action.branches]
    text = "; ".join(f"{when}: {each.text}" for when, each in found[:MOST_VALUES])
    if len(found) > MOST_VALUES:
        text += f" … {len(found) - MOST_VALUES:,} more"
    kinds = {each.kind for _, each in found}
    leads_to = tuple(dict.fromkeys(target for _, each in found for target in each.leads_to))
    return Effect(kinds.pop() if len(kinds) == 1 else "choose", text, leads_to)


def _other(action: Action) -> Effect:
    if isinstance(action, actions.Destination):
        address = "" if action.address is None else addresses(action.address, action.address)
        port = "" if action.port is None else f"port {action.port}"
        return Effect("translate", f"to {', '.join(part for part in (address, port) if part)}")
    if isinstance(action, actions.NetMap):
        return Effect("translate", f"into {addresses(action.address, action.address)} (NETMAP)")
    if isinstance(action, actions.Source):
        return Effect("translate", f"new source ({action.what})")
    if isinstance(action, actions.Zone):
        return Effect("mark", f"conntrack zone {action.zone}")
    if isinstance(action, actions.Untrack):
        return Effect("mark", "not tracked")
    if isinstance(action, actions.Pass):
        return Effect("pass", action.what or "goes on")
    return Effect("unknown", f"{getattr(action, 'why', type(action).__name__)}: not modelled")
