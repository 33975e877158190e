"""Docker's rules beside those of istio-iptables: where connections and DNS really go, and the warnings."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support import docker
from tests.support.dnsmasq import dns_server
from tests.support.netns import Namespace, Pod
from tests.support.scenarios import BACKENDS, has_legacy_tables, resolve
from tests.support.validating import restricted

pytestmark = [
    pytest.mark.skipif(
        shutil.which(program) is None, reason=f"{program} is not installed (package {package})"
    )
    for program, package in (("nft", "nftables"), ("dig", "bind9-dnsutils"), ("dnsmasq", "dnsmasq-base"))
]

#: The backend of istio-iptables that has its rules in the same chains as docker.
SAME = {"legacy": "legacy", "iptables-nft": "nft"}
each_backend = pytest.mark.parametrize("ours", ["legacy", "nft", "native"])
each_order = pytest.mark.parametrize("order", ["first", "last"])
NOTHING = ""


def run(pod: Pod, backend: str, *arguments: str) -> str:
    """Run istio-iptables and return its warnings about foreign rules."""
    if backend == "legacy" and not has_legacy_tables():
        pytest.skip("the kernel has no legacy tables")
    done = pod.tool(*BACKENDS[backend][0], *arguments)
    assert done.code == 0, done.err
    lines = (line.partition("\t")[2] for line in done.err.splitlines())  # without the time
    return "\n".join(line for line in lines if "foreign rule" in line)


# --- a published port -----------------------------------------------------------------------


@contextmanager
def pod_with_container() -> Iterator[Pod]:
    with Pod() as pod, docker.container_behind(pod) as container:
        container.listen("container", tcp=[80])
        pod.listen("proxy", tcp=[15006], uid=1337, gid=1337)
        pod.listen("app", tcp=[8080])
        yield pod


def who_answers(pod: Pod) -> str:
    call = pod.client.connect(resolve("pod", 4), 8080)
    return call.arrival.name if call.arrival else call.error


@each_order
@each_backend
@pytest.mark.parametrize("theirs", docker.VARIANTS)
def test_who_gets_connections_to_a_published_port(theirs: str, ours: str, order: str) -> None:
    """In one chain the first rule decides, else the chain that was made last."""
    with pod_with_container() as pod:
        if order == "first":
            docker.publish_port(pod, theirs)
        said = run(pod, ours)
        if order == "last":
            docker.publish_port(pod, theirs)
        in_one_chain = SAME.get(theirs) == ours
        bypassed = (order == "first") == in_one_chain
        assert who_answers(pod) == ("container" if bypassed else "proxy")
        said_afterwards = run(pod, ours, "diff")
        if order == "first":
            assert said == said_afterwards
        if in_one_chain:
            assert ("comes before" in said_afterwards) == bypassed
            assert "may come before" not in said_afterwards
        else:
            assert "may come before" in said_afterwards
        if said_afterwards:
            assert "inbound TCP to port 8080" in said_afterwards
            assert re.search(r"(dport 8080 .*(dnat to|DNAT --to-destination) 172.17.0.2:80)", said_afterwards)


@pytest.mark.parametrize("theirs", docker.VARIANTS)
def test_the_advice_takes_connections_back(theirs: str) -> None:
    """A chain of native nftables that is made after docker's is asked first."""
    with pod_with_container() as pod:
        run(pod, "native")
        docker.publish_port(pod, theirs)
        assert who_answers(pod) == "container"
        assert pod.tool("cleanup").code == 0
        run(pod, "native")
        assert who_answers(pod) == "proxy"


@each_order
@pytest.mark.parametrize(("theirs", "ours"), [("legacy", "legacy"), ("nft", "native")])
def test_with_tproxy_the_proxy_is_told_another_destination(theirs: str, ours: str, order: str) -> None:
    with Pod() as pod, docker.container_behind(pod):
        proxy = pod.listen("proxy", tcp=[15006], uid=0, gid=1337, transparent=True)
        if order == "first":
            docker.publish_port(pod, theirs)
        run(pod, ours, "-m", "TPROXY")
        if order == "last":
            docker.publish_port(pod, theirs)
        assert who_answers(pod) == "proxy"
        assert proxy.arrivals()[0].local == (docker.CONTAINER, 80)
        assert "the proxy is told another destination" in run(pod, ours, "-m", "TPROXY", "diff")


def test_a_namespace_without_foreign_rules_has_no_warning() -> None:
    with Pod() as pod:
        for backend in ("legacy", "nft", "native"):
            assert run(pod, backend) == ""
            assert run(pod, backend, "diff") == ""
            assert pod.tool("cleanup").code == 0


