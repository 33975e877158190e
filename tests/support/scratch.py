"""Scratch: a network namespace of one test's own, and what the engine's tests do in it.

A `Scratch` is gone when its `with` block ends, however it ends: its processes are ended by their
process IDs, the namespace (`iie-…`) and its directory are removed. The tool runs in it as a process of
its own (`tool`), or the library is used in this process while it is inside (`inside`).

The seccomp filters at the end make the kernel refuse one system call to one process, and so show what
a process does not do, or what it does when the kernel says no, without a tracer.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pytest

import istio_iptables

Family = Literal["ipv4", "ipv6"]
Variant = Literal["legacy", "nft"]
Result = subprocess.CompletedProcess[str]

#: The folder that the package under test is imported from, by the tool's processes too.
PACKAGE_FOLDER = Path(istio_iptables.__file__).parents[1]
COMMANDS: Mapping[str, str] = {"ipv4": "iptables", "ipv6": "ip6tables"}
FAMILIES: tuple[Family, ...] = ("ipv4", "ipv6")
VARIANTS: tuple[Variant, ...] = ("legacy", "nft")
#: The usable addresses of a Scratch made with `addresses`.
IPV4_ADDRESS, IPV6_ADDRESS = "10.99.0.1", "fd99::1"
TIMEOUT = 60.0

_TOOLS = ("ip", "iptables-legacy", "iptables-nft", "nft", "nsenter", "setpriv", "unshare")
#: For `pytestmark`.
KERNEL = [
    pytest.mark.kernel,
    pytest.mark.skipif(
        os.geteuid() != 0 or any(shutil.which(tool) is None for tool in _TOOLS),
        reason=f"needs root and {', '.join(_TOOLS)}",
    ),
]

#: By their paths, so that they can be used where PATH is empty.
_NSENTER, SETPRIV = shutil.which("nsenter") or "", shutil.which("setpriv") or ""
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Scratch:
    """A network namespace with lo up; with `addresses` it has one of either family that counts as usable.

    They are lo's too: on other interfaces IPv6 speaks by itself, which would show in counters.
    """

    def __init__(self, *, addresses: bool = False) -> None:
        self.name = f"iie-{os.getpid()}-{uuid.uuid4().hex[:10]}"
        self.path = f"/run/netns/{self.name}"
        self._addresses = addresses
        self._children: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Scratch:
        self.directory = Path(tempfile.mkdtemp(prefix=f"{self.name}-"))
        self.lock = self.directory / "xtables.lock"
        try:
            _check("ip", "netns", "add", self.name)
            self.ip("link", "set", "lo", "up")
            if self._addresses:
                self.give("lo", f"{IPV4_ADDRESS}/32", f"{IPV6_ADDRESS}/128")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._children:
            end(child)
        if os.path.exists(self.path):
            _check("ip", "netns", "del", self.name)
        shutil.rmtree(self.directory, ignore_errors=True)

    def give(self, interface: str, *addresses: str) -> None:
        """Give an interface addresses and set it up."""
        for address in addresses:
            self.ip("address", "add", address, "dev", interface, *(["nodad"] if ":" in address else []))
        self.ip("link", "set", interface, "up")

    # --- commands ---------------------------------------------------------------------------

    def run(
        self,
        *command: str | os.PathLike[str],
        stdin: str = "",
        env: Mapping[str, str] | None = None,
        preexec_fn: Callable[[], object] | None = None,
    ) -> Result:
        """Run a command inside and return how it ended."""
        return subprocess.run(
            [_NSENTER, f"--net={self.path}", *command],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
            env=self._environment(env),
            preexec_fn=preexec_fn,
        )

    def check(self, *command: str | os.PathLike[str], stdin: str = "") -> str:
        """Run a command inside, which has to succeed, and return its output."""
        done = self.run(*command, stdin=stdin)
        assert done.returncode == 0, f"{command}: {done.stderr}\n{stdin}"
        return done.stdout

    def spawn(self, *command: str | os.PathLike[str], **more: Any) -> subprocess.Popen[str]:
        """Start a command inside; it is ended when the namespace goes, if not before."""
        child = subprocess.Popen(
            [_NSENTER, f"--net={self.path}", *command],
            text=True,
            env=self._environment(more.pop("env", None)),
            **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more},
        )
        self._children.append(child)
        return child

    def _environment(self, more: Mapping[str, str] | None) -> dict[str, str]:
        """Return an environment in which no variable is a setting, but for those of the caller."""
        system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return {
            "PATH": system,
            "PYTHONPATH": str(PACKAGE_FOLDER),
            "PYTHONDONTWRITEBYTECODE": "1",
            "XTABLES_LOCKFILE": str(self.lock),
            **(more or {}),
        }

    def tool(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        preexec_fn: Callable[[], object] | None = None,
    ) -> Result:
        """Run istio-iptables inside; it never shows a traceback."""
        command = [*prefix, sys.executable, "-m", "istio_iptables", *arguments]
        done = self.run(*command, env=env, preexec_fn=preexec_fn)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def apply(self, *arguments: str, env: Mapping[str, str] | None = None) -> Result:
        """Run istio-iptables inside; it has to succeed."""
        done = self.tool(*arguments, env=env)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def python(self, code: str, *arguments: str, **more: Any) -> Result:
        """Run a piece of Python inside, with the package on its path."""
        return self.run(sys.executable, "-c", code, *arguments, **more)

    def ip(self, *arguments: str) -> str:
        """Run ip(8) in the namespace and return its output."""
        return _check("ip", "-n", self.name, *arguments)

    def nft(self, *arguments: str, script: str | None = None) -> str:
        """Run nft(8), with a script if one is given, and return its output."""
        if script is not None:
            return self.check("nft", "-f", "-", stdin=script)
        return self.check("nft", *arguments)

    def restore(self, variant: Variant, family: Family, script: str, *options: str) -> None:
        """Load a script with iptables-restore --noflush."""
        self.check(f"{COMMANDS[family]}-{variant}-restore", "--noflush", *options, stdin=script)

    def save(self, variant: Variant, family: Family, counters: bool = False) -> str:
        """Return what iptables-save prints, tables by name, without comment lines, which hold the time."""
        option = ["-c"] if counters else []
        text = self.check(f"{COMMANDS[family]}-{variant}-save", *option)
        lines = "".join(f"{line}\n" for line in text.splitlines() if not line.startswith("#"))
        # The order of tables is that in which they were made.
        return "".join(sorted(re.split(r"^(?=\*)", lines, flags=re.MULTILINE)))

    def state(self, counters: bool = False) -> dict[str, str]:
        """Return everything that the tool could touch: rules of all kinds, addresses, rules and routes.

        What iptables-nft made is in there as iptables-save prints it, everything of nft as nft prints it.
        """
        found = {
            f"{family} {variant}": self.save(variant, family, counters)
            for family in FAMILIES
            for variant in VARIANTS
        }
        nft = self.nft("list", "ruleset")
        found["nft"] = nft if counters else re.sub(r"counter packets \d+ bytes \d+", "counter", nft)
        return {**found, **self.network()}

    def network(self) -> dict[str, str]:
        """Return addresses, policy rules and routes."""
        found = {}
        for option in ("-4", "-6"):
            found[f"addresses {option}"] = self.ip(option, "-o", "address", "show", "dev", "lo")
            found[f"rules {option}"] = self.ip(option, "rule", "show")
            routes = self.ip(option, "route", "show", "table", "all")
            # What the kernel itself keeps in the table `local` follows from the addresses.
            found[f"routes {option}"] = "".join(
                f"{line}\n" for line in routes.splitlines() if "table local" not in line
            )
        return found

    def legacy_tables(self) -> set[str]:
        """Return the legacy tables that exist, as family/table."""
        found = set()
        for family, file in (("ipv4", "ip_tables_names"), ("ipv6", "ip6_tables_names")):
            names = self.check("cat", f"/proc/self/net/{file}").split()
            found |= {f"{family}/{name}" for name in names}
        return found

    # --- in this process --------------------------------------------------------------------

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Be in the namespace, with its lock file, in this thread; processes started meanwhile are too."""
        before = os.environ.get("XTABLES_LOCKFILE")
        # /proc/self/net is that of the main thread.
        assert threading.current_thread() is threading.main_thread()
        os.environ["XTABLES_LOCKFILE"] = str(self.lock)
        try:
            with entered(self.path):
                yield
        finally:
            if before is None:
                del os.environ["XTABLES_LOCKFILE"]
            else:
                os.environ["XTABLES_LOCKFILE"] = before

    def generation(self) -> int:
        """Return the number of nftables transactions that this namespace has seen (NFT_MSG_GETGEN)."""
        with self.inside(), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as connection:
            request = struct.pack("=IHHII", 20, 10 << 8 | 16, 1, 1, 0) + bytes(4)
            connection.sendto(request, (0, 0))
            answer = connection.recv(4096)
        # nlmsghdr, nfgenmsg, then the attribute NFTA_GEN_ID
        (number,) = struct.unpack_from(">I", answer, 16 + 4 + 4)
        return int(number)


