"""Network namespaces for tests: a pod with its neighbours, and real connections to, from and in it.

A `Namespace` is a network namespace with a helper process inside. The helper makes calls and starts
listeners under any UID and GID; a listener answers every call with one line of JSON that says where the
call ended up, so the caller can read it. A `Pod` is a namespace wired to a `client`, who stands for
the rest of the world, and on request to a virtual machine (`vm`).

When a namespace is left, however that happens, its processes are ended, each by its number, and it goes away.

netns_helper.py is the helper.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from tests.support import netns_helper
from tests.support.arrivals import Arrival, Call, read_arrival, read_call

PREFIX = "iit-"
#: Part of the name of every namespace that this process makes, and of no other.
TOKEN = f"{PREFIX}{uuid.uuid4().hex[:8]}"
ROOT = Path(__file__).resolve().parents[2]

#: Longest time that a command may take before it counts as hanging, in seconds.
COMMAND_LIMIT = 60.0

_numbers = itertools.count()


def why_not() -> str:
    """Return why this process cannot make network namespaces, or nothing if it can."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "not root"
    if shutil.which("ip") is None:
        return "the command ip is not installed (package iproute2)"
    name = f"{TOKEN}-probe"
    try:
        # In a chroot whose root is no mount point, one can be made but not entered.
        for words in (("add", name), ("exec", name, "true")):
            done = subprocess.run(["ip", "netns", *words], capture_output=True, text=True, check=False)
            if done.returncode:
                return f"ip netns {words[0]}: {done.stderr.strip()}"
    finally:
        subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
    return ""


