"""snapshots: all that a run could change, as it is in a namespace, and files that a process finds instead."""

from __future__ import annotations

import re

from .istio_fixtures import ANYONES
from .scratch import FAMILIES, VARIANTS, Scratch

NATIVE = ["--native-nftables"]
#: How the rules of each location are asked for.
LOCATIONS: dict[str, list[str]] = {
    "legacy": ["--force-iptables-binary", "legacy"],
    "nft": ["--force-iptables-binary", "nft"],
    "native": NATIVE,
}
COMMANDS_THAT_WRITE: tuple[list[str], ...] = (
    [],
    ["--reconcile"],
    ["--force-apply", "--reconcile"],
    ["cleanup"],
)


def everything(scratch: Scratch) -> tuple[object, ...]:
    """Return all that a run could change, counters, handles and the existence of tables included."""
    state, tables = scratch.state(counters=True), scratch.legacy_tables()
    return state, tables, scratch.nft("-a", "list", "ruleset"), scratch.generation()


def rules(scratch: Scratch) -> dict[tuple[str, str, str], list[str]]:
    """Return rules and user-defined chains of iptables by variant, family and table; without empty tables."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for variant in VARIANTS:
        for family in FAMILIES:
            table = ""
            for line in scratch.save(variant, family).splitlines():
                if line.startswith("*"):
                    table = line[1:]
                elif line.startswith("-A ") or re.match(r":\S+ -", line):
                    found.setdefault((variant, family, table), []).append(line)
    return found


def without_anyones(
    found: dict[tuple[str, str, str], list[str]],
) -> dict[tuple[str, str, str], list[str]]:
    """Return the same rules without those that any program could have written."""
    kept = {key: [line for line in lines if not ANYONES.match(line)] for key, lines in found.items()}
    return {key: lines for key, lines in kept.items() if lines}


def routing(scratch: Scratch) -> dict[str, list[str]]:
    """Return addresses, routes and routing rules, without what says how they came to be there.

    The kernel chooses a rule's priority anew each time; `nodad` says how an address was added.
    """
    found = {key: text.splitlines() for key, text in scratch.network().items()}
    return {key: sorted(re.sub(r"^\d+:| nodad", "", line) for line in lines) for key, lines in found.items()}


def with_files(scratch: Scratch, contents: dict[str, str]) -> list[str]:
    """Return the prefix of a command that is to find these contents in these files."""
    mounts = []
    for number, (path, text) in enumerate(contents.items()):
        file = scratch.directory / f"replacement-{number}"
        file.write_text(text)
        mounts.append(f"mount --bind {file} {path}")
    script = f'{" && ".join(mounts)} && exec "$@"'
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