def test_rules_of_iptables_that_only_nft_can_read() -> None:
    """Docker's rules are there, and another program has put one of nft's own into the same table."""
    with pod_with_container() as pod:
        docker.publish_port(pod, "iptables-nft")
        before = run(pod, "native")
        pod.run(shlex.split("nft add rule ip nat POSTROUTING numgen inc mod 2 == 0 masquerade"))
        after = run(pod, "native", "diff")
        assert "DNAT --to-destination" in before
        assert "may come before" in after
        assert "nftables table ip nat, chain DOCKER" in after
        assert "inbound TCP to port 8080" in after


def test_validate_warns_too() -> None:
    with pod_with_container() as pod:
        docker.publish_port(pod, "nft")
        run(pod, "native")
        done = pod.tool("--native-nftables", "validate")
        assert "the foreign rule" in done.err
        assert "chain DOCKER" in done.err


# --- DNS ------------------------------------------------------------------------------------

FROM_AGENT, FROM_DOCKER, FROM_SERVER = "192.0.2.77", "203.0.113.11", "203.0.113.7"
APP, AGENT = 1000, 1337
each_way = pytest.mark.parametrize("way", [(), ("--capture-all-dns",)], ids=["servers", "all"])


def ask(namespace: Namespace, server: str, uid: int = APP, *, tcp: bool = False, patience: int = 10) -> str:
    """Let dig ask a server; return the address, NOTHING if no answer comes within `patience`, in seconds."""
    command = ["dig", "+short", "+tries=1", f"+time={patience}", *(["+tcp"] if tcp else [])]
    done = namespace.run([*command, f"@{server}", "x.test", "A"], uid, uid, check=False)
    return NOTHING if ";;" in done.stdout or done.returncode else done.stdout.strip()


def agent(pod: Pod) -> None:
    dns_server(
        pod, AGENT, AGENT, "--port=15053", "--listen-address=127.0.0.1", f"--address=/x.test/{FROM_AGENT}"
    )


@contextmanager
def pod_with_forwarded_dns() -> Iterator[tuple[Pod, Namespace, str]]:
    """A pod with an agent, a container behind docker0, and the DNS server of /etc/resolv.conf outside."""
    server = resolve("dns", 4)
    with Pod(resolv_conf=f"nameserver {server}\n") as pod, docker.container_behind(pod) as container:
        pod.client.ip(f"address add {server} dev lo")
        known = f"--address=/x.test/{FROM_SERVER}"
        dns_server(pod.client, 65534, 65534, "--port=53", f"--listen-address={server}", known)
        agent(pod)
        pod.wait_for(15053)
        pod.client.wait_for(53)
        docker.publish_port(pod, "nft")
        yield pod, container, server


@pytest.mark.parametrize("backend", ["legacy", "nft", "native"])
@each_way
def test_containers_get_answers_with_a_zone_for_the_application_alone(
    backend: str, way: tuple[str, ...]
) -> None:
    with pod_with_forwarded_dns() as (pod, container, server):
        said = run(pod, backend, "--redirect-dns", *way, "--dns-single-zone")
        assert "--dns-single-zone" not in said
        for _ in range(2):
            assert ask(pod, server) == FROM_AGENT
            assert ask(pod, server, AGENT) == FROM_SERVER
            assert ask(container, server) == FROM_SERVER
        run(pod, backend, "--redirect-dns", *way, "--dns-single-zone", "diff")  # exit code 0: no difference
        zones = zones_of_dns(pod)
        assert zones == {(resolve("pod", 4), 2), (resolve("pod", 4), 0), (docker.CONTAINER, 0)}


@pytest.mark.parametrize("backend", ["legacy", "nft", "native"])
@each_way
def test_with_istios_zones_containers_get_no_answers(backend: str, way: tuple[str, ...]) -> None:
    """Else the test before this one would show nothing; and it is warned of."""
    with pod_with_forwarded_dns() as (pod, container, server):
        assert ask(container, server) == FROM_SERVER
        said = run(pod, backend, "--redirect-dns", *way)
        assert ask(pod, server) == FROM_AGENT
        assert ask(pod, server, AGENT) == FROM_SERVER
        assert ask(container, server, patience=2) == NOTHING
        assert re.search(r"masquerade \(nftables table ip docker.* gets no answers.*--dns-single-zone", said)


def zones_of_dns(pod: Pod) -> set[tuple[str, int]]:
    """Return who has asked over UDP, by conntrack zone."""
    if shutil.which("conntrack") is None:
        pytest.skip("conntrack is not installed (package conntrack)")
    listed = pod.run(["conntrack", "-L", "-p", "udp", "--orig-port-dst", "53"]).stdout
    return {
        (re.findall(r"src=(\S+)", line)[0], int((re.findall(r"zone=(\d+)", line) or ["0"])[0]))
        for line in listed.splitlines()
    }


