"""The library's edge: the names that istio_iptables/__init__.py promises, and the examples in docstrings."""

from __future__ import annotations

import doctest
import importlib
import pydoc
import re
from types import FunctionType, ModuleType
from typing import Any, get_args

import pytest

import istio_iptables
from istio_iptables import Facts, Ruleset, SettingsError, build, configure, lint_pods
from istio_iptables.change import actions
from istio_iptables.errors import Differs, IstioIptablesError, KernelError
from istio_iptables.rules import model
from istio_iptables.rules.nftables import model as native_model
from istio_iptables.startup.record import Record
from istio_iptables.testing import FakeKernel
from tests.support.cases import all_cases


@pytest.mark.parametrize(
    "name",
    [
        "istio_iptables",
        "istio_iptables.api",
        "istio_iptables.startup.record",
        "istio_iptables.rules.model",
        "istio_iptables.testing",
    ],
)
def test_examples(name: str):
    results = doctest.testmod(importlib.import_module(name), raise_on_error=False)
    assert results.failed == 0
    assert results.attempted > 0 or name == "istio_iptables"


machine: Any = FakeKernel()

#: Names for types that are not classes, and the values or classes that each of them has.
ALIASES: dict[str, set[object]] = {
    "Family": {"ipv4", "ipv6"},
    "Location": {"iptables-legacy", "iptables-nft", "nftables"},
    "PictureStyle": {"mermaid", "dot", "svg"},
    "Style": {"restore", "nft", "commands", "json"},
    "TableName": {"raw", "mangle", "nat"},
    "Action": set(get_args(actions.Action)),
    "RoutingObject": set(get_args(model.RoutingObject)),
}


@pytest.mark.parametrize("name", ALIASES)
def test_aliases_exist_at_run_time(name: str):
    assert set(get_args(getattr(istio_iptables, name))) == ALIASES[name]


def test_the_parts_of_an_alias_can_be_imported():
    public = {getattr(istio_iptables, name) for name in istio_iptables.__all__ if name not in ALIASES}
    for name in ("Action", "RoutingObject"):
        assert ALIASES[name] <= public


@all_cases("name", sorted({*istio_iptables.__all__} - {*ALIASES}))
def test_every_name_can_be_imported(name: str):
    value = getattr(istio_iptables, name)
    assert value is getattr(istio_iptables, name)
    assert value.__doc__
    assert value.__module__.startswith("istio_iptables.")
    assert type(value) in (type, FunctionType) or name in ("ALL", "Environment", "Settings")
    exec(f"from istio_iptables import {name}")


def test_names_are_sorted_and_complete():
    assert sorted(istio_iptables.__all__) == list(istio_iptables.__all__)
    where = vars(istio_iptables)["_WHERE"]
    assert set(where) == set(istio_iptables.__all__)


def test_what_comes_back_can_be_imported():
    """Every type in what the library gives out is a name of the package, or in rules.model."""
    facts = Facts(True, True, ("10.0.0.1",), groups={"staff": 5})
    config = configure(
        redirect_dns=True, dual_stack=True, interception_mode="TPROXY", inbound_ports=[80], environment=facts
    )
    with FakeKernel(forced_variant="nft") as legacy, FakeKernel(native_nftables=True) as native:
        native.put(build(config.replace(outbound_port=1)), "iptables-legacy")
        plans = [machine.plan(build(config)) for machine in (legacy, native)]
        plans[1].apply()
        plans += [native.plan(build(config)), native.plan(Ruleset()), legacy.plan(Ruleset(), rewrite=True)]
    seen: set[type] = set()
    found: list[object] = [config, build(config), lint_pods(POD)]
    found += [part for p in plans for part in (p, p.plan, p.live, p.choice, p.differences)]
    while found:
        value = found.pop()
        if isinstance(value, Record):
            seen.add(type(value))
            found += value.as_dict().values()
        elif isinstance(value, (tuple, list, frozenset)):
            found += value
        elif isinstance(value, dict):
            found += value.values()
        elif type(value).__module__.startswith("istio_iptables"):
            seen.add(type(value))
    assert {"Finding", "Difference", "Choice", "Prepared", "EditNative"} <= {kind.__name__ for kind in seen}
    public = {getattr(istio_iptables, name) for name in istio_iptables.__all__}
    models = {k for m in (model, native_model) for k in vars(m).values() if isinstance(k, type)}
    assert {kind for kind in seen if kind not in public and kind not in models} == set()


POD = """
kind: Pod
metadata: {name: web, annotations: {traffic.sidecar.istio.io/includeInboundPort: "8080"}}
"""


def test_dir_and_help_show_what_is_there():
    assert set(istio_iptables.__all__) < set(dir(istio_iptables))
    shown = re.sub(".\b", "", pydoc.render_doc(istio_iptables))  # a letter twice is a bold one
    for name in ("class Cidr(", "configure(", "network_namespace(", "ALL = Everything()"):
        assert name in shown
    table = (istio_iptables.__doc__ or "").partition("What is here:")[2]
    named = set(re.findall(r"\w+", table))
    functions = {name for name in istio_iptables.__all__ if name.islower()}
    assert functions <= named


def test_there_are_no_other_names():
    with pytest.raises(AttributeError, match="module 'istio_iptables' has no attribute 'nonsense'"):
        istio_iptables.nonsense  # noqa: B018
    with pytest.raises(ImportError):
        exec("from istio_iptables import nonsense")
    assert not hasattr(istio_iptables, "__wrapped__")


def test_names_mean_what_they_say():
    from istio_iptables.kernel import namespace

    assert istio_iptables.enter_network_namespace is namespace.enter
    assert isinstance(istio_iptables, ModuleType)
    assert istio_iptables.__version__.count(".") == 2


def test_errors_have_exit_codes():
    codes = {error: error.exit_code for error in (IstioIptablesError, KernelError, SettingsError, Differs)}
    assert codes == {IstioIptablesError: 1, KernelError: 1, SettingsError: 2, Differs: 3}
    assert all(issubclass(error, IstioIptablesError) for error in codes)
    assert str(KernelError("cause", "remedy")) == "cause\n  what to do: remedy"
    assert str(KernelError("cause")) == "cause"
    assert str(SettingsError(["one", "two"])) == "one\ntwo"
