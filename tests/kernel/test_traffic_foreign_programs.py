"""Traffic of foreign programs: ncat, curl, Python's web server, dnsmasq and glibc's resolver.

test_traffic.py says where every kind of connection goes; its callers and listeners are written for it. Here
are some of the same connections between programs that know nothing of this project. The proxy's listeners are
ncat, the application and the world are web servers; each answers with its name.
"""

from __future__ import annotations

import hashlib
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.arrivals import Endpoint
from tests.support.dnsmasq import dns_server, queries
from tests.support.netns import Namespace, Pod
from tests.support.scenarios import ADDRESSES, BACKENDS, OWNERS, SENT_THROUGH, Scenario, apply, resolve

pytestmark = [
    pytest.mark.skipif(
        shutil.which(program) is None, reason=f"{program} is not installed (package {package})"
    )
    for program, package in (("ncat", "ncat"), ("curl", "curl"), ("dnsmasq", "dnsmasq-base"))
]

each_backend = pytest.mark.parametrize("backend", [name for name in SENT_THROUGH if name != "compact"])

# --- web and plain TCP ----------------------------------------------------------------------

REQUEST = "GET /who HTTP/1.0\r\n\r\n"
ANSWER = r"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n%s\n"


def ncat_server(namespace: Namespace, port: int, name: str, uid: int, gid: int) -> None:
    """Let ncat answer a request, once it has read it, with a name and the caller's address."""
    script = f'read request; printf "{ANSWER}" "{name}, called by $NCAT_REMOTE_ADDR"'
    namespace.start(["ncat", "--listen", "--keep-open", str(port), "--sh-exec", script], uid, gid)


def web_server(namespace: Namespace, port: int, name: str, data: bytes = b"") -> None:
    """Let Python's web server serve the file `who` with a name, and the file `data`."""
    folder = namespace.directory / f"{name}-{port}"
    folder.mkdir()
    (folder / "who").write_text(name + "\n")
    (folder / "data").write_bytes(data)
    command = [sys.executable, "-I", "-m", "http.server", str(port), "--bind", "::"]
    namespace.start([*command, "--directory", str(folder)])


def ask(namespace: Namespace, program: str, uid: int, gid: int, to: Endpoint, source: str = "") -> str:
    """Let a program ask who is there; return the last line of what it prints, a name or what went wrong."""
    address, port = to
    if program == "curl":
        host = f"[{address}]" if ":" in address else address
        command = ["curl", "--silent", "--show-error", "--max-time", "10", "--noproxy", "*"]
        command += [*(["--interface", source] if source else []), f"http://{host}:{port}/who"]
    else:
        # Its end of the connection stays open, or the other ncat may stop before it has answered.
        command = [
            "ncat",
            "--no-shutdown",
            "-w",
            "10",
            *(["--source", source] if source else []),
            address,
            str(port),
        ]
    done = namespace.run(command, uid, gid, check=False, stdin="" if program == "curl" else REQUEST)
    lines = (done.stdout + done.stderr).splitlines()
    return lines[-1] if lines else f"nothing, exit code {done.returncode}"


SETTINGS = "-b * -d 15090 -i * -x 198.18.1.0/24,2001:db8:1::/48 -o 3306 -c lo1 --drop-invalid"

# Who calls, from where if bound, what is dialled; who answers without rules; who answers with them.
WEB = """
client              pod:8080        app         inbound
client              pod:15090       app         app
client              pod-lo1:8080    app         app
app                 world:80        world       outbound
app                 blue:80         world       world
app                 world:3306      world       world
app                 side:80         world       world
app                 pod:8080        app         app
app                 self:8080       app         app
proxy               world:80        world       world
proxy               pod:8080        app         inbound
proxy               self:8080       app         app
proxy passthrough   pod:8080        app         app
1337:1000           world:80        world       world
1000:1337           world:80        world       world
"""


@contextmanager
def populated_pod() -> Iterator[Pod]:
    with Pod() as pod:
        pod.ip("address add ::6/128 dev lo nodad")  # for the rows without rules; the tool may find it there
        for port in (8080, 15090):
            web_server(pod, port, "app")
        for port in (80, 3306):
            web_server(pod.client, port, "world")
        ncat_server(pod, 15001, "outbound", 1337, 1337)
        ncat_server(pod, 15006, "inbound", 1337, 1337)
        pod.wait_for(8080, 15090, 15001, 15006)
        pod.client.wait_for(80, 3306)
        yield pod


