"""The writers of pictures: each holds every chain and rule, in a form that its readers understand."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import pytest

from istio_iptables import Facts, configure, picture, report
from istio_iptables.pictures import dot, mermaid, style, svg
from istio_iptables.pictures.examples import examples
from istio_iptables.pictures.layout import COLUMN, Box, layout
from istio_iptables.pictures.measure import Font
from istio_iptables.pictures.report import page
from istio_iptables.pictures.subject import followed, of_config, way_of
from istio_iptables.rules.model import Counters
from tests.support.picturing import (
    CASES,
    EVERYTHING,
    IPV4,
    SVG,
    among_others,
    case,
    plain,
    settings_of,
    svg_texts,
)

pytestmark = pytest.mark.slow

NASTY = "<b>\"&'#;%\\"


def first_way(name: str) -> tuple[Any, Any]:
    config, shown = case(name)
    drawn = shown.picture()
    example = examples(config, shown.world.network)[0]
    return drawn, way_of(shown, drawn, followed(shown, example.question), example.title)


# --- svg --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_svg_holds_every_chain_and_row(name):
    _, shown = case(name)
    drawn = shown.picture()
    root = ElementTree.fromstring(svg.text(drawn))
    groups = {each.get("id"): each for each in root.iter(f"{SVG}g") if each.get("id")}
    for _, _, chain in drawn.chains():
        texts = [each.text for each in groups[f"picture-{chain.id}"].iter(f"{SVG}text")]
        assert chain.name in texts
        for row in chain.rows:
            said = " ".join(e.text or "" for e in groups[f"picture-{row.id}"].iter(f"{SVG}text"))
            for words in (row.reason, row.condition(), row.then):
                assert words.replace(" ", "") in said.replace(" ", "")


@pytest.mark.parametrize("name", CASES)
def test_svg_draws_every_edge(name):
    _, shown = case(name)
    drawn = shown.picture()
    root = ElementTree.fromstring(svg.text(drawn))
    found = {(each.get("data-from"), each.get("data-to")) for each in root.iter(f"{SVG}g")}
    assert {(edge.source, edge.target) for edge in drawn.edges} <= found


@pytest.mark.parametrize("name", CASES)
def test_nothing_overlaps_or_sticks_out(name):
    _, shown = case(name)
    placed = layout(shown.picture(), 50)
    boxes = [*(hook.box for hook in placed.hooks), *(node.box for node in placed.nodes)]
    for at, one in enumerate(boxes):
        assert one.x >= 0
        assert one.right <= placed.width
        assert one.bottom <= placed.height + 0.01
        assert not any(overlap(one, other) for other in boxes[at + 1 :])
    for hook in placed.hooks:
        assert_stacked(hook.box, [stage.box for stage in hook.stages])
        for stage in hook.stages:
            assert_stacked(stage.box, [chain.box for chain in stage.chains])
            for chain in stage.chains:
                assert_stacked(chain.box, [row.box for row in chain.rows])
                for row in chain.rows:
                    assert_inside(row.box, row.effect)
                    for line in row.condition:
                        assert Font(12).width(line) <= COLUMN


def test_lines_between_hooks_cross_no_other_hook():
    placed = layout(among_others()[1].picture(), 50)
    hooks = {hook.hook.id: hook.box for hook in placed.hooks}
    nodes = {node.node.id: node.box for node in placed.nodes}
    between = [line for line in placed.lines if line.edge.source in hooks]
    assert len(between) == 7
    for line in between:
        others = {**hooks, **nodes}
        for name in (line.edge.source, line.edge.target):
            del others[name]
        for (x, y), (next_x, next_y) in pairwise(line.points):
            part = Box(min(x, next_x), min(y, next_y), abs(next_x - x), abs(next_y - y))
            assert not [name for name, box in others.items() if overlap(part, box)], line.edge


@pytest.mark.parametrize("write", [svg.text, dot.text, mermaid.text])
def test_rules_of_others_are_written(write):
    drawn = among_others()[1].picture()
    text = write(drawn)
    assert "DOCKER" in text
    assert "<evil>" not in text or write is dot.text
    if write is mermaid.text:
        assert_is_mermaid(text)


def overlap(one: Box, other: Box) -> bool:
    beside = one.right <= other.x or other.right <= one.x
    return not (beside or one.bottom <= other.y or other.bottom <= one.y)


def assert_inside(outer: Box, inner: Box) -> None:
    assert outer.x <= inner.x
    assert inner.right <= outer.right
    assert outer.y <= inner.y
    assert inner.bottom <= outer.bottom


def assert_stacked(outer: Box, inner: list[Box]) -> None:
    for box in inner:
        assert_inside(outer, box)
    for above, below in pairwise(inner):
        assert above.bottom <= below.y


def test_the_poster_of_the_defaults_fits_on_a4():
    root = ElementTree.fromstring(picture(configure(environment=IPV4)))
    width, height = float(root.get("width", "")), float(root.get("height", ""))
    points = min(277 / width, 190 / height) * 72 / 25.4  # within margins of 10 mm
    assert 12 * points >= 5.5  # the smallest text; on A3 it is 8 points
    assert "Where connections go" in svg_texts(picture(configure(environment=IPV4)))


def test_a_way_is_lit_up_with_numbers():
    drawn, way = first_way("defaults")
    root = ElementTree.fromstring(svg.text(drawn, way))
    assert root.get("class") == "picture lit"
    lit = {each.get("id", "").removeprefix("picture-") for each in root.iter(f"{SVG}g") if is_on(each)}
    assert way.ids <= lit
    numbered = {each.get("data-of"): "".join(each.itertext()) for each in root.iter(f"{SVG}g")}
    assert [numbered[name] for name in way.order] == [str(n) for n in range(1, len(way.order) + 1)]
    assert way.conclusion.split()[-1] in svg_texts(svg.text(drawn, way))
    assert not any(is_on(each) for each in ElementTree.fromstring(svg.text(drawn)).iter(f"{SVG}g"))


def is_on(element: ElementTree.Element) -> bool:
    return "on" in element.get("class", "").split()


def test_redirection_differs_in_line_style_and_colour():
    css = style.css()
    for role in ("in", "dns", "other"):
        assert re.search(rf"\.to-{role} > \.edge.*stroke-dasharray", css), role
    assert len({style.LIGHT[role] for role in ("out", "in", "dns", "other")}) == 4


@pytest.mark.parametrize("palette", [style.LIGHT, style.DARK], ids=["light", "dark"])
def test_text_has_contrast(palette):
    for background in ("page", "hook", "stage", "chain", "node", "on"):
        assert contrast(palette["ink"], palette[background]) >= 4.5
    for background in ("page", "stage", "on"):
        assert contrast(palette["soft"], palette[background]) >= 4.5
    for role in ("out", "in", "dns", "other"):
        assert contrast(palette[role], palette["stage"]) >= 4.5
        assert contrast(palette[role], palette["inverse"]) >= 4.5
    assert contrast(palette["drop"], palette["inverse"]) >= 4.5


def contrast(one: str, other: str) -> float:
    """As WCAG 2.2 has it."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_counters_are_shown_if_there_are_any():
    _, shown = case("defaults")
    [table] = shown.world.program.tables
    counted = {
        name: tuple(rule.replace(counters=Counters(1234, 56789)) for rule in rules)
        for name, rules in table.chains.items()
    }
    live = shown.replace(
        live=True,
        world=shown.world.replace(
            program=shown.world.program.replace(tables=(table.replace(chains=counted),))
        ),
    )
    assert "1,234 packets, 56,789 bytes" in svg_texts(svg.text(live.picture()))
    assert "packets, " not in svg_texts(svg.text(shown.picture()))
    assert '<td class="number" data-label="packets">1,234</td>' in page(live, configure(environment=IPV4))


