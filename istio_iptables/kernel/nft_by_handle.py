"""nft_by_handle: find what is owned in tables that iptables cannot read whole, and remove it by handles.

iptables-nft gives up on a whole table if another program put one rule into it with nft that iptables has no
match or target for, `masquerade` for instance. It still shows each chain that has no such rule, with
`-S CHAIN`, so that ownership is told there as anywhere; nft has the handles (nft(8), RULES), in that order.
Of a chain that iptables cannot show, nft says where each rule jumps, but not the comments of iptables.
"""

from __future__ import annotations

from ..change.actions import UnreadableTable
from ..errors import KernelError
from ..formats import NFT_FAMILIES
from ..formats.iptables_restore import parse
from ..rules.istio import AMBIENT_CHAIN, CHAINS, TAG
from ..rules.model import BUILTIN_CHAINS
from ..rules.ownership import is_ambient, owned, owned_rules
from .process import run, which

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ..rules.model import Family, Table, TableName


def read(
    family: Family, name: TableName, chains: Sequence[str], show: Callable[[str], str | None]
) -> UnreadableTable:
    """Return what can be told of a table, and the script that removes what is owned from it.

    `chains` are all chains that it has; `show` returns a chain as `iptables -S` prints it, None if iptables
    cannot. Raises KernelError if nft is needed and cannot say what is in the table.
    """
    before = _handles(_listed(family, name)) if which("nft") else []
    relevant = [chain for chain in chains if chain in CHAINS | BUILTIN_CHAINS | {AMBIENT_CHAIN}]
    shown = {chain: show(chain) for chain in relevant}
    declared = "".join(f":{chain} - [0:0]\n" for chain in chains)
    (part,) = parse(f"*{name}\n{declared}{''.join(filter(None, shown.values()))}COMMIT\n", family)
    hidden = tuple(chain for chain, text in shown.items() if text is None)
    may_own = not owned(part).is_empty or not CHAINS.isdisjoint(chains) or bool(hidden)
    removal = ""
    if may_own and not is_ambient(part):
        rules = _listed(family, name)
        if before and _handles(rules) != before:
            raise KernelError(
                f"the nft table {NFT_FAMILIES[family]} {name} changed while it was read", "run again"
            )
        removal = _removal(part, hidden, rules)
    return UnreadableTable(family, name, removal, part, hidden)


def _listed(family: Family, table: TableName) -> list[dict[str, Any]]:
    """Return the rules of a table as nft's JSON has them."""
    import json

    name = (NFT_FAMILIES[family], table)
    text = _nft(f"list the table {' '.join(name)}", "--json", "--handle", "list", "table", *name)
    return [item["rule"] for item in json.loads(text)["nftables"] if "rule" in item]


def _handles(rules: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(rule["chain"], rule["handle"]) for rule in rules]


def _removal(part: Table, hidden: Sequence[str], rules: list[dict[str, Any]]) -> str:
    """Return the script that removes what is owned, nothing if that is nothing."""
    table = f"{NFT_FAMILIES[part.family]} {part.name}"
    lines: list[str] = []
    still_called: set[str] = set()
    for chain in part.chains:
        if chain.name in CHAINS:
            continue
        listed = [rule for rule in rules if rule["chain"] == chain.name]
        told = chain.name in BUILTIN_CHAINS and chain.name not in hidden
        positions = owned_rules(part, chain) if told else ()
        for position, rule in enumerate(listed):
            if position in positions or (chain.name in hidden and _is_owned(rule)):
                lines.append(f"delete rule {table} {chain.name} handle {rule['handle']}")
            else:
                still_called.add(_called(rule))
    names = [chain.name for chain in part.chains if chain.name in CHAINS]
    lines += [f"flush chain {table} {name}" for name in names]
    lines += [f"delete chain {table} {name}" for name in names if name not in still_called]
    return "".join(f"{line}\n" for line in lines)


def _is_owned(rule: dict[str, Any]) -> bool:
    comment = rule.get("comment", "")
    return _called(rule) in CHAINS or comment == TAG or comment.startswith(f"{TAG}: ")


def _called(rule: dict[str, Any]) -> str:
    """Return the chain that a rule jumps to, nothing if it does not."""
    for part in rule["expr"]:
        for kind in ("jump", "goto"):
            if isinstance(part, dict) and kind in part:
                return str(part[kind]["target"])
    return ""


def remove(script: str) -> None:
    """Run the script of an UnreadableTable, all or nothing. Raises KernelError."""
    _nft("remove rules by their handles", "-f", "-", script=script)


def _nft(purpose: str, *arguments: str, script: str = "") -> str:
    path = which("nft")
    if not path:
        raise KernelError(
            f"the command nft is not installed, which is needed to {purpose}: iptables cannot read it",
            "install the package nftables, or delete the rule that another program put there with nft",
        )
    result = run((path, *arguments), script)
    if result.status != 0:
        message = "; ".join(result.errors.split("\n")).strip("; ") or result.ended
        raise KernelError(f"nft could not {purpose}: {message}", "see nft's own message above")
    return result.output
