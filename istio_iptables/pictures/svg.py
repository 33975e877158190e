"""svg: a picture as SVG, to look at, to print, and to put into a page; laid out by layout.py."""

from __future__ import annotations

from . import style
from .layout import (
    CENTRE,
    CHAIN_HEADER,
    HEADER,
    LINE,
    MARGIN,
    OUTCOME,
    PADDING,
    PORT_HEIGHT,
    SMALL,
    SMALL_LINE,
    STRONG,
    TEXT,
    TITLE,
    Box,
    effect_lines,
    layout,
    title_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .layout import Layout, Line, PlacedChain, PlacedHook, PlacedNode, PlacedRow, PlacedStage
    from .measure import Font
    from .model import Picture, Role, Way

#: The width of a character of a fixed-width font of 12.5 pixels.
_MONO = 7.55


def text(picture: Picture, way: Way | None = None) -> str:
    """Return a picture as a file; with `way` that is lit up."""
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + element(picture, way, style.css())


def element(
    picture: Picture,
    way: Way | None = None,
    css: str = "",
    *,
    name: str = "picture",
    interactive: bool = False,
) -> str:
    """Return the element `svg`; without `css` the page around it has the style sheet (see style.css).

    `name` begins the ids. `interactive`: it has the numbers of steps for every row, hidden, for a script; and
    no heading and no notes, which the page has.
    """
    return "".join(f"{line}\n" for line in _Drawing(picture, way, css, name, interactive).lines())


def escaped(value: str) -> str:
    """Return a text for XML and HTML, in elements and in quoted attributes."""
    found = value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    return "".join(c if c >= " " or c in "\t\n" else "�" for c in found)


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


class _Drawing:
    def __init__(self, picture: Picture, way: Way | None, css: str, name: str, interactive: bool) -> None:
        self._picture = picture
        self._way = way
        self._css = css
        self._name = name
        self._interactive = interactive
        self._roles: Mapping[str, Role] = picture.roles()
        self._ports = picture.ports()

    def lines(self) -> Iterator[str]:
        """Yield the lines of the element."""
        width = self._width()
        heading = list(self._heading(width))
        top = sum(height for *_, height in heading) + MARGIN
        placed = layout(self._picture, top)
        footer = list(self._footer(placed.width))
        height = placed.height + 26 + 24 + sum(h for *_, h in footer) + MARGIN / 2
        kind = "picture lit" if self._way else "picture"
        label = f"{self._name}-title {self._name}-desc"
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="{kind}" role="img" aria-labelledby="{label}" '
            f'viewBox="0 0 {_number(placed.width)} {_number(height)}" '
            f'width="{_number(placed.width)}" height="{_number(height)}">'
        )
        yield f'<title id="{self._name}-title">{escaped(self._picture.title)}</title>'
        yield f'<desc id="{self._name}-desc">{escaped(self._described())}</desc>'
        if self._css:
            yield f"<style>{self._css}</style>"
        yield f'<rect class="page" width="{_number(placed.width)}" height="{_number(height)}"/>'
        yield from self._texts(heading, MARGIN)
        for hook in placed.hooks:
            yield from self._hook(hook)
        for node in placed.nodes:
            yield from self._node(node)
        for line in sorted(placed.lines, key=lambda line: line.edge.kind in ("redirect", "tproxy")):
            yield from self._line(line)
        if placed.outcomes:
            yield from self._outcomes(placed.outcomes)
        yield from self._badges(placed)
        yield from self._legend(placed, placed.height + 26)
        yield from self._texts(footer, placed.height + 26 + 24)
        yield "</svg>"

    def _width(self) -> float:
        from .layout import COLUMN, GUTTER

        return 2 * (MARGIN + COLUMN + GUTTER) + CENTRE

    def _described(self) -> str:
        if self._way:
            return f"{self._way.title}. {self._way.conclusion}"
        return "; ".join(f"{name} {value}" for name, value in self._picture.facts)

    # --- text

    def _heading(self, width: float) -> Iterator[tuple[str, str, Font, float]]:
        """Yield the lines above the picture: text, class, font and height."""
        if self._interactive:
            return
        room = width - 2 * MARGIN
        for line in TITLE.lines(self._picture.title, room):
            yield line, "title", TITLE, 27
        facts = " · ".join(f"{name} {value}" for name, value in self._picture.facts)
        for line in TEXT.lines(facts, room):
            yield line, "soft", TEXT, 19
        if self._way:
            for line in STRONG.lines(f"{self._way.title}: {self._way.conclusion}", room):
                yield line, "strong", STRONG, 19
        yield "", "", TEXT, 6

    def _footer(self, width: float) -> Iterator[tuple[str, str, Font, float]]:
        for note in () if self._interactive else self._picture.notes:
            for line in SMALL.lines(note, width - 2 * MARGIN):
                yield line, "small soft", SMALL, SMALL_LINE

    def _texts(self, lines: Sequence[tuple[str, str, Font, float]], y: float) -> Iterator[str]:
        for line, kind, font, height in lines:
            y += height
            if line:
                yield self._text(MARGIN, y - height * 0.3, line, font, kind)

    def _text(self, x: float, y: float, words: str, font: Font, kind: str = "", anchor: str = "start") -> str:
        return self._set(x, y, words, font.width(words), kind, anchor)

    def _set(self, x: float, y: float, words: str, width: float, kind: str, anchor: str) -> str:
        """Return text that is as wide as was measured, whatever font there is."""
        anchored = "" if anchor == "start" else f' text-anchor="{anchor}"'
        named = f' class="{kind}"' if kind else ""
        length = f' textLength="{_number(width)}" lengthAdjust="spacingAndGlyphs"' if len(words) > 3 else ""
        return f'<text x="{_number(x)}" y="{_number(y)}"{named}{anchored}{length}>{escaped(words)}</text>'

    def _mono(self, x: float, y: float, words: str) -> str:
        return self._set(x, y, words, _MONO * len(words), "mono", "start")

    # --- hooks, tables, chains, rules

    def _group(self, kind: str, name: str, *more: str) -> str:
        lit = " on" if self._way and name in self._way.ids else ""
        extra = "".join(f" {each}" for each in more if each)
        return f'<g id="{self._name}-{name}" class="{kind}{extra}{lit}">'

    def _hook(self, placed: PlacedHook) -> Iterator[str]:
        box = placed.box
        yield self._group("hook", placed.hook.id)
        yield _rect(box, "back", 6)
        name = placed.hook.name.upper()
        yield self._mono(box.x + PADDING + 3, box.y + 20, name)
        x = box.x + PADDING + 3 + _MONO * len(name) + 10
        yield self._text(x, box.y + 20, placed.hook.title, STRONG, "strong")
        for stage, following in zip(placed.stages, (*placed.stages[1:], None), strict=True):
            yield from self._stage(stage)
            if following:
                yield from _arrow(((box.centre, stage.box.bottom), (box.centre, following.box.y)), "flow")
        yield "</g>"

    def _stage(self, placed: PlacedStage) -> Iterator[str]:
        box, stage = placed.box, placed.stage
        yield self._group("stage", stage.id)
        yield _rect(box, "back", 4)
        yield self._text(box.x + PADDING, box.y + 17, title_of(stage), STRONG, "strong")
        first, *rest = placed.note
        yield self._text(box.right - PADDING, box.y + 17, first, SMALL, "small soft", "end")
        for at, line in enumerate(rest, 1):
            yield self._text(box.x + PADDING, box.y + 17 + at * SMALL_LINE, line, SMALL, "small soft")
        for chain in placed.chains:
            yield from self._chain(chain)
        yield "</g>"

    def _chain(self, placed: PlacedChain) -> Iterator[str]:
        box, chain = placed.box, placed.chain
        yield self._group("chain", chain.id, self._to(chain.id))
        yield _rect(box, "back")
        yield _rect(Box(box.x, box.y, box.width, CHAIN_HEADER), "cap")
        yield self._mono(box.x + 8, box.y + 16, chain.name)
        if chain.is_base:
            x = box.x + 8 + _MONO * len(chain.name) + 10
            yield self._text(x, box.y + 16, "the hook begins here", SMALL, "small soft")
        for row in placed.rows:
            yield from self._row(row)
        if chain.otherwise:
            words = f"no rule decides: {chain.otherwise}"
            yield self._text(box.x + 36, box.bottom - 7, words, SMALL, "small soft")
        yield "</g>"

    def _to(self, name: str) -> str:
        role = self._roles.get(name, "")
        return f"to-{role}" if role not in ("", "tunnel") else ""

    def _row(self, placed: PlacedRow) -> Iterator[str]:
        row, box, effect = placed.row, placed.box, placed.effect
        yield self._group("row", row.id, row.kind, self._to(row.id))
        yield f"<title>{escaped(_tooltip(placed))}</title>"
        yield _rect(Box(box.x + 2, box.y + 2, box.width - 4, box.height - 4), "back", 3)
        yield f'<path class="rule" d="{_path(((box.x, box.y), (box.right, box.y)))}"/>'
        yield self._text(placed.number_x, box.middle + 4, row.number, SMALL, "small soft number")
        height = LINE * len(placed.reason) + SMALL_LINE * len(placed.condition)
        y = box.middle - height / 2
        for line in placed.reason:
            yield self._text(placed.text_x, y + 12.5, line, TEXT)
            y += LINE
        for line in placed.condition:
            yield self._text(placed.text_x, y + 11.5, line, SMALL, "small soft")
            y += SMALL_LINE
        yield _rect(effect, "effect", 5 if row.leads_to else effect.height / 2)
        for at, line in enumerate(effect_lines(row)):
            y = effect.y + 16 + at * LINE
            yield self._text(effect.centre, y, line, STRONG, "strong says", "middle")
        yield "</g>"

    def _badge(self, name: str, x: float, y: float) -> Iterator[str]:
        """Yield the number that a row, port or node has on the way that is lit up."""
        at, kind = "", ""
        if self._way and name in self._way.order:
            at, kind = str(self._way.order.index(name) + 1), ' class="on"'
        elif not self._interactive:
            return
        yield (
            f'<g data-of="{name}"{kind}><g class="badge">'
            f'<circle cx="{_number(x)}" cy="{_number(y)}" r="9.5"/>'
            f'<text x="{_number(x)}" y="{_number(y + 4.2)}" text-anchor="middle">{at}</text></g></g>'
        )

    # --- who sends and receives

    def _node(self, placed: PlacedNode) -> Iterator[str]:
        node, box = placed.node, placed.box
        yield self._group("node", node.id, node.kind)
        yield _rect(box, "back", 14 if node.kind == "network" else 5)
        if node.ports:
            yield self._text(box.x + 56, box.y + 22, node.title, STRONG, "strong")
            for at, line in enumerate(node.lines, 1):
                yield self._text(box.x + PADDING, box.y + 22 + at * SMALL_LINE, line, SMALL, "small soft")
        else:
            yield self._text(box.x + 16, box.middle + 5, node.title, STRONG, "strong")
            x = box.x + 30 + STRONG.width(node.title)
            yield self._text(x, box.middle + 5, ", ".join(node.lines), TEXT, "soft")
        for port, where, lines in placed.ports:
            role = "" if port.role == "tunnel" else f"to-{port.role}"
            yield self._group("port", port.id, role)
            yield _rect(where, "back", 3)
            words = f"{port.number} {port.title}"
            yield self._text(where.x + PADDING, where.y + 20, words, STRONG, "strong")
            for at, line in enumerate(lines):
                y = where.y + PORT_HEIGHT + 6 + at * SMALL_LINE
                yield self._text(where.x + PADDING, y, line, SMALL, "small soft")
            yield "</g>"
        yield "</g>"

    def _badges(self, placed: Layout) -> Iterator[str]:
        """Yield the numbers of rows, ports and nodes on the way that is lit up."""
        for row in (row for h in placed.hooks for s in h.stages for c in s.chains for row in c.rows):
            yield from self._badge(row.row.id, row.effect.x, row.effect.y)
        for each in placed.nodes:
            y = each.box.y + 18 if each.ports else each.box.middle
            yield from self._badge(each.node.id, each.box.right - 18, y)
            for port, where, _ in each.ports:
                yield from self._badge(port.id, where.right - 14, where.y + PORT_HEIGHT / 2)

    # --- lines

    def _line(self, line: Line) -> Iterator[str]:
        edge = line.edge
        port = self._ports.get(edge.target)
        role = f"to-{port.role}" if port else self._to(edge.target) if edge.kind == "call" else ""
        lit = " on" if self._way and (edge.source, edge.target) in self._way.edges else ""
        kind = " ".join(part for part in ("line", edge.kind, role) if part)
        yield f'<g class="{kind}{lit}" data-from="{edge.source}" data-to="{edge.target}">'
        yield from _drawn(line.points)
        if line.label_at and edge.label:
            x, y = line.label_at
            yield self._text(x, y, edge.label, SMALL, "small", line.label_anchor)
        yield "</g>"

    def _outcomes(self, box: Box) -> Iterator[str]:
        """Yield a table of connections and what becomes of them."""
        yield '<g class="outcomes">'
        yield self._text(box.x, box.y + 17, "Where connections go", STRONG, "strong")
        for at, outcome in enumerate(self._picture.outcomes):
            y = box.y + HEADER + OUTCOME * (at + 0.5)
            port = self._ports.get(outcome.leads_to)
            role = f" to-{port.role}" if port and port.role != "tunnel" else ""
            rule = _path(((box.x, y - OUTCOME / 2), (box.right, y - OUTCOME / 2)))
            yield f'<path class="rule" d="{rule}"/>'
            yield self._text(box.x, y + 4, outcome.title, SMALL, "small")
            yield f'<g class="row{role}">'
            yield self._text(box.right, y + 4, outcome.becomes, STRONG, "strong says", "end")
            yield "</g>"
        yield "</g>"

    def _legend(self, placed: Layout, y: float) -> Iterator[str]:
        """Yield what each kind of line means."""
        x: float = MARGIN
        yield '<g class="legend">'
        roles = {port.role for port in self._ports.values()}
        shown = [(kind, words) for role, kind, words in _LEGEND if not role or role in roles]
        for kind, words in shown:
            yield f'<g class="line {kind}">'
            yield from _drawn(((x, y), (x + 44, y)))
            yield "</g>"
            yield self._text(x + 52, y + 4, words, SMALL, "small")
            x += 52 + SMALL.width(words) + 24
        yield "</g>"


