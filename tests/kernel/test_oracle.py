"""The oracle against the kernel: what `expected()` says is what iptables-save prints after loading it.

Every test works in network namespaces of its own (`orc-…`), which are gone afterwards, however it ends.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings

from tests.support.oracle import expected
from tests.support.saved import by_chain, declared_chains, normalise_save
from tests.support.strategies import environments, settings

TOOLS = ("ip", "iptables-legacy", "iptables-nft")
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or any(shutil.which(tool) is None for tool in TOOLS),
    reason="needs root, ip, iptables-legacy and iptables-nft",
)

Rules = Mapping[tuple[str, str], list[str]]

COMMANDS = {"ipv4": "iptables", "ipv6": "ip6tables"}

# name -> (settings, families, DNS servers)
CASES: dict[str, tuple[dict[str, str], tuple[bool, bool], list[str]]] = {
    "defaults": ({}, (True, True), []),
    "pod spec": (
        {
            "istio-inbound-ports": "*",
            "istio-service-cidr": "*",
            "istio-service-exclude-cidr": "",
            "istio-local-exclude-ports": "15090,15021,15020",
        },
        (True, False),
        ["10.96.0.10"],
    ),
    "nothing captured": ({"istio-inbound-ports": "", "istio-service-cidr": ""}, (True, True), []),
    "inbound list with ranges and duplicates": (
        {
            "istio-inbound-ports": "80, 8000-8100,,9000:9100 ,443-443,80,1:65535",
            "istio-local-exclude-ports": "15090",
            "inbound-tunnel-port": "15009",
            "inbound-capture-port": "1",
            "envoy-port": "65535",
        },
        (True, True),
        [],
    ),
    "outbound lists": (
        {
            "istio-service-cidr": "10.1.2.3/8,fd00::1:2/64,192.0.2.1,2001:DB8:0:0:1:0:0:1,0.0.0.0/0,fd00::/0",
            "istio-service-exclude-cidr": "192.168.9.1/20, ::ffff:10.0.0.1/104,,::1.2.3.4/113,1.2.3.4/0,::/0",
            "istio-outbound-ports": "5000-5010,443",
            "istio-local-outbound-ports-exclude": "123,514:515",
            "kube-virt-interfaces": "k6t-eth0,k6t-net1",
        },
        (True, True),
        [],
    ),
    "loopback in -i": (
        {"istio-service-cidr": "10.0.0.0/8,127.0.0.2/0", "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR": "127.1.2.3/8"},
        (True, True),
        [],
    ),
    "interfaces": (
        {
            "istio-exclude-interfaces": "eth1,+,net+,eth1",
            "kube-virt-interfaces": "a@b._-x,fifteencharsxy+,+",
            "proxy-uid": "1337,0,4294967294",
            "proxy-gid": "2000",
        },
        (True, True),
        [],
    ),
    "tproxy": (
        {
            "istio-inbound-interception-mode": "TPROXY",
            "istio-local-exclude-ports": "15090,15020:15021",
            "istio-exclude-interfaces": "eth1,net+",
            "kube-virt-interfaces": "k6t0,k6t1",
            "drop-invalid": "true",
            "proxy-uid": "1337",
            "proxy-gid": "1337,1338",
        },
        (True, True),
        [],
    ),
    "tproxy with a list": (
        {
            "istio-inbound-interception-mode": "TPROXY",
            "istio-inbound-ports": "8080,9000-9100",
            "istio-inbound-tproxy-mark": "4294967295",
            "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR": "127.255.0.1/10",
        },
        (True, True),
        [],
    ),
    "tproxy, nothing inbound": (
        {
            "istio-inbound-interception-mode": "TPROXY",
            "istio-inbound-ports": "",
            "istio-inbound-tproxy-mark": "1",
            "istio-exclude-interfaces": "eth1",
        },
        (True, True),
        [],
    ),
    "dns servers": (
        {"redirect-dns": "true", "proxy-gid": "1337,100"},
        (True, True),
        ["10.96.0.10", "fd00:10:96::a", "127.0.0.53", "10.96.0.10", "fe80::1"],
    ),
    "dns servers of one family": ({"redirect-dns": "1"}, (True, True), ["10.96.0.10"]),
    "dns servers of no family": ({"redirect-dns": "t"}, (True, True), []),
    "all dns": (
        {
            "redirect-dns": "true",
            "capture-all-dns": "true",
            "drop-invalid": "true",
            "inbound-tunnel-port": "53",
        },
        (True, True),
        ["10.96.0.10"],
    ),
    "capture-all-dns alone": ({"capture-all-dns": "true"}, (True, True), ["10.96.0.10"]),
    "owner groups": ({"ISTIO_OUTBOUND_OWNER_GROUPS": "100, 200,,100"}, (True, True), []),
    "49 owner groups": (
        {"ISTIO_OUTBOUND_OWNER_GROUPS": ",".join(str(gid) for gid in range(1000, 1049))},
        (True, True),
        [],
    ),
    "no owner group": (
        {"ISTIO_OUTBOUND_OWNER_GROUPS": "", "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE": "7"},
        (True, True),
        [],
    ),
    "owner groups left alone": ({"ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE": "7,8"}, (True, True), []),
    "ipv6 only": ({}, (False, True), []),
}

# The commands that SPEC section 3 asks for, written by hand and run one after the other (so that the kernel
# does the inserting): a second path to the same state. (settings, DNS servers, IPv4 commands)
C = '-m comment --comment "istio-iptables"'
BY_HAND: dict[str, tuple[dict[str, str], list[str], str]] = {
    "redirect": (
        {
            "istio-exclude-interfaces": "eth1,eth2",
            "kube-virt-interfaces": "vm0,vm1",
            "istio-inbound-ports": "80,8000-8100",
            "istio-service-cidr": "10.0.0.1/8,192.168.0.0/16",
            "istio-service-exclude-cidr": "1.1.1.1",
            "istio-outbound-ports": "443",
            "istio-local-outbound-ports-exclude": "123",
            "proxy-uid": "1337,5",
            "proxy-gid": "99",
            "ISTIO_OUTBOUND_OWNER_GROUPS": "1,2",
            "redirect-dns": "true",
        },
        ["8.8.8.8", "9.9.9.9"],
        f"""
        *nat
        :ISTIO_INBOUND - [0:0]
        :ISTIO_REDIRECT - [0:0]
        :ISTIO_IN_REDIRECT - [0:0]
        :ISTIO_OUTPUT - [0:0]
        :ISTIO_OUTPUT_DNS - [0:0]
        -A PREROUTING -i eth1 {C} -j RETURN
        -A OUTPUT -o eth1 {C} -j RETURN
        -A PREROUTING -i eth2 {C} -j RETURN
        -A OUTPUT -o eth2 {C} -j RETURN
        -I PREROUTING 1 -i vm0 {C} -j RETURN
        -I PREROUTING 1 -i vm1 {C} -j RETURN
        -A ISTIO_INBOUND -p tcp --dport 15008 -j RETURN
        -A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001
        -A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006
        -A PREROUTING -p tcp -j ISTIO_INBOUND
        -A ISTIO_INBOUND -p tcp --dport 80 -j ISTIO_IN_REDIRECT
        -A ISTIO_INBOUND -p tcp --dport 8000:8100 -j ISTIO_IN_REDIRECT
        -A OUTPUT -j ISTIO_OUTPUT
        -A ISTIO_OUTPUT -p tcp --dport 123 -j RETURN
        -A ISTIO_OUTPUT -p udp --dport 123 -j RETURN
        -A ISTIO_OUTPUT -o lo -s 127.0.0.6/32 -j RETURN
        -A ISTIO_OUTPUT -o lo ! -d 127.0.0.1/32 -p tcp -m multiport ! --dports 53,15008 \
            -m owner --uid-owner 1337 -j ISTIO_IN_REDIRECT
        -A ISTIO_OUTPUT -o lo -p tcp ! --dport 53 -m owner ! --uid-owner 1337 -j RETURN
        -A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN
        -A ISTIO_OUTPUT -o lo ! -d 127.0.0.1/32 -p tcp -m multiport ! --dports 53,15008 \
            -m owner --uid-owner 5 -j ISTIO_IN_REDIRECT
        -A ISTIO_OUTPUT -o lo -p tcp ! --dport 53 -m owner ! --uid-owner 5 -j RETURN
        -A ISTIO_OUTPUT -m owner --uid-owner 5 -j RETURN
        -A ISTIO_OUTPUT -o lo ! -d 127.0.0.1/32 -p tcp ! --dport 15008 \
            -m owner --gid-owner 99 -j ISTIO_IN_REDIRECT
        -A ISTIO_OUTPUT -o lo -p tcp ! --dport 53 -m owner ! --gid-owner 99 -j RETURN
        -A ISTIO_OUTPUT -m owner --gid-owner 99 -j RETURN
        -A ISTIO_OUTPUT -m owner ! --gid-owner 1 -m owner ! --gid-owner 2 -j RETURN
        -A ISTIO_OUTPUT -j ISTIO_OUTPUT_DNS
        -A ISTIO_OUTPUT_DNS -p tcp --dport 53 -d 8.8.8.8/32 -j REDIRECT --to-ports 15053
        -A ISTIO_OUTPUT_DNS -p tcp --dport 53 -d 9.9.9.9/32 -j REDIRECT --to-ports 15053
        -A ISTIO_OUTPUT_DNS -p udp --dport 53 -d 8.8.8.8/32 -j REDIRECT --to-ports 15053
        -A ISTIO_OUTPUT_DNS -p udp --dport 53 -d 9.9.9.9/32 -j REDIRECT --to-ports 15053
        -A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN
        -A ISTIO_OUTPUT -d 1.1.1.1 -j RETURN
        -A ISTIO_OUTPUT -p tcp --dport 443 -j ISTIO_REDIRECT
        -I PREROUTING 1 -i vm0 -d 10.0.0.1/8 -j ISTIO_REDIRECT
        -I PREROUTING 1 -i vm1 -d 10.0.0.1/8 -j ISTIO_REDIRECT
        -A ISTIO_OUTPUT -d 10.0.0.1/8 -j ISTIO_REDIRECT
        -I PREROUTING 1 -i vm0 -d 192.168.0.0/16 -j ISTIO_REDIRECT
        -I PREROUTING 1 -i vm1 -d 192.168.0.0/16 -j ISTIO_REDIRECT
        -A ISTIO_OUTPUT -d 192.168.0.0/16 -j ISTIO_REDIRECT
        COMMIT
        *raw
        :ISTIO_INBOUND - [0:0]
        :ISTIO_OUTPUT_DNS - [0:0]
        -A OUTPUT -j ISTIO_OUTPUT_DNS
        -A ISTIO_OUTPUT_DNS -p udp --dport 53 -m owner --uid-owner 1337 -j CT --zone 1
        -A ISTIO_OUTPUT_DNS -p udp --sport 15053 -m owner --uid-owner 1337 -j CT --zone 2
        -A ISTIO_OUTPUT_DNS -p udp --dport 53 -m owner --uid-owner 5 -j CT --zone 1
        -A ISTIO_OUTPUT_DNS -p udp --sport 15053 -m owner --uid-owner 5 -j CT --zone 2
        -A ISTIO_OUTPUT_DNS -p udp --dport 53 -m owner --gid-owner 99 -j CT --zone 1
        -A ISTIO_OUTPUT_DNS -p udp --sport 15053 -m owner --gid-owner 99 -j CT --zone 2
        -A PREROUTING -j ISTIO_INBOUND
        -A ISTIO_OUTPUT_DNS -p udp --dport 53 -d 8.8.8.8 -j CT --zone 2
        -A ISTIO_INBOUND -p udp --sport 53 -s 8.8.8.8 -j CT --zone 1
        -A ISTIO_OUTPUT_DNS -p udp --dport 53 -d 9.9.9.9 -j CT --zone 2
        -A ISTIO_INBOUND -p udp --sport 53 -s 9.9.9.9 -j CT --zone 1
        COMMIT
        """,
    ),
    "tproxy": (
        {
            "istio-inbound-interception-mode": "TPROXY",
            "istio-exclude-interfaces": "eth1",
            "kube-virt-interfaces": "vm0,vm1",
            "istio-local-exclude-ports": "15090",
            "drop-invalid": "true",
            "proxy-uid": "1337",
            "proxy-gid": "99",
            "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE": "7",
        },
        [],
        f"""
        *nat
        :ISTIO_INBOUND - [0:0]
        :ISTIO_REDIRECT - [0:0]
        :ISTIO_IN_REDIRECT - [0:0]
        :ISTIO_OUTPUT - [0:0]
        -A PREROUTING -i eth1 {C} -j RETURN
        -A OUTPUT -o eth1 {C} -j RETURN
        -I PREROUTING 1 -i vm0 {C} -j RETURN
        -I PREROUTING 1 -i vm1 {C} -j RETURN
        -A ISTIO_INBOUND -p tcp --dport 15008 -j RETURN
        -A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001
        -A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006
        -A OUTPUT -j ISTIO_OUTPUT
        -A ISTIO_OUTPUT -o lo -s 127.0.0.6/32 -j RETURN
        -A ISTIO_OUTPUT -o lo ! -d 127.0.0.1/32 -p tcp ! --dport 15008 \
            -m owner --uid-owner 1337 -j ISTIO_IN_REDIRECT
        -A ISTIO_OUTPUT -o lo -m owner ! --uid-owner 1337 -j RETURN
        -A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN
        -A ISTIO_OUTPUT -o lo ! -d 127.0.0.1/32 -p tcp ! --dport 15008 \
            -m owner --gid-owner 99 -j ISTIO_IN_REDIRECT
        -A ISTIO_OUTPUT -o lo -m owner ! --gid-owner 99 -j RETURN
        -A ISTIO_OUTPUT -m owner --gid-owner 99 -j RETURN
        -A ISTIO_OUTPUT -m owner --gid-owner 7 -j RETURN
        -A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN
        -A ISTIO_OUTPUT -j ISTIO_REDIRECT
        -I PREROUTING 1 -i vm0 -j ISTIO_REDIRECT
        -I PREROUTING 1 -i vm1 -j ISTIO_REDIRECT
        COMMIT
        *mangle
        :ISTIO_DROP - [0:0]
        :ISTIO_DIVERT - [0:0]
        :ISTIO_TPROXY - [0:0]
        :ISTIO_INBOUND - [0:0]
        -A PREROUTING -i eth1 {C} -j RETURN
        -A OUTPUT -o eth1 {C} -j RETURN
        -A PREROUTING -m conntrack --ctstate INVALID -j ISTIO_DROP
        -A ISTIO_DROP -j DROP
        -A ISTIO_DIVERT -j MARK --set-mark 1337
        -A ISTIO_DIVERT -j ACCEPT
        -A ISTIO_TPROXY ! -d 127.0.0.1/32 -p tcp -j TPROXY --tproxy-mark 1337/0xffffffff --on-port 15006
        -A PREROUTING -p tcp -j ISTIO_INBOUND
        -A ISTIO_INBOUND -p tcp --dport 15090 -j RETURN
        -A ISTIO_INBOUND -p tcp -m conntrack --ctstate RELATED,ESTABLISHED -j ISTIO_DIVERT
        -A ISTIO_INBOUND -p tcp -j ISTIO_TPROXY
        -I ISTIO_INBOUND 1 -p tcp -m mark --mark 1337 -j RETURN
        -I ISTIO_INBOUND 2 -p tcp -s 127.0.0.6/32 -i lo -j RETURN
        -I ISTIO_INBOUND 3 -p tcp -i lo -m mark ! --mark 1338 -j RETURN
        -A PREROUTING -p tcp -m mark --mark 1337 {C} -j CONNMARK --save-mark
        -A OUTPUT -p tcp -o lo -m mark --mark 1337 {C} -j RETURN
        -A OUTPUT ! -d 127.0.0.1/32 -p tcp -o lo -m owner --uid-owner 1337 {C} -j MARK --set-mark 1338
        -A OUTPUT ! -d 127.0.0.1/32 -p tcp -o lo -m owner --gid-owner 99 {C} -j MARK --set-mark 1338
        -A OUTPUT -p tcp -m connmark --mark 1337 {C} -j CONNMARK --restore-mark
        COMMIT
        """,
    ),
}


@pytest.mark.parametrize("backend", ["legacy", "nft"])
@pytest.mark.parametrize("name", CASES)
def test_kernel_prints_what_the_oracle_says(name: str, backend: str, tmp_path: Path) -> None:
    values, (ipv4, ipv6), dns_servers = CASES[name]
    want = expected(values, ipv4=ipv4, ipv6=ipv6, dns_servers=dns_servers)
    with namespace() as ns:
        assert_kernel_agrees(ns, backend, want, tmp_path / "lock")


@pytest.mark.parametrize("backend", ["legacy", "nft"])
@pytest.mark.parametrize("name", BY_HAND)
def test_oracle_says_what_the_commands_of_spec_make(name: str, backend: str, tmp_path: Path) -> None:
    values, dns_servers, script = BY_HAND[name]
    want = expected(values, ipv6=False, dns_servers=dns_servers)
    with namespace() as ns:
        run(ns, tmp_path / "lock", f"iptables-{backend}-restore", "--noflush", stdin=script.replace("  ", ""))
        saved = run(ns, tmp_path / "lock", f"iptables-{backend}-save")
    assert normalise_save(saved) == {table: lines for (_, table), lines in want.items()}
    assert declared_chains(saved) == {table: user_chains(lines) for (_, table), lines in want.items()}


@hypothesis_settings(
    max_examples=25, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(values=settings(), environment=environments())
def test_any_settings(
    tmp_path: Path, values: dict[str, str], environment: tuple[bool, bool, list[str]]
) -> None:
    ipv4, ipv6, dns_servers = environment
    want = expected(values, ipv4=ipv4, ipv6=ipv6, dns_servers=dns_servers)
    for backend in ("legacy", "nft"):
        with namespace() as ns:
            assert_kernel_agrees(ns, backend, want, tmp_path / "lock")


def test_no_namespace_is_left_after_a_failure() -> None:
    class Failure(Exception):
        pass

    names: list[str] = []

    def fail() -> None:
        with namespace() as ns:
            names.extend(name for name in namespaces() if name == ns)
            raise Failure

    with pytest.raises(Failure):
        fail()
    assert len(names) == 1
    assert names[0] not in namespaces()


def test_normalise_save_reads_counters_and_drops_empty_tables() -> None:
    text = """\
