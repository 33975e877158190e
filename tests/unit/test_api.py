"""The library: what istio_iptables/__init__.py promises, and the examples in docstrings."""

from __future__ import annotations

import doctest
import importlib
import ipaddress
import json
import pickle
import pydoc
import re
import warnings
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any, get_args

import netaddr
import pytest

import istio_iptables
from istio_iptables import (
    ALL,
    Cidr,
    Config,
    Facts,
    Plan,
    Ruleset,
    SettingsError,
    SettingsWarning,
    build,
    configure,
    configure_with_warnings,
    lint_pods,
    prepare,
    render,
)
from istio_iptables.change import actions
from istio_iptables.cli import handlers
from istio_iptables.cli.context import Context as RealContext
from istio_iptables.cli.log import log
from istio_iptables.errors import Differs, IstioIptablesError, KernelError
from istio_iptables.rules import model
from istio_iptables.rules.model import (
    ConnectionMark,
    Jump,
    Mark,
    PortRange,
    RestoreMark,
    Rule,
    SaveMark,
    Table,
)
from istio_iptables.rules.nftables import model as native_model
from istio_iptables.settings.declared import SETTINGS
from istio_iptables.settings.go_flags import read_arguments
from istio_iptables.settings.resolve import Operation
from istio_iptables.startup.record import Record
from istio_iptables.testing import FakeKernel


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


#: The package for what an editor or a type checker would show as wrong.
library: Any = istio_iptables
Fake: Any = FakeKernel
machine: Any = FakeKernel()


# --- names ------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("name", sorted({*istio_iptables.__all__} - {*ALIASES}))
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


# --- configure, build, render -----------------------------------------------------------------


def test_configure():
    config = configure({"istio-inbound-ports": "80", "ISTIO_OUTBOUND_OWNER_GROUPS": "5"}, environment=Facts())
    assert isinstance(config, Config)
    assert str(config.inbound_ports) == "(PortRange(first=80, last=80),)"
    assert config.owner_groups == (5,)
    assert configure(environment=Facts()) == configure({}, environment=Facts())


def test_configure_takes_python_s_own_values():
    texts = {
        "istio-inbound-ports": "80,443,8000:8100",
        "drop-invalid": "true",
        "envoy-port": "1",
        "proxy-uid": "",
    }
    values = {
        "istio-inbound-ports": [80, "443", "8000:8100"],
        "drop-invalid": True,
        "envoy-port": 1,
        "proxy-uid": (),
    }
    assert configure(values, environment=Facts()) == configure(texts, environment=Facts())
    with pytest.raises(SettingsError) as caught:
        configure(
            {"envoy-port": 0, "drop-invalid": 2, "proxy-uid": {}, "proxy-gid": [[1]]}, environment=Facts()
        )
    assert len(caught.value.mistakes) == 4


@pytest.mark.parametrize(
    ("keyword", "flag"),
    [
        ({"inbound_ports": [8080, PortRange(1, 2), "9-10"]}, {"istio-inbound-ports": "8080,1:2,9:10"}),
        ({"inbound_ports": 8080}, {"istio-inbound-ports": "8080"}),
        ({"inbound_ports": ALL}, {"istio-inbound-ports": "*"}),
        ({"inbound_ports": ()}, {"istio-inbound-ports": ""}),
        ({"dual_stack": True}, {"dual-stack": "true"}),
        ({"outbound_port": 1, "proxy_uids": [0, "7"]}, {"envoy-port": "1", "proxy-uid": "0,7"}),
        ({"owner_groups": [5]}, {"ISTIO_OUTBOUND_OWNER_GROUPS": "5"}),
        ({"ipv4_loopback": Cidr(4, 0x7F000000, 8)}, {"ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR": "127.0.0.0/8"}),
        ({"interfaces_excluded": ["eth1", "eth2+"]}, {"istio-exclude-interfaces": "eth1,eth2+"}),
    ],
)
def test_settings_by_keyword_are_those_by_flag(keyword: dict[str, Any], flag: dict[str, object]):
    facts = Facts(True, True)
    assert configure(environment=facts, **keyword) == configure(flag, environment=facts)
    assert configure(environment=facts, **keyword) != configure(environment=facts) or keyword == {
        "inbound_ports": ALL
    }


def test_keywords_and_flags_together():
    config = configure({"istio-inbound-ports": "80"}, dual_stack=True, environment=Facts(True, True))
    assert (config.inbound_ports, config.ipv6) == ((PortRange(80, 80),), True)


