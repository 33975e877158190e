"""verdict: what an observed connection shows, and what the user can do about it."""

from __future__ import annotations

from .model import FAMILIES, LOOPBACK, Probe, Result, endpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..settings.config import Config
    from .model import Listening, Observation, Skipped, Status

    Verdict = tuple[Status, str, str, str]  # status, where, meaning, remedy

_NEITHER = "is neither proven nor refuted"
_SLOW = "give it more time with --probe-timeout"
_DROPPED = (
    "look for rules of other programs that drop it (`nft list ruleset` and `iptables-legacy-save` show all); "
    "on a very slow machine only: give it more time with --probe-timeout"
)
_INTERFERING = (
    "the rules are in place: look for rules of other programs that interfere (`nft list ruleset` and "
    "`iptables-legacy-save` show all)"
)
_LOOK = "look for rules of other programs (`nft list ruleset` and `iptables-legacy-save` show all)"
_DIFF = "`istio-iptables diff`, with the same settings, shows whether the rules are in place"
_LISTEN = "validate as root, or with the capability NET_BIND_SERVICE if the port is below 1024"
_SETTINGS = "check that --envoy-port and --inbound-capture-port have the values that the rules were made with"


def skipped(item: Skipped) -> Result:
    """Return the result of a probe that was not made."""
    status: Status = "unproven" if item.required else "not-probed"
    meaning = f"{_SUBJECT[item.kind]} {_NEITHER}" if item.required else ""
    return Result(item, status, item.why, meaning, item.remedy)


_SUBJECT = {
    "inbound": "that inbound traffic gets to the proxy",
    "outbound": "that outbound traffic gets to the proxy",
    "exempt": "that the proxy's own traffic is left alone",
    "exempt-uid": "that the proxy's own traffic is left alone",
    "exempt-gid": "that the proxy's own traffic is left alone",
}


def judge(probe: Probe, seen: Observation, listening: Listening, *, in_place: bool = False) -> Result:
    """Return the result of a probe. `in_place`: the rules in place are known to be those of the settings."""
    verdict = _without_a_connection(probe, seen) or _without_a_listener(probe, listening)
    if verdict is None:
        compare = _INTERFERING if in_place else _DIFF
        of_its_kind = _positive if probe.arrives else _negative
        verdict = of_its_kind(probe, seen, listening, compare)
    status, where, meaning, remedy = verdict
    return Result(probe, status, where, meaning, remedy, seen)


def _without_a_connection(probe: Probe, seen: Observation) -> Verdict | None:
    """Return the verdict if nothing was dialled."""
    if seen.state == "late":
        return "unproven", "not dialled to the end", "the time was up", _SLOW
    if seen.state == "cannot-become":
        return (
            "unproven",
            f"not dialled: this process cannot become {probe.identity}: {seen.error}",
            f"{_SUBJECT[probe.kind]} {_NEITHER}",
            "add the capabilities SETUID and SETGID to the container, or validate as the proxy's user",
        )
    if seen.state == "no-dialler":
        meaning = f"{_SUBJECT[probe.kind]} {_NEITHER}"
        return "unproven", f"not dialled: {seen.error}", meaning, ""
    if seen.state == "error" and not probe.arrives:
        return "unproven", f"not dialled: {seen.error}", "nothing was sent, so nothing is shown", ""
    return None


def _without_a_listener(probe: Probe, listening: Listening) -> Verdict | None:
    if not listening.problem:
        return None
    where = f"port {listening.port} cannot be listened on: {listening.problem}"
    remedy = _holder_remedy(listening) if listening.taken else _LISTEN
    return "unproven", where, f"{_SUBJECT[probe.kind]} {_NEITHER}", remedy


def _holder_remedy(listening: Listening) -> str:
    port = listening.port
    return f"see which process has port {port} (`ss -tanp 'sport = :{port}'`), then run again"


def may_change(result: Result) -> bool:
    """Tell whether a result is unproven because the machine was slow: then it is worth dialling again."""
    seen = result.observation
    slow = seen is not None and (
        seen.state in ("late", "unclear", "no-dialler") or (seen.state == "unanswered" and not seen.certain)
    )
    return result.status == "unproven" and slow


