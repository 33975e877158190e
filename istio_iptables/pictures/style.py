"""style: how pictures look, as CSS: light and dark, and in print.

Kinds differ in line style and words too, so that nothing is said by colour alone.
"""

from __future__ import annotations

from string import Template

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SANS = "Helvetica, Arial, 'Liberation Sans', sans-serif"
MONO = "ui-monospace, Menlo, Consolas, 'Liberation Mono', monospace"

#: Text on each background has a contrast of 4.5 to 1 at least (WCAG 2.2, 1.4.3).
LIGHT: Mapping[str, str] = {
    "page": "#ffffff",
    "ink": "#16191d",
    "soft": "#4a525c",
    "line": "#6d7680",
    "hook": "#eef1f4",
    "stage": "#ffffff",
    "chain": "#dfe4ea",
    "node": "#ffffff",
    "on": "#fff3b8",
    "out": "#0b57b7",
    "in": "#a83c00",
    "dns": "#14694a",
    "other": "#6a3d9a",
    "drop": "#16191d",
    "inverse": "#ffffff",
}
DARK: Mapping[str, str] = {
    "page": "#14171b",
    "ink": "#eef1f4",
    "soft": "#b9c1ca",
    "line": "#8f99a4",
    "hook": "#1d2228",
    "stage": "#14171b",
    "chain": "#2d343c",
    "node": "#14171b",
    "on": "#4a4212",
    "out": "#7db4ff",
    "in": "#ff9d63",
    "dns": "#6fd3a7",
    "other": "#cda7ff",
    "drop": "#eef1f4",
    "inverse": "#101317",
}

_SHAPES = f"""
.picture text {{ font: 13.5px {SANS}; }}
.picture .small {{ font-size: 12px; }}
.picture .strong {{ font-weight: bold; }}
.picture .title {{ font-size: 21px; font-weight: bold; }}
.picture .mono {{ font: bold 12.5px {MONO}; }}
.picture rect {{ stroke-width: 1; }}
.picture .node > rect {{ stroke-width: 2; }}
.picture .network > rect {{ stroke-dasharray: 2 3; stroke-linecap: round; }}
.picture .effect {{ stroke-width: 1.2; }}
.picture .edge {{ fill: none; stroke-width: 1.3; stroke-linejoin: round; }}
.picture .head {{ stroke: none; }}
.picture .redirect > .edge, .picture .tproxy > .edge {{ stroke-width: 3.6; }}
.picture .call > .edge {{ stroke-width: 1.8; }}
.picture .send > .edge {{ stroke-width: 2.4; }}
.picture .to-in > .edge, .picture .call.to-in > .effect {{ stroke-dasharray: 9 4; }}
.picture .to-dns > .edge, .picture .call.to-dns > .effect {{ stroke-dasharray: 3 3; }}
.picture .to-other > .edge, .picture .call.to-other > .effect {{ stroke-dasharray: 9 3 2 3; }}
.picture .badge {{ display: none; }}
.picture .on .badge {{ display: inline; }}
.picture.lit .on > .edge {{ stroke-width: 5.5; }}
.picture.lit .chain .row:not(.on) > text, .picture.lit .row:not(.on) > .effect,
.picture.lit .row:not(.on) > .number {{ opacity: 0.6; }}
.picture.lit .line:not(.on) {{ opacity: 0.3; }}
.picture.lit .legend .line {{ opacity: 1; }}
.picture.lit .on > .back {{ stroke-width: 2.5; }}
"""
_COLOURS = Template("""
.picture .page { fill: $page; }
.picture text { fill: $ink; }
.picture .soft { fill: $soft; }
.picture .hook > .back { fill: $hook; stroke: $line; }
.picture .stage > .back { fill: $stage; stroke: $line; }
.picture .chain > .back { fill: none; stroke: $line; }
.picture .chain > .cap { fill: $chain; stroke: $line; }
.picture .node > .back, .picture .port > .back { fill: $node; stroke: $ink; }
.picture .row > .back { fill: none; stroke: none; }
.picture .rule { stroke: $line; stroke-opacity: 0.45; }
.picture .effect { fill: $stage; stroke: $line; }
.picture .edge { stroke: $line; }
.picture .head { fill: $line; }
.picture .send > .edge { stroke: $ink; }
.picture .send > .head { fill: $ink; }
.picture .drop > .effect { fill: $drop; stroke: $drop; }
.picture .drop > .says, .picture .redirect > .says, .picture .tproxy > .says { fill: $inverse; }
.picture .badge circle { fill: $ink; stroke: $page; stroke-width: 1.5; }
.picture .badge text { fill: $page; font-weight: bold; font-size: 12px; }
.picture.lit .row.on > .back, .picture.lit .node.on > .back, .picture.lit .port.on > .back { fill: $on; }
.picture.lit .row.on > .back { stroke: $ink; }
""")
_ROLE = Template("""
.picture .to-$role > .edge, .picture .to-$role > .effect { stroke: $colour; }
.picture .to-$role > .head { fill: $colour; }
.picture .row.to-$role > .says { fill: $colour; }
.picture .row.redirect.to-$role > .effect, .picture .row.tproxy.to-$role > .effect { fill: $colour; }
.picture .row.redirect.to-$role > .says, .picture .row.tproxy.to-$role > .says { fill: $inverse; }
.picture .port.to-$role > .back { stroke: $colour; stroke-width: 3; }
""")


def css() -> str:
    """Return the style sheet of a picture: an element of class `picture`, and `lit` if a way is lit up."""
    dark = "".join(f"  {line}\n" if line else "" for line in colours(DARK).splitlines())
    return f"{_SHAPES}{colours(LIGHT)}@media screen and (prefers-color-scheme: dark) {{\n{dark}}}\n"


def colours(palette: Mapping[str, str]) -> str:
    """Return the part of the style sheet that has the colours."""
    text = _COLOURS.substitute(palette)
    for role in ("out", "in", "dns", "other"):
        text += _ROLE.substitute(role=role, colour=palette[role], inverse=palette["inverse"])
    return text.lstrip()
