"""make: the picture of a network namespace: its program, told in words, with those who send and receive."""

from __future__ import annotations

from itertools import pairwise

from ..interpreter.program import CONNTRACK_PRIORITY
from ..interpreter.routing import default_rules
from ..rules.istio import DNS_AGENT_PORT
from ..rules.model import FAMILIES, IPV4
from ..startup.record import Record
from .fold import both_families, rows
from .model import Chain, Edge, Hook, Node, Picture, Port, Stage
from .words import called

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ..interpreter.program import Base, HookName, Program, Table
    from ..interpreter.surroundings import World
    from ..interpreter.verdict import Proxy
    from ..rules.model import Family
    from .model import EdgeKind, Role, Row

_NAMES = {"ipv4": "IPv4", "ipv6": "IPv6"}
_TITLES: Mapping[HookName, str] = {
    "output": "what a process of this pod sends",
    "postrouting": "what leaves",
    "prerouting": "what comes in, by an interface or by lo",
    "input": "what is for this pod",
    "forward": "what is for another machine",
}
#: The hooks that are shown without rules too: the way of a packet begins there.
_ALWAYS = ("output", "prerouting")
_NAT_NOTE = "asked for the first packet of a connection"
_ROUTING: Mapping[HookName, tuple[str, str]] = {
    "output": ("routing, again", "if a rule has changed the destination or the mark"),
    "prerouting": ("routing", "to this pod, or on"),
}


def picture(
    world: World,
    proxy: Proxy,
    families: Sequence[Family] = FAMILIES,
    *,
    title: str = "",
    facts: Iterable[tuple[str, str]] = (),
    notes: Iterable[str] = (),
    counted: bool = False,
) -> Picture:
    """Return the picture of a namespace.

    `families` are those to show. `counted`: the rules are live ones, whose counters are of interest.
    """
    making = _Making(world.program, families, counted)
    out = tuple(making.hooks(("output", "postrouting")))
    into = tuple(making.hooks(("prerouting", "input", "forward")))
    routes = _routes(world, families)
    if routes:
        into = (_with_routes(into[0], routes), *into[1:])
    nodes = tuple(_nodes(proxy, making.ports))
    edges = (*_sends(nodes), *_between(out, into), *_of_rows((*out, *into)))
    return Picture(title, out, into, nodes, edges, tuple(facts), tuple(notes))


class _Group(Record):
    """The same table of one family or both, where a hook calls it."""

    position: int
    priority: int
    location: str
    name: str
    kind: str
    tables: tuple[tuple[Family, Table, Base], ...]


