"""native: the nftables tables of native mode. For now they are only found and removed."""

from __future__ import annotations

from .. import netlink
from ..errors import KernelError
from .restore import run, which

#: The family and the names of the tables of native mode (Istio's own, too).
_FAMILY = "inet"
_TABLES = ("istio-proxy-nat", "istio-proxy-mangle", "istio-proxy-raw")


def tables() -> tuple[str, ...]:
    """Return the native tables of ours that exist. Starts no process."""
    return tuple(t.name for t in netlink.nft_tables() if t.family == _FAMILY and t.name in _TABLES)


def save(names: tuple[str, ...]) -> str:
    """Return a script that makes these tables again as they are."""
    return "".join(_nft("list", "table", _FAMILY, name) for name in names)


def remove(names: tuple[str, ...]) -> None:
    """Remove tables in one transaction."""
    _nft("-f", "-", script="".join(f"delete table {_FAMILY} {name}\n" for name in names))


def load(script: str) -> None:
    """Make tables again from what `save` returned."""
    _nft("-f", "-", script=script)


def _nft(*arguments: str, script: str = "") -> str:
    path = which("nft")
    if not path:
        raise KernelError(
            "there are nftables tables of ours, but the command nft is not installed",
            "install the package nftables",
        )
    result = run((path, *arguments), script)
    if result.status != 0:
        said = "; ".join(line.strip() for line in result.errors.splitlines() if line.strip(" ^"))
        raise KernelError(
            f"nft {' '.join(arguments)} failed: {said}",
            "if it is not permitted, another program owns the table (`nft list tables`): end that program",
        )
    return result.output
