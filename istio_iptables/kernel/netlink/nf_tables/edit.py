"""edit: the messages that turn native tables into others, for transaction.commit."""

from __future__ import annotations

import struct

from ....rules.istio import NATIVE_FAMILY
from ....rules.nftables.edit import Delete, Flush, transactions
from ....rules.nftables.model import set_name
from .. import transaction as nl
from ..messages import pack_attribute
from . import expressions as nft
from .rules import comment_of, expressions
from .sets import NESTED, UNNAMED, named, unnamed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ....rules.model import Rule
    from ....rules.nftables.edit import Step
    from ....rules.nftables.model import Hook, Listing, NativeChain, NativeTable
    from ..transaction import Message

#: Attributes of tables, chains, rules and sets
_TABLE, _TABLE_FLAGS = 1, 2
_CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE = 3, 4, 5, 7
HOOK_NUMBER, HOOK_PRIORITY = 1, 2
_RULE_CHAIN, _RULE_EXPRESSIONS, _RULE_USERDATA = 2, 4, 7
_SET_NAME = 2
_NLM_F_CREATE, _NLM_F_APPEND = 0x400, 0x800
#: enum nf_inet_hooks
HOOKS = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}
POLICIES = {"drop": 0, "accept": 1}

_FAMILY = nl.FAMILIES[NATIVE_FAMILY]
_DELETED = {"table": nl.DELTABLE, "chain": nl.DELCHAIN, "set": nl.DELSET}
_NAMED_BY = {"chain": _CHAIN_NAME, "set": _SET_NAME}


def messages(
    before: Sequence[NativeTable], after: Sequence[NativeTable], *, sets_first: bool
) -> list[list[Message]]:
    """Return the messages of each transaction: see rules/nftables/edit.transactions.

    Raises KeyError if something foreign would have to be written or deleted.
    """
    return [_Batch(steps).messages for steps in transactions(before, after, sets_first=sets_first)]


class _Batch:
    """The messages of one transaction. Its sets are numbered, so that rules can refer to them."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.messages: list[Message] = []
        self._sets: dict[tuple[str, str], int] = {}
        self._last = 0
        for step in steps:
            if isinstance(step, Flush):
                self._add(nl.DELRULE, _name(_TABLE, step.table), 0)
            elif isinstance(step, Delete):
                name = _name(_NAMED_BY[step.kind], step.name) if step.name else b""
                self._add(_DELETED[step.kind], _name(_TABLE, step.table) + name, 0)
            else:
                self._write(step.table, step.sets, only_sets=step.only_sets)

    def _add(self, kind: int, attributes: bytes, flags: int = _NLM_F_CREATE) -> None:
        self.messages.append((kind, flags, _FAMILY, attributes))

    def _write(self, table: NativeTable, sets: Sequence[str], *, only_sets: bool) -> None:
        if table.text:
            raise KeyError("text")
        of_table = _name(_TABLE, table.name)
        self._add(nl.NEWTABLE, of_table + pack_attribute(_TABLE_FLAGS, nft.u32(0)), 0)
        chains = () if only_sets else table.chains
        for chain in chains:
            self._add(nl.NEWCHAIN, of_table + _name(_CHAIN_NAME, chain.name) + _hook(chain.hook))
        matches = table.named_sets() if sets else {}
        for name in sets:
            self._sets[table.name, name] = self._make(named, matches[name], of_table, name)
        for chain in chains:
            for rule in chain.rules:
                self._rule(table, chain, rule, of_table)

    def _make(self, packed: Callable[..., tuple[bytes, list[bytes]]], match: Listing, *of: Any) -> int:
        """Make a set; return its number."""
        self._last += 1
        head, contents = packed(match, *of, self._last)
        self._add(nl.NEWSET, head)
        for content in contents:
            self._add(nl.NEWSETELEM, content)
        return self._last

    def _rule(self, table: NativeTable, chain: NativeChain, rule: Rule, of_table: bytes) -> None:
        def place_of(match: Listing) -> tuple[str, int]:
            name = set_name(match)
            if name:
                return name, self._sets.get((table.name, name), 0)
            return UNNAMED, self._make(unnamed, match, of_table)

        packed = nft.pack(expressions(rule, place_of))
        attributes = of_table + _name(_RULE_CHAIN, chain.name)
        attributes += pack_attribute(_RULE_EXPRESSIONS | NESTED, packed)
        comment = comment_of(rule)
        attributes += pack_attribute(_RULE_USERDATA, comment) if comment else b""
        self._add(nl.NEWRULE, attributes, _NLM_F_CREATE | _NLM_F_APPEND)


def _name(kind: int, name: str) -> bytes:
    return pack_attribute(kind, name.encode() + b"\0")


def _hook(hook: Hook | None) -> bytes:
    if hook is None:
        return b""
    place = pack_attribute(HOOK_NUMBER, nft.u32(HOOKS[hook.hook]))
    place += pack_attribute(HOOK_PRIORITY, struct.pack(">i", hook.priority))
    policy = pack_attribute(_CHAIN_POLICY, nft.u32(POLICIES[hook.policy]))
    return _name(_CHAIN_TYPE, hook.kind) + policy + pack_attribute(_CHAIN_HOOK | NESTED, place)
