"""iptables_targets: what each target of iptables does; _TARGETS has one entry for each.

Sources: iptables-extensions(8), and the kernel's net/netfilter/xt_*.c, nf_nat_core.c. A target that is not
there is Unknown.
"""

from __future__ import annotations

from ..rules.model import FULL_MASK
from ..rules.values import MOST_16, MOST_32, value_and_mask
from ..rules.values import number as bounded
from . import action as actions
from .addresses import BITS, block, span
from .condition import ALWAYS, number
from .packet import address_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..rules.model import Family
    from .action import Action


class _NotModelled(ValueError):
    """What a target does cannot be told."""


class _Options:
    """The options of a target, each with its values.

    Raises ValueError if one is there twice, or if a word belongs to none: for a target that is newer than
    itself iptables prints `[unsupported revision]`.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.given: dict[str, list[str]] = {}
        values: list[str] | None = None
        for word in words:
            if word.startswith("--") and word not in self.given:
                values = self.given[word] = []
            elif word.startswith("--") or values is None:
                raise _NotModelled(word)
            else:
                values.append(word)

    def only(self, *names: str) -> None:
        """Raise an error if there is any other option."""
        if not self.given.keys() <= {*names}:
            raise _NotModelled(*self.given)

    def needed(self, name: str) -> str:
        """Return the value of an option. Raises KeyError if it is not given."""
        [value] = self.given[name]
        return value

    def value(self, name: str) -> str | None:
        """Return the value of an option, None if it is not given."""
        return self.needed(name) if name in self.given else None

    def flag(self, *names: str) -> bool:
        """Tell whether one of some options is given."""
        return any(name in self.given for name in names)


def actions_of(args: Sequence[str]) -> tuple[Action, ...]:
    """Return what a target does, from its arguments, of which the first is -j or -g; there may be none."""
    if not args:
        return (actions.Pass(),)
    text = " ".join(args[1:])
    if len(args) < 2:
        return (actions.Unknown(" ".join(args)),)
    how, name, *words = args
    if how in ("-g", "--goto"):
        return (actions.Call(name, goto=True),) if not words else (actions.Unknown(text),)
    if name in ONLY_NOTES:
        return (actions.Pass(text),)
    try:
        return _TARGETS[name](_Options(words), text)
    except (LookupError, ValueError, OSError):
        return (actions.Unknown(text),)


#: Targets after which the packet goes on as it is, but for parts of it that packet.py has not.
ONLY_NOTES = frozenset(
    {"AUDIT", "CHECKSUM", "CLASSIFY", "CONNSECMARK", "DSCP", "ECN", "HL", "IDLETIMER", "LED", "LOG", "NFLOG"}
    | {"RATEEST", "SECMARK", "TCPMSS", "TCPOPTSTRIP", "TEE", "TOS", "TRACE", "TTL", "ULOG"}
)


# --- marks --------------------------------------------------------------------------------------


def _set_mark(field: str, name: str, text: str) -> Action:
    """Return the action of --set-mark and those like it (libxt_MARK.c): `(mark & keep) ^ flip`."""
    value, mask = value_and_mask(text)
    keep = {
        "--set-xmark": ~mask,
        "--set-mark": ~(mask | value),
        "--and-mark": value,
        "--or-mark": ~value,
        "--xor-mark": ~0,
    }[name]
    return actions.Assign(field, keep & FULL_MASK, 0 if name == "--and-mark" else value & FULL_MASK)


def _mark(options: _Options, text: str) -> tuple[Action, ...]:
    [(name, [value])] = options.given.items()
    return (_set_mark("mark", name, value),)


def _connmark(options: _Options, text: str) -> tuple[Action, ...]:
    ways = {"--save-mark": ("mark", "connection_mark"), "--restore-mark": ("connection_mark", "mark")}
    for name, (source, field) in ways.items():
        if name in options.given:
            options.only(name, "--nfmask", "--ctmask", "--mask")
            both = options.value("--mask")
            masks = {
                "mark": bounded(options.value("--nfmask") or both or str(FULL_MASK), MOST_32, 0),
                "connection_mark": bounded(options.value("--ctmask") or both or str(FULL_MASK), MOST_32, 0),
            }
            return (actions.Assign(field, ~masks[field] & FULL_MASK, 0, source, masks[source]),)
    [(name, [value])] = options.given.items()
    return (_set_mark("connection_mark", name, value),)


# --- nat ----------------------------------------------------------------------------------------


#: Ports that are shifted one by one; a translation of more is not modelled.
_MOST_SHIFTED = 1024


class _Ports:
    """`first[-last[/base]]`: ports that a translation may give, and the one that becomes the first."""

    def __init__(self, text: str) -> None:
        ends, slash, base = text.partition("/")
        first, dash, last = ends.partition("-")
        low = bounded(first, MOST_16)
        high = bounded(last, MOST_16) if dash else low
        self.first, self.last = min(low, high), max(low, high)
        self.base = bounded(base, MOST_16) if slash else None


def _to_ports(
    ports: _Ports | None, make: Callable[[int | None], Action], options: _Options, text: str
) -> tuple[Action, ...]:
    """Return a translation to one port of a range.

    A port that is in it is kept; another becomes the first, unless a connection between the same ends has it.
    With a base, ports from there on become those of the range, one by one (get_unique_tuple and
    nf_nat_l4proto_unique_tuple in nf_nat_core.c).
    """
    if ports is None:
        return (make(None),)
    first, last = ports.first, ports.last
    if first == last:
        return (make(first),)
    if options.flag("--random"):
        if ports.base is not None:
            raise _NotModelled(text)
        each = range(first, min(last, first + actions.MOST_CHOICES) + 1)
        return (actions.one_of([(f"port {port}", make(port)) for port in each], text),)
    kept = (number("destination_port", first, last), make(None))
    if ports.base is None:
        return (actions.Choose((kept, (ALWAYS, make(first)))),)
    others = (ALWAYS, actions.Unknown(text))
    if ports.base == first:
        return (actions.Choose((kept, others)),)
    if last - first >= _MOST_SHIFTED:
        raise _NotModelled(text)
    shift = ports.base - first
    shifted = ((number("destination_port", port + shift), make(port)) for port in range(first, last + 1))
    return (actions.Choose((*shifted, others)),)


def _redirect(options: _Options, text: str) -> tuple[Action, ...]:
    options.only("--to-ports", "--random")
    given = options.value("--to-ports")
    ports = _Ports(given) if given and given != "0" else None
    return _to_ports(ports, lambda port: actions.Redirect(port or 0), options, text)


def _destination(options: _Options, text: str) -> tuple[Action, ...]:
    options.only("--to-destination", "--random", "--persistent")
    family, first, last, ports = _where(options.needed("--to-destination"))

    def to(where: int | None) -> Action:
        [found] = _to_ports(ports, lambda port: actions.Destination(where, port), options, text)
        return found

    if family is None or first is None or last is None:
        return (to(None),)
    # Of several addresses a hash of both ends chooses one (find_best_ips_proto).
    each = range(first, min(last, first + actions.MOST_CHOICES) + 1)
    return (actions.one_of([(address_text(family, where), to(where)) for where in each], text),)


def _where(text: str) -> tuple[Family | None, int | None, int | None, _Ports | None]:
    """Parse `[address[-address]][:port[-port[/base]]]`, IPv6 in brackets if a port follows."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        ports = rest.removeprefix(":")
    elif text.count(":") > 1:
        host, ports = text, ""
    else:
        host, _, ports = text.partition(":")
    found: tuple[Family | None, int | None, int | None] = span(host) if host else (None, None, None)
    return *found, _Ports(ports) if ports else None