def test_text_is_broken_into_lines_that_fit():
    font = Font(10)
    assert font.lines("", 100) == []
    lines = font.lines("several words, and averyveryverylongonethatfitsnowhere at all", 80)
    assert all(font.width(line) <= 80 for line in lines)
    assert "".join(lines).replace(" ", "") == "severalwords,andaveryveryverylongonethatfitsnowhereatall"


# --- names that markup would take for its own -------------------------------------------------


@pytest.mark.parametrize("write", [svg.text, dot.text, mermaid.text])
def test_names_are_no_markup(write):
    config = configure({"istio-exclude-interfaces": NASTY}, environment=IPV4)
    text = write(of_config(config).picture())
    assert "<b>" not in text.replace('label="', "") or write is dot.text
    if write is svg.text:
        assert NASTY in svg_texts(text)
    elif write is mermaid.text:
        assert_is_mermaid(text)


def test_names_are_no_markup_in_a_page():
    config = configure({"istio-exclude-interfaces": NASTY}, environment=IPV4)
    text = page(of_config(config), config, [("-c", NASTY, "x")], NASTY)
    assert "<b>" not in text
    assert NASTY in Texts.of(text)


# --- mermaid and dot --------------------------------------------------------------------------

_ID = r"[a-z]\w*"
_LABEL = r'"(?:[^"#&<>`]|#\w+;|<br/>)*"'
#: The part of Mermaid's grammar that is used (flow.jison).
_MERMAID = [
    rf"subgraph {_ID}\[{_LABEL}\]",
    "end",
    rf"{_ID}(?:\[{_LABEL}\]|\(\[{_LABEL}\]\)|\[\[{_LABEL}\]\]|\[/{_LABEL}/\]|\{{\{{{_LABEL}\}}\}})",
    rf"{_ID} (?:-->|==>|-\.->)(?:\|{_LABEL}\|)? {_ID}",
    r"linkStyle \d+(?:,\d+)* [\w:#,-]+",
    rf"classDef {_ID} [\w:#,-]+",
    rf"class {_ID}(?:,{_ID})* {_ID}",
]


