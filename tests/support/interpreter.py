"""Packets that may make a difference to rules, and what becomes of one at a hook with some tables.

What a match or a target means is said by the product's interpreter alone. It shares nothing with the
translation and the joining of lists, which are judged with it here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from istio_iptables.formats.iptables_args import rule_args
from istio_iptables.interpreter import iptables, nft_rules
from istio_iptables.interpreter.algebra import One
from istio_iptables.interpreter.known import NOTHING_KNOWN
from istio_iptables.interpreter.packet import SCTP, TCP, UDP, Packet
from istio_iptables.interpreter.program import Program
from istio_iptables.interpreter.surroundings import Surroundings
from istio_iptables.interpreter.walk import Walk
from istio_iptables.rules import model
from istio_iptables.rules.model import NO_ID, Ruleset
from istio_iptables.rules.nftables.model import NativeTable

if TYPE_CHECKING:
    from istio_iptables.interpreter import program
    from istio_iptables.interpreter.program import HookName
    from istio_iptables.rules.model import Family

#: How the way of a packet ends at a hook, None if it goes on, and the packet then.
Outcome = tuple[str | None, Packet]


def of_iptables(table: model.Table) -> program.Table:
    """Return a table of iptables as a program has it."""
    return iptables.compiled(table, "legacy", lambda rule, _: " ".join(rule_args(rule)), NOTHING_KNOWN)


def of_native(table: NativeTable | None) -> list[program.Table]:
    """Return a native table as a program has it, nothing if there is none."""
    return [nft_rules.compiled(table)] if table else []


if TYPE_CHECKING:
    Nothing = Surroundings[Packet | None]
else:
    Nothing = Surroundings


class _OneAddress(Nothing):
    """A namespace all of whose interfaces have one address, to which REDIRECT sends what comes in."""

    def redirect_addresses(self, packets: Packet | None) -> Iterable[tuple[Packet | None, int | None]]:
        return ((packets, 0x0A000001),)


def walked(tables: Iterable[program.Table], packet: Packet, algebra: One) -> Outcome:
    """Return what becomes of a packet at prerouting if it has come in, else at output."""
    hook: HookName = "prerouting" if packet.received_on else "output"
    program = Program(tuple(tables))
    walk: Walk[Packet | None] = Walk(program, packet.family, algebra, _OneAddress())
    after = walk.hook(hook, packet)
    if not walk.ended:
        assert after is not None
        return None, after
    assert after is None
    [ended] = walk.ended
    return ended.how, ended.packets


def outcome(tables: Iterable[program.Table], packet: Packet) -> Outcome:
    """Return the same where nothing may depend on what is not known."""
    algebra = One()
    how, after = walked(tables, packet, algebra)
    assert not algebra.questions, f"it depends on {algebra.questions[0].about}"
    return how, after.replace(mark_before=0)  # which is noted wherever there is a chain of type route


def in_iptables(table: model.Table, packet: Packet) -> Outcome:
    """What happens to a packet in a table of iptables."""
    return outcome([of_iptables(table)], packet)


def in_nftables(table: NativeTable | None, packet: Packet) -> Outcome:
    """What happens to a packet in a native table, which sees packets of both families."""
    return outcome(of_native(table), packet)


# --- packets that may make a difference -------------------------------------------------------


def _values(ruleset: Ruleset) -> dict[str, set[Any]]:
    """Everything that rules compare with, and for numbers what is next to it."""
    found: dict[str, set[Any]] = {
        "ipv4": {0x0A000001, 0x7F000001},
        "ipv6": {1, 6},
        "port": {53, 80},
        "owner": {0, 1000},
        "mark": {0, 1337, 1338},
        "interface": {"lo", "eth0"},
    }
    for table, _, rule in ruleset.rules():
        for match in rule.matches:
            if isinstance(match, (model.Source, model.Destination)):
                found[table.family] |= _around(match.cidr.address, match.cidr.last)
            elif isinstance(match, (model.SourcePort, model.DestinationPort)):
                found["port"] |= _around(match.ports.first, match.ports.last)
            elif isinstance(match, model.UidOwner):
                found["owner"].add(match.uid)
            elif isinstance(match, model.GidOwner):
                found["owner"].add(match.gid)
            elif isinstance(match, (model.Mark, model.ConnectionMark)):
                found["mark"].add(match.value)
            elif isinstance(match, (model.InInterface, model.OutInterface)):
                found["interface"] |= {match.name.removesuffix("+") or "eth9", match.name.replace("+", "x")}
    return found


def _around(first: int, last: int) -> set[int]:
    return {first, last, max(first - 1, 0), last + 1, (first + last) // 2}


@st.composite
def packets(draw: DrawFn, ruleset: Ruleset, families: Sequence[Family] = ("ipv4", "ipv6")) -> Packet:
    """Packets made of what the rules compare with, each as it comes to prerouting or to output."""
    values = {name: sorted(found) for name, found in _values(ruleset).items()}
    family = draw(st.sampled_from(families))
    top = 2**32 if family == "ipv4" else 2**128
    addresses = st.sampled_from([number for number in values[family] if number < top])
    ports = st.sampled_from([number for number in values["port"] if number < 2**16])
    owners: SearchStrategy[int] = st.sampled_from(values["owner"])
    has_socket = draw(st.booleans())
    interface = draw(st.sampled_from(values["interface"]))
    incoming = draw(st.booleans())
    state = draw(st.sampled_from(["NEW", "ESTABLISHED", "RELATED", "INVALID"]))
    return Packet(
        family,
        draw(st.sampled_from([TCP, TCP, TCP, UDP, SCTP])),
        draw(addresses),
        draw(addresses),
        draw(ports),
        draw(ports),
        received_on=interface if incoming else "",
        sent_to="" if incoming else interface,
        uid=draw(owners) if has_socket else NO_ID,
        gid=draw(owners) if has_socket else NO_ID,
        mark=draw(st.sampled_from(values["mark"])),
        # Without a conntrack entry there is no mark of a connection.
        connection_mark=0 if state == "INVALID" else draw(st.sampled_from(values["mark"])),
        state=state,
        first=state in ("NEW", "RELATED"),
        listening=draw(st.booleans()),
    )