_LEGEND = (
    ("out", "redirect to-out", "redirected to the proxy's outbound port"),
    ("in", "redirect to-in", "redirected to the proxy's inbound port"),
    ("dns", "redirect to-dns", "redirected to the agent's DNS"),
    ("other", "redirect to-other", "redirected to another port"),
    ("", "send", "sent"),
    ("", "call", "goes on in a chain"),
    ("", "direct", "left as it is"),
)


def _tooltip(placed: PlacedRow) -> str:
    row = placed.row
    more = row.count - len(row.texts)
    lines = [*row.texts, f"… {more:,} more" if more > 0 else ""]
    return "\n".join(line for line in lines if line)


def _rect(box: Box, kind: str, radius: float = 0) -> str:
    rounded = f' rx="{_number(radius)}"' if radius else ""
    return (
        f'<rect class="{kind}" x="{_number(box.x)}" y="{_number(box.y)}" '
        f'width="{_number(box.width)}" height="{_number(box.height)}"{rounded}/>'
    )


def _path(points: Sequence[tuple[float, float]]) -> str:
    """Return the data of a path; from point to point one coordinate changes."""
    x, y = points[0]
    data = f"M{_number(x)} {_number(y)}"
    for next_x, next_y in points[1:]:
        data += f"V{_number(next_y)}" if next_x == x else f"H{_number(next_x)}"
        x, y = next_x, next_y
    return data


#: The length of an arrow's head, and half its width.
_HEAD, _HALF = 9.0, 4.5


def _drawn(points: Sequence[tuple[float, float]]) -> Iterator[str]:
    """Yield a line and the head of its arrow."""
    (x, y), (end_x, end_y) = points[-2], points[-1]
    dx = (end_x > x) - (end_x < x)
    dy = (end_y > y) - (end_y < y)
    base = (end_x - dx * _HEAD, end_y - dy * _HEAD)
    yield f'<path class="edge" d="{_path((*points[:-1], (base[0] + dx, base[1] + dy)))}"/>'
    corners = (
        (end_x, end_y),
        (base[0] + dy * _HALF, base[1] + dx * _HALF),
        (base[0] - dy * _HALF, base[1] - dx * _HALF),
    )
    shape = " ".join(f"{_number(a)},{_number(b)}" for a, b in corners)
    yield f'<polygon class="head" points="{shape}"/>'


def _arrow(points: Sequence[tuple[float, float]], kind: str) -> Iterator[str]:
    yield f'<g class="{kind}">'
    yield from _drawn(points)
    yield "</g>"
