"""read: native tables as nf_tables has them; what this tool does not write is left to nft(8).

All lists of one reading are of the same generation of nf_tables: if it is another one in the end, all is
read again.
"""

from __future__ import annotations

import errno
import os
import struct

from ....rules.istio import NATIVE_FAMILY
from ....rules.nftables.model import Hook, NativeChain, NativeTable, name_of_set
from ....startup.record import Record
from .. import nftables
from ..messages import NETLINK_NETFILTER, NetlinkError, dump, pack_attribute, parse_attributes, refusal
from ..transaction import FAMILIES, SUBSYSTEM, generation
from . import edit, sets
from . import expressions as nft
from .rules_back import Unlike, rule_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from ....rules.model import Rule
    from ....rules.nftables.model import Ranges
    from ..nftables import TableInfo
    from .expressions import Expression

_GETCHAIN, _GETRULE, _GETSET, _GETSETELEM = (SUBSYSTEM << 8 | number for number in (4, 7, 10, 13))
_GETOBJ, _GETFLOWTABLE = (SUBSYSTEM << 8 | number for number in (19, 23))
_HEADER = struct.pack(">BBH", FAMILIES[NATIVE_FAMILY], 0, 0)
_TABLE = 1
_CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE, _CHAIN_FLAGS = 3, 4, 5, 7, 10
_RULE_CHAIN, _RULE_EXPRESSIONS, _RULE_USERDATA = 2, 4, 7
_BASE_CHAIN = 1  # NFT_CHAIN_BASE
#: The attributes that a chain, rule or set has if this tool made it: those that it writes, and numbers of the
#: kernel's own, such as handles and how many use it.
_OF_CHAIN = frozenset({1, 2, 3, 4, 5, 6, 7, 9, 10})
_OF_RULE = frozenset({1, 2, 3, 4, 6, 7, 8})
_OF_SET = frozenset({1, 2, 3, 4, 5, 9, 13, 14, 16, 19, 20})
_ATTEMPTS = 20


class Reading(Record):
    """The native tables of one generation of nf_tables; `unlike`: names of those with something foreign."""

    generation: int
    tables: tuple[NativeTable, ...]
    unlike: tuple[str, ...]


def read(names: Collection[str]) -> Reading:
    """Return those tables of family inet that exist and have one of these names, in the order of the names.

    Raises NetlinkError: EPERM without CAP_NET_ADMIN, EINTR if they keep changing.
    """
    for _ in range(_ATTEMPTS):
        number = generation()
        try:
            found = [(table.name, _Table(table).read()) for table in _existing(names)]
        except NetlinkError as error:
            if error.errno != errno.ENOENT or generation() == number:  # else it has just been deleted
                raise
            continue
        if generation() == number:
            tables = tuple([table for _, table in found if table])
            return Reading(number, tables, tuple([name for name, table in found if not table]))
    detail = f"the tables changed while they were read, {_ATTEMPTS} times over"
    raise refusal(errno.EINTR, "read nftables", detail)


def _existing(names: Collection[str]) -> list[TableInfo]:
    there = {table.name: table for table in nftables.tables() if table.family == NATIVE_FAMILY}
    return [there[name] for name in names if name in there]