@pytest.mark.parametrize(
    "networks",
    [
        [
            ipaddress.ip_network("10.0.0.0/8"),
            ipaddress.ip_network("fd00::/8"),
            ipaddress.ip_address("1.2.3.4"),
        ],
        [netaddr.IPNetwork("10.1.2.3/8"), netaddr.IPNetwork("fd00::/8"), netaddr.IPAddress("1.2.3.4")],
        [ipaddress.ip_interface("10.1.2.3/8"), Cidr(6, 0xFD << 120, 8), "1.2.3.4"],
        ("10.0.0.0/8", "fd00::/8", "1.2.3.4"),
        "10.0.0.0/8, fd00::/8, 1.2.3.4",
    ],
    ids=["ipaddress", "netaddr", "both", "texts", "text"],
)
def test_networks_of_any_kind(networks: Any):
    expected = (Cidr(4, 10 << 24, 8), Cidr(6, 0xFD << 120, 8), Cidr(4, 0x01020304, 32))
    assert (
        configure(outbound_cidrs_excluded=networks, environment=Facts()).outbound_cidrs_excluded == expected
    )
    assert configure(outbound_cidrs=networks, environment=Facts()).outbound_cidrs == expected
    if isinstance(networks, (list, tuple)):
        assert tuple(map(Cidr.from_ipaddress, networks)) == expected
        assert tuple(map(Cidr.from_netaddr, networks)) == expected


def test_a_cidr_as_others_have_it():
    for text in ("10.0.0.0/8", "0.0.0.0/0", "::6/128", "fd00::/8"):
        cidr = Cidr.from_ipaddress(text)
        assert str(cidr) == text
        assert cidr.to_ipaddress() == ipaddress.ip_network(text)
        assert cidr.to_netaddr() == netaddr.IPNetwork(text)
        assert Cidr.from_ipaddress(cidr) == cidr
    with pytest.raises(ValueError, match="does not appear to be"):
        Cidr.from_ipaddress("10.0.0.0/33")
    with pytest.raises(TypeError, match=r"^a Cidr is made from a network .*, not int$"):
        Cidr.from_ipaddress(1)


def test_the_keywords_are_the_settings_that_a_config_depends_on():
    of_the_command = set(Operation._fields) - {"native_nftables"}
    fields = {setting.field for setting in SETTINGS if setting.field}
    assert set(library.Settings.__annotations__) == fields - of_the_command
    assert of_the_command < fields


@pytest.mark.parametrize(
    ("keywords", "mistake"),
    [
        ({"inbound_port5": 1}, "inbound_port5: unknown setting (did you mean inbound_port?)"),
        ({"istio_inbound_ports": 1}, "istio_inbound_ports: unknown setting (did you mean inbound_ports?)"),
        ({"nonsense": 1}, "nonsense: unknown setting"),
        ({"dry_run": True}, "dry_run: for the command alone"),
        ({"inbound_ports": None}, "inbound_ports: None cannot be used"),
        ({"inbound_ports": object()}, "inbound_ports: a value must be a string, a number, .*, not object$"),
        ({"inbound_ports": {80}}, "inbound_ports: a value must be a string, a number, .*, not set$"),
        ({"inbound_ports": [[80]]}, "inbound_ports: a list can"),
        ({"inbound_ports": 1.5}, "inbound_ports: a value must be .*, not float$"),
        ({"outbound_port": True}, "outbound_port: 'true' is not a port"),
        ({"dual_stack": "yes"}, "dual_stack: 'yes' is not a boolean"),
    ],
)
def test_a_keyword_that_cannot_be_used(keywords: dict[str, Any], mistake: str):
    with pytest.raises(SettingsError) as caught:
        configure(environment=Facts(), **keywords)
    (line,) = caught.value.mistakes
    assert re.match(mistake.replace("(", r"\(").replace(")", r"\)").replace("?", r"\?"), line), line


def test_one_setting_given_twice_is_an_error():
    with pytest.raises(SettingsError) as caught:
        configure({"istio-inbound-ports": 80, "no": 1}, inbound_ports=80, environment=Facts())
    assert caught.value.mistakes == (
        "no: unknown setting",
        "inbound_ports: given twice, as istio-inbound-ports too: leave one out",
    )


def test_warnings_come_back():
    facts = Facts(True, True)
    text = "there is an IPv6 address, but IPv6 traffic is not captured: --dual-stack captures it"
    assert configure_with_warnings(environment=facts) == (configure(environment=facts), (text,))
    with warnings.catch_warnings(record=True) as issued:
        warnings.simplefilter("always")
        configure(environment=facts)
        configure(dual_stack=True, environment=facts)
    (warning,) = issued
    assert (warning.category, str(warning.message)) == (SettingsWarning, text)
    assert warning.filename == __file__, "the caller's line is named"
    with warnings.catch_warnings():
        warnings.simplefilter("error", SettingsWarning)
        with pytest.raises(SettingsWarning, match="IPv6"):
            configure(environment=facts)


