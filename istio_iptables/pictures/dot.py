"""dot: a picture for Graphviz (graphviz.org, The DOT Language), which lays it out and draws it."""

from __future__ import annotations

from .graph import Group, links, parts
from .style import LIGHT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .graph import Box, Link
    from .model import Picture, Way

_SHAPES = {"network": "ellipse", "application": "component", "port": "cds", "step": "hexagon"}
_LINKS = {
    "send": "penwidth=2",
    "call": "penwidth=1.5",
    "redirect": "penwidth=3",
    "tproxy": "penwidth=3",
    "direct": "style=dashed",
    "else": "color=gray40, arrowhead=vee",
}


def text(picture: Picture, way: Way | None = None) -> str:
    """Return a directed graph; with `way` that is lit up."""
    return "".join(f"{line}\n" for line in _lines(picture, way))


def _lines(picture: Picture, way: Way | None) -> Iterator[str]:
    facts = ", ".join(f"{name} {value}" for name, value in picture.facts)
    title = [picture.title, facts] + ([f"{way.title}: {way.conclusion}"] if way else [])
    yield "digraph packets {"
    yield f"    label={_quoted(*title)}; labelloc=t; fontname=Helvetica; fontsize=18;"
    yield "    rankdir=TB; compound=true; nodesep=0.25; ranksep=0.3;"
    yield "    node [shape=box, fontname=Helvetica, fontsize=11, style=filled, fillcolor=white];"
    yield "    edge [fontname=Helvetica, fontsize=10];"
    for part in parts(picture):
        yield from _part(part, "    ", way)
    for link in links(picture):
        yield f"    {link.source} -> {link.target} [{_link(link, way)}];"
    yield "}"


def _part(part: Group | Box, indent: str, way: Way | None) -> Iterator[str]:
    if isinstance(part, Group):
        yield f"{indent}subgraph cluster_{part.id} {{"
        yield f"{indent}    label={_quoted(part.title)}; fontsize=12; style=rounded; color=gray40;"
        for each in part.parts:
            yield from _part(each, indent + "    ", way)
        yield f"{indent}}}"
        return
    attributes = [f"label={_quoted(*part.lines)}"]
    if part.kind in _SHAPES:
        attributes.append(f"shape={_SHAPES[part.kind]}")
    if part.role in LIGHT:
        attributes.append(f'color="{LIGHT[part.role]}", penwidth=2')
    if part.kind == "drop":
        attributes.append(f'fillcolor="{LIGHT["drop"]}", fontcolor="{LIGHT["inverse"]}"')
    if way and part.id in way.order:
        attributes.append(f'fillcolor="{LIGHT["on"]}", fontcolor="{LIGHT["ink"]}", penwidth=3')
    yield f"{indent}{part.id} [{', '.join(attributes)}];"


def _link(link: Link, way: Way | None) -> str:
    attributes = [_LINKS[link.kind]]
    if link.role in LIGHT:
        attributes.append(f'color="{LIGHT[link.role]}"')
    if link.label:
        attributes.append(f"label={_quoted(link.label)}")
    if way and link.edge in way.edges:
        attributes.append("penwidth=6")
    return ", ".join(attributes)


def _quoted(*lines: str) -> str:
    r"""Return lines as a quoted string, in which `\n` breaks them."""
    escaped = [line.replace("\\", "\\\\").replace('"', '\\"') for line in lines if line]
    return '"' + "\\n".join("".join(c for c in line if c >= " ") for line in escaped) + '"'
