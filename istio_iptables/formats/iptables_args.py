"""iptables_args: a typed rule as the options of iptables(8), and those options as a typed rule.

The writers of text and the parser of iptables-save both use this module, so what one writes
the other reads. What this tool never writes is kept as the arguments that it was read from.
"""

from __future__ import annotations

from ..rules import model
from ..rules.model import Cidr, PortRange
from ..rules.values import MOST_16, MOST_32, number, port_range, value_and_mask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping, Sequence
    from typing import Any

    from ..rules.model import Match, Rule, Target

#: The order in which iptables-save prints connection states.
_STATES = ("INVALID", "NEW", "RELATED", "ESTABLISHED", "UNTRACKED", "SNAT", "DNAT")


# --- rule -> arguments ---------------------------------------------------------------------


def rule_args(rule: Rule) -> list[str]:
    """Return the rule's matches and target as iptables options, one argument each."""
    args: list[str] = []
    ports_loaded = False
    for match in rule.matches:
        module, negated, options = _MATCH_ARGS[type(match)](match)
        if module == "protocol":  # one -m for source and destination ports; one each for others
            module, ports_loaded = "" if ports_loaded else _transport(rule), True
        if module:
            args += ["-m", module]
        args += ["!", *options] if negated else options
    return args + _TARGET_ARGS[type(rule.target)](rule.target)


def _transport(rule: Rule) -> str:
    return next((match.protocol for match in rule.matches if isinstance(match, model.Transport)), "")


_OWNERS = ("--uid-owner", "--gid-owner")


def loadable_args(rule: Rule) -> list[str]:
    """Return the arguments of a rule for a program that loads them.

    An owner is written as a range with a colon, 1337:1337. iptables looks every owner up as a name first,
    and reads it as a number or range if there is none (libxt_owner.c). No name has a colon, which separates
    the fields of passwd(5) and group(5); `1337-1337` can be a name. iptables-save prints 1337 again.
    """
    args = rule_args(rule)
    if any(option in args for option in _OWNERS):  # a list may have twenty thousand rules without
        for at, arg in enumerate(args):
            if at and args[at - 1] in _OWNERS:
                args[at] = f"{arg}:{arg}"
    return args


def _mark_text(value: int, mask: int) -> str:
    return f"{value:#x}" if mask == model.FULL_MASK else f"{value:#x}/{mask:#x}"


_MatchArgs = tuple[str, bool, list[str]]

#: For each kind of match: the module to load with -m ("protocol" is the tcp or udp match,
#: "" none), whether it is negated, and its options.
_MATCH_ARGS: Mapping[type, Callable[[Any], _MatchArgs]] = {
    model.InInterface: lambda m: ("", m.negated, ["-i", m.name]),
    model.OutInterface: lambda m: ("", m.negated, ["-o", m.name]),
    model.Source: lambda m: ("", m.negated, ["-s", str(m.cidr)]),
    model.Destination: lambda m: ("", m.negated, ["-d", str(m.cidr)]),
    model.Transport: lambda m: ("", m.negated, ["-p", m.protocol]),
    model.SourcePort: lambda m: ("protocol", m.negated, ["--sport", str(m.ports)]),
    model.DestinationPort: lambda m: ("protocol", m.negated, ["--dport", str(m.ports)]),
    model.DestinationPorts: lambda m: ("multiport", m.negated, ["--dports", ",".join(map(str, m.ports))]),
    model.UidOwner: lambda m: ("owner", m.negated, ["--uid-owner", str(m.uid)]),
    model.GidOwner: lambda m: ("owner", m.negated, ["--gid-owner", str(m.gid)]),
    model.Mark: lambda m: ("mark", m.negated, ["--mark", _mark_text(m.value, m.mask)]),
    model.ConnectionMark: lambda m: ("connmark", m.negated, ["--mark", _mark_text(m.value, m.mask)]),
    model.ConntrackState: lambda m: (
        "conntrack",
        m.negated,
        ["--ctstate", ",".join(state for state in _STATES if state in m.states)],
    ),
    model.Comment: lambda m: ("comment", False, ["--comment", m.text]),
    model.ForeignMatch: lambda m: ("", False, list(m.args)),
}

