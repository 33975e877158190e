"""doctor about the network, the names of users and servers, and the rules in place: made for real."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from istio_iptables.settings.resolve import IPV6_NOT_CAPTURED, NO_ADDRESS
from tests.support.doctor import Report, doctor, foretells
from tests.support.native import NATIVE
from tests.support.netns import Pod
from tests.support.scratch import KERNEL, Scratch
from tests.support.snapshots import LOCATIONS, with_files

from ..support.doctor import dropped, hidden, mounted

pytestmark = KERNEL


@pytest.fixture
def scratch() -> Iterator[Scratch]:
    """A namespace with a usable IPv4 address."""
    with Scratch() as made:
        made.give("lo", "10.99.0.1/32")
        yield made


# --- the network namespace --------------------------------------------------------------------


def test_addresses() -> None:
    with Scratch() as scratch:
        doctor(scratch).says("addresses", "WARN", NO_ADDRESS)
        scratch.give("lo", "fd99::1/128")
        doctor(scratch).says("addresses", "OK", "IPv6 only")
        scratch.give("lo", "10.99.0.1/32")
        doctor(scratch).says("addresses", "WARN", IPV6_NOT_CAPTURED)
        doctor(scratch, "--dual-stack").says("addresses", "OK", "both captured")


def test_ipv6_is_switched_off_for_lo(scratch: Scratch) -> None:
    scratch.ip("link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
    scratch.give("eth0", "fd01::5/64")
    scratch.check("sysctl", "-qw", "net.ipv6.conf.lo.disable_ipv6=1")
    report = foretells(scratch, "ipv6-disabled", "--dual-stack")
    assert report.names("FAIL") == {"ipv6-disabled", "routing"}
    assert report.checks["routing"]["remedy"] == report.checks["ipv6-disabled"]["remedy"]
    doctor(scratch).says("ipv6-disabled", "OK", "not captured")


def test_ipv6_is_switched_off_for_all(scratch: Scratch) -> None:
    scratch.check("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
    doctor(scratch, "--dual-stack").says("ipv6-disabled", "WARN", "only IPv4 is captured")
    doctor(scratch).says("ipv6-disabled", "OK")


def test_an_interface_that_does_not_exist(scratch: Scratch) -> None:
    doctor(scratch, "-c", "lo1").says("interfaces", "WARN", "did you mean lo?")
    doctor(scratch, "-c", "lo").says("interfaces", "OK")


def of_pod(pod: Pod, *arguments: str) -> Report:
    done = pod.tool("doctor", "--json", *arguments)
    return Report(done.code, done.out, done.err)


def test_what_tproxy_captures_is_dropped_with_src_valid_mark(new_pod: Callable[..., Pod]) -> None:
    """rp_filter alone makes no difference, whatever it is."""
    pod = new_pod(ipv6=False)
    assert pod.tool("-m", "TPROXY").code == 0
    pod.listen("proxy", tcp=[15006], transparent=True)
    cases = [(0, 0, 0), (1, 0, 0), (2, 0, 0), (0, 1, 0), (1, 1, 0), (0, 1, 1), (1, 1, 1), (2, 1, 1)]
    for rp_filter, src_valid_mark, accept_local in cases:
        for name in ("all", "eth0"):
            pod.sysctl(f"net/ipv4/conf/{name}/rp_filter", rp_filter)
            pod.sysctl(f"net/ipv4/conf/{name}/src_valid_mark", src_valid_mark)
            pod.sysctl(f"net/ipv4/conf/{name}/accept_local", accept_local)
        arrives = not src_valid_mark or (accept_local == 1 and rp_filter != 1)
        report = of_pod(pod, "-m", "TPROXY")
        report.says("rp-filter", "OK" if arrives else "FAIL")
        call = pod.client.connect("10.88.0.2", 8080, limit=30 if arrives else 1)
        assert (call.arrival is not None) == arrives, (rp_filter, src_valid_mark, accept_local)
        of_pod(pod, "--reconcile").says("rp-filter", "OK", "only to TPROXY")


def test_a_foreign_rule_sends_packets_from_outside_to_localhost(new_pod: Callable[..., Pod]) -> None:
    pod = new_pod(ipv6=False)
    rule = "iptables-legacy -t nat -A PREROUTING -p tcp --dport 9000 -j DNAT --to-destination 127.0.0.1:80"
    pod.run(rule.split())
    pod.listen("local", tcp=[80], addresses=["127.0.0.1"])
    report = of_pod(pod)
    report.says("route-localnet", "WARN", "--to-destination 127.0.0.1:80 (ipv4 nat (iptables-legacy))")
    assert pod.client.connect("10.88.0.2", 9000, limit=1).arrival is None
    pod.sysctl("net/ipv4/conf/all/route_localnet", 1)
    of_pod(pod).says("route-localnet", "OK", "every interface")
    arrival = pod.client.connect("10.88.0.2", 9000).arrival
    assert arrival is not None
    assert arrival.name == "local"


def test_a_virtual_machine_needs_forwarding(scratch: Scratch) -> None:
    scratch.check("sysctl", "-qw", "net.ipv4.ip_forward=0")
    doctor(scratch).says("ip-forward", "OK", "not needed")
    doctor(scratch, "-k", "lo").says("ip-forward", "WARN", "net.ipv4.ip_forward is 0")
    scratch.check("sysctl", "-qw", "net.ipv4.ip_forward=1")
    doctor(scratch, "-k", "lo").says("ip-forward", "OK")


def test_another_default_route_is_in_the_way(scratch: Scratch) -> None:
    scratch.ip("route", "add", "unreachable", "default", "table", "133")
    foretells(scratch, "routing", "-m", "TPROXY")
    doctor(scratch).says("routing", "OK")
    doctor(scratch, "-m", "TPROXY", "-r", "134").says("routing", "OK")
    scratch.ip("route", "del", "unreachable", "default", "table", "133")
    scratch.ip("route", "add", "unreachable", "default", "metric", "7", "table", "133")
    doctor(scratch, "-m", "TPROXY").says("routing", "OK")
    assert scratch.tool("-m", "TPROXY").returncode == 0


def test_another_address_is_in_the_way() -> None:
    with Scratch(addresses=True) as scratch:
        scratch.give("lo", "::6/64")
        foretells(scratch, "routing", "--dual-stack")
        doctor(scratch).says("routing", "OK")


def test_the_network_namespace_is_not_there(scratch: Scratch) -> None:
    for name in ("no-such-namespace", "/etc/passwd"):
        report = doctor(scratch, "--network-namespace", name)
        report.says("network-namespace", "FAIL", name)
        assert report.names("FAIL") == {"network-namespace"}
        report.says("capabilities", "OK")
        report.says("addresses", "WARN", "could not be entered")
        assert scratch.tool("--network-namespace", name).returncode == 2


def test_what_is_in_another_network_namespace_does_not_count(scratch: Scratch) -> None:
    """Not even to tell which backend a run would use."""
    scratch.apply(*LOCATIONS["nft"])
    prefix = hidden("xtables-legacy-multi")
    doctor(scratch, prefix=prefix).says("iptables-legacy", "OK", "would need it")
    report = doctor(scratch, "--network-namespace", "no-such-namespace", prefix=prefix)
    report.says("iptables-legacy", "WARN", "where these go is not known")


def test_the_network_namespace_may_not_be_entered(scratch: Scratch) -> None:
    arguments, prefix = ["--network-namespace", scratch.path], dropped("sys_admin")
    foretells(scratch, "network-namespace", *arguments, prefix=prefix)


def test_the_network_namespace_that_is_looked_at_is_that_of_the_settings(scratch: Scratch) -> None:
    with Scratch() as other:
        scratch.nft(script="table inet istio-ambient-x { chain c { type nat hook output priority 0; }; }")
        doctor(other).says("ambient-mode", "OK")
        report = doctor(other, "--network-namespace", scratch.name)
        report.says("network-namespace", "OK", "was entered")
        report.says("ambient-mode", "FAIL")


# --- names ------------------------------------------------------------------------------------


def test_resolv_conf_is_missing(scratch: Scratch) -> None:
    nothing = mounted("mount -t tmpfs none /etc")
    doctor(scratch, "--redirect-dns", prefix=nothing).says(
        "resolv-conf", "WARN", "/etc/resolv.conf is missing"
    )
    doctor(scratch, prefix=nothing).says("resolv-conf", "OK", "not needed")


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        ("", "WARN", "names no server"),
        ("search example.org\n", "WARN", "names no server"),
        ("nameserver ten.0.0.1\n", "WARN", "'ten.0.0.1' is not an address"),
        ("nameserver 10.0.0.10\nnameserver fd00::10\n", "OK", "10.0.0.10, fd00::10"),
    ],
)
def test_what_resolv_conf_says(scratch: Scratch, text: str, status: str, words: str) -> None:
    prefix = with_files(scratch, {"/etc/resolv.conf": text})
    report = doctor(scratch, "--redirect-dns", prefix=prefix)
    report.says("resolv-conf", status, words)
    report.says("settings", "OK")
    doctor(scratch, "--redirect-dns", "--capture-all-dns", prefix=prefix).says(
        "resolv-conf", "OK", "any server"
    )


Odd = tuple[list[str], dict[str, str]]

#: A service for nsswitch.conf(5). A name that begins with the word is looked up as slowly as its number says,
#: in tenths of a second; `crash` ends the process.
NSS = """
#include <nss.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
enum nss_status _nss_odd_getpwnam_r(
    const char *name, struct passwd *result, char *buffer, size_t size, int *error)
{
    if (strcmp(name, "crash") == 0) _exit(77);
    if (strncmp(name, "slow", 4) == 0) usleep(atoi(name + 4) * 100000);
    return NSS_STATUS_NOTFOUND;
}
"""


@pytest.fixture
def odd_names(scratch: Scratch) -> Odd:
    """The prefix and the variables of a command that is to look users up with that service."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    source, compiled = scratch.directory / "odd.c", scratch.directory / "libnss_odd.so.2"
    source.write_text(NSS)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", compiled, source], check=True, timeout=60)
    prefix = with_files(scratch, {"/etc/nsswitch.conf": "passwd: odd files\ngroup: files\n"})
    return prefix, {"LD_LIBRARY_PATH": str(scratch.directory)}


