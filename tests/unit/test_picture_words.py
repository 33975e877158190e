"""Conditions and actions of rules in the words of a picture."""

from __future__ import annotations

import inspect
import re

from hypothesis import settings as limits

from istio_iptables.interpreter import action, condition
from istio_iptables.interpreter.condition import (
    AllOf,
    AnyOf,
    In,
    Masked,
    Named,
    Not,
    OneOf,
    Unmodelled,
)
from istio_iptables.pictures import words
from istio_iptables.pictures.words import clauses, effect, listed
from tests.support.cases import all_cases

FEW = limits(max_examples=max(1, limits().max_examples // 4))


MANY = tuple((n << 25, n << 25) for n in range(99, 120))
LONG = AnyOf((In("source", MANY), Named("sent_to", "lo")), "type of the address")


def in_words(*conditions) -> str:
    return ", ".join(clause.text() for clause in clauses(conditions))


# --- words ------------------------------------------------------------------------------------


@all_cases(
    ("conditions", "said"),
    [
        ([In("protocol", ((6, 6),))], "TCP"),
        ([In("destination_port", ((80, 80), (8000, 8100)))], "to port 80 or 8000-8100"),
        ([Not(In("uid", ((1337, 1337),)))], "not sent by UID 1337"),
        ([In("destination", ((0x0A000000, 0x0AFFFFFF),))], "to 10.0.0.0/8"),
        ([In("destination", ((0x0A000001, 0x0A000003),))], "to 10.0.0.1-10.0.0.3"),
        ([In("source", ((6, 6),))], "from ::6"),
        ([Named("sent_to", "lo"), In("protocol", ((17, 17),))], "UDP, out by lo"),
        ([OneOf("state", frozenset({"RELATED", "ESTABLISHED"}))], "connection state ESTABLISHED or RELATED"),
        ([Masked("mark", 0x539, 0xFFFFFFFF)], "mark 0x539"),
        ([Masked("mark", 1, 0xF)], "mark 0x1/0xf"),
        ([Unmodelled("-m string")], "“-m string”, which is not modelled"),
        ([AnyOf((In("source_port", ((1, 1),)), In("source_port", ((5, 5),))))], "from port 1 or 5"),
        ([AnyOf((In("source_port", ((1, 1),)), Named("sent_to", "lo")))], "(from port 1 or out by lo)"),
        ([AllOf((In("protocol", ((6, 6),)), Named("received_on", "eth0")))], "TCP, in by eth0"),
        ([Not(Not(In("gid", ((5, 5),))))], "sent by GID 5"),
        ([Not(In("uid", ((0xFFFFFFFF, 0xFFFFFFFF),)))], "sent by a socket"),
        ([In("zone", ((1, 1),))], "conntrack zone 1"),
        ([Named("sent_to", "lo"), Named("sent_to", "lo")], "out by lo"),
        ([In("protocol", ((6, 6),)), In("protocol", ((6, 6), (17, 17)))], "TCP"),  # nft, before tproxy
        ([In("protocol", ((6, 6), (17, 17))), In("protocol", ((6, 6),))], "TCP or UDP, TCP"),
        ([LONG], "type of the address as the rule says"),
    ],
)
def test_conditions_in_words(conditions, said):
    assert in_words(*conditions) == said


@all_cases(
    ("doing", "kind", "said", "leads_to"),
    [
        ([action.Redirect(15001)], "redirect", "to port 15001", ("port 15001",)),
        ([action.TProxy(15006, 0, 1337)], "tproxy", "to port 15006, mark 0x539", ("port 15006",)),
        ([action.Call("X")], "call", "X", ("chain X",)),
        ([action.Return()], "return", "as it is", ()),
        ([action.End("drop")], "drop", "dropped", ()),
        ([action.End("reject")], "drop", "rejected", ()),
        ([action.Pass("LOG"), action.End("accept")], "accept", "LOG, leaves this table", ()),
        ([action.Assign("mark", 0, 5)], "mark", "mark 0x5", ()),
        ([action.Assign("mark", 0xF0, 5)], "mark", "mark (… & 0xf0) ^ 0x5", ()),
        ([action.Assign("connection_mark", 0, source="mark")], "mark", "keep its mark", ()),
        ([action.Zone(2)], "mark", "conntrack zone 2", ()),
        ([action.Untrack()], "mark", "not tracked", ()),
        ([action.Destination(0x0A000001, 80)], "translate", "to 10.0.0.1, port 80", ()),
        ([action.Source("masquerade")], "translate", "new source (masquerade)", ()),
        ([action.NetMap(0x0A000000, 0xFF)], "translate", "into 10.0.0.0 (NETMAP)", ()),
        ([action.Redirect(0)], "redirect", "to its own port here", ()),
        ([action.TProxy(0)], "tproxy", "to its own port here", ()),
        ([action.Unknown("QUEUE")], "unknown", "QUEUE: not modelled", ()),
        ([], "pass", "counted", ()),
        ([action.Pass("counter"), action.End("drop")], "drop", "dropped", ()),
        ([action.Pass("counter")], "pass", "counted", ()),
    ],
)
def test_actions_in_words(doing, kind, said, leads_to):
    found = effect(doing)
    assert (found.kind, found.text, found.leads_to) == (kind, said, leads_to)


def test_all_actions_and_conditions_have_words():
    """A new one is not called unknown in pictures."""
    for module, base in ((action, action.Action), (condition, condition.Condition)):
        kinds = {each for each in vars(module).values() if isinstance(each, type) and issubclass(each, base)}
        source = inspect.getsource(words)
        for kind in kinds - {base, action.Unknown}:
            assert re.search(rf"\b{kind.__name__}\b", source), kind


def test_a_verdict_map_leads_to_all_its_chains():
    branches = tuple((In("destination_port", ((n, n),)), action.Call(f"c{n}")) for n in range(1, 7))
    found = effect([action.Choose(branches)])
    assert found.text == "to port 1: c1; to port 2: c2; to port 3: c3; to port 4: c4 … 2 more"
    assert found.leads_to == tuple(f"chain c{n}" for n in range(1, 7))


def test_a_long_list_is_counted():
    assert listed([str(n) for n in range(1, 125)], "ports") == "1, 2, 3, 4 … 120 more ports"
    assert listed(["1", "2", "3", "4", "5"], "ports") == "1, 2, 3, 4 or 5"
