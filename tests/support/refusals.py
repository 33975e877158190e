"""Edits of an empty table, good and bad, and which iptables accepts them (1.8.9, with Linux 6.18).

The fake kernel is held to them in tests/unit/test_testing.py, and both it and the real one in
tests/kernel/test_fake_kernel.py.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from istio_iptables.rules import model
from istio_iptables.rules.edit import CreateChain, Delete, Insert, RemoveChain, ReplaceRules
from istio_iptables.rules.model import Rule

if TYPE_CHECKING:
    from istio_iptables.rules.edit import Step
    from istio_iptables.rules.model import TableName

LONGEST, TOO_LONG = "L" * 28, "L" * 29
TCP, NOT_TCP = model.Transport("tcp"), model.Transport("tcp", True)
TO_PROXY, TPROXY = model.Redirect(15006), model.TProxy(15006, 1337)
UID = model.UidOwner(1337)
EIGHTY = model.PortRange(80, 80)
CHAIN = "ISTIO_INBOUND"


def in_chain(target: model.Target, *found: model.Match) -> list[Step]:
    """A chain that no rule jumps to, with one rule."""
    return [CreateChain(CHAIN), ReplaceRules(CHAIN, (), (Rule(found, target),))]


def from_hook(hook: str, *rules: Rule) -> list[Step]:
    return [Insert(hook, at, rule, True) for at, rule in enumerate(rules, 1)]


def one(hook: str, target: model.Target, *found: model.Match) -> list[Step]:
    return from_hook(hook, Rule(found, target))


JUMP = Rule((), model.Jump(CHAIN))
RETURNS = Rule((), model.RETURN)


def chains_in_a_row(number: int) -> list[Step]:
    names = [f"C{n}" for n in range(number)]
    jumps = pairwise(names)
    return [
        *map(CreateChain, names),
        *(ReplaceRules(name, (), (Rule((), model.Jump(after)),)) for name, after in jumps),
        *from_hook("OUTPUT", Rule((), model.Jump(names[0]))),
    ]


CIRCLE: list[Step] = [
    CreateChain("A"),
    CreateChain("B"),
    ReplaceRules("A", (), (Rule((), model.Jump("B")),)),
    ReplaceRules("B", (), (Rule((), model.Jump("A", True)),)),
]
ALL = "iptables-legacy", "iptables-nft"
LEGACY, NFT = ALL[:1], ALL[1:]

#: A table, an edit, and the locations that accept it.
CASES: list[tuple[TableName, list[Step], tuple[str, ...]]] = [
    ("nat", one("OUTPUT", TO_PROXY, TCP), ALL),
    ("nat", one("OUTPUT", TO_PROXY, NOT_TCP), ALL),
    ("nat", one("OUTPUT", TO_PROXY), ()),
    ("nat", one("INPUT", TO_PROXY, TCP), ()),
    ("nat", one("POSTROUTING", TO_PROXY, TCP), ()),
    ("nat", in_chain(TO_PROXY, TCP), ALL),
    ("nat", [*in_chain(TO_PROXY, TCP), *from_hook("INPUT", JUMP)], ()),
    ("nat", [*in_chain(TO_PROXY, TCP), *from_hook("INPUT", RETURNS, JUMP)], LEGACY),
    ("nat", [*in_chain(TO_PROXY, TCP), *from_hook("PREROUTING", JUMP)], ALL),
    ("mangle", in_chain(TO_PROXY, TCP), ()),
    ("nat", one("OUTPUT", model.Redirect(65536), TCP), ()),
    ("mangle", one("PREROUTING", TPROXY, TCP), ALL),
    ("mangle", one("PREROUTING", TPROXY, NOT_TCP), ()),
    ("mangle", one("PREROUTING", TPROXY), ()),
    ("mangle", one("OUTPUT", TPROXY, TCP), ()),
    ("mangle", [*in_chain(TPROXY, TCP), *from_hook("OUTPUT", JUMP)], ()),
    ("nat", one("PREROUTING", TPROXY, TCP), ()),
    ("raw", one("PREROUTING", model.ConntrackZone(65535)), ALL),
    ("raw", one("PREROUTING", model.ConntrackZone(65536)), ()),
    ("mangle", one("PREROUTING", model.ConntrackZone(1)), ()),
    ("nat", one("OUTPUT", model.DROP), ()),
    ("mangle", one("OUTPUT", model.DROP), ALL),
    ("nat", one("OUTPUT", model.ACCEPT, UID), ALL),
    ("mangle", one("POSTROUTING", model.ACCEPT, model.GidOwner(1, True)), ALL),
    ("nat", one("PREROUTING", model.ACCEPT, UID), ()),
    ("mangle", one("FORWARD", model.ACCEPT, model.GidOwner(1)), ()),
    ("nat", [*in_chain(model.RETURN, UID), *from_hook("INPUT", JUMP)], ()),
    ("nat", one("OUTPUT", model.ACCEPT, model.UidOwner(0xFFFFFFFE)), ALL),
    ("nat", one("OUTPUT", model.ACCEPT, model.UidOwner(0xFFFFFFFF)), ()),
    ("nat", one("OUTPUT", model.ACCEPT, model.GidOwner(0xFFFFFFFF)), ()),
    ("nat", one("OUTPUT", model.ACCEPT, model.InInterface("lo")), ()),
    ("nat", one("POSTROUTING", model.ACCEPT, model.InInterface("lo")), ()),
    ("nat", one("PREROUTING", model.ACCEPT, model.OutInterface("lo")), ()),
    ("nat", one("INPUT", model.ACCEPT, model.OutInterface("lo")), ()),
    ("nat", [*in_chain(model.RETURN, model.InInterface("lo")), *from_hook("OUTPUT", JUMP)], ALL),
    ("mangle", one("FORWARD", model.ACCEPT, model.InInterface("lo"), model.OutInterface("lo")), ALL),
    ("nat", one("OUTPUT", model.ACCEPT, model.OutInterface("n" * 15)), ALL),
    ("nat", one("OUTPUT", model.ACCEPT, model.OutInterface("n" * 16)), ()),
    ("nat", one("OUTPUT", model.ACCEPT, model.OutInterface("")), ()),
    ("raw", one("FORWARD", model.ACCEPT), ()),
    ("nat", one("FORWARD", model.ACCEPT), ()),
    ("nat", from_hook("OUTPUT", JUMP), ()),
    ("nat", one("OUTPUT", model.Jump("INPUT")), ()),
    ("nat", one("OUTPUT", model.Jump("OUTPUT")), ()),
    ("nat", CIRCLE, ALL),
    ("nat", [*CIRCLE, *one("OUTPUT", model.Jump("A"), TCP)], ()),
    ("nat", chains_in_a_row(15), ALL),
    ("nat", chains_in_a_row(16), LEGACY),
    ("nat", [CreateChain(LONGEST), *one("OUTPUT", model.Jump(LONGEST))], ALL),
    ("nat", [CreateChain(TOO_LONG)], ()),
    ("nat", [CreateChain("ACCEPT")], ()),
    ("nat", one("OUTPUT", model.ACCEPT, TCP, model.DestinationPort(EIGHTY)), ALL),
    ("nat", one("OUTPUT", model.ACCEPT, model.DestinationPort(EIGHTY)), ()),
    ("nat", one("OUTPUT", model.ACCEPT, NOT_TCP, model.SourcePort(EIGHTY)), NFT),
    ("nat", one("OUTPUT", model.ACCEPT, TCP, model.DestinationPort(model.PortRange(2, 1))), ()),
    ("nat", one("OUTPUT", model.ACCEPT, TCP, *[model.DestinationPort(EIGHTY)] * 2), ()),
    ("nat", one("OUTPUT", model.ACCEPT, TCP, model.DestinationPorts((EIGHTY,) * 15)), ALL),
    ("nat", one("OUTPUT", model.ACCEPT, TCP, model.DestinationPorts((EIGHTY,) * 16)), ()),
    (
        "nat",
        one("OUTPUT", model.ACCEPT, TCP, model.DestinationPorts((*[EIGHTY] * 14, model.PortRange(1, 2)))),
        (),
    ),
    ("nat", one("OUTPUT", model.ACCEPT, NOT_TCP, model.DestinationPorts((EIGHTY,))), ()),
    ("nat", one("OUTPUT", model.ACCEPT, model.DestinationPorts((EIGHTY,))), ()),
    ("nat", one("OUTPUT", model.ACCEPT, TCP, TCP), ()),
    ("nat", one("OUTPUT", model.ACCEPT, *[model.OutInterface("lo")] * 2), ()),
    ("nat", one("OUTPUT", model.ACCEPT, *[model.Destination(model.Cidr(4, 1 << 24, 8))] * 2), ()),
    ("nat", one("OUTPUT", model.ACCEPT, model.Destination(model.Cidr(6, 1 << 127, 8))), ()),
    ("nat", one("OUTPUT", model.ACCEPT, model.ConntrackState(frozenset({"NEW"}))), ALL),
    ("nat", one("OUTPUT", model.ACCEPT, model.ConntrackState(frozenset())), ()),
    ("nat", one("OUTPUT", model.ACCEPT, model.Comment("c" * 255)), ALL),
    ("nat", one("OUTPUT", model.ACCEPT, model.Comment("c" * 256)), ALL),  # and the kernel has 255 of them
    ("nat", [CreateChain(CHAIN), RemoveChain(CHAIN)], ALL),
    ("nat", [*in_chain(model.RETURN), RemoveChain(CHAIN)], ()),
    ("nat", [CreateChain(CHAIN), *from_hook("OUTPUT", JUMP), RemoveChain(CHAIN)], ()),
    ("nat", [RemoveChain(CHAIN)], ()),
    ("nat", [ReplaceRules(CHAIN, (), (RETURNS,))], ()),
    ("nat", [Insert("OUTPUT", 2, RETURNS, False)], ()),
    ("nat", [*from_hook("OUTPUT", RETURNS), Insert("OUTPUT", 3, RETURNS, False)], ()),
    ("nat", [*from_hook("OUTPUT", RETURNS), Insert("OUTPUT", 1, RETURNS, False)], ALL),
    ("nat", [*from_hook("OUTPUT", RETURNS), Delete("OUTPUT", 2, RETURNS, False, False)], ()),
    ("nat", [Delete("OUTPUT", 1, RETURNS, False)], ()),
    ("nat", [*from_hook("OUTPUT", RETURNS), Delete("OUTPUT", 1, RETURNS, True)], ALL),
]