def _check(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def end(child: subprocess.Popen[str]) -> None:
    """End a process that was started here, and wait until it has gone."""
    if child.poll() is None:
        child.kill()
    child.wait(TIMEOUT)
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


@contextlib.contextmanager
def entered(path: str) -> Iterator[None]:
    """Be in another network namespace, in this thread."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _setns(path)
        try:
            yield
        finally:
            assert _libc.setns(home, _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    finally:
        os.close(home)


def _setns(path: str) -> None:
    there = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        assert _libc.setns(there, _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    finally:
        os.close(there)


class Fork:
    """A forked process that runs a function: for what is to run beside the test, or be killed.

    It leaves with the number that the function returns, 99 after an exception (which it prints).
    """

    def __init__(self, function: Callable[[], int | None]) -> None:
        self.status: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            status = 99
            try:
                status = function() or 0
            except BaseException:
                import traceback

                os.write(2, traceback.format_exc().encode())
            finally:
                os._exit(status)

    def __enter__(self) -> Fork:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def wait(self, seconds: float = TIMEOUT) -> int:
        """Wait for the end: the exit status, or minus the signal's number."""
        deadline = time.monotonic() + seconds
        while self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
            else:
                assert time.monotonic() < deadline, f"process {self.pid} does not end"
                time.sleep(0.001)
        return self.status

    def kill(self) -> int:
        """Kill it if it still runs."""
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
        return self.wait()


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until something holds; fail if it does not in good time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


# --- rules as lines -------------------------------------------------------------------------


def is_owned(line: str) -> bool:
    """Tell whether a line of iptables-save is owned: an owned chain, or a rule of it, or to it."""
    line = re.sub(r"^\[\d+:\d+\] ", "", line)
    if line.startswith(":"):
        return line[1:].split()[0] in CHAINS
    if not line.startswith("-A "):
        return False
    chain, words = line.split()[1], line.split()
    if chain in CHAINS:
        return True
    jumps = any(a in ("-j", "-g") and b in CHAINS for a, b in pairwise(words))
    return chain in BUILTIN_CHAINS and (jumps or "--comment istio-iptables -j" in line)


#: SPEC section 3.
CHAINS = {
    f"ISTIO_{name}"
    for name in ("INBOUND", "REDIRECT", "IN_REDIRECT", "OUTPUT", "OUTPUT_DNS", "TPROXY", "DIVERT", "DROP")
}
BUILTIN_CHAINS = {"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}


def foreign_lines(saved: str) -> list[str]:
    """Return the lines of iptables-save that are foreign."""
    return [line for line in saved.splitlines() if not is_owned(line)]


def owned(saved: str) -> list[str]:
    """Return the lines of iptables-save that are this tool's."""
    return [line for line in saved.splitlines() if is_owned(line)]


# --- seccomp: a process to which the kernel refuses one thing --------------------------------

_REPLACE = 64  # IPT_SO_SET_REPLACE, IP6T_SO_SET_REPLACE
ADD_COUNTERS = 65  # IPT_SO_SET_ADD_COUNTERS, IP6T_SO_SET_ADD_COUNTERS
_LEVELS = {"ipv4": 0, "ipv6": 41}  # SOL_IP, SOL_IPV6
_SETSOCKOPT = {"x86_64": 54, "aarch64": 208}.get(platform.machine(), -1)
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000

needs_seccomp = pytest.mark.skipif(_SETSOCKOPT < 0, reason="knows the system calls of x86-64 and arm64 only")


def refuse_replacing(*families: Family, error: int = 0, option: int = _REPLACE) -> None:
    """Have the kernel refuse to replace legacy tables of these families to this process and its children.

    Or it refuses another option of their sockets, such as ADD_COUNTERS.

    They get `error`; without one the process is killed in the moment in which it tries.
    """
    verdict = _ERRNO | error if error else _KILL_PROCESS

    def equal(offset: int, value: int, otherwise: int) -> list[tuple[int, int, int, int]]:
        return [(0x20, 0, 0, offset), (0x15, 0, otherwise, value)]  # load; jump unless equal

    program: list[tuple[int, int, int, int]] = []
    # struct seccomp_data: number, architecture, instruction pointer, then six arguments of 64 bits
    for family in families:
        program += [
            *equal(0, _SETSOCKOPT, 5),
            *equal(16 + 8, _LEVELS[family], 3),
            *equal(16 + 16, option, 1),
            (0x06, 0, 0, verdict),
        ]
    program.append((0x06, 0, 0, _ALLOW))
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code)
    sock_fprog = struct.pack("=HxxxxxxQ", len(program), ctypes.addressof(buffer))
    if _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, sock_fprog, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_SECCOMP)")