class _Table:
    """One table, as it is read."""

    def __init__(self, table: TableInfo) -> None:
        self._table = table
        self._name = pack_attribute(_TABLE, table.name.encode() + b"\0")
        #: The values of each set by the name that the kernel has, and those of them that have their own name.
        self._sets: dict[str, Ranges] = {}
        self._named: set[str] = set()
        self._known: dict[bytes, Expression] = {}

    def read(self) -> NativeTable | None:
        """Return the table, None if it has something that this tool does not write."""
        if not self._table.is_plain:
            return None
        try:
            chains = self._chains()
            found_sets = self._list("sets", _GETSET, self._name)
            for each in found_sets:
                self._read_set(each)
            # All that a table may have is counted; some kernels count the sets in rules, too.
            if self._table.objects != len(chains) + len(self._named) and self._has_others():
                return None
            rules: dict[str, list[Rule]] = {}
            for each in self._list("rules", _GETRULE, self._name):
                rules.setdefault(_text(each[_RULE_CHAIN]), []).append(self._rule(each))
        except (Unlike, LookupError, ValueError, struct.error):  # parts are missing, or have other sizes
            return None
        found = [NativeChain(name, hook, tuple(rules.get(name, ()))) for name, hook in chains]
        table = NativeTable(self._table.name, tuple(found))
        return table.replace(unused=tuple(sorted(self._named - table.set_names()))) if self._named else table

    def _has_others(self) -> bool:
        kinds = {"objects": _GETOBJ, "flowtables": _GETFLOWTABLE}
        return any(self._list(what, kind, self._name) for what, kind in kinds.items())

    def _list(self, what: str, kind: int, attributes: bytes) -> list[dict[int, bytes]]:
        payloads = dump(f"list nftables {what}", NETLINK_NETFILTER, kind, _HEADER + attributes)
        return [parse_attributes(payload[4:]) for payload in payloads]

    def _chains(self) -> list[tuple[str, Hook | None]]:
        every = self._list("chains", _GETCHAIN, b"")
        chains = [each for each in every if _text(each[_TABLE]) == self._table.name]
        return [(_text(each[_CHAIN_NAME]), _hook(each)) for each in chains]

    def _read_set(self, found: Mapping[int, bytes]) -> None:
        """Keep the values of a set. Raises Unlike if it is not one that this tool makes."""
        name, flags = _text(found[sets.NAME]), nft.number_of(found.get(sets.FLAGS, b""))
        kind = _KINDS.get(nft.number_of(found[sets.KEY_TYPE]))
        if kind is None or found.keys() - _OF_SET or flags not in (_SINGLES, sets.INTERVAL):
            raise Unlike
        of_set = self._name + pack_attribute(sets.NAME, found[sets.NAME])
        payloads = dump("list nftables elements", NETLINK_NETFILTER, _GETSETELEM, _HEADER + of_set)
        ranges = sets.ranges_of(payloads, sets.KEY_TYPES[kind], interval=flags == sets.INTERVAL)
        if not ranges:
            raise Unlike
        self._sets[name] = ranges
        if flags == sets.INTERVAL:
            notes = found.get(sets.USERDATA, b"")
            as_made = notes == sets.order_note(kind) and name == name_of_set(kind, ranges)
            if not as_made or found.get(sets.DESCRIPTION):  # it has a maximal size
                raise Unlike
            self._named.add(name)

    def _rule(self, found: Mapping[int, bytes]) -> Rule:
        if found.keys() - _OF_RULE:
            raise Unlike
        expressions = nft.unpack(found.get(_RULE_EXPRESSIONS, b""), self._known)
        return rule_of(expressions, found.get(_RULE_USERDATA, b""), self._sets)


_SINGLES = sets.ANONYMOUS | sets.CONSTANT
_KINDS = {key.number: kind for kind, key in sets.KEY_TYPES.items()}


def _hook(found: Mapping[int, bytes]) -> Hook | None:
    """Return the hook of a chain. Raises Unlike if the chain is not one that this tool makes."""
    flags = nft.number_of(found.get(_CHAIN_FLAGS, b""))
    if found.keys() - _OF_CHAIN or flags & ~_BASE_CHAIN:
        raise Unlike
    if _CHAIN_HOOK not in found:
        return None
    place = parse_attributes(found[_CHAIN_HOOK])
    (priority,) = struct.unpack(">i", place[edit.HOOK_PRIORITY])
    hook = _HOOKS.get(nft.number_of(place[edit.HOOK_NUMBER]), "")
    policy = _POLICIES.get(nft.number_of(found[_CHAIN_POLICY]), "")
    if not hook or not policy or place.keys() - {edit.HOOK_NUMBER, edit.HOOK_PRIORITY}:
        raise Unlike
    return Hook(_text(found[_CHAIN_TYPE]), hook, priority, policy)


_HOOKS = {number: name for name, number in edit.HOOKS.items()}
_POLICIES = {number: name for name, number in edit.POLICIES.items()}


def _text(value: bytes) -> str:
    return os.fsdecode(value.rstrip(b"\0"))
