"""report: one page for a browser about a namespace.

It has the settings, the picture, connections that light up their way when they are chosen, and the rules with
their reasons and counters.

The page needs nothing from elsewhere, and its policy (Content-Security-Policy) lets it fetch nothing. Without
JavaScript it has all ways as text.
"""

from __future__ import annotations

from .. import __version__
from ..rules.istio import PROGRAM
from ..settings.config import Config
from ..startup.record import Record
from ..trace.steps import PassedStep, RouteStep, RuleStep
from ..trace.text import packet_text
from . import style, svg
from .examples import examples
from .layout import title_of
from .subject import followed, way_of
from .svg import escaped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ..trace.answer import Answer
    from ..trace.follow import Hop
    from .examples import Example
    from .model import Chain, Picture, Row, Way
    from .subject import Followed, Subject


class _Connection(Record):
    """A connection of the page: where it came from, what became of it, and its way in the picture."""

    example: Example
    found: Followed
    way: Way


def page(
    subject: Subject,
    config: Config,
    settings: Sequence[tuple[str, str, str]] | None = (),
    arguments: str = "",
) -> str:
    """Return the page.

    `config` is what the connections are made for. `settings` are those that differ from their defaults: the
    flag, its value, and where that was given; None if they are not known. `arguments` are those that were
    given for a command line.
    """
    picture = subject.picture()
    connections = tuple(_connections(subject, config, picture))
    return _Page(subject, picture, connections, settings, arguments).text()


def _connections(subject: Subject, config: Config, picture: Picture) -> Iterator[_Connection]:
    for example in examples(config, subject.world.network):
        found = followed(subject, example.question)
        yield _Connection(example, found, way_of(subject, picture, found, example.title))


