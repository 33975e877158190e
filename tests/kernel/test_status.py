"""`status` against the kernel: its arguments make the same state elsewhere, and it changes nothing.

What it prints of what was read is in tests/unit/test_status.py, what rules mean in test_settings_of.py there.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given

from ..support.agreeing import Pod, Settings, properties
from ..support.applying import ALL_SORTS, NOBODY, traffic
from ..support.command import MAIN
from ..support.istio_fixtures import NAMES
from ..support.istio_fixtures import read as read_fixture
from ..support.scratch import IPV4_ADDRESS, IPV6_ADDRESS, KERNEL, Result, Scratch, wait_until
from ..support.snapshots import LOCATIONS, everything, with_files
from ..support.strategies import environments, settings

pytestmark = KERNEL

every_location = pytest.mark.parametrize("location", LOCATIONS)


@pytest.fixture
def scratch() -> Iterator[Scratch]:
    """A namespace with a usable address of either family."""
    with Scratch(addresses=True) as made:
        yield made


def seen(done: Result) -> dict[str, Any]:
    """Read what `status --json` printed."""
    assert done.returncode in (0, 3), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


# --- the arguments make the same state ----------------------------------------------------------


@every_location
@properties(0.1)
@given(settings(), environments())
def test_the_arguments_make_the_same_state_in_another_namespace(
    location: str, values: Settings, pod: Pod
) -> None:
    """Rules of iptables-save and of nft, routing rules, routes and addresses: byte for byte."""
    ipv4, ipv6, servers = pod
    resolv_conf = {"/etc/resolv.conf": "".join(f"nameserver {server}\n" for server in servers)}
    with Scratch() as one, Scratch() as other:
        for scratch in (one, other):
            scratch.give(
                "lo", *([f"{IPV4_ADDRESS}/32"] if ipv4 else []), *([f"{IPV6_ADDRESS}/128"] if ipv6 else [])
            )
        (one.directory / "settings.yaml").write_text(json.dumps(values))
        first = one.tool(
            *LOCATIONS[location],
            f"--config={one.directory / 'settings.yaml'}",
            prefix=with_files(one, resolv_conf),
        )
        assert first.returncode == 0, first.stderr
        found = seen(one.tool("status", "--json"))
        assert found["state"] == "in-place"
        (place,) = found["places"]
        assert place["exact"]
        assert place["location"] == {"native": "nftables"}.get(location, f"iptables-{location}")
        again = other.tool(
            *LOCATIONS[location],
            *place["arguments"],
            env=place["variables"],
            prefix=with_files(other, resolv_conf),
        )
        assert again.returncode == 0, again.stderr
        assert other.state() == one.state()
        needed = {"/etc/resolv.conf": "".join(f"nameserver {s}\n" for s in place["needs"]["dns_servers"])}
        compared = other.tool(
            *LOCATIONS[location],
            *place["arguments"],
            "status",
            "--json",
            env=place["variables"],
            prefix=with_files(other, needed),
        )
        assert (compared.returncode, seen(compared)["compared"]) == (0, "equal")


@every_location
def test_the_command_line_that_it_shows_is_one_for_a_shell(scratch: Scratch, location: str) -> None:
    environment = {"ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE": "1,2"}
    scratch.apply(*LOCATIONS[location], *ALL_SORTS, env=environment)
    shown = scratch.apply("status").stdout
    (line,) = [line[10:] for line in shown.splitlines() if line.startswith("settings  ")]
    with Scratch(addresses=True) as other:
        command = line.replace("istio-iptables", f"{sys.executable} -m istio_iptables", 1)
        other.check("sh", "-c", f"{command} {' '.join(LOCATIONS[location])}")
        assert other.state() == scratch.state()


def test_rules_of_istios_own_tool_mean_settings(scratch: Scratch) -> None:
    """Those of today whose rules are the same, or the same but for the comment."""
    found = {}
    for name in NAMES:
        left = read_fixture(name)
        with Scratch(addresses=True) as other:
            for family, script in left.scripts.items():
                other.restore("legacy", "ipv6" if family == "ipv6" else "ipv4", script)
            for command in left.ip:
                other.ip(*command)
            before = everything(other)
            done = other.tool("status", "--json")
            assert everything(other) == before
            state = seen(done)
            assert done.returncode == (0 if state["state"] == "in-place" else 3)
            (place,) = state["places"]
            if place["exact"]:
                found[name] = place["without_comments"]
                with Scratch(addresses=True) as mine, Scratch(addresses=True) as its:
                    mine.apply(*left.settings, env=left.environment)
                    its.apply(*place["arguments"], env=place["variables"])
                    assert its.state() == mine.state()
            else:
                assert place["difference"]
    assert found == {"today-dns-all": False, "today-redirect": False, "today-tproxy-dual-interfaces": True}


# --- what it says ---------------------------------------------------------------------------------


def test_an_empty_namespace(scratch: Scratch) -> None:
    before = everything(scratch)
    for more in ([], ["--json"], ["-b", "80"]):
        done = scratch.tool("status", *more)
        assert done.returncode == 3, done.stderr
    assert everything(scratch) == before


@every_location
def test_nothing_is_changed(scratch: Scratch, location: str) -> None:
    scratch.apply(*LOCATIONS[location], *ALL_SORTS)
    traffic(scratch)
    before = everything(scratch)
    for more in ([], ["--json"], [*LOCATIONS[location], *ALL_SORTS], ["-b", "80"]):
        scratch.tool("status", *more)
    assert everything(scratch) == before


@every_location
def test_exit_codes(scratch: Scratch, location: str) -> None:
    options = LOCATIONS[location]
    assert scratch.tool(*options, "-b", "80", "status").returncode == 3
    scratch.apply(*options, "-b", "80")
    assert scratch.tool("status").returncode == 0
    assert scratch.tool(*options, "-b", "80", "status").returncode == 0
    assert scratch.tool(*options, "-b", "81", "status").returncode == 3
    assert scratch.tool(*options, "status", env={"ISTIO_INBOUND_PORTS": "80"}).returncode == 0


@every_location
def test_rules_that_somebody_has_changed(scratch: Scratch, location: str) -> None:
    scratch.apply(*LOCATIONS[location], "-b", "80")
    if location == "native":
        scratch.nft("flush", "chain", "inet", "istio-proxy-nat", "output")
    else:
        scratch.check(f"iptables-{location}", "-t", "nat", "-D", "OUTPUT", "-j", "ISTIO_OUTPUT")
    done = scratch.tool("status", "--json")
    assert done.returncode == 3
    found = seen(done)
    (place,) = found["places"]
    assert (found["state"], place["exact"]) == ("altered", False)
    assert place["settings"]["istio-inbound-ports"] == "80"
    (part,) = place["difference"]
    assert (len(part["added"]), part["removed"]) == (1, [])


@every_location
def test_counters_are_those_of_the_kernel(scratch: Scratch, location: str) -> None:
    scratch.apply(*LOCATIONS[location], "--dual-stack", "-i", "10.0.0.0/8")
    traffic(scratch)
    found = seen(scratch.tool("status", "--json"))
    counted: dict[str, int] = {}
    for table in found["places"][0]["tables"]:
        for chain in table["chains"]:
            for rule in chain["rules"]:
                assert rule["reason"]
                key = chain["name"].upper().replace("-", "_")
                counted[key] = counted.get(key, 0) + rule["packets"]
    # Two datagrams and two connections of either family, which all stay within the pod.
    assert counted["OUTPUT"] == 8
    assert counted["ISTIO_OUTPUT"] == 8
    assert counted["ISTIO_REDIRECT"] == 0
    assert "nothing-captured-outbound" in {note["code"] for note in found["notes"]}


def test_rules_in_two_backends(scratch: Scratch) -> None:
    scratch.apply(*LOCATIONS["legacy"])
    saved = scratch.check("iptables-legacy-save", "-t", "nat")
    scratch.restore("nft", "ipv4", saved)
    done = scratch.tool("status", "--json")
    assert done.returncode == 3
    found = seen(done)
    assert [place["location"] for place in found["places"]] == ["iptables-legacy", "iptables-nft"]
    assert found["state"] == "altered"


def test_a_foreign_rule_that_comes_first(scratch: Scratch) -> None:
    scratch.apply(*LOCATIONS["legacy"])
    dnat = ["--dport", "8080", "-j", "DNAT", "--to-destination", "10.0.0.9:80"]
    scratch.check("iptables-legacy", "-t", "nat", "-I", "PREROUTING", "-p", "tcp", *dnat)
    done = scratch.tool("status", "--json")
    assert done.returncode == 0
    (finding,) = seen(done)["before"]
    assert finding["effect"] == "bypass"
    assert finding["certain"]
    assert finding["traffic"] == ["inbound TCP to port 8080"]
    assert (
        "foreign: the foreign rule -A PREROUTING -p tcp -m tcp --dport 8080" in scratch.tool("status").stdout
    )


def test_something_foreign_in_a_chain_of_ours(scratch: Scratch) -> None:
    scratch.apply(*LOCATIONS["legacy"])
    scratch.check(
        "iptables-legacy", "-t", "nat", "-A", "ISTIO_OUTPUT", "-m", "mark", "--mark", "7", "-j", "ACCEPT"
    )
    done = scratch.tool("status", "--json")
    found = seen(done)
    assert (done.returncode, found["state"]) == (3, "altered")
    assert "-A ISTIO_OUTPUT -m mark --mark 0x7 -j ACCEPT" in found["refused"]


def test_ambient_mode(scratch: Scratch) -> None:
    scratch.apply(*LOCATIONS["legacy"])
    scratch.check("iptables-legacy", "-t", "nat", "-N", "ISTIO_PRERT")
    done = scratch.tool("status", "--json")
    found = seen(done)
    assert (done.returncode, found["state"], found["places"]) == (3, "ambient", [])
    done = scratch.tool("status", "--json", "-b", "*")
    assert (done.returncode, seen(done)["compared"]) == (3, "absent")


def test_a_table_that_iptables_cannot_read(scratch: Scratch) -> None:
    scratch.apply(*LOCATIONS["nft"], "-b", "80")
    chain = "chain POSTROUTING {\ntype nat hook postrouting priority 100\noifname eth0 masquerade\n}"
    scratch.nft(script=f"table ip nat {{\n{chain}\n}}")
    found = seen(scratch.tool("status", "--json"))
    assert found["unreadable"] == ["ip nat"]
    (place,) = found["places"]
    assert place["exact"]
    assert place["settings"]["istio-inbound-ports"] == "80"
    assert {r["packets"] for t in place["tables"] for c in t["chains"] for r in c["rules"]} == {None}


def test_what_cannot_be_read(scratch: Scratch) -> None:
    done = scratch.tool("status", prefix=NOBODY)
    assert done.returncode == 1
    assert "NET_ADMIN" in done.stderr
    assert done.stdout == ""


def test_another_namespace(scratch: Scratch) -> None:
    with Scratch(addresses=True) as other:
        other.apply("-b", "80")
        found = seen(scratch.tool("--network-namespace", other.path, "status", "--json"))
        assert found["places"][0]["settings"]["istio-inbound-ports"] == "80"
        assert found["compared"] is None
    assert seen(scratch.tool("status", "--json"))["state"] == "absent"


# --- --watch ----------------------------------------------------------------------------------------

WATCH = (sys.executable, "-m", "istio_iptables", "status", "--watch", "--interval", "20ms")


def read_line(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout
    found: dict[str, Any] = json.loads(process.stdout.readline())
    return found


@every_location
def test_a_pipe_gets_lines_of_json_when_something_has_changed(scratch: Scratch, location: str) -> None:
    scratch.apply(*LOCATIONS[location], "-b", "80")
    process = scratch.spawn(*WATCH)
    first = read_line(process)
    assert (first["type"], first["state"]) == ("status", "in-place")
    assert first["places"][0]["settings"]["istio-inbound-ports"] == "80"
    traffic(scratch)
    counters = read_line(process)
    assert counters["type"] == "counters"
    assert counters["seconds"] > 0
    rule = counters["rules"][0]
    assert rule["packets_added"] == rule["packets"] > 0
    assert rule["reason"]
    scratch.apply("cleanup")
    while (line := read_line(process))["type"] == "counters":
        pass
    while line["state"] != "absent":  # it may have looked between two steps
        line = read_line(process)
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0
    assert process.stderr
    assert process.stderr.read() == ""


def test_settings_are_compared_at_every_look(scratch: Scratch) -> None:
    scratch.apply("-b", "80")
    process = scratch.spawn(*WATCH, "-b", "80")
    assert read_line(process)["compared"] == "equal"
    scratch.apply("-b", "81", "--reconcile")
    assert read_line(process)["compared"] == "differs"


def test_it_ends_when_nobody_reads_it_although_nothing_changes(scratch: Scratch) -> None:
    scratch.apply()
    process = scratch.spawn(*WATCH)
    assert read_line(process)["state"] == "in-place"
    assert process.stdout
    process.stdout.close()
    assert process.wait(10) == 1
    assert process.stderr
    assert process.stderr.read() == ""


class Terminal:
    """A terminal on which something runs."""

    def __init__(self, scratch: Scratch, *command: str, kind: str, columns: int = 150) -> None:
        self._at, slave = pty.openpty()
        self.resize(40, columns)
        self.text = ""
        options = {"stdin": slave, "stdout": slave, "stderr": slave, "preexec_fn": _own_terminal}
        self.process = scratch.spawn(*command, env={"TERM": kind}, start_new_session=True, **options)
        os.close(slave)

    def resize(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self._at, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, keys: str) -> None:
        os.write(self._at, keys.encode())

    def wait_for(self, *words: str) -> str:
        """Wait until it shows all of these; return what has come since the last wait."""
        self.text = ""

        def there() -> bool:
            self._read()
            return all(word in self.text for word in words)

        wait_until(there, 20)
        return self.text

    def _read(self) -> None:
        while select.select([self._at], [], [], 0.01)[0]:
            try:
                more = os.read(self._at, 65536)
            except OSError:  # the other end is closed
                return
            if not more:
                return
            self.text += more.decode(errors="replace")

    def end(self) -> int:
        """Wait for the end, and read the rest."""
        self.text = ""
        deadline = time.monotonic() + 20
        while self.process.poll() is None:
            self._read()
            assert time.monotonic() < deadline
        self._read()
        return int(self.process.returncode)

    def close(self) -> None:
        os.close(self._at)


def _own_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture
def terminal(scratch: Scratch) -> Iterator[Callable[..., Terminal]]:
    with contextlib.ExitStack() as stack:

        def make(*command: str, **more: Any) -> Terminal:
            made = Terminal(scratch, *command, **more)
            stack.callback(made.close)
            return made

        yield make


SCREEN, SCREEN_AGAIN = "\x1b[?1049h", "\x1b[?1049l"


def test_a_terminal_shows_counters_and_rates_until_ctrl_c(
    scratch: Scratch, terminal: Callable[..., Terminal]
) -> None:
    scratch.apply("-b", "80")
    shown = terminal(*WATCH, kind="xterm")
    first = shown.wait_for("which have counted nothing", "Ctrl-C ends it")
    assert SCREEN in first
    assert "settings  istio-iptables --istio-inbound-ports=80 --proxy-uid=1337" in first
    assert "-j ISTIO_OUTPUT" not in first
    traffic(scratch)
    shown.wait_for("ipv4 nat ISTIO_OUTPUT", "the application (not UID 1337) calls itself")
    shown.resize(10, 40)
    shown.wait_for("PER SECOND")
    shown.type("\x03")
    assert shown.end() == 0
    assert SCREEN_AGAIN in shown.text
    assert "Traceback" not in shown.text


def test_a_terminal_is_given_back_on_sigterm(scratch: Scratch, terminal: Callable[..., Terminal]) -> None:
    shown = terminal(*WATCH, kind="xterm")
    shown.wait_for("Ctrl-C ends it")
    shown.process.terminate()
    assert shown.end() == 128 + signal.SIGTERM
    assert SCREEN_AGAIN in shown.text


@pytest.mark.parametrize("kind", ["dumb", "without rich"])
def test_a_simple_terminal_gets_a_line_for_each_change(
    scratch: Scratch, terminal: Callable[..., Terminal], kind: str
) -> None:
    scratch.apply("-b", "80")
    command, name = WATCH, kind
    if kind == "without rich":
        code = f"import sys; sys.modules['rich.live'] = None; {MAIN}"
        command, name = (sys.executable, "-c", code, *WATCH[3:]), "xterm"
    shown = terminal(*command, kind=name)
    first = shown.wait_for("note: ipv4 nat: no inbound")
    assert "\x1b" not in first
    traffic(scratch)
    shown.wait_for("+4 (4)", "ipv4 nat ISTIO_OUTPUT  -o lo -m owner ! --uid-owner 1337 -j RETURN")
    shown.type("\x03")
    assert shown.end() == 0


def test_a_terminal_that_goes_away_ends_it(scratch: Scratch, terminal: Callable[..., Terminal]) -> None:
    """As when a connection by ssh breaks."""
    with contextlib.ExitStack() as stack:
        shown = Terminal(scratch, *WATCH, kind="dumb")
        stack.callback(scratch._children.remove, shown.process)
        shown.wait_for("state ")
        shown.close()
        assert shown.process.wait(10) != 0