class _Making:
    """Makes hooks, and gives ids to what is in them."""

    def __init__(self, program: Program, families: Sequence[Family], counted: bool) -> None:
        self._program = program
        self._families = families
        self._counted = counted
        self._chains = 0
        self._stages = 0
        self.ports: dict[int, bool] = {}  #: those that rules hand packets to

    def hooks(self, names: Iterable[HookName]) -> Iterator[Hook]:
        """Yield the hooks that have rules, or that every picture has."""
        for name in names:
            groups = self._groups(name)
            if groups or name in _ALWAYS:
                yield Hook(name, _TITLES[name], tuple(self._stages_of(name, groups)))

    def _groups(self, hook: HookName) -> list[_Group]:
        found: dict[tuple[int, int, str, str, int], _Group] = {}
        for family in self._families:
            for table, base in self._program.bases(hook, family):
                if not table.rules(base.chain) and not base.drops:
                    continue
                of_one = len(table.families)  # nftables: `table ip nat` is not `table inet nat`
                key = (base.position, base.priority, table.location, table.name, of_one)
                group = found.setdefault(key, _Group(*key[:4], base.kind, ()))
                found[key] = group.replace(tables=(*group.tables, (family, table, base)))
        return sorted(found.values(), key=lambda group: (group.position, group.priority))

    def _stages_of(self, hook: HookName, groups: Sequence[_Group]) -> Iterator[Stage]:
        tracks = hook in _ALWAYS
        for group in groups:
            if tracks and group.position > CONNTRACK_PRIORITY:
                yield self._conntrack()
                tracks = False
            yield self._stage(group)
        if tracks:
            yield self._conntrack()
        if hook in _ROUTING:
            title, note = _ROUTING[hook]
            yield Stage(self._stage_id(), title, note=note)

    def _conntrack(self) -> Stage:
        return Stage(self._stage_id(), "conntrack", CONNTRACK_PRIORITY, "finds the packet's connection")

    def _stage_id(self) -> str:
        self._stages += 1
        return f"s{self._stages}"

    def _stage(self, group: _Group) -> Stage:
        families = [family for family, _, _ in group.tables]
        title = f"{group.name} ({group.location})"
        if len(self._families) > 1 and len(families) == 1:
            title += f", {_NAMES[families[0]]} only"
        note = _NAT_NOTE if group.kind == "nat" else ""
        titles = tuple(dict.fromkeys(table.title for _, table, _ in group.tables))
        chains = tuple(self._chains_of(group))
        return Stage(self._stage_id(), title, group.priority, note, titles, chains)

    def _chains_of(self, group: _Group) -> Iterator[Chain]:
        names: dict[str, bool] = {}
        for _, table, base in group.tables:
            for name in _reached(table, base.chain):
                names[name] = name == base.chain
        drafts = {name: self._rows(group, name) for name in names}
        drops = any(base.drops for _, _, base in group.tables)
        bases = {name for name, is_base in names.items() if is_base}
        ids = {}
        for name in names:
            self._chains += 1
            ids[name] = f"c{self._chains}"
        ends = _Ends(drafts, bases, drops)
        for name, found in drafts.items():
            finished = tuple(self._finished(row, at, name, ids, ends) for at, row in enumerate(found, 1))
            yield Chain(ids[name], name, finished, name in bases, ends.otherwise(name))

    def _rows(self, group: _Group, chain: str) -> list[Row]:
        tables = list({table.title: (family, table) for family, table, _ in group.tables}.values())
        found = [(f, rows(t, chain, counted=self._counted)) for f, t in tables]
        if len(found) == 1:
            return found[0][1]
        by_family = dict(found)
        return both_families(by_family["ipv4"], by_family["ipv6"])

    def _finished(self, row: Row, at: int, chain: str, ids: Mapping[str, str], ends: _Ends) -> Row:
        leads_to = []
        for target in row.leads_to:
            kind, _, name = target.partition(" ")
            if kind == "port":
                self.ports[int(name)] = True
                leads_to.append(f"p{name}")
            elif name in ids:
                leads_to.append(ids[name])
        then = ends.back(chain) if row.kind == "return" else row.then
        kind = "drop" if then == "dropped" else row.kind
        return row.replace(id=f"{ids[chain]}r{at}", leads_to=tuple(leads_to), then=then, kind=kind)


def _reached(table: Table, base: str) -> Iterator[str]:
    """Yield the names of a base chain and of those that its rules lead to, each once, callers first."""
    seen, waiting = {base}, [base]
    while waiting:
        name = waiting.pop(0)
        yield name
        found = [t for rule in table.rules(name) for t in called(rule.statements)]
        fresh = [target for target in dict.fromkeys(found) if target not in seen]
        seen.update(fresh)
        waiting = fresh + waiting


class _Ends:
    """Where packets go on that leave a chain at its end or by a return."""

    def __init__(self, chains: Mapping[str, Sequence[Row]], bases: set[str], drops: bool) -> None:
        self._chains = chains
        self._bases = bases
        self._drops = drops
        self._callers: dict[str, dict[str, bool]] = {}
        self._calls: dict[str, list[Row]] = {}
        for name, found in chains.items():
            for at, row in enumerate(found):
                for target in row.leads_to:
                    if target.startswith("chain "):
                        chain = target.removeprefix("chain ")
                        callers = self._callers.setdefault(chain, {})
                        callers[name] = callers.get(name, True) and at == len(found) - 1
                        self._calls.setdefault(chain, []).append(row)

    def back(self, chain: str) -> str:
        """Return in words where a return leads from a chain."""
        if self._is_last(chain, frozenset()):
            return "dropped" if self._drops else "as it is"
        callers = [name for name in self._callers.get(chain, ()) if name != chain]
        return f"back to {callers[0]}" if len(callers) == 1 else "back"

    def _is_last(self, chain: str, seen: frozenset[str]) -> bool:
        """Tell whether nothing of the table comes after a chain."""
        if chain in self._bases:
            return True
        callers = self._callers.get(chain, {})
        return chain not in seen and all(
            last and self._is_last(caller, seen | {chain}) for caller, last in callers.items()
        )

    def otherwise(self, chain: str) -> str:
        """Return what happens to packets that no rule of a chain decides about, nothing if there are none."""
        found = self._chains[chain]
        last = found[-1] if found else None
        if last and not last.only and last.kind not in ("mark", "pass", "unknown"):
            calls = self._calls.get(chain, ())
            if not last.when or (calls and all(set(last.when) <= set(call.when) for call in calls)):
                return ""
        return self.back(chain)


# --- who sends and receives -------------------------------------------------------------------