@pytest.mark.parametrize(
    ("call", "error", "line"),
    [
        (lambda: library.build({}), TypeError, "build() takes a Config (see configure), not dict"),
        (lambda: library.render("x"), TypeError, "render() takes a Ruleset (see build), not str"),
        (
            lambda: library.validate(None),
            TypeError,
            "validate() takes a Config (see configure), not NoneType",
        ),
        (
            lambda: library.pod_settings(None),
            TypeError,
            "pod_settings() takes the text of a manifest, not NoneType",
        ),
        (lambda: library.lint_pods(b""), TypeError, "lint_pods() takes the text of a manifest, not bytes"),
        (
            lambda: library.prepare(None, Ruleset()),
            TypeError,
            "prepare() takes a Machine and a Ruleset, not NoneType",
        ),
        (lambda: machine.plan("x"), TypeError, "plan() takes a Ruleset (see build), not str"),
        (
            lambda: library.configure("x"),
            TypeError,
            "settings are a mapping of long flag names to values, not str",
        ),
        (
            lambda: library.configure(environment="x"),
            TypeError,
            "environment is a Facts, or has its methods, not str",
        ),
        (
            lambda: library.Machine(forced_variant="x"),
            ValueError,
            "forced_variant is 'x': it has to be one of legacy, nft, or empty",
        ),
        (
            lambda: library.Machine(forced_variant={}),
            ValueError,
            "forced_variant is {}: it has to be one of legacy, nft, or empty",
        ),
        (
            lambda: library.render(Ruleset(), "xml"),
            ValueError,
            "style is 'xml': it has to be one of restore, nft, commands, json",
        ),
        (
            lambda: library.render(Ruleset(), families="ipv4"),
            ValueError,
            "families is 'ipv4': it has to be a list of ipv4 and ipv6",
        ),
        (lambda: library.network_namespace(1), TypeError, "a network namespace is a path or a name, not int"),
        (
            lambda: library.enter_network_namespace(3),
            TypeError,
            "a network namespace is a path or a name, not int",
        ),
        (
            lambda: library.configure(environment={}),
            TypeError,
            "environment is a Facts, or has its methods, not dict",
        ),
        (
            lambda: library.Machine(native_nftables="x"),
            TypeError,
            "native_nftables is True or False, not str",
        ),
        (lambda: library.Machine(cni_mode=1), TypeError, "cni_mode is True or False, not int"),
        (lambda: Fake(writing=None), TypeError, "writing is True or False, not NoneType"),
    ],
)
def test_wrong_types_get_a_line_that_says_what_was_expected(
    call: Callable[[], object], error: type[Exception], line: str
):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == line


def test_configure_reads_this_machine_by_default():
    assert configure().outbound_port == 15001


def test_configure_does_not_read_variables(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ENVOY_PORT", "1")
    assert configure(environment=Facts()).outbound_port == 15001


def test_configure_reports_all_mistakes():
    with pytest.raises(SettingsError) as caught:
        configure({"envoy-prot": "1", "envoy-port": "0", "dry-run": "yes", "p": "1"}, environment=Facts())
    assert [mistake.split(":")[0] for mistake in caught.value.mistakes] == [
        "envoy-prot",
        "p",
        "envoy-port",
        "dry-run",
    ]
    assert "did you mean envoy-port?" in caught.value.mistakes[0]


def test_a_config_is_immutable():
    config = configure(environment=Facts())
    with pytest.raises(AttributeError, match="immutable"):
        config.outbound_port = 1  # type: ignore[misc]
    with pytest.raises(AttributeError, match="immutable"):
        del config.outbound_port
    assert config.replace(outbound_port=1).outbound_port == 1
    assert config.outbound_port == 15001
    assert hash(config) == hash(config.replace())
    with pytest.raises(TypeError, match="got an unexpected keyword argument 'nonsense'"):
        config.replace(nonsense=1)
    with pytest.raises(TypeError, match=r"missing [0-9]+ required .*argument"):
        Config()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"takes .*3"):
        Table("ipv4", "nat", (), ())  # type: ignore[call-arg]


