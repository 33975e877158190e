"""mermaid: a picture for what draws Mermaid, such as GitHub and most wikis (mermaid.js.org, flowchart)."""

from __future__ import annotations

from .graph import Group, links, parts
from .style import LIGHT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .graph import Box, Link
    from .model import Picture, Way

_ARROWS = {
    "send": "-->",
    "call": "-->",
    "redirect": "==>",
    "tproxy": "==>",
    "direct": "-.->",
    "else": "-->",
}
_SHAPES = {"network": ("([", "])"), "application": ("[[", "]]"), "port": ("[/", "/]"), "step": ("{{", "}}")}
#: Mermaid's own entities: `#` begins one, and a quote would end the label (mermaid.js.org, Entity codes).
_ENTITIES = {"#": "#35;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "&": "#amp;", "`": "#96;"}


def text(picture: Picture, way: Way | None = None) -> str:
    """Return a flowchart; with `way` that is lit up."""
    return "".join(f"{line}\n" for line in _lines(picture, way))


def _lines(picture: Picture, way: Way | None) -> Iterator[str]:
    yield "---"
    yield f"title: {_quoted(_title(picture, way))}"
    yield "---"
    yield "flowchart TB"
    for part in parts(picture):
        yield from _part(part, "    ")
    found = list(links(picture))
    for link in found:
        label = f"|{_quoted(link.label)}|" if link.label else ""
        yield f"    {link.source} {_ARROWS[link.kind]}{label} {link.target}"
    yield from _styles(picture, way, found)


def _title(picture: Picture, way: Way | None) -> str:
    facts = ", ".join(f"{name} {value}" for name, value in picture.facts)
    told = f"{picture.title} ({facts})" if facts else picture.title
    return f"{told}. {way.title}: {way.conclusion}" if way else told


def _part(part: Group | Box, indent: str) -> Iterator[str]:
    if isinstance(part, Group):
        yield f"{indent}subgraph {part.id}[{_quoted(part.title)}]"
        for each in part.parts:
            yield from _part(each, indent + "    ")
        yield f"{indent}end"
        return
    before, after = _SHAPES.get(part.kind, ("[", "]"))
    label = "<br/>".join(_escaped(line) for line in part.lines if line)
    yield f'{indent}{part.id}{before}"{label}"{after}'


def _styles(picture: Picture, way: Way | None, found: list[Link]) -> Iterator[str]:
    for at, link in enumerate(found):
        style = [f"stroke:{LIGHT[link.role]}"] if link.role in LIGHT else []
        if way and link.edge in way.edges:
            style.append("stroke-width:6px")
        if style:
            yield f"    linkStyle {at} {','.join(style)}"
    dropping = [row.id for *_, row in picture.rows() if row.kind == "drop"]
    if dropping:
        yield f"    classDef drop fill:{LIGHT['drop']},color:{LIGHT['inverse']}"
        yield f"    class {','.join(dropping)} drop"
    if way:
        groups = {node.id for node in picture.nodes if node.ports}
        on, ink = LIGHT["on"], LIGHT["ink"]
        yield f"    classDef on fill:{on},stroke:{ink},stroke-width:4px,color:{ink}"
        yield f"    class {','.join(name for name in way.order if name not in groups)} on"


def _escaped(words: str) -> str:
    return "".join(_ENTITIES.get(c, c) for c in words if c >= " ")


def _quoted(words: str) -> str:
    return f'"{_escaped(words)}"'
