"""text: what is in place, for people: the settings, then each rule with its counters and its reason."""

from __future__ import annotations

from itertools import groupby

from ..change.actions import NFTABLES
from ..formats import difference, notices
from ..rules.istio import PROGRAM
from ..settings.declared import BY_NAME
from .counters import notes
from .untold import UNKNOWN_SERVER
from .written import command_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ..change.plan import Plan
    from ..rules.model import Family, Listed
    from .report import Compared, CountedRule, CountedTable, Place, State, Status
    from .settings_of import ReadBack

_FAMILIES: Mapping[Family, str] = {"ipv4": "IPv4", "ipv6": "IPv6"}
#: The column in which the text of a labelled line begins.
_LABEL = 10
#: The columns of packets, bytes and the rule.
_PACKETS, _BYTES = 10, 12
#: Names of settings are broken into lines of this many characters.
_WIDTH = 88
#: So many rules of one list that have counted nothing are shown; the others are only counted.
_MOST_IDLE = 3
#: A rule is shortened to this many characters; only those of native nftables, with a set, are longer.
_LONGEST_RULE = 240

_STATES: Mapping[State, str] = {
    "in-place": "in place",
    "altered": "altered: no settings mean exactly these rules",
    "absent": f"absent: {PROGRAM} has no rules in this network namespace, in no backend",
    "ambient": "Istio's ambient mode",
}
_COMPARED: Mapping[Compared, str] = {
    "equal": "the rules in place are those of the settings given",
    "differs": "the rules in place differ from those of the settings given",
    "absent": f"no rules are in place; {PROGRAM} with the settings given makes them",
}


def text(status: Status, *, colour: bool = False) -> str:
    """Return all of it; with `colour` differences are coloured, and rules that have counted are bold."""
    lines = summary(status, details=True)
    for title, plan in _plans(status):
        lines += ["", title, *difference.text(plan, colour=colour).splitlines()]
    for place in status.places:
        for table in place.tables:
            lines += ["", *_table(table, place, bold=colour)]
    remarks = [note.text for note in notes(status)]
    for title, texts in (("foreign", foreign(status)), ("note", remarks)):
        if texts:
            lines += ["", *(f"{title}: {each}" for each in texts)]
    return "".join(f"{line}\n" for line in lines)


def summary(status: Status, *, details: bool = False) -> list[str]:
    """Return what there is in a few lines: without rules, and without differences."""
    lines = [*_labelled("state", [_STATES[status.state]])]
    if status.refused:
        lines += _labelled("refused", [f"nothing may be changed: {status.refused}"])
    if status.compared:
        lines += _labelled("compared", [_COMPARED[status.compared]])
    for place in status.places:
        lines += [*_place(place), *(_details(place.settings) if details else ())]
    if details:
        lines += _labelled("routing", map(str, status.routing))
    return lines


def _plans(status: Status) -> Iterator[tuple[str, Plan]]:
    """Yield the plans to the settings given, and to the nearest settings, that change something."""
    if status.compared == "differs" and status.plan:
        yield "from the rules in place (-) to those of the settings given (+):", status.plan
    for place in status.places:
        if place.plan:
            yield "from the rules in place (-) to those of the nearest settings (+):", place.plan


def foreign(status: Status) -> list[str]:
    """Return what is to be said of rules of other programs, and of what Istio's own tools left."""
    unreadable = [
        f"iptables cannot read the nft table {name}: another program put a rule into it with nft"
        for name in status.unreadable
    ]
    return [*unreadable, *notices.neighbours(status.before), *status.leftovers, *status.unclaimed]


def _labelled(label: str, texts: Iterable[str]) -> Iterator[str]:
    """Yield lines with a label before the first one."""
    for each in texts:
        yield f"{label:<{_LABEL}}{each}".rstrip()
        label = ""


def _place(place: Place) -> Iterator[str]:
    read = place.settings
    families = " and ".join(_FAMILIES[family] for family in place.families)
    yield from _labelled("backend", [f"{_backend(place)}, {families}"])
    yield from _labelled("settings" if read.exact else "nearest", [command_line(read)])


def _details(read: ReadBack) -> Iterator[str]:
    """Yield what the settings need besides, and which of them these rules do not tell."""
    if read.untagged:
        yield from _labelled("", ["(without the comment istio-iptables: Istio's own tool made these rules)"])
    if read.facts.servers:
        servers = ", ".join(read.facts.servers)
        which = "a server of IPv6" if servers == UNKNOWN_SERVER else f"the servers {servers}"
        yield from _labelled("needs", [f"in /etc/resolv.conf, {which}"])
    yield from _labelled("untold", _untold(read))


def _backend(place: Place) -> str:
    return "native nftables" if place.location == NFTABLES else place.location


def _untold(read: ReadBack) -> Iterator[str]:
    """Yield lines that name the settings that could be others, with the same rules."""
    names = ", ".join(dict.fromkeys(BY_NAME[each.setting].flag for each in read.untold))
    line = "the rules do not tell (--json says why):"
    for word in names.split(" "):
        if len(line) + len(word) > _WIDTH:
            yield line
            line = ""
        line = f"{line} {word}" if line else word
    yield line


# --- rules --------------------------------------------------------------------------------------


def _table(table: CountedTable, place: Place, *, bold: bool) -> Iterator[str]:
    """Yield the rules of a table: packets, bytes and the rule, and below it the reason."""
    yield f"{table.family} {table.name} ({place.location})"
    yield f"{'PACKETS':>{_PACKETS}}{'BYTES':>{_BYTES}}  RULE, AND WHY IT IS THERE"
    for chain in table.chains:
        yield f"  {chain.name}"
        for idle, members in groupby(chain.rules, key=_idle_list):
            rules = list(members)
            shown = rules[:_MOST_IDLE] if idle and len(rules) > _MOST_IDLE + 1 else rules
            for rule in shown:
                yield from _rule(rule, counted=table.counted, bold=bold)
            if len(shown) < len(rules):
                more = f"... and {len(rules) - len(shown)} more of that list, which have counted nothing"
                yield f"{'':{_PACKETS + _BYTES}}  {more}"


def _idle_list(rule: CountedRule) -> Listed | None:
    """Return the list that a rule is a member of, if it has counted nothing."""
    return None if rule.rule.counters.packets else rule.listed


def _rule(rule: CountedRule, *, counted: bool, bold: bool) -> Iterator[str]:
    counters = rule.rule.counters
    numbers = (str(counters.packets), str(counters.bytes)) if counted else ("-", "-")
    line = f"{numbers[0]:>{_PACKETS}}{numbers[1]:>{_BYTES}}  {shortened(rule.words)}"
    yield f"\x1b[1m{line}\x1b[0m" if bold and counters.packets else line
    yield f"{'':{_PACKETS + _BYTES}}    {rule.reason or 'no settings mean this rule'}"


def shortened(words: str) -> str:
    """Return a rule; of one with a set of thousands of members, or a long list of groups, the beginning."""
    if len(words) <= _LONGEST_RULE:
        return words
    start, end = words[:_LONGEST_RULE], words.rpartition("}")
    if not end[1]:
        return f"{start} ..."
    return f"{start} ... ({end[0].count(',')} members) }}{end[2]}"
