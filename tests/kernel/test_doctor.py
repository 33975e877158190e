"""doctor: each failure, made for real, is found with its remedy, and nothing is changed: SPEC section 9.

Where a check fails, `foretells` has the same run fail, too, with the same remedy.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from istio_iptables.settings.resolve import IPV6_NOT_CAPTURED, NO_ADDRESS
from tests.support.doctor import Report, doctor, foretells
from tests.support.in_place import in_place_of
from tests.support.native import NATIVE, in_place_of_nft
from tests.support.netns import Pod
from tests.support.scratch import KERNEL, SETPRIV, Scratch, wait_until
from tests.support.snapshots import LOCATIONS, everything, with_files

pytestmark = KERNEL


@pytest.fixture
def scratch() -> Iterator[Scratch]:
    """A namespace with a usable IPv4 address."""
    with Scratch() as made:
        made.give("lo", "10.99.0.1/32")
        yield made


def dropped(*capabilities: str) -> list[str]:
    """Return the prefix of a command that is to be without some capabilities."""
    return [SETPRIV, f"--bounding-set={','.join(f'-{name}' for name in capabilities)}"]


def hidden(*programs: str) -> list[str]:
    """Return the prefix of a command that is not to find some programs or libraries."""
    paths = [Path(shutil.which(program) or program).resolve() for program in programs]
    mounts = " && ".join(f"mount --bind /dev/null {path}" for path in dict.fromkeys(paths))
    return ["unshare", "--mount", "--propagation=private", "sh", "-c", f'{mounts} && exec "$@"', "sh"]


def mounted(*mounts: str) -> list[str]:
    """Return the prefix of a command in a mount namespace of its own; $$ is the PID of the command."""
    script = f'{" && ".join(mounts)} && exec "$@"'
    return ["unshare", "--mount", "--propagation=private", "sh", "-c", script, "sh"]


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
    user = [SETPRIV, "--reuid=1000", "--regid=1000", "--clear-groups", "--no-new-privs"]
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
    proxy = [SETPRIV, "--reuid=1337", "--regid=1337", "--clear-groups", "--bounding-set=-all"]
    report = doctor(scratch, "--run-validation", "--skip-rule-apply", prefix=proxy)
    assert report.code == 0
    report.says("validation-rights", "OK", "the proxy's own")
    report.says("capabilities", "OK", "--skip-rule-apply")


# --- programs and libraries -------------------------------------------------------------------

LIBRARIES = "/usr/lib/*-linux-*/xtables /usr/lib/xtables /usr/lib64/xtables"


def library(name: str) -> str:
    """Return the path of a library that this machine has."""
    listed = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    paths = [line.split()[-1] for line in listed.splitlines() if line.split()[:1] == [name]]
    return paths[0]


@pytest.mark.parametrize("name", ["libip4tc.so.2", "libxtables.so.12"])
def test_a_library_of_libiptc_cannot_be_loaded(scratch: Scratch, name: str) -> None:
    pytest.importorskip("iptc")
    report = foretells(scratch, "libiptc", prefix=hidden(library(name)))
    assert name in report.words("libiptc")


def test_the_library_for_ipv6_matters_if_ipv6_is_captured() -> None:
    pytest.importorskip("iptc")
    with Scratch(addresses=True) as scratch:
        without = hidden(library("libip6tc.so.2"))
        doctor(scratch, prefix=without).says("libiptc", "OK")
        foretells(scratch, "libiptc", "--dual-stack", prefix=without)


@pytest.mark.parametrize("variant", ["legacy", "nft"])
def test_the_commands_of_a_variant_are_missing(scratch: Scratch, variant: str) -> None:
    without = hidden(f"xtables-{variant}-multi")
    report = foretells(scratch, f"iptables-{variant}", *LOCATIONS[variant], prefix=without)
    report.says("backend", "FAIL", "is not installed")
    other = {"legacy": "nft", "nft": "legacy"}[variant]
    report = doctor(scratch, *LOCATIONS[other], prefix=without)
    assert report.names("FAIL") == set()
    report.says(f"iptables-{variant}", "OK", "would need it")


def test_tables_that_cannot_be_read_without_a_command_that_is_missing(scratch: Scratch) -> None:
    scratch.apply(*LOCATIONS["nft"])
    foretells(scratch, "backend", prefix=hidden("xtables-nft-multi"))


def test_an_iptables_that_knows_no_other_lock_file(scratch: Scratch, tmp_path: Path) -> None:
    """It takes the lock itself, which the run holds: here flock(1) does that for it."""
    instead = in_place_of(
        "iptables-legacy-restore",
        tmp_path / "bin",
        'name=$(basename "$0")\ncase "$name $1" in\n'
        '*-restore\\ --version) echo "iptables-restore v1.8.4 (legacy)";;\n'
        f'*-restore*) exec flock --nonblock {scratch.lock} $REAL "$name" "$@";;\n'
        '*) exec $REAL "$name" "$@";;\nesac',
    )
    doctor(scratch, *LOCATIONS["legacy"], prefix=instead).says("iptables-legacy", "FAIL", "v1.8.4")
    assert scratch.tool(*LOCATIONS["legacy"], prefix=instead).returncode == 1
    doctor(scratch, *LOCATIONS["legacy"], "--cni-mode", prefix=instead).says("iptables-legacy", "OK")


def test_the_extensions_of_iptables_are_elsewhere(scratch: Scratch) -> None:
    env = {"XTABLES_LIBDIR": str(scratch.directory)}
    for location in ("legacy", "nft"):
        report = doctor(scratch, *LOCATIONS[location], env=env)
        report.says("extensions", "FAIL", "libxt_owner.so")
        assert scratch.tool(*LOCATIONS[location], env=env).returncode == 1
    for arguments in (NATIVE, []):
        doctor(scratch, *arguments, env=env).says("extensions", "OK", "not written by iptables-restore")
        assert scratch.tool(*arguments, "--reconcile", env=env).returncode == 0


def test_the_extensions_of_iptables_are_hidden(scratch: Scratch) -> None:
    folders = [path for pattern in LIBRARIES.split() for path in Path("/").glob(pattern[1:])]
    nothing = mounted(*(f"mount -t tmpfs none {folder}" for folder in folders))
    doctor(scratch, *LOCATIONS["legacy"], prefix=nothing).says("extensions", "FAIL", "libxt_REDIRECT.so")
    assert scratch.tool(*LOCATIONS["legacy"], prefix=nothing).returncode == 1


def test_nft_is_missing(scratch: Scratch) -> None:
    without = hidden("nft")
    doctor(scratch, prefix=without).says("nft", "OK", "only --native-nftables")
    foretells(scratch, "nft", *NATIVE, prefix=without)
    scratch.apply(*NATIVE)
    foretells(scratch, "backend", prefix=without).says("nft", "WARN", "is not installed")


def test_an_nft_without_json(scratch: Scratch, tmp_path: Path) -> None:
    without = 'case " $* " in *" --json "*) echo "JSON support not compiled-in" >&2; exit 1;; esac'
    instead = in_place_of_nft(tmp_path / "bin", f'{without}\nexec "$NFT" "$@"')
    doctor(scratch, prefix=instead).says("nft", "OK", "only --native-nftables")
    foretells(scratch, "nft", *NATIVE, prefix=instead)


def test_an_nft_older_than_the_rules(scratch: Scratch, tmp_path: Path) -> None:
    old = 'case " $* " in *" --version "*) echo "nftables v0.9.8 (E.D.S.)"; exit;; esac'
    instead = in_place_of_nft(tmp_path / "bin", f'{old}\nexec "$NFT" "$@"')
    doctor(scratch, *NATIVE, prefix=instead).says("nft", "FAIL", "v0.9.8")
    doctor(scratch, prefix=instead).says("nft", "OK", "v0.9.8")


# --- the kernel -------------------------------------------------------------------------------

CONFIG = Path("/proc/config.gz")
needs_config = pytest.mark.skipif(not CONFIG.exists(), reason="needs /proc/config.gz")


def configured(scratch: Scratch, change: Callable[[str], str], *more: str) -> list[str]:
    """Return the prefix of a command that is to find another configuration of the kernel."""
    file = scratch.directory / "config.gz"
    file.write_bytes(gzip.compress(change(gzip.decompress(CONFIG.read_bytes()).decode()).encode()))
    return mounted(f"mount --bind {file} {CONFIG}", *more)


def without_option(name: str) -> Callable[[str], str]:
    return lambda text: re.sub(
        rf"^CONFIG_{name}=.*$", f"# CONFIG_{name} is not set", text, flags=re.MULTILINE
    )


#: The kernel's own lists of legacy tables, matches and targets say nothing. There is no other /proc/self/net.
NO_LISTS = "mount -t tmpfs none /proc/$$/net"


def test_a_kernel_without_legacy_tables(scratch: Scratch) -> None:
    """/proc/net is hidden, so that it looks as in a kernel without ip_tables."""
    prefix = mounted(NO_LISTS)
    report = doctor(scratch, prefix=prefix)
    report.says("backend", "OK", "iptables-nft-restore: the kernel has no legacy tables")
    report.says("legacy-tables", "OK", "only rules in the legacy tables would need it")
    report = doctor(scratch, *LOCATIONS["legacy"], prefix=prefix)
    report.says("legacy-tables", "FAIL", "has not loaded legacy iptables (ip_tables)")


@needs_config
@pytest.mark.parametrize(
    ("check", "option", "arguments", "module"),
    [
        ("matches-and-targets", "NETFILTER_XT_MATCH_OWNER", LOCATIONS["nft"], "xt_owner"),
        (
            "matches-and-targets",
            "NETFILTER_XT_TARGET_TPROXY",
            [*LOCATIONS["nft"], "-m", "TPROXY"],
            "xt_TPROXY",
        ),
        ("matches-and-targets", "NFT_TPROXY", [*NATIVE, "-m", "TPROXY"], "nft_tproxy"),
        ("nf-tables", "NFT_COMPAT", LOCATIONS["nft"], "nft_compat"),
        ("ipv6-nat", "NFT_NAT", [*NATIVE, "--dual-stack"], "nft_chain_nat"),
    ],
)
def test_a_kernel_that_was_built_without_a_part(
    check: str, option: str, arguments: list[str], module: str
) -> None:
    with Scratch(addresses=True) as scratch:
        prefix = configured(scratch, without_option(option), NO_LISTS)
        doctor(scratch, *arguments, prefix=prefix).says(check, "FAIL", module)
        doctor(scratch, *arguments, prefix=configured(scratch, str, NO_LISTS)).says(check, "OK")


@needs_config
def test_what_nothing_tells_of_is_not_guessed(scratch: Scratch) -> None:
    """As in a container on a node without /proc/config.gz, where the modules are not loaded yet."""
    report = doctor(scratch, prefix=mounted(f"mount --bind /dev/null {CONFIG}", NO_LISTS))
    report.says("matches-and-targets", "WARN", "could not be checked")
    assert report.names("FAIL") == set()


@needs_config
def test_nf_tables_that_asking_would_load_are_not_asked(scratch: Scratch) -> None:
    """The configuration says that it is a module, and nothing that it is loaded: it has no tables then."""
    scratch.nft(script="table inet istio-ambient-x { chain c { type nat hook output priority 0; }; }")
    doctor(scratch).says("ambient-mode", "FAIL")
    as_module = configured(scratch, lambda text: text.replace("CONFIG_NF_TABLES=y", "CONFIG_NF_TABLES=m"))
    report = doctor(scratch, prefix=as_module)
    report.says("ambient-mode", "OK")
    report.says("nf-tables", "OK", "not loaded yet: nf_tables")


# --- files ------------------------------------------------------------------------------------


def test_run_is_read_only(scratch: Scratch) -> None:
    prefix, env = mounted("mount -t tmpfs -o ro none /run"), {"XTABLES_LOCKFILE": ""}
    report = foretells(scratch, "lock-file", prefix=prefix, env=env)
    report.says("lock-file", "FAIL", "/run/xtables.lock cannot be opened: Read-only file system")
    doctor(scratch, "--cni-mode", prefix=prefix, env=env).says("lock-file", "OK", "--cni-mode")
    there = mounted("mount -t tmpfs none /run", ":>/run/xtables.lock", "mount -o remount,ro /run")
    doctor(scratch, prefix=there, env=env).says("lock-file", "OK", "can be opened")


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/no/such/directory/lock", "No such file or directory"),
        ("/proc/xtables.lock", "No such file or directory"),
        ("/etc/passwd/lock", "Not a directory"),
        ("/etc", "Is a directory"),
    ],
)
def test_another_lock_file_that_cannot_be_opened(scratch: Scratch, path: str, why: str) -> None:
    env = {"XTABLES_LOCKFILE": path}
    foretells(scratch, "lock-file", env=env).says("lock-file", "FAIL", f"{path} cannot be opened: {why}")


def held(scratch: Scratch, path: str | os.PathLike[str]) -> subprocess.Popen[str]:
    """Return a process that holds a lock."""
    holder = scratch.spawn("flock", "--no-fork", path, "sh", "-c", "echo; exec sleep 600")
    assert holder.stdout
    holder.stdout.readline()
    return holder


def test_a_lock_is_held_and_its_holder_is_named(scratch: Scratch) -> None:
    for path, shown in ((scratch.lock, str(scratch.lock)), (scratch.path, "/proc/self/ns/net")):
        holder = held(scratch, path)
        wait_until(lambda pid=holder.pid: Path(f"/proc/{pid}/comm").read_text() == "sleep\n")  # type: ignore[misc]
        report = doctor(scratch)
        report.says("lock-held", "WARN", f"the lock {shown} is held by sleep (PID {holder.pid})")
        assert report.code == 0
        hidden_from = ["unshare", "--pid", "--fork", "--mount-proc"]
        doctor(scratch, prefix=hidden_from).says("lock-held", "WARN", f"{shown} is held by another process")
        holder.kill()
        holder.wait()
        doctor(scratch, prefix=hidden_from).says("lock-held", "OK")
        doctor(scratch).says("lock-held", "OK")


def test_the_file_of_a_dry_run_cannot_be_written(scratch: Scratch) -> None:
    for path in ("/no/such/directory/file", "/etc", "/proc/file"):
        foretells(scratch, "dry-run-file", "--dry-run", env={"DRY_RUN_FILE_PATH": path})
    path = str(scratch.directory / "file")
    assert (
        doctor(scratch, "--dry-run", env={"DRY_RUN_FILE_PATH": path}, prefix=dropped("net_admin")).code == 0
    )
    assert not os.path.exists(path)


# --- the network namespace --------------------------------------------------------------------


def test_addresses() -> None:
    with Scratch() as scratch:
        doctor(scratch).says("addresses", "WARN", NO_ADDRESS)
        scratch.give("lo", "fd99::1/128")
        doctor(scratch).says("addresses", "OK", "IPv6 only")
        scratch.give("lo", "10.99.0.1/32")
        doctor(scratch).says("addresses", "WARN", IPV6_NOT_CAPTURED)
        doctor(scratch, "--dual-stack").says("addresses", "OK", "both captured")


def test_ipv6_is_switched_off_for_lo(scratch: Scratch) -> None:
    scratch.ip("link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
    scratch.give("eth0", "fd01::5/64")
    scratch.check("sysctl", "-qw", "net.ipv6.conf.lo.disable_ipv6=1")
    report = foretells(scratch, "ipv6-disabled", "--dual-stack")
    assert report.names("FAIL") == {"ipv6-disabled", "routing"}
    assert report.checks["routing"]["remedy"] == report.checks["ipv6-disabled"]["remedy"]
    doctor(scratch).says("ipv6-disabled", "OK", "not captured")


def test_ipv6_is_switched_off_for_all(scratch: Scratch) -> None:
    scratch.check("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
    doctor(scratch, "--dual-stack").says("ipv6-disabled", "WARN", "only IPv4 is captured")
    doctor(scratch).says("ipv6-disabled", "OK")


def test_an_interface_that_does_not_exist(scratch: Scratch) -> None:
    doctor(scratch, "-c", "lo1").says("interfaces", "WARN", "did you mean lo?")
    doctor(scratch, "-c", "lo").says("interfaces", "OK")


def of_pod(pod: Pod, *arguments: str) -> Report:
    done = pod.tool("doctor", "--json", *arguments)
    return Report(done.code, done.out, done.err)


def test_what_tproxy_captures_is_dropped_with_src_valid_mark(new_pod: Callable[..., Pod]) -> None:
    """rp_filter alone makes no difference, whatever it is."""
    pod = new_pod(ipv6=False)
    assert pod.tool("-m", "TPROXY").code == 0
    pod.listen("proxy", tcp=[15006], transparent=True)
    cases = [(0, 0, 0), (1, 0, 0), (2, 0, 0), (0, 1, 0), (1, 1, 0), (0, 1, 1), (1, 1, 1), (2, 1, 1)]
    for rp_filter, src_valid_mark, accept_local in cases:
        for name in ("all", "eth0"):
            pod.sysctl(f"net/ipv4/conf/{name}/rp_filter", rp_filter)
            pod.sysctl(f"net/ipv4/conf/{name}/src_valid_mark", src_valid_mark)
            pod.sysctl(f"net/ipv4/conf/{name}/accept_local", accept_local)
        arrives = not src_valid_mark or (accept_local == 1 and rp_filter != 1)
        report = of_pod(pod, "-m", "TPROXY")
        report.says("rp-filter", "OK" if arrives else "FAIL")
        call = pod.client.connect("10.88.0.2", 8080, limit=30 if arrives else 1)
        assert (call.arrival is not None) == arrives, (rp_filter, src_valid_mark, accept_local)
        of_pod(pod, "--reconcile").says("rp-filter", "OK", "only to TPROXY")


def test_a_foreign_rule_sends_packets_from_outside_to_localhost(new_pod: Callable[..., Pod]) -> None:
    pod = new_pod(ipv6=False)
    rule = "iptables-legacy -t nat -A PREROUTING -p tcp --dport 9000 -j DNAT --to-destination 127.0.0.1:80"
    pod.run(rule.split())
    pod.listen("local", tcp=[80], addresses=["127.0.0.1"])
    report = of_pod(pod)
    report.says("route-localnet", "WARN", "--to-destination 127.0.0.1:80 (ipv4 nat (iptables-legacy))")
    assert pod.client.connect("10.88.0.2", 9000, limit=1).arrival is None
    pod.sysctl("net/ipv4/conf/all/route_localnet", 1)
    of_pod(pod).says("route-localnet", "OK", "every interface")
    arrival = pod.client.connect("10.88.0.2", 9000).arrival
    assert arrival is not None
    assert arrival.name == "local"


def test_a_virtual_machine_needs_forwarding(scratch: Scratch) -> None:
    scratch.check("sysctl", "-qw", "net.ipv4.ip_forward=0")
    doctor(scratch).says("ip-forward", "OK", "not needed")
    doctor(scratch, "-k", "lo").says("ip-forward", "WARN", "net.ipv4.ip_forward is 0")
    scratch.check("sysctl", "-qw", "net.ipv4.ip_forward=1")
    doctor(scratch, "-k", "lo").says("ip-forward", "OK")


def test_another_default_route_is_in_the_way(scratch: Scratch) -> None:
    scratch.ip("route", "add", "unreachable", "default", "table", "133")
    foretells(scratch, "routing", "-m", "TPROXY")
    doctor(scratch).says("routing", "OK")
    doctor(scratch, "-m", "TPROXY", "-r", "134").says("routing", "OK")
    scratch.ip("route", "del", "unreachable", "default", "table", "133")
    scratch.ip("route", "add", "unreachable", "default", "metric", "7", "table", "133")
    doctor(scratch, "-m", "TPROXY").says("routing", "OK")
    assert scratch.tool("-m", "TPROXY").returncode == 0


def test_another_address_is_in_the_way() -> None:
    with Scratch(addresses=True) as scratch:
        scratch.give("lo", "::6/64")
        foretells(scratch, "routing", "--dual-stack")
        doctor(scratch).says("routing", "OK")


def test_the_network_namespace_is_not_there(scratch: Scratch) -> None:
    for name in ("no-such-namespace", "/etc/passwd"):
        report = doctor(scratch, "--network-namespace", name)
        report.says("network-namespace", "FAIL", name)
        assert report.names("FAIL") == {"network-namespace"}
        report.says("capabilities", "OK")
        report.says("addresses", "WARN", "could not be entered")
        assert scratch.tool("--network-namespace", name).returncode == 2


def test_what_is_in_another_network_namespace_does_not_count(scratch: Scratch) -> None:
    """Not even to tell which backend a run would use."""
    scratch.apply(*LOCATIONS["nft"])
    prefix = hidden("xtables-legacy-multi")
    doctor(scratch, prefix=prefix).says("iptables-legacy", "OK", "would need it")
    report = doctor(scratch, "--network-namespace", "no-such-namespace", prefix=prefix)
    report.says("iptables-legacy", "WARN", "where these go is not known")


def test_the_network_namespace_may_not_be_entered(scratch: Scratch) -> None:
    arguments, prefix = ["--network-namespace", scratch.path], dropped("sys_admin")
    foretells(scratch, "network-namespace", *arguments, prefix=prefix)


def test_the_network_namespace_that_is_looked_at_is_that_of_the_settings(scratch: Scratch) -> None:
    with Scratch() as other:
        scratch.nft(script="table inet istio-ambient-x { chain c { type nat hook output priority 0; }; }")
        doctor(other).says("ambient-mode", "OK")
        report = doctor(other, "--network-namespace", scratch.name)
        report.says("network-namespace", "OK", "was entered")
        report.says("ambient-mode", "FAIL")


# --- names ------------------------------------------------------------------------------------


def test_resolv_conf_is_missing(scratch: Scratch) -> None:
    nothing = mounted("mount -t tmpfs none /etc")
    doctor(scratch, "--redirect-dns", prefix=nothing).says(
        "resolv-conf", "WARN", "/etc/resolv.conf is missing"
    )
    doctor(scratch, prefix=nothing).says("resolv-conf", "OK", "not needed")


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        ("", "WARN", "names no server"),
        ("search example.org\n", "WARN", "names no server"),
        ("nameserver ten.0.0.1\n", "WARN", "'ten.0.0.1' is not an address"),
        ("nameserver 10.0.0.10\nnameserver fd00::10\n", "OK", "10.0.0.10, fd00::10"),
    ],
)
def test_what_resolv_conf_says(scratch: Scratch, text: str, status: str, words: str) -> None:
    prefix = with_files(scratch, {"/etc/resolv.conf": text})
    report = doctor(scratch, "--redirect-dns", prefix=prefix)
    report.says("resolv-conf", status, words)
    report.says("settings", "OK")
    doctor(scratch, "--redirect-dns", "--capture-all-dns", prefix=prefix).says(
        "resolv-conf", "OK", "any server"
    )


Odd = tuple[list[str], dict[str, str]]

#: A service for nsswitch.conf(5). A name that begins with the word is looked up as slowly as its number says,
#: in tenths of a second; `crash` ends the process.
NSS = """
#include <nss.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
enum nss_status _nss_odd_getpwnam_r(
    const char *name, struct passwd *result, char *buffer, size_t size, int *error)
{
    if (strcmp(name, "crash") == 0) _exit(77);
    if (strncmp(name, "slow", 4) == 0) usleep(atoi(name + 4) * 100000);
    return NSS_STATUS_NOTFOUND;
}
"""


@pytest.fixture
def odd_names(scratch: Scratch) -> Odd:
    """The prefix and the variables of a command that is to look users up with that service."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    source, compiled = scratch.directory / "odd.c", scratch.directory / "libnss_odd.so.2"
    source.write_text(NSS)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", compiled, source], check=True, timeout=60)
    prefix = with_files(scratch, {"/etc/nsswitch.conf": "passwd: odd files\ngroup: files\n"})
    return prefix, {"LD_LIBRARY_PATH": str(scratch.directory)}


