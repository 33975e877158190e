"""doctor: each failure, made for real, is found with its remedy, and nothing is changed: SPEC section 9.

Where a check fails, `foretells` has the same run fail, too, with the same remedy.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from tests.support import everyone
from tests.support.doctor import doctor, foretells
from tests.support.native import NATIVE
from tests.support.scratch import KERNEL, Scratch
from tests.support.snapshots import LOCATIONS, everything

from ..support.doctor import dropped, mounted

pytestmark = KERNEL


@pytest.fixture
def scratch() -> Iterator[Scratch]:
    """A namespace with a usable IPv4 address."""
    with Scratch() as made:
        made.give("lo", "10.99.0.1/32")
        yield made


# --- nothing is wrong, and nothing is changed -------------------------------------------------


def test_a_plain_pod_has_no_failure_and_no_warning(scratch: Scratch) -> None:
    report = doctor(scratch)
    assert report.code == 0
    assert report.names("FAIL") | report.names("WARN") == set()
    assert scratch.tool().returncode == 0


ALL_SORTS = [
    "--dual-stack",
    "-m",
    "TPROXY",
    "--redirect-dns",
    "--capture-all-dns",
    "--drop-invalid",
    "-c",
    "lo",
]


@pytest.mark.parametrize("in_place", ["nothing", *LOCATIONS])
@pytest.mark.parametrize(
    "arguments", [[], ALL_SORTS, [*NATIVE, *ALL_SORTS], [*LOCATIONS["nft"], *ALL_SORTS], ["--cleanup-only"]]
)
def test_nothing_is_changed(in_place: str, arguments: list[str]) -> None:
    """Neither a rule, a counter, a table that is empty, an address, nor the lock file."""
    with Scratch(addresses=True) as scratch:
        if in_place != "nothing":
            scratch.apply(*LOCATIONS[in_place], "-b", "80")
            scratch.lock.unlink()
        before, files = everything(scratch), sorted(os.listdir(scratch.directory))
        report = doctor(scratch, *arguments)
        assert everything(scratch) == before
        assert sorted(os.listdir(scratch.directory)) == files
        differs = in_place != "nothing" and "--cleanup-only" not in arguments
        assert report.names("FAIL") == ({"rules-in-place"} if differs else set())


def test_it_works_where_nothing_can_be_written(scratch: Scratch) -> None:
    everywhere = mounted("mount -o remount,bind,ro /")
    report = doctor(scratch, prefix=everywhere, env={"XTABLES_LOCKFILE": "/xtables.lock"})
    assert report.names("FAIL") == {"lock-file"}


def test_what_it_says_is_what_a_run_with_these_settings_would_do(scratch: Scratch) -> None:
    for arguments in ([], ["-m", "TPROXY"], NATIVE, LOCATIONS["nft"], LOCATIONS["legacy"]):
        assert doctor(scratch, *arguments, "--reconcile").code == 0
        assert scratch.tool(*arguments, "--reconcile").returncode == 0
        assert doctor(scratch, *arguments).code == 0
    replacing = doctor(scratch, "-b", "80", *LOCATIONS["legacy"], "--reconcile")
    replacing.says("rules-in-place", "OK", "the run replaces them")
    foretells(scratch, "rules-in-place", "-b", "80", *LOCATIONS["legacy"], code=3)


def test_a_route_that_was_left_behind_is_a_difference_too(scratch: Scratch) -> None:
    scratch.ip("rule", "add", "fwmark", "1337", "lookup", "133")
    scratch.ip("route", "add", "local", "default", "dev", "lo", "table", "133")
    foretells(scratch, "rules-in-place", code=3).says("rules-in-place", "FAIL", "addresses and routes")
    doctor(scratch, "-m", "TPROXY").says("rules-in-place", "OK")


def test_the_text_has_a_line_for_each_check_and_no_colour_in_a_pipe(scratch: Scratch) -> None:
    done = scratch.tool("doctor", env={"XTABLES_LOCKFILE": "/no/such/lock"})
    assert done.returncode == 3
    *lines, count = done.stdout.splitlines()
    starts = [line.split()[:2] for line in lines if not line.startswith(" ")]
    assert [name for _, name in starts] == list(doctor(scratch).checks)
    assert {status for status, _ in starts} == {"OK", "FAIL"}
    assert len({line.index(line.split()[2]) for line in lines if not line.startswith(" ")}) == 1
    assert count == f"{len(starts)} checks: 1 FAIL, 0 WARN, {len(starts) - 1} OK"
    assert "\x1b" not in done.stdout
    assert "      see docs/doctor.md#lock-file" in lines


def test_a_pod_without_capture_needs_nothing(scratch: Scratch) -> None:
    pod = scratch.directory / "pod.yaml"
    pod.write_text("kind: Pod\nmetadata: {name: a, annotations: {sidecar.istio.io/interceptionMode: NONE}}\n")
    done = scratch.tool("doctor", "--json", "--pod", str(pod), prefix=dropped("net_admin"))
    assert (done.returncode, json.loads(done.stdout)) == (0, {"failed": False, "checks": []})


def test_settings_that_cannot_be_used_are_reported_as_by_every_command(scratch: Scratch) -> None:
    done = scratch.tool("doctor", "-p", "0")
    assert (done.returncode, done.stdout) == (2, "")


# --- rights -----------------------------------------------------------------------------------

UNREADABLE = {
    "ambient-mode",
    "chains-of-others",
    "foreign-rules",
    "route-localnet",
    "rules-in-place",
    "two-backends",
    "unreadable-table",
}


@pytest.mark.parametrize("names", [("net_admin",), ("net_raw",), ("net_admin", "net_raw")])
def test_a_capability_is_missing(scratch: Scratch, names: tuple[str, ...]) -> None:
    report = foretells(scratch, "capabilities", prefix=dropped(*names))
    report.says("capabilities", "FAIL", f"{names[0].upper()}: not in the bounding set")
    assert report.names("FAIL") == {"capabilities", "backend"}
    assert report.names("WARN") == UNREADABLE


def test_another_user_than_root(scratch: Scratch) -> None:
    scratch.directory.chmod(0o777)
    user = everyone.user(1000, "--no-new-privs")
    report = foretells(scratch, "capabilities", prefix=user)
    report.says("capabilities", "FAIL", "NET_RAW: in the bounding set")
    report.says("user", "FAIL", "only root can read")
    report.says("no-new-privs", "WARN")
    capable = [*user, "--inh-caps=+net_admin,+net_raw", "--ambient-caps=+net_admin,+net_raw"]
    report = foretells(scratch, "user", prefix=capable)
    report.says("capabilities", "OK")
    report.says("no-new-privs", "OK", "changes nothing")


def test_a_user_namespace_that_does_not_own_the_network(scratch: Scratch) -> None:
    inside = ["unshare", "--user", "--map-root-user"]
    report = foretells(scratch, "user-namespace", prefix=inside)
    report.says("user-namespace", "FAIL", "belongs to another user namespace")
    report.says("capabilities", "OK")  # as far as this process can tell, it has them


@pytest.mark.parametrize("location", ["legacy", "nft"])
def test_the_proxys_id_does_not_exist_in_the_user_namespace(scratch: Scratch, location: str) -> None:
    inside = ["unshare", "--user", "--map-root-user", "--net"]
    report = doctor(scratch, *LOCATIONS[location], "--cni-mode", prefix=inside)
    report.says("user-namespace", "FAIL", "does not have UID 1337, GID 1337")
    done = scratch.tool(*LOCATIONS[location], "--cni-mode", prefix=inside)
    assert done.returncode == 1
    assert "Invalid argument" in done.stderr or "failed" in done.stderr
    root = ["-u", "0", "-g", "0"]
    doctor(scratch, *LOCATIONS[location], *root, "--cni-mode", prefix=inside).says("user-namespace", "OK")
    assert scratch.tool(*LOCATIONS[location], *root, "--cni-mode", prefix=inside).returncode == 0


def test_native_rules_may_name_ids_that_do_not_exist(scratch: Scratch) -> None:
    inside = ["unshare", "--user", "--map-root-user", "--net"]
    report = doctor(scratch, *NATIVE, "--cni-mode", prefix=inside)
    report.says("user-namespace", "WARN", "match nothing")
    assert scratch.tool(*NATIVE, "--cni-mode", prefix=inside).returncode == 0


def test_the_validation_may_not_become_the_proxy(scratch: Scratch) -> None:
    without = dropped("setuid", "setgid")
    report = foretells(scratch, "validation-rights", "--run-validation", prefix=without, code=126)
    assert report.names("FAIL") == {"validation-rights"}
    doctor(scratch, "--run-validation").says("validation-rights", "OK")


def test_a_container_that_only_validates_needs_no_rights(scratch: Scratch) -> None:
    """As Istio's CNI plugin has it: UID 1337, no capability, and nothing to write."""
    scratch.apply()
    proxy = everyone.user(1337, "--bounding-set=-all")
    report = doctor(scratch, "--run-validation", "--skip-rule-apply", prefix=proxy)
    assert report.code == 0
    report.says("validation-rights", "OK", "the proxy's own")
    report.says("capabilities", "OK", "--skip-rule-apply")