def is_late(result: Result) -> bool:
    """Tell whether the time was up before anything was seen."""
    return result.observation is not None and result.observation.state == "late"


def conclude(results: Sequence[Result], tries: int) -> Result:
    """Return the result of a probe that was dialled several times, until it passed or there was no use.

    A silence is a failure only if each of several tries met it: a single packet may get lost on any machine.
    """
    dialled = [result for result in results if not is_late(result)]
    last = (dialled or results)[-1]
    failed = [result for result in results if result.status == "fail"]
    if last.status == "pass" or not failed:
        return last
    shown = [result for result in failed if not _is_silence(result)]
    if shown or len(failed) >= tries:
        return (shown or failed)[-1]
    unproven = [result for result in dialled if result.status == "unproven"]
    if unproven:
        return unproven[-1]
    return last.replace(status="unproven", meaning=f"{_SUBJECT[last.subject.kind]} {_NEITHER}", remedy=_SLOW)


def _is_silence(result: Result) -> bool:
    """Tell whether a failure rests on nothing but a missing answer."""
    probe, seen = result.subject, result.observation
    if not isinstance(probe, Probe) or seen is None or seen.state != "unanswered" or seen.error:
        return False
    return _redirected(probe, seen) == probe.watched or (
        seen.sent_to is None and not _lacks_address(probe, seen)
    )


# --- what has to arrive ---------------------------------------------------------------------


def _positive(probe: Probe, seen: Observation, listening: Listening, compare: str) -> Verdict:
    """Judge a connection that has to arrive at the proxy's port."""
    if seen.state == "connected" and seen.arrived == probe.watched:
        return _arrived(probe, seen, listening)
    unseen = _unseen(probe, seen, listening)
    if unseen is not None:
        return unseen
    where = _where(probe, seen)
    if seen.state == "unanswered" and _redirected(probe, seen) in (None, probe.watched):
        silence = _silence(probe, seen)
        if silence is not None:
            return silence
    return "fail", where, *_cause(probe, seen, compare)


def _unseen(probe: Probe, seen: Observation, listening: Listening) -> Verdict | None:
    """Return the verdict if the listener's doing hides where a connection went."""
    if listening.stuck and seen.state == "unanswered":
        return _stuck(probe, listening)
    if seen.state == "reset" and listening.taken:
        meaning = "a listener accepted the connection and reset it before it could be seen which"
        return "unproven", _where(probe, seen), meaning, _holder_remedy(listening)
    if seen.state == "unclear":
        meaning = "a listener has ended, or has a connection that may be this one or another's"
        return "unproven", _where(probe, seen), meaning, "run it again, as root with the capability NET_ADMIN"
    return None


def _silence(probe: Probe, seen: Observation) -> Verdict | None:
    """Return the verdict on a missing answer that is no evidence against the rules, None if it is."""
    if seen.sent_to == (probe.address, probe.port) or _lacks_address(probe, seen):
        return None
    if not seen.certain:
        meaning = "the probe was not answered in time: the machine is busy, or something drops it"
        return "unproven", _where(probe, seen), meaning, _DROPPED
    if not seen.asked and seen.sent_to is None:
        meaning = "it was not redirected, or something drops it: where it went is not known"
        remedy = f"validate as root with the capability NET_ADMIN, which may ask connection tracking; {_LOOK}"
        return "unproven", _where(probe, seen), meaning, remedy
    return None


def _lacks_address(probe: Probe, seen: Observation) -> bool:
    return not seen.address_is_here and probe.interface == "lo"


_SHOWN = {
    "inbound": "the proxy's own call to its pod is sent to its inbound port",
    "outbound": "outbound traffic is sent to the proxy",
    "dns": "queries are sent to the agent",
}