def test_a_slow_look_up_of_the_proxys_user(scratch: Scratch, odd_names: Odd) -> None:
    prefix, env = odd_names
    report = doctor(scratch, prefix=prefix, env={**env, "ENVOY_USER": "slow12"})
    report.says("name-lookup", "WARN", "'slow12'")
    report = doctor(scratch, "-u", "1337", prefix=prefix, env={**env, "ENVOY_USER": "slow12"})
    report.says("name-lookup", "OK", "no user or group")
    doctor(scratch, prefix=prefix, env={**env, "ENVOY_USER": "quick"}).says("name-lookup", "OK", "'quick'")


def test_a_look_up_that_ends_its_process(scratch: Scratch, odd_names: Odd) -> None:
    prefix, env = odd_names
    report = doctor(scratch, prefix=prefix, env={**env, "ENVOY_USER": "crash"})
    report.says("name-lookup", "WARN", "the look-up of 'crash' ended its process (77)")


def test_a_look_up_without_an_answer_is_given_up(scratch: Scratch, odd_names: Odd) -> None:
    prefix, env = odd_names
    code = (
        "from istio_iptables.doctor.live.names import PatientMachine\n"
        "machine = PatientMachine(limit=0.1)\n"
        "assert machine.user_id('slow6000') is machine.user_id('slow6000') is None\n"
        "(found,) = machine.look_ups\n"
        "print(found.problem)\n"
    )
    done = scratch.run(*prefix, sys.executable, "-c", code, env=env)
    assert done.stdout.startswith("has no answer after 0.1 seconds"), done.stderr


