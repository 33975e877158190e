"""What a machine lacks or cannot hold: an error says what to do, nothing is written (SPEC section 5)."""

from __future__ import annotations

import ctypes.util
import errno
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from istio_iptables import Machine, Ruleset
from tests.support import everyone
from tests.support.applying import ALL_SORTS, BACKENDS, every_backend, rules_of
from tests.support.failing import OTHER, everything_stays, failed, hidden
from tests.support.oracle import expected

from ..support.scratch import (
    FAMILIES,
    KERNEL,
    SETPRIV,
    VARIANTS,
    Scratch,
    Variant,
    needs_seccomp,
    owned,
    refuse_replacing,
)

if TYPE_CHECKING:
    pass


pytestmark = KERNEL


# --- what is missing --------------------------------------------------------------------------


@every_backend
def test_missing_capabilities_are_named(backend: str) -> None:
    options, _ = BACKENDS[backend]
    cases = {
        ("-net_admin",): ["NET_ADMIN are"],
        ("-net_raw",): ["NET_RAW are"],
        ("-all",): ["NET_ADMIN and NET_RAW"],
    }
    with Scratch() as scratch, everything_stays(scratch):
        for (bounding,), texts in cases.items():
            for arguments in ([], ["cleanup"], ["diff"]):
                done = scratch.tool(*options, *arguments, prefix=[SETPRIV, f"--bounding-set={bounding}"])
                failed(done, "capabilit", "run as root", "securityContext", *(t.split()[0] for t in texts))
                assert ("NET_ADMIN" in done.stderr.split("what to do")[0]) == (bounding != "-net_raw")
                assert ("NET_RAW" in done.stderr.split("what to do")[0]) == (bounding != "-net_admin")
        assert scratch.legacy_tables() == set()


@every_backend
def test_net_admin_and_net_raw_are_enough(backend: str) -> None:
    """What the init container has; all of it, from applying to cleaning up."""
    options, _ = BACKENDS[backend]
    prefix = [SETPRIV, "--bounding-set=-all,+net_admin,+net_raw"]
    with Scratch(addresses=True) as scratch:
        before = scratch.network()
        for arguments in (ALL_SORTS, ALL_SORTS, [*OTHER, "--reconcile"], ["diff", *OTHER], ["cleanup"]):
            done = scratch.tool(*options, *arguments, prefix=prefix)
            assert done.returncode == 0, done.stderr
        assert rules_of(scratch) == {}
        assert scratch.network() == before


def test_not_root() -> None:
    nobody = everyone.user(65534)
    with Scratch() as scratch:
        for arguments in ([], ["cleanup"], ["diff"]):
            failed(scratch.tool(*arguments, prefix=nobody), "NET_ADMIN and NET_RAW", "run as root")
        # With the capabilities but not root: the lock file is root's, and so is the list of legacy tables.
        capable = [*nobody, "--inh-caps=+net_admin,+net_raw", "--ambient-caps=+net_admin,+net_raw"]
        scratch.lock.touch(0o600)
        scratch.directory.chmod(0o755)
        failed(scratch.tool(prefix=capable), str(scratch.lock))
        scratch.lock.chmod(0o666)
        for arguments in ([], ["cleanup"], ["diff"]):
            failed(scratch.tool(*arguments, prefix=capable), "ip_tables_names", "root")


def test_missing_commands() -> None:
    legacy, nft, iptables = "/usr/sbin/xtables-legacy-multi", "/usr/sbin/xtables-nft-multi", "/usr/sbin/nft"
    with Scratch() as scratch:
        with everything_stays(scratch):
            for variant, path in (("legacy", legacy), ("nft", nft)):
                done = scratch.tool("--force-iptables-binary", variant, prefix=hidden(path))
                failed(done, f"iptables-{variant}-restore is not installed", "install the package iptables")
        # libiptc needs none of them.
        nothing = hidden(legacy, nft, iptables)
        for arguments in (["-m", "TPROXY"], ["-m", "TPROXY"], ["cleanup"]):
            assert scratch.tool(*arguments, prefix=nothing).returncode == 0
        # But what is there and cannot be read is not passed over.
        scratch.apply("--force-iptables-binary", "nft")
        with everything_stays(scratch):
            for arguments in ([], ["cleanup"]):
                failed(scratch.tool(*arguments, prefix=nothing), "iptables-nft-save is not installed")
        scratch.apply("cleanup")
        scratch.nft(script="table inet istio-proxy-nat { chain c { counter; }; }")
        with everything_stays(scratch):
            failed(
                scratch.tool("cleanup", prefix=hidden(iptables)), "nft is not installed", "package nftables"
            )