def answers(pod: Pod, program: str, with_rules: bool) -> list[str]:
    """Make all the calls of the table and return those that another program than expected has answered."""
    wrong = []
    for line in WEB.strip().splitlines():
        *who, dialled, before, after = line.split()
        caller: Namespace = pod.client if who[0] == "client" else pod
        uid, gid = map(int, OWNERS.get(who[0], who[0]).split(":"))
        name, _, port = dialled.partition(":")
        for version in (4, 6):
            source = resolve(who[1], version) if who[1:] else ""
            answered = ask(caller, program, uid, gid, (resolve(name, version), int(port)), source)
            own_address = ADDRESSES["client" if who[0] == "client" else "pod"][version == 6]
            wanted = after if with_rules else before
            if wanted in ("inbound", "outbound"):
                wanted += f", called by {own_address}"
            if answered != wanted:
                wrong.append(f"{program}, IPv{version}: {line}: {answered}")
    return wrong


@pytest.mark.parametrize("program", ["ncat", "curl"])
def test_without_rules_everybody_reaches_whom_he_calls(program: str) -> None:
    with populated_pod() as pod:
        assert answers(pod, program, with_rules=False) == []


@each_backend
@pytest.mark.parametrize("program", ["ncat", "curl"])
def test_with_rules_the_proxy_answers_what_is_captured(program: str, backend: str) -> None:
    with populated_pod() as pod:
        apply(pod, Scenario("", shlex.split(SETTINGS)), backend)
        assert answers(pod, program, with_rules=True) == []


@each_backend
@pytest.mark.parametrize("program", ["ncat", "curl"])
def test_in_tproxy_mode_the_caller_and_the_dialled_address_are_seen(program: str, backend: str) -> None:
    """ncat cannot listen for other addresses than its own, so the test listens; the callers are foreign."""
    scenario = Scenario("", shlex.split("-m TPROXY -d 15090"))
    with Pod() as pod:
        proxy = pod.listen("inbound", tcp=[15006], uid=0, gid=1337, transparent=True)
        web_server(pod, 15090, "app")
        pod.wait_for(15090)
        apply(pod, scenario, backend)
        for version in (4, 6):
            pod_address, client_address = resolve("pod", version), resolve("client", version)
            assert ask(pod.client, program, 0, 0, (pod_address, 15090)) == "app"
            before = len(proxy.arrivals())
            ask(pod.client, program, 0, 0, (pod_address, 8080))  # its answer is no HTTP
            ask(pod, program, 0, 1337, (pod_address, 8080))
            from_outside, from_itself = proxy.arrivals()[before:]
            assert (from_outside.local, from_outside.peer[0]) == ((pod_address, 8080), client_address)
            assert (from_itself.local, from_itself.peer[0]) == ((pod_address, 8080), pod_address)
            assert from_outside.original == from_itself.original == (pod_address, 8080)


@each_backend
@pytest.mark.parametrize("version", [4, 6])
def test_long_transfers_get_through_whole(version: int, backend: str, tmp_path: Path) -> None:
    """Connections stay where their first packet went, with and without --drop-invalid in their way."""
    data = b"".join(hashlib.sha256(bytes([i, j])).digest() for i in range(256) for j in range(256)) * 4
    address = resolve("pod", version)
    host = f"[{address}]" if version == 6 else address
    with Pod() as pod:
        web_server(pod, 15006, "inbound", data)
        web_server(pod, 15090, "app", data[::-1])
        pod.wait_for(15006, 15090)
        apply(pod, Scenario("", shlex.split("-d 15090 --drop-invalid")), backend)
        for caller, port, uid, expected in (
            (pod.client, 8080, 0, data),
            (pod.client, 15090, 0, data[::-1]),
            (pod, 8080, 1337, data),
            (pod, 15090, 1000, data[::-1]),
        ):
            got = caller.directory / f"got-{port}"
            got.touch()
            got.chmod(0o666)
            caller.directory.chmod(0o755)
            command = ["curl", "--silent", "--show-error", "--max-time", "30", "--noproxy", "*"]
            caller.run([*command, "--output", str(got), f"http://{host}:{port}/data"], uid, uid)
            assert hashlib.sha256(got.read_bytes()).digest() == hashlib.sha256(expected).digest()