def test_a_slow_look_up_of_the_proxys_user(scratch: Scratch, odd_names: Odd) -> None:
    prefix, env = odd_names
    report = doctor(scratch, prefix=prefix, env={**env, "ENVOY_USER": "slow12"})
    report.says("name-lookup", "WARN", "'slow12'")
    report = doctor(scratch, "-u", "1337", prefix=prefix, env={**env, "ENVOY_USER": "slow12"})
    report.says("name-lookup", "OK", "no user or group")
    doctor(scratch, prefix=prefix, env={**env, "ENVOY_USER": "quick"}).says("name-lookup", "OK", "'quick'")


def test_a_look_up_that_ends_its_process(scratch: Scratch, odd_names: Odd) -> None:
    prefix, env = odd_names
    report = doctor(scratch, prefix=prefix, env={**env, "ENVOY_USER": "crash"})
    report.says("name-lookup", "WARN", "the look-up of 'crash' ended its process (77)")


def test_a_look_up_without_an_answer_is_given_up(scratch: Scratch, odd_names: Odd) -> None:
    prefix, env = odd_names
    code = (
        "from istio_iptables.doctor.live.names import PatientMachine\n"
        "machine = PatientMachine(limit=0.1)\n"
        "assert machine.user_id('slow6000') is machine.user_id('slow6000') is None\n"
        "(found,) = machine.look_ups\n"
        "print(found.problem)\n"
    )
    done = scratch.run(*prefix, sys.executable, "-c", code, env=env)
    assert done.stdout.startswith("has no answer after 0.1 seconds"), done.stderr