_TARGET_ARGS: Mapping[type, Callable[[Any], list[str]]] = {
    model.Jump: lambda t: ["-g" if t.goto else "-j", t.chain],
    model.Verdict: lambda t: ["-j", t.name],
    model.Redirect: lambda t: ["-j", "REDIRECT", "--to-ports", str(t.port)],
    model.SetMark: lambda t: ["-j", "MARK", "--set-xmark", f"{t.value:#x}/{t.mask:#x}"],
    model.SaveMark: lambda t: ["-j", "CONNMARK", "--save-mark"],
    model.RestoreMark: lambda t: ["-j", "CONNMARK", "--restore-mark"],
    model.TProxy: lambda t: [
        "-j",
        "TPROXY",
        "--on-port",
        str(t.port),
        "--tproxy-mark",
        f"{t.mark:#x}/{model.FULL_MASK:#x}",
    ],
    model.ConntrackZone: lambda t: ["-j", "CT", "--zone", str(t.zone)],
    model.ForeignTarget: lambda t: list(t.args),
}


# --- arguments -> rule ---------------------------------------------------------------------


class _Unknown(Exception):
    """An argument that this tool never writes."""


def matches_and_target(args: Sequence[str], chains: Container[str]) -> tuple[tuple[Match, ...], Target]:
    """Read iptables options, as iptables-save prints them, into matches and a target.

    `chains` are the table's chains, to tell a jump from a target extension. A rule with any option
    that this tool never writes keeps all its matches as arguments, but for comments.
    """
    at = _target_at(args)
    target = _target(list(args[at:]), chains)
    try:
        return _matches(args[:at]), target
    except (_Unknown, ValueError, IndexError, OSError):  # OSError: inet_pton found no address
        return _foreign_matches(args[:at]), target


#: Options whose value may look like an option.
_TEXT_OPTIONS = ("-i", "-o", "--comment", "--string", "--hex-string", "--log-prefix")


def _target_at(args: Sequence[str]) -> int:
    """Return where the target begins: at -j or -g, or at the end."""
    at = 0
    while at < len(args) and args[at] not in ("-j", "-g"):
        at += 2 if args[at] in _TEXT_OPTIONS else 1
    return min(at, len(args))


def _matches(args: Sequence[str]) -> tuple[Match, ...]:
    matches: list[Match] = []
    module, negated, at = "", False, 0
    while at < len(args):
        arg = args[at]
        if arg == "!":
            negated, at = True, at + 1
            continue
        if at + 1 >= len(args):
            raise _Unknown(arg)
        if arg == "-m":
            module = args[at + 1]
            if module not in _MODULES:
                raise _Unknown(module)
        elif module == "connmark" and arg == "--mark":
            value, mask = value_and_mask(args[at + 1])
            matches.append(model.ConnectionMark(value, mask, negated))
        elif arg in _OPTION_MATCHES:
            matches.append(_OPTION_MATCHES[arg](args[at + 1], negated))
        else:
            raise _Unknown(arg)
        negated, at = False, at + 2
    return tuple(matches)


def _foreign_matches(args: Sequence[str]) -> tuple[Match, ...]:
    """Keep matches as arguments, but for comments, which tell whether a rule is owned."""
    rest, comments, at = [], [], 0
    while at < len(args):
        if args[at : at + 3] == ["-m", "comment", "--comment"] and at + 3 < len(args):
            comments.append(model.Comment(args[at + 3]))
            at += 4
        else:
            rest.append(args[at])
            at += 1
    return (model.ForeignMatch(tuple(rest)), *comments)


def _cidr(text: str) -> Cidr:
    """Parse an address or CIDR as iptables-save prints it."""
    address, _, prefix = text.partition("/")
    if ":" in address:
        from ..startup.c_modules import socket

        packed, version = socket.inet_pton(socket.AF_INET6, address), 6
    else:
        packed, version = bytes(map(int, address.split("."))), 4
    bits = 8 * len(packed)
    length = int(prefix) if prefix else bits
    if bits not in (32, 128) or not 0 <= length <= bits:
        raise _Unknown(text)
    return Cidr(version, int.from_bytes(packed, "big"), length)