def _arrived(probe: Probe, seen: Observation, listening: Listening) -> Verdict:
    # Connections from outside go through other rules than this one: see coverage.
    shown = _SHOWN["dns" if probe.dns else probe.kind]
    if listening.taken:
        holder = "a process" if listening.uid is None else f"a process of UID {listening.uid}"
        where = f"arrived at port {probe.watched}, where {holder} listens already"
        meaning = f"{shown}, to a listener which alone can read the original destination: {probe.why}"
        return "pass", where, meaning, ""
    where = f"arrived at port {probe.watched}"
    if seen.original == (probe.address, probe.port):
        return (
            "pass",
            f"{where}, original destination {endpoint(*seen.original)}",
            f"{shown}: {probe.why}",
            "",
        )
    if probe.protocol == "udp" and seen.original is None and not seen.asked:
        meaning = f"{shown} (where it was going, only a process with NET_ADMIN may ask): {probe.why}"
        return "pass", where, meaning, ""
    who = "agent" if probe.dns else "proxy"
    original = "not readable" if seen.original is None else endpoint(*seen.original)
    return (
        "fail",
        f"{where}, original destination {original}",
        f"the {who} does not learn where connections were going (SO_ORIGINAL_DST)",
        "see whether connection tracking works here, and whether other rules rewrite destinations, too",
    )


def _stuck(probe: Probe, listening: Listening) -> Verdict:
    where = f"not answered: connections wait at port {listening.port} that its listener does not accept"
    meaning = f"{_SUBJECT[probe.kind]} {_NEITHER}"
    return "unproven", where, meaning, f"see why the process on port {listening.port} accepts nothing"


def _cause(probe: Probe, seen: Observation, compare: str) -> tuple[str, str]:
    """Return why a connection probably did not arrive, and what to do."""
    if _lacks_address(probe, seen):
        return (
            f"the interface lo has no address {probe.address}, so inbound {_family(probe)} traffic cannot be "
            "handed to the application",
            f"apply the rules with {_family(probe)} on (--dual-stack), or run "
            f"`ip -6 addr add {probe.address}/128 dev lo nodad`",
        )
    port = _redirected(probe, seen)
    if port == probe.watched:
        meaning = "rules send it to the proxy's port, but it does not get there: something drops it"
        return meaning, "check that lo is up, and look for a firewall that drops what comes in over it"
    if seen.sent_to is not None and _is_of_another(probe, seen):
        return f"a rule of another program sends it to {endpoint(*seen.sent_to)}", _LOOK
    if port is not None:
        meaning = f"rules send it to port {port}, but the settings say {probe.watched}"
        return meaning, compare if probe.dns else _SETTINGS
    if seen.state == "refused" and seen.sent_to is None:
        return (
            f"no process listens where it went: no rule captures it, or one sends it to a port other than "
            f"{probe.watched}",
            compare,
        )
    if seen.state == "error":
        return (
            f"{_family(probe)} connections from here cannot be made",
            "check addresses, routes and firewall",
        )
    what = "DNS" if probe.dns else "inbound traffic" if probe.kind == "inbound" else "outbound traffic"
    captured = f"{_family(probe)} {what}"
    if seen.state == "unanswered" and seen.sent_to is None:
        meaning = f"no rule captures {captured}, or something drops it before it leaves"
        return f"{meaning}: connection tracking has no entry of it", compare
    if compare == _INTERFERING:
        return f"something keeps the rules from capturing {captured}, or drops it", compare
    return f"no rule captures {captured}", compare


# --- what must not arrive -------------------------------------------------------------------


def _negative(probe: Probe, seen: Observation, listening: Listening, compare: str) -> Verdict:
    """Judge a connection that must not be redirected."""
    where = _where(probe, seen)
    port = _redirected(probe, seen)
    if _is_of_another(probe, seen):
        meaning = "a rule of another program sends it there: neither the proxy nor the agent gets it"
        return "pass", where, meaning, ""
    if port is not None and port != probe.elsewhere:
        return "fail", where, *_missing(probe, port, compare)
    unseen = _unseen(probe, seen, listening)
    if unseen is not None:
        return unseen
    if _is_query_to_another(probe, seen, listening):
        meaning = "another process listens, and only root with NET_ADMIN can see where a query over UDP went"
        return "not-probed", where, meaning, ""
    if seen.state == "unanswered" and not seen.certain and seen.sent_to is None:
        return "unproven", where, "it is not known whether it was redirected: something may drop it", _DROPPED
    if seen.state == "refused" and seen.refused_here and not seen.address_is_here and seen.sent_to is None:
        where = "was refused by this machine, although the address is not one of its own"
        return (
            "unproven",
            where,
            "another rule redirects or rejects it",
            _INTERFERING if compare == _INTERFERING else _LOOK,
        )
    return "pass", where, f"not sent to port {probe.watched}: {probe.why}", ""


