"""restore: what iptables-restore does with a script, and what iptables-save prints afterwards.

It shares nothing with the product, so that tests can compare the product with it."""

from __future__ import annotations

import re

from istio_iptables.formats import iptables_restore
from istio_iptables.rules.model import Table
from tests.support import oracle

#: Chain -> its rules, as iptables-save prints them behind `-A CHAIN`.
Chains = dict[str, list[str]]


_BASIC = ("-s", "-d", "-i", "-o", "-p")


_OTHER = r"-m|--(?:[sd]port|dports|[ug]id-owner|mark|ctstate|comment)"


_FULL_MASKS = ["--nfmask", "0xffffffff", "--ctmask", "0xffffffff"]


def load(tables: dict[str, Chains], script: str, family: str) -> None:
    """Change `tables` as `iptables-restore --noflush` (or ip6tables-restore) does when it reads a script."""
    table: Chains | None = None
    for line in script.split("\n"):
        line = re.sub(r"^\[\d+:\d+\] ", "", line)
        line = re.sub(r"(--[ug]id-owner) (\d+):\2(?!\d)", r"\1 \2", line)  # as iptables-save prints it
        if line.startswith("*"):
            table = tables.setdefault(line[1:], {})
        elif line == "COMMIT":
            table = None
        elif line and not line.startswith("#"):
            assert table is not None, f"outside of a table: {line!r}"
            _command(table, line, family)
    assert table is None, "no COMMIT at the end"


def _command(chains: Chains, line: str, family: str) -> None:
    if line.startswith(":"):
        name = line[1:].removesuffix(" - [0:0]")
        assert name not in chains, f"{name} would be flushed"
        chains[name] = []
        return
    what, name, *rest = _words(line)
    if what == "-A":
        chains.setdefault(name, []).append(saved(rest, family))
    elif what == "-I":
        place = int(rest.pop(0))
        assert 1 <= place <= len(chains.get(name, [])) + 1, f"no such place: {line!r}"
        chains.setdefault(name, []).insert(place - 1, saved(rest, family))
    elif what == "-D" and len(rest) == 1:
        del chains[name][int(rest[0]) - 1]
    elif what == "-D":
        chains[name].remove(saved(rest, family))
    elif what == "-F":
        chains[name].clear()
    elif what == "-X":
        assert not chains[name], f"{name} is not empty"
        users = [rule for rules in chains.values() for rule in rules if f"-j {name}" in rule]
        assert not users, f"{name} is in use: {users}"
        del chains[name]
    else:
        raise AssertionError(f"no such command: {line!r}")


def _words(line: str) -> list[str]:
    """Split a line as iptables-restore does; in double quotes, a backslash escapes a quote or a backslash."""
    found = re.findall(r'(?:[^ "]|"(?:[^"\\]|\\.)*")+', line, re.DOTALL)
    return [re.sub(r'"((?:[^"\\]|\\.)*)"', _unquoted, word, flags=re.DOTALL) for word in found]


def _unquoted(quoted: re.Match[str]) -> str:
    return re.sub(r"\\(.)", r"\1", quoted[1], flags=re.DOTALL)


def saved(words: list[str], family: str) -> str:
    """Return the arguments of a rule as iptables-save prints them: see the docstring of oracle.py.

    Fails for anything that is not an option of one of the rules of SPEC section 3, followed by one value.
    """
    groups, target, at = [], [], 0
    while at < len(words):
        if words[at] == "-j":
            target = words[at:]
            break
        length = 3 if words[at] == "!" else 2
        groups.append(words[at : at + length])
        at += length
    basic = {group[-2]: group for group in groups if group[-2] in _BASIC}
    others = [group for group in groups if group[-2] not in _BASIC]
    assert len(basic) + len(others) == len(groups), f"given twice: {words}"
    assert all(re.fullmatch(_OTHER, group[-2]) for group in others), f"not an option: {words}"
    rest = [word for group in others for word in group] + _target(target, family)
    text = [word for option in _BASIC for word in basic.get(option, [])] + rest
    return " ".join(text)


def _target(words: list[str], family: str) -> list[str]:
    """Return a target as it is printed, with what the kernel fills in."""
    if words[:2] == ["-j", "TPROXY"]:
        assert [*words[2::2], len(words)] == ["--on-port", "--tproxy-mark", 6], words
        return [*words[:4], "--on-ip", "0.0.0.0" if family == "ipv4" else "::", *words[4:]]
    if words[:2] == ["-j", "CONNMARK"]:
        assert len(words) == 3, words
        return [*words, *_FULL_MASKS]
    assert len(words) in (2, 4), f"a target and at most one option: {words}"
    return words


def after_loading(script: str, family: str) -> dict[str, list[str]]:
    """Return what iptables-save prints, by table, after the script was loaded into an empty namespace."""
    tables: dict[str, Chains] = {}
    load(tables, script, family)
    return {
        name: [f"-A {chain} {rule}" for chain in sorted(chains) for rule in chains[chain]]
        for name, chains in tables.items()
    }


def by_family(rendered: str) -> dict[str, str]:
    """Split the output of `render` into the scripts of the families."""
    parts = re.split(r"^# (ipv[46]): for ip6?tables-restore --noflush.*\n", rendered, flags=re.MULTILINE)
    return {"ipv4": parts[0]} if len(parts) == 1 else dict(zip(parts[1::2], parts[2::2], strict=True))


def ip_commands(rendered: str) -> list[str]:
    """Return the `ip` commands that `render` shows as comments behind the scripts."""
    return re.findall(r"^# (ip (?:-6 )?(?:rule|route|addr) .*)$", rendered, re.MULTILINE)


def without_comments(line: str) -> str:
    """Return a rule without the comments of --rule-comments; SPEC's own comments stay, without the reason."""
    line = re.sub(r"-m comment --comment istio-iptables\b(?:: .*?(?= -j ))?", "\0", line)
    line = re.sub(r" -m comment --comment .*?(?= -j )", "", line)
    return line.replace("\0", oracle.COMMENT)


def read_back(script: str, family: str) -> tuple[Table, ...]:
    return iptables_restore.parse(script, "ipv4" if family == "ipv4" else "ipv6")
