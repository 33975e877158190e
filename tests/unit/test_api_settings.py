"""The library from settings to rules: configure, build, render."""

from __future__ import annotations

import ipaddress
import re
import warnings
from collections.abc import Callable
from typing import Any

import netaddr
import pytest

import istio_iptables
from istio_iptables import (
    ALL,
    Cidr,
    Config,
    Facts,
    Ruleset,
    SettingsError,
    SettingsWarning,
    build,
    configure,
    configure_with_warnings,
    render,
)
from istio_iptables.rules.model import ConnectionMark, Mark, PortRange, RestoreMark, SaveMark, Table
from istio_iptables.settings.declared import SETTINGS
from istio_iptables.settings.resolve import Operation
from istio_iptables.testing import FakeKernel
from tests.support.cases import all_cases

#: The package for what an editor or a type checker would show as wrong.
library: Any = istio_iptables

Fake: Any = FakeKernel

machine: Any = FakeKernel()


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


@all_cases(
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


@all_cases(
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


@all_cases(
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
            lambda: library.prove_rules(None),
            TypeError,
            "prove_rules() takes a Config (see configure), not NoneType",
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
    with pytest.raises(
        TypeError, match=r"^Config\.__init__\(\) missing [0-9]+ required positional arguments"
    ):
        Config()  # type: ignore[call-arg]
    with pytest.raises(
        TypeError, match=r"^Table\.__init__\(\) takes from 3 to 4 positional arguments but 5 were given"
    ):
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