# Generated by iptables-save v1.8.9 on Mon Jan  1 00:00:00 2024
*raw
:PREROUTING ACCEPT [0:0]
COMMIT
*nat
:PREROUTING ACCEPT [3:180]
:OUTPUT ACCEPT [0:0]
:B - [0:0]
:A - [0:0]
[12:720] -A PREROUTING -p tcp -j B
[0:0] -A OUTPUT -j A
-A B -j RETURN
-A B -j ACCEPT
-A A -m comment --comment "[1:2] -A X *nat" -j RETURN
COMMIT
"""
    assert normalise_save(text) == {
        "nat": [
            '-A A -m comment --comment "[1:2] -A X *nat" -j RETURN',
            "-A B -j RETURN",
            "-A B -j ACCEPT",
            "-A OUTPUT -j A",
            "-A PREROUTING -p tcp -j B",
        ]
    }
    assert declared_chains(text) == {"nat": ["A", "B"]}


def assert_kernel_agrees(ns: str, backend: str, want: Rules, lock: Path) -> None:
    """Load the lines into the namespace and read them back."""
    for family, command in COMMANDS.items():
        tables = {table: lines for (of, table), lines in want.items() if of == family}
        run(ns, lock, f"{command}-{backend}-restore", "--noflush", stdin=restore_script(tables))
        saved = run(ns, lock, f"{command}-{backend}-save")
        assert normalise_save(saved) == tables
        # A chain exists only if it has a rule; and nothing jumps to a chain that does not exist.
        chains = {table: user_chains(lines) for table, lines in tables.items() if user_chains(lines)}
        assert declared_chains(saved) == chains


def user_chains(lines: list[str]) -> list[str]:
    return [chain for chain in by_chain(lines) if chain.startswith("ISTIO_")]


def restore_script(tables: Mapping[str, list[str]]) -> str:
    script: list[str] = []
    for table, lines in tables.items():
        script += [f"*{table}", *(f":{chain} - [0:0]" for chain in user_chains(lines)), *lines, "COMMIT"]
    return "".join(f"{line}\n" for line in script)


@contextmanager
def namespace() -> Iterator[str]:
    """A fresh network namespace with a unique name."""
    name = f"orc-{os.getpid()}-{uuid.uuid4().hex[:12]}"
    try:
        subprocess.run(["ip", "netns", "add", name], check=True, timeout=60)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False, timeout=60)


def namespaces() -> list[str]:
    done = subprocess.run(["ip", "netns", "list"], check=True, timeout=60, capture_output=True, text=True)
    return [line.split()[0] for line in done.stdout.splitlines()]


def run(ns: str, lock: Path, *command: str, stdin: str = "") -> str:
    done = subprocess.run(
        ["ip", "netns", "exec", ns, *command],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "XTABLES_LOCKFILE": str(lock)},
    )
    assert done.returncode == 0, f"{command}: {done.stderr}\n{stdin}"
    return done.stdout
