#!/usr/bin/env python3
"""Runs a command of this project in a bare Debian: tools/bare_debian.py [COMMAND...]

The command is `make test` unless another one is given; `sh` is one to look around with. It runs as root in
Debian's smallest system and git, make, python3, ca-certificates, in a clone of the last commit below /root,
where nobody else may look, with a /tmp of its own (tmpfs). That finds what this machine has had all along.

    SUITE   the release of Debian (this machine's, or bookworm)
    MIRROR  where its packages come from (where this machine's apt has them)

It shares this machine's network. What apt and pip are told here about their sources (mirrors, proxies, own
authorities) is told there too. Nothing is left, whatever ends this program: mounts and processes are in
namespaces of their own, and a process that outlives it removes the folder, which is in /var/tmp.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from elsewhere import ROOT, CannotBuild, apt_settings, ask, authorities, debootstrap, pip_settings, setting

PACKAGES = "git,make,python3,ca-certificates"
CLONE = "root/istio-iptables"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: Where Debian's programs look for authorities.
AUTHORITIES_THERE = "etc/ssl/certs/ca-certificates.crt"
#: Variables that go with it: how to reach package sources, what a terminal can do, what pytest is told.
GOES_WITH_IT = re.compile(
    r"(https?|ftp|all|no)_proxy|TERM|COLUMNS|LINES|NO_COLOR|FORCE_COLOR|HYPOTHESIS_PROFILE|PYTEST_ADDOPTS",
    re.IGNORECASE,
)

#: Holds the folder: makes it, names it, and removes it when its standard input ends. What dies late may still
#: be writing.
_WATCHER = r"""
trap '' INT TERM HUP QUIT
folder=$(mktemp --directory /var/tmp/istio-iptables-bare-XXXXXX) || exit 1
trap 'for i in 1 2 3 4 5 6 7 8 9; do rm -rf --one-file-system "$folder" && break; sleep 1; done' EXIT
echo "$folder"
exec >/dev/null
cat
"""

#: The first process in there, from here on the parent of all whose own is gone. Its arguments: the
#: folder, the clone in it, and the command.
_ENTER = r"""
set -e
folder=$1 clone=$2
shift 2
mount --bind "$folder" "$folder"
cd "$folder"
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
pivot_root . mnt
cd /
umount -l /mnt
cd "$clone"
"$@"
exit $?
"""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    if arguments[:1] and arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    if arguments[:1] == ["--inside"]:
        return inside(Path(arguments[1]), arguments[2:])
    if sys.platform != "linux":
        say("it takes Linux")
        return 1
    if os.geteuid() != 0:
        if not shutil.which("sudo"):
            say("it takes root, or sudo")
            return 1
        os.execvp("sudo", ["sudo", "-E", sys.executable, __file__, *arguments])
    if ask("git", "-C", str(ROOT), "status", "--porcelain"):
        say("what is not committed is not in it")
    command = arguments or ["make", "test"]
    with folder_for_a_while() as folder:
        return in_namespaces(sys.executable, __file__, "--inside", f"{folder}/system", *command)


def say(text: str) -> None:
    """Tell the user something, now."""
    print(f"bare-debian: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def folder_for_a_while() -> Iterator[str]:
    """Hold a folder that is gone afterwards, also when this process is killed."""
    pipe = subprocess.PIPE
    watcher = subprocess.Popen(
        ["sh", "-c", _WATCHER], stdin=pipe, stdout=pipe, text=True, start_new_session=True
    )
    assert watcher.stdin
    assert watcher.stdout
    try:
        yield watcher.stdout.readline().rstrip("\n")
    finally:
        say("removing the bare Debian ...")
        watcher.stdin.close()
        watcher.wait()
        watcher.stdout.close()


def in_namespaces(*command: str) -> int:
    """Run a command as the first process of namespaces, which end with this process; return its exit code.

    A process that gets Ctrl-C in there ends by itself.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    unshare = ["unshare", "--mount", "--propagation=slave", "--pid", "--fork", "--kill-child", "--mount-proc"]
    done = subprocess.run(
        ["setpriv", "--pdeathsig=KILL", *unshare, "--", *command],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # an ignored signal is inherited
        check=False,
    )
    return done.returncode if done.returncode >= 0 else 128 - done.returncode


def inside(folder: Path, command: Sequence[str]) -> int:
    """Make the system in a folder and become the command in it. Called in namespaces of its own."""
    suite = setting("SUITE", release())
    folder.mkdir()
    folder.chmod(0o755)  # whatever the umask is
    say(f"making a bare Debian ({suite}) in {folder}, which takes a minute or two ...")
    try:
        debootstrap(suite, folder, PACKAGES)
    except CannotBuild as why:
        say(str(why))
        return 1
    clone = ["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(folder / CLONE)]
    if subprocess.run(clone, check=False).returncode != 0:
        return 1
    (folder / "root").chmod(0o700)
    tell_of_package_sources(folder)
    say(f"running: {' '.join(command)}")
    os.execvpe("sh", ["sh", "-c", _ENTER, "sh", str(folder), f"/{CLONE}", *command], environment(os.environ))


def release() -> str:
    """Return the name of this machine's release of Debian; bookworm on any other system."""
    with contextlib.suppress(OSError):
        facts = platform.freedesktop_os_release()
        if facts["ID"] == "debian":
            return facts.get("VERSION_CODENAME", "sid")
    return "bookworm"


def tell_of_package_sources(folder: Path) -> None:
    """Write what apt and pip need to reach theirs."""
    there = f"/{AUTHORITIES_THERE}" if authorities() else ""
    if there:
        shutil.copyfile(authorities(), folder / AUTHORITIES_THERE)
    (folder / "etc/apt/apt.conf").write_text(apt_settings(there))
    (folder / "etc/pip.conf").write_text(pip_settings(there))


def environment(of_here: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a process in there has, as far as they come from this machine."""
    passed = {name: value for name, value in of_here.items() if GOES_WITH_IT.fullmatch(name)}
    return {**passed, "HOME": "/root", "PATH": PATH}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