def test_records_of_different_kinds_are_never_equal():
    assert SaveMark() == SaveMark()
    assert SaveMark() != RestoreMark()
    assert Mark(1) != ConnectionMark(1)
    assert len({Mark(1), Mark(1, 0xFFFFFFFF), ConnectionMark(1), Mark(1, negated=True)}) == 3
    assert PortRange(1, 2) != (1, 2)
    assert repr(Mark(1)) == "Mark(value=1, mask=4294967295, negated=False)"


def test_build_and_render():
    ruleset = build(configure(environment=Facts()))
    assert isinstance(ruleset, Ruleset)
    assert render(ruleset).startswith("*nat\n")
    assert render(ruleset, "commands").startswith("#!/bin/sh\n")
    assert render(ruleset, "json").startswith("{\n")
    assert render(ruleset, families=["ipv6"]) == ""


# --- prepare, apply ---------------------------------------------------------------------------


def test_the_library_in_one_breath():
    wanted = build(configure(inbound_ports="*", environment=Facts()))
    with FakeKernel() as machine:
        first = machine.plan(wanted)
        assert isinstance(first.plan, Plan)
        assert [difference.title for difference in first.differences] == ["ipv4 nat (iptables-legacy)"]
        assert first.choice.backend == "libiptc"
        assert machine.tables == {}, "preparing changes nothing"
        first.apply()
        assert machine.plan(wanted).plan.actions == ()
        assert len(machine.plan(wanted, rewrite=True).plan.actions) == 1
        clean = machine.plan(Ruleset())
        assert clean.choice.backend == "", "cleaning up chooses no backend"
        clean.apply()
        assert machine.plan(Ruleset()).plan.actions == ()


def test_prepare_is_plan_as_a_function():
    wanted = build(configure(environment=Facts()))
    with FakeKernel() as machine:
        assert prepare(machine, wanted).plan == machine.plan(wanted).plan
        assert prepare(machine, wanted, rewrite=True).plan == machine.plan(wanted, rewrite=True).plan


def test_what_a_backend_cannot_load_is_refused_before_anything_is_touched():
    many = configure(owner_groups=list(range(64)), environment=Facts())
    with FakeKernel(forced_variant="nft") as machine:
        with pytest.raises(SettingsError, match=r"^variable ISTIO_OUTBOUND_OWNER_GROUPS: .* \d+ matches"):
            machine.plan(build(many)).apply()
        assert machine.attempted == []
    with FakeKernel() as machine:
        machine.plan(build(many)).apply()


def test_a_plan_is_applied_once():
    with FakeKernel() as machine:
        plan = machine.plan(build(configure(environment=Facts())))
        plan.apply()
        with pytest.raises(RuntimeError, match="prepare another one"):
            plan.apply()


def test_a_plan_is_not_applied_after_the_locks_are_gone():
    with FakeKernel() as machine:
        plan = machine.plan(build(configure(environment=Facts())))
    with pytest.raises(RuntimeError, match="use `with FakeKernel"):
        plan.apply()
    assert machine.tables == {}


def test_cleanup_says_which_chain_another_program_still_needs():
    with FakeKernel() as machine:
        machine.plan(build(configure(environment=Facts()))).apply()
        machine.add_rules("iptables-legacy", "ipv4", "nat", "MINE", Rule((), Jump("ISTIO_REDIRECT")))
        clean = machine.plan(Ruleset())
        (left,) = clean.plan.left_behind
        assert left.startswith("chain ISTIO_REDIRECT (ipv4 nat, iptables-legacy) stays, empty")
        clean.apply()
    with FakeKernel() as machine:
        assert machine.plan(build(configure(environment=Facts()))).plan.left_behind == ()


def test_a_machine_stays_in_its_process():
    with FakeKernel() as machine, pytest.raises(TypeError, match="make one there"):
        pickle.dumps(machine.plan(Ruleset()))


def test_names_that_are_no_texts_are_mistakes():
    with pytest.raises(SettingsError, match=r"^1: unknown setting$"):
        configure({1: 2})  # type: ignore[dict-item]


# --- what the commands do with a machine ------------------------------------------------------


class Context(RealContext):
    """The context of a run on a machine that is not there."""

    def __init__(self, machine: FakeKernel, *arguments: str) -> None:
        super().__init__(read_arguments(arguments), {})
        self._facts = Facts()  # type: ignore[assignment]
        self._machine = machine
        self.writes: bool | None = None

    def machine(self, *, writing: bool) -> Any:
        self.writes = writing
        return self._machine


def state(machine: FakeKernel) -> list[str]:
    return machine.lines()