def _netmap(options: _Options, text: str) -> tuple[Action, ...]:
    options.only("--to")
    found = block(options.needed("--to"))
    keep = ~found.mask & ((1 << BITS[found.family]) - 1)
    return (actions.NetMap(found.address & found.mask, keep),)


# --- others -------------------------------------------------------------------------------------


def _tproxy(options: _Options, text: str) -> tuple[Action, ...]:
    options.only("--on-port", "--on-ip", "--tproxy-mark")
    value, mask = value_and_mask(options.value("--tproxy-mark") or "0/0")
    return (actions.TProxy(bounded(options.needed("--on-port"), MOST_16), ~mask & FULL_MASK, value),)


#: Options of CT that change what is told about a connection, not the packet's way.
_CT_NOTES = ("--helper", "--ctevents", "--expevents", "--timeout")


def _ct(options: _Options, text: str) -> tuple[Action, ...]:
    """Every option but --notrack decides about the zone, too: later rules do not change it (xt_ct_target)."""
    options.only("--notrack", "--zone", "--zone-orig", "--zone-reply", *_CT_NOTES)
    if options.flag("--notrack"):
        return (actions.Untrack(),)
    both = options.value("--zone") or "0"
    original, reply = (
        bounded(options.value(name) or both, MOST_16) for name in ("--zone-orig", "--zone-reply")
    )
    return (actions.Zone(original, None if reply == original else reply),)


def _set(options: _Options, text: str) -> tuple[Action, ...]:
    """The set changes, the packet does not, unless its mark or priority is taken from the set."""
    if any(name.startswith("--map-") for name in options.given):
        raise _NotModelled(text)
    return (actions.Pass(text),)


def _ends(how: actions.How) -> Callable[[_Options, str], tuple[Action, ...]]:
    return lambda options, text: (actions.End(how),)


def _masquerade(options: _Options, text: str) -> tuple[Action, ...]:
    given = options.value("--to-ports")
    return _from_ports(_Ports(given) if given else None, actions.Source(text, masquerade=True), options)


def _source(options: _Options, text: str) -> tuple[Action, ...]:
    try:
        _, where, last, ports = _where(options.needed("--to-source"))
    except (LookupError, ValueError, OSError):
        return (actions.Source(text),)
    if where != last:
        return (actions.Source(text),)  # one of several addresses
    return _from_ports(ports, actions.Source(text, where, kept=where is None), options)


def _from_ports(ports: _Ports | None, made: actions.Source, options: _Options) -> tuple[Action, ...]:
    """Return a new source with a port of a range: one that is in it is kept, for another any is chosen."""
    unknown = actions.Source(made.what)
    if options.flag("--random", "--random-fully"):
        return (unknown,)
    if ports is None or ports.first == ports.last:
        return (made.replace(port=ports and ports.first),)
    kept = number("source_port", ports.first, ports.last)
    return (actions.Choose(((kept, made), (ALWAYS, unknown))),)


def _returns(options: _Options, text: str) -> tuple[Action, ...]:
    return (actions.Return(),)


_TARGETS: Mapping[str, Callable[[_Options, str], tuple[Action, ...]]] = {
    "ACCEPT": _ends("accept"),
    "DROP": _ends("drop"),
    "REJECT": _ends("reject"),
    "RETURN": _returns,
    "MARK": _mark,
    "CONNMARK": _connmark,
    "MASQUERADE": _masquerade,
    "SNAT": _source,
    "DNAT": _destination,
    "REDIRECT": _redirect,
    "NETMAP": _netmap,
    "TPROXY": _tproxy,
    "CT": _ct,
    "NOTRACK": lambda options, text: (actions.Untrack(),),
    "SET": _set,
}
