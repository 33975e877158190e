"""Settings: where each one comes from, which source takes precedence, mistakes, and the resulting Config."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from istio_iptables.cli.collect import collect
from istio_iptables.errors import SettingsError
from istio_iptables.kernel import this_machine
from istio_iptables.kernel.this_machine import ThisMachine
from istio_iptables.rules.model import Cidr, PortRange
from istio_iptables.settings import parsers
from istio_iptables.settings.commands import COMMANDS
from istio_iptables.settings.config import ALL, Config, Everything
from istio_iptables.settings.declared import BY_NAME, SETTINGS, SOURCES, Setting
from istio_iptables.settings.facts import Facts
from istio_iptables.settings.go_flags import read_arguments
from istio_iptables.settings.no_effect import NO_EFFECT, NoEffect
from istio_iptables.settings.resolve import Parsed, from_environment, parse, parse_options, resolve

FACTS = Facts(
    users={"istio-proxy": 1337, "envoy": 101, "postgres": 70},
    groups={"istio-proxy": 1338, "payments": 2000},
)


def parsed(*arguments: str, environ: Mapping[str, str] | None = None, facts: Facts = FACTS) -> Parsed:
    given, mistakes = collect(read_arguments(arguments), environ or {})
    return parse(given, facts, mistakes)


def mistakes_of(*arguments: str, environ: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        parsed(*arguments, environ=environ)
    assert caught.value.exit_code == 2
    assert str(caught.value) == "\n".join(caught.value.mistakes)
    return list(caught.value.mistakes)


def configured(*arguments: str, environ: Mapping[str, str] | None = None, facts: Facts = FACTS) -> Config:
    return resolve(parsed(*arguments, environ=environ, facts=facts), facts)[0]


def warnings_of(*arguments: str, facts: Facts | ThisMachine, environ: Mapping[str, str] | None = None) -> str:
    return "\n".join(resolve(parsed(*arguments, environ=environ), facts)[1])


def named(setting: Setting) -> str:
    return setting.name


# --- the table --------------------------------------------------------------------------------

#: SPEC section 2: flag or variable -> default as text.
DEFAULTS = {
    "envoy-port": "15001",
    "inbound-capture-port": "15006",
    "inbound-tunnel-port": "15008",
    "proxy-uid": "",
    "proxy-gid": "",
    "istio-inbound-interception-mode": "REDIRECT",
    "istio-inbound-ports": "*",
    "istio-local-exclude-ports": "",
    "istio-exclude-interfaces": "",
    "istio-service-cidr": "*",
    "istio-service-exclude-cidr": "",
    "istio-outbound-ports": "",
    "istio-local-outbound-ports-exclude": "",
    "kube-virt-interfaces": "",
    "istio-inbound-tproxy-mark": "1337",
    "istio-inbound-tproxy-route-table": "133",
    "dry-run": "false",
    "skip-rule-apply": "false",
    "run-validation": "false",
    "iptables-probe-port": "15002",
    "probe-timeout": "5s",
    "redirect-dns": "false",
    "capture-all-dns": "false",
    "dns-single-zone": "false",
    "drop-invalid": "false",
    "dual-stack": "false",
    "network-namespace": "",
    "cni-mode": "false",
    "reconcile": "false",
    "cleanup-only": "false",
    "force-apply": "false",
    "native-nftables": "false",
    "compact": "false",
    "force-iptables-binary": "",
    "log_output_level": "default:info",
    "log_as_json": "false",
    "log_target": "",
    "log_caller": "",
    "log_stacktrace_level": "",
    "ISTIO_OUTBOUND_OWNER_GROUPS": "*",
    "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE": "",
    "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR": "127.0.0.1/32",
    "DRY_RUN_FILE_PATH": "",
    "ENVOY_USER": "istio-proxy",
}
ALIASES = {
    "redirect-dns": "ISTIO_META_DNS_CAPTURE",
    "drop-invalid": "INVALID_DROP",
    "dual-stack": "ISTIO_DUAL_STACK",
}
#: What the specification does not name.
OWN = {"rule-comments": "false"}
#: SPEC section 2: accepted with a warning, and without a value those that are booleans in Istio's tool.
ACCEPTED = {
    **dict.fromkeys(["restore-format", "iptables-trace-logging", "host-nsenter-exec"], "false"),
    **dict.fromkeys(["vklog", "iptables-version", "output-paths", "ISTIO_INBOUND_EXCLUDE_PORTS"], ""),
    **dict.fromkeys(["log_rotate", *(f"log_rotate_max_{what}" for what in ("age", "backups", "size"))], ""),
}


def test_the_table_has_the_settings_of_the_specification_and_their_defaults():
    assert {setting.name: setting.default for setting in SETTINGS} == {**DEFAULTS, **OWN, **ACCEPTED}
    aliases = {setting.name: setting.aliases for setting in SETTINGS if setting.aliases}
    assert aliases == {name: (alias,) for name, alias in ALIASES.items()}
    assert {setting.name for setting in SETTINGS if not setting.has_flag} == {
        name for name in (*DEFAULTS, *ACCEPTED) if name.isupper()
    }
    assert {setting.name for setting in SETTINGS if setting.ignored} == set(ACCEPTED)


def test_names_are_unique():
    names = [s.name for s in (*SETTINGS, *SOURCES)] + [s.short for s in SETTINGS if s.short]
    assert len(names) == len(set(names))
    variables = [v for s in SETTINGS for v in (s.variable, *s.aliases)]
    assert len(variables) == len(set(variables))
    fields = [s.field for s in SETTINGS if s.field]
    assert len(fields) == len(set(fields))
    for command in COMMANDS:
        assert not {option.name for option in command.options} & set(names)


@pytest.mark.parametrize("setting", SETTINGS, ids=named)
def test_the_variable_is_the_flag_in_capitals(setting: Setting):
    assert setting.variable == setting.name.upper().replace("-", "_")


@pytest.mark.parametrize("setting", SETTINGS, ids=named)
def test_every_setting_is_explained(setting: Setting):
    assert setting.help.endswith(".")
    assert setting.metavar.isupper()
    assert "\n" not in setting.help


def test_what_the_defaults_come_to():
    assert configured() == Config(
        outbound_port=15001,
        inbound_port=15006,
        tunnel_port=15008,
        proxy_uids=(1337,),
        proxy_gids=(1337,),
        interception_mode="REDIRECT",
        inbound_ports=ALL,
        inbound_ports_excluded=(),
        interfaces_excluded=(),
        outbound_cidrs=ALL,
        outbound_cidrs_name_loopback=False,
        outbound_cidrs_excluded=(),
        outbound_ports=(),
        outbound_ports_excluded=(),
        rerouted_interfaces=(),
        tproxy_mark=1337,
        tproxy_route_table=133,
        redirect_dns=False,
        capture_all_dns=False,
        dns_servers=(),
        dns_single_zone=False,
        drop_invalid=False,
        owner_groups=ALL,
        owner_groups_excluded=(),
        ipv4_loopback=Cidr(4, 0x7F000001, 32),
        ipv6=False,
        rule_comments=False,
        compact=False,
    )
    operation = parsed().operation().as_dict()
    assert operation.pop("probe_port") == 15002
    assert operation.pop("probe_timeout") == 5.0
    assert operation.pop("log_levels") == (("default", "info"),)
    assert not any(operation.values())


def test_what_every_flag_comes_to():
    config = configured(
        *("-p", "1", "-z", "2", "-e", "3", "-u", "4,envoy", "-g", "5,payments", "-m", "TPROXY"),
        *(
            "-b",
            "80,90-99",
            "-d",
            "22",
            "-c",
            "eth1,net+",
            "-i",
            "10.1.2.3/8,::1",
            "-x",
            "10.0.0.1",
            "-q",
            "6",
        ),
        *("-o", "7:8", "-k", "net1", "-t", "0x10", "-r", "9", "--redirect-dns", "--capture-all-dns"),
        *("--drop-invalid", "--dual-stack", "--rule-comments", "--compact", "--dns-single-zone"),
        environ={
            "ISTIO_OUTBOUND_OWNER_GROUPS": "payments,11",
            "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE": "12",
            "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR": "127.3.2.1/16",
        },
        facts=FACTS.replace(ipv6=True),
    )
    assert config == Config(
        outbound_port=1,
        inbound_port=2,
        tunnel_port=3,
        proxy_uids=(4, 101),
        proxy_gids=(5, 2000),
        interception_mode="TPROXY",
        inbound_ports=(PortRange(80, 80), PortRange(90, 99)),
        inbound_ports_excluded=(PortRange(22, 22),),
        interfaces_excluded=("eth1", "net+"),
        outbound_cidrs=(Cidr(4, 0x0A000000, 8), Cidr(6, 1, 128)),
        outbound_cidrs_name_loopback=True,
        outbound_cidrs_excluded=(Cidr(4, 0x0A000001, 32),),
        outbound_ports=(PortRange(6, 6),),
        outbound_ports_excluded=(PortRange(7, 8),),
        rerouted_interfaces=("net1",),
        tproxy_mark=16,
        tproxy_route_table=9,
        redirect_dns=True,
        capture_all_dns=True,
        dns_servers=(),
        dns_single_zone=True,
        drop_invalid=True,
        owner_groups=(2000, 11),
        owner_groups_excluded=(12,),
        ipv4_loopback=Cidr(4, 0x7F030000, 16),
        ipv6=True,
        rule_comments=True,
        compact=True,
    )
    assert config.tproxy
    assert config.captures_inbound
    assert config.families == ("ipv4", "ipv6")


def test_how_to_run():
    operation = parsed(
        *("-n", "--reconcile", "--cleanup-only", "--force-apply", "--skip-rule-apply", "--cni-mode"),
        "--run-validation",
        *("--iptables-probe-port", "1", "--probe-timeout", "1m30s", "--network-namespace", "pod"),
        *("--force-iptables-binary", "nft", "--log_output_level", "debug,ads:none", "--log_as_json"),
        environ={"DRY_RUN_FILE_PATH": "/tmp/script"},
    ).operation()
    assert operation.as_dict() == {
        "dry_run": True,
        "dry_run_file": "/tmp/script",
        "reconcile": True,
        "cleanup_only": True,
        "force_apply": True,
        "skip_rule_apply": True,
        "run_validation": True,
        "probe_port": 1,
        "probe_timeout": 90.0,
        "network_namespace": "pod",
        "cni_mode": True,
        "forced_variant": "nft",
        "native_nftables": False,
        "log_levels": (("default", "debug"), ("ads", "none")),
        "log_as_json": True,
    }


# --- precedence -------------------------------------------------------------------------------

#: Two values that no default is, by parser; none of them is an empty text.
SAMPLES: dict[Any, tuple[str, str]] = {
    parsers.port: ("1001", "1002"),
    parsers.ports: ("1001", "1002,1003"),
    parsers.ports_or_all: ("1001", "1002-1003"),
    parsers.users: ("1", "postgres"),
    parsers.groups: ("1", "payments"),
    parsers.captured_groups: ("1", "payments"),
    parsers.excluded_groups: ("1", "payments"),
    parsers.interfaces: ("eth1", "eth2,eth+"),
    parsers.cidrs: ("10.0.0.0/8", "fd00::/8"),
    parsers.cidrs_or_all: ("10.0.0.0/8", "fd00::/8"),
    parsers.ipv4_loopback: ("127.0.0.0/8", "127.0.0.2"),
    parsers.mark: ("1", "0x2"),
    parsers.route_table: ("1", "2"),
    parsers.duration: ("1s", "2s"),
    parsers.boolean: ("true", "false"),
    parsers.log_levels: ("debug", "none"),
    parsers.anything: ("some", "other"),
}
BY_SETTING = {
    "istio-inbound-interception-mode": ("TPROXY", "REDIRECT"),
    "force-iptables-binary": ("legacy", "nft"),
}


def samples(setting: Setting) -> tuple[str, str]:
    return BY_SETTING.get(setting.name) or SAMPLES[setting.parse]


def sources_of(setting: Setting) -> list[str]:
    """The ways to give a setting, strongest first."""
    ways = ["file"]
    ways.insert(0, "variable")
    if setting.aliases:
        ways.insert(0, "alias")
    if setting.has_flag:
        ways.insert(0, "flag")
    return ways


PAIRS = [
    pytest.param(setting, *pair, id=f"{setting.name}-{pair[0]}-{pair[1]}")
    for setting in SETTINGS
    if not setting.ignored
    for pair in itertools.combinations([*sources_of(setting), "default"], 2)
]


def value_of(setting: Setting, ways: Mapping[str, str], directory: Path) -> object:
    """The value of a setting that is given in some ways."""
    arguments, environ = [], {}
    for way, text in ways.items():
        if way == "file":
            file = directory / "settings.yaml"
            file.write_text(json.dumps({setting.name: text}))
            arguments.append(f"--config={file}")
        elif way == "flag":
            arguments.append(f"--{setting.name}={text}")
        elif way == "alias":
            environ[setting.aliases[0]] = text
        elif way == "variable":
            environ[setting.variable] = text
    result = parsed(*arguments, environ=environ)
    if setting.field:
        return result.values[setting.field]
    if setting.ignored:
        return result.warnings  # which name the strongest source
    return [given.text for given in result.changed]  # only that it was given is recorded


@pytest.mark.parametrize(("setting", "stronger", "weaker"), PAIRS)
def test_precedence(setting: Setting, stronger: str, weaker: str, tmp_path: Path):
    first, second = samples(setting)
    for strong, weak in ((first, second), (second, first)):
        value = value_of(setting, {stronger: strong, weaker: weak}, tmp_path)
        assert value == value_of(setting, {stronger: strong}, tmp_path)
        assert value == value_of(setting, {weaker: weak, stronger: strong}, tmp_path)
    alone = [value_of(setting, {stronger: text}, tmp_path) for text in (first, second)]
    assert alone[0] != alone[1]


@pytest.mark.parametrize("setting", SETTINGS, ids=named)
def test_all_sources_at_once(setting: Setting, tmp_path: Path):
    first, second = samples(setting)
    ways = sources_of(setting)
    everything = {**dict.fromkeys(ways, second), ways[0]: first}
    assert value_of(setting, everything, tmp_path) == value_of(setting, {ways[0]: first}, tmp_path)


@pytest.mark.parametrize("name", ALIASES)
def test_the_alias_goes_before_the_variable(name: str):
    variable = name.upper().replace("-", "_")
    assert parsed(environ={ALIASES[name]: "true", variable: "false"}).values[BY_NAME[name].field] is True
    assert parsed(environ={ALIASES[name]: "false", variable: "true"}).values[BY_NAME[name].field] is False


def test_the_last_of_several_flags_and_files_wins(tmp_path: Path):
    one, two = tmp_path / "1.yaml", tmp_path / "2.yaml"
    one.write_text("envoy-port: 1\ninbound-capture-port: 1\n")
    two.write_text("envoy-port: 2\n")
    result = parsed("--config", str(one), "--config", str(two), "-p3", "-p4").values
    assert result["outbound_port"] == 4
    assert result["inbound_port"] == 1
    assert parsed("--config", str(one), "--config", str(two)).values["outbound_port"] == 2


@pytest.mark.parametrize("setting", [s for s in SETTINGS if not s.has_flag], ids=named)
def test_some_settings_are_variables_only(setting: Setting):
    assert "unknown flag" in mistakes_of(f"--{setting.name}=1")[0]
    assert parsed(environ={setting.name: samples(setting)[0]})


def test_what_differs_from_the_defaults_is_known_with_its_source(tmp_path: Path):
    file = tmp_path / "settings.yaml"
    file.write_text("inbound-tunnel-port: 1\nproxy-uid: 2\n")
    result = parsed(
        *("--config", str(file), "-p", "3", "-z", "15006", "--drop-invalid=false"),
        environ={"PROXY_UID": "4", "ISTIO_META_DNS_CAPTURE": "1"},
    )
    assert {(given.setting.name, given.text, given.origin) for given in result.changed} == {
        ("inbound-tunnel-port", "1", f"{file}: inbound-tunnel-port"),
        ("envoy-port", "3", "--envoy-port (-p)"),
        ("proxy-uid", "4", "variable PROXY_UID"),
        ("redirect-dns", "1", "variable ISTIO_META_DNS_CAPTURE"),
    }
    assert parsed().changed == ()


# --- booleans and empty texts -----------------------------------------------------------------

SWITCHES = [s for s in SETTINGS if s.is_boolean and s.field]


@pytest.mark.parametrize("text", ["1", "t", "T", "TRUE", "true", "True"])
@pytest.mark.parametrize("setting", SWITCHES, ids=named)
def test_true(setting: Setting, text: str):
    assert parsed(f"--{setting.name}={text}").values[setting.field] is True
    assert parsed(environ={setting.variable: text}).values[setting.field] is True


@pytest.mark.parametrize("text", ["0", "f", "F", "FALSE", "false", "False"])
def test_false(text: str):
    for setting in SWITCHES:
        assert parsed(environ={setting.variable: text}).values[setting.field] is False
    assert parsed("--dry-run=true", f"-n={text}").operation().dry_run is False


@pytest.mark.parametrize("text", ["yes", "no", "on", "off", "2", "tRUE", " true", "true ", "tru\u0435"])
@pytest.mark.parametrize("setting", [s for s in SETTINGS if s.is_boolean], ids=named)
def test_what_is_no_boolean_fails_and_is_never_ignored(setting: Setting, text: str):
    for mistakes, origin in (
        (mistakes_of(environ={setting.variable: text}), f"variable {setting.variable}"),
        (mistakes_of(f"--{setting.name}={text}"), f"--{setting.name}"),
    ):
        assert len(mistakes) == 1
        assert mistakes[0].startswith(f"{origin}: {text!r} is not a boolean")


def test_dry_run_yes_fails():
    assert mistakes_of(environ={"DRY_RUN": "yes"})[0].startswith("variable DRY_RUN: 'yes' is not a boolean")


@pytest.mark.parametrize(
    ("variable", "field"),
    [("ISTIO_SERVICE_CIDR", "outbound_cidrs"), ("ISTIO_INBOUND_PORTS", "inbound_ports")],
)
def test_an_empty_variable_is_set(variable: str, field: str, tmp_path: Path):
    assert isinstance(parsed().values[field], Everything)
    assert parsed(environ={variable: ""}).values[field] == ()
    file = tmp_path / "settings.yaml"
    name = variable.lower().replace("_", "-")
    file.write_text(f"{name}: ''\n")
    assert parsed("--config", str(file)).values[field] == ()


#: SPEC section 2: the settings whose variable is set when it is empty.
LISTS = {
    *("proxy-uid", "proxy-gid", "istio-inbound-ports", "istio-local-exclude-ports", "istio-service-cidr"),
    *("istio-exclude-interfaces", "istio-service-exclude-cidr", "istio-outbound-ports"),
    *("istio-local-outbound-ports-exclude", "kube-virt-interfaces", "log_output_level"),
    *("ISTIO_OUTBOUND_OWNER_GROUPS", "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE"),
}


@pytest.mark.parametrize("setting", SETTINGS, ids=named)
def test_an_empty_variable_is_set_only_for_a_list(setting: Setting):
    for variable in (setting.variable, *setting.aliases):
        found = [(given.setting.name, given.text) for given in from_environment({variable: ""})]
        assert found == ([(setting.name, "")] if setting.name in LISTS else [])


@pytest.mark.parametrize("name", ALIASES)
def test_an_empty_alias_does_not_hide_the_variable(name: str):
    variable, field = name.upper().replace("-", "_"), BY_NAME[name].field
    assert parsed(environ={ALIASES[name]: "", variable: "true"}).values[field] is True
    assert parsed(environ={ALIASES[name]: "true", variable: ""}).values[field] is True
    assert parsed(environ={ALIASES[name]: "", variable: ""}).values[field] is False


def test_an_empty_variable_does_not_hide_a_file(tmp_path: Path):
    file = tmp_path / "settings.yaml"
    file.write_text("envoy-port: 1\ndual-stack: true\nistio-inbound-interception-mode: TPROXY\n")
    environ = dict.fromkeys(["ENVOY_PORT", "ISTIO_DUAL_STACK", "ISTIO_INBOUND_INTERCEPTION_MODE"], "")
    values = parsed("--config", str(file), environ=environ).values
    assert (values["outbound_port"], values["dual_stack"], values["interception_mode"]) == (1, True, "TPROXY")


def test_an_empty_flag_of_a_boolean_is_a_mistake():
    assert mistakes_of("--dry-run=")[0].startswith("--dry-run: '' is not a boolean")


# --- accepted without effect ------------------------------------------------------------------

NO_RULE = "ignored: it changes no rule (other versions of Istio's tool have it)"
FLAGS = sorted(name for name in ACCEPTED if not name.isupper())


@pytest.mark.parametrize("name", FLAGS)
def test_what_other_versions_have_is_accepted_with_one_warning(name: str, tmp_path: Path):
    text = "true" if ACCEPTED[name] else "9"
    variable = name.upper().replace("-", "_")
    file = tmp_path / "settings.yaml"
    file.write_text(f"{name}: {text}\n")
    facts = Facts(ipv4=True)
    for arguments, environ, origin in (
        ([f"--{name}={text}"], {}, f"--{name}"),
        ([f"--{name}={text}", f"--{name}={text}"], {variable: text}, f"--{name}"),
        ([], {variable: text}, f"variable {variable}"),
        (["--config", str(file)], {}, f"{file}: {name}"),
    ):
        assert warnings_of(*arguments, facts=facts, environ=environ) == f"{origin}: {NO_RULE}"
        assert configured(*arguments, environ=environ, facts=facts) == configured(facts=facts)
        assert parsed(*arguments, environ=environ).changed == ()
    assert warnings_of(facts=facts, environ={variable: ""}) == ""


@pytest.mark.parametrize("name", [name for name in FLAGS if ACCEPTED[name]])
def test_booleans_without_effect_take_no_value(name: str):
    assert parsed(f"--{name}", "-p", "1").values["outbound_port"] == 1
    assert mistakes_of(f"--{name}=yes")[0].startswith(f"--{name}: 'yes' is not a boolean")


def test_the_short_form_of_restore_format():
    assert warnings_of("-f", "-p1", facts=Facts(ipv4=True)) == f"--restore-format (-f): {NO_RULE}"


def test_a_variable_that_no_version_reads_is_warned_about():
    found = warnings_of(facts=Facts(ipv4=True), environ={"ISTIO_INBOUND_EXCLUDE_PORTS": "22"})
    assert found == (
        "variable ISTIO_INBOUND_EXCLUDE_PORTS: ignored: no version of Istio's tool reads it: "
        "use ISTIO_LOCAL_EXCLUDE_PORTS"
    )


@pytest.mark.parametrize(
    "text", ["istio-inbound-ports:", "istio-inbound-ports: ~", "istio-inbound-ports: null"]
)
@pytest.mark.parametrize("form", ["yaml", "json"])
def test_no_value_is_neither_an_empty_one_nor_the_default(text: str, form: str, tmp_path: Path):
    file = tmp_path / "settings"
    file.write_text(text if form == "yaml" else '{"istio-inbound-ports": null}')
    assert mistakes_of("--config", str(file)) == [
        f'{file}: istio-inbound-ports: has no value: write "" for an empty one, or leave it out'
    ]


@pytest.mark.parametrize("text", ["envoy-port: 1\nenvoy-port: 2\n", '{"envoy-port": 1, "envoy-port": 2}'])
def test_a_setting_that_stands_twice_in_a_file_is_a_mistake(text: str, tmp_path: Path):
    file = tmp_path / "settings"
    file.write_text(text)
    (mistake,) = mistakes_of("--config", str(file))
    assert "the key 'envoy-port' appears twice" in mistake


def test_a_flag_that_is_written_as_its_variable_is_recognised(tmp_path: Path):
    file = tmp_path / "settings.yaml"
    file.write_text("ENVOY_PORT: 1\n")
    assert mistakes_of("--config", str(file)) == [
        f"{file}: ENVOY_PORT: unknown setting (did you mean envoy-port?)"
    ]


def test_a_file_without_end_is_not_read_to_its_end():
    (mistake,) = mistakes_of("--config", "/dev/zero")
    assert mistake == "--config: '/dev/zero' is too large: at most 64 MiB are read"


def test_the_name_of_a_file_cannot_make_another_line(tmp_path: Path):
    file = tmp_path / "a\nb"
    file.write_text("envoy-prot: 1\n")
    (mistake,) = mistakes_of("--config", str(file))
    assert "a\\nb: envoy-prot: unknown setting" in mistake
    assert mistake.isprintable()


def test_an_empty_mode_is_the_default():
    assert configured("-m", "").interception_mode == "REDIRECT"
    assert configured(environ={"ISTIO_INBOUND_INTERCEPTION_MODE": ""}).interception_mode == "REDIRECT"


def test_empty_members_and_blanks_are_dropped():
    config = configured("-b", ",80 ,, 443\t,", "-c", " eth1 ,,", "-x", ",", "-u", " 1 ,2,")
    assert config.inbound_ports == (PortRange(80, 80), PortRange(443, 443))
    assert config.interfaces_excluded == ("eth1",)
    assert config.outbound_cidrs_excluded == ()
    assert config.proxy_uids == (1, 2)


# --- mistakes ---------------------------------------------------------------------------------

#: A bad value of every setting that has such, and the part of it that is bad.
BAD = {
    "envoy-port": ("0", "'0'"),
    "inbound-capture-port": ("65536", "'65536'"),
    "inbound-tunnel-port": ("1-2", "'1-2'"),
    "proxy-uid": ("1,nobody-of-this-name", "'nobody-of-this-name'"),
    "proxy-gid": ("4294967295", "'4294967295'"),
    "istio-inbound-interception-mode": ("redirect", "'redirect'"),
    "istio-inbound-ports": ("80,http", "'http'"),
    "istio-local-exclude-ports": ("*", "'*'"),
    "istio-exclude-interfaces": ("eth0,an-interface-too-long", "'an-interface-too-long'"),
    "istio-service-cidr": ("10.0.0.0/8,10.0.0.0/33", "'10.0.0.0/33'"),
    "istio-service-exclude-cidr": ("*", "'*'"),
    "istio-outbound-ports": ("80,90-80", "'90-80'"),
    "istio-local-outbound-ports-exclude": ("*", "'*'"),
    "kube-virt-interfaces": ("a/b", "'a/b'"),
    "istio-inbound-tproxy-mark": ("0", "'0'"),
    "istio-inbound-tproxy-route-table": ("255", "'255'"),
    "iptables-probe-port": ("http", "'http'"),
    "probe-timeout": ("5", "'5'"),
    "force-iptables-binary": ("iptables", "'iptables'"),
    "log_output_level": ("default:loud", "'default:loud'"),
    "ISTIO_OUTBOUND_OWNER_GROUPS": ("payments,*", "'*'"),
    "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE": ("*", "'*'"),
    "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR": ("10.0.0.0/8", "'10.0.0.0/8'"),
    **{setting.name: ("yes", "'yes'") for setting in SETTINGS if setting.is_boolean},
}


def test_every_setting_that_is_not_any_text_has_a_bad_value():
    assert set(BAD) == {setting.name for setting in SETTINGS if setting.parse is not parsers.anything}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_value_names_its_source_and_the_bad_part(name: str, tmp_path: Path):
    setting, (text, part) = BY_NAME[name], BAD[name]
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({name: text}))
    cases = [
        (mistakes_of(environ={setting.variable: text}), f"variable {setting.variable}: "),
        (mistakes_of("--config", str(file)), f"{file}: {name}: "),
    ]
    if setting.has_flag:
        cases.append((mistakes_of(f"--{name}={text}"), f"--{name}: "))
    if setting.short:
        cases.append((mistakes_of(f"-{setting.short}={text}"), f"--{name} (-{setting.short}): "))
    cases += [(mistakes_of(environ={alias: text}), f"variable {alias}: ") for alias in setting.aliases]
    for mistakes, origin in cases:
        assert len(mistakes) == 1
        assert mistakes[0].startswith(origin)
        assert part in mistakes[0]


@pytest.mark.parametrize("name", BAD)
def test_a_bad_value_is_a_mistake_even_under_a_better_one(name: str):
    setting = BY_NAME[name]
    if setting.has_flag:
        assert len(mistakes_of(f"--{name}={setting.default}", environ={setting.variable: BAD[name][0]})) == 1


def test_all_mistakes_are_reported_at_once(tmp_path: Path):
    file = tmp_path / "settings.yaml"
    file.write_text("envoy-prot: 1\nenvoy-port: 2\n")
    found = mistakes_of(
        *("-p", "0", "--no-such-flag=1", "-b", "1,x,70000,*", "--config", str(file)),
        *("--config", "/does/not/exist", "--pod", "/no/pod.yaml", "--run-validation=yes"),
        environ={"DRY_RUN": "yes", "PROXY_UID": "not-a-user"},
    )
    starts = [
        "--no-such-flag: unknown flag",
        f"{file}: envoy-prot: unknown setting (did you mean envoy-port?)",
        "--config: '/does/not/exist' cannot be read",
        "--pod: '/no/pod.yaml' cannot be read",
        "variable DRY_RUN: 'yes'",
        "variable PROXY_UID: there is no user 'not-a-user'",
        "--envoy-port (-p): '0'",
        "--istio-inbound-ports (-b): 'x'",
        "--istio-inbound-ports (-b): '70000'",
        "--istio-inbound-ports (-b): '*'",
        "--run-validation: 'yes'",
    ]
    assert len(found) == len(starts)
    for start in starts:
        assert len([mistake for mistake in found if mistake.startswith(start)]) == 1, start


def test_mistakes_are_one_line_each():
    found = mistakes_of("-c", "a\nb", "-b", "80\n443", "-u", "x\n", "-p", "1\n", environ={"DRY_RUN": "\n"})
    assert len(found) == 5
    assert all(mistake.isprintable() for mistake in found)


def test_options_of_a_command():
    invocation = read_arguments(["render", "--format", "json", "--family=ipv6", "--explain"])
    assert parse_options("render", invocation.options, FACTS) == (
        {"format": "json", "family": "ipv6", "explain": True},
        [],
    )
    assert parse_options("render", (), FACTS)[0] == {"format": "", "family": "", "explain": False}
    assert parse_options("", (), FACTS) == ({}, [])
    bad = read_arguments(["render", "--format", "yaml", "--family=ipv5", "--explain=yes"])
    mistakes = parse_options("render", bad.options, FACTS)[1]
    assert [mistake.partition(" is ")[0] for mistake in mistakes] == [
        "--format: 'yaml'",
        "--family: 'ipv5'",
        "--explain: 'yes'",
    ]


# --- --config ---------------------------------------------------------------------------------

YAML = """\
# settings of the mesh
envoy-port: 15002
istio-inbound-ports: [80, "443", 8000:8100]
istio-local-exclude-ports: 22:23
istio-service-cidr:
  - 10.0.0.0/8
  - fd00::/8
