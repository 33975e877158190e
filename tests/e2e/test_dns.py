"""DNS with a stand-in for Istio's agent: dnsmasq, as the proxy's user, beside a real Envoy.

The application asks with dig. Outside are two servers, of which /etc/resolv.conf names one, and each knows a
name that no other knows; so does the agent. Envoy gets nothing of it, but for TCP to the server that is not
named, which is a connection like any other.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.journey import FROM_OUTSIDE, TO_WORLD, check, miscounted
from tests.e2e.mesh import APP, SETTINGS, Mesh, each_backend, each_mode, mesh_of
from tests.support.dnsmasq import dns_server, queries
from tests.support.netns import COMMAND_LIMIT, Namespace
from tests.support.scenarios import resolve
from tests.support.scratch import wait_until

pytestmark = [
    pytest.mark.skipif(
        shutil.which(program) is None, reason=f"{program} is not installed (package {package})"
    )
    for program, package in (("dig", "bind9-dnsutils"), ("dnsmasq", "dnsmasq-base"))
]

SERVERS, ALL = ("--redirect-dns",), ("--redirect-dns", "--capture-all-dns")
each_way = pytest.mark.parametrize("way", [SERVERS, ALL], ids=["servers", "all"])
TRANSPORTS = ("udp", "tcp")

AGENT = (1337, 1337)
FROM_AGENT, FROM_UPSTREAM, FROM_OTHER = "192.0.2.77", "203.0.113.7", "203.0.113.8"
NOTHING = ""
#: The one port from which the agent asks the server, and which the application uses, too.
SHARED_PORT = 4053


def start_servers(mesh: Mesh) -> None:
    """Start the agent, the server that /etc/resolv.conf names, and another one."""
    dns, dns2 = ([resolve(name, version) for version in mesh.versions] for name in ("dns", "dns2"))
    for address in (*dns, *dns2):
        mesh.pod.client.ip(f"address add {address} dev lo{' nodad' * (':' in address)}")
    for addresses, answer in ((dns, f"/upstream.test/{FROM_UPSTREAM}"), (dns2, f"/other.test/{FROM_OTHER}")):
        listen = [f"--listen-address={address}" for address in addresses]
        dns_server(mesh.pod.client, 65534, 65534, "--port=53", f"--address={answer}", *listen)
    # Both families' servers are asked, strictly the first that is up, so that every query is one.
    options = ["--port=15053", "--listen-address=127.0.0.1", f"--address=/agent.test/{FROM_AGENT}"]
    options += ["--listen-address=::1"] if 6 in mesh.versions else []
    options += ["--strict-order", *(f"--server={address}" for address in reversed(dns))]
    options += [f"--min-port={SHARED_PORT}", f"--max-port={SHARED_PORT}"]
    dns_server(mesh.pod, *AGENT, *options)
    for namespace, servers in ((mesh.pod, 1), (mesh.pod.client, 2)):
        # By what they say, since two of them have the same port.
        wait_until(functools.partial(has_started, namespace, servers), COMMAND_LIMIT)


def has_started(namespace: Namespace, servers: int) -> bool:
    """Tell whether so many dnsmasq have all their ports."""
    return namespace.output().count("started, version") == servers


@contextmanager
def mesh_with_dns(mode: str, backend: str, families: str, way: tuple[str, ...]) -> Iterator[Mesh]:
    servers = [resolve("dns", int(version)) for version in families.split("+")]
    resolv_conf = "".join(f"nameserver {server}\n" for server in servers)
    with mesh_of(mode, backend, families, settings=(*SETTINGS, *way), resolv_conf=resolv_conf) as mesh:
        start_servers(mesh)
        yield mesh


def ask(
    mesh: Mesh,
    name: str,
    server: str,
    transport: str,
    who: tuple[int, int] = APP,
    *,
    port: int = 0,
    patience: int = 10,
) -> str:
    """Let dig ask a server for a name, from a port if one is given; return the address.

    It is NOTHING if there is none, or the answer does not come within `patience`, in seconds.
    """
    source = resolve("pod", 6 if ":" in server else 4)
    command = ["dig", "+short", "+tries=1", f"+time={patience}", *(["+tcp"] if transport == "tcp" else [])]
    command += ["-b", f"{source}#{port}"] if port else []
    done = mesh.pod.run([*command, f"@{server}", name, "A"], *who, check=False)
    return NOTHING if done.stdout.startswith(";;") else done.stdout.strip()


@each_mode
@each_backend
@each_way
@pytest.mark.parametrize("families", ["4+6", "6"])
def test_the_agent_gets_the_questions(mode: str, backend: str, way: tuple[str, ...], families: str) -> None:
    with mesh_with_dns(mode, backend, families, way) as mesh:
        for version in mesh.versions:
            for transport in TRANSPORTS:
                check_questions(mesh, version, transport, way)
        check(mesh, FROM_OUTSIDE, TO_WORLD)


def check_questions(mesh: Mesh, version: int, transport: str, way: tuple[str, ...]) -> None:
    """Ask everybody, as the application and as the agent's user."""
    named, other = resolve("dns", version), resolve("dns2", version)
    before = mesh.envoy.counters()
    assert ask(mesh, "agent.test", named, transport) == FROM_AGENT
    assert ask(mesh, f"{transport}{version}.upstream.test", named, transport) == FROM_UPSTREAM
    # The agent has asked, as itself: what asked it is known, and what asked the server is the pod.
    assert queries(mesh.pod, f"{transport}{version}.upstream.test") == {resolve("pod", version)}
    own = {resolve("pod", v) for v in mesh.versions}
    assert queries(mesh.pod.client, f"{transport}{version}.upstream.test") <= own
    assert len(queries(mesh.pod.client, f"{transport}{version}.upstream.test")) == 1
    # Who runs as the agent gets to the server itself.
    assert ask(mesh, f"own.{transport}{version}.upstream.test", named, transport, AGENT) == FROM_UPSTREAM
    assert queries(mesh.pod, f"own.{transport}{version}.upstream.test") == set()
    if way == ALL:
        assert ask(mesh, "agent.test", other, transport) == FROM_AGENT
        assert ask(mesh, "other.test", other, transport) == NOTHING
    assert queries(mesh.pod.client, "agent.test") == set()
    assert not miscounted(mesh, before, {})
    if way == SERVERS:
        assert ask(mesh, "other.test", other, transport) == FROM_OTHER
        assert queries(mesh.pod, "other.test") == set()
        grown = {f"outbound-{version} accepted": 1, f"outbound-{version} opened": 1}
        assert not miscounted(mesh, before, grown if transport == "tcp" else {})