def libraries(*names: str) -> list[str]:
    listed = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    return [
        line.split("=> ")[1] for name in names for line in listed.splitlines() if line.split()[:1] == [name]
    ]


@pytest.mark.parametrize("name", ["libip4tc.so.2", "libip6tc.so.2"])
def test_missing_library(name: str) -> None:
    found = libraries(name)
    assert found, ctypes.util.find_library("ip4tc")
    with Scratch(addresses=True) as scratch:
        with everything_stays(scratch):
            failed(
                scratch.tool("--dual-stack", prefix=hidden(*found)),
                "libiptc cannot be used",
                "libip4tc and libip6tc",
            )
        # Whether there is a nat table is tried as soon as it could be written.
        assert scratch.legacy_tables() == ({"ipv4/nat"} if name == "libip6tc.so.2" else set())


def test_who_writes_ipv4_alone_needs_no_library_for_ipv6() -> None:
    with Scratch(addresses=True) as scratch:
        done = scratch.tool(prefix=hidden(*libraries("libip6tc.so.2")))
        assert done.returncode == 0, done.stderr
        assert "backend libiptc" in done.stderr


def test_who_has_the_command_without_the_library() -> None:
    """One that was linked statically: it writes instead, and the log says why."""
    with Scratch() as scratch:
        code = """
import sys
from istio_iptables.kernel.xtables import library
library._SONAMES["ipv4"] = "libip4tc.so.0", "iptc_"
from istio_iptables.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
        done = scratch.python(code)
        assert done.returncode == 0, done.stderr
        left_out = "libiptc is left out: libip4tc.so.0: cannot open shared object file"
        why = f"the kernel has the legacy tables, and no rules are in place; {left_out}"
        assert f"backend iptables-legacy-restore: {why}" in done.stderr
        assert rules_of(scratch) == expected({}, ipv6=False)
        # Where it would not have been used, it was not left out.
        for forced in (
            ("--force-iptables-binary", "legacy"),
            ("--force-iptables-binary", "nft"),
            ("--native-nftables",),
        ):
            done = scratch.python(code, *forced, "--reconcile")
            assert done.returncode == 0, done.stderr
            assert "requested" in done.stderr
            assert "libiptc" not in done.stderr


def test_nothing_but_the_package_is_needed() -> None:
    """-S: without site-packages."""
    with Scratch() as scratch:
        done = scratch.run(sys.executable, "-S", "-m", "istio_iptables")
        assert done.returncode == 0, done.stderr
        assert "backend libiptc" in done.stderr
        assert rules_of(scratch) == expected({}, ipv6=False)


def test_ipv6_switched_off_for_lo_is_named() -> None:
    """The sysctl by name, and nothing changed: the address comes before all rules."""
    with Scratch() as scratch:
        scratch.ip("link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
        scratch.give("eth0", "10.1.0.1/24", "fd01::1/64")
        scratch.check("sysctl", "-q", "net.ipv6.conf.lo.disable_ipv6=1")
        before = scratch.network()
        for options, _ in BACKENDS.values():
            failed(scratch.tool(*options, *ALL_SORTS), "net.ipv6.conf.lo.disable_ipv6", "::6/128")
            assert rules_of(scratch) == {}
            assert scratch.network() == before
        scratch.apply("-m", "TPROXY")  # IPv4 alone does not need it
        with pytest.MonkeyPatch.context():
            before_rules = rules_of(scratch)
            failed(scratch.tool("-m", "TPROXY", "--dual-stack", "--reconcile"), "disable_ipv6")
            assert rules_of(scratch) == before_rules


# --- owner groups -----------------------------------------------------------------------------


def groups(many: int) -> dict[str, str]:
    return {"ISTIO_OUTBOUND_OWNER_GROUPS": ",".join(str(1000 + number) for number in range(many))}


def test_64_owner_groups_by_libiptc() -> None:
    with Scratch(addresses=True) as scratch:
        scratch.apply("--dual-stack", env=groups(64))
        for family in FAMILIES:
            with scratch.inside(), Machine(writing=False) as machine:
                tables = machine.read(Ruleset()).tables["iptables-legacy"]
            (nat,) = [table for table in tables if (table.family, table.name) == (family, "nat")]
            assert max(len(rule.matches) for rule in nat.chain("ISTIO_OUTPUT").rules) == 64
        assert "nothing to do" in scratch.apply("--dual-stack", env=groups(64)).stderr
        scratch.apply("--dual-stack", "--reconcile", env=groups(63))
        scratch.apply("cleanup")
        assert rules_of(scratch) == {}


@pytest.mark.parametrize("variant", VARIANTS)
def test_owner_groups_that_iptables_cannot_load_are_refused_before_anything_is_touched(
    variant: Variant,
) -> None:
    options = ["--force-iptables-binary", variant]
    with Scratch(addresses=True) as scratch:
        with everything_stays(scratch):
            for arguments in (["-m", "TPROXY", "--dual-stack"], ["--reconcile"]):
                for many in (50, 64):
                    done = scratch.tool(*options, *arguments, env=groups(many))
                    assert done.returncode == 2, done.stderr
                    errors = "".join(line for line in done.stderr.splitlines() if "\tinfo\t" not in line)
                    assert "ISTIO_OUTBOUND_OWNER_GROUPS" in errors
                    assert f"{many} matches" in errors
        assert scratch.legacy_tables() == set()
        scratch.apply(*options, "-m", "TPROXY", env=groups(49))
        assert "nothing to do" in scratch.apply(*options, "-m", "TPROXY", env=groups(49)).stderr
        with everything_stays(scratch):
            done = scratch.tool(*options, "--reconcile", env=groups(50))
            assert done.returncode == 2


def test_65_owner_groups_are_too_many() -> None:
    with Scratch() as scratch:
        for name in ("ISTIO_OUTBOUND_OWNER_GROUPS", "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE"):
            done = scratch.tool(env={name: ",".join(str(number) for number in range(65))})
            assert done.returncode == 2
            (line,) = done.stderr.splitlines()
            assert name in line
            assert "64" in line
        assert scratch.legacy_tables() == set()


@needs_seccomp
def test_more_groups_than_iptables_can_load_come_back_with_a_rollback() -> None:
    """libiptc wrote 64, iptables-restore is asked to replace them, and a later step fails."""
    with Scratch(addresses=True) as scratch:
        scratch.apply(env=groups(64))
        with everything_stays(scratch):
            done = scratch.tool(
                *("--force-iptables-binary", "legacy", "--dual-stack", "--reconcile"),
                preexec_fn=lambda: refuse_replacing("ipv6", error=errno.ENOMEM),
            )
            assert done.returncode in (1, 2)


# --- tables that iptables cannot read ---------------------------------------------------------


#: What iptables-nft-save calls "incompatible".
NATIVE = "numgen random mod 2 vmap { 0 : accept }"


@pytest.mark.parametrize(
    ("table", "chain"), [("filter", "INPUT"), ("mangle", "INPUT"), ("nat", "PREROUTING")]
)
def test_a_foreign_table_that_only_nft_can_write_does_not_stop_libiptc(table: str, chain: str) -> None:
    hook = "type nat hook prerouting priority -100" if table == "nat" else "type filter hook input priority 0"
    with Scratch() as scratch:
        scratch.nft(script=f"table ip {table} {{ chain {chain} {{ {hook}; {NATIVE}; }}; }}")
        before = scratch.nft("list", "ruleset")
        for arguments in ([], [], ["--reconcile", "-b", "80"], ["cleanup"]):
            assert scratch.tool(*arguments).returncode == 0
        assert scratch.nft("list", "ruleset") == before


@pytest.mark.parametrize("chain", ["PREROUTING", "ISTIO_OUTPUT"])
def test_rules_of_ours_that_iptables_can_no_longer_read_are_not_taken_for_none(chain: str) -> None:
    """A rule that only nft can write is among owned ones: no first run, and no second set of rules."""
    with Scratch() as scratch:
        scratch.apply("--force-iptables-binary", "nft")
        scratch.nft("add", "rule", "ip", "nat", chain, *NATIVE.split())
        before = scratch.nft("list", "ruleset")
        for arguments in ([], ["--force-iptables-binary", "nft"]):
            done = scratch.tool(*arguments)
            assert done.returncode in (1, 3), done.stderr
            assert scratch.nft("list", "ruleset") == before
            assert not owned(scratch.save("legacy", "ipv4"))
        cleaned = scratch.tool("cleanup")
        assert cleaned.returncode == 1 or "ISTIO" not in scratch.nft("list", "ruleset")