# --- what is in place -------------------------------------------------------------------------


def test_ambient_mode(scratch: Scratch) -> None:
    scratch.nft(script="table inet istio-ambient-nat { chain c { type nat hook output priority 0; }; }")
    report = foretells(scratch, "ambient-mode")
    assert report.names("FAIL") == {"ambient-mode"}


def test_a_foreign_rule_in_a_chain_of_istios_name(scratch: Scratch) -> None:
    for words in ("-N ISTIO_OUTPUT", "-A ISTIO_OUTPUT -p udp -j LOG"):
        scratch.check("iptables-legacy", "-t", "nat", *words.split())
    report = foretells(scratch, "chains-of-others")
    report.says("chains-of-others", "FAIL", "-A ISTIO_OUTPUT -p udp -j LOG")
    report.says("rules-in-place", "WARN")


MASQUERADE = """table ip nat {
    chain POSTROUTING { type nat hook postrouting priority 100; policy accept; oifname "eth0" masquerade; }
}"""


def test_a_table_that_iptables_cannot_read(scratch: Scratch) -> None:
    scratch.nft(script=MASQUERADE)
    report = doctor(scratch)
    assert report.code == 0
    report.says("unreadable-table", "WARN", "rules go to iptables-legacy instead")
    report.says("nft", "OK")
    foretells(scratch, "unreadable-table", *LOCATIONS["nft"]).says("backend", "FAIL", "ip nat")


