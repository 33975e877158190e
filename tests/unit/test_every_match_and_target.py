"""Every match and every target, in every place that has to know it: none can be forgotten anywhere.

The model's docstring lists the places. Each either handles a kind, which is tried here, or has it in a list
of those that cannot occur there, with the reason. The rules that the policy makes of the golden
configurations are held against these lists.

One reader of rules is not among the places: tests/support/oracle.py knows text alone, not the model.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import pytest

from istio_iptables.api import build
from istio_iptables.change.actions import inbound_captures
from istio_iptables.doctor.features import IPTABLES_PARTS, PLAIN, Feature
from istio_iptables.errors import KernelError
from istio_iptables.formats import iptables_restore, nft, shell
from istio_iptables.formats.iptables_args import loadable_args, matches_and_target, rule_args
from istio_iptables.formats.json import rule_values
from istio_iptables.interpreter import nft_rules, program
from istio_iptables.interpreter.packet import TCP, Packet
from istio_iptables.kernel.netlink.nf_tables import expressions, rules, rules_back
from istio_iptables.kernel.xtables.entries import decode, encode
from istio_iptables.rules import model
from istio_iptables.rules.edit import Insert, edit_between
from istio_iptables.rules.model import Cidr, Match, PortRange, Rule, Ruleset, Table, Target
from istio_iptables.rules.nftables import model as nftables
from istio_iptables.rules.nftables.translate import chain_name, translate
from istio_iptables.settings.resolve import parse, resolve
from istio_iptables.testing.refusals import edited
from tests.support import interpreter, nft_printed
from tests.support.cases import all_cases
from tests.support.golden import given
from tests.support.golden_cases import GOLDEN

Kind = type[Match] | type[Target]
Reasons = Mapping[Kind, str]

CHAIN = "ISTIO_OUTPUT"
TEN = Cidr(4, 0x0A000000, 8)

#: One of each kind. The packet of the interpreter meets every match.
EXAMPLES: Mapping[Kind, Match | Target] = {
    type(part): part
    for part in (
        model.InInterface("eth0"),
        model.OutInterface("lo"),
        model.Source(TEN),
        model.Destination(TEN),
        model.Transport("tcp"),
        model.SourcePort(PortRange(53, 53)),
        model.DestinationPort(PortRange(8000, 8100)),
        model.DestinationPorts((PortRange(53, 53), PortRange(8000, 8100))),
        model.UidOwner(1337),
        model.GidOwner(1337),
        model.Mark(1337),
        model.ConnectionMark(1337),
        model.ConntrackState(frozenset({"NEW"})),
        model.Comment("two words"),
        model.ForeignMatch(("-m", "time", "--utc")),
        nftables.NfProto("ipv4"),
        nftables.Addresses("destination", "ipv4", ((0x0A000000, 0x0AFFFFFF),)),
        nftables.Ports("destination", "tcp", ((8000, 8100),)),
        nftables.Owners("user", ((1337, 1337),)),
        model.Jump(CHAIN),
        model.RETURN,
        model.Redirect(15001),
        model.SetMark(1338),
        model.SaveMark(),
        model.RestoreMark(),
        model.TProxy(15006, 1337),
        model.ConntrackZone(2),
        model.ForeignTarget(("-j", "LOG")),
        nftables.FamilyTProxy(15006, 1337, "ipv4"),
    )
}


def subclasses(of: Any) -> Iterator[Any]:
    for kind in of.__subclasses__():
        yield kind
        yield from subclasses(kind)


KINDS: list[Kind] = [
    kind
    for base in (Match, Target)
    for kind in subclasses(base)
    if kind.__module__.startswith("istio_iptables.")
]


def rule_of(kind: Kind) -> Rule:
    """Return a rule that has the example of a kind; a match of ports needs the transport protocol."""
    part = EXAMPLES[kind]
    if isinstance(part, Target):
        return Rule((), part, "why it is there")
    ports = isinstance(part, (model.SourcePort, model.DestinationPort, model.DestinationPorts))
    return Rule((model.Transport("tcp"), part) if ports else (part,), model.RETURN, "why it is there")


def table_of(rule: Rule, chain: str = CHAIN, name: model.TableName = "nat") -> Table:
    return Table("ipv4", name, (model.Chain(chain, (rule,)),))


# --- the places: each takes a rule and fails if it does not handle what is in it --------------


def by_iptables_args(rule: Rule) -> None:
    assert matches_and_target(rule_args(rule), {CHAIN}) == (rule.matches, rule.target)


def by_iptables_restore(rule: Rule) -> None:
    wanted = table_of(rule)
    [read] = iptables_restore.parse(
        iptables_restore.edit_script(edit_between(Table("ipv4", "nat"), wanted)), "ipv4"
    )
    assert read == wanted


def by_shell(rule: Rule) -> None:
    lines = shell.script(Ruleset((table_of(rule),))).splitlines()
    assert ["iptables", "-t", "nat", "-A", CHAIN, *loadable_args(rule)] in [
        shlex.split(line) for line in lines
    ]


def by_json(rule: Rule) -> None:
    values = json.loads(json.dumps(rule_values(rule)))
    for part, shown in zip((*rule.matches, rule.target), (*values["matches"], values["target"]), strict=True):
        assert shown["type"] == type(part).__name__
        assert set(shown) == {"type", *part.as_dict()}


def by_nft(rule: Rule) -> None:
    """Written as nft has it, and what nft prints about it read: the samples are those of nft_printed."""
    [line] = nft.rule_lines(rule)
    assert line
    kinds = {type(part) for part in (*rule.matches, rule.target)} - {model.Comment}
    samples: dict[Kind, Rule] = {
        type(typed): rule
        for typed, _, shown in nft_printed.MATCHES
        for rule in nft_printed.read([shown, nft_printed.COUNTER, {"return": None}])
        if typed in rule.matches
    }
    samples |= {
        type(typed): rule
        for typed, _, shown in nft_printed.TARGETS
        for rule in nft_printed.read([nft_printed.COUNTER, *shown])
        if typed == rule.target
    }
    for kind in kinds - {model.ForeignMatch, model.ForeignTarget}:  # whatever has no sample is read as these
        assert kind in samples


def by_netlink(rule: Rule) -> None:
    sent = expressions.pack(rules.expressions(rule, lambda _: ("", 0)))
    found = rules_back.rule_of(expressions.unpack(sent, {}), rules.comment_of(rule), {})
    assert found == rule


def by_translation(rule: Rule) -> None:
    """In nftables' terms there is a rule for it, which nft's writer takes."""
    [table] = translate(Ruleset((table_of(rule),)))
    [chain] = table.chains
    assert chain.name == chain_name(CHAIN)
    first = chain.rules[0]
    assert len(first.matches) == len([m for m in rule.matches if not isinstance(m, model.Transport)]) or (
        first.matches == rule.matches
    )
    assert nft.script([table])


def by_entries(rule: Rule) -> None:
    for family in model.FAMILIES:
        if family == "ipv6" and any(hasattr(match, "cidr") for match in rule.matches):
            continue
        found = decode(encode(rule, family), _target_name(rule.target), family, frozenset({CHAIN}))
        assert found == rule
        assert not found.raw


def _target_name(target: Target) -> str:
    """What libiptc calls a target: the chain, the verdict or the extension."""
    args = rule_args(Rule((), target))
    return args[1]


PAST = Rule((), model.Redirect(9), "went past the rule")
LAST = Rule((), model.Redirect(1), "was sent to the chain")


def _jumps(rule: Rule) -> bool:
    return isinstance(rule.target, model.Jump)


def _becomes(rule: Rule, compiled: program.Table) -> None:
    """The match holds for the packet, and the target does something to it or lets it pass."""
    incoming = any(isinstance(match, model.InInterface) for match in rule.matches)
    packet = Packet(
        "ipv4",
        TCP,
        0x0A000001,
        0x0A000002,
        53,
        8080,
        received_on="eth0" if incoming else "",
        sent_to="" if incoming else "lo",
        uid=1337,
        gid=1337,
        mark=1337,
        connection_mark=1336 if isinstance(rule.target, (model.SaveMark, model.RestoreMark)) else 1337,
    )
    how, after = interpreter.outcome([compiled], packet)
    if isinstance(rule.target, (model.SetMark, model.SaveMark, model.RestoreMark, model.ConntrackZone)):
        assert how == "dropped", "these go on to the next rule"
        changed = (after.mark, after.connection_mark, after.zone)
        assert changed != (packet.mark, packet.connection_mark, packet.zone)
    else:
        assert how is None, "the match holds"


def by_iptables_meaning(rule: Rule) -> None:
    own = (rule, Rule((), model.DROP))
    chains = [model.Chain(name, own) for name in ("PREROUTING", "OUTPUT")]
    name: model.TableName = "raw" if isinstance(rule.target, model.ConntrackZone) else "mangle"
    table = Table("ipv4", name, (*chains, model.Chain(CHAIN, (Rule((), model.ACCEPT),))))
    compiled = interpreter.of_iptables(table)
    if not _is_foreign(rule):
        _becomes(rule, compiled)


def by_native_meaning(rule: Rule) -> None:
    own = (rule, Rule((), model.DROP))
    priority = -300 if isinstance(rule.target, model.ConntrackZone) else -150
    chains = [
        nftables.NativeChain(hook, nftables.Hook("filter", hook, priority), own)
        for hook in ("prerouting", "output")
    ]
    target = nftables.NativeChain(CHAIN, None, (Rule((), model.ACCEPT),))
    compiled = nft_rules.compiled(nftables.NativeTable("t", (*chains, target)))
    if not _is_foreign(rule):
        _becomes(rule, compiled)


def _is_foreign(rule: Rule) -> bool:
    """A foreign part is compiled, but the packet here need not match it."""
    return any(
        isinstance(part, (model.ForeignMatch, model.ForeignTarget)) for part in (*rule.matches, rule.target)
    )


def by_fake_kernel(rule: Rule) -> None:
    """It accepts a rule with it; what it refuses of each is in tests/support/refusals.py."""
    if isinstance(rule.target, (model.Redirect, model.TProxy)):
        rule = rule.replace(matches=(model.Transport("tcp"),))
    tables: Mapping[type[Target], model.TableName] = {model.TProxy: "mangle", model.ConntrackZone: "raw"}
    before = Table("ipv4", tables.get(type(rule.target), "nat"), (model.Chain("OTHER"), model.Chain(CHAIN)))
    try:
        after = edited(before, [Insert("OTHER", 1, rule, True)], "iptables-legacy")
    except KernelError as error:
        raise AssertionError(str(error)) from error
    assert after.chain("OTHER").rules == (rule,)


def by_doctor(rule: Rule) -> None:
    """It is known which part of the kernel a rule of iptables needs for it, if any."""
    kinds: list[Kind] = [*map(type, rule.matches), type(rule.target)]
    assert all(kind in PLAIN or isinstance(IPTABLES_PARTS[kind], Feature) for kind in kinds)


def by_inbound_captures(rule: Rule) -> None:
    """A target that hands inbound traffic to the proxy is one that a plan counts as its capture."""
    table = Table(
        "ipv4",
        "nat",
        (
            model.Chain("PREROUTING", (Rule((), model.Jump("ISTIO_INBOUND")),)),
            model.Chain("ISTIO_INBOUND", (rule,)),
            model.Chain(CHAIN, (LAST,)),
        ),
    )
    assert inbound_captures(table) == {LAST.target if _jumps(rule) else rule.target}


# --- what cannot occur where, and why ---------------------------------------------------------

NATIVE_ONLY = "iptables has no such match or target: only rules.nftables.translate makes it"
TRANSLATED = "rules.nftables.translate turns it into one of nftables' own, which takes a set"
NEVER_WRITTEN = "this tool never writes it, and a rule that was read is kept as the bytes in Rule.raw"
NOT_IN_NAT_OUTPUT = "the policy puts it into no chain of nat that a packet of a local process meets"
BY_NFT = "a table that has it is read and written by nft"
CAPTURES_NOTHING = "hands no packet to the proxy"
_NATIVE: Reasons = dict.fromkeys(
    (nftables.NfProto, nftables.Addresses, nftables.Ports, nftables.Owners, nftables.FamilyTProxy),
    NATIVE_ONLY,
)
_FOREIGN: Reasons = dict.fromkeys((model.ForeignMatch, model.ForeignTarget), NEVER_WRITTEN)
_TRANSLATED: Reasons = dict.fromkeys(
    (
        model.Source,
        model.Destination,
        model.SourcePort,
        model.DestinationPort,
        model.DestinationPorts,
        model.UidOwner,
        model.GidOwner,
        model.TProxy,
    ),
    TRANSLATED,
)
_TARGETS = [kind for kind in EXAMPLES if issubclass(kind, Target)]

#: The places, and the kinds that cannot occur in each.
PLACES: Mapping[str, tuple[Callable[[Rule], None], Reasons]] = {
    "formats/iptables_args": (by_iptables_args, _NATIVE),
    "formats/iptables_restore": (by_iptables_restore, _NATIVE),
    "formats/shell": (by_shell, _NATIVE),
    "formats/json": (by_json, _NATIVE),
    "formats/nft and formats/nft_json": (by_nft, _TRANSLATED),
    "kernel/netlink/nf_tables": (by_netlink, {**_TRANSLATED, **dict.fromkeys(_FOREIGN, BY_NFT)}),
    "rules/nftables/translate": (
        by_translation,
        {**_NATIVE, **dict.fromkeys(_FOREIGN, "it translates what the policy makes, never what was read")},
    ),
    "kernel/xtables/entries": (by_entries, {**_NATIVE, **_FOREIGN}),
    "interpreter/iptables": (by_iptables_meaning, _NATIVE),
    "interpreter/nft_rules": (by_native_meaning, {}),
    "doctor/features": (by_doctor, {**_NATIVE, **dict.fromkeys(_FOREIGN, "it looks at rules of the policy")}),
    "change/actions.inbound_captures": (
        by_inbound_captures,
        {
            **dict.fromkeys(
                (
                    model.Verdict,
                    model.SetMark,
                    model.SaveMark,
                    model.RestoreMark,
                    model.ConntrackZone,
                    model.ForeignTarget,
                ),
                CAPTURES_NOTHING,
            ),
            **{kind: "matches make no difference to it" for kind in EXAMPLES if issubclass(kind, Match)},
        },
    ),
}

#: Places that take what cannot occur there for something else, without an error.
_SILENT = {"rules/nftables/translate", "change/actions.inbound_captures"}


def unknown_to(kind: Kind) -> dict[str, Exception]:
    """Return the places that neither handle a kind nor say that it cannot occur there, and how they fail."""
    failures: dict[str, Exception] = {}
    for name, (place, impossible) in PLACES.items():
        if kind not in impossible:
            try:
                place(rule_of(kind))
            except Exception as error:
                failures[name] = error
    return failures


@all_cases("kind", KINDS)
def test_every_kind_has_an_example(kind: Kind) -> None:
    assert kind in EXAMPLES, "add an example here, and see to every place that the model's docstring lists"


@all_cases("kind", KINDS)
def test_every_kind_is_known_everywhere(kind: Kind) -> None:
    assert unknown_to(kind) == {}


@all_cases("name", [name for name in PLACES if name not in _SILENT])
def test_what_cannot_occur_is_never_taken_for_something_else(name: str) -> None:
    place, impossible = PLACES[name]
    for kind in impossible:
        with pytest.raises((LookupError, ValueError, AssertionError)):
            place(rule_of(kind))


@all_cases("name", PLACES)
def test_the_model_lists_the_place(name: str) -> None:
    for part in name.split(" and "):
        assert part.partition(".")[0] in (model.__doc__ or "")


@cache
def rules_of_the_policy() -> list[tuple[Table, model.Chain, Rule]]:
    found = []
    for golden in GOLDEN:
        facts = golden.facts()
        config, _ = resolve(parse(given(golden), facts), facts)
        found += list(build(config).rules())
    return found


def test_the_policy_writes_nothing_that_cannot_occur() -> None:
    kinds = {type(part) for _, _, rule in rules_of_the_policy() for part in (*rule.matches, rule.target)}
    assert not kinds & {*_NATIVE, *_FOREIGN}


class NewMatch(Match):
    """A match that no place knows."""

    number: int


class NewRedirect(model.Redirect):
    """A special case of a known target."""

    flag: bool = True


@pytest.mark.parametrize("part", [NewMatch(1), NewRedirect(15001)])
def test_a_new_kind_cannot_be_forgotten_anywhere(
    part: Match | Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.EXAMPLES", {**EXAMPLES, type(part): part})
    # A reader of targets takes a special case of a target for that target, like FamilyTProxy.
    known = {"change/actions.inbound_captures"}
    expected = PLACES.keys() - (known if isinstance(part, Target) else set())
    assert unknown_to(type(part)).keys() == expected
