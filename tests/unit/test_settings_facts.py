"""Settings and what the machine is: users, groups, families, DNS servers, and the warnings about them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from istio_iptables.errors import KernelError
from istio_iptables.kernel import this_machine
from istio_iptables.kernel.this_machine import ThisMachine
from istio_iptables.settings.declared import BY_NAME
from istio_iptables.settings.facts import Facts
from istio_iptables.settings.no_effect import NO_EFFECT, NoEffect
from istio_iptables.settings.resolve import resolve
from tests.support.cases import all_cases
from tests.support.configuring import FACTS, configured, mistakes_of, parsed, warnings_of

# --- the proxy's users and groups -------------------------------------------------------------


@all_cases(
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


def test_a_number_is_an_id_whatever_users_and_groups_are_named():
    facts = FACTS.replace(users={"1337": 4242, "5": 5}, groups={"1337": 4343, "2000": 2001})
    groups = {"ISTIO_OUTBOUND_OWNER_GROUPS": "1,2000"}
    for backend in ([], ["--native-nftables"]):
        config = configured(*backend, "-u", "1337,5", environ=groups, facts=facts)
        assert (config.proxy_uids, config.proxy_gids, config.owner_groups) == (
            (1337, 5),
            (1337, 5),
            (1, 2000),
        )


def test_owner_groups_at_most_64():
    variable = "ISTIO_OUTBOUND_OWNER_GROUPS"
    most = ",".join(map(str, range(64)))
    assert configured(environ={variable: most}).owner_groups == tuple(range(64))
    assert "65 groups are too many" in mistakes_of(environ={variable: f"{most},64"})[0]
    assert "65 groups are too many" in mistakes_of(environ={f"{variable}_EXCLUDE": f"{most},64"})[0]
    assert configured(environ={variable: ""}).owner_groups == ()


# --- families ---------------------------------------------------------------------------------


@all_cases(
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


@all_cases(
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
    (["--prove", "--dry-run"], {}, "--dry-run"),
    (["--prove", "--skip-rule-apply"], {}, "--skip-rule-apply"),
    (["--capture-all-dns"], {}, "--redirect-dns"),
    (["--dns-single-zone"], {}, "--redirect-dns"),
    (
        [],
        {"ISTIO_OUTBOUND_OWNER_GROUPS": "1", "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE": "2"},
        "ISTIO_OUTBOUND_OWNER_GROUPS lists",
    ),
]


@all_cases(
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


def cannot_be_read(pod: Pod, why: str) -> None:
    for flags in (["--redirect-dns"], ["--redirect-dns", "--dual-stack"]):
        with pytest.raises(KernelError, match=f"resolv.conf cannot be read: {why}"):
            resolve(parsed(*flags), pod)
    for flags in ([], ["--redirect-dns", "--capture-all-dns"]):
        resolve(parsed(*flags), pod)  # nothing asks for the servers


def test_a_resolv_conf_that_is_no_file(tmp_path: Path):
    pod = Pod(tmp_path, None)
    os.mkfifo(tmp_path / "resolv.conf")
    cannot_be_read(pod, "it is a FIFO")
    (tmp_path / "resolv.conf").unlink()
    (tmp_path / "resolv.conf").symlink_to("/dev/zero")
    cannot_be_read(pod, "it is a device")
    (tmp_path / "resolv.conf").unlink()
    (tmp_path / "resolv.conf").mkdir()
    cannot_be_read(pod, "it is a directory")


def test_a_resolv_conf_without_end(tmp_path: Path):
    cannot_be_read(Pod(tmp_path, "nameserver 10.0.0.1\n" * 100_000), "it is larger than 1024 KiB")
