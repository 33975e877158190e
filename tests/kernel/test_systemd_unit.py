"""The unit of deploy/systemd in a real systemd: every backend works in its cage, and the cage holds."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator

import pytest

from tests.support.netns import ROOT, Pod
from tests.support.sandbox import LIMIT, VENV, Sandbox, why_no_systemd

pytestmark = [
    pytest.mark.skipif(bool(why_no_systemd()), reason=f"needs systemd: {why_no_systemd()}"),
    pytest.mark.xdist_group("systemd"),  # one machine for all
]

SYSTEMD = "/etc/systemd/system"
UNIT = f"{SYSTEMD}/istio-iptables.service"
CONFIG = "/etc/istio-iptables/config.yaml"
#: The services of firewalls that the unit knows.
FIREWALLS = ("nftables", "netfilter-persistent", "iptables", "ip6tables", "firewalld", "ufw")


class Machine:
    """A machine with the service installed, and what it logs."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def run(self, command: str, code: int = 0) -> str:
        done = self._sandbox.run(command, merged=True)
        assert done.returncode == code, f"{command}: {done.stdout}{self.log()}"
        return done.stdout

    def log(self) -> str:
        return self._sandbox.run("cat /log").stdout

    def write(self, path: str, text: str) -> None:
        self.run(f"mkdir -p $(dirname {path}); cat >{path} <<'THE-END'\n{text}\nTHE-END")

    def configure(self, *lines: str) -> None:
        self.write(CONFIG, "\n".join(lines))

    def unit(self, name: str, *lines: str) -> None:
        self.write(f"/etc/systemd/system/{name}", "\n".join(lines))
        self.run("systemctl daemon-reload")

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds; fail, with the log, if it does not in good time."""
        deadline = time.monotonic() + LIMIT
        while not condition():
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def in_place(self) -> None:
        """Wait until the rules are in place: what one service has another one do is not waited for."""
        for _ in range(200):
            if "-j ISTIO_OUTPUT" in self.owned():
                break
            self.run("sleep 0.05")
        self.run(f"{VENV}/bin/istio-iptables --config {CONFIG} diff")

    def owned(self) -> str:
        """Return everything that the tool could have left."""
        saves = [f"{ip}tables-{variant}-save" for ip in ("ip", "ip6") for variant in ("legacy", "nft")]
        network = "ip rule show; ip -6 rule show; ip -6 address show dev lo; ip route show table 133"
        text = self.run(f"({'; '.join(saves)}; nft list tables; {network}) 2>&1 || true")
        marks = ("ISTIO", "istio", "0x539", "::6/128", "table 133")
        return "\n".join(line for line in text.splitlines() if any(mark in line for mark in marks))


@pytest.fixture(scope="module")
def booted() -> Iterator[Machine]:
    with Pod() as pod, Sandbox(pod, systemd=True) as sandbox:
        sandbox.install()
        yield Machine(sandbox)


@pytest.fixture
def machine(booted: Machine) -> Machine:
    """The machine as it is right after the unit has been installed."""
    for name in ("istio-iptables", "istio-iptables-check", "istio", *FIREWALLS):
        booted.run(f"systemctl stop {name}.service || true")
    booted.run("rm -rf /log /etc/default/istio-iptables /run/xtables.lock /etc/systemd/system/*")
    booted.run(f"install -D -m 644 deploy/systemd/istio-iptables.service {UNIT}")
    booted.unit("istio-iptables.service.d/log.conf", "[Service]", "StandardError=append:/log")
    booted.run("systemctl reset-failed")
    assert booted.owned() == ""
    return booted


def test_the_unit_is_valid_and_its_cage_tight(machine):
    assert machine.run("systemd-analyze verify istio-iptables.service") == ""
    # of ten; what is left are the network, root, and the two capabilities
    machine.run("systemd-analyze security --threshold=25 --no-pager istio-iptables.service")


EVERYTHING = ("istio-inbound-interception-mode: TPROXY", "dual-stack: true", "redirect-dns: true")


@pytest.mark.parametrize(
    ("backend", "settings"),
    [
        ("libiptc", EVERYTHING),
        ("iptables-legacy-restore", ("force-iptables-binary: legacy", *EVERYTHING)),
        ("iptables-nft-restore", ("force-iptables-binary: nft", *EVERYTHING)),
        ("nftables", ("native-nftables: true", *EVERYTHING)),
    ],
)
def test_every_backend_works_in_the_cage(machine, backend, settings):
    machine.configure(*settings)
    before = machine.owned()
    machine.run("systemctl start istio-iptables")
    assert f"backend {backend}: " in machine.log()
    assert machine.owned() != before
    machine.run(f"{VENV}/bin/istio-iptables --config {CONFIG} diff")
    assert machine.run("stat --format %a /run/xtables.lock").strip() == "600"  # or anybody could hold it
    machine.run("systemctl reload istio-iptables")
    assert "the rules are in place already: nothing to do" in machine.log()
    machine.run("systemctl stop istio-iptables")
    assert machine.owned() == before == ""


def test_changed_settings_replace_the_rules_and_mistakes_change_nothing(machine):
    machine.configure("dual-stack: true")
    machine.run("systemctl start istio-iptables")
    machine.configure("dual-stack: true", "istio-inbound-ports: 8080")
    machine.run("systemctl reload istio-iptables")
    changed = machine.owned()
    assert "--dport 8080 -j ISTIO_IN_REDIRECT" in changed
    machine.configure("dual-stack: perhaps")
    machine.run("systemctl reload istio-iptables", code=1)
    assert "config.yaml: dual-stack: 'perhaps' is not a boolean" in machine.log()
    assert machine.owned() == changed
    machine.write("/etc/default/istio-iptables", "ISTIO_INBOUND_PORTS=9090")
    machine.configure("dual-stack: true", "istio-inbound-ports: 8080")
    machine.run("systemctl restart istio-iptables")
    assert "--dport 9090 -j ISTIO_IN_REDIRECT" in machine.owned()


def test_a_service_with_bad_settings_does_not_start(machine):
    machine.configure("envoy-prot: 1")
    machine.run("systemctl start istio-iptables", code=1)
    assert machine.run("systemctl show --property ExecMainStatus --value istio-iptables").strip() == "2"
    assert machine.owned() == ""


def test_the_proxy_starts_when_the_rules_are_there(machine):
    machine.configure("istio-inbound-ports: '*'")
    machine.unit(
        "istio.service",
        "[Service]",
        "Type=oneshot",
        "ExecStart=sh -c 'iptables-legacy-save >/seen-by-the-proxy'",
    )
    wanted = "Wants=istio.service istio-iptables.service"
    machine.unit("both.target", "[Unit]", wanted)  # started together, as at boot
    machine.run("systemctl start both.target")
    machine.run("systemctl is-active istio-iptables")
    assert "-A OUTPUT -j ISTIO_OUTPUT" in machine.run("cat /seen-by-the-proxy")


def drop_in(machine: Machine, name: str) -> None:
    folder = f"{SYSTEMD}/{name}.service.d"
    machine.run(f"install -D -m 644 deploy/systemd/firewall.conf {folder}/istio-iptables.conf")


def firewall(machine: Machine, name: str) -> None:
    """Install a firewall that flushes everything whenever it can, and start it and the service."""
    machine.configure("force-iptables-binary: nft")
    flush = "nft flush ruleset"
    drop_in(machine, name)
    machine.unit(
        f"{name}.service",
        "[Service]",
        "Type=oneshot",
        "RemainAfterExit=yes",
        f"ExecStart={flush}",
        f"ExecReload={flush}",
        f"ExecStop={flush}",
    )
    machine.run(f"systemctl start {name} istio-iptables")
    machine.in_place()


@pytest.mark.parametrize("name", FIREWALLS)
def test_rules_that_a_firewall_has_flushed_are_written_again(machine, name):
    firewall(machine, name)
    since = "systemctl show --property ActiveState,InvocationID istio-iptables"
    started = machine.run(since)
    assert "ActiveState=active" in started
    for verb in ("stop", "start", "restart", "reload"):
        machine.run(f"systemctl {verb} {name}")
        machine.in_place()
        assert machine.run(since) == started  # never stopped in between, which would take the rules away


def test_a_service_that_was_stopped_stays_so_whatever_firewalls_do(machine):
    firewall(machine, "nftables")
    machine.run("systemctl stop istio-iptables")
    for verb in ("stop", "start", "restart", "reload"):
        machine.run(f"systemctl {verb} nftables")
        machine.run("systemctl is-active istio-iptables", code=3)
        assert machine.run("systemctl list-jobs --no-legend").strip() in ("", "No jobs running.")
    assert machine.owned() == ""


def test_the_service_and_a_firewall_can_be_stopped_together(machine):
    firewall(machine, "nftables")
    machine.run("systemctl stop nftables istio-iptables")
    machine.run("systemctl is-active istio-iptables", code=3)
    assert machine.owned() == ""


def test_all_firewalls_are_treated_alike():
    unit = (ROOT / "deploy/systemd/istio-iptables.service").read_text()
    for key in ("After", "ReloadPropagatedFrom"):
        values = " ".join(re.findall(rf"^{key}=(.*)", unit, re.MULTILINE)).split()
        assert set(values) - {"network-online.target"} == {f"{name}.service" for name in FIREWALLS}
    page = (ROOT / "docs/virtual-machine.md").read_text()
    assert f"for firewall in {' '.join(FIREWALLS)}; do" in page


def test_a_firewall_that_flushes_when_it_starts_comes_first(machine):
    machine.configure("force-iptables-binary: nft")
    drop_in(machine, "nftables")
    machine.unit(
        "nftables.service", "[Service]", "Type=oneshot", "ExecStart=sh -c 'sleep 0.5; nft flush ruleset'"
    )
    machine.unit("both.target", "[Unit]", "Wants=nftables.service istio-iptables.service")
    machine.run("systemctl start both.target")
    machine.run(f"{VENV}/bin/istio-iptables --config {CONFIG} diff")


# --- the check ------------------------------------------------------------------------------

CHECK = "istio-iptables-check"
#: Where the rules are, and what flushes them past the service.
FLUSHES = {
    "libiptc": ((), "iptables-legacy -t nat -F; ip6tables-legacy -t nat -F"),
    "iptables-nft": (("force-iptables-binary: nft",), "nft flush ruleset"),
    "native": (("native-nftables: true",), "nft flush ruleset"),
}


def install_check(machine: Machine) -> None:
    for kind in ("service", "timer"):
        machine.run(f"install -m 644 deploy/systemd/{CHECK}.{kind} {SYSTEMD}")
    machine.unit(f"{CHECK}.service.d/log.conf", "[Service]", "StandardOutput=append:/log")


def often(machine: Machine) -> None:
    """Have the timer start the check without a pause that a test would have to wait for."""
    machine.unit(
        f"{CHECK}.timer.d/often.conf",
        "[Timer]",
        "OnActiveSec=",
        "OnUnitInactiveSec=",
        "OnActiveSec=100ms",
        "OnUnitInactiveSec=100ms",
        "AccuracySec=10ms",
    )


def test_the_check_is_valid_and_its_cage_that_of_the_service(machine):
    install_check(machine)
    assert machine.run(f"systemd-analyze verify {CHECK}.service {CHECK}.timer") == ""
    machine.run(f"systemd-analyze security --threshold=25 --no-pager {CHECK}.service")
    service, check = (
        {line for line in (ROOT / f"deploy/systemd/{name}.service").read_text().splitlines() if "=" in line}
        for name in ("istio-iptables", CHECK)
    )
    kinds = "Capability|NoNew|Restrict|SystemCall|Lock|Memory|Protect|Read|Private"
    cage = {line for line in service if re.match(kinds, line)}
    assert len(cage) > 20
    assert cage <= check


@pytest.mark.parametrize("backend", FLUSHES)
def test_the_check_has_flushed_rules_written_again(machine, backend):
    settings, flush = FLUSHES[backend]
    machine.configure("dual-stack: true", *settings)
    install_check(machine)
    often(machine)
    machine.run(f"systemctl enable --quiet {CHECK}.timer")
    machine.run("systemctl start istio-iptables")
    machine.run(f"systemctl is-active {CHECK}.timer")
    since = machine.run("systemctl show --property InvocationID istio-iptables")
    before = machine.owned()
    for _ in range(2):
        machine.run(flush)
        machine.until(lambda: machine.owned() == before)
        # Reloaded, not restarted, which would take the rules away in between.
        assert machine.run("systemctl show --property InvocationID istio-iptables") == since
        machine.run("systemctl is-active istio-iptables")
    assert [line for line in machine.log().splitlines() if line.startswith("+")]  # the difference


def test_a_check_that_finds_no_difference_does_nothing(machine):
    machine.configure()
    install_check(machine)
    machine.run("systemctl start istio-iptables")
    before = machine.log()
    machine.run(f"systemctl start {CHECK}")
    assert machine.log() == before  # no reload, and nothing to read
    assert machine.run(f"systemctl show --property Result --value {CHECK}").strip() == "success"


def test_a_check_with_settings_that_are_wrong_fails_and_leaves_the_rules(machine):
    machine.configure()
    install_check(machine)
    machine.run("systemctl start istio-iptables")
    before = machine.owned()
    machine.configure("envoy-prot: 1")
    machine.run(f"systemctl start {CHECK}", code=1)
    assert machine.run(f"systemctl show --property ExecMainStatus --value {CHECK}").strip() == "2"
    assert machine.owned() == before


def test_a_service_that_was_stopped_is_not_checked(machine):
    machine.configure()
    install_check(machine)
    often(machine)
    machine.run(f"systemctl enable --quiet {CHECK}.timer")
    machine.run("systemctl start istio-iptables")
    machine.run("systemctl stop istio-iptables")
    machine.run(f"systemctl is-active {CHECK}.timer", code=3)
    machine.run(f"systemctl start {CHECK}")  # and by hand it ends at its condition
    machine.run("systemctl is-active istio-iptables", code=3)
    assert machine.owned() == ""


#: What a process in the cage tries, and must not be able to do.
FORBIDDEN = {
    "write to the system": "open('/usr/new', 'w')",
    "write to the configuration": "open('/etc/istio-iptables/new', 'w')",
    "write elsewhere in /run": "open('/run/new', 'w')",
    "see the homes": "assert os.listdir('/root') or True; os.stat('/root/.secret')",
    "see devices": "os.stat('/dev/kmsg')",
    "set what is the kernel's": "open('/proc/sys/net/ipv4/ip_forward', 'w')",
    "read a file of another user": "open('/secret-of-another')",
    "make a namespace": "assert ctypes.CDLL(None).unshare(0x40000000) == 0",
    "change its user": "os.setuid(1337)",
    "open a packet socket": "socket.socket(17, socket.SOCK_RAW)",
    "map memory to write and run": "mmap.mmap(-1, 4096, prot=7)",
    "mount": "assert ctypes.CDLL(None).mount(b'none', b'/tmp', b'tmpfs', 0, 0) == 0",
}


def test_the_cage_holds(machine):
    machine.configure()
    machine.run("touch /root/.secret; touch /secret-of-another; chown 1000 /secret-of-another")
    machine.run("chmod 600 /secret-of-another; touch /run/xtables.lock")
    tries = "".join(
        f"try:\n    {code}\nexcept (OSError, AssertionError):\n    print('no:', {what!r})\n"
        f"else:\n    print('YES:', {what!r})\n"
        for what, code in FORBIDDEN.items()
    )
    machine.write("/probe.py", f"import ctypes, mmap, os, socket\n{tries}\nopen('/run/xtables.lock', 'w')")
    machine.unit(
        "istio-iptables.service.d/probe.conf",
        "[Service]",
        "ExecStart=",
        f"ExecStart={VENV}/bin/python /probe.py",
        "StandardOutput=append:/log",
    )
    machine.run("systemctl start istio-iptables")
    assert machine.log().splitlines() == [f"no: {what}" for what in FORBIDDEN]
