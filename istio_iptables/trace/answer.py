"""answer: the answer to a trace: the packet that was asked about, its ways, the verdict in plain words."""

from __future__ import annotations

from ..interpreter.explore import Fork, Way, explore
from ..interpreter.packet import TCP, UDP, endpoint_text
from ..rules import istio
from ..rules.model import IPV4
from ..startup.record import Record
from .steps import Recorder, RuleStep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..interpreter.explore import Explored
    from ..interpreter.journey import World
    from ..interpreter.packet import Packet
    from ..interpreter.verdict import Proxy, Verdict
    from .packet import Asked
    from .steps import Step


class Path(Record):
    """One way that the packet may take: its steps, where it ends, and what has to be assumed for it.

    `assumed` are pairs: what could not be told (a rule, or the order of chains), and what is taken for it.
    """

    verdict: Verdict
    steps: tuple[Step, ...]
    end: str
    packet: Packet
    assumed: tuple[tuple[str, str], ...] = ()


class Answer(Record):
    """The answer to a trace. `verdict` is `depends` if the paths have different ones."""

    asked: Asked
    verdict: Verdict
    conclusion: str
    paths: tuple[Path, ...]
    cut: bool = False


def answer(world: World, asked: Asked, proxy: Proxy) -> Answer:
    """Follow a packet."""
    explored = explore(world, asked.packet, asked.direction, proxy, Recorder)
    paths = tuple(_paths(explored.found, ()))
    conclusion = _conclusion(explored, paths, asked, proxy)
    family = asked.packet.family
    if not any(family in table.families for table in world.program.tables):
        conclusion += f" There are no rules for {'IPv4' if family == IPV4 else 'IPv6'}."
    elif explored.verdict.code == "direct" and asked.packet.state == "ESTABLISHED":
        conclusion += _LATER
    return Answer(asked, explored.verdict, conclusion, paths, explored.cut)


#: What is said of a later packet that no rule sends elsewhere: nat may have decided about its connection.
_LATER = (
    " nat is not asked about it, since it is not the first packet of its connection: what was decided for "
    "that one goes on (to see it, leave out --ctstate)."
)


def _paths(node: Way | Fork, assumed: tuple[tuple[str, str], ...]) -> list[Path]:
    if isinstance(node, Way):
        end = node.end
        note = f"{end.how}: {end.place}" if end.place else f"{end.how}: {end.note}" if end.note else end.how
        steps = tuple(node.observer.steps) if isinstance(node.observer, Recorder) else ()
        return [Path(node.verdict, steps, note, node.packet, assumed)]
    found: list[Path] = []
    for option, branch in enumerate(node.branches):
        found += _paths(branch, (*assumed, (_about(node), _option(node, option))))
    return found


def _about(fork: Fork) -> str:
    if isinstance(fork.about, tuple):
        return f"the order of {' and '.join(map(str, fork.about))}"
    return str(fork.about)


#: What an action may do that is not modelled; the last in tables of nat alone.
_ACTIONS = ("it goes on", "it accepts", "it drops", "it translates the connection")
#: What the answers to a question mean, by the first word of its key.
_OPTIONS = {"rule": ("it does not match", "it matches"), "action": _ACTIONS}


def _option(fork: Fork, option: int) -> str:
    kind = fork.key[0] if isinstance(fork.key, tuple) else ""
    if kind == "order" and isinstance(fork.about, tuple):
        from itertools import permutations

        order = list(permutations(fork.about))[option]
        return f"first {', then '.join(map(str, order))}"
    return _OPTIONS.get(str(kind), _OPTIONS["rule"])[option]


# --- the conclusion ---------------------------------------------------------------------------


def _conclusion(explored: Explored, paths: tuple[Path, ...], asked: Asked, proxy: Proxy) -> str:
    if explored.verdict.code == "depends":
        if explored.cut:
            return "Too much of it depends on what is not modelled: not all ways were followed."
        about = list(dict.fromkeys(what for path in paths for what, _ in path.assumed))
        if not about:
            return f"Where it goes is {paths[0].end}."
        outcomes = list(dict.fromkeys(str(path.verdict) for path in paths))
        return f"It depends on {' and on '.join(about)}. Outcomes: {', '.join(outcomes)}."
    [path] = paths[:1]
    return _words(path, asked, proxy) + _because(path)