def ask_from_one_port(mesh: Mesh, version: int, patience: int = 10) -> list[str]:
    """Let the application and the agent, one after the other, ask one server from the same port."""
    server = resolve("dns", version)
    return [
        ask(mesh, "agent.test", server, "udp", port=SHARED_PORT),
        # What the agent does not know it asks from SHARED_PORT.
        ask(mesh, "upstream.test", server, "udp", patience=patience),
    ]


@each_backend
@each_way
@pytest.mark.parametrize("zones", [(), ("--dns-single-zone",)], ids=["two zones", "one zone"])
@pytest.mark.parametrize("version", [4, 6])
def test_the_agent_and_the_application_may_ask_from_the_same_port(
    backend: str, way: tuple[str, ...], zones: tuple[str, ...], version: int
) -> None:
    """To the kernel that is one connection, if not for the zones: the agent would get its own question."""
    with mesh_with_dns("REDIRECT", backend, str(version), (*way, *zones)) as mesh:
        for _ in range(2):
            assert ask_from_one_port(mesh, version) == [FROM_AGENT, FROM_UPSTREAM]


def test_without_zones_the_agent_gets_its_own_question() -> None:
    """Else the test before this one would show nothing."""
    with mesh_with_dns("REDIRECT", "libiptc", "4", SERVERS) as mesh:
        mesh.pod.run(["iptables-legacy", "-t", "raw", "-F"])
        assert ask_from_one_port(mesh, 4, patience=2) == [FROM_AGENT, NOTHING]