def test_a_table_with_rules_of_ours_that_became_unreadable(scratch: Scratch) -> None:
    scratch.apply(*LOCATIONS["nft"])
    scratch.nft(script=MASQUERADE)
    report = foretells(scratch, "unreadable-table")
    report.says("unreadable-table", "FAIL", "which has chains of istio-iptables")


def test_two_backends_are_in_use(scratch: Scratch) -> None:
    scratch.apply(*LOCATIONS["nft"])
    doctor(scratch).says("two-backends", "OK", "rules are in nf_tables only")
    scratch.check("iptables-legacy", "-t", "filter", "-N", "EMPTY")
    doctor(scratch).says("two-backends", "OK")
    scratch.check("iptables-legacy", "-t", "filter", "-A", "OUTPUT", "-p", "udp", "-j", "ACCEPT")
    report = doctor(scratch)
    report.says("two-backends", "WARN", "iptables-legacy: ipv4 filter\nnf_tables: ip nat")
    assert report.code == 0


def test_our_rules_are_in_two_places(scratch: Scratch) -> None:
    script = scratch.tool("render").stdout
    scratch.apply(*LOCATIONS["nft"])
    scratch.restore("legacy", "ipv4", script)
    report = doctor(scratch)
    report.says("two-backends", "WARN", "iptables-legacy, iptables-nft")
    assert scratch.tool("--reconcile").returncode == 0
    doctor(scratch).says("two-backends", "OK")


def test_a_foreign_rule_takes_connections_first(scratch: Scratch) -> None:
    scratch.nft(
        script="table ip other { chain pre { type nat hook prerouting priority -110;"
        " tcp dport 8080 dnat to 172.17.0.2:80; }; }"
    )
    report = doctor(scratch)
    report.says("foreign-rules", "WARN", "this bypasses the proxy: inbound TCP to port 8080")
    assert report.code == 0
    doctor(scratch, "-b", "80").says("foreign-rules", "OK")


def test_a_user_whose_name_is_a_number(scratch: Scratch) -> None:
    prefix = with_files(scratch, {"/etc/passwd": "1337:x:5:5::/:/bin/sh\n"})
    for options in (NATIVE, []):
        doctor(scratch, *options, prefix=prefix).says("settings", "OK")
        assert scratch.tool(*options, "--reconcile", prefix=prefix).returncode == 0


def test_settings_without_effect(scratch: Scratch) -> None:
    doctor(scratch, "--capture-all-dns").says("settings", "WARN", "--capture-all-dns has no effect")