@functools.cache
def why_no_user_namespace() -> str:
    """Return why this process cannot make a user namespace, or nothing if it can.

    In a chroot the kernel refuses it (user_namespaces(7)), and sysctl(8) or a seccomp filter may.
    """
    command = ["unshare", "--user", "--map-root-user", "true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else ""


def left_behind() -> list[str]:
    """Return the namespaces of this process that still exist."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    return [line.split()[0] for line in listed.splitlines() if line.startswith(TOKEN)]


class Outcome(NamedTuple):
    """How a run of the tool ended."""

    code: int
    out: str
    err: str


class Listener:
    """A listening process, and what has arrived there."""

    def __init__(self, pid: int, log: Path) -> None:
        self.pid = pid
        self._log = log

    def arrivals(self) -> list[Arrival]:
        """Return all that has arrived so far, the oldest first."""
        return [read_arrival(json.loads(line)) for line in self._log.read_text().splitlines()]


# --- namespaces -----------------------------------------------------------------------------


class Namespace:
    """A network namespace of its own, with `lo` up; a context manager.

    `resolv_conf` is what programs inside find in /etc/resolv.conf instead of the machine's.
    """

    def __init__(self, label: str = "", *, resolv_conf: str | None = None) -> None:
        self.name = f"{TOKEN}-{next(_numbers)}{label}"
        self._resolv_conf = resolv_conf
        self._stack = contextlib.ExitStack()
        self._started: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._stack = stack
            self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=PREFIX)))
            if self._resolv_conf is not None:
                (self.directory / "resolv.conf").write_text(self._resolv_conf)
            stack.callback(self._delete)
            self._make()
            self._helper = self._start_helper()
            self.set_up()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _make(self) -> None:
        """Make the namespace itself, or give one that is there the name."""
        _command("ip", "netns", "add", self.name)

    def _delete(self) -> None:
        if os.path.exists(f"/run/netns/{self.name}"):
            _command("ip", "netns", "delete", self.name)

    def set_up(self) -> None:
        """Make what this kind of namespace consists of."""
        # Addresses work at once; who listens on port 53 or 80 may do so as an ordinary user.
        self.sysctl("net/ipv6/conf/default/accept_dad", 0)
        self.sysctl("net/ipv4/ip_unprivileged_port_start", 0)
        self.ip("link set lo up")

    # --- running programs ---

    def ip(self, *commands: str) -> None:
        """Run `ip` commands inside, given without the word `ip`."""
        _command("ip", "-netns", self.name, "-batch", "-", stdin="".join(f"{c}\n" for c in commands))

    def sysctl(self, name: str, value: object) -> None:
        """Set a variable of the namespace's network, named as the file below /proc/sys."""
        self._ask("sysctl", name=name, value=str(value))

    def run(
        self,
        args: Sequence[str],
        uid: int | None = None,
        gid: int | None = None,
        *,
        check: bool = True,
        stdin: str = "",
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program inside, to its end; with `check` it must succeed."""
        done = subprocess.run(
            [*self._inside(uid, gid), *args],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=COMMAND_LIMIT,
            env=env,
            check=False,
        )
        assert not check or done.returncode == 0, f"{' '.join(args)}: {done.stdout}{done.stderr}"
        return done

    def start(
        self,
        args: Sequence[str],
        uid: int | None = None,
        gid: int | None = None,
        *,
        open_files: Sequence[int] = (),
    ) -> subprocess.Popen[str]:
        """Start a program inside that runs until it is stopped, at the latest with the namespace.

        What it prints goes to the file `output` of the namespace's directory. It gets the file descriptors
        `open_files`, under the same numbers.
        """
        with open(self.directory / "output", "ab") as output:
            process = subprocess.Popen(
                [*self._inside(uid, gid), *args],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                text=True,
                pass_fds=open_files,
            )
        self._stack.callback(_stop, process)
        self._started.append(process)
        return process

    def stop(self, process: subprocess.Popen[str]) -> None:
        """Stop a program that was started, and wait until it has gone."""
        _stop(process)
        self._started = [other for other in self._started if other is not process]

    def output(self) -> str:
        """Return what the started programs have printed."""
        return (self.directory / "output").read_text()

    def _inside(self, uid: int | None, gid: int | None) -> list[str]:
        """Return the words that make a command run inside: programs that become the next, so one process."""
        words = ["ip", "netns", "exec", self.name]
        if self._resolv_conf is not None:  # `ip netns exec` has made mounts private
            script = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
            words += ["sh", "-c", script, str(self.directory / "resolv.conf")]
        if uid is not None or gid is not None:
            words += ["setpriv", f"--reuid={uid or 0}", f"--regid={gid or 0}", "--clear-groups", "--"]
        return words

    # --- the tool, and what it leaves ---

    def tool(self, *args: str, env: Mapping[str, str] | None = None) -> Outcome:
        """Run istio-iptables inside, as root, with `env` for its settings and no others of the machine's."""
        environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        environment |= {
            "PYTHONPATH": str(ROOT),
            "PYTHONPYCACHEPREFIX": _bytecode(),
            "XTABLES_LOCKFILE": str(self.directory / "xtables.lock"),
            **(env or {}),
        }
        done = self.run([sys.executable, "-m", "istio_iptables", *args], check=False, env=environment)
        return Outcome(done.returncode, done.stdout, done.stderr)

    def save(self, variant: str, family: str) -> str:
        """Return what iptables-save (or ip6tables-save) of a variant, legacy or nft, prints."""
        command = {"ipv4": "iptables", "ipv6": "ip6tables"}[family]
        return self.run([f"{command}-{variant}-save"]).stdout

    # --- calls and listeners ---

    def listen(
        self,
        name: str,
        *,
        tcp: Iterable[int] = (),
        udp: Iterable[int] = (),
        addresses: Sequence[str] = ("0.0.0.0", "::"),
        uid: int = 0,
        gid: int = 0,
        transparent: bool = False,
        echo: bool = False,
    ) -> Listener:
        """Start a listener on every port of every address. It says `name` to a caller.

        With `echo` a connection stays open after that and gives back what it gets.
        """
        log = self.directory / f"{name}-{next(_numbers)}.log"
        request = {"name": name, "tcp": sorted(tcp), "udp": sorted(udp), "addresses": addresses}
        who = {"uid": uid, "gid": gid, "transparent": transparent, "echo": echo}
        answer = self._ask("listen", **request, **who, log=str(log))
        assert "pid" in answer, f"{name} cannot listen on {request}: {answer}"
        return Listener(answer["pid"], log)

    def connect(self, address: str, port: int, **how: Any) -> Call:
        """Make a TCP connection and read who answers; `how`: see netns_helper.connect."""
        return read_call((address, port), self._ask("connect", address=address, port=port, **how))

    def query(self, address: str, port: int, **how: Any) -> Call:
        """Send a UDP datagram and read the answer from its destination; `how`: see netns_helper.query."""
        return read_call((address, port), self._ask("query", address=address, port=port, **how))

    def provoke(self, address: str, port: int, source: str, flags: Sequence[str]) -> str:
        """Send a TCP segment that belongs to no connection: return what comes back, `reset` or `silence`."""
        return str(self._ask("provoke", address=address, port=port, source=source, flags=flags)["answer"])

    def wait_for(self, *ports: int) -> None:
        """Wait until something listens on all of these TCP ports, or a program that was started is dead."""
        deadline = time.monotonic() + COMMAND_LIMIT
        while missing := set(ports) - set(self._ask("listening")["ports"]):
            dead = any(process.poll() is not None for process in self._started)
            if dead or time.monotonic() > deadline:
                raise AssertionError(f"no process listens on {missing}: {self.output()}")
            time.sleep(0.01)

    # --- the helper ---

    def _start_helper(self) -> subprocess.Popen[str]:
        command = ["ip", "netns", "exec", self.name, sys.executable, "-I", "-S", netns_helper.__file__]
        with open(self.directory / "helper", "ab") as errors:
            helper = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        self._stack.callback(self._stop_helper, helper)
        return helper

    @staticmethod
    def _stop_helper(helper: subprocess.Popen[str]) -> None:
        """Let the helper see the end of its orders: it ends then, and its listeners with it."""
        for stream in (helper.stdin, helper.stdout):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            helper.wait(5)
        _stop(helper)

    def _ask(self, what: str, **arguments: Any) -> dict[str, Any]:
        assert self._helper.stdin
        assert self._helper.stdout
        self._helper.stdin.write(json.dumps({"do": what, **arguments}) + "\n")
        self._helper.stdin.flush()
        line = self._helper.stdout.readline()
        assert line, f"the helper in {self.name} has died: {(self.directory / 'helper').read_text()}"
        answer: dict[str, Any] = json.loads(line)
        return answer


class Attached(Namespace):
    """A network namespace that somebody else has made and will remove, under a name of ours.

    `path` is where it is seen, such as below /proc/PID/root; it is not resolved, as links there mislead.
    """

    def __init__(self, path: str) -> None:
        super().__init__("a")
        self._path = path

    def _make(self) -> None:
        Path(f"/run/netns/{self.name}").touch()
        _command("mount", "--no-canonicalize", "--bind", self._path, f"/run/netns/{self.name}")

    def set_up(self) -> None:
        """Let who listens on port 80 do so as an ordinary user; the network stays as it is."""
        self.sysctl("net/ipv4/ip_unprivileged_port_start", 0)


class Link(NamedTuple):
    """A cable between the pod and a neighbour: interfaces and addresses at either end."""

    pod: str
    neighbour: str
    ipv4: tuple[str, str]
    ipv6: tuple[str, str]


#: The pod's way to the world.
UPLINK = Link("eth0", "pod", ("10.88.0.2", "10.88.0.1"), ("fd88::2", "fd88::1"))
#: A second one. Its name begins like that of the loopback interface, which it must not be taken for.
SIDE_LINK = Link("lo1", "pod-lo1", ("10.89.0.2", "10.89.0.1"), ("fd89::2", "fd89::1"))
#: Those of a virtual machine in the pod.
VM_LINKS = (
    Link("vm0", "eth0", ("192.168.50.1", "192.168.50.2"), ("fd50::1", "fd50::2")),
    Link("vm1", "eth1", ("192.168.51.1", "192.168.51.2"), ("fd51::1", "fd51::2")),
)
#: Everything that the client answers for. What is beyond the side link is the second half.
WORLD = ("198.18.0.0/15", "2001:db8::/32")
DEFAULT = ("0.0.0.0/0", "::/0")
BEYOND_SIDE_LINK = ("198.19.0.0/16", "2001:db8:19::/48")


class Pod(Namespace):
    """A pod: `eth0` and `lo1` lead to the `client`, and with `vm` two interfaces to a virtual machine.

    The client answers for every address in WORLD. Of a family that is not wanted there are no addresses;
    `uplink` gives eth0 others than those above.
    """

    def __init__(
        self,
        *,
        ipv4: bool = True,
        ipv6: bool = True,
        vm: bool = False,
        uplink: Link = UPLINK,
        resolv_conf: str | None = None,
    ) -> None:
        super().__init__("p", resolv_conf=resolv_conf)
        self.ipv4, self.ipv6 = ipv4, ipv6
        self._uplink = uplink
        self._with_vm = vm

    def set_up(self) -> None:
        """Make the neighbours and the cables to them."""
        super().set_up()
        self.client = self._stack.enter_context(Namespace("c"))
        self.vm = self._stack.enter_context(Namespace("v")) if self._with_vm else None
        for namespace in (self, self.client):
            for name in ("all", "default"):  # the answer may take the other cable
                namespace.sysctl(f"net/ipv4/conf/{name}/rp_filter", 0)
        # IPv6 neighbour discovery stalls if both ends of a cable have the same index, so they are given.
        self._wire(self._uplink, self.client, 11)
        self._wire(SIDE_LINK, self.client, 12)
        self._route(self, DEFAULT, self._uplink, 1)
        self._route(self, BEYOND_SIDE_LINK, SIDE_LINK, 1)
        self.client.ip(*(f"route add local {network} dev lo" for network in self._families(WORLD)))
        if self.vm:
            self._wire_vm(self.vm)

    def _wire_vm(self, vm: Namespace) -> None:
        self.sysctl("net/ipv4/ip_forward", 1)
        self.sysctl("net/ipv6/conf/all/forwarding", 1)
        for index, link in enumerate(VM_LINKS, 13):
            self._wire(link, vm, index)
            networks = (f"{link.ipv4[1]}/32", f"{link.ipv6[1]}/128")
            self._route(self.client, networks, self._uplink, 0)
        self._route(vm, DEFAULT, VM_LINKS[0], 0)
        self._route(vm, BEYOND_SIDE_LINK, VM_LINKS[1], 0)

    def _wire(self, link: Link, neighbour: Namespace, index: int) -> None:
        near, far = f"{link.pod} index {index}", f"{link.neighbour} index {index + 100}"
        _command(
            *f"ip link add {near} netns {self.name} type veth peer name {far} netns {neighbour.name}".split()
        )
        for end, (namespace, name) in enumerate(((self, link.pod), (neighbour, link.neighbour))):
            addresses = self._families((f"{link.ipv4[end]}/24", f"{link.ipv6[end]}/64 nodad"))
            namespace.ip(*(f"address add {words} dev {name}" for words in addresses), f"link set {name} up")

    def _route(self, namespace: Namespace, networks: tuple[str, str], link: Link, end: int) -> None:
        """Route networks over a link: to the neighbour (end 1) or to the pod (end 0)."""
        gateways = self._families((link.ipv4[end], link.ipv6[end]))
        destinations = self._families(networks)
        namespace.ip(
            *(f"route add {to} via {gateway}" for to, gateway in zip(destinations, gateways, strict=True))
        )

    def _families(self, values: tuple[str, str]) -> list[str]:
        """Return those of the values, one for IPv4 and one for IPv6, whose family this pod has."""
        return [value for value, wanted in zip(values, (self.ipv4, self.ipv6), strict=True) if wanted]


def _command(*words: str, stdin: str = "") -> None:
    done = subprocess.run(
        words, input=stdin, capture_output=True, text=True, timeout=COMMAND_LIMIT, check=False
    )
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}{stdin}"


def _stop(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@functools.cache
def _bytecode() -> str:
    """Return a folder for the tool's bytecode: only the first run compiles, nothing is left in the source."""
    return tempfile.mkdtemp(prefix=PREFIX)


def clean_up() -> None:
    """Remove what all the namespaces of this process have shared."""
    if _bytecode.cache_info().currsize:
        shutil.rmtree(_bytecode(), ignore_errors=True)
        _bytecode.cache_clear()
