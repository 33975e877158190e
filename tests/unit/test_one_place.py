"""One fact in one place: numbers of Istio, names of backends and of tables are not written down twice."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import istio_iptables
from istio_iptables.change import actions
from istio_iptables.interpreter import nft_rules
from istio_iptables.kernel.xtables.libiptc import Libiptc
from istio_iptables.rules import istio

PACKAGE = Path(istio_iptables.__file__).parent

#: Istio's ports, marks and IDs. Not 133, which is a type of ICMPv6 too, and no port below 1024.
NUMBERS = {
    istio.PROXY_ID,
    istio.PROXY_TO_OWN_POD_MARK,
    istio.OUTBOUND_PORT,
    istio.INBOUND_PORT,
    istio.TUNNEL_PORT,
    istio.DNS_AGENT_PORT,
    istio.PROBE_PORT,
    istio.AMBIENT_LOOKUP[2],
    *istio.LISTENERS,
}
CHAINS_AND_TABLES = {*istio.CHAINS, istio.AMBIENT_CHAIN, *istio.NATIVE_TABLES.values()}
#: The facts, and the module that has them. A check of doctor has a stable name of its own.
PLACES = [
    ("rules/istio.py", NUMBERS, set()),
    ("rules/istio.py", CHAINS_AND_TABLES, set()),
    ("rules/istio.py", {istio.TAG}, set()),
    ("change/actions.py", {*actions.IPTABLES_LOCATIONS}, {"doctor/examination.py"}),
    ("kernel/xtables/libiptc.py", {Libiptc.name}, {"doctor/examination.py"}),
]


def constants(path: Path) -> Iterator[object]:
    """All numbers and texts of a module but its docstrings."""
    tree = ast.parse(path.read_text())
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    texts = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in texts:
            yield node.value


@pytest.mark.parametrize(("place", "facts", "allowed"), PLACES)
def test_a_fact_is_in_one_module(place: str, facts: set[object], allowed: set[str]) -> None:
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if any(type(value) in (int, str) and value in facts for value in constants(path))
    }
    assert found - allowed == {place}


def test_the_interpreter_calls_the_location_of_native_rules_as_all_do() -> None:
    """It is below the package that names the locations."""
    assert nft_rules.LOCATION == actions.NFTABLES
