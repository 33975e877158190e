"""model: what is in a picture. Writers turn it into mermaid, dot, SVG or HTML; how it looks is theirs.

The way of packets goes through two hooks of the kernel, output (what processes send) and prerouting (what
comes in), and on through others if these have rules. A hook has stages in the kernel's order: tables, and
what the kernel itself does. A table has chains, and a chain rows: rules in words, a list of members in one.
"""

from __future__ import annotations

from ..startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Literal, TypeAlias

    from ..interpreter.program import HookName
    from ..rules.model import Counters
    from .words import Clause

    #: What a row does with a packet.
    Kind: TypeAlias = Literal[
        "redirect",
        "tproxy",
        "call",
        "return",
        "accept",
        "drop",
        "mark",
        "translate",
        "choose",
        "pass",
        "unknown",
    ]
    #: What an edge is: where something is sent from, from a rule to a chain or port, or on as it is.
    EdgeKind: TypeAlias = Literal["send", "call", "redirect", "tproxy", "direct"]
    #: What comes to a port: outbound or inbound connections, tunnels that are never redirected, DNS.
    Role: TypeAlias = Literal["out", "in", "tunnel", "dns", "other"]
    NodeKind: TypeAlias = Literal["application", "network", "proxy", "agent", "process"]


class Span(Record):
    """Rules of a table that a row stands for, by their numbers: first, last, and the step between them."""

    table: str
    first: int
    last: int
    step: int = 1

    def holds(self, table: str, number: int) -> bool:
        """Tell whether a rule is among them."""
        return (
            table == self.table
            and self.first <= number <= self.last
            and (number - self.first) % self.step == 0
        )


class Row(Record):
    """A rule, or the rules for all members of a list.

    `when` has to hold, `then` is what happens, `leads_to` the ids of the chains and ports it leads to.
    `only` names the family if the chain has two and this is for one. `counters` is None if they are unknown.
    """

    id: str
    spans: tuple[Span, ...]
    when: tuple[Clause, ...]
    kind: Kind
    then: str
    reason: str
    leads_to: tuple[str, ...] = ()
    only: str = ""
    texts: tuple[str, ...] = ()
    counters: Counters | None = None

    @property
    def number(self) -> str:
        """The numbers of its rules: `3`, `2-4` or `1, 3 … 7`."""
        span = self.spans[0]
        if span.first == span.last:
            return str(span.first)
        if span.step == 1:
            return f"{span.first}-{span.last}"
        second = span.first + span.step
        return f"{span.first}, {second}" if second == span.last else f"{span.first}, {second} … {span.last}"

    @property
    def count(self) -> int:
        """How many rules it stands for, in the family that has most."""
        return max((span.last - span.first) // span.step + 1 for span in self.spans)

    def condition(self) -> str:
        """Return in words what has to hold."""
        words = ", ".join(clause.text() for clause in self.when) or "everything"
        return f"{self.only} only: {words}" if self.only else words


class Chain(Record):
    """A chain. A base chain is called by its hook, others by rows.

    `otherwise` says what happens to packets that none of its rules decides about, empty if there are none.
    """

    id: str
    name: str
    rows: tuple[Row, ...]
    is_base: bool = False
    otherwise: str = ""


class Stage(Record):
    """A step of a hook: a table with the chains that packets meet there, or what the kernel itself does.

    `tables` are the titles that the interpreter knows the table by, one for each family.
    """

    id: str
    title: str
    priority: int | None = None
    note: str = ""
    tables: tuple[str, ...] = ()
    chains: tuple[Chain, ...] = ()


class Hook(Record):
    """A hook of the kernel, and its stages in order."""

    name: HookName
    title: str
    stages: tuple[Stage, ...]

    @property
    def id(self) -> str:
        """The id of the hook, and the beginning of that of its end."""
        return self.name


class Port(Record):
    """A port that a process listens on; `role` says what comes there, `does` what happens with it."""

    id: str
    number: int
    title: str
    role: Role = "other"
    does: str = ""


class Node(Record):
    """Who sends or receives: the application, the proxy, or hosts outside of the pod."""

    id: str
    kind: NodeKind
    title: str
    lines: tuple[str, ...] = ()
    ports: tuple[Port, ...] = ()


class Edge(Record):
    """From the id of a node, row or hook to that of another."""

    source: str
    target: str
    kind: EdgeKind
    label: str = ""


class Outcome(Record):
    """What becomes of a connection, in words; `leads_to` is the id of the port that it comes to."""

    title: str
    becomes: str
    leads_to: str = ""


class Picture(Record):
    """All of a picture. `out` are the hooks of what is sent, `into` those of what comes in.

    `facts` are names and values to show beside it, `notes` sentences about what it does not show, `outcomes`
    those of some connections.
    """

    title: str
    out: tuple[Hook, ...]
    into: tuple[Hook, ...]
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    facts: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    outcomes: tuple[Outcome, ...] = ()

    @property
    def hooks(self) -> tuple[Hook, ...]:
        """All hooks."""
        return self.out + self.into

    def node(self, name: str) -> Node:
        """Return the node of an id."""
        return next(node for node in self.nodes if node.id == name)

    def ports(self) -> dict[str, Port]:
        """Return all ports by id."""
        return {port.id: port for node in self.nodes for port in node.ports}

    def roles(self) -> dict[str, Role]:
        """Return the role of the port that rows and chains lead to, by their ids, if it is one alone."""
        leads_to = {row.id: row.leads_to for *_, row in self.rows()}
        leads_to |= {chain.id: tuple(row.id for row in chain.rows) for _, _, chain in self.chains()}
        ports = self.ports()
        found: dict[str, Role] = {}
        for start in leads_to:
            seen, waiting = {start}, [start]
            while waiting:
                fresh = [each for each in leads_to.get(waiting.pop(), ()) if each not in seen]
                seen.update(fresh)
                waiting += fresh
            reached = {ports[each].role for each in seen if each in ports}
            if len(reached) == 1:
                found[start] = reached.pop()
        return found

    def chains(self) -> Iterator[tuple[Hook, Stage, Chain]]:
        """Yield every chain with its hook and table. A chain that two hooks lead to comes twice."""
        for hook in self.hooks:
            for stage in hook.stages:
                for chain in stage.chains:
                    yield hook, stage, chain

    def rows(self) -> Iterator[tuple[Hook, Stage, Chain, Row]]:
        """Yield every row."""
        for hook, stage, chain in self.chains():
            for row in chain.rows:
                yield hook, stage, chain, row


class Way(Record):
    """What packets meet in a picture, to be lit up: ids of rows, chains, nodes, ports and edges.

    `order` has the rows, ports and nodes that decide, in the order in which they are met.
    """

    title: str
    ids: frozenset[str]
    edges: frozenset[tuple[str, str]]
    order: tuple[str, ...]
    conclusion: str
