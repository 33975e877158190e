"""layout: where everything of a picture is.

What processes send is on the left, what comes in on the right, the proxy between them. Lengths are pixels.
"""

from __future__ import annotations

from ..startup.record import Record
from .measure import Font

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Literal, TypeAlias

    from .model import Chain, Edge, Hook, Node, Picture, Port, Row, Stage

    Side: TypeAlias = Literal["left", "right"]
    Point: TypeAlias = tuple[float, float]

MARGIN = 24
COLUMN = 590  #: a hook
CENTRE = 184  #: the proxy
GUTTER = 54  #: between them: lines to the proxy
PADDING = 9
LANE = 8  #: between lines that run side by side
NODE_HEIGHT = 38
PORT_HEIGHT = 30  #: a port, without its lines of text
GAP = 9
ARROW = 22  #: the room of an arrow between boxes
BAR = 24
HEADER = 28
CHAIN_HEADER = 22

TEXT = Font(13.5)
SMALL = Font(12)
STRONG = Font(13.5, bold=True)
TITLE = Font(21, bold=True)
LINE = 16  #: between lines of text
SMALL_LINE = 14.5


class Box(Record):
    """A rectangle."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """The x of its right edge."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """The y of its lower edge."""
        return self.y + self.height

    @property
    def middle(self) -> float:
        """The y of its middle."""
        return self.y + self.height / 2

    @property
    def centre(self) -> float:
        """The x of its middle."""
        return self.x + self.width / 2


class PlacedRow(Record):
    """A row: its box, that of the words for what it does, and its lines of text."""

    row: Row
    box: Box
    effect: Box
    number_x: float
    text_x: float
    reason: tuple[str, ...]
    condition: tuple[str, ...]


class PlacedChain(Record):
    """A chain: its box, and its rows."""

    chain: Chain
    box: Box
    rows: tuple[PlacedRow, ...]


class PlacedStage(Record):
    """A stage: its box, its chains, and the lines of its note, of which the first is beside its title."""

    stage: Stage
    box: Box
    chains: tuple[PlacedChain, ...]
    note: tuple[str, ...]


class PlacedHook(Record):
    """A hook on a side of the picture."""

    hook: Hook
    side: Side
    box: Box
    stages: tuple[PlacedStage, ...]


class PlacedNode(Record):
    """Who sends or receives, and the ports there, with lines that say what happens to what comes."""

    node: Node
    box: Box
    ports: tuple[tuple[Port, Box, tuple[str, ...]], ...] = ()


class Line(Record):
    """The line of an edge, with an arrow at its last point."""

    edge: Edge
    points: tuple[Point, ...]
    label_at: Point | None = None
    label_anchor: str = "start"


class Layout(Record):
    """All of a picture."""

    width: float
    height: float
    hooks: tuple[PlacedHook, ...]
    nodes: tuple[PlacedNode, ...]
    lines: tuple[Line, ...]
    outcomes: Box | None  #: room for them, None if there is none


def layout(picture: Picture, top: float) -> Layout:
    """Return where everything is; the title takes the pixels above `top`."""
    left = MARGIN
    centre = left + COLUMN + GUTTER
    right = centre + CENTRE + GUTTER
    width = right + COLUMN + MARGIN
    column_top = top + NODE_HEIGHT + ARROW
    out = tuple(_column(picture.out, "left", left, column_top))
    into = tuple(_column(picture.into, "right", right, column_top))
    listeners = tuple(_listeners(picture, (*out, *into), centre, column_top))
    columns = out[-1].box.bottom, into[-1].box.bottom
    bottom = max(*columns, *(each.box.bottom + 12 for each in listeners)) + ARROW + 14
    nodes = (
        PlacedNode(picture.node("app"), Box(left, top, COLUMN, NODE_HEIGHT)),
        PlacedNode(picture.node("callers"), Box(right, top, COLUMN, NODE_HEIGHT)),
        *listeners,
        PlacedNode(picture.node("outside"), Box(left, bottom, COLUMN, NODE_HEIGHT)),
        PlacedNode(picture.node("served"), Box(right, bottom, COLUMN, NODE_HEIGHT)),
    )
    lowest = max(node.box.bottom for node in nodes)
    lines = tuple(_Router(picture, (*out, *into), nodes).lines())
    shorter = min((out, into), key=lambda column: column[-1].box.bottom)[-1].box
    return Layout(width, lowest, (*out, *into), nodes, lines, _outcomes(picture, shorter, bottom))


OUTCOME = 19  #: a line of the outcomes


def _outcomes(picture: Picture, above: Box, bottom: float) -> Box | None:
    """Return room for the outcomes below the last hook of a column, beside the line that leads down there."""
    height = HEADER + OUTCOME * len(picture.outcomes) + PADDING
    free = bottom - above.bottom - 2 * ARROW
    if not picture.outcomes or free < height:
        return None
    return Box(above.x + 152, above.bottom + ARROW + (free - height) / 2, COLUMN - 152, height)


# --- hooks ------------------------------------------------------------------------------------


def _column(hooks: Sequence[Hook], side: Side, x: float, y: float) -> Iterator[PlacedHook]:
    for hook in hooks:
        stages: list[PlacedStage] = []
        at = y + HEADER
        for stage in hook.stages:
            placed = _stage(stage, side, x + PADDING, at, COLUMN - 2 * PADDING)
            stages.append(placed)
            at = placed.box.bottom + GAP
        box = Box(x, y, COLUMN, at - GAP + PADDING - y)
        yield PlacedHook(hook, side, box, tuple(stages))
        y = box.bottom + ARROW


def _lanes(stage: Stage) -> int:
    """Return how many lines from rules to chains run side by side."""
    return sum(not chain.is_base for chain in stage.chains)


def _stage(stage: Stage, side: Side, x: float, y: float, width: float) -> PlacedStage:
    if not stage.chains:
        note = _beside(stage, width)
        return PlacedStage(stage, Box(x, y, width, BAR + SMALL_LINE * (len(note) - 1)), (), note)
    inner = PADDING + LANE * (_lanes(stage) + 1)
    outer = PADDING + LANE
    left, right = (outer, inner) if side == "left" else (inner, outer)
    note = _beside(stage, width)
    at = y + BAR + SMALL_LINE * (len(note) - 1)
    chains: list[PlacedChain] = []
    for chain in stage.chains:
        placed = _chain(chain, side, x + left, at, width - left - right)
        chains.append(placed)
        at = placed.box.bottom + GAP
    return PlacedStage(stage, Box(x, y, width, at - GAP + PADDING - y), tuple(chains), note)


def title_of(stage: Stage) -> str:
    """Return the title of a stage with its priority."""
    return stage.title if stage.priority is None else f"{stage.title}, priority {stage.priority}"


def _beside(stage: Stage, width: float) -> tuple[str, ...]:
    """Return the note in lines; the first is beside the title."""
    room = width - STRONG.width(title_of(stage)) - 4 * PADDING
    if SMALL.width(stage.note) <= room:
        return (stage.note,)
    return ("", *SMALL.lines(stage.note, width - 2 * PADDING))


def _chain(chain: Chain, side: Side, x: float, y: float, width: float) -> PlacedChain:
    placed: list[PlacedRow] = []
    at = y + CHAIN_HEADER
    widest = max((_effect_width(row) for row in chain.rows), default=0)
    for row in chain.rows:
        placed.append(_row(row, side, x, at, width, widest if side == "right" else _effect_width(row)))
        at = placed[-1].box.bottom
    if chain.otherwise:
        at += SMALL_LINE + 7
    return PlacedChain(chain, Box(x, y, width, at - y), tuple(placed))


#: The room of a rule's number, and about the words for what it does.
_NUMBER = 30
_EFFECT_PADDING = 8


def _effect_width(row: Row) -> float:
    return max(map(STRONG.width, effect_lines(row))) + 2 * _EFFECT_PADDING


def _row(row: Row, side: Side, x: float, y: float, width: float, kept: float) -> PlacedRow:
    """Place a row; `kept` is the width that its text leaves for what it does."""
    words = effect_lines(row)
    effect_width = _effect_width(row)
    number = max(_NUMBER, SMALL.width(row.number) + 10)
    room = width - kept - number - 18
    reason = tuple(TEXT.lines(row.reason, room))
    condition = (*SMALL.lines(row.condition(), room), *SMALL.lines(counted(row), room))
    effect_height = LINE * len(words) + 6
    height = max(LINE * len(reason) + SMALL_LINE * len(condition), effect_height) + 8
    effect_x = x + width - effect_width - 6 if side == "left" else x + 6
    number_x = x + 6 if side == "left" else x + kept + 14
    effect = Box(effect_x, y + (height - effect_height) / 2, effect_width, effect_height)
    box = Box(x, y, width, height)
    return PlacedRow(row, box, effect, number_x, number_x + number - 4, reason, condition)


def counted(row: Row) -> str:
    """Return the counters of a row in words, nothing if they are unknown."""
    if row.counters is None:
        return ""
    packets = row.counters.packets
    return f"{packets:,} packet{'' if packets == 1 else 's'}, {row.counters.bytes:,} bytes"


def effect_lines(row: Row) -> list[str]:
    """Return in words what a row does, in lines."""
    return STRONG.lines(row.then, 170) or [row.kind]


# --- who listens ------------------------------------------------------------------------------


def _listeners(picture: Picture, hooks: Sequence[PlacedHook], x: float, top: float) -> Iterator[PlacedNode]:
    """Yield the boxes of those who listen, each port as near as can be to the rules that lead to it."""
    wanted: dict[str, list[float]] = {}
    for hook in hooks:
        for stage in hook.stages:
            for chain in stage.chains:
                for row in chain.rows:
                    for target in row.row.leads_to:
                        wanted.setdefault(target, []).append(row.effect.middle)
    heights = {name: sum(places) / len(places) for name, places in wanted.items()}
    listeners = sorted(
        (node for node in picture.nodes if node.ports), key=lambda node: _height(node, heights)
    )
    placed: list[PlacedNode] = []
    at = top + HEADER + ARROW
    for node in listeners:
        alone = _listener(node, heights, x, 0)
        ports = [box.y + PORT_HEIGHT / 2 for port, box, _ in alone.ports if port.id in heights]
        in_box = sum(ports) / len(ports) if ports else 0
        y = max(at, _height(node, heights) - in_box) if ports else at
        placed.append(_listener(node, heights, x, y))
        at = placed[-1].box.bottom + ARROW
    # As far down as the hooks go, and no further, if there is room above.
    lowest = max(hook.box.bottom for hook in hooks)
    for number in range(len(placed) - 1, -1, -1):
        box = placed[number].box
        if box.bottom > lowest:
            y = max(top + HEADER + ARROW, lowest - box.height)
            placed[number] = _listener(placed[number].node, heights, x, y)
        lowest = placed[number].box.y - ARROW
    yield from placed


def _listener(node: Node, heights: Mapping[str, float], x: float, y: float) -> PlacedNode:
    ports = sorted(node.ports, key=lambda port: heights.get(port.id, float("inf")))
    at = y + 30 + SMALL_LINE * len(node.lines)
    placed: list[tuple[Port, Box, tuple[str, ...]]] = []
    for port in ports:
        words = tuple(SMALL.lines(port.does, CENTRE - 4 * PADDING))
        box = Box(x + PADDING, at, CENTRE - 2 * PADDING, PORT_HEIGHT + SMALL_LINE * len(words))
        placed.append((port, box, words))
        at = box.bottom + GAP
    return PlacedNode(node, Box(x, y, CENTRE, at - GAP + PADDING - y), tuple(placed))


def _height(node: Node, heights: Mapping[str, float]) -> float:
    found = [heights[port.id] for port in node.ports if port.id in heights]
    return sum(found) / len(found) if found else float("inf")


# --- lines ------------------------------------------------------------------------------------


class _Router:
    """Lays the lines of edges along lanes, so that those to one place run together."""

    def __init__(self, picture: Picture, hooks: Sequence[PlacedHook], nodes: Sequence[PlacedNode]) -> None:
        self._edges = picture.edges
        self._hooks = {hook.hook.id: hook for hook in hooks}
        self._nodes = {node.node.id: node for node in nodes}
        self._ports = {port.id: box for node in nodes for port, box, _ in node.ports}
        self._rows: dict[str, tuple[PlacedRow, PlacedStage, PlacedHook]] = {}
        self._chains: dict[str, tuple[PlacedChain, int]] = {}
        self._stages: dict[str, PlacedStage] = {}
        for hook in hooks:
            for stage in hook.stages:
                self._stages[stage.stage.id] = stage
                lane = 0
                for chain in stage.chains:
                    lane += not chain.chain.is_base
                    self._chains[chain.chain.id] = (chain, lane)
                    for row in chain.rows:
                        self._rows[row.row.id] = (row, stage, hook)
        self._lanes: dict[tuple[str, str], int] = {}
        self._beside_column = 0  #: lines beside the columns, past hooks

    def _lane(self, side: str, port: str) -> float:
        """Return how far beside a hook the lines to a port run: those that go straight need no lane."""
        used = [name for of, name in self._lanes if of == side]
        at = self._lanes.setdefault((side, port), len(used))
        return min(20 + LANE * at, GUTTER - 12)

    def lines(self) -> Iterator[Line]:
        """Yield a line for every edge that is drawn."""
        for edge in self._edges:
            if edge.source in self._rows:
                yield self._from_row(edge)
            elif edge.source in self._hooks:
                yield self._from_hook(edge)
            else:
                yield self._from_node(edge)

    def _from_row(self, edge: Edge) -> Line:
        row, stage, hook = self._rows[edge.source]
        outward = 1 if hook.side == "left" else -1
        start = row.effect.right if hook.side == "left" else row.effect.x
        if edge.kind == "call":
            chain, lane = self._chains[edge.target]
            edge_x = chain.box.right if hook.side == "left" else chain.box.x
            x = edge_x + outward * (LANE * lane + 2)
            y = chain.box.y + CHAIN_HEADER / 2
            return Line(edge, ((start, row.effect.middle), (x, row.effect.middle), (x, y), (edge_x, y)))
        if edge.kind == "direct":
            return self._beside(edge, row, stage, hook)
        port = self._ports[edge.target]
        edge_x = port.x if hook.side == "left" else port.right
        y = port.y + PORT_HEIGHT / 2
        if abs(y - row.effect.middle) < 1:
            return Line(edge, ((start, y), (edge_x, y)))
        frame = hook.box.right if hook.side == "left" else hook.box.x
        x = frame + outward * self._lane(hook.side, edge.target)
        return Line(edge, ((start, row.effect.middle), (x, row.effect.middle), (x, y), (edge_x, y)))

    def _beside(self, edge: Edge, row: PlacedRow, stage: PlacedStage, hook: PlacedHook) -> Line:
        """Return the line of what is left as it is: down on the outer side, to the next stage."""
        left = hook.side == "left"
        x = stage.box.x + PADDING - 1 if left else stage.box.right - PADDING + 1
        start = row.box.x if left else row.box.right
        following = self._stages.get(edge.target)
        end = following.box.y if following else hook.box.bottom
        return Line(edge, ((start, row.box.middle), (x, row.box.middle), (x, end)))

    def _from_hook(self, edge: Edge) -> Line:
        hook = self._hooks[edge.source].box
        if edge.target == "prerouting":
            return self._by_lo(edge, hook)
        is_node = edge.target in self._nodes
        target = self._nodes[edge.target].box if is_node else self._hooks[edge.target].box
        if target.x != hook.x:  # from forward to the network, below all hooks
            x, y = target.right - 30, target.y - 10
            return Line(edge, ((hook.x + 60, hook.bottom), (hook.x + 60, y), (x, y), (x, target.y)))
        if any(hook.bottom < other.box.y < target.y for other in self._column(hook)):
            return self._past(edge, hook, target)
        x = hook.x + 60
        return Line(edge, ((x, hook.bottom), (x, target.y)), (x + 10, (hook.bottom + target.y) / 2 + 4))

    def _column(self, hook: Box) -> list[PlacedHook]:
        return [other for other in self._hooks.values() if other.box.x == hook.x]

    def _past(self, edge: Edge, hook: Box, target: Box) -> Line:
        """Return a line beside the column, past the hooks between its ends."""
        self._beside_column += 1
        x = hook.right + 6 + LANE * (self._beside_column - 1)
        down, y = hook.bottom + 7, target.y + 14
        points = (
            (hook.right - 40, hook.bottom),
            (hook.right - 40, down),
            (x, down),
            (x, y),
            (target.right, y),
        )
        return Line(edge, points, (hook.right - 48, hook.bottom + 14), "end")

    def _by_lo(self, edge: Edge, hook: Box) -> Line:
        """Return the line of what leaves by lo, and so comes in again."""
        target = self._hooks["prerouting"].box
        outside = self._nodes["outside"].box
        start = hook.right - 60
        y = outside.y - 20
        x = target.x - 10
        points = ((start, hook.bottom), (start, y), (x, y), (x, target.y + 22), (target.x, target.y + 22))
        return Line(edge, points, ((hook.right + x) / 2, y - 5), "middle")

    def _from_node(self, edge: Edge) -> Line:
        node = self._nodes[edge.source].box
        hook = self._hooks[edge.target].box
        if node.x == hook.x:
            x = node.x + 60
            return Line(edge, ((x, node.bottom), (x, hook.y)), (x + 10, (node.bottom + hook.y) / 2 + 4))
        y = hook.y + HEADER / 2
        if edge.source == "proxy":
            x = node.x + 40
            return Line(edge, ((x, node.y), (x, y), (hook.right, y)), (x + 8, y + 4))
        x = hook.right + 12
        y += 8
        return Line(edge, ((node.x, node.y + 14), (x, node.y + 14), (x, y), (hook.right, y)))
