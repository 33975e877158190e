"""A dry run shows what apply does; --network-namespace says where; the log tells both."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

import pytest

from tests.support import everyone
from tests.support.applying import (
    ALL_SORTS,
    BACKENDS,
    NOBODY,
    every_backend,
    families_of,
    ip_commands,
    rules_of,
)
from tests.support.oracle import expected

from ..support.scratch import KERNEL, Scratch, owned, wait_until

pytestmark = KERNEL


# --- dry run ----------------------------------------------------------------------------------


@every_backend
@pytest.mark.parametrize("arguments", [["--dual-stack"], ALL_SORTS, []], ids=["simple", "all sorts", "ipv4"])
def test_dry_run_shows_what_apply_puts_in_place(backend: str, arguments: list[str]) -> None:
    """To the letter: what it prints, given to iptables-restore --noflush and ip, makes the same state."""
    options, variant = BACKENDS[backend]
    with Scratch(addresses=True) as shown, Scratch(addresses=True) as applied:
        before, generation = shown.state(counters=True), shown.generation()
        script = shown.apply(*options, *arguments, "--dry-run").stdout
        assert shown.state(counters=True) == before
        assert shown.legacy_tables() == set()
        assert shown.generation() == generation
        assert not shown.lock.exists()
        applied.apply(*options, *arguments)
        for family, part in families_of(script).items():
            shown.restore(variant, family, part)
        for command in ip_commands(script):
            shown.ip(*command.split()[1:])
        wanted = applied.state()
        assert {**shown.state(), "nft": ""} == {**wanted, "nft": ""}
        assert "nothing to do" in shown.apply(*options, *arguments).stderr


def test_dry_run_needs_neither_privilege_nor_commands() -> None:
    with Scratch(addresses=True) as scratch:
        as_root = scratch.apply(*ALL_SORTS, "--dry-run").stdout
        as_nobody = scratch.tool(*ALL_SORTS, "--dry-run", env={"PATH": ""}, prefix=NOBODY)
        assert as_nobody.returncode == 0, as_nobody.stderr
        assert as_nobody.stdout == as_root
        elsewhere = scratch.tool("-n", "--network-namespace", "no-such", env={"PATH": ""}, prefix=NOBODY)
        assert elsewhere.returncode == 2


def test_dry_run_writes_the_file_too(tmp_path: Path) -> None:
    with Scratch() as scratch:
        file = scratch.directory / "script"
        shown = scratch.apply("-n", "-b", "80", env={"DRY_RUN_FILE_PATH": str(file)}).stdout
        assert file.read_text() == shown
        assert "--dport 80 -j ISTIO_IN_REDIRECT" in shown
        file.unlink()
        scratch.apply("-b", "80", env={"DRY_RUN_FILE_PATH": str(file)})  # only in dry-run
        assert not file.exists()
        failed = scratch.tool("-n", env={"DRY_RUN_FILE_PATH": "/no/such/directory/file"})
        assert failed.returncode == 1
        assert "DRY_RUN_FILE_PATH: '/no/such/directory/file' cannot be written" in failed.stderr


def test_skip_rule_apply_touches_nothing() -> None:
    """As a CNI plugin's pod runs it: UID 1337, no capability."""
    prefix = everyone.user(1337, "--bounding-set=-all")
    with Scratch(addresses=True) as scratch:
        before = scratch.state(counters=True)
        scratch.apply("--skip-rule-apply")
        done = scratch.tool("--skip-rule-apply", prefix=prefix)
        assert done.returncode == 0, done.stderr
        assert scratch.state(counters=True) == before
        assert scratch.legacy_tables() == set()


# --- namespaces -------------------------------------------------------------------------------


