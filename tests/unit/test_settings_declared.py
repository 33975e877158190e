"""Settings: the table of SPEC section 2, written down a second time."""

from __future__ import annotations

from istio_iptables.rules.model import Cidr, PortRange
from istio_iptables.settings.commands import COMMANDS
from istio_iptables.settings.config import ALL, Config
from istio_iptables.settings.declared import SETTINGS, SOURCES, Setting
from tests.support.cases import all_cases
from tests.support.configuring import ACCEPTED, ALIASES, FACTS, configured, named, parsed

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
    "prove": "false",
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

#: What the specification does not name.
OWN = {"rule-comments": "false"}


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


@all_cases("setting", SETTINGS, ids=named)
def test_the_variable_is_the_flag_in_capitals(setting: Setting):
    assert setting.variable == setting.name.upper().replace("-", "_")


@all_cases("setting", SETTINGS, ids=named)
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
        *("--prove", "--run-validation"),
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
        "prove": True,
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