def _words(path: Path, asked: Asked, proxy: Proxy) -> str:
    code, to = path.verdict.code, path.verdict.to
    packet = asked.packet
    sent = _NAMES.get(
        (packet.protocol, packet.destination_port), _NAMES.get((packet.protocol, 0), "The packet")
    )
    wanted = endpoint_text(packet.family, packet.destination, packet.destination_port)
    if code == "redirected":
        return f"{sent} to {wanted} goes to {_port(to, proxy)}."
    if code == "tproxied":
        return f"{sent} goes to {_port(to, proxy)}, which sees {wanted} as its destination."
    if code == "direct" and proxy.sends(packet):
        return f"{sent} {_where(path)} {wanted}: it is the proxy's own, and does not come back to it."
    is_marked = proxy.tproxy and path.packet.mark == proxy.mark
    if code == "direct" and is_marked and packet.state != "NEW" and path.end.startswith("delivered"):
        return f"The packet to {wanted} is delivered here: to the proxy, if it has the connection's socket."
    if code == "direct":
        return f"{sent} {_where(path)} {wanted} and does not go through the proxy."
    if code == "translated":
        if path.packet.redirected:
            port, bound = path.packet.redirected, path.packet.bound
            return (
                f"{sent} to {wanted} does not reach port {port} of the proxy: its socket is bound to {bound}"
                f", so it leaves by {bound}, with the destination {to}."
            )
        return f"{sent} to {wanted} goes to {to}: another rule than the proxy's translates it."
    if code == "loops":
        return f"{sent} to {wanted} is the proxy's own, and goes back to it: it loops."
    return f"{sent} to {wanted} is {code}: it does not arrive."


#: What a packet begins, by its protocol and port: TCP a connection, and UDP to port 53 a query.
_NAMES = {(TCP, 0): "The connection", (UDP, istio.DNS_PORT): "The query"}


def _where(path: Path) -> str:
    return "arrives at" if path.end.startswith("delivered") else "leaves for"


def _port(to: str, proxy: Proxy) -> str:
    names = {
        proxy.outbound_port: "the proxy's port for outbound connections",
        proxy.inbound_port: "the proxy's port for inbound connections",
        istio.DNS_AGENT_PORT: "the agent's port for DNS",
    }
    name = names.get(int(to))
    return f"{to}, {name}" if name else f"the local port {to}"


def _because(path: Path) -> str:
    """Name the reason of the rule that decided. Where it stands alone in a chain, the jump's says more."""
    rules = [step for step in path.steps if isinstance(step, RuleStep)]
    decided = next((step for step in reversed(rules) if _decides(step, path.verdict)), None)
    if decided is None:
        return ""
    jump = next((s for s in reversed(rules) if s.effect == f"goes to {decided.chain}"), None)
    alone = decided.chain in (istio.REDIRECT, istio.IN_REDIRECT, istio.TPROXY, *_NATIVE)
    reason = jump.reason if jump and jump.reason and alone else decided.reason
    return f" Reason: {reason}." if reason else ""


def _decides(step: RuleStep, verdict: Verdict) -> bool:
    """Tell whether a rule did what the verdict says; what is redirected here meets others afterwards."""
    if verdict.code in ("redirected", "translated"):
        return step.effect.startswith("to ") and step.effect.endswith(verdict.to)
    if verdict.code == "tproxied":
        return step.effect.startswith(f"handed to the socket on port {verdict.to},")
    if verdict.code in ("dropped", "rejected"):
        return step.effect == verdict.code
    if verdict.code == "loops":
        return step.effect.startswith("to ")
    return step.effect in ("goes back", "leaves this table")


_NATIVE = tuple(name.lower().replace("_", "-") for name in (istio.REDIRECT, istio.IN_REDIRECT, istio.TPROXY))