istio-service-exclude-cidr: 10.96.0.0/12,10.1.2.3
istio-outbound-ports: 9000-9100
istio-inbound-tproxy-mark: 0x1F
proxy-uid: 010
redirect-dns: true
dual-stack: "false"
kube-virt-interfaces: []
log_output_level: default:debug
probe-timeout: 1m
ISTIO_OUTBOUND_OWNER_GROUPS: [payments, 12]
"""
JSON = """
{"envoy-port": 15002, "istio-inbound-ports": [80, "443", "8000:8100"], "istio-local-exclude-ports": "22:23",
 "istio-service-cidr": ["10.0.0.0/8", "fd00::/8"], "istio-service-exclude-cidr": "10.96.0.0/12,10.1.2.3",
 "istio-outbound-ports": "9000-9100", "istio-inbound-tproxy-mark": "0x1F", "proxy-uid": "010",
 "redirect-dns": true, "dual-stack": "false", "kube-virt-interfaces": [], "log_output_level": "default:debug",
 "probe-timeout": "1m", "ISTIO_OUTBOUND_OWNER_GROUPS": ["payments", 12]}
"""


@pytest.mark.parametrize("text", [YAML, JSON], ids=["yaml", "json"])
def test_config_file(text: str, tmp_path: Path):
    file = tmp_path / "settings"
    file.write_text(text)
    found = parsed("--config", str(file)).values
    expected = {
        "outbound_port": 15002,
        "inbound_ports": (PortRange(80, 80), PortRange(443, 443), PortRange(8000, 8100)),
        "inbound_ports_excluded": (PortRange(22, 23),),
        "outbound_cidrs_excluded": (Cidr(4, 0x0A600000, 12), Cidr(4, 0x0A010203, 32)),
        "outbound_ports": (PortRange(9000, 9100),),
        "tproxy_mark": 31,
        "proxy_uids": (10,),
        "redirect_dns": True,
        "dual_stack": False,
        "rerouted_interfaces": (),
        "log_levels": (("default", "debug"),),
        "probe_timeout": 60.0,
        "owner_groups": (2000, 12),
    }
    assert {field: found[field] for field in expected} == expected
    assert [str(network) for network in found["outbound_cidrs"]] == ["10.0.0.0/8", "fd00::/8"]


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "{}", " {}\n"])
def test_an_empty_config_file_gives_nothing(text: str, tmp_path: Path):
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    assert parsed("--config", str(file)) == parsed()


@pytest.mark.parametrize("value", ["true", "True", "TRUE", "t", "1", '"true"'])
def test_booleans_in_yaml(value: str, tmp_path: Path):
    file = tmp_path / "settings.yaml"
    file.write_text(f"drop-invalid: {value}\n")
    assert parsed("--config", str(file)).values["drop_invalid"] is True


@pytest.mark.parametrize("value", ["yes", "on", '"yes"', "[]", "2"])
def test_what_only_yaml_takes_for_a_boolean_fails(value: str, tmp_path: Path):
    file = tmp_path / "settings.yaml"
    file.write_text(f"drop-invalid: {value}\n")
    assert "is not a boolean" in mistakes_of("--config", str(file))[0]


@pytest.mark.parametrize(
    ("text", "mistakes"),
    [
        ("envoy-prot: 1", ["{}: envoy-prot: unknown setting (did you mean envoy-port?)"]),
        ("zzzzzzzzzz: 1", ["{}: zzzzzzzzzz: unknown setting"]),
        ("ENVOY_PORT: 1", ["{}: ENVOY_PORT: unknown setting"]),
        ("config: other.yaml", ["{}: config: unknown setting"]),
        ("- envoy-port", ["--config: '{}' is not a mapping of long flag names to values"]),
        ("just words", ["--config: '{}' is not a mapping of long flag names to values"]),
        ('["envoy-port"]', ["--config: '{}' is not a mapping of long flag names to values"]),
        (
            "envoy-port: {a: 1}",
            ["{}: envoy-port: a value must be a string, a number, true, false or a list of these"],
        ),
        ('{"envoy-port": {"a": 1}}', ["{}: envoy-port: a value must be"]),
        ('{"proxy-uid": NaN}', ["{}: proxy-uid: a value must be"]),
        ("proxy-uid: [[1]]", ["{}: proxy-uid: a list cannot contain lists or mappings"]),
        ("proxy-uid: &a [*a]", ["--config: '{}' is neither YAML nor JSON: "]),
        ("a: [", ["--config: '{}' is neither YAML nor JSON: "]),
        ('{"envoy-port": 1', ["--config: '{}' is neither YAML nor JSON: "]),
        ("a: 1\n---\nb: 2\n", ["--config: '{}' is neither YAML nor JSON: "]),
        ("? [a]\n: 1\n", ["--config: '{}' is neither YAML nor JSON: "]),
        ("a: !!python/object/apply:os.system ['true']", ["{}: a: unknown setting"]),
        ("a\x00b: 1", ["--config: '{}' is neither YAML nor JSON: "]),
        ("foo: 1\nbar: 2", ["{}: foo: unknown", "{}: bar: unknown"]),
    ],
)
def test_bad_config_files(text: str, mistakes: list[str], tmp_path: Path):
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    found = mistakes_of("--config", str(file))
    assert len(found) == len(mistakes)
    for mistake, start in zip(found, mistakes, strict=True):
        assert mistake.startswith(start.format(file))
        assert "\n" not in mistake


def test_config_files_that_cannot_be_read(tmp_path: Path):
    latin = tmp_path / "latin"
    latin.write_bytes(b"\xff\xfe\xff")
    assert mistakes_of("--config", str(latin)) == [f"--config: {str(latin)!r} is not UTF-8 text"]
    assert mistakes_of("--config", str(tmp_path))[0].startswith(
        f"--config: {str(tmp_path)!r} cannot be read: "
    )
    missing = str(tmp_path / "missing")
    assert mistakes_of(f"--config={missing}")[0].startswith(f"--config: {missing!r} cannot be read: ")
    assert mistakes_of("--config=")[0].startswith("--config: '' cannot be read: ")


def test_wrong_names_and_wrong_values_of_a_file_are_reported_in_one_go(tmp_path: Path):
    file = tmp_path / "settings.yaml"
    file.write_text("envoy-prot: 1\nproxy-uid: 1\nenvoy-port: 0\n")
    assert len(mistakes_of("--config", str(file))) == 2


def test_a_mistake_about_a_key_is_one_line(tmp_path: Path):
    file = tmp_path / "settings.yaml"
    file.write_text('"a\\nb": 1\n')
    assert "\n" not in mistakes_of("--config", str(file))[0]


@pytest.mark.slow
@pytest.mark.parametrize("text", ['{{"a": {}}}', "a: {}"], ids=["json", "yaml"])
def test_a_deeply_nested_config_file_is_a_mistake(text: str, tmp_path: Path):
    file = tmp_path / "settings.yaml"
    file.write_text(text.format("[" * 20_000 + "]" * 20_000))
    assert len(mistakes_of("--config", str(file))) == 1


@pytest.mark.parametrize("kind", ["yaml", "json"])
def test_twenty_thousand_networks_from_a_file(kind: str, tmp_path: Path):
    networks = [f"10.{i >> 8 & 255}.{i & 255}.0/24" for i in range(20_000)]
    texts = {
        "yaml": "istio-service-exclude-cidr:\n" + "".join(f"  - {network}\n" for network in networks),
        "json": json.dumps({"istio-service-exclude-cidr": networks}),
    }
    file = tmp_path / "settings"
    file.write_text(texts[kind])
    found = configured("--config", str(file)).outbound_cidrs_excluded
    assert [str(network) for network in found] == networks


# --- the proxy's users and groups -------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "environ", "uids", "gids"),
    [
        ([], {}, (1337,), (1337,)),
        ([], {"ENVOY_USER": "envoy"}, (101,), (101,)),
        ([], {"ENVOY_USER": "not-a-user"}, (1337,), (1337,)),
        ([], {"ENVOY_USER": ""}, (1337,), (1337,)),
        (["-u", "5"], {"ENVOY_USER": "envoy"}, (5,), (5,)),
        (["-u", "5,6"], {}, (5, 6), (5, 6)),
        (["-g", "7"], {}, (1337,), (7,)),
        (["-g", "7"], {"ENVOY_USER": "envoy"}, (101,), (7,)),
        (["-u", "0", "-g", "0"], {}, (0,), (0,)),
        (["-u", ""], {}, (1337,), (1337,)),
        (["-u", "5", "-g", ""], {}, (5,), (5,)),
        (["-u", "envoy,postgres,1"], {}, (101, 70, 1), (101, 70, 1)),
        (["-u", "istio-proxy", "-g", "istio-proxy,payments"], {}, (1337,), (1338, 2000)),
        (["-u", "1,1"], {}, (1, 1), (1, 1)),
    ],
)
def test_proxy_users_and_groups(
    arguments: list[str], environ: dict[str, str], uids: tuple[int, ...], gids: tuple[int, ...]
):
    config = configured(*arguments, environ=environ)
    assert (config.proxy_uids, config.proxy_gids) == (uids, gids)


def test_the_user_istio_proxy_is_the_default_where_it_exists():
    assert configured(facts=FACTS.replace(users={"istio-proxy": 4242})).proxy_uids == (4242,)
    assert configured(facts=FACTS.replace(users={})).proxy_uids == (1337,)


def test_names_are_resolved_by_the_machine():
    machine = ThisMachine()
    root = machine.user_id("root")
    assert root in (0, None)  # None: a system without pwd
    for name in ("no-such-user-here", "", "\0", "\udcff", "x" * 100_000):
        assert machine.user_id(name) is None
        assert machine.group_id(name) is None


def test_owner_groups_at_most_64():
    variable = "ISTIO_OUTBOUND_OWNER_GROUPS"
    most = ",".join(map(str, range(64)))
    assert configured(environ={variable: most}).owner_groups == tuple(range(64))
    assert "65 groups are too many" in mistakes_of(environ={variable: f"{most},64"})[0]
    assert "65 groups are too many" in mistakes_of(environ={f"{variable}_EXCLUDE": f"{most},64"})[0]
    assert configured(environ={variable: ""}).owner_groups == ()


# --- families ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ipv4", "ipv6", "dual_stack", "captured", "warning"),
    [
        (True, False, False, False, ""),
        (True, False, True, False, ""),
        (True, True, False, False, "--dual-stack"),
        (True, True, True, True, ""),
        (False, True, False, True, ""),
        (False, True, True, True, ""),
        (False, False, False, False, "no address"),
        (False, False, True, False, "no address"),
    ],
)
def test_ipv6_decision(ipv4: bool, ipv6: bool, dual_stack: bool, captured: bool, warning: str):
    facts = Facts(ipv4, ipv6)
    config, warnings = resolve(parsed(f"--dual-stack={dual_stack}"), facts)
    assert config.ipv6 is captured
    assert config.families == (("ipv4", "ipv6") if captured else ("ipv4",))
    assert len(warnings) == bool(warning)
    assert warning in "".join(warnings)


@pytest.mark.parametrize(
    ("family", "address", "local"),
    [
        ("ipv4", "127.0.0.1", True),
        ("ipv4", "127.8.0.1", True),
        ("ipv4", "169.254.1.1", True),
        ("ipv4", "169.253.1.1", False),
        ("ipv4", "10.0.0.1", False),
        ("ipv4", "12.7.0.1", False),
        ("ipv6", "::1", True),
        ("ipv6", "::6", True),
        ("ipv6", "::7", False),
        ("ipv6", "fe80::1", True),
        ("ipv6", "febf:ffff::1", True),
        ("ipv6", "fec0::1", False),
        ("ipv6", "fe7f::1", False),
        ("ipv6", "fe8::1", False),
        ("ipv6", "fd00::1", False),
        ("ipv6", "2001:db8::fe80:1", False),
        ("ipv6", "::ffff:127.0.0.1", False),
    ],
)
def test_addresses_that_are_of_no_use(family: str, address: str, local: bool):
    assert this_machine._is_local(family, address) is local


# --- DNS servers ------------------------------------------------------------------------------


class Pod(ThisMachine):
    """A machine whose resolv.conf is a text."""

    def __init__(self, directory: Path, text: str | None) -> None:
        path = directory / "resolv.conf"
        if text is not None:
            path.write_bytes(text.encode("utf-8", "surrogateescape"))
        super().__init__(str(path))

    def usable_families(self) -> tuple[bool, bool]:
        return True, False


RESOLV_CONF = """\
# generated by the kubelet
; another way to comment
search default.svc.cluster.local svc.cluster.local
nameserver 10.96.0.10
nameserver\tfe80::1%eth0
nameserver  fd00:10:96::A   # the second

