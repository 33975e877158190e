"""graph: a picture as nodes within groups and edges between nodes, for writers whose programs lay it out."""

from __future__ import annotations

from itertools import pairwise

from ..startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Literal, TypeAlias

    from .model import Chain, Hook, Picture, Row

    LinkKind: TypeAlias = Literal["send", "call", "redirect", "tproxy", "direct", "else"]


class Box(Record):
    """A node: its id, its lines of text, and a kind: that of a row, of a node, `port` or `step`."""

    id: str
    lines: tuple[str, ...]
    kind: str
    role: str = ""


class Group(Record):
    """A frame around nodes and other frames."""

    id: str
    title: str
    kind: str
    parts: tuple[Group | Box, ...]


class Link(Record):
    """An edge between two nodes; `edge` is that of the picture, if it has it."""

    source: str
    target: str
    kind: LinkKind
    label: str = ""
    role: str = ""
    edge: tuple[str, str] | None = None


def parts(picture: Picture) -> Iterator[Group | Box]:
    """Yield what stands at the top: hooks, those who send and receive, and the proxy around its ports."""
    for node in picture.nodes:
        if node.ports:
            ports = tuple(
                Box(port.id, (f"port {port.number}, {port.title}", port.does), "port", port.role)
                for port in node.ports
            )
            yield Group(node.id, " ".join((node.title, *node.lines)), node.kind, ports)
        else:
            yield Box(node.id, (node.title, *node.lines), node.kind)
    for hook in picture.hooks:
        yield _hook(hook, picture)


def _hook(hook: Hook, picture: Picture) -> Group:
    roles = picture.roles()
    stages: list[Group | Box] = []
    for stage in hook.stages:
        title = stage.title if stage.priority is None else f"{stage.title}, priority {stage.priority}"
        if not stage.chains:
            stages.append(Box(stage.id, (title, stage.note), "step"))
            continue
        chains = tuple(
            Group(chain.id, _title(chain), "chain", tuple(_row(row, roles) for row in chain.rows))
            for chain in stage.chains
            if chain.rows
        )
        stages.append(Group(stage.id, title, "stage", chains))
    return Group(hook.id, f"{hook.name.upper()}: {hook.title}", "hook", tuple(stages))


def _title(chain: Chain) -> str:
    return f"{chain.name} (no rule decides: {chain.otherwise})" if chain.otherwise else chain.name


def _row(row: Row, roles: Mapping[str, str]) -> Box:
    then = row.then if row.leads_to or row.kind == "drop" else f"→ {row.then}"
    lines = (f"{row.number}: {row.reason}" if row.reason else row.number, row.condition(), then)
    return Box(row.id, lines, row.kind, roles.get(row.id, ""))


def links(picture: Picture) -> Iterator[Link]:
    """Yield the edges between nodes: an edge to a hook, table or chain leads to the first node in it."""
    first, last = _ends(picture)
    roles: Mapping[str, str] = picture.roles()
    ports = picture.ports()
    rows = {row.id for *_, row in picture.rows()}
    hooks = {hook.id for hook in picture.hooks}
    for edge in picture.edges:
        if edge.source in rows and edge.target in hooks:
            continue  # to the end of the hook, after its last rule
        role: str = ports[edge.target].role if edge.target in ports else ""
        if edge.kind == "call":
            role = roles.get(edge.target, "")
        source, target = last.get(edge.source, edge.source), first.get(edge.target, edge.target)
        yield Link(source, target, edge.kind, edge.label, role, (edge.source, edge.target))
    for hook in picture.hooks:
        for before, after in pairwise(hook.stages):
            yield Link(last[before.id], first[after.id], "direct", edge=(before.id, after.id))
    for _, _, chain in picture.chains():
        for row, following in pairwise(chain.rows):
            if row.kind in ("mark", "pass", "unknown"):
                yield Link(row.id, following.id, "else")
            elif row.when or row.only:
                yield Link(row.id, following.id, "else", "else")


def _ends(picture: Picture) -> tuple[dict[str, str], dict[str, str]]:
    """Return the first and the last node in each hook, stage, chain and group of ports."""
    first: dict[str, str] = {}
    last: dict[str, str] = {}
    for hook in picture.hooks:
        for stage in hook.stages:
            rows = [row for chain in stage.chains for row in chain.rows]
            first[stage.id] = rows[0].id if rows else stage.id
            own = [row for chain in stage.chains if chain.is_base for row in chain.rows]
            last[stage.id] = own[-1].id if own else stage.id
            first.update({chain.id: chain.rows[0].id for chain in stage.chains if chain.rows})
        first[hook.id] = first[hook.stages[0].id]
        last[hook.id] = last[hook.stages[-1].id]
    for node in picture.nodes:
        if node.ports:
            first[node.id] = last[node.id] = node.ports[0].id
    return first, last
