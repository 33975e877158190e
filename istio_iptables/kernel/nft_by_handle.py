"""nft_by_handle: find what is owned in tables of iptables that only nft can read, and remove it by handles.

iptables-nft gives up on a whole table if another program put one rule into it with nft that iptables has no
match or target for, `masquerade` for instance. nft still shows the rules of iptables: which chain each is in,
where it jumps, its comment and its handle, and that is enough to take them away (nft(8), RULES).
"""

from __future__ import annotations

from ..errors import KernelError
from ..rules.istio import CHAINS, TAG
from .process import run, which

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def removal(family: str, table: str) -> str:
    """Return the script that removes what is owned from a table, nothing if that is nothing.

    `family` is ip or ip6. Raises KernelError if nft cannot say what is in the table.
    """
    import json

    name = (family, table)
    objects = json.loads(
        _nft(f"list the table {' '.join(name)}", "--json", "--handle", "list", "table", *name)
    )
    rules = [item["rule"] for item in objects["nftables"] if "rule" in item]
    chains = [item["chain"]["name"] for item in objects["nftables"] if "chain" in item]
    lines = [
        f"delete rule {family} {table} {rule['chain']} handle {rule['handle']}"
        for rule in rules
        if rule["chain"] not in CHAINS and _is_owned(rule)
    ]
    owned = [name for name in chains if name in CHAINS]
    lines += [f"flush chain {family} {table} {name}" for name in owned]
    still_called = {_called(rule) for rule in rules if rule["chain"] not in CHAINS and not _is_owned(rule)}
    lines += [f"delete chain {family} {table} {name}" for name in owned if name not in still_called]
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
    """Run a script of `removal`, all or nothing. Raises KernelError."""
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
        said = "; ".join(result.errors.split("\n")).strip("; ") or result.ended
        raise KernelError(f"nft could not {purpose}: {said}", "see nft's own message above")
    return result.output
