"""One fact in one place: numbers of Istio, names of backends and of tables are not written down twice."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Set
from functools import cache

import pytest

from istio_iptables.change import actions
from istio_iptables.interpreter import nft_rules, program
from istio_iptables.kernel.xtables.libiptc import Libiptc
from istio_iptables.rules import istio
from tests.support.sources import modules

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
    ("rules/__init__.py", {istio.TAG}, set()),
    ("change/actions.py", {*actions.IPTABLES_LOCATIONS}, {"doctor/examination.py", "interpreter/program.py"}),
    ("kernel/xtables/libiptc.py", {Libiptc.name}, {"doctor/examination.py"}),
]


@cache
def constants() -> Mapping[str, Set[object]]:
    """All numbers and texts of each module but its docstrings."""
    return {name: frozenset(_constants(module)) for name, module in modules().items()}


def _constants(module: ast.Module) -> Iterator[object]:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(module)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(module):
        if isinstance(node, ast.Constant) and id(node) not in docstrings and type(node.value) in (int, str):
            yield node.value


@pytest.mark.xdist_group("sources")
@pytest.mark.parametrize(("place", "facts", "allowed"), PLACES)
def test_a_fact_is_in_one_module(place: str, facts: set[object], allowed: set[str]) -> None:
    found = {name for name, values in constants().items() if not values.isdisjoint(facts)}
    assert found - allowed == {place}


def test_the_interpreter_calls_locations_as_all_do() -> None:
    """It is below the package that names the locations."""
    assert nft_rules.LOCATION == actions.NFTABLES
    assert program.IPTABLES_NFT == actions.IPTABLES_NFT