def _ports(text: str) -> PortRange:
    return PortRange(*port_range(text))


def _owner(text: str) -> int:
    """Parse an owner: a number, or a range of one number."""
    first, _, last = text.replace(":", "-").partition("-")
    if last and last != first:
        raise _Unknown(text)
    return number(first, MOST_32)


def _states(text: str) -> frozenset[str]:
    states = frozenset(text.split(","))
    if not states <= {*_STATES}:
        raise _Unknown(text)
    return states


def _protocol(text: str) -> Any:
    if text not in model.PROTOCOL_NUMBERS:
        raise _Unknown(text)
    return text


#: The matches of which this tool writes an option. Others mean something without any, as `-m socket` does.
_MODULES = frozenset({"comment", "connmark", "conntrack", "mark", "multiport", "owner", "tcp", "udp"})

_OPTION_MATCHES: Mapping[str, Callable[[str, bool], Match]] = {
    "-i": model.InInterface,
    "-o": model.OutInterface,
    "-s": lambda text, negated: model.Source(_cidr(text), negated),
    "-d": lambda text, negated: model.Destination(_cidr(text), negated),
    "-p": lambda text, negated: model.Transport(_protocol(text), negated),
    "--sport": lambda text, negated: model.SourcePort(_ports(text), negated),
    "--dport": lambda text, negated: model.DestinationPort(_ports(text), negated),
    "--dports": lambda text, negated: model.DestinationPorts(tuple(map(_ports, text.split(","))), negated),
    "--uid-owner": lambda text, negated: model.UidOwner(_owner(text), negated),
    "--gid-owner": lambda text, negated: model.GidOwner(_owner(text), negated),
    "--mark": lambda text, negated: model.Mark(*value_and_mask(text), negated),
    "--ctstate": lambda text, negated: model.ConntrackState(_states(text), negated),
    "--comment": lambda text, _negated: model.Comment(text),
}


def _target(args: list[str], chains: Container[str]) -> Target:
    if len(args) < 2:
        return model.ForeignTarget(tuple(args))
    how, name, options = args[0], args[1], args[2:]
    if name in chains and not options:
        return model.Jump(name, how == "-g")
    if how == "-g":
        return model.ForeignTarget(tuple(args))
    if name in ("ACCEPT", "DROP", "RETURN") and not options:
        return model.Verdict(name)  # type: ignore[arg-type]  # one of the three, as just compared
    try:
        return _extension(name, options)
    except (_Unknown, ValueError):
        return model.ForeignTarget(tuple(args))


def _extension(name: str, options: list[str]) -> Target:
    """Read a target extension; SaveMark and RestoreMark are printed with their full masks."""
    if name == "CONNMARK" and options[1:] in (
        [],
        ["--nfmask", f"{model.FULL_MASK:#x}", "--ctmask", f"{model.FULL_MASK:#x}"],
    ):
        if options[:1] == ["--save-mark"]:
            return model.SaveMark()
        if options[:1] == ["--restore-mark"]:
            return model.RestoreMark()
        raise _Unknown(name)
    given = dict(zip(options[::2], options[1::2], strict=True))
    if name == "REDIRECT" and list(given) == ["--to-ports"]:
        return model.Redirect(number(given["--to-ports"], MOST_16))
    if name == "MARK" and list(given) == ["--set-xmark"]:
        return model.SetMark(*value_and_mask(given["--set-xmark"]))
    if name == "TPROXY" and given.pop("--on-ip", "0.0.0.0") in ("0.0.0.0", "::"):
        mark, mask = value_and_mask(given.pop("--tproxy-mark", ""))
        if mask == model.FULL_MASK and list(given) == ["--on-port"]:
            return model.TProxy(number(given["--on-port"], MOST_16), mark)
    if name == "CT" and list(given) == ["--zone"]:
        return model.ConntrackZone(number(given["--zone"], MOST_16))
    raise _Unknown(name)
