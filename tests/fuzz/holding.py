"""holding: what must hold of whatever comes from outside, for several harnesses."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from istio_iptables.api import build
from istio_iptables.errors import IstioIptablesError
from istio_iptables.formats import iptables_restore, nft, shell
from istio_iptables.rules.model import Table
from istio_iptables.rules.nftables.translate import translate
from istio_iptables.settings.config import Config
from istio_iptables.settings.facts import Facts
from istio_iptables.settings.resolve import parse, resolve
from istio_iptables.settings.texts import Given
from tests.support import restore

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
GOLDEN = ROOT / "tests" / "golden"

#: Both families, and names of users and groups, also odd ones.
FACTS = Facts(
    ipv6=True,
    servers=("10.96.0.10", "fd00::a"),
    users={"istio-proxy": 1337, "envoy": 101},
    groups={"istio-proxy": 1338, "web": 2000, "99": 7},
)

#: The longest line that a user is told: a value takes 200 characters of it, and has to be shown escaped.
_LONGEST = 1500
_T = TypeVar("_T")


def told(error: Exception) -> None:
    """Check the message of an error: in few characters, and none that would do something to a terminal."""
    for line in str(error).split("\n"):
        assert line.isprintable(), f"not printable: {line!r}"
        assert len(line) <= _LONGEST, f"{len(line)} characters: {line[:200]}"


def allowed(
    function: Callable[[], _T], errors: type[Exception] | tuple[type[Exception], ...] = IstioIptablesError
) -> _T | None:
    """Return what a function returns, None if it raises what it may, with a message for a user."""
    try:
        return function()
    except errors as error:
        told(error)
        return None


def printable(texts: Iterable[str]) -> None:
    """Check texts of one line each: warnings, and what is said of a dump."""
    for text in texts:
        told(ValueError(text))
        assert "\n" not in text, repr(text)


def settled(given: Sequence[Given], mistakes: Iterable[str], facts: Facts = FACTS) -> None:
    """Check the rules of settings, if they are settings: see `written_well`. Mistakes are told."""
    resolved = allowed(lambda: resolve(parse(given, facts, mistakes), facts))
    if resolved is None:
        return
    config, warnings = resolved
    printable(warnings)
    rules_hold(config)


def rules_hold(config: Config) -> None:
    """Check the rules of settings: written, they are read as what they are, here and elsewhere."""
    ruleset = build(config)
    for family in ruleset.families():
        script = iptables_restore.script(ruleset, family, explain=True)
        restore.after_loading(script, family)  # which knows the options of these rules, and no others
        found = iptables_restore.parse(_as_saved(script), family)
        mine = [table for table in ruleset.tables if table.family == family]
        assert _meaning(found) == _meaning(mine)
    shell.script(ruleset, explain=True)
    native = allowed(lambda: nft.script(translate(ruleset)))
    one_line_a_rule(native or "")


def _as_saved(script: str) -> str:
    """Return a script as iptables-save prints the tables: what is inserted comes before what is added."""
    tables = re.findall(r"^\*.*?^COMMIT\n", script, re.MULTILINE | re.DOTALL)
    text = "".join("".join(sorted(table.splitlines(keepends=True), key=_place)) for table in tables)
    return re.sub(r"^-I (\S+) \d+ ", r"-A \1 ", text, flags=re.MULTILINE)


def _place(line: str) -> int:
    return next(
        number for number, start in enumerate(("*", ":", "#", "-I", "-A", "COMMIT")) if line.startswith(start)
    )


def _meaning(tables: Iterable[Table]) -> dict[tuple[str, str], list[tuple[object, object]]]:
    """Return the rules by table and chain, without their reasons."""
    return {
        (table.name, chain.name): [(rule.matches, rule.target) for rule in chain.in_order]
        for table in tables
        for chain in table.chains
        if chain.in_order
    }


def one_line_a_rule(script: str) -> None:
    """Check that what is in double quotes in a script for nft ends on its line."""
    for line in script.splitlines():
        assert len(re.findall('"', line)) % 2 == 0, f"a quote is open: {line!r}"
        assert line.replace("\t", "").isprintable(), repr(line)


def text_of(data: bytes) -> str | None:
    """Return what a file holds as text, None if it is not UTF-8: such a file is refused before it is read."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None


def files(*patterns: str) -> list[bytes]:
    """Return what is in files of the tree, by patterns."""
    return [path.read_bytes() for pattern in patterns for path in sorted(ROOT.glob(pattern))]