class _Page:
    def __init__(
        self,
        subject: Subject,
        picture: Picture,
        connections: Sequence[_Connection],
        settings: Sequence[tuple[str, str, str]] | None,
        arguments: str,
    ) -> None:
        self._subject = subject
        self._picture = picture
        self._connections = connections
        self._settings = settings
        self._arguments = arguments

    def text(self) -> str:
        """Return the whole page."""
        css, script = style.css() + _part("page.css"), _part("page.js")
        head = (
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_policy(css, script)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escaped(self._picture.title)}</title>",
            '<link rel="icon" href="data:,">',
            f"<style>{css}</style>",
            "</head>",
            "<body>",
        )
        lines = [*head, *self._body(), f"<script>{script}</script>", "</body>", "</html>"]
        return "".join(f"{line}\n" for line in lines)

    def _body(self) -> Iterator[str]:
        facts = " · ".join(f"{name} {value}" for name, value in self._picture.facts)
        yield f"<header><h1>{escaped(self._picture.title)}</h1>"
        yield f'<p class="soft">{escaped(facts)}</p>'
        yield '<nav aria-label="Parts of this page"><ul>'
        for name, title in _PARTS:
            yield f'<li><a href="#{name}">{title}</a></li>'
        yield "</ul></nav></header>"
        yield "<main>"
        yield from self._given()
        yield from self._way()
        yield from self._ways()
        yield from self._rules()
        yield "</main>"
        yield "<footer>"
        yield from (f'<p class="soft">{escaped(note)}</p>' for note in self._picture.notes)
        yield f'<p class="soft">Made by {PROGRAM} {__version__}.</p></footer>'

    # --- the settings

    def _given(self) -> Iterator[str]:
        yield '<section aria-labelledby="settings"><h2 id="settings">Settings</h2>'
        yield '<div class="beside"><div>'
        if self._settings:
            yield "<table><caption>Settings that differ from their defaults</caption>"
            yield '<thead><tr><th scope="col">setting</th><th scope="col">value</th>'
            yield '<th scope="col">given by</th></tr></thead><tbody>'
            for name, value, origin in self._settings:
                yield f'<tr><th scope="row"><code>{escaped(name)}</code></th>'
                yield f'<td data-label="value">{_value(value)}</td>'
                yield f'<td data-label="given by">{escaped(origin)}</td></tr>'
            yield "</tbody></table>"
        elif self._settings is None:
            yield "<p>None were given, and no rule is known as one of istio-iptables. The proxy is taken to "
            yield "have the default ports and users.</p>"
        else:
            yield "<p>All settings have their defaults.</p>"
        yield "</div><div><table><caption>Who listens</caption>"
        yield '<thead><tr><th scope="col">port</th><th scope="col">whose</th>'
        yield '<th scope="col">what for</th></tr></thead><tbody>'
        for node in self._picture.nodes:
            for port in node.ports:
                whose = ", ".join((node.title, *node.lines))
                what = ": ".join(part for part in (port.title, port.does) if part)
                yield f'<tr><th scope="row">{port.number}</th>'
                yield f'<td data-label="whose">{escaped(whose)}</td>'
                yield f'<td data-label="">{escaped(what)}</td></tr>'
        yield "</tbody></table></div></div></section>"

    # --- the picture

    def _way(self) -> Iterator[str]:
        yield '<section class="flow" aria-labelledby="flow"><h2 id="flow">The way of packets</h2>'
        yield '<form id="choose" hidden><fieldset><legend>Light up the way of a connection</legend>'
        yield '<div class="choices">'
        yield '<label><input type="radio" name="way" value="" checked> <span>none: all rules</span></label>'
        for each in self._connections:
            yield self._choice(each)
        yield "</div></fieldset>"
        nothing = "Choose a connection: what becomes of it is said here, and its way is lit up below."
        yield f'<p id="conclusion" role="status" aria-live="polite">{nothing}</p></form>'
        yield '<div class="figure" role="region" tabindex="0" aria-label="Picture of the way of packets">'
        yield svg.element(self._picture, interactive=True)
        yield "</div></section>"

    def _choice(self, each: _Connection) -> str:
        way = each.way
        edges = " ".join(sorted(f"{source}>{target}" for source, target in way.edges))
        data = {
            "ids": " ".join(sorted(way.ids)),
            "edges": edges,
            "order": " ".join(way.order),
            "conclusion": f"{_sentence(way.title)}: {way.conclusion}",
        }
        attributes = " ".join(f'data-{name}="{escaped(value)}"' for name, value in data.items())
        return (
            f'<label><input type="radio" name="way" value="{each.example.id}" {attributes}> '
            f"<span>{escaped(way.title)} {_verdict(each.found.verdict)}</span></label>"
        )

    # --- the ways as text

    def _ways(self) -> Iterator[str]:
        yield '<section class="ways" aria-labelledby="ways"><h2 id="ways">Connections, step by step</h2>'
        for each in self._connections:
            name = each.example.id
            yield f'<article class="way" id="way-{name}" aria-labelledby="title-{name}">'
            title = escaped(_sentence(each.example.title))
            yield f'<h3 id="title-{name}">{title} {_verdict(each.found.verdict)}</h3>'
            yield f"<p>{escaped(each.found.conclusion)}</p>"
            yield "<ol>"
            for hop in each.found.hops:
                yield from _hop(hop)
            yield "</ol>"
            command = each.example.command(self._arguments, live=self._subject.live)
            yield f'<code class="command">{escaped(command)}</code>'
            yield "</article>"
        yield "</section>"

    # --- the rules

    def _rules(self) -> Iterator[str]:
        yield '<section aria-labelledby="rules"><h2 id="rules">Rules, and why they are there</h2>'
        for hook in self._picture.hooks:
            for stage in hook.stages:
                if not stage.chains:
                    continue
                heading = f"{hook.name.upper()}: {title_of(stage)}"
                yield f"<h3>{escaped(heading)}</h3>"
                if stage.note:
                    yield f'<p class="soft">{escaped(stage.note)}</p>'
                for chain in stage.chains:
                    yield from self._chain(chain)
        yield "</section>"

    def _chain(self, chain: Chain) -> Iterator[str]:
        names = ["rule", "why it is there", "for what", "what happens", "as the tool prints it"]
        counted = self._subject.live
        yield f'<table class="rules"><caption class="mono">{escaped(chain.name)}</caption><thead><tr>'
        yield "".join(f'<th scope="col">{name}</th>' for name in names)
        if counted:
            yield '<th scope="col" class="number">packets</th><th scope="col" class="number">bytes</th>'
        yield "</tr></thead><tbody>"
        for row in chain.rows:
            yield f'<tr id="rule-{row.id}"><td class="name" data-label="rule">{row.number}</td>'
            yield f'<td data-label="">{escaped(row.reason or _NO_REASON)}</td>'
            yield f'<td data-label="for">{_condition(row)}</td>'
            yield f'<td data-label="what happens">{escaped(row.then)}</td>'
            yield f'<td data-label="">{_texts(row)}</td>'
            if counted:
                packets, size = (row.counters.packets, row.counters.bytes) if row.counters else (0, 0)
                yield f'<td class="number" data-label="packets">{packets:,}</td>'
                yield f'<td class="number" data-label="bytes">{size:,}</td>'
            yield "</tr>"
        if chain.otherwise:
            columns = len(names) + 2 * counted
            words = f"no rule decides: {chain.otherwise}"
            yield f'<tr><td colspan="{columns}" class="soft">{escaped(words)}</td></tr>'
        yield "</tbody></table>"