#nameserver 1.1.1.1
nameserver
 options ndots:5
nameservers 2.2.2.2
NAMESERVER 3.3.3.3
options nameserver 4.4.4.4
nameserver 10.96.0.10
nameserver ::ffff:10.0.0.1"""


def test_dns_servers_of_resolv_conf(tmp_path: Path):
    pod = Pod(tmp_path, RESOLV_CONF)
    config, warnings = resolve(parsed("--redirect-dns"), pod)
    assert [str(server) for server in config.dns_servers] == [
        "10.96.0.10/32",
        "fe80::1/128",
        "fd00:10:96::a/128",
        "10.96.0.10/32",
        "::ffff:10.0.0.1/128",
    ]
    assert warnings == ()
    assert [str(server) for server in config.dns_servers_of("ipv4")] == ["10.96.0.10/32"] * 2
    assert len(config.dns_servers_of("ipv6")) == 3


@pytest.mark.parametrize("line", ["localhost", "10.0.0", "010.0.0.1", "10.0.0.0/8", "1.2.3.4:53", "\udcff"])
def test_what_is_no_address_is_left_out_with_a_warning(line: str, tmp_path: Path):
    pod = Pod(tmp_path, f"nameserver {line}\nnameserver 10.0.0.1\n")
    config, warnings = resolve(parsed("--redirect-dns"), pod)
    assert [str(server) for server in config.dns_servers] == ["10.0.0.1/32"]
    assert len(warnings) == 1
    assert warnings[0].isprintable()
    assert warnings[0].startswith("/etc/resolv.conf: ")


@pytest.mark.parametrize("text", [None, "", "search local\n", "# nameserver 10.0.0.1\n"])
def test_no_dns_servers(text: str | None, tmp_path: Path):
    pod = Pod(tmp_path, text)
    config, warnings = resolve(parsed("--redirect-dns"), pod)
    assert config.dns_servers == ()
    assert not config.captures_dns("ipv4")
    assert len(warnings) == 1
    assert "--redirect-dns captures nothing" in warnings[0]
    assert "--capture-all-dns" in warnings[0]


def test_all_dns_needs_no_servers(tmp_path: Path):
    pod = Pod(tmp_path, None)
    config, warnings = resolve(parsed("--redirect-dns", "--capture-all-dns"), pod)
    assert config.captures_dns("ipv4")
    assert config.captures_dns("ipv6")
    assert warnings == ()


def test_dns_of_a_family_without_servers_is_not_captured():
    config = configured("--redirect-dns", "--dual-stack", facts=Facts(True, True, ("10.0.0.1",)))
    assert config.captures_dns("ipv4")
    assert not config.captures_dns("ipv6")


def test_without_dns_redirection_servers_are_not_looked_at():
    assert warnings_of(facts=Facts(servers=("nonsense",))) == ""
    assert configured(facts=Facts(servers=("10.0.0.1",))).dns_servers == ()


# --- warnings ---------------------------------------------------------------------------------


#: Arguments and variables for each row of the table, and the other setting that its warning names.
WITHOUT_EFFECT: list[tuple[list[str], dict[str, str], str]] = [
    (["-d", "22", "-b", "80"], {}, "--istio-inbound-ports lists"),
    (["-d", "22", "-b", ""], {}, "--istio-inbound-ports is empty"),
    (["-m", "TPROXY", "-k", "vm0"], {}, "TPROXY"),
    (["--native-nftables", "--force-iptables-binary", "nft"], {}, "--native-nftables"),
    (["--native-nftables", "--compact"], {}, "--native-nftables"),
    (["--capture-all-dns"], {}, "--redirect-dns"),
    (["--dns-single-zone"], {}, "--redirect-dns"),
    (
        [],
        {"ISTIO_OUTBOUND_OWNER_GROUPS": "1", "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE": "2"},
        "ISTIO_OUTBOUND_OWNER_GROUPS lists",
    ),
]


@pytest.mark.parametrize(
    ("row", "case"), list(zip(NO_EFFECT, WITHOUT_EFFECT, strict=True)), ids=[row.setting for row in NO_EFFECT]
)
def test_settings_without_effect_are_warned_about(row: NoEffect, case: tuple[list[str], dict[str, str], str]):
    arguments, variables, cause = case
    warning = warnings_of(*arguments, facts=FACTS, environ=variables)
    assert warning == row.warning
    assert warning.startswith(f"{BY_NAME[row.setting].flag} has no effect")
    assert cause in warning


def test_usual_settings_are_not_warned_about():
    assert warnings_of(facts=FACTS) == ""
    variables = {"ISTIO_OUTBOUND_OWNER_GROUPS": "*", "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE": "2"}
    assert warnings_of("-m", "TPROXY", "-b", "80", facts=FACTS, environ=variables) == ""
