"""The Typer application, which prints the help, understands a command line as the reader of flags does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from istio_iptables.cli import handlers
from istio_iptables.cli.typer_app import make_app
from istio_iptables.settings.commands import Command
from istio_iptables.settings.declared import SETTINGS, SOURCES, Setting
from istio_iptables.settings.go_flags import Invocation, read_arguments
from istio_iptables.settings.texts import Given
from tests.support.flags import INJECTOR, PLAIN


@st.composite
def spelled(draw: st.DrawFn, setting: Setting) -> list[str]:
    """A flag and its value in one of the forms that there are."""
    boolean = setting.is_boolean
    texts = (
        st.sampled_from(["true", "false", "1", "x", ""]) if boolean else st.text(max_size=8) | likely_texts()
    )
    text = draw(texts)
    flag = f"--{setting.name}"
    forms = [[f"{flag}={text}"]]
    forms.append([flag] if boolean else [flag, text])
    if setting.short and boolean:
        forms += [[f"-{setting.short}"], [f"-{setting.short}={text}"]]
    elif setting.short:
        forms += [[f"-{setting.short}", text], [f"-{setting.short}={text}"]]
        if text and not text.startswith("="):
            forms += [[f"-{setting.short}{text}"], [f"-n{setting.short}{text}"]]
    return draw(st.sampled_from(forms))


def likely_texts() -> st.SearchStrategy[str]:
    return st.sampled_from(
        ["*", "", "15001", "80,443", "10.0.0.0/8", "-n", "--", "--dry-run", "a=b", "render", "-h"]
    )


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """Arguments without a mistake (their values may be nonsense)."""
    flags = st.sampled_from([*(s for s in SETTINGS if s.has_flag), *SOURCES]).flatmap(spelled)
    before, after = draw(st.lists(flags, max_size=6)), draw(st.lists(flags, max_size=3))
    words = draw(st.sampled_from([[], ["istio-iptables"]]))
    words = [*words, *(word for flag in before for word in flag)]
    command = draw(st.sampled_from([None, *PLAIN]))
    if command is None:
        return words
    operands = draw(operand_lists(command))
    dashes = draw(st.sampled_from([[], ["--"]]))
    if dashes:
        return [*words, "--", *command.words, *operands]
    if command.options:
        after += draw(st.lists(st.sampled_from(command.options).flatmap(spelled), max_size=3))
        after = draw(st.permutations(after))
    behind = [word for flag in after for word in flag]
    if draw(st.booleans()):
        return [*words, *command.words, *behind, "--", *operands]
    plain = [operand if operand == "-" else operand.lstrip("-") for operand in operands]
    return [*words, *command.words, *plain, *behind]


def operand_lists(command: Command) -> st.SearchStrategy[list[str]]:
    """As many operands as a command takes, whatever they look like."""
    if command.operand is None:
        return st.just([])
    if command.operand.values:
        return st.sampled_from([[value] for value in command.operand.values])
    texts = st.text(max_size=8) | likely_texts() | st.sampled_from(["-", "web.yaml", "--json"])
    return st.lists(texts, min_size=command.operand.least, max_size=command.operand.most or 4)


def parts(invocation: Invocation) -> dict[str, object]:
    """An invocation, without how its mistakes would be reported."""

    def plain(given: Sequence[Given]) -> list[tuple[str, str]]:
        return [(item.setting.name, item.text) for item in given]

    return {
        "settings": plain(invocation.settings),
        "sources": plain(invocation.sources),
        "command": invocation.command,
        "options": plain(invocation.options),
        "operands": invocation.operands,
        "meta": invocation.meta,
    }


@given(command_lines())
@example([])
@example(["istio-iptables", *INJECTOR])
@example(["render", "--explain", "-n"])
def test_the_canonical_form_means_the_same(arguments: list[str]):
    invocation = read_arguments(arguments)
    assert invocation.mistakes == ()
    again = read_arguments(invocation.canonical())
    assert again.mistakes == ()
    assert parts(again) == parts(invocation)
    assert again.canonical() == invocation.canonical()


@pytest.fixture(scope="module")
def by_typer() -> Iterator[Callable[[list[str]], Invocation]]:
    """What the Typer application makes of arguments, instead of doing it."""
    seen: list[Invocation] = []

    def record(invocation: Invocation) -> int:
        seen.append(invocation)
        return 0

    app = make_app()

    def run(arguments: list[str]) -> Invocation:
        seen.clear()
        app(arguments, standalone_mode=False, prog_name="istio-iptables")
        assert len(seen) == 1
        return seen[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(handlers, "handle", record)
        yield run


def texts_of(given: Sequence[Given], setting: str) -> list[str]:
    return [item.text for item in given if item.setting.name == setting]


@given(command_lines())
@example(["istio-iptables", *INJECTOR])
@example(["--config=a", "pod", "lint", "--config", "b", "--", "-", "--json"])
@example(["--proxy-uid=1", "-u", "2", "render", "--format=json", "--format", "commands", "--explain=false"])
def test_typer_understands_the_same(by_typer: Callable[[list[str]], Invocation], arguments: list[str]):
    invocation = read_arguments(arguments)
    found = by_typer(invocation.canonical())
    assert found.command == invocation.command
    assert found.operands == invocation.operands
    assert found.mistakes == ()
    for kind in ("settings", "sources", "options"):
        read_here, read_there = getattr(invocation, kind), getattr(found, kind)
        settings = {item.setting.name: item.setting for item in read_here}
        assert {item.setting.name: item.setting for item in read_there} == settings
        for name in settings:  # each time that it is given, in the order in which it is
            assert texts_of(read_there, name) == texts_of(read_here, name)
