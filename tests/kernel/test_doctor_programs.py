"""doctor where a program, a library, a part of the kernel or a file is missing: made for real."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.doctor import doctor, foretells
from tests.support.in_place import in_place_of
from tests.support.native import NATIVE, in_place_of_nft
from tests.support.scratch import KERNEL, Scratch, wait_until
from tests.support.snapshots import LOCATIONS

from ..support.doctor import dropped, hidden, mounted

pytestmark = KERNEL


@pytest.fixture
def scratch() -> Iterator[Scratch]:
    """A namespace with a usable IPv4 address."""
    with Scratch() as made:
        made.give("lo", "10.99.0.1/32")
        yield made


# --- programs and libraries -------------------------------------------------------------------

LIBRARIES = "/usr/lib/*-linux-*/xtables /usr/lib/xtables /usr/lib64/xtables"


def library(name: str) -> str:
    """Return the path of a library that this machine has."""
    listed = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    paths = [line.split()[-1] for line in listed.splitlines() if line.split()[:1] == [name]]
    return paths[0]


@pytest.mark.parametrize("name", ["libip4tc.so.2"])
def test_a_library_of_libiptc_cannot_be_loaded(scratch: Scratch, name: str) -> None:
    report = foretells(scratch, "libiptc", prefix=hidden(library(name)))
    assert name in report.words("libiptc")


def test_the_library_for_ipv6_matters_if_ipv6_is_captured() -> None:
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


#: Something that only nft can show, in a table of this tool.
BY_OTHERS = "add rule inet istio-proxy-nat istio-output limit rate 3/hour counter accept\n"


def test_nft_is_missing(scratch: Scratch) -> None:
    without = hidden("nft")
    doctor(scratch, *NATIVE, prefix=without).says("nft", "OK", "only tables with rules of other programs")
    scratch.apply(*NATIVE)
    doctor(scratch, *NATIVE, prefix=without).says("nft", "OK", "is not installed")
    scratch.nft(script=BY_OTHERS)
    foretells(scratch, "backend", *NATIVE, prefix=without)


def test_an_nft_without_json(scratch: Scratch, tmp_path: Path) -> None:
    without = 'case " $* " in *" --json "*) echo "JSON support not compiled-in" >&2; exit 1;; esac'
    instead = in_place_of_nft(tmp_path / "bin", f'{without}\nexec "$NFT" "$@"')
    doctor(scratch, *NATIVE, prefix=instead).says("nft", "OK", "only tables with rules of other programs")
    scratch.apply(*NATIVE)
    scratch.nft(script=BY_OTHERS)
    foretells(scratch, "backend", *NATIVE, prefix=instead)


def test_an_nft_older_than_what_can_be_read(scratch: Scratch, tmp_path: Path) -> None:
    old = 'case " $* " in *" --version "*) echo "nftables v0.9.8 (E.D.S.)"; exit;; esac'
    instead = in_place_of_nft(tmp_path / "bin", f'{old}\nexec "$NFT" "$@"')
    doctor(scratch, *NATIVE, prefix=instead).says("nft", "OK", "v0.9.8")
    scratch.apply(*NATIVE)
    scratch.nft(script=BY_OTHERS)
    doctor(scratch, *NATIVE, prefix=instead).says("nft", "FAIL", "v0.9.8")


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
