"""What targets of iptables do that this tool never writes: values from iptables-extensions(8).

The kernel has the last word on them in tests/kernel/test_iptables_meaning.py.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from istio_iptables.formats.iptables_args import rule_args
from istio_iptables.interpreter import action as actions
from istio_iptables.interpreter import iptables
from istio_iptables.interpreter.action import (
    Assign,
    Call,
    Choose,
    Destination,
    End,
    NetMap,
    Pass,
    Redirect,
    Return,
    Source,
    TProxy,
    Unknown,
    Untrack,
    Zone,
)
from istio_iptables.interpreter.algebra import One
from istio_iptables.interpreter.condition import ALWAYS, number
from istio_iptables.interpreter.iptables_options import foreign_target
from istio_iptables.interpreter.packet import Packet
from istio_iptables.interpreter.program import Base, Program, Table
from istio_iptables.interpreter.program import Rule as ProgramRule
from istio_iptables.interpreter.surroundings import Surroundings
from istio_iptables.interpreter.walk import Walk
from istio_iptables.rules import model
from istio_iptables.rules.model import Rule
from tests.support.cases import all_cases
from tests.support.meeting import packet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from istio_iptables.interpreter.program import HookName

FULL = 0xFFFFFFFF
A, B = 0x01020304, 0x01020305
SIX = 0xFD00 << 112 | 1


def kept_or_first(first: int, last: int, make: object) -> Choose:
    """A port of a range is kept, another becomes the first."""
    assert callable(make)
    return Choose(((number("destination_port", first, last), make(None)), (ALWAYS, make(first))))


TARGETS: list[tuple[str, actions.Action]] = [
    ("ACCEPT", End("accept")),
    ("DROP", End("drop")),
    ("RETURN", Return()),
    ("REJECT", End("reject")),
    ("REJECT --reject-with tcp-reset", End("reject")),
    ("DNAT --to-destination 1.2.3.4", Destination(A, None)),
    ("DNAT --to-destination 1.2.3.4:80", Destination(A, 80)),
    ("DNAT --to-destination :80", Destination(None, 80)),
    ("DNAT --to-destination 1.2.3.4-1.2.3.4:80 --persistent", Destination(A, 80)),
    ("DNAT --to-destination 1.2.3.4:80-80 --random", Destination(A, 80)),
    ("DNAT --to-destination 1.2.3.4 --random", Destination(A, None)),
    ("DNAT --to-destination 1.2.3.4:80-90", kept_or_first(80, 90, lambda port: Destination(A, port))),
    ("DNAT --to-destination :90-80", kept_or_first(80, 90, lambda port: Destination(None, port))),
    ("DNAT --to-destination [fd00::1]:80", Destination(SIX, 80)),
    ("DNAT --to-destination fd00::1", Destination(SIX, None)),
    ("DNAT --to-destination [fd00::1]", Destination(SIX, None)),
    ("DNAT --to-destination [fd00::1]:80-90", kept_or_first(80, 90, lambda port: Destination(SIX, port))),
    ("REDIRECT", Redirect(0)),
    ("REDIRECT --random", Redirect(0)),
    ("REDIRECT --to-ports 80", Redirect(80)),
    ("REDIRECT --to-ports 80 --random", Redirect(80)),
    ("REDIRECT --to-ports 80-90", kept_or_first(80, 90, lambda port: Redirect(port or 0))),
    ("NETMAP --to 1.2.3.0/24", NetMap(0x01020300, 0xFF)),
    ("NETMAP --to 1.2.3.4/32", NetMap(A, 0)),
    ("NETMAP --to fd00::/64", NetMap(0xFD00 << 112, (1 << 64) - 1)),
    ("MARK --set-xmark 0x5/0xffffffff", Assign("mark", 0, 5)),
    ("MARK --set-xmark 0x5/0xf", Assign("mark", FULL ^ 0xF, 5)),
    ("MARK --set-xmark 0xf0/0x0", Assign("mark", FULL, 0xF0)),
    ("MARK --set-mark 0x5", Assign("mark", 0, 5)),
    ("MARK --set-mark 0x30/0xf", Assign("mark", FULL ^ 0x3F, 0x30)),
    ("MARK --and-mark 0xf0", Assign("mark", 0xF0, 0)),
    ("MARK --or-mark 0xf0", Assign("mark", FULL ^ 0xF0, 0xF0)),
    ("MARK --xor-mark 0xf0", Assign("mark", FULL, 0xF0)),
    ("CONNMARK --set-xmark 0x5/0xf", Assign("connection_mark", FULL ^ 0xF, 5)),
    ("CONNMARK --and-mark 0xf0", Assign("connection_mark", 0xF0, 0)),
    ("CONNMARK --save-mark", Assign("connection_mark", 0, 0, "mark", FULL)),
    ("CONNMARK --save-mark --mask 0xf0", Assign("connection_mark", FULL ^ 0xF0, 0, "mark", 0xF0)),
    (
        "CONNMARK --save-mark --nfmask 0xf --ctmask 0xf0",
        Assign("connection_mark", FULL ^ 0xF0, 0, "mark", 0xF),
    ),
    (
        "CONNMARK --restore-mark --nfmask 0xf --ctmask 0xf0",
        Assign("mark", FULL ^ 0xF, 0, "connection_mark", 0xF0),
    ),
    ("TPROXY --on-port 15006 --on-ip 0.0.0.0 --tproxy-mark 0x1/0x3", TProxy(15006, FULL ^ 3, 1)),
    ("TPROXY --on-port 0 --on-ip 0.0.0.0 --tproxy-mark 0x0/0x0", TProxy(0, FULL, 0)),
    ("TPROXY --on-port 5 --tproxy-mark 0x5", TProxy(5, 0, 5)),
    ("TPROXY --on-port 5", TProxy(5, FULL, 0)),
    ("CT --notrack", Untrack()),
    ("NOTRACK", Untrack()),
    ("CT --zone 5", Zone(5)),
    ("CT --zone 5 --helper ftp", Zone(5)),
    ("CT --zone-orig 5", Zone(5, 0)),
    ("CT --zone-reply 5", Zone(0, 5)),
    ("CT --zone-orig 5 --zone-reply 5", Zone(5)),
    ("CT --helper ftp", Zone(0)),
    ("CT", Zone(0)),
]


@all_cases(("target", "does"), TARGETS)
def test_targets_do_what_the_manual_says(target: str, does: actions.Action):
    assert foreign_target(["-j", *target.split()]) == (does,)


@all_cases(
    "target",
    [
        "LOG --log-prefix x",
        "NFLOG --nflog-group 5",
        "ULOG --ulog-nlgroup 1",
        "TRACE",
        "AUDIT --type accept",
        "TCPMSS --clamp-mss-to-pmtu",
        "CHECKSUM --checksum-fill",
        "CLASSIFY --set-class 0001:0002",
        "DSCP --set-dscp 0x03",
        "TTL --ttl-inc 4",
        "HL --hl-set 4",
        "TOS --set-tos 0x04/0xff",
        "SECMARK --selctx x",
        "IDLETIMER --timeout 5 --label x",
        "SET --add-set x src",
    ],
)
def test_after_some_targets_the_packet_goes_on_as_it_is(target: str):
    assert foreign_target(["-j", *target.split()]) == (Pass(target),)


def test_without_a_target_a_rule_only_counts():
    assert foreign_target([]) == (Pass(),)


def test_a_new_source_keeps_its_words():
    for target, found in {
        "MASQUERADE": Source("MASQUERADE", masquerade=True),
        "MASQUERADE --to-ports 5": Source("MASQUERADE --to-ports 5", port=5, masquerade=True),
        "MASQUERADE --to-ports 1-6 --random-fully": Source("MASQUERADE --to-ports 1-6 --random-fully"),
        "SNAT --to-source 1.2.3.4": Source("SNAT --to-source 1.2.3.4", A),
        "SNAT --to-source 1.2.3.4:80": Source("SNAT --to-source 1.2.3.4:80", A, 80),
        "SNAT --to-source :53": Source("SNAT --to-source :53", None, 53, kept=True),
        "SNAT --to-source 1.2.3.4:1-6": Choose(
            (
                (number("source_port", 1, 6), Source("SNAT --to-source 1.2.3.4:1-6", A)),
                (ALWAYS, Source("SNAT --to-source 1.2.3.4:1-6")),
            )
        ),
        "MASQUERADE --to-ports 1-6": Choose(
            (
                (number("source_port", 1, 6), Source("MASQUERADE --to-ports 1-6", masquerade=True)),
                (ALWAYS, Source("MASQUERADE --to-ports 1-6")),
            )
        ),
        "SNAT --to-source 1.2.3.4-1.2.3.5:1-6": Source("SNAT --to-source 1.2.3.4-1.2.3.5:1-6"),
    }.items():
        assert foreign_target(["-j", *target.split()]) == (found,)


def test_goto():
    assert foreign_target(["-g", "CHAIN"]) == (Call("CHAIN", goto=True),)


@all_cases(
    "target",
    [
        "QUEUE",
        "NFQUEUE --queue-num 1 --queue-bypass",
        "DNAT",
        "DNAT --to-destination 1.2.3.4-1.2.3.99",
        "DNAT --to-destination 1.2.3.4-1.2.3.5:80-90",
        "DNAT --to-destination 1.2.3.4:80-90 --random",
        "DNAT --to-destination 1.2.3.4:1-2000/3000",
        "DNAT --to-destination 1.2.3.4:80-90/100 --random",
        "DNAT --to-destination 1.2.3.4 --to-destination 1.2.3.5",
        "DNAT --to-destination nonsense",
        "REDIRECT --to-ports 80-90 --random",
        "REDIRECT --to-ports http",
        "NETMAP",
        "TPROXY --tproxy-mark 0x1",
        "MARK --set-mark 1 --set-mark 2",
        "MARK",
        "CONNMARK --restore-mark --nfmask 0xf --ctmask 0xf0 --left-shift-mark 4",
        "CT --zone mark",
        "SET --map-set x src --map-mark",
        "HMARK --hmark-tuple src",
        "CLUSTERIP --new",
        "SYNPROXY --mss 1460",
        "NO-SUCH-TARGET",
        "REDIRECT [unsupported revision]",
        "CT [unsupported revision]",
    ],
)
def test_what_is_not_modelled_is_named(target: str):
    assert foreign_target(["-j", *target.split()]) == (Unknown(target),)


def test_broken_targets_are_not_modelled():
    assert foreign_target(["-j"]) == (Unknown("-j"),)
    assert foreign_target(["-g", "CHAIN", "--more"]) == (Unknown("CHAIN --more"),)


# --- the two ways of reading --------------------------------------------------------------------------------

_PORT = st.integers(1, 65535)
_MARK = st.integers(0, FULL) | st.integers(0, 3)
_TYPED = st.one_of(
    st.sampled_from([model.ACCEPT, model.DROP, model.RETURN, model.SaveMark(), model.RestoreMark()]),
    st.builds(model.Redirect, _PORT),
    st.builds(model.SetMark, _MARK, _MARK),
    st.builds(model.TProxy, _PORT, _MARK),
    st.builds(model.ConntrackZone, st.integers(0, 65535)),
)


@given(_TYPED)
def test_options_do_what_the_typed_target_does(target: model.Target):
    """What this tool writes is read as options of iptables, and does the same."""
    assert foreign_target(rule_args(Rule((), target))) == iptables.action(target)


# --- what the walk makes of it ----------------------------------------------------------------------------


class _Surroundings(Surroundings):
    """REDIRECT takes the address 10.0.0.9."""

    def redirect_addresses(self, packets: Packet | None) -> Iterator[tuple[Packet | None, int | None]]:
        """Return the address for all packets."""
        yield packets, 0x0A000009


def through(target: str, hook: HookName = "output", **fields: Any) -> Packet:
    """The packet after a chain with one rule."""
    rule = ProgramRule(1, target, foreign_target(["-j", *target.split()]))
    name = hook.upper()
    is_nat = target.split()[0] in ("DNAT", "REDIRECT", "NETMAP", "SNAT")
    base = (
        Base(name, hook, -100, "nat")
        if is_nat
        else Base(name, hook, -300 if target.startswith("CT") else -150)
    )
    table = Table("iptables", "a table", "nat", frozenset({"ipv4"}), (base,), {name: (rule,)})
    walk: Walk[Packet | None] = Walk(Program((table,)), "ipv4", One(), _Surroundings())
    found = walk.hook(hook, packet(**fields))
    assert found is not None
    return found


def test_a_port_in_the_range_is_kept_and_another_becomes_the_first():
    for port, becomes in ((80, 80), (85, 85), (90, 90), (79, 80), (91, 80)):
        found = through("REDIRECT --to-ports 80-90", destination_port=port)
        assert (found.destination, found.destination_port, found.redirected) == (0x7F000001, becomes, becomes)
        found = through("DNAT --to-destination 1.2.3.4:80-90", destination_port=port)
        assert (found.destination, found.destination_port) == (A, becomes)


def test_ports_may_be_shifted_one_by_one():
    target = "DNAT --to-destination 1.2.3.4:53-55/5300"
    for port, becomes in ((5300, 53), (5302, 55)):
        found = through(target, destination_port=port)
        assert (found.destination, found.destination_port) == (A, becomes)
    found = through("DNAT --to-destination 1.2.3.4:7000-9000/7000", destination_port=8000)
    assert (found.destination, found.destination_port) == (A, 8000)
    [choose] = foreign_target(["-j", *target.split()])
    assert isinstance(choose, Choose)
    assert choose.branches[-1] == (ALWAYS, Unknown(target))


def test_redirect_without_a_port_keeps_it():
    found = through("REDIRECT", "prerouting", destination_port=77)
    assert (found.destination, found.destination_port, found.redirected) == (0x0A000009, 77, 77)


def test_a_block_of_addresses_becomes_another():
    found = through("NETMAP --to 1.2.3.0/24", "prerouting")
    assert (found.destination, found.translated) == (0x01020302, True)
    found = through("NETMAP --to 1.2.3.0/24", "postrouting")
    assert (found.destination, found.translated, found.source_translated) == (0x0A000002, False, True)


def test_a_packet_without_a_connection_keeps_its_mark():
    restore = "CONNMARK --restore-mark"
    assert through(restore, mark=1, connection_mark=2).mark == 2
    for state in ("INVALID", "UNTRACKED"):
        assert through(restore, mark=1, connection_mark=2, state=state).mark == 1
        assert through("CONNMARK --set-xmark 0x5/0xf", state=state).connection_mark == 0


def test_the_first_decision_about_tracking_counts():
    assert through("CT --zone 5", tracked=False).zone == 5
    assert through("CT --zone 5", tracked=False, zoned=True, zone=3).zone == 3
    assert through("CT --zone 5", state="UNTRACKED").zone == 0
    assert through("CT --notrack", tracked=False).state == "UNTRACKED"
    assert through("CT --notrack", tracked=False, zoned=True).state == "NEW"