def _is_of_another(probe: Probe, seen: Observation) -> bool:
    """Tell whether another program translated it: what proxy and agent get is sent to LOOPBACK."""
    if _redirected(probe, seen) is None:
        return False
    address = seen.sent_to[0] if seen.sent_to else seen.arrived_at
    return address not in ("", LOOPBACK[probe.family])


def _is_query_to_another(probe: Probe, seen: Observation, listening: Listening) -> bool:
    """Tell whether another process may have received a query, which cannot be seen."""
    return probe.protocol == "udp" and listening.taken and seen.state == "unanswered" and seen.sent_to is None


def _missing(probe: Probe, port: int, compare: str) -> tuple[str, str]:
    """Return what it means that a connection was redirected but should not have been, and what to do."""
    who = {"exempt-uid": f"UID {probe.identity.uid}", "exempt-gid": f"GID {probe.identity.gid}"}
    if probe.kind == "outbound":
        return f"it is sent to port {port}, but the settings leave it alone: {probe.why}", compare
    return (
        f"the exemption of the proxy's own traffic ({who.get(probe.kind, str(probe.identity))}) is missing: "
        + ("its queries come back to the agent" if probe.dns else "its connections come back to it")
        + " in an endless loop",
        compare
        if compare == _INTERFERING
        else f"apply the rules with this user in --proxy-uid and --proxy-gid; {compare}",
    )


def coverage(config: Config) -> tuple[str, ...]:
    """Return what the probes never cover."""
    if not config.captures_inbound:
        inbound = (
            "no inbound port is captured (--istio-inbound-ports is empty): the inbound probe shows only "
            "that what the proxy sends to its own pod is redirected"
        )
        return (inbound,)
    outside = "connections from outside cannot be made from inside the pod, so the rules in PREROUTING"
    which = "which hand them to the proxy (TPROXY)" if config.tproxy else "which redirect them"
    instead = "the inbound probe takes the path of the proxy's own calls to its pod"
    return (f"{outside}, {which}, are not tested: {instead}",)


# --- text -----------------------------------------------------------------------------------


def _redirected(probe: Probe, seen: Observation) -> int | None:
    """Return the local port that rules sent a connection to, None if no rule is known to have done that."""
    if seen.sent_to is not None:
        return None if seen.sent_to == (probe.address, probe.port) else seen.sent_to[1]
    if seen.arrived == probe.watched or not seen.address_is_here:
        return seen.arrived
    return seen.arrived if seen.arrived != probe.port else None


def _where(probe: Probe, seen: Observation) -> str:
    """Return where a connection went, as text."""
    if seen.state == "connected" and seen.arrived is not None:
        whose = "" if seen.listener_uid is None else f", where a process of UID {seen.listener_uid} listens"
        return f"arrived at port {seen.arrived}{whose}"
    if seen.sent_to is not None and _redirected(probe, seen):
        sent = f"was redirected to {endpoint(*seen.sent_to)}"
        return f"{sent}, where no process listens" if seen.state == "refused" else sent
    if seen.state == "connected":
        return "arrived outside this network namespace"
    if seen.state == "unanswered":
        error = f" ({seen.error})" if seen.error else ""
        return (
            f"left by {probe.interface} and was not answered{error}" if seen.certain else "was not answered"
        )
    words = {
        "refused": "was refused",
        "reset": "was accepted and reset at once",
        "unclear": "was answered",
    }
    return words.get(seen.state, f"could not be dialled: {seen.error}")


def _family(probe: Probe) -> str:
    return FAMILIES[probe.family]
