"""Settings: where each one comes from, which source takes precedence, and mistakes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from istio_iptables.rules.model import PortRange
from istio_iptables.settings import parsers
from istio_iptables.settings.config import Everything
from istio_iptables.settings.declared import BY_NAME, SETTINGS, Setting
from istio_iptables.settings.facts import Facts
from istio_iptables.settings.go_flags import read_arguments
from istio_iptables.settings.resolve import from_environment, parse_options
from tests.support.cases import all_cases
from tests.support.configuring import (
    ACCEPTED,
    ALIASES,
    FACTS,
    configured,
    mistakes_of,
    named,
    parsed,
    warnings_of,
)

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
    (setting, *pair)
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


@all_cases(("setting", "stronger", "weaker"), PAIRS, ids=lambda part: getattr(part, "name", part))
def test_precedence(setting: Setting, stronger: str, weaker: str, tmp_path: Path):
    first, second = samples(setting)
    for strong, weak in ((first, second), (second, first)):
        value = value_of(setting, {stronger: strong, weaker: weak}, tmp_path)
        assert value == value_of(setting, {stronger: strong}, tmp_path)
        assert value == value_of(setting, {weaker: weak, stronger: strong}, tmp_path)
    alone = [value_of(setting, {stronger: text}, tmp_path) for text in (first, second)]
    assert alone[0] != alone[1]


@all_cases("setting", SETTINGS, ids=named)
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


@all_cases("text", ["1", "t", "T", "TRUE", "true", "True"])
@all_cases("setting", SWITCHES, ids=named)
def test_true(setting: Setting, text: str):
    assert parsed(f"--{setting.name}={text}").values[setting.field] is True
    assert parsed(environ={setting.variable: text}).values[setting.field] is True


@pytest.mark.parametrize("text", ["0", "f", "F", "FALSE", "false", "False"])
def test_false(text: str):
    for setting in SWITCHES:
        assert parsed(environ={setting.variable: text}).values[setting.field] is False
    assert parsed("--dry-run=true", f"-n={text}").operation().dry_run is False


@all_cases("text", ["yes", "no", "on", "off", "2", "tRUE", " true", "true ", "tru\u0435"])
@all_cases("setting", [s for s in SETTINGS if s.is_boolean], ids=named)
def test_what_is_no_boolean_fails_and_is_never_ignored(setting: Setting, text: str):
    found = {f"--{setting.name}": mistakes_of(f"--{setting.name}={text}")}
    if not setting.ignored:
        found[f"variable {setting.variable}"] = mistakes_of(environ={setting.variable: text})
    for origin, mistakes in found.items():
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


@all_cases("setting", SETTINGS, ids=named)
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


@all_cases("name", FLAGS)
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


@all_cases("name", FLAGS)
def test_no_text_in_a_variable_without_effect_stops_a_run(name: str):
    variable = name.upper().replace("-", "_")
    found = warnings_of(facts=Facts(ipv4=True), environ={variable: "maybe"})
    assert found == f"variable {variable}: {NO_RULE}"


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
    assert mistake == "--config: '/dev/zero' is too large: at most 16 MiB are read"


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


@all_cases("name", BAD)
def test_a_bad_value_names_its_source_and_the_bad_part(name: str, tmp_path: Path):
    setting, (text, part) = BY_NAME[name], BAD[name]
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({name: text}))
    cases = [(mistakes_of("--config", str(file)), f"{file}: {name}: ")]
    if not setting.ignored:
        cases.append((mistakes_of(environ={setting.variable: text}), f"variable {setting.variable}: "))
    if setting.has_flag:
        cases.append((mistakes_of(f"--{name}={text}"), f"--{name}: "))
    if setting.short:
        cases.append((mistakes_of(f"-{setting.short}={text}"), f"--{name} (-{setting.short}): "))
    cases += [(mistakes_of(environ={alias: text}), f"variable {alias}: ") for alias in setting.aliases]
    for mistakes, origin in cases:
        assert len(mistakes) == 1
        assert mistakes[0].startswith(origin)
        assert part in mistakes[0]


@all_cases("name", BAD)
def test_a_bad_value_is_a_mistake_even_under_a_better_one(name: str):
    setting = BY_NAME[name]
    if setting.has_flag and not setting.ignored:
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
        {"format": "json", "family": "ipv6", "explain": True, "trace": "", "live": False},
        [],
    )
    defaults = {"format": "", "family": "", "explain": False, "trace": "", "live": False}
    assert parse_options("render", (), FACTS)[0] == defaults
    assert parse_options("", (), FACTS) == ({}, [])
    bad = read_arguments(["render", "--format", "yaml", "--family=ipv5", "--explain=yes"])
    mistakes = parse_options("render", bad.options, FACTS)[1]
    assert [mistake.partition(" is ")[0] for mistake in mistakes] == [
        "--format: 'yaml'",
        "--family: 'ipv5'",
        "--explain: 'yes'",
    ]