@contextmanager
def pod_with_dockers_dns() -> Iterator[Pod]:
    with Pod(resolv_conf=f"nameserver {docker.DNS_SERVER}\n") as pod:
        agent(pod)
        known = f"--address=/x.test/{FROM_DOCKER}"
        listen = (f"--port={docker.DNS_PORT}", f"--listen-address={docker.DNS_SERVER}")
        dns_server(pod, 0, 0, *listen, known)
        pod.wait_for(15053, docker.DNS_PORT)
        yield pod


@each_backend
@each_way
@pytest.mark.parametrize("theirs", ["legacy", "iptables-nft"])
def test_dockers_dns_server(theirs: str, ours: str, way: tuple[str, ...]) -> None:
    """Docker's rules are there first. In one chain with ours they take DNS from the agent."""
    in_one_chain = SAME[theirs] == ours
    with pod_with_dockers_dns() as pod:
        docker.redirect_dns(pod, theirs)
        said = run(pod, ours, "--redirect-dns", *way)
        assert ask(pod, docker.DNS_SERVER, tcp=True) == (FROM_DOCKER if in_one_chain else FROM_AGENT)
        assert ask(pod, docker.DNS_SERVER, patience=2) == (NOTHING if in_one_chain else FROM_AGENT)
        assert ask(pod, docker.DNS_SERVER, AGENT, patience=2) == NOTHING
        before = "comes before" if in_one_chain else "may come before"
        for protocol in ("UDP", "TCP"):
            assert re.search(rf"{before}.* bypasses the proxy: DNS \({protocol}\) to 127.0.0.11", said)
        assert re.search(r"the agent itself asks.*no answers.*--dns-single-zone", said)


@each_backend
@each_way
@pytest.mark.parametrize("theirs", ["legacy", "iptables-nft"])
def test_the_agent_can_ask_dockers_dns_server_with_a_zone_for_the_application_alone(
    theirs: str, ours: str, way: tuple[str, ...]
) -> None:
    with pod_with_dockers_dns() as pod:
        docker.redirect_dns(pod, theirs)
        said = run(pod, ours, "--redirect-dns", *way, "--dns-single-zone")
        assert "the agent itself asks" not in said
        assert ask(pod, docker.DNS_SERVER, AGENT) == FROM_DOCKER
        if SAME[theirs] != ours:
            assert ask(pod, docker.DNS_SERVER) == FROM_AGENT


# --- validation of DNS with docker's server ---------------------------------------------------


def validated(pod: Pod, ours: str, *arguments: str) -> tuple[int, dict[str, str], str]:
    """Return the exit code of validate, the worst result of queries by who asked, and the whole report."""
    done = pod.tool(*BACKENDS[ours][0], *arguments, "validate")
    found: dict[str, str] = {}
    for status, who in re.findall(r"(?m)^(\w+|NOT TRIED) +DNS, .{3} +IPv4 +(other|proxy)", done.out):
        found[who] = "FAIL" if "FAIL" in (status, found.get(who)) else status
    return done.code, found, done.out


@each_backend
@each_way
@pytest.mark.parametrize("theirs", ["legacy", "iptables-nft"])
def test_validate_sees_whether_dockers_dns_server_is_asked_first(
    theirs: str, ours: str, way: tuple[str, ...]
) -> None:
    """Also where all DNS is captured; and that the agent's queries go to docker is no loop."""
    bypassed = SAME[theirs] == ours
    with pod_with_dockers_dns() as pod:
        docker.redirect_dns(pod, theirs)
        arguments = ("--redirect-dns", *way, "--dns-single-zone")
        run(pod, ours, *arguments)
        assert ask(pod, docker.DNS_SERVER, tcp=True) == (FROM_DOCKER if bypassed else FROM_AGENT)
        assert ask(pod, docker.DNS_SERVER, AGENT) == FROM_DOCKER
        code, found, report = validated(pod, ours, *arguments)
        assert found == {"other": "FAIL" if bypassed else "PASS", "proxy": "PASS"}, report
        assert code == (126 if bypassed else 0)
        if bypassed:
            said = f"a rule of another program sends it to {docker.DNS_SERVER}:{docker.DNS_PORT}"
            assert report.count(said) == 2  # over UDP and TCP
        assert "endless loop" not in report


@each_way
def test_validate_as_the_proxy_takes_dockers_dns_server_for_no_loop(way: tuple[str, ...]) -> None:
    """Without NET_ADMIN the list of sockets tells at which address the connection arrived."""
    with pod_with_dockers_dns() as pod:
        docker.redirect_dns(pod, "iptables-nft")
        arguments = ("--redirect-dns", *way, "--dns-single-zone")
        run(pod, "native", *arguments)
        done = restricted(pod, *arguments, "--native-nftables", "--run-validation", "--skip-rule-apply")
        assert done.code == 0, done.out
        assert f"{docker.DNS_PORT} (UID " in done.out
        assert "FAIL" not in done.out