@every_backend
@pytest.mark.parametrize("way", ["path", "name", "process"])
def test_network_namespace_is_entered(backend: str, way: str) -> None:
    """All of it happens there (rules, addresses, facts) and nothing in the caller's."""
    options, _ = BACKENDS[backend]
    with Scratch() as caller, Scratch(addresses=True) as target:
        names = {"path": target.path, "name": target.name}
        if way == "process":
            sleeper = target.spawn("sleep", "60")
            own = os.stat(target.path).st_ino
            path = f"/proc/{sleeper.pid}/ns/net"
            wait_until(lambda: os.stat(path).st_ino == own)
            names["process"] = path
        before = caller.state(counters=True)
        caller.apply(*options, "--network-namespace", names[way], "--dual-stack", "-m", "TPROXY")
        assert caller.state(counters=True) == before
        assert caller.legacy_tables() == set()
        want = expected({"istio-inbound-interception-mode": "TPROXY"}, ipv6=True)
        assert rules_of(target) == want  # with IPv6, for which the caller has no address
        assert "::6/128" in target.ip("-6", "address", "show", "dev", "lo")
        assert "lookup 133" in target.ip("rule", "show")
        caller.apply("--network-namespace", names[way], "cleanup")
        assert rules_of(target) == {}
        assert "lookup 133" not in target.ip("rule", "show")


def test_network_namespace_that_is_none() -> None:
    with Scratch() as scratch:
        file = scratch.directory / "file"
        file.write_text("")
        fifo = scratch.directory / "fifo"
        os.mkfifo(fifo)
        cases = {
            str(file): "is not a network namespace",
            str(fifo): "is not a network namespace",
            str(scratch.directory): "is not a network namespace",
            "/dev/null": "is not a network namespace",
            "/proc/self/ns/mnt": "is not a network namespace",
            "/proc/self/ns/user": "is not a network namespace",
            "/no/such/file": "No such file",
            "iie-no-such-name": "No such file",
        }
        for namespace, reason in cases.items():
            refused = scratch.tool("--network-namespace", namespace)
            assert refused.returncode == 2, refused.stderr
            (line,) = refused.stderr.splitlines()
            assert line.startswith("--network-namespace: ")
            assert namespace in line
            assert reason in line
        (line,) = scratch.tool(env={"NETWORK_NAMESPACE": str(file)}).stderr.splitlines()
        assert line.startswith("variable NETWORK_NAMESPACE: ")
        assert scratch.legacy_tables() == set()


def test_cni_mode_does_not_wait_for_the_hosts_lock() -> None:
    with Scratch() as scratch, open(scratch.lock, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for options, variant in BACKENDS.values():
            scratch.apply(*options, "--cni-mode")
            assert owned(scratch.save(variant, "ipv4"))
            scratch.apply(*options, "--cni-mode", "cleanup")
        scratch.apply("--cni-mode", env={"XTABLES_LOCKFILE": "/no/such/directory/lock"})


# --- the log ----------------------------------------------------------------------------------


def test_log_of_an_apply_says_what_and_why() -> None:
    with Scratch(addresses=True) as scratch:
        done = scratch.apply("-b", "80", "-m", "TPROXY", env={"ENVOY_PORT": "15009"})
        assert done.stdout == ""
        for text in (
            "setting istio-inbound-ports = '80' (--istio-inbound-ports (-b))",
            "setting envoy-port = '15009' (variable ENVOY_PORT)",
            "backend libiptc: ",
            "planned: ip rule add fwmark 1337 lookup 133",
            "planned: ipv4 nat (iptables-legacy): write",
            "--dual-stack captures it",
            "done: ",
        ):
            assert text in done.stderr
        debug = scratch.apply("-b", "81", "--reconcile", "--log_output_level=default:debug").stderr
        assert "before: iptables-legacy ipv4 mangle: -A ISTIO_INBOUND" in debug
        assert "after: iptables-legacy ipv4 nat: -A ISTIO_INBOUND -p tcp -m tcp --dport 81" in debug


def test_at_debug_level_diff_says_what_it_read() -> None:
    with Scratch() as scratch:
        scratch.apply("-b", "80")
        done = scratch.tool("-b", "81", "diff", "--log_output_level=default:debug")
        assert done.returncode == 3
        read = "debug\tin place: iptables-legacy ipv4 nat: -A ISTIO_INBOUND -p tcp -m tcp --dport 80 "
        assert read in done.stderr
        assert "in place" not in scratch.tool("-b", "81", "diff").stderr.replace("has rules", "")


def test_as_json_is_one_object_a_line() -> None:
    with Scratch() as scratch:
        scratch.apply("--log_as_json")
        lines = scratch.tool("-b", "80", "--log_as_json").stderr.splitlines()
        assert {json.loads(line)["level"] for line in lines} >= {"info", "error"}