# --- what is in place -------------------------------------------------------------------------


def test_ambient_mode(scratch: Scratch) -> None:
    scratch.nft(script="table inet istio-ambient-nat { chain c { type nat hook output priority 0; }; }")
    report = foretells(scratch, "ambient-mode")
    assert report.names("FAIL") == {"ambient-mode"}


def test_a_foreign_rule_in_a_chain_of_istios_name(scratch: Scratch) -> None:
    for words in ("-N ISTIO_OUTPUT", "-A ISTIO_OUTPUT -p udp -j LOG"):
        scratch.check("iptables-legacy", "-t", "nat", *words.split())
    report = foretells(scratch, "chains-of-others")
    report.says("chains-of-others", "FAIL", "-A ISTIO_OUTPUT -p udp -j LOG")
    report.says("rules-in-place", "WARN")


MASQUERADE = """table ip nat {
    chain POSTROUTING { type nat hook postrouting priority 100; policy accept; oifname "eth0" masquerade; }
}"""


def test_a_table_that_iptables_cannot_read(scratch: Scratch) -> None:
    scratch.nft(script=MASQUERADE)
    report = doctor(scratch)
    assert report.code == 0
    report.says("unreadable-table", "WARN", "rules go to iptables-legacy instead")
    report.says("nft", "OK")
    foretells(scratch, "unreadable-table", *LOCATIONS["nft"]).says("backend", "FAIL", "ip nat")


