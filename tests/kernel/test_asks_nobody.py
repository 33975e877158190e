"""After the settings were read, no process asks NSS or DNS for anything, as strace sees it (SPEC section 2).

NSS is what the C library asks for names of users, groups, hosts, services and protocols: files in /etc, and
daemons (nscd, systemd). Who asks: iptables-restore (libxt_owner), about each owner that it is to write, in
every spelling; so these are a strict xfail. No program asks when it lists or removes rules (nft would with
--guid, which is never given). libiptc never does, nor do native rules, which the tool itself sends to the
kernel: `nft -f` would ask, in JSON too.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence

import pytest

from ..support.scratch import KERNEL, Scratch
from ..support.seeing import pod
from ..support.snapshots import LOCATIONS, NATIVE

pytestmark = [*KERNEL, pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")]

NSS = re.compile(
    r'open(at)?\(.*"/etc/(passwd|group|nsswitch\.conf|hosts|host\.conf|services|protocols|networks|gai\.conf|resolv\.conf)"'
    r'|connect\(.*"/(var/)?run/(nscd|systemd|dbus)|connect\(.*sin6?_port=htons\(53\)'
    r"|open(at)?\(.*/libnss_"
)
#: How the tool itself opens the list of DNS servers, which is a setting: below a folder that is open already.
OWN_RESOLV = re.compile(r'open(at)?\(.*"resolv\.conf"')

WRITERS = {"libiptc": [], "legacy": LOCATIONS["legacy"], "nft": LOCATIONS["nft"], "native": NATIVE}
NUMBERS = ["--dual-stack", "-u", "1337", "-g", "1337"]
#: What meets rules of each backend.
AT_RULES: Mapping[str, Sequence[str]] = {
    "second run": (),
    "diff": ("diff",),
    "cleanup": ("cleanup",),
    "status": ("status",),
    "doctor": ("doctor",),
    "validate": ("validate",),
    "render --live": ("render", "--live", "--format=mermaid"),
    "trace --live": ("trace", "out", "--to=10.1.2.3:80", "--uid=1000", "--live"),
    "prove --live": ("prove", "--live"),
    "report --live": ("report", "--html=-", "--live"),
}
#: What meets no rules: the backend does not matter.
ALONE: Mapping[str, Sequence[str]] = {
    "dry run": ("--dry-run",),
    "render": ("render", "--explain"),
    "trace": ("trace", "out", "--to=10.1.2.3:80", "--uid=1000"),
    "prove": ("prove",),
    "report": ("report", "--html=-"),
    "pod init-container": ("pod", "init-container"),
}
_ASKS = "libxt_owner looks up each owner that it writes as a name first (getpwnam), in every spelling"
needs_a_lookup = pytest.mark.xfail(strict=True, reason=_ASKS)
BY_PROGRAMS = [pytest.param(name, marks=needs_a_lookup) for name in ("legacy", "nft")]


@pytest.fixture
def scratch() -> Iterator[Scratch]:
    with pod() as made:
        yield made


def traced(scratch: Scratch, *arguments: str) -> list[str]:
    """Return the system calls of a run and its children, in their order."""
    file = scratch.directory / "trace"
    calls = "trace=openat,open,connect,socket,execve"
    prefix = ["strace", "-f", "--seccomp-bpf", "-o", str(file), "-e", calls]
    done = scratch.tool(*arguments, prefix=prefix, env={"HOME": "/root"})
    assert done.returncode == 0, done.stderr
    lines = file.read_text().splitlines()
    assert any("execve(" in line for line in lines)
    return lines


def asks(lines: Sequence[str]) -> list[str]:
    return [line for line in lines if NSS.search(line)]


def asks_of_programs(lines: Sequence[str]) -> list[str]:
    """Return those of the programs that the tool started; not of a copy of itself, as doctor makes."""
    programs = {line.split()[0] for line in lines[1:] if "execve(" in line}
    return [line for line in asks(lines) if line.split()[0] in programs]


@pytest.mark.parametrize("writer", ["libiptc", "native", *BY_PROGRAMS])
@pytest.mark.parametrize("before", [None, "1338"], ids=["apply", "reconcile"])
def test_who_writes_rules_asks_nobody(scratch: Scratch, writer: str, before: str | None) -> None:
    if before:
        scratch.apply(*WRITERS[writer], *NUMBERS, "-u", before)
    lines = traced(scratch, *WRITERS[writer], *NUMBERS, "--reconcile")
    assert asks_of_programs(lines) == []


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("command", AT_RULES)
def test_who_reads_and_removes_rules_asks_nobody(scratch: Scratch, writer: str, command: str) -> None:
    scratch.apply(*WRITERS[writer], *NUMBERS)
    lines = traced(scratch, *WRITERS[writer], *NUMBERS, *AT_RULES[command])
    assert asks_of_programs(lines) == []
    assert asks(lines) == []


@pytest.mark.parametrize("command", ALONE)
def test_who_meets_no_rules_asks_nobody(scratch: Scratch, command: str) -> None:
    assert asks(traced(scratch, *NUMBERS, *ALONE[command])) == []


def test_names_are_looked_up_once_before_anything_else(scratch: Scratch) -> None:
    """With names: from the first socket of iptables on, no process asks."""
    lines = traced(scratch, "--dual-stack")
    first = next(number for number, line in enumerate(lines) if "SOCK_RAW" in line and "AF_INET" in line)
    assert asks(lines[first:]) == []


def test_dns_capture_reads_the_list_of_servers_and_asks_none(scratch: Scratch) -> None:
    lines = traced(scratch, *NUMBERS, "--redirect-dns")
    assert any(OWN_RESOLV.search(line) for line in lines)
    assert asks(lines) == []
