"""golden_cases: the configurations that tests/golden has a file for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from istio_iptables.settings.facts import Facts

DIRECTORY = Path(__file__).parents[1] / "golden"


#: What Istio's injector writes into pod specs.
POD_SPEC = (
    "istio-iptables -p 15001 -z 15006 -u 1337 -m REDIRECT -i * -x '' -b * -d 15090,15021,15020 "
    "--log_output_level=default:info"
)


TWO_SERVERS = ("10.96.0.10", "169.254.20.10")
SERVERS_OF_BOTH = ("10.96.0.10", "fd00:10:96::a")


@dataclass(frozen=True)
class Golden:
    """One configuration. `arguments` is a command line as a shell reads it, without file name patterns."""

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
    Golden(
        "dns-single-zone",
        "Only the application's DNS has a conntrack zone: forwarded DNS keeps its own.",
        "--redirect-dns --dns-single-zone --dual-stack",
        ipv6=True,
        servers=TWO_SERVERS,
    ),
    Golden(
        "dns-single-zone-all",
        "The same for all DNS.",
        "--redirect-dns --capture-all-dns --dns-single-zone --compact",
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
    Golden("native-tproxy", "TPROXY: dropped if no process listens.", "-m TPROXY -d 22 --native-nftables"),
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
        "native-dns-single-zone",
        "Only the application's DNS has a conntrack zone.",
        "--redirect-dns --dns-single-zone --native-nftables",
        servers=TWO_SERVERS,
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
