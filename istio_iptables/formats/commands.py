"""commands: a Ruleset as a shell script of iptables and ip commands, for people to read and run."""

from __future__ import annotations

from ..ruleset import FAMILIES, TABLES, LocalAddress, LocalDefaultRoute
from .words import rule_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..ruleset import Family, NetworkObject, Ruleset, Table

_BINARY = {"ipv4": "iptables", "ipv6": "ip6tables"}


def ip_command(item: NetworkObject) -> str:
    """Return the ip(8) command that makes an address, a routing rule or a route."""
    ip = "ip" if item.family == "ipv4" else "ip -6"
    if isinstance(item, LocalAddress):
        return f"{ip} addr add {item.network} dev lo nodad"
    if isinstance(item, LocalDefaultRoute):
        return f"{ip} route add local default dev lo table {item.table}"
    return f"{ip} rule add fwmark {item.mark} lookup {item.table}"


def script(ruleset: Ruleset, families: Sequence[Family] = FAMILIES, *, explain: bool = False) -> str:
    """Return a shell script that puts the rules into a namespace without rules of ours.

    With `explain` every rule has a comment line above it that says why it is there.
    """
    lines = ["#!/bin/sh", "set -e"]
    lines += [ip_command(item) for item in ruleset.network if item.family in families]
    for family in families:
        for name in TABLES:
            lines += _table_lines(ruleset.table(family, name), explain)
    return "".join(f"{line}\n" for line in lines)


def _table_lines(table: Table, explain: bool) -> Iterator[str]:
    command = f"{_BINARY[table.family]} -t {table.name}"
    for chain in table.chains:
        if chain.is_ours:
            yield f"{command} -N {chain.name}"
    for chain in table.chains:
        for position, rule in enumerate(chain.in_order, start=1):
            where = f"-I {chain.name} {position}" if position <= len(chain.head) else f"-A {chain.name}"
            if explain:
                yield f"# {rule.reason}"
            yield f"{command} {where} {quoted(rule_words(rule))}"


def quoted(words: Sequence[str]) -> str:
    """Join words so that a POSIX shell takes each as one argument."""
    import shlex

    return shlex.join(words)
