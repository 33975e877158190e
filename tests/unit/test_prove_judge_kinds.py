"""The prover and Z3 say the same of every kind of match and target, each where it decides about packets.

The pairs of test_prove_judge.py are drawn at random; a run of few of them may leave a kind out, or have it
where it makes no difference. Here each kind is a rule that makes one, against rules without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import pytest

from istio_iptables.interpreter.verdict import Proxy
from istio_iptables.rules import model
from istio_iptables.rules.model import (
    ACCEPT,
    DROP,
    RETURN,
    Chain,
    Cidr,
    Jump,
    Mark,
    PortRange,
    Rule,
    Ruleset,
    SetMark,
    Table,
    Target,
)
from tests.support.asking_both import judged
from tests.support.z3_packets import Direction, Kind, Phase

#: nat is asked for the first, and connections have marks in the later ones.
PHASES: tuple[Phase, ...] = ("first", "later")

TCP = model.Transport("tcp")
NETWORK = {"ipv4": "198.51.100.0/24", "ipv6": "2001:db8::/32"}


class Case(NamedTuple):
    """Rules in which a kind decides, by chain, and rules to compare them with: none if not given."""

    table: model.TableName
    chains: dict[str, list[Rule]]
    others: dict[str, list[Rule]] = {}  # noqa: RUF012  # nobody changes it


def _drops(*matches: model.Match, chain: str = "OUTPUT", table: model.TableName = "mangle") -> Case:
    return Case(table, {chain: [Rule(matches, DROP)]})


def _matches(family: model.Family) -> dict[str, Case]:
    cidr = Cidr.from_ipaddress(NETWORK[family])
    found: dict[str, Case] = {"comment": _drops(model.Comment("x"))}
    for negated in (False, True):
        name = " negated" if negated else ""
        found |= {
            f"source{name}": _drops(model.Source(cidr, negated)),
            f"destination{name}": _drops(model.Destination(cidr, negated)),
            f"transport{name}": _drops(model.Transport("udp", negated)),
            f"source port{name}": _drops(TCP, model.SourcePort(PortRange(80, 90), negated)),
            f"destination port{name}": _drops(TCP, model.DestinationPort(PortRange(80, 90), negated)),
            f"destination ports{name}": _drops(
                TCP, model.DestinationPorts((PortRange(80, 80), PortRange(8000, 8100)), negated)
            ),
            f"user{name}": _drops(model.UidOwner(1337, negated)),
            f"group{name}": _drops(model.GidOwner(1337, negated)),
            f"mark{name}": _drops(Mark(5, negated=negated)),
            f"mark under a mask{name}": _drops(Mark(4, 0x14, negated)),
            f"connection mark{name}": _drops(model.ConnectionMark(5, negated=negated)),
            f"connection mark under a mask{name}": _drops(model.ConnectionMark(4, 0x14, negated)),
            f"state{name}": _drops(model.ConntrackState(frozenset({"NEW"}), negated)),
            f"state before conntrack{name}": _drops(
                model.ConntrackState(frozenset({"NEW" if negated else "INVALID"}), negated), table="raw"
            ),
            f"in by{name}": _drops(model.InInterface("net+", negated), chain="PREROUTING"),
            f"out by{name}": _drops(model.OutInterface("eth0", negated)),
        }
    return found


#: What is marked 5 is dropped afterwards.
_THEN = Rule((Mark(5),), DROP)


def _marks(*targets: Target, then: Rule = _THEN) -> Case:
    return Case("mangle", {"OUTPUT": [*(Rule((), target) for target in targets), then]}, {"OUTPUT": [then]})


def _calls(target: Target, *inner: Target, others: Target) -> Case:
    """A chain is called, and what comes back is dropped, against one that is called in another way."""
    of_chain = [Rule((), each) for each in inner]
    after = Rule((), DROP)
    return Case(
        "mangle",
        {"OUTPUT": [Rule((), target), after], "INNER": of_chain},
        {"OUTPUT": [Rule((), others), after], "INNER": of_chain},
    )


def _targets(family: model.Family) -> dict[str, Case]:
    return {
        "accept": Case(
            "mangle", {"OUTPUT": [Rule((), ACCEPT), Rule((), DROP)]}, {"OUTPUT": [Rule((), DROP)]}
        ),
        "drop": _drops(),
        "return": _calls(Jump("INNER"), RETURN, others=ACCEPT),
        "jump": _calls(Jump("INNER"), ACCEPT, others=SetMark(0)),
        "goto": _calls(Jump("INNER", goto=True), RETURN, others=Jump("INNER")),
        "a mark is set": _marks(SetMark(5)),
        "bits of a mark are set": _marks(SetMark(7), SetMark(0, 2)),
        "bits of a mark are turned": _marks(SetMark(7), SetMark(2, 0)),
        "bits of a mark are turned back": _marks(SetMark(5), SetMark(5, 0), then=Rule((Mark(0),), DROP)),
        "a mark is saved and restored": _marks(SetMark(5), model.SaveMark(), SetMark(0), model.RestoreMark()),
        "a mark is saved": Case(
            "mangle",
            {"OUTPUT": [Rule((), SetMark(5)), Rule((), model.SaveMark()), _OF_CONNECTION]},
            {"OUTPUT": [_OF_CONNECTION]},
        ),
        "a mark is restored": _marks(model.RestoreMark()),
        "a zone": Case(
            "raw",
            {"OUTPUT": [Rule((), model.ConntrackZone(1)), _NEW]},
            {"OUTPUT": [_NEW]},
        ),
        "redirected where it is sent": Case("nat", {"OUTPUT": [Rule((TCP,), model.Redirect(15001))]}),
        "redirected where it comes in": Case("nat", {"PREROUTING": [Rule((TCP,), model.Redirect(15006))]}),
        "handed over": Case("mangle", {"PREROUTING": [Rule((TCP,), model.TProxy(15006, 1337))]}),
        "handed over with a mark": Case(
            "mangle",
            {"PREROUTING": [Rule((TCP,), model.TProxy(15006, 5))], "INPUT": [_THEN]},
            {"PREROUTING": [Rule((TCP,), model.TProxy(15006, 4))], "INPUT": [_THEN]},
        ),
    }


_OF_CONNECTION = Rule((model.ConnectionMark(5),), DROP)
_NEW = Rule((model.ConntrackState(frozenset({"NEW"})),), DROP)
CASES: Mapping[str, tuple[model.Family, Case]] = {
    f"{name}, {family}": (family, case)
    for family in model.FAMILIES
    for name, case in (_matches(family) | _targets(family)).items()
}


def _ruleset(family: model.Family, table: model.TableName, chains: Mapping[str, list[Rule]]) -> Ruleset:
    made = tuple(Chain(name, tuple(rules)) for name, rules in chains.items())
    return Ruleset((Table(family, table, made),) if made else ())


@pytest.mark.parametrize("name", CASES)
def test_both_see_the_difference_that_a_kind_makes(name: str) -> None:
    family, case = CASES[name]
    one, other = (_ruleset(family, case.table, chains) for chains in (case.others, case.chains))
    direction: Direction = "in" if "PREROUTING" in case.chains else "out"
    found = [judged(one, other, Proxy(), Kind(family, direction, phase)) for phase in PHASES]
    assert not [each.disagreements for each in found if each.disagreements]
    assert any(each.differs for each in found)


def test_every_kind_of_match_and_target_of_the_model_is_compared() -> None:
    rules = [
        rule
        for _, case in CASES.values()
        for chains in (case.chains, case.others)
        for of_chain in chains.values()
        for rule in of_chain
    ]
    seen = {type(match) for rule in rules for match in rule.matches} | {type(rule.target) for rule in rules}
    every = (*model.Match.__subclasses__(), *model.Target.__subclasses__())
    known = {kind for kind in every if kind.__module__ == model.__name__}  # not those of native rules
    assert seen == known - {model.ForeignMatch, model.ForeignTarget}  # which Z3's reading does not know