# --- DNS ------------------------------------------------------------------------------------

FROM_AGENT = {4: "192.0.2.77", 6: "2001:db8:77::77"}
FROM_UPSTREAM = {4: "203.0.113.7", 6: "2001:db8:113::7"}


@contextmanager
def pod_with_dns(version: int, uid: int, gid: int) -> Iterator[Pod]:
    """A pod with an agent that knows the name agent.test, and beyond it a server that knows upstream.test."""
    server = resolve("dns", version)
    resolv_conf = f"nameserver {server}\noptions timeout:3 attempts:1\n"
    with Pod(resolv_conf=resolv_conf) as pod:
        pod.client.ip(f"address add {server} dev lo{' nodad' * (version == 6)}")
        known = [f"--address=/upstream.test/{address}" for address in FROM_UPSTREAM.values()]
        dns_server(pod.client, 65534, 65534, "--port=53", f"--listen-address={server}", *known)
        known = [f"--address=/agent.test/{address}" for address in FROM_AGENT.values()]
        listen = ["--port=15053", "--listen-address=127.0.0.1", "--listen-address=::1"]
        dns_server(pod, uid, gid, *listen, f"--server={server}", *known)
        pod.client.wait_for(53)
        pod.wait_for(15053)
        yield pod


def look_up(pod: Pod, name: str, uid: int, gid: int, transport: str) -> dict[int, str]:
    """Let glibc resolve a name and return its addresses by version."""
    options = {"RES_OPTIONS": "use-vc"} if transport == "tcp" else {}
    found = {}
    for version in (4, 6):
        done = pod.run(
            ["getent", "--service=dns", f"ahostsv{version}", name],
            uid,
            gid,
            check=False,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **options},
        )
        if done.stdout:
            found[version] = done.stdout.split()[0]
    return found


each_transport = pytest.mark.parametrize("transport", ["udp", "tcp"])
each_version = pytest.mark.parametrize("version", [4, 6])


@each_version
@each_transport
def test_without_rules_the_upstream_server_answers(transport: str, version: int) -> None:
    with pod_with_dns(version, 1337, 1337) as pod:
        assert look_up(pod, "upstream.test", 1000, 1000, transport) == FROM_UPSTREAM
        assert look_up(pod, "agent.test", 1000, 1000, transport) == {}
        assert queries(pod, "agent.test") == set()


@each_backend
@each_version
@each_transport
@pytest.mark.parametrize(
    ("settings", "uid", "gid"),
    [
        ("--redirect-dns", 1337, 1337),
        ("--redirect-dns --capture-all-dns", 1337, 1337),
        ("--redirect-dns -u 1337 -g 1338", 1337, 1000),
        ("--redirect-dns --capture-all-dns -u 1337 -g 1338", 1000, 1338),
    ],
    ids=["servers", "all", "servers, agent known by its user", "all, agent known by its group"],
)
def test_the_agent_answers_and_asks_upstream_itself(
    settings: str, uid: int, gid: int, transport: str, version: int, backend: str
) -> None:
    with pod_with_dns(version, uid, gid) as pod:
        apply(pod, Scenario("", settings.split()), backend)
        assert look_up(pod, "agent.test", 1000, 1000, transport) == FROM_AGENT
        assert queries(pod.client, "agent.test") == set()
        # What the agent does not know it asks the server: not itself, though the server is captured.
        assert look_up(pod, "upstream.test", 1000, 1000, transport) == FROM_UPSTREAM
        assert queries(pod.client, "upstream.test") == {resolve("pod", version)}
        # And who runs as the agent asks the server, too.
        assert look_up(pod, "agent.test", uid, gid, transport) == {}
        assert queries(pod.client, "agent.test") == {resolve("pod", version)}


@each_backend
@each_transport
def test_a_server_that_is_not_in_resolv_conf_is_asked_itself(transport: str, backend: str) -> None:
    """Only IPv4 is on here, and the server that the program asks is an IPv6 one."""
    with pod_with_dns(6, 1337, 1337) as pod:
        done = pod.tool("--redirect-dns", *BACKENDS[backend][0])
        assert done.code == 0, done.err
        assert look_up(pod, "agent.test", 1000, 1000, transport) == {}
        assert look_up(pod, "upstream.test", 1000, 1000, transport) == FROM_UPSTREAM
        assert queries(pod.client, "agent.test") == {resolve("pod", 6)}