def test_a_table_with_rules_of_ours_that_became_unreadable(scratch: Scratch) -> None:
    scratch.apply(*LOCATIONS["nft"])
    scratch.nft(script=MASQUERADE)
    report = foretells(scratch, "unreadable-table")
    report.says("unreadable-table", "FAIL", "which has chains of istio-iptables")


def test_two_backends_are_in_use(scratch: Scratch) -> None:
    scratch.apply(*LOCATIONS["nft"])
    doctor(scratch).says("two-backends", "OK", "rules are in nf_tables only")
    scratch.check("iptables-legacy", "-t", "filter", "-N", "EMPTY")
    doctor(scratch).says("two-backends", "OK")
    scratch.check("iptables-legacy", "-t", "filter", "-A", "OUTPUT", "-p", "udp", "-j", "ACCEPT")
    report = doctor(scratch)
    report.says("two-backends", "WARN", "iptables-legacy: ipv4 filter\nnf_tables: ip nat")
    assert report.code == 0


def test_our_rules_are_in_two_places(scratch: Scratch) -> None:
    script = scratch.tool("render").stdout
    scratch.apply(*LOCATIONS["nft"])
    scratch.restore("legacy", "ipv4", script)
    report = doctor(scratch)
    report.says("two-backends", "WARN", "iptables-legacy, iptables-nft")
    assert scratch.tool("--reconcile").returncode == 0
    doctor(scratch).says("two-backends", "OK")


def test_a_foreign_rule_takes_connections_first(scratch: Scratch) -> None:
    scratch.nft(
        script="table ip other { chain pre { type nat hook prerouting priority -110;"
        " tcp dport 8080 dnat to 172.17.0.2:80; }; }"
    )
    report = doctor(scratch)
    report.says("foreign-rules", "WARN", "this bypasses the proxy: inbound TCP to port 8080")
    assert report.code == 0
    doctor(scratch, "-b", "80").says("foreign-rules", "OK")


def test_a_user_whose_name_is_a_number(scratch: Scratch) -> None:
    prefix = with_files(scratch, {"/etc/passwd": "1337:x:5:5::/:/bin/sh\n"})
    report = doctor(scratch, *NATIVE, prefix=prefix)
    report.says("settings", "FAIL", "a user is named '1337'")
    assert scratch.tool(*NATIVE, prefix=prefix).returncode == 2
    doctor(scratch, prefix=prefix).says("settings", "OK")


def test_settings_without_effect(scratch: Scratch) -> None:
    doctor(scratch, "--capture-all-dns").says("settings", "WARN", "--capture-all-dns has no effect")
