"""nftables_remains: remove what a killed run, or an edit, has left in nf_tables and that does nothing.

iptables-nft makes a table and base chains before it puts rules into them, and never takes them away. Native
rules have their sets made by an earlier transaction.

Removing them is safe for three reasons. A base chain without a rule and with the policy accept decides about
no packet, and iptables-nft makes it anew when a program wants to put a rule there. Only chains of the names,
types, hooks and priorities that iptables-nft gives are taken, from its own tables. And the kernel itself
refuses (EBUSY, ERESTART) if something is in them by now: the transaction holds the number of the generation
that was read (NFNL_BATCH_GENID), and removes nothing along with what it names (NLM_F_NONREC).

Layouts and numbers are those of linux/netfilter/nfnetlink.h and nf_tables.h; the chains are those of
iptables' nft.c (xtables_ipv4).
"""

from __future__ import annotations

import errno
import os
import struct

from . import nftables
from .messages import NETLINK_NETFILTER, NetlinkError, dump, pack_attribute, parse_attributes
from .transaction import DELCHAIN, DELSET, DELTABLE, FAMILIES, SUBSYSTEM, commit, generation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from typing import TypeAlias

    from .transaction import Message

    #: Type, number of the hook, priority.
    Form: TypeAlias = tuple[str, int, int]

_GETCHAIN = SUBSYSTEM << 8 | 4
_NLM_F_NONREC = 0x100
_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_USE, _CHAIN_TYPE = 1, 3, 4, 5, 6, 7
_SET_NAME = 2
_HOOKNUM, _PRIORITY = 1, 2
_ACCEPT = 1
_ATTEMPTS = 5
_OPERATION = "remove what is empty from nftables"

_HOOKS = {"PREROUTING": 0, "INPUT": 1, "FORWARD": 2, "OUTPUT": 3, "POSTROUTING": 4}
#: The base chains that iptables-nft makes in the tables that this tool writes.
_FORMS: Mapping[str, Mapping[str, Form]] = {
    "raw": {name: ("filter", _HOOKS[name], -300) for name in ("PREROUTING", "OUTPUT")},
    "mangle": {
        name: ("route" if name == "OUTPUT" else "filter", number, -150) for name, number in _HOOKS.items()
    },
    "nat": {
        "PREROUTING": ("nat", 0, -100),
        "INPUT": ("nat", 1, 100),
        "OUTPUT": ("nat", 3, -100),
        "POSTROUTING": ("nat", 4, 100),
    },
}


def remove_empty(emptied: Mapping[tuple[str, str], Collection[str]]) -> None:
    """Remove in one transaction what does nothing in the tables of iptables-nft: whole tables, and chains.

    `emptied` are base chains by the family and table that they are in: those that are empty go. Other empty
    ones go with their table, if nothing else is in it. Raises NetlinkError.
    """
    for _ in range(_ATTEMPTS):
        number = generation()
        messages = list(_removal(emptied))
        if not messages:
            return
        try:
            return commit(_OPERATION, messages, number)
        except NetlinkError as error:
            if error.errno != errno.ERESTART:  # the rules are other ones since they were read
                raise


def remove_sets(family: str, table: str, names: Iterable[str], *, with_table: bool) -> None:
    """Remove sets that no rule uses, and with `with_table` their table, in one transaction.

    Raises NetlinkError, and has removed nothing then: EBUSY if one is in use.
    """
    number = FAMILIES[family]
    messages = [(DELSET, 0, number, _name(_TABLE, table) + _name(_SET_NAME, name)) for name in sorted(names)]
    if with_table:
        messages.append((DELTABLE, _NLM_F_NONREC, number, _name(_TABLE, table)))
    commit(_OPERATION, messages, generation())


def _removal(emptied: Mapping[tuple[str, str], Collection[str]]) -> Iterator[Message]:
    tables = {(t.family, t.name): t for t in nftables.tables() if t.family in _OF_IPTABLES}
    if not any(name in _FORMS for _, name in tables):
        return
    for of, empty in _empty_chains().items():
        whole = tables[of].objects == len(empty) if of in tables else False
        of_table, family = _name(_TABLE, of[1]), FAMILIES[of[0]]
        for name in empty:
            if whole or name in emptied.get(of, ()):
                yield DELCHAIN, _NLM_F_NONREC, family, of_table + _name(_CHAIN_NAME, name)
        if whole:
            yield DELTABLE, _NLM_F_NONREC, family, of_table


def _empty_chains() -> dict[tuple[str, str], list[str]]:
    """Return the base chains that are as iptables-nft makes them, accept, and have no rule, by table."""
    found: dict[tuple[str, str], list[str]] = {}
    for payload in dump("list nftables chains", NETLINK_NETFILTER, _GETCHAIN, bytes(4)):
        attributes = parse_attributes(payload[4:])
        family, table = _OF_NUMBER.get(payload[0], ""), _text(attributes[_TABLE])
        name = _text(attributes[_CHAIN_NAME])
        if not family or _CHAIN_HOOK not in attributes or name not in _FORMS.get(table, {}):
            continue
        hook = parse_attributes(attributes[_CHAIN_HOOK])
        (priority,) = struct.unpack(">i", hook[_PRIORITY])
        form = (_text(attributes[_CHAIN_TYPE]), _u32(hook[_HOOKNUM]), priority)
        accepts = _u32(attributes[_CHAIN_POLICY]) == _ACCEPT
        if form == _FORMS[table][name] and accepts and _u32(attributes[_CHAIN_USE]) == 0:
            found.setdefault((family, table), []).append(name)
    return found


_OF_IPTABLES = ("ip", "ip6")
_OF_NUMBER = {FAMILIES[family]: family for family in _OF_IPTABLES}


def _name(kind: int, name: str) -> bytes:
    return pack_attribute(kind, os.fsencode(name) + b"\0")


def _text(value: bytes) -> str:
    return os.fsdecode(value.rstrip(b"\0"))


def _u32(value: bytes) -> int:
    number: int = struct.unpack(">I", value)[0]
    return number
