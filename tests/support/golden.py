"""The golden files: readable configurations and the scripts that they mean, one file each in tests/golden.

    python -m tests.support.golden            check them
    python -m tests.support.golden --write    write them anew

A file that disagrees with tests/oracle.py is not written. To find out, the script is loaded by `load` below,
which knows what iptables-restore does with it and what iptables-save would print afterwards, and shares
nothing with the product. Where the rules are native or compact, the oracle is asked about the plain
rules for the same settings: that the others mean the same is for tests/interpreter.py to say.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from istio_iptables.api import build, render
from istio_iptables.cli.collect import collect
from istio_iptables.settings.declared import Given
from istio_iptables.settings.facts import Facts
from istio_iptables.settings.go_flags import read
from istio_iptables.settings.resolve import parse, resolve
from tests.support import oracle

DIRECTORY = Path(__file__).parents[1] / "golden"

#: What Istio's injector has written into pod specs for years.
POD_SPEC = (
    "istio-iptables -p 15001 -z 15006 -u 1337 -m REDIRECT -i * -x '' -b * -d 15090,15021,15020 "
    "--log_output_level=default:info"
)
TWO_SERVERS = ("10.96.0.10", "169.254.20.10")
SERVERS_OF_BOTH = ("10.96.0.10", "fd00:10:96::a")


@dataclass(frozen=True)
class Golden:
    """One configuration. `arguments` are in the words of a shell, without file name patterns."""

    name: str
    about: str
    arguments: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    ipv4: bool = True
    ipv6: bool = False
    servers: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        return DIRECTORY / f"{self.name}.txt"

    @property
    def style(self) -> Literal["restore", "nft"]:
        return "nft" if "--native-nftables" in self.arguments else "restore"

    def facts(self) -> Facts:
        users = {"istio-proxy": 1337, "envoy": 101}
        groups = {"istio-proxy": 1337, "payments": 2000}
        return Facts(ipv4=self.ipv4, ipv6=self.ipv6, servers=self.servers, users=users, groups=groups)


GOLDEN = (
    # --- the calls that are out there
    Golden("defaults", "No settings at all."),
    Golden("pod-spec", "The arguments of Istio's injector.", POD_SPEC),
    Golden(
        "pod-spec-dual-stack", "The same in a pod with both families.", f"{POD_SPEC} --dual-stack", ipv6=True
    ),
    Golden("pod-spec-1.4", "The arguments of Istio 1.4, without the first word.", POD_SPEC.partition(" ")[2]),
    Golden(
        "pod-spec-tproxy", "The injector's arguments with TPROXY.", POD_SPEC.replace("REDIRECT", "TPROXY")
    ),
    Golden(
        "virtual-machine",
        "A virtual machine: DNS to the agent, SSH left alone.",
        "-p 15001 -z 15006 -m REDIRECT -i * -b * -d 22,15090,15021,15020 --redirect-dns --capture-all-dns",
    ),
    Golden(
        "nothing-captured",
        "Nothing captured either way: what is left is the skeleton.",
        "-b '' -i ''",
    ),
    # --- families
    Golden("dual-stack", "Both families captured.", "--dual-stack", ipv6=True),
    Golden(
        "dual-stack-without-ipv6", "--dual-stack where there is no IPv6 address: IPv4 only.", "--dual-stack"
    ),
    Golden(
        "ipv6-only",
        "A pod with an IPv6 address only: IPv4 rules are made all the same.",
        ipv4=False,
        ipv6=True,
    ),
    Golden("ipv6-not-captured", "An IPv6 address, but no --dual-stack: IPv4 only.", ipv6=True),
    # --- inbound
    Golden("inbound-list", "Inbound capture of some ports.", "-b 80,443,8080"),
    Golden("inbound-list-ranges", "Ranges of ports in both spellings.", "-b 80,8000-8100,9000:9100,443-443"),
    Golden("inbound-none", "No inbound capture.", "-b ''"),
    Golden("inbound-excluded", "All inbound ports but some.", "-b * -d 22,2222-2230"),
    Golden("inbound-excluded-with-list", "Excluded ports have no effect beside a list.", "-b 80 -d 22"),
    Golden("inbound-ports-of-proxy", "Other ports of the proxy.", "-p 25001 -z 25006 -e 25008 -b 80"),
    Golden("drop-invalid", "Packets of no known connection are dropped.", "--drop-invalid"),
    # --- TPROXY
    Golden("tproxy", "TPROXY for all inbound ports.", "-m TPROXY"),
    Golden(
        "tproxy-dual-stack", "TPROXY in both families.", "-m TPROXY -d 15090,15021 --dual-stack", ipv6=True
    ),
    Golden("tproxy-list", "TPROXY for some ports and a range.", "-m TPROXY -b 80,8000-8100"),
    Golden(
        "tproxy-none", "TPROXY without inbound capture: no routes, no way into the chains.", "-m TPROXY -b ''"
    ),
    Golden("tproxy-mark", "Another mark, another routing table.", "-m TPROXY -t 0x2a -r 200 -b 80"),
    Golden("tproxy-excluded-interfaces", "Interfaces left alone, in mangle too.", "-m TPROXY -c eth1,net+"),
    Golden(
        "tproxy-excluded-dual-stack",
        "The same in both families, and the invalid packets.",
        "-m TPROXY -b 80 -c eth1 --drop-invalid --dual-stack",
        ipv6=True,
    ),
    Golden("tproxy-drop-invalid", "TPROXY and the invalid packets.", "-m TPROXY --drop-invalid -d 22"),
    Golden(
        "tproxy-two-proxies",
        "TPROXY, several users and groups of the proxy.",
        "-m TPROXY -u 0,1337 -g 1337,1338",
    ),
    Golden(
        "tproxy-loopback",
        "TPROXY, all of 127.0.0.0/8 as the loopback network.",
        "-m TPROXY -u 0 -g 1337",
        {"ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR": "127.0.0.0/8"},
    ),
    Golden(
        "tproxy-kube-virt", "TPROXY with a virtual machine in the pod.", "-m TPROXY -k k6t-eth0 -i 10.0.0.0/8"
    ),
    # --- outbound
    Golden(
        "outbound-list",
        "Outbound capture of some networks; host bits are cleared.",
        "-i 10.1.2.3/8,192.0.2.7",
    ),
    Golden(
        "outbound-list-dual-stack",
        "Each family captures its own networks.",
        "-i 10.0.0.0/8,FD00:0::/8 -x 10.9.0.0/16,fd00:9::/32 --dual-stack",
        ipv6=True,
    ),
    Golden("outbound-none", "No outbound capture by destination, one port all the same.", "-i '' -q 8443"),
    Golden(
        "outbound-everything-by-cidr", "Every IPv4 address as a CIDR: no match is left of it.", "-i 0.0.0.0/0"
    ),
    Golden("outbound-excluded", "Networks that are never captured.", "-x 10.96.0.0/12,169.254.169.254"),
    Golden(
        "outbound-loopback-named",
        "-i names a loopback address: step 10b is left out.",
        "-i 127.0.0.1/8,10.0.0.0/8",
    ),
    Golden(
        "outbound-ipv6-loopback-named",
        "A loopback address of one family counts for both.",
        "-i ::1,10.0.0.0/8 --dual-stack",
        ipv6=True,
    ),
    Golden("outbound-ports", "Ports captured wherever they go.", "-i 10.0.0.0/8 -q 9092,27017-27019"),
    Golden("outbound-ports-excluded", "Ports never captured, TCP and UDP.", "-o 22,5000-5010"),
    Golden("outbound-ports-both", "Excluded ports come before captured ones.", "-i '' -q 80,443 -o 80"),
    # --- the proxy
    Golden("proxy-other-user", "Another user; its number is the group's too.", "-u 101"),
    Golden("proxy-user-and-group", "Different user and group.", "-u 101 -g 1337"),
    Golden("proxy-several", "Several users and groups, in the order given.", "-u 1337,0 -g 1337,0"),
    Golden(
        "proxy-names", "Names are looked up before iptables is called.", "-u istio-proxy,envoy -g payments"
    ),
    Golden("proxy-envoy-user", "The user that ENVOY_USER names.", variables={"ENVOY_USER": "envoy"}),
    # --- interfaces
    Golden("excluded-interfaces", "Interfaces left alone either way.", "-c eth1,cali+,lo"),
    Golden(
        "excluded-every-interface", "The lone wildcard is every interface: no match is left of it.", "-c +"
    ),
    Golden("kube-virt", "A virtual machine in the pod.", "-k k6t-eth0"),
    Golden("kube-virt-several", "The last interface given comes first.", "-k net1,net2 -b 80"),
    Golden(
        "kube-virt-list",
        "Interfaces and networks: last network first.",
        "-k net1,net2 -i 10.0.0.0/8,172.16.0.0/12",
    ),
    Golden("kube-virt-none", "A virtual machine, no outbound capture.", "-k net1 -i ''"),
    Golden(
        "kube-virt-excluded-dual-stack",
        "All that can stand in PREROUTING, in both families.",
        "-k net1 -c eth1 -i 10.0.0.0/8,fd00::/8 --dual-stack --drop-invalid",
        ipv6=True,
    ),
    Golden(
        "kube-virt-dns", "A virtual machine in the pod, and DNS.", "-k net1 --redirect-dns --capture-all-dns"
    ),
    # --- owner groups
    Golden(
        "groups-captured",
        "Only what some groups send is captured.",
        variables={"ISTIO_OUTBOUND_OWNER_GROUPS": "payments,3000"},
    ),
    Golden(
        "groups-excluded",
        "What some groups send is left alone.",
        variables={"ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE": "payments,3000"},
    ),
    Golden(
        "groups-excluded-by-number",
        "The same with numbers, beside an excluded network.",
        "-x 10.0.0.0/8",
        {"ISTIO_OUTBOUND_OWNER_GROUPS": "*", "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE": "5,6"},
    ),
    Golden(
        "groups-none",
        "No group at all is captured: a rule without matches.",
        variables={"ISTIO_OUTBOUND_OWNER_GROUPS": ""},
    ),
    Golden(
        "groups-64",
        "The longest rule there is.",
        variables={"ISTIO_OUTBOUND_OWNER_GROUPS": ",".join(str(number) for number in range(5000, 5064))},
    ),
    # --- DNS
    Golden("dns-all", "All DNS to the agent.", "--redirect-dns --capture-all-dns"),
    Golden("dns-servers", "DNS to the servers of the pod.", "--redirect-dns", servers=TWO_SERVERS),
    Golden("dns-no-servers", "No server: no DNS capture, the rules are those without it.", "--redirect-dns"),
    Golden(
        "dns-dual-stack",
        "Servers by family.",
        "--redirect-dns --dual-stack",
        ipv6=True,
        servers=SERVERS_OF_BOTH,
    ),
    Golden(
        "dns-servers-of-one-family",
        "IPv6 has no server: no capture there.",
        "--redirect-dns --dual-stack",
        ipv6=True,
        servers=TWO_SERVERS,
    ),
    Golden(
        "dns-all-dual-stack",
        "All DNS of both families.",
        "--redirect-dns --capture-all-dns --dual-stack",
        ipv6=True,
        servers=SERVERS_OF_BOTH,
    ),
    Golden(
        "dns-several-proxies",
        "Zones for every user and group of the proxy.",
        "--redirect-dns -u 1337,0 -g 1337",
        servers=("10.96.0.10",),
    ),
    Golden(
        "dns-alias",
        "Switched on by the name that Istio's mesh config uses.",
        "--capture-all-dns",
        {"ISTIO_META_DNS_CAPTURE": "true"},
    ),
    Golden(
        "dns-loopback-named",
        "With a loopback address in -i and another tunnel port.",
        "--redirect-dns -i 127.0.0.1 -e 15009",
        servers=("127.0.0.53",),
    ),
    Golden(
        "dns-tproxy",
        "DNS and TPROXY use all three tables.",
        "--redirect-dns -m TPROXY --drop-invalid",
        servers=TWO_SERVERS,
    ),
    Golden("capture-all-dns-alone", "Without --redirect-dns it has no effect.", "--capture-all-dns"),
    # --- other
    Golden(
        "loopback-network",
        "A wider loopback network; it is IPv4's alone.",
        "--dual-stack",
        {"ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR": "127.1.2.3/8"},
        ipv6=True,
    ),
    Golden(
        "rule-comments",
        "Every rule says why it is there.",
        "--rule-comments -c eth1 -k net1 -m TPROXY -d 22 -x 10.0.0.0/8",
    ),
    Golden(
        "everything",
        "Every setting that makes a rule, in both families.",
        "-p 1 -z 2 -e 3 -u 1,2 -g 3,4 -b * -d 22 -c eth1 -i 10.0.0.0/8,fd00::/8 -x 10.1.0.0/16,fd01::/16 "
        "-q 80 -o 81 -k net1 --redirect-dns --drop-invalid --dual-stack",
        {"ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE": "5,6"},
        ipv6=True,
        servers=SERVERS_OF_BOTH,
    ),
    Golden(
        "everything-tproxy",
        "The same with TPROXY and a list of ports.",
        "-m TPROXY -t 4294967295 -r 1 -p 1 -z 2 -e 3 -u 1,2 -g 3,4 -b 80,90-99 -c eth1 "
        "-i 10.0.0.0/8,fd00::/8 -x 10.1.0.0/16,fd01::/16 -q 80 -o 81 -k net1 "
        "--redirect-dns --capture-all-dns --drop-invalid --dual-stack",
        {"ISTIO_OUTBOUND_OWNER_GROUPS": "5,6"},
        ipv6=True,
        servers=SERVERS_OF_BOTH,
    ),
    # --- compact
    Golden("compact", "--compact and no list: nothing is different.", "--compact"),
    Golden(
        "compact-lists",
        "Ports in multiport rules, networks merged.",
        "-d 22,15090,15021,15020 -x 10.0.0.0/9,10.128.0.0/9,192.0.2.7 -q 80,443 -o 22,5000-5010 --compact",
    ),
    Golden(
        "compact-more-than-15-ports",
        "A multiport rule takes 15 ports, a range is two.",
        "-b 1,3,5,7,9,11,13,15,17,19,21,23,25,27,30-39,50,60-69 --compact",
    ),
    Golden(
        "compact-tproxy",
        "Both rules of each port: established connections first.",
        "-m TPROXY -b 80,81,443,8080 --compact --rule-comments",
    ),
    Golden(
        "compact-dual-stack",
        "Each family has its own networks, and interfaces of virtual machines have them, too.",
        "-k net1,net2 -i 10.0.0.0/9,10.128.0.0/9,fd00::/9,fd80::/9 --redirect-dns --dual-stack --compact",
        ipv6=True,
        servers=(*TWO_SERVERS, *SERVERS_OF_BOTH),
    ),
    # --- native nftables
    Golden("native", "No settings at all, native: IPv6 is off and meets no rule.", "--native-nftables"),
    Golden("native-pod-spec", "The arguments of Istio's injector.", f"{POD_SPEC} --native-nftables"),
    Golden(
        "native-dual-stack",
        "Both families in one table; what differs is for its family.",
        "--dual-stack --native-nftables",
        ipv6=True,
    ),
    Golden(
        "native-ipv6-only", "A pod with an IPv6 address only.", "--native-nftables", ipv4=False, ipv6=True
    ),
    Golden(
        "native-tproxy", "TPROXY: what nobody listens for is dropped.", "-m TPROXY -d 22 --native-nftables"
    ),
    Golden(
        "native-tproxy-list",
        "TPROXY for a list of ports, in both families.",
        "-m TPROXY -b 80,90-99 -c eth1,net+ --drop-invalid --dual-stack --native-nftables",
        ipv6=True,
    ),
    Golden(
        "native-lists",
        "Lists are sets of the fewest ranges.",
        "-d 22,23,15090,8000-8100 -x 10.0.0.0/9,10.128.0.0/9,192.0.2.7,192.0.2.8 -q 80,443 -o 22 "
        "--native-nftables",
    ),
    Golden(
        "native-long-lists",
        "Sets that are too long for a line.",
        f"-b {','.join(str(port) for port in range(1001, 1040, 2))} "
        f"-i {','.join(f'10.{number}.0.0/17' for number in range(12))} --native-nftables",
    ),
    Golden(
        "native-outbound",
        "Networks of both families, captured and excluded.",
        "-i 10.0.0.0/8,fd00::/8,0.0.0.0/1 -x 10.1.0.0/16,fd01::/16 --dual-stack --native-nftables",
        ipv6=True,
    ),
    Golden(
        "native-no-inbound", "No inbound capture, one port outbound.", "-b '' -i '' -q 80 --native-nftables"
    ),
    Golden(
        "native-proxies",
        "Several users and groups of the proxy; no negated owner.",
        "-u 1337,0 -g 1337,2000 --native-nftables",
    ),
    Golden(
        "native-groups",
        "Captured groups go to a chain of the rest.",
        "--native-nftables",
        {"ISTIO_OUTBOUND_OWNER_GROUPS": "payments,3000,3001"},
    ),
    Golden(
        "native-groups-excluded",
        "Excluded groups are a set.",
        "--native-nftables",
        {"ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE": "payments,3000,3001"},
    ),
    Golden("native-dns-all", "All DNS to the agent.", "--redirect-dns --capture-all-dns --native-nftables"),
    Golden(
        "native-dns-servers", "Servers are a set.", "--redirect-dns --native-nftables", servers=TWO_SERVERS
    ),
    Golden(
        "native-dns-dual-stack",
        "Servers by family.",
        "--redirect-dns --dual-stack --native-nftables",
        ipv6=True,
        servers=SERVERS_OF_BOTH,
    ),
    Golden(
        "native-dns-servers-of-one-family",
        "IPv6 has no server: what captures is for IPv4.",
        "--redirect-dns --dual-stack --native-nftables",
        ipv6=True,
        servers=TWO_SERVERS,
    ),
    Golden(
        "native-dns-no-servers",
        "No server: the rules are those without DNS capture.",
        "--redirect-dns --native-nftables",
    ),
    Golden(
        "native-kube-virt",
        "A virtual machine in the pod.",
        "-k net1,net2 -i 10.0.0.0/8,172.16.0.0/12 -c eth+ --native-nftables",
    ),
    Golden(
        "native-loopback",
        "A loopback address in -i, a wider loopback network.",
        "-i 127.0.0.1/8,10.0.0.0/8 --dual-stack --native-nftables",
        {"ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR": "127.1.2.3/8"},
        ipv6=True,
    ),
    Golden(
        "native-comments",
        "Every rule says why it is there.",
        "-b 80,443 -c eth1 -k net1 -x 10.0.0.0/8 --rule-comments --native-nftables",
    ),
    Golden(
        "native-everything",
        "Every setting that makes a rule, in both families.",
        "-p 1 -z 2 -e 3 -u 1,2 -g 3,4 -b * -d 22 -c eth1 -i 10.0.0.0/8,fd00::/8 -x 10.1.0.0/16,fd01::/16 "
        "-q 80 -o 81 -k net1 --redirect-dns --drop-invalid --dual-stack --native-nftables",
        {"ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE": "5,6"},
        ipv6=True,
        servers=SERVERS_OF_BOTH,
    ),
    Golden(
        "native-everything-tproxy",
        "The same with TPROXY and a list of ports.",
        "-m TPROXY -t 4294967295 -r 1 -p 1 -z 2 -e 3 -u 1,2 -g 3,4 -b 80,90-99 -c eth1 "
        "-i 10.0.0.0/8,fd00::/8 -x 10.1.0.0/16,fd01::/16 -q 80 -o 81 -k net1 "
        "--redirect-dns --capture-all-dns --drop-invalid --dual-stack --native-nftables",
        {"ISTIO_OUTBOUND_OWNER_GROUPS": "5,6"},
        ipv6=True,
        servers=SERVERS_OF_BOTH,
    ),
)


# --- what iptables-restore does with a script -------------------------------------------------

#: Chain -> its rules, as iptables-save prints them behind `-A CHAIN`.
Chains = dict[str, list[str]]
_BASIC = ("-s", "-d", "-i", "-o", "-p")
_OTHER = r"-m|--(?:[sd]port|dports|[ug]id-owner|mark|ctstate|comment)"
_FULL_MASKS = ["--nfmask", "0xffffffff", "--ctmask", "0xffffffff"]


def load(tables: dict[str, Chains], script: str, family: str) -> None:
    """Do to `tables` what `iptables-restore --noflush` (or ip6tables-restore) does with a script."""
    table: Chains | None = None
    for line in script.split("\n"):
        line = re.sub(r"^\[\d+:\d+\] ", "", line)
        if line.startswith("*"):
            table = tables.setdefault(line[1:], {})
        elif line == "COMMIT":
            table = None
        elif line and not line.startswith("#"):
            assert table is not None, f"outside of a table: {line!r}"
            _command(table, line, family)
    assert table is None, "no COMMIT at the end"


def _command(chains: Chains, line: str, family: str) -> None:
    if line.startswith(":"):
        name = line[1:].removesuffix(" - [0:0]")
        assert name not in chains, f"{name} would be flushed"
        chains[name] = []
        return
    what, name, *rest = _words(line)
    if what == "-A":
        chains.setdefault(name, []).append(saved(rest, family))
    elif what == "-I":
        place = int(rest.pop(0))
        assert 1 <= place <= len(chains.get(name, [])) + 1, f"no such place: {line!r}"
        chains.setdefault(name, []).insert(place - 1, saved(rest, family))
    elif what == "-D" and len(rest) == 1:
        del chains[name][int(rest[0]) - 1]
    elif what == "-D":
        chains[name].remove(saved(rest, family))
    elif what == "-F":
        chains[name].clear()
    elif what == "-X":
        assert not chains[name], f"{name} is not empty"
        users = [rule for rules in chains.values() for rule in rules if f"-j {name}" in rule]
        assert not users, f"{name} is in use: {users}"
        del chains[name]
    else:
        raise AssertionError(f"no such command: {line!r}")


def _words(line: str) -> list[str]:
    """Words as iptables-restore takes them: double quotes, with backslashes before both within."""
    found = re.findall(r'(?:[^ "]|"(?:[^"\\]|\\.)*")+', line, re.DOTALL)
    return [re.sub(r'"((?:[^"\\]|\\.)*)"', _unquoted, word, flags=re.DOTALL) for word in found]


def _unquoted(quoted: re.Match[str]) -> str:
    return re.sub(r"\\(.)", r"\1", quoted[1], flags=re.DOTALL)


def saved(words: list[str], family: str) -> str:
    """The words of a rule as iptables-save prints them: see the head of tests/oracle.py.

    Fails for anything that is not an option of one of the rules of SPEC section 3, followed by one value.
    """
    groups, target, at = [], [], 0
    while at < len(words):
        if words[at] == "-j":
            target = words[at:]
            break
        length = 3 if words[at] == "!" else 2
        groups.append(words[at : at + length])
        at += length
    basic = {group[-2]: group for group in groups if group[-2] in _BASIC}
    others = [group for group in groups if group[-2] not in _BASIC]
    assert len(basic) + len(others) == len(groups), f"given twice: {words}"
    assert all(re.fullmatch(_OTHER, group[-2]) for group in others), f"not an option: {words}"
    rest = [word for group in others for word in group] + _target(target, family)
    text = [word for option in _BASIC for word in basic.get(option, [])] + rest
    return " ".join(text)


def _target(words: list[str], family: str) -> list[str]:
    """A target as it is printed: with what the kernel has filled in."""
    if words[:2] == ["-j", "TPROXY"]:
        assert [*words[2::2], len(words)] == ["--on-port", "--tproxy-mark", 6], words
        return [*words[:4], "--on-ip", "0.0.0.0" if family == "ipv4" else "::", *words[4:]]
    if words[:2] == ["-j", "CONNMARK"]:
        assert len(words) == 3, words
        return [*words, *_FULL_MASKS]
    assert len(words) in (2, 4), f"a target and at most one option: {words}"
    return words


def after_loading(script: str, family: str) -> dict[str, list[str]]:
    """What iptables-save prints, by table, once the script has been loaded into an empty namespace."""
    tables: dict[str, Chains] = {}
    load(tables, script, family)
    return {
        name: [f"-A {chain} {rule}" for chain in sorted(chains) for rule in chains[chain]]
        for name, chains in tables.items()
    }


def by_family(rendered: str) -> dict[str, str]:
    """What `render` shows for both families, taken apart again."""
    parts = re.split(r"^# (ipv[46]): for ip6?tables-restore --noflush.*\n", rendered, flags=re.MULTILINE)
    return {"ipv4": parts[0]} if len(parts) == 1 else dict(zip(parts[1::2], parts[2::2], strict=True))


def ip_commands(rendered: str) -> list[str]:
    """The `ip` commands that `render` shows as comments behind the scripts."""
    return re.findall(r"^# (ip (?:-6 )?(?:rule|route|addr) .*)$", rendered, re.MULTILINE)


def without_comments(line: str) -> str:
    """A rule without the comments of --rule-comments; those that SPEC demands stay, without the reason."""
    line = re.sub(r"-m comment --comment istio-iptables\b(?:: .*?(?= -j ))?", "\0", line)
    line = re.sub(r" -m comment --comment .*?(?= -j )", "", line)
    return line.replace("\0", oracle.COMMENT)


# --- the files --------------------------------------------------------------------------------


def text_of(golden: Golden) -> str:
    """The contents of a golden file, once the oracle has agreed."""
    config, warnings = resolve(parse(given(golden), golden.facts()), golden.facts())
    check(golden, render(build(config.replace(compact=False))))
    rendered = render(build(config), golden.style)
    if golden.style == "restore":
        for family, script in by_family(rendered).items():
            after_loading(script, family)
    return "".join(f"{line}\n" for line in _head(golden, warnings)) + rendered


def given(golden: Golden) -> list[Given]:
    """What a configuration gives, the strongest last."""
    found, mistakes = collect(read(shlex.split(golden.arguments)), golden.variables)
    assert not mistakes, mistakes
    return found


def _head(golden: Golden, warnings: tuple[str, ...]) -> list[str]:
    families = [name for name, there in (("IPv4", golden.ipv4), ("IPv6", golden.ipv6)) if there]
    arguments = shlex.join(shlex.split(golden.arguments))
    lines = [f"# {golden.about}", "#", f"#   arguments:   {arguments or 'none'}"]
    lines += [f"#   variable:    {name}={shlex.quote(value)}" for name, value in golden.variables.items()]
    lines.append(f"#   addresses:   {' and '.join(families)}")
    lines.append(f"#   DNS servers: {', '.join(golden.servers) or 'none'}")
    return [*lines, *(f"#   warning:     {warning}" for warning in warnings), ""]


def check(golden: Golden, rendered: str) -> None:
    """Compare what is rendered with the oracle; raise AssertionError if they differ."""
    names = golden.facts()
    settings = {item.setting.name: item.text for item in given(golden)}
    unknown = {"ENVOY_USER", "rule-comments", "compact", "native-nftables"}  # no other rules, for the oracle
    known = {name: text for name, text in settings.items() if name not in unknown}
    if "ENVOY_USER" in settings:
        known.setdefault("proxy-uid", settings["ENVOY_USER"])
    for name, text in known.items():
        if "uid" in name or "gid" in name or "GROUPS" in name:  # the oracle knows no names
            numbers = {**names.groups, **names.users}
            known[name] = ",".join(str(numbers.get(member, member)) for member in text.split(","))
    ipv6 = oracle.ipv6_is_on(known, has_ipv4=golden.ipv4, has_ipv6=golden.ipv6)
    wanted = oracle.expected(known, ipv6=ipv6, dns_servers=golden.servers)
    found = {
        (family, table): [without_comments(line) for line in lines]
        for family, script in by_family(rendered).items()
        for table, lines in after_loading(script, family).items()
    }
    for key in sorted({*wanted, *found}):
        if wanted.get(key) != found.get(key):
            both = "\n".join([*wanted.get(key, ["nothing"]), "but it is", *found.get(key, ["nothing"])])
            raise AssertionError(f"{golden.name}, {key}: by the oracle it should be\n{both}")
    commands = oracle.commands(known, ipv6=ipv6)
    if sorted(commands) != sorted(ip_commands(rendered)):
        raise AssertionError(f"{golden.name}, ip: by the oracle it should be\n{commands}")


def main(arguments: list[str]) -> int:
    """Check the files, or write them; return the exit code."""
    if arguments not in ([], ["--write"]):
        print("usage: python -m tests.support.golden [--write]", file=sys.stderr)
        return 2
    wanted = {golden.path: text_of(golden) for golden in GOLDEN}
    there = {path: path.read_text(encoding="utf-8") for path in sorted(DIRECTORY.glob("*.txt"))}
    wrong = sorted(path for path in {*wanted, *there} if wanted.get(path) != there.get(path))
    if not arguments:
        for path in wrong:
            print(
                f"{path.name}: not as it should be (python -m tests.support.golden --write)", file=sys.stderr
            )
        return 1 if wrong else 0
    DIRECTORY.mkdir(exist_ok=True)
    for path in wrong:
        if path in wanted:
            path.write_text(wanted[path], encoding="utf-8")
        else:
            path.unlink()
        print(f"{'written' if path in wanted else 'removed'}: {path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