def assert_is_mermaid(text: str) -> None:
    lines = text.splitlines()
    assert (lines[0], lines[2], lines[3]) == ("---", "---", "flowchart TB")
    assert re.fullmatch(rf"title: {_LABEL}", lines[1])
    for line in lines[4:]:
        assert any(re.fullmatch(rf" +{pattern}", line) for pattern in _MERMAID), line
    words = [line.split()[0] for line in lines[4:]]
    assert words.count("subgraph") == words.count("end")
    nodes = set(re.findall(rf"^ +({_ID})[\[({{]", text, re.M)) | set(re.findall(r"subgraph (\w+)", text))
    for ends in re.findall(rf"^ +({_ID}) (?:-->|==>|-\.->)(?:\|.*\|)? ({_ID})$", text, re.M):
        assert set(ends) <= nodes
    links = len(re.findall(r"(?:-->|==>|-\.->)", text))
    assert all(int(n) < links for each in re.findall(r"linkStyle ([\d,]+)", text) for n in each.split(","))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("writer", [mermaid, dot], ids=["mermaid", "dot"])
def test_text_for_other_programs_holds_every_chain_and_row(name, writer):
    _, shown = case(name)
    drawn = shown.picture()
    text = writer.text(drawn)
    for _, _, chain, row in drawn.rows():
        assert f'"{chain.name}' in text
        assert re.search(rf"^ +{row.id}[ \[]", text, re.M), row
        assert plain(row.reason) in plain(text)


@pytest.mark.parametrize("name", CASES)
def test_mermaid_is_what_its_grammar_says(name):
    drawn, way = first_way(name)
    assert_is_mermaid(mermaid.text(drawn))
    assert_is_mermaid(mermaid.text(drawn, way))
    assert re.search(r"^ +class .*\bapp\b.* on$", mermaid.text(drawn, way), re.M)


@pytest.mark.skipif(shutil.which("dot") is None, reason="graphviz is not installed")
@pytest.mark.parametrize("name", CASES)
def test_graphviz_takes_dot(name):
    drawn, way = first_way(name)
    for text in (dot.text(drawn), dot.text(drawn, way)):
        done = subprocess.run(["dot", "-Tsvg"], input=text, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        ElementTree.fromstring(done.stdout)


# --- the page ---------------------------------------------------------------------------------


class Texts(HTMLParser):
    """Reads a page: its texts, its elements, and whether each is closed."""

    VOID = frozenset({"meta", "link", "input", "br", "wbr", "circle", "rect", "path", "polygon"})

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []

    @classmethod
    def of(cls, text: str) -> str:
        return " ".join(cls.read(text).texts)

    @classmethod
    def read(cls, text: str) -> Texts:
        parser = cls()
        parser.feed(text)
        assert parser.open == []
        return parser

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.mark.parametrize("name", CASES)
def test_the_page_has_everything_without_a_script(name):
    config, shown = case(name)
    found = Texts.read(page(shown, config))
    text = plain(" ".join(found.texts))
    for _, _, chain, row in shown.picture().rows():
        assert plain(chain.name) in text
        assert plain(row.reason) in text
    for example in examples(config, shown.world.network):
        assert plain(example.command()) in text
        assert plain(followed(shown, example.question).conclusion) in text
    for clause in (clause for *_, row in shown.picture().rows() for clause in row.when):
        assert all(plain(value) in text for value in clause.values)


def test_a_long_value_of_a_setting_is_folded():
    config, shown = case("defaults")
    value = ",".join(map(str, range(1, 121)))
    text = page(shown, config, [("-d", value, "x"), ("-x", "", "x"), ("-b", "80,81", "x")])
    assert "<summary>120 members</summary>1,<wbr>2," in text
    assert '<span class="soft">empty</span>' in text
    assert "80,<wbr>81</td>" in text


def test_ids_are_unique_and_references_lead_somewhere():
    config, shown = case("everything")
    found = Texts.read(page(shown, config)).elements
    ids = [attributes["id"] for _, attributes in found if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in found:
        for name in ("aria-labelledby", "href"):
            for each in (attributes.get(name) or "").split():
                if not each.startswith("data:"):
                    assert each.removeprefix("#") in ids


def test_what_scrolls_and_what_groups_has_a_name():
    config, shown = case("defaults")
    found = Texts.read(page(shown, config)).elements
    for tag, attributes in found:
        if attributes.get("role") in ("region", "img") or tag in ("section", "article", "nav"):
            assert attributes.get("aria-label") or attributes.get("aria-labelledby"), tag
    [region] = [attributes for _, attributes in found if attributes.get("role") == "region"]
    assert region["tabindex"] == "0"


def test_the_page_needs_nothing_from_elsewhere():
    found = Texts.read(report(configure(settings_of(EVERYTHING), environment=IPV4))).elements
    for tag, attributes in found:
        assert "style" not in attributes
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "data", "action", "srcset"):
            assert (attributes.get(name) or "#").startswith(("#", "data:,")), tag
    [policy] = [a["content"] for _, a in found if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


@pytest.mark.skipif(sys.platform == "win32", reason="no other process is needed to see it")
def test_two_pages_of_the_same_settings_are_equal():
    config = configure(environment=Facts())
    assert report(config) == report(config)
