"""The page of `report`, in a real browser.

Connections light up by mouse and keyboard, nothing is fetched, and axe-core finds no violation, in light and
dark, wide and narrow; it prints, and works without scripts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from istio_iptables.pictures import svg
from istio_iptables.pictures.examples import examples
from istio_iptables.pictures.report import page as report_page
from istio_iptables.pictures.subject import followed, way_of
from tests.browser.axe import violations
from tests.support.browser import Browser, Page
from tests.support.picturing import case

CASES = ("defaults", "everything")


def html(name: str) -> str:
    config, shown = case(name)
    return report_page(shown, config, [("--proxy-uid", "1337", "--proxy-uid (-u)")])


@pytest.fixture(params=CASES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def page(chromium: Browser, name: str) -> Iterator[Page]:
    with chromium.page(html(name)) as opened:
        yield opened
        assert opened.requests == []
        assert opened.complaints() == []


def lit(page: Page) -> set[str]:
    """Return the ids of what is lit up in the picture."""
    ids = page.value("[...document.querySelectorAll('svg [id].on')].map((each) => each.id)")
    return {each.removeprefix("picture-") for each in ids}


def conclusion(page: Page) -> str:
    return str(page.value("document.getElementById('conclusion').textContent"))


def visible_ways(page: Page) -> list[str]:
    ways = "[...document.querySelectorAll('article.way')].filter((way) => way.offsetParent !== null)"
    return list(page.value(f"{ways}.map((way) => way.id)"))


def numbers(page: Page) -> list[str]:
    """Return the ids in the order of the numbers that they have."""
    shown = "[...document.querySelectorAll('svg [data-of].on')]"
    pairs = page.value(f"{shown}.map((each) => [+each.textContent, each.dataset.of])")
    return [of for _, of in sorted(pairs)]


def test_every_connection_lights_up_its_way(page: Page, name: str):
    config, shown = case(name)
    drawn = shown.picture()
    for example in examples(config, shown.world.network):
        page.click(f"input[value={example.id}]")
        way = way_of(shown, drawn, followed(shown, example.question), example.title)
        assert lit(page) == way.ids
        assert numbers(page) == list(way.order)
        assert way.conclusion in conclusion(page)
        assert visible_ways(page) == [f"way-{example.id}"]
        edges = "[...document.querySelectorAll('svg .line.on')].map((e) => [e.dataset.from, e.dataset.to])"
        assert {tuple(each) for each in page.value(edges)} == way.edges
        rows = page.value("[...document.querySelectorAll('tr.on')].map((each) => each.id)")
        all_rows = {row.id for *_, row in drawn.rows()}
        assert {each.removeprefix("rule-") for each in rows} == way.ids & all_rows
    page.click("input[value='']")
    assert lit(page) == set()
    assert len(visible_ways(page)) == len(examples(config, shown.world.network))
    assert not page.value("document.querySelector('svg').classList.contains('lit')")


def test_connections_are_chosen_by_keyboard(page: Page):
    for _ in range(20):
        page.press("Tab")
        if page.value("document.activeElement.name") == "way":
            break
    assert page.value("document.activeElement.name") == "way"
    page.press("ArrowDown")
    assert page.value("document.activeElement.value") == "e1"
    assert "app" in lit(page)
    first = conclusion(page)
    page.press("ArrowDown")
    assert page.value("document.activeElement.value") == "e2"
    assert conclusion(page) != first
    assert page.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.press("Tab")  # the picture scrolls: it can be reached
    assert page.value("document.activeElement.className") == "figure"


def test_the_conclusion_is_announced(page: Page):
    role = "document.querySelector('#conclusion').getAttribute"
    assert page.value(f"[{role}('role'), {role}('aria-live')]") == ["status", "polite"]


@pytest.mark.parametrize(("width", "scheme", "chosen"), [(1280, "light", "e1"), (400, "dark", "")])
def test_axe_finds_no_violation(page: Page, width: int, scheme: str, chosen: str):
    page.look(width=width, scheme=scheme)
    page.click(f"input[value='{chosen}']")
    assert violations(page) == []


@pytest.mark.parametrize(("width", "scheme", "chosen"), [(1280, "dark", "e2"), (400, "light", "e1")])
def test_axe_finds_no_violation_in_the_other_scheme(chromium: Browser, width: int, scheme: str, chosen: str):
    with chromium.page(html("defaults"), width=width, scheme=scheme) as page:
        page.click(f"input[value={chosen}]")
        assert violations(page) == []


def test_dark_is_dark(page: Page):
    background = "getComputedStyle(document.documentElement).backgroundColor"
    fill = "getComputedStyle(document.querySelector('svg .page')).fill"
    assert page.value(f"[{background}, {fill}]") == ["rgb(255, 255, 255)"] * 2
    page.look(scheme="dark")
    assert page.value(f"[{background}, {fill}]") == ["rgb(20, 23, 27)"] * 2


def test_a_narrow_page_does_not_scroll_sideways(page: Page):
    page.look(width=400)
    assert page.value("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert (
        page.value("document.querySelector('.figure').scrollWidth") > 1000
    )  # the picture does, in its frame


def test_it_prints_everything(page: Page, tmp_path: Path):
    page.click("input[value=e1]")
    page.look(media="print", scheme="dark")
    ways = page.value("document.querySelectorAll('article.way').length")
    assert len(visible_ways(page)) == ways
    assert page.value("getComputedStyle(document.querySelector('#choose fieldset')).display") == "none"
    assert page.value("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    page.pdf(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF-")


def test_text_of_the_picture_stays_in_its_boxes(page: Page):
    """Whatever font the browser has taken."""
    outside = """[...document.querySelectorAll('svg .row, svg .port')].filter((group) => {
        const box = group.querySelector('.back').getBBox();
        return [...group.querySelectorAll('text')].some((text) => {
            const inner = text.getBBox();
            return inner.x < box.x - 1 || inner.x + inner.width > box.x + box.width + 1;
        });
    }).map((group) => group.id)"""
    assert page.value(outside) == []


def test_without_scripts_all_ways_are_there(chromium: Browser, name: str):
    config, shown = case(name)
    with chromium.page(html(name), script=False) as page:
        page.look(script=True)  # to ask the page; its own script has not run
        assert len(visible_ways(page)) == len(examples(config, shown.world.network))
        assert page.value("getComputedStyle(document.getElementById('choose')).display") == "none"


def test_the_policy_refuses_what_the_page_does_not_have(chromium: Browser, name: str):
    with chromium.page(html(name)) as page:
        page.value("document.body.append(Object.assign(new Image(), {src: 'https://example.com/x.png'})); 0")
        page.value(
            "document.body.append(Object.assign(document.createElement('script'), {textContent: 'x = 1'})); 0"
        )
        page.value("new Promise((done) => setTimeout(done, 50))")
        assert page.requests == []  # the policy is asked before
        assert page.value("typeof x") == "undefined"
        assert len([text for text in page.complaints() if "Content Security Policy" in text]) == 2


def test_a_request_would_be_seen(chromium: Browser):
    with chromium.page("<img src='https://example.com/x.png'><title>x</title>") as page:
        assert set(page.requests) == {"https://example.com/x.png"}


def test_a_picture_alone_is_shown(chromium: Browser, name: str, tmp_path: Path):
    path = tmp_path / "picture.svg"
    path.write_text(svg.text(case(name)[1].picture()))
    with chromium.page(path) as page:
        assert page.requests == []
        assert page.complaints() == []
        fill = "getComputedStyle(document.querySelector('.page')).fill"
        assert page.value(fill) == "rgb(255, 255, 255)"
        page.look(scheme="dark")
        assert page.value(fill) == "rgb(20, 23, 27)"


def test_the_lock_names_what_is_wanted():
    here = Path(__file__).parent
    wanted = json.loads((here / "package.json").read_text())["devDependencies"]
    locked = json.loads((here / "package-lock.json").read_text())["packages"]
    assert {name: locked[f"node_modules/{name}"]["version"] for name in wanted} == wanted
    assert all("integrity" in each for key, each in locked.items() if key)
    assert "resolved" not in (here / "package-lock.json").read_text()  # it names no registry