def test_apply(capsys: pytest.CaptureFixture[str]):
    machine = FakeKernel()
    context = Context(machine)
    assert handlers.apply(context) == 0
    assert context.writes is True
    there = state(machine)
    assert "iptables-legacy ipv4 nat: -A OUTPUT -j ISTIO_OUTPUT" in there
    said = capsys.readouterr()
    assert said.out == ""
    for line in (
        "backend libiptc: the kernel has the legacy tables, and no rules are in place",
        "planned: ipv4 nat (iptables-legacy): ",
        "done: ",
    ):
        assert f"\tinfo\t{line}" in said.err

    assert handlers.apply(Context(machine)) == 0
    assert "nothing to do" in capsys.readouterr().err
    assert handlers.apply(Context(machine, "--force-apply")) == 0
    assert "\tinfo\tdone: " in capsys.readouterr().err
    assert state(machine) == there


def test_apply_over_rules_that_differ(capsys: pytest.CaptureFixture[str]):
    machine = FakeKernel()
    handlers.apply(Context(machine))
    there = state(machine)
    for force in ([], ["--force-apply"]):
        with pytest.raises(Differs, match="--reconcile replaces them") as caught:
            handlers.apply(Context(machine, "-p", "1", *force))
        assert caught.value.exit_code == 3
        assert "+-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 1\n" in capsys.readouterr().out
        assert state(machine) == there
    assert handlers.apply(Context(machine, "-p", "1", "--reconcile")) == 0
    assert "iptables-legacy ipv4 nat: -A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 1" in state(machine)


def test_diff(capsys: pytest.CaptureFixture[str]):
    machine = FakeKernel()
    handlers.apply(Context(machine))
    there = state(machine)
    context = Context(machine, "diff")
    assert handlers.diff(context) == 0
    assert context.writes is False
    said = capsys.readouterr()
    assert said.out == ""
    assert "no difference" in said.err
    assert handlers.diff(Context(machine, "diff", "-p1")) == 3
    assert "--A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001\n" in capsys.readouterr().out
    assert handlers.diff(Context(machine, "diff", "-p1", "--json")) == 3
    assert json.loads(capsys.readouterr().out)["differs"] is True
    assert handlers.diff(Context(machine, "diff", "--json")) == 0
    assert json.loads(capsys.readouterr().out) == {"differs": False, "parts": []}
    assert state(machine) == there


def test_cleanup(capsys: pytest.CaptureFixture[str]):
    machine = FakeKernel()
    handlers.apply(Context(machine))
    there = state(machine)
    context = Context(machine, "cleanup", "--dry-run")
    assert handlers.cleanup(context) == 0
    assert context.writes is False
    shown = capsys.readouterr().out
    assert (
        "# ipv4 nat (iptables-legacy): remove rules: for iptables-legacy-restore --noflush\n*nat\n" in shown
    )
    assert "-D OUTPUT -j ISTIO_OUTPUT\n" in shown
    assert state(machine) == there
    context = Context(machine, "cleanup", "-p", "1")
    assert handlers.cleanup(context) == 0
    assert context.writes is True
    assert state(machine) == []
    assert handlers.cleanup(Context(machine, "cleanup")) == 0
    assert "nothing of istio-iptables is in place" in capsys.readouterr().err
    assert handlers.diff(Context(machine, "diff")) == 3


def test_the_state_before_and_after_is_logged_at_debug_level(capsys: pytest.CaptureFixture[str]):
    machine = FakeKernel()
    handlers.apply(Context(machine))
    assert "\tdebug\t" not in capsys.readouterr().err
    log.configure([("default", "debug")])
    try:
        handlers.apply(Context(machine, "-p", "1", "--reconcile"))
    finally:
        log.configure([("default", "info")])
    said = capsys.readouterr().err
    assert (
        "debug\tbefore: iptables-legacy ipv4 nat: -A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001\n"
        in said
    )
    assert (
        "debug\tafter: iptables-legacy ipv4 nat: -A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 1\n" in said
    )


@pytest.mark.parametrize(
    ("arguments", "handler"),
    [
        ([], handlers.apply),
        (["apply"], handlers.apply),
        (["validate"], handlers.validate),
        (["validate", "--cleanup-only"], handlers.validate),
        (["--run-validation"], handlers.apply),
        (["cleanup"], handlers.cleanup),
        (["--cleanup-only"], handlers.cleanup),
        (["apply", "--cleanup-only"], handlers.cleanup),
        (["diff", "--cleanup-only"], handlers.diff),
        (["render", "--cleanup-only"], handlers.print_rules),
    ],
)
def test_which_command_does_what(arguments: list[str], handler: object):
    context = Context(FakeKernel(), *arguments)
    assert handlers._handler(context) is handler
