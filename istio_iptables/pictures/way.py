"""way: what of a picture packets meet: the answers of a trace, to be lit up."""

from __future__ import annotations

from ..rules.istio import DNS_AGENT_PORT
from ..trace.steps import ChainStep, RuleStep
from .model import Way

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..interpreter.verdict import Proxy
    from ..trace.answer import Answer, Path
    from .model import Chain, Hook, Picture, Row, Stage


def way(picture: Picture, answers: Sequence[Answer], proxy: Proxy, *, title: str, conclusion: str) -> Way:
    """Return the way of a connection, of one hop or of all hops that a trace has followed.

    If it depends on what is not modelled, all ways that it may take are lit up.
    """
    lighting = _Lighting(picture, proxy)
    for answer in answers:
        lighting.hop(answer)
    return lighting.way(title, conclusion)


class _Lighting:
    """Collects what packets meet."""

    def __init__(self, picture: Picture, proxy: Proxy) -> None:
        self._proxy = proxy
        self._chains: dict[tuple[str, str, str], tuple[Hook, Stage, Chain]] = {
            (hook.name, table, chain.name): (hook, stage, chain)
            for hook, stage, chain in picture.chains()
            for table in stage.tables
        }
        self._edges = {(edge.source, edge.target) for edge in picture.edges}
        self._following = {
            stage.id: following
            for hook in picture.hooks
            for stage, following in zip(
                hook.stages, [*(stage.id for stage in hook.stages[1:]), hook.id], strict=True
            )
        }
        self._names = {node.id for node in picture.nodes} | set(picture.ports())
        self._owners = {port.id: node.id for node in picture.nodes for port in node.ports}
        self._hooks = {hook.id for hook in picture.hooks}
        self._lit: set[str] = set()
        self._lit_edges: set[tuple[str, str]] = set()
        self._order: list[str] = []
        self._sender = ""
        self._port = ""  #: the last one that a rule of this hop has led to

    def way(self, title: str, conclusion: str) -> Way:
        """Return what was collected."""
        order = tuple(dict.fromkeys(self._order))
        return Way(title, frozenset(self._lit), frozenset(self._lit_edges), order, conclusion)

    def hop(self, answer: Answer) -> None:
        """Add a hop."""
        first = "output" if answer.asked.direction == "out" else "prerouting"
        sender = "callers"
        if first == "output":
            of_proxy = self._proxy.sends(answer.asked.packet)
            sender = self._sender or ("proxy" if of_proxy else "app")
        self._light(sender, order=True)
        self._edge(sender, first)
        for path in answer.paths:
            self._path(path, first)
        verdict = answer.verdict
        of_agent = verdict.code == "redirected" and verdict.to == str(DNS_AGENT_PORT)
        self._sender = "agent" if of_agent else "proxy"

    def _path(self, path: Path, first: str) -> None:
        hook = first
        self._light(hook)
        self._port = ""
        for step in path.steps:
            if isinstance(step, ChainStep):
                self._edge(hook, step.hook)
                hook = step.hook or hook
                self._light(hook)
            if isinstance(step, (ChainStep, RuleStep)):
                found = self._chains.get((hook, step.table, step.chain))
                if found:
                    _, stage, chain = found
                    self._light(stage.id, chain.id)
                    if isinstance(step, RuleStep):
                        self._rule(step, stage, chain)
        self._end(path, first)

    def _rule(self, step: RuleStep, stage: Stage, chain: Chain) -> None:
        row = _row_of(chain, step)
        if row is None:
            return
        self._light(row.id, order=True)
        for target in row.leads_to:
            if target in self._names:
                self._light(target, self._owners[target])
                self._port = target
            self._edge(row.id, target)
        self._edge(row.id, self._following[stage.id])

    def _end(self, path: Path, first: str) -> None:
        """Add where the packet arrives."""
        code = path.verdict.code
        to = path.verdict.to
        port = (
            f"p{to}" if f"p{to}" in self._names else self._port
        )  # nat may redirect what TPROXY has handed over
        if code in ("redirected", "tproxied", "loops") and port:
            self._light(port, order=True)
        if code not in ("direct", "translated"):
            return
        delivered = path.end.startswith("delivered")
        if delivered:
            if first == "output":
                self._edge("output", "prerouting")
            last = "input" if "input" in self._hooks else "prerouting"
            self._edge("prerouting", "input")
            self._edge(last, "served")
            self._light("prerouting", last)
            self._light("served", order=True)
        elif path.end.startswith("sent"):
            last = "postrouting" if "postrouting" in self._hooks else "output"
            self._edge("output", "postrouting")
            self._edge(last if first == "output" else "forward", "outside")
            self._light("outside", order=True)

    def _light(self, *names: str, order: bool = False) -> None:
        self._lit.update(names)
        if order:
            self._order += names

    def _edge(self, source: str, target: str) -> None:
        if (source, target) in self._edges:
            self._lit_edges.add((source, target))


def _row_of(chain: Chain, step: RuleStep) -> Row | None:
    for row in chain.rows:
        if any(span.holds(step.table, step.number) for span in row.spans):
            return row
    return None