def _nodes(proxy: Proxy, ports: Iterable[int]) -> Iterator[Node]:
    users = ", ".join(f"UID {uid}" for uid in proxy.uids)
    groups = ", ".join(f"GID {gid}" for gid in proxy.gids)
    yield Node("app", "application", "Application", ("calls a service", "as another user than the proxy"))
    yield Node("callers", "network", "Network", ("a client calls this pod",))
    own: dict[int, Port] = {}
    for port in _listeners(proxy):
        own.setdefault(port.number, port)
    yield Node("proxy", "proxy", "Envoy", (users, groups), tuple(own.values()))
    others = sorted(set(ports) - set(own))
    if DNS_AGENT_PORT in others:
        agent = _port(DNS_AGENT_PORT, "DNS", "dns", "answers for the mesh, asks the server for the rest")
        yield Node("agent", "agent", "Istio agent", (users,), (agent,))
        others.remove(DNS_AGENT_PORT)
    if others:
        listening = tuple(Port(f"p{number}", number, "not known whose") for number in others)
        yield Node("others", "process", "Other processes", (), listening)
    yield Node("outside", "network", "Network", ("services outside of this pod",))
    yield Node("served", "application", "Application", ("is called at an address of this pod",))


def _listeners(proxy: Proxy) -> tuple[Port, ...]:
    """Return the ports of Envoy, and what it does with what comes there (as trace/follow.py has it)."""
    to_application = (
        f"calls the application from the caller's address, mark {proxy.mark:#x}"
        if proxy.tproxy
        else "calls the application over lo, from 127.0.0.6 or ::6"
    )
    return (
        _port(proxy.outbound_port, "outbound", "out", "finds the service, and sends it on as its own user"),
        _port(proxy.inbound_port, "inbound", "in", to_application),
        _port(proxy.tunnel_port, "tunnels", "tunnel", "HBONE: never redirected"),
    )


def _port(number: int, title: str, role: Role, does: str) -> Port:
    return Port(f"p{number}", number, title, role, does)


def _sends(nodes: Iterable[Node]) -> Iterator[Edge]:
    for node in nodes:
        if node.id == "callers":
            yield Edge("callers", "prerouting", "send", "calls")
        elif node.kind in ("proxy", "agent") or node.id == "app":
            yield Edge(node.id, "output", "send", "sends")


def _between(out: Sequence[Hook], into: Sequence[Hook]) -> Iterator[Edge]:
    """Yield the edges of packets that are left as they are, from hook to hook."""
    for before, after in pairwise(out):
        yield Edge(before.id, after.id, "direct")
    yield Edge(out[-1].id, "outside", "direct", "by an interface")
    yield Edge(out[-1].id, "prerouting", "direct", "by lo, if it is for this pod")
    receiving = next((hook for hook in into if hook.name == "input"), None)
    if receiving:
        yield Edge("prerouting", "input", "direct")
    yield Edge("input" if receiving else "prerouting", "served", "direct", "for this pod")
    if any(hook.name == "forward" for hook in into):
        yield Edge("prerouting", "forward", "direct", "for another machine")
        passes = any(hook.name == "postrouting" for hook in out)
        yield Edge("forward", "outside", "direct", "after POSTROUTING" if passes else "")


def _of_rows(hooks: Iterable[Hook]) -> Iterator[Edge]:
    for hook in hooks:
        for at, stage in enumerate(hook.stages):
            for chain in stage.chains:
                for row in chain.rows:
                    yield from _of_row(row, hook.stages[at + 1].id if at + 1 < len(hook.stages) else hook.id)


def _of_row(row: Row, following: str) -> Iterator[Edge]:
    for target in row.leads_to:
        kind: EdgeKind = "tproxy" if row.kind == "tproxy" else "redirect"
        yield Edge(row.id, target, kind if target.startswith("p") else "call")
    if row.kind == "accept" or (row.kind == "return" and row.then == "as it is"):
        yield Edge(row.id, following, "direct")


# --- routes -----------------------------------------------------------------------------------


def _routes(world: World, families: Sequence[Family]) -> tuple[str, ...]:
    """Return the routing rules that a new namespace does not have, as ip-rule(8) prints them."""
    usual = {rule.text for rule in default_rules()}
    found = [rule.text for rule in world.network.rules if rule.family in families and rule.text not in usual]
    return tuple(dict.fromkeys(found))


def _with_routes(hook: Hook, routes: Sequence[str]) -> Hook:
    routing = hook.stages[-1]
    note = f"{routing.note}; {'; '.join(routes)}"
    return hook.replace(stages=(*hook.stages[:-1], routing.replace(note=note)))


def shown(families: Sequence[Family]) -> str:
    """Return families as people write them."""
    return " and ".join(_NAMES[family] for family in sorted(families, key=lambda family: family != IPV4))
