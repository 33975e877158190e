"""ip_dump: what `ip rule`, `ip route show table all` and `ip addr` of iproute2 print, as a Network.

The plain texts are read as well as those of `ip -json`, of both families, each by itself or several one after
the other. Whatever is not read is told.
"""

from __future__ import annotations

import re

from ..interpreter.completed import completed
from ..interpreter.ip_names import DEFAULT_TABLE, LOCAL_TABLE, MAIN_TABLE, table_name
from ..interpreter.routing import Network
from ..rules.model import IPV4, IPV6
from ..settings.texts import shown
from ..startup.record import Record
from . import ip_objects, ip_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ..interpreter.routing import Address, Route, RoutingRule
    from ..rules.model import Family
    from .ip_objects import Object


class Unread(Record):
    """What was not read, or only in part: where it is (line, from 1), its text, and why."""

    line: int
    text: str
    why: str
    name: str = ""  #: of the text that it is in

    def __str__(self) -> str:
        return f"{self.name} line {self.line}: {self.why}: {self.text}".lstrip()


class Dump(Record):
    """What a text has of a network. `assumed` is what had to be guessed to read it."""

    addresses: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    rules: tuple[RoutingRule, ...] = ()
    interfaces: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    unread: tuple[Unread, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """How many of each were read, and how many lines or words were not."""
        names = ("interfaces", "addresses", "rules", "routes", "unread")
        return {name: len(getattr(self, name)) for name in names}


def read(text: str, family: Family | None = None, name: str = "") -> Dump:
    """Return what a text has that `ip` printed.

    `family` is that of routing rules which do not tell it by themselves; None: it is guessed, and that is in
    `assumed`. `name` is what notes call the text. Reads any text: what it cannot read is in `unread`.
    """
    reader = _Reader(family, name)
    for line, piece in _pieces(text):
        if isinstance(piece, str):
            reader.line(line, piece)
        else:
            reader.document(line, piece)
    return reader.dump()


def joined(dumps: Iterable[Dump]) -> Network:
    """Return one Network of several texts; what none of them has is assumed (see `completed`)."""
    dumps = list(dumps)
    network = Network(
        addresses=_each_once(address for dump in dumps for address in dump.addresses),
        routes=_each_once(route for dump in dumps for route in dump.routes),
        rules=tuple(
            sorted(
                _each_once(rule for dump in dumps for rule in dump.rules),
                key=lambda rule: (rule.family, rule.priority),
            )
        ),
        interfaces=_each_once(name for dump in dumps for name in dump.interfaces),
        assumed=_each_once(note for dump in dumps for note in dump.assumed),
        unread=tuple(str(each) for dump in dumps for each in dump.unread),
    )
    return completed(network, only_local=_LOCAL_ASSUMED in network.assumed)


def _each_once(items: Iterable[object]) -> tuple:  # type: ignore[type-arg]
    return tuple(dict.fromkeys(items))


#: The errors that reading an object may raise that is of none of the kinds which ip(8) prints.
_MISFITS = (LookupError, TypeError, ValueError, AttributeError)
#: How a document of `ip -json` begins. (The counters of iptables-save begin with `[`, too.)
BEGINS = re.compile(r"\[\s*[{\]]")


def _pieces(text: str) -> Iterator[tuple[int, object]]:
    """Yield the lines of a text, and its JSON documents, each with the number of the line it begins in."""
    import json

    decoder = json.JSONDecoder()
    position, line = 0, 1
    while position < len(text):
        end = text.find("\n", position)
        end = len(text) if end < 0 else end
        start = position
        while start < end and text[start].isspace():
            start += 1
        if BEGINS.match(text, start):
            try:
                found, after = decoder.raw_decode(text, start)
            except ValueError:
                pass
            else:
                yield line, found
                line += text.count("\n", position, after)
                position = after
                continue
        if start < end:
            yield line, text[position:end].rstrip("\r")
        position, line = end + 1, line + 1


class _Reader:
    """What has been read so far.

    Rules of one list belong to one family, and routes of one list without a table to one table, so both wait
    until their list has ended.
    """

    def __init__(self, family: Family | None, name: str) -> None:
        self._family = family
        self._name = name
        self._addresses: list[Address] = []
        self._routes: list[Route] = []
        self._rules: list[RoutingRule] = []
        self._interfaces: list[str] = []
        self._assumed: list[str] = []
        self._unread: list[Unread] = []
        self._link = ""  #: the interface that following lines are about
        self._waiting_rules: list[tuple[int, Object]] = []
        self._waiting_routes: list[tuple[int, Object]] = []

    def dump(self) -> Dump:
        self._end_lists()
        return Dump(
            tuple(self._addresses),
            tuple(self._routes),
            tuple(self._rules),
            tuple(self._interfaces),
            tuple(self._assumed),
            tuple(sorted(self._unread, key=lambda each: each.line)),
        )

    def _end_lists(self) -> None:
        self._end_rules()
        self._end_routes()

    def _miss(self, line: int, text: object, why: str) -> None:
        self._unread.append(Unread(line, str(text).strip()[:200], shown(why), self._name))

    # --- plain text ---

    def line(self, number: int, text: str) -> None:
        """Read one line."""
        if self._is_of_link(number, text):
            return
        self._link = ""
        rule = ip_text.rule(text)
        if rule:
            if self._waiting_rules and rule["priority"] < self._waiting_rules[-1][1]["priority"]:
                self._end_rules()  # a second list
            self._waiting_rules.append((number, rule))
            return
        self._end_rules()
        for part in text.split("\\"):  # as `ip -oneline` writes several lines
            self._route_line(number, part)

    def _route_line(self, number: int, text: str) -> None:
        hop = ip_text.nexthop(text)
        if hop and self._waiting_routes:
            self._waiting_routes[-1][1].setdefault("nexthops", []).append(hop)
            return
        if text.split()[:1] == ["nh_info"]:  # `ip -details`: the nexthop object, whose ways follow too
            return
        route = ip_text.route(text)
        if route:
            self._waiting_routes.append((number, route))
        else:
            self._miss(number, text, "not a line of `ip rule`, `ip route` or `ip addr`")

    def _is_of_link(self, number: int, text: str) -> bool:
        """Read a line if it is about an interface, and tell whether it is."""
        name = ip_text.link(text)
        if name:
            self._end_lists()
            self._interfaces.append(name)
            self._link = name
            return True
        one_line = ip_text.one_line_address(text)
        if one_line:
            self._end_lists()
            name, words = one_line
            if name not in self._interfaces:
                self._interfaces.append(name)
            self._take_addresses(number, {"ifname": name, "addr_info": [words]})
            return True
        if not self._link or not text[:1].isspace():
            return False
        words_of_address = ip_text.address(text)
        if words_of_address:
            self._take_addresses(number, {"ifname": self._link, "addr_info": [words_of_address]})
        return True  # else a line about the link itself

    # --- JSON ---

    def document(self, line: int, document: object) -> None:
        """Read what one run of `ip -json` has printed."""
        self._link = ""
        self._end_lists()
        for each in document if isinstance(document, list) else [document]:
            if not isinstance(each, dict):
                self._miss(line, each, "not an object of `ip -json`")
            elif "priority" in each:
                self._waiting_rules.append((line, each))
            elif "dst" in each:
                self._waiting_routes.append((line, each))
            elif "ifname" in each:
                self._interfaces.append(str(each["ifname"]))
                self._take_addresses(line, each)
            elif each:  # iproute2 before 5.0 prints an empty object for what it leaves out
                self._miss(line, each, "not a rule, a route or an interface")
        self._end_lists()

    # --- what is the same in both ---

    def _take_addresses(self, line: int, link: Object) -> None:
        try:
            self._addresses += ip_objects.addresses(link)
        except _MISFITS as error:
            self._miss(line, link, f"an address that cannot be read ({error})")

    def _end_rules(self) -> None:
        waiting, self._waiting_rules = self._waiting_rules, []
        if not waiting:
            return
        family, guessed = _family_of_rules([words for _, words in waiting], self._family)
        if guessed:
            self._assumed.append(
                f"{self._name} the rules from line {waiting[0][0]} on are taken for those of {guessed}: "
                "none of them has an address".lstrip()
            )
        for line, words in waiting:
            try:
                self._rules.append(ip_objects.rule(words, family))
            except _MISFITS as error:
                self._miss(line, words, f"a rule that cannot be read ({error})")

    def _end_routes(self) -> None:
        waiting, self._waiting_routes = self._waiting_routes, []
        named = any("table" in words for _, words in waiting)
        for line, words in waiting:
            # `ip route show table local` names no table, nor does `ip route`, which shows no such routes.
            is_local = not named and words.get("type", "unicast") in _LOCAL_KINDS
            if is_local and _LOCAL_ASSUMED not in self._assumed:
                self._assumed.append(_LOCAL_ASSUMED)
            self._take_route(line, words, LOCAL_TABLE if is_local else MAIN_TABLE)

    def _take_route(self, line: int, words: Object, table: str) -> None:
        try:
            route, notes = ip_objects.route(words, table)
        except _MISFITS as error:
            self._miss(line, words, f"a route that cannot be read ({error})")
            return
        about = route.text if route else words.get("dst", "")
        for note in notes:
            self._miss(line, f"ip route {about}", note)
        if route:
            self._routes.append(route)


_LOCAL_KINDS = frozenset({"local", "broadcast", "anycast", "2", "3", "4"})
_LOCAL_ASSUMED = "local and broadcast routes without a table are taken for those of the table local"
_TITLES = {IPV4: "IPv4", IPV6: "IPv6"}


def _family_of_rules(rules: Sequence[Object], given: Family | None) -> tuple[Family, str]:
    """Return the family of a list of rules, and its name if it is a guess.

    An address tells it. IPv4 alone begins with a rule for the table default (fib_default_rules_init).
    """
    for words in rules:
        family = ip_objects.family_of_rule(words)
        if family:
            return family, ""
    if given:
        return given, ""
    lookups = {(words["priority"], table_name(words.get("table", ""))) for words in rules}
    if (32767, DEFAULT_TABLE) in lookups:
        return IPV4, ""
    guess: Family = IPV6 if (32766, MAIN_TABLE) in lookups else IPV4
    return guess, _TITLES[guess]
