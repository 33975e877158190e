"""scenarios: the settings whose traffic is tested, and what each call has to meet."""

from __future__ import annotations

import functools
import ipaddress
import shlex
import shutil
from dataclasses import dataclass, field

import pytest

from tests.support.arrivals import Call
from tests.support.netns import SIDE_LINK, UPLINK, VM_LINKS, Namespace, Pod
from tests.support.profile import SOAK

ADDRESSES = {
    "pod": (UPLINK.ipv4[0], UPLINK.ipv6[0]),  # its own address, on eth0
    "client": (UPLINK.ipv4[1], UPLINK.ipv6[1]),
    "pod-lo1": (SIDE_LINK.ipv4[0], SIDE_LINK.ipv6[0]),  # its own on the second interface, lo1
    "client-lo1": (SIDE_LINK.ipv4[1], SIDE_LINK.ipv6[1]),
    "pod-vm0": (VM_LINKS[0].ipv4[0], VM_LINKS[0].ipv6[0]),  # its own towards the virtual machine
    "self": ("127.0.0.1", "::1"),
    "any": ("0.0.0.0", "::"),
    "passthrough": ("127.0.0.6", "::6"),  # Envoy calls the application from there
    "world": ("198.18.0.1", "2001:db8::1"),
    "blue": ("198.18.1.1", "2001:db8:1::1"),
    "green": ("198.18.2.1", "2001:db8:2::1"),
    "dns": ("198.18.53.1", "2001:db8:53::1"),
    "dns2": ("198.18.53.2", "2001:db8:53::2"),
    "side": ("198.19.0.1", "2001:db8:19::1"),  # the way to it leads through lo1
}


OWNERS = {"app": "1000:1000", "proxy": "1337:1337", "client": "0:0", "vm": "0:0"}


#: Ports that only the proxy and the agent listen on.
PROXY_PORTS = frozenset({15001, 15006, 15008})


@dataclass(frozen=True)
class Row:
    """A connection and where it must arrive."""

    text: str
    who: str
    uid: int
    gid: int
    mark: int
    source: str
    address: str
    port: int
    kind: str
    versions: tuple[int, ...]
    arrives: str


@dataclass
class Scenario:
    """A configuration, the pod it is for, and connections."""

    title: str
    settings: list[str] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    families: str = "4+6"
    resolv_conf: str | None = None
    proxy: tuple[int, int] = (1337, 1337)
    rows: list[Row] = field(default_factory=list)

    def describe(self, line: str) -> None:
        """Take in a line of settings."""
        for word in shlex.split(line):
            name, assigned, value = word.partition("=")
            if assigned and name.isupper():
                self.variables[name] = value
            elif assigned and name == "pod":
                self.families = value
            elif assigned and name == "dns":
                servers = filter(None, value.split(","))
                self.resolv_conf = "# 198.18.0.1\nsearch example.org\n" + "".join(
                    f"nameserver {server}\n" for server in servers
                )
            elif assigned and name == "proxy":
                uid, gid = value.split(":")
                self.proxy = int(uid), int(gid)
            else:
                self.settings.append(word)

    @property
    def tproxy(self) -> bool:
        return "TPROXY" in self.settings

    def proxy_ports(self) -> frozenset[int]:
        named = {int(row.arrives.partition(":")[2]) for row in self.rows if "proxy:" in row.arrives}
        return PROXY_PORTS | named


def resolve(name: str, version: int) -> str:
    address = ADDRESSES[name][version == 6] if name in ADDRESSES else name
    assert ipaddress.ip_address(address).version == version, f"{name} is not an IPv{version} address"
    return address


def word(call: Call, kind: str) -> str:
    """Return the result of a call as the table writes it, and what is wrong with it if anything is."""
    seen = call.arrival
    if seen is None:
        return call.error
    redirected = seen.local != call.dialled
    wrong = ""
    # A caller may use one source port for two destinations; if both are redirected to one, NAT changes it.
    if seen.peer != call.local and not (redirected and seen.peer[0] == call.local[0]):
        wrong += f", but it saw the caller as {seen.peer}, not {call.local}"
    if seen.original != call.dialled and (seen.original or (redirected and kind == "tcp")):
        wrong += f", but it thought that {seen.original} was dialled"
    listener = f"{seen.name}:{seen.port}"
    if redirected:
        return listener + wrong
    if seen.port != call.dialled[1]:
        return "t" + listener + wrong
    return (listener if seen.name in ("proxy", "agent") else seen.name) + wrong


#: What to add to the settings to get a backend, and what the log then calls it.
BACKENDS = {
    "libiptc": ((), "libiptc"),
    "legacy": (("--force-iptables-binary", "legacy"), "iptables-legacy-restore"),
    "nft": (("--force-iptables-binary", "nft"), "iptables-nft-restore"),
    "native": (("--native-nftables",), "nftables"),
    "compact": (("--compact",), "libiptc"),
}
#: Those to send traffic through: libiptc writes the very tables that iptables-legacy-restore does, as
#: test_backends_agree shows; in `make soak` both are tried.
SENT_THROUGH = [name for name in BACKENDS if name != "legacy" or SOAK]


@functools.cache
def has_legacy_tables() -> bool:
    """Tell whether the kernel can do legacy rules at all; asking may load its modules."""
    with Namespace() as namespace:
        return namespace.run(["iptables-legacy", "-t", "nat", "-S"], check=False).returncode == 0


def apply(pod: Pod, scenario: Scenario, backend: str) -> None:
    force, name = BACKENDS[backend]
    for command in ("iptables-legacy-restore", "iptables-nft-restore"):
        if name in (command, "libiptc") and shutil.which(command) is None:
            pytest.skip(f"{command} is not installed")
    if backend not in ("nft", "native") and not has_legacy_tables():
        pytest.skip("the kernel has no legacy tables")
    both = ["--dual-stack"] if "4+6" in scenario.families else []
    done = pod.tool(*scenario.settings, *both, *force, env=scenario.variables)
    assert done.code == 0, done.err
    assert f"backend {name}:" in done.err