_NO_REASON = "not known: no settings mean it"
_PARTS = (
    ("settings", "Settings"),
    ("flow", "The way of packets"),
    ("ways", "Connections, step by step"),
    ("rules", "Rules"),
)


def _hop(hop: Hop) -> Iterator[str]:
    answer: Answer = hop.answer
    sender = hop.sender or "sent"
    yield f"<li>{escaped(sender)}: <span>{escaped(packet_text(answer.asked.packet))}</span>"
    for path in answer.paths:
        if path.assumed:
            assumed = "; ".join(f"{what}: {how}" for what, how in path.assumed)
            yield f"<p>If {escaped(assumed)}:</p>"
        yield "<ol>"
        yield from (f"<li>{escaped(words)}</li>" for words in _steps(path.steps))
        yield f"<li>{escaped(path.end)}; verdict: {escaped(str(path.verdict))}</li></ol>"
    yield "</li>"


def _steps(steps: Iterable[object]) -> Iterator[str]:
    for step in steps:
        if isinstance(step, RuleStep):
            why = f": {step.reason}" if step.reason else f": {step.text}"
            yield f"{step.chain} in {step.table}, rule {step.number}{why}; {step.effect}"
        elif isinstance(step, RouteStep):
            to = "this machine" if step.kind == "local" else step.interface or step.kind
            yield f"route to {to} ({step.rule or 'no rule'}; {step.why})"
        elif isinstance(step, PassedStep) and step.nearest:
            missed = f"rule {step.nearest} misses by: {step.missed}"
            yield f"{step.chain}: {_rules(step.count)} not match; {missed}"


def _rules(count: int) -> str:
    return "1 rule does" if count == 1 else f"{count:,} rules do"


def _condition(row: Row) -> str:
    """Return what has to hold; the values of a long list can be unfolded."""
    text = escaped(row.condition())
    for clause in row.when:
        if clause.text() != clause.text(len(clause.values)):
            every = escaped(", ".join(clause.values))
            text += f"<details><summary>all {len(clause.values):,} {clause.noun}</summary>{every}</details>"
    return text


def _texts(row: Row) -> str:
    more = row.count - len(row.texts)
    texts = "<br>".join(f"<code>{escaped(text)}</code>" for text in row.texts)
    return f"{texts}<br>… {more:,} more" if more > 0 else texts


#: A longer value is folded: a list may have twenty thousand members.
_MOST_OF_A_VALUE = 200


def _value(value: str) -> str:
    """Return the value of a setting; lines may break after a comma."""
    if not value:
        return '<span class="soft">empty</span>'
    shown = escaped(value).replace(",", ",<wbr>")
    if len(value) <= _MOST_OF_A_VALUE:
        return shown
    return f"<details><summary>{value.count(',') + 1:,} members</summary>{shown}</details>"


def _verdict(verdict: str) -> str:
    return f'<span class="verdict">{escaped(verdict)}</span>'


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


# --- what the browser may do ------------------------------------------------------------------


def _policy(css: str, script: str) -> str:
    """Return a policy that lets nothing be fetched, and nothing be run but the page's own script."""
    rules = (
        "default-src 'none'",
        f"style-src '{_hash(css)}'",
        f"script-src '{_hash(script)}'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    )
    return "; ".join(rules)


def _hash(text: str) -> str:
    from base64 import b64encode
    from hashlib import sha256

    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


def _part(name: str) -> str:
    """Return a file of this package."""
    from importlib.resources import files

    return files(__package__).joinpath(name).read_text(encoding="utf-8")
