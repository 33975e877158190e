"""nft_fixtures: rules of nftables of every kind, and what versions of nft print about them.

    python -m tests.support.nft_fixtures [NFT]

writes tests/fixtures/nft/VERSION.json again: in a network namespace of its own the program NFT (or nft)
gets each rule, and prints all. A rule that a version does not take is left out of its file. Each rule has a
comment, by which a test finds it in the JSON of any version.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from istio_iptables.formats import nft_dump

FOLDER = Path(__file__).parents[1] / "fixtures" / "nft"
VERSIONS = ("0.9.8", "1.0.6", "1.1.3")

#: What the rules name.
HEAD = """
table inet t {
  counter packets_of_it { }
  limit some { rate 5/second; }
  set plain { type ipv4_addr; flags interval; elements = { 10.0.0.0/30, 192.0.2.1-192.0.2.9, 10.0.0.7 } }
  set several { type ipv4_addr . inet_service; elements = { 10.0.0.1 . 80, 10.0.0.7 . 53 } }
  set changing { type ipv4_addr; flags dynamic,timeout; elements = { 10.0.0.1 timeout 30d } }
  set counting { type ipv4_addr; counter; elements = { 10.0.0.1 } }
  set nobody { type ipv4_addr; }
  map verdicts { type inet_service : verdict; elements = { 80 : jump other, 443 : drop } }
  map hosts { type inet_service : ipv4_addr; elements = { 80 : 10.1.0.1, 81 : 10.1.0.2 } }
  chain other { }
  chain conditions { }
  chain actions { type nat hook prerouting priority -100; }
  chain filter { type filter hook prerouting priority -150; }
}
table inet early {
  chain actions { type filter hook prerouting priority -300; }
}
table ip four {
  chain conditions { }
 chain actions { type nat hook output priority -100; }
}
"""

#: Rules by table and chain: those of chains named `conditions` get `accept` at their end.
RULES: dict[str, tuple[str, ...]] = {
    "inet t conditions": (
        "ct state established,related",
        "ct state new",
        "ct state { established, related }",
        "ct state != new",
        "ct state != established,related",
        "ct state & (established | related) == established",
        "ct status dnat",
        "ct status snat,dnat",
        "ct status != dnat",
        "ct direction reply",
        "ct original ip daddr 10.0.0.2",
        "meta l4proto tcp ct original proto-dst 80",
        "ct reply ip saddr 10.0.0.2",
        "ct mark 5",
        "ct mark != 5",
        "ct mark & 0xff == 0x5",
        "ct zone 7",
        'ct helper "ftp"',
        "tcp flags syn",
        "tcp flags & (syn | ack) == syn",
        "tcp flags { syn, syn | ack }",
        "tcp flags != syn",
        "fib daddr type local",
        "fib daddr type != local",
        "fib saddr . iif oif missing",
        "fib saddr . mark . iif oif exists",
        "iif lo",
        'iifname "eth0"',
        'iifname "eth*"',
        'iifname { "eth0", "wlan0" }',
        'iifname != "lo"',
        'oifname "lo"',
        "meta iiftype loopback",
        "meta iiftype ether",
        "meta pkttype { host, broadcast }",
        "meta skuid 1337",
        "meta skuid != 1337",
        "meta skuid 0-1000",
        "meta skgid > 1000",
        "meta skuid != { 1, 2 }",
        "meta protocol ip",
        "meta nfproto ipv6",
        "meta l4proto { tcp, udp } th dport 80",
        "meta l4proto ipv6-icmp",
        "meta l4proto != udp",
        "th dport 80",
        "meta mark 5",
        "meta mark & 0xff00 == 0x500",
        "meta mark & 0xff00 != 0",
        "meta mark < 10",
        "meta mark { 1, 5-7 }",
        "meta length > 100",
        "meta cgroup 5",
        "ip saddr @plain",
        "ip saddr != @plain",
        "ip saddr . tcp dport @several",
        "ip saddr @changing",
        "ip saddr @counting",
        "ip saddr @nobody",
        "ip saddr 10.0.0.0/24",
        "ip saddr & 0.0.0.255 == 0.0.0.1",
        "ip saddr != 10.0.0.1",
        "ip protocol tcp",
        "ip ttl 1",
        "ip frag-off & 0x1fff != 0",
        "ip version 4",
        "ip6 nexthdr tcp",
        "ip6 saddr fe80::/10",
        "ip6 daddr { ::1, fd00::1-fd00::5 }",
        "icmp type echo-request",
        "icmp type { echo-reply, destination-unreachable }",
        "icmpv6 type { nd-neighbor-solicit, nd-router-advert }",
        "icmp type . icmp code { echo-request . 0 }",
        "tcp dport { 80, 443, 8000-8100 }",
        "tcp dport != 80",
        "tcp dport >= 1024",
        "tcp dport <= 1023",
        "tcp dport 8000-8100",
        "udp sport 53",
        "sctp dport 80",
        "tcp dport & 1 == 0",
        "ip saddr . ip daddr . meta l4proto . th dport { 10.0.0.1 . 10.0.0.2 . tcp . 80 }",
        'iifname . meta mark { "eth0" . 5 }',
        "@nh,96,32 0x0a000001",
        "limit rate 5/second",
        'limit name "some"',
        "quota over 5 mbytes",
        "ct count over 5",
        "update @changing { ip saddr }",
        "update @changing { ip saddr limit rate 1/second }",
        "numgen random mod 2 0",
        "socket transparent 1",
        "rt classid 5",
        "ether saddr 00:11:22:33:44:55",
        "tcp option maxseg exists",
        'log prefix "x" counter name "packets_of_it"',
    ),
    "ip four conditions": (
        "ip saddr 10.0.0.1",
        "@nh,96,32 0x0a000001",
        "ip protocol udp",
        "tcp dport 80",
    ),
    "inet t filter": (
        "tcp dport vmap { 80 : accept, 443 : drop, 1000-2000 : continue }",
        "tcp dport vmap @verdicts",
        "ct state vmap { invalid : drop, established : accept }",
        "ip saddr . tcp dport vmap { 10.0.0.1 . 80 : drop }",
        "numgen random mod 2 vmap { 0 : jump other, 1 : drop }",
        "jump other",
        "goto other",
        "return",
        "drop",
        "reject",
        "meta l4proto tcp reject with tcp reset",
        "meta mark set 5",
        "meta mark set meta mark & 0xff | 0x100",
        "meta mark set meta mark ^ 5",
        "meta mark set ct mark",
        "meta mark set ct mark & 0xff",
        "ct mark set meta mark",
        "ct mark set meta mark | 1",
        "meta mark set tcp dport map { 80 : 1, 443 : 2 }",
        "meta mark set jhash ip saddr mod 2",
        "meta priority set 1:1",
        "meta nftrace set 1",
        "ip dscp set cs1",
        "ip daddr set 10.9.9.9",
        "meta l4proto tcp tproxy ip to :15006 meta mark set 5 accept",
        "meta l4proto tcp tproxy ip to 127.0.0.1:15006",
        "meta l4proto tcp tproxy to :15006",
    ),
    "inet early actions": (
        "notrack",
        "ct zone set 7",
        'ct zone set iifname map { "lo" : 1, "eth0" : 2 }',
        "ct state invalid accept",
        "ct state untracked accept",
        "ct state new accept",
        "ct mark 0 accept",
    ),
    "inet t actions": (
        "dnat ip to 10.1.0.1",
        "tcp dport 80 dnat ip to 10.1.0.1:8080",
        "tcp dport 80 dnat ip to 10.1.0.1:8080-8090",
        "tcp dport 80 dnat ip to 10.1.0.1-10.1.0.9",
        "meta nfproto ipv4 dnat ip to tcp dport map @hosts",
        "meta l4proto tcp dnat ip to ip saddr map { 10.0.0.1 : 10.1.0.1 . 8080 }",
        "dnat ip6 to fd00::1",
        "redirect",
        "tcp dport 80 redirect to :8080",
        "tcp dport 80 redirect to :8080-8090",
        "tcp dport 80 redirect to :tcp dport map { 80 : 8080 }",
        "meta nfproto ipv4 dnat ip to numgen random mod 2 map { 0 : 10.1.0.1, 1 : 10.1.0.2 }",
        "dnat ip prefix to ip daddr map { 10.0.0.0/24 : 10.1.0.0/24 }",
    ),
    "ip four actions": ("tcp dport 80 dnat to :8080", "counter dnat to 10.1.0.1 random,persistent"),
}


@functools.cache
def dump(version: str) -> nft_dump.NftDump:
    """Return what a version of nft has printed."""
    return nft_dump.parse((FOLDER / f"{version}.json").read_text())


def rule_in(version: str, where: str, text: str) -> dict[str, Any] | None:
    """Return a rule as a version prints it, None if that version does not take the rule."""
    wanted = f"{where} {RULES[where].index(text)}"
    for each in dump(version).objects:
        if "rule" in each and each["rule"].get("comment") == wanted:
            return dict(each["rule"])
    return None


def _run(nft: str, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([nft, *words], input=stdin, capture_output=True, text=True, check=False)


def _make(nft: str) -> None:
    loaded = _run(nft, "-f", "-", stdin=HEAD)
    if loaded.returncode:
        raise SystemExit(loaded.stderr)
    for where, rules in RULES.items():
        for number, rule in enumerate(rules):
            verdict = " accept" if where.endswith("conditions") else ""
            comment = f'comment "{where} {number}"'
            if _run(nft, "add", "rule", *where.split(), f"{rule}{verdict} {comment}").returncode:
                print(f"not taken: {rule}")
    printed = _run(nft, "-j", "list", "ruleset").stdout
    version = json.loads(printed)["nftables"][0]["metainfo"]["version"]
    (FOLDER / f"{version}.json").write_text(printed)
    print(f"{version}.json: {len(printed)} characters")


if __name__ == "__main__":
    nft = sys.argv[1] if len(sys.argv) > 1 else "nft"
    if "--inside" in sys.argv:
        _make(nft)
    else:
        inside = ["unshare", "--net", sys.executable, "-m", "tests.support.nft_fixtures", nft, "--inside"]
        raise SystemExit(subprocess.run(inside, check=False).returncode)
