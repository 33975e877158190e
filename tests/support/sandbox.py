"""Sandbox: a place for the commands of the documentation, which may write files and start services.

It shows the machine's file systems, each below a layer in memory that takes everything that is written
(overlayfs), so a page may install into /opt and /etc, and /tmp, /home or the clone may be file systems of
their own. With `systemd` a real systemd is process 1 in there, which knows nothing of the machine's: its
processes, mounts, control groups and network are its own. When a sandbox is left, however that happens, its
processes, mounts and control groups are gone.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import re
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Self

from tests.support import netns
from tests.support.netns import PREFIX, ROOT, Namespace, Pod

SYSTEMD = Path("/lib/systemd/systemd")
#: Where docs/virtual-machine.md installs.
VENV = Path("/opt/istio-iptables")
LIMIT = 60.0

#: Its arguments: a directory, a folder that is shared with the machine, the name of a control group or `-`,
#: the machine's mount points, one a line, and what becomes the first process.
_SCRIPT = r"""
set -e
directory=$1 shared=$2 group=$3 mount_points=$4
shift 4
mount -t tmpfs tmpfs "$directory"
layers=0
show() ( # show DIRECTORY: in the sandbox too, below a layer that takes what is written
    mkdir "$directory/upper-$layers" "$directory/work-$layers"
    # The root of an overlay has the mode and the owner of its upper directory: /tmp is open to everyone.
    chmod --reference="$1" "$directory/upper-$layers"
    chown --reference="$1" "$directory/upper-$layers"
    cd "$1" # as `.`, since a path may have commas and colons, which mean something in an option
    options=lowerdir=.,upperdir=$directory/upper-$layers,workdir=$directory/work-$layers
    if ! mount -t overlay -o "$options" overlay "$directory/root$1" 2>"$directory/why"; then
        # The kernel takes some file systems, such as FAT, for no lower layer.
        mount --bind . "$directory/root$1"
        mount -o remount,bind,ro "$directory/root$1"
    fi
)
mkdir "$directory/root"
show /
printf '%s\n' "$mount_points" | while IFS= read -r point; do
    layers=$((layers + 1))
    if [ -d "$point" ]; then
        show "$point"
    elif [ -f "$point" ]; then # as a container's /etc/resolv.conf is one
        cp --remove-destination "$point" "$directory/root$point"
    fi
done
cd "$directory/root"
mount --bind "$shared" ".$shared"
mount -t tmpfs tmpfs run
mkdir run/netns
if [ -d /run/netns ]; then mount --rbind /run/netns run/netns; fi
if [ "$group" = - ]; then
    mount --rbind /dev dev
    mount --rbind /sys sys
    mount --rbind /proc proc
else
    # The kernel's own settings and devices are the machine's: systemd sees none and writes none.
    mount -t tmpfs tmpfs dev
    for device in null zero full random urandom tty; do cp -a /dev/$device dev; done
    ln -s pts/ptmx dev/ptmx
    mount -t proc proc proc
    mount --bind proc/sys proc/sys
    mount -o remount,bind,ro proc/sys
    mount -t sysfs -o ro sysfs sys
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    # Nor does it start the machine's services: the targets that every unit is ordered by are all there is.
    for folder in etc/systemd/system lib/systemd/system-generators; do mount -t tmpfs tmpfs $folder; done
    mkdir "$directory/targets"
    cp -P lib/systemd/system/*.target "$directory/targets"
    mount --bind "$directory/targets" lib/systemd/system
    rm -f etc/machine-id etc/fstab
fi
if pivot_root . mnt 2>"$directory/why"; then
    cd /
    umount -l /mnt
    exec "$@"
fi
exec chroot . "$@" # in a chroot there is no pivot_root
"""

#: Below these a sandbox has file systems of its own.
_OWN_FILE_SYSTEMS = ("/dev", "/proc", "/run", "/sys")

#: What the machine mounts later, such as a new network namespace, is seen; nothing goes the other way.
_UNSHARE = ("unshare", "--mount", "--propagation=slave")
#: A control group of its own, before there is a namespace of control groups, whose root it then is.
_ENTER_GROUP = """
    mount -t cgroup2 cgroup2 "$0" && mkdir "$0/$1" && echo $$ >"$0/$1/cgroup.procs" && umount "$0"
    shift && exec "$@"
"""
_REMOVE_GROUP = 'mount -t cgroup2 cgroup2 "$0" && cd "$0" && find "$1" -depth -type d -exec rmdir {} +'


class Sandbox:
    """A context manager; commands run by `run`, in the network namespace that each is given."""

    def __init__(self, namespace: Namespace | None = None, *, systemd: bool = False) -> None:
        """Make one; a systemd needs the `namespace` that is to be its network."""
        self._namespace = namespace
        self._systemd = systemd
        self._group = f"{PREFIX}{uuid.uuid4().hex[:8]}" if systemd else "-"
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.directory = stack.enter_context(tempfile.TemporaryDirectory(prefix=PREFIX))
            self._errors = stack.enter_context(tempfile.TemporaryFile("w+"))
            if self._systemd:
                stack.callback(self._remove_group)
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL if self._systemd else subprocess.PIPE,
                stderr=self._errors,
                text=True,
            )
            stack.callback(self._stop)
            self._wait()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _command(self) -> list[str]:
        script = ["sh", "-c", _SCRIPT, "sh", self.directory, netns._bytecode(), self._group, _mount_points()]
        if not self._systemd:  # `cat` ends when its input does, that is with this process at the latest
            return [*_UNSHARE, *script, "sh", "-c", "echo ready; exec cat"]
        assert self._namespace
        unshare = [*_UNSHARE, "--fork", "--kill-child", "--pid", "--cgroup", "--uts", "--ipc"]
        init = ["env", "-i", "container=unshare", f"PATH={_PATH}", str(SYSTEMD), "--unit=multi-user.target"]
        outside = ["unshare", "--mount", "sh", "-c", _ENTER_GROUP, self.directory, self._group]
        return [*outside, "nsenter", f"--net=/run/netns/{self._namespace.name}", *unshare, *script, *init]

    def _wait(self) -> None:
        """Wait until commands can be run, and learn the process to run them beside."""
        self._pid = self._process.pid
        if not self._systemd:
            assert self._process.stdout
            assert self._process.stdout.readline() == "ready\n", self._why("the sandbox cannot be made")
            return
        deadline = time.monotonic() + LIMIT
        while True:
            assert self._process.poll() is None, self._why("systemd does not start")
            pid = self._process.pid
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            if children and _name_of(children[0]) == "systemd":
                self._pid = int(children[0])
                if self.run("systemctl is-system-running --wait").stdout.strip() in ("running", "degraded"):
                    return
            assert time.monotonic() < deadline, self._why("systemd does not come up")
            time.sleep(0.05)

    def _why(self, what: str) -> str:
        """Return a message with what the sandbox's first process wrote to standard error."""
        self._errors.seek(0)
        return f"{what}: {self._errors.read()}"

    def _stop(self) -> None:
        if self._systemd:
            self._process.kill()  # and with it, by --kill-child, all that is in there
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                stream.close()
        self._process.wait(LIMIT)

    def _remove_group(self) -> None:
        """Remove the control group, once the last process in it has gone."""
        command = ["unshare", "--mount", "sh", "-c", _REMOVE_GROUP, self.directory, self._group]
        deadline = time.monotonic() + LIMIT
        while (done := subprocess.run(command, capture_output=True, text=True, check=False)).returncode:
            assert time.monotonic() < deadline, done.stderr
            time.sleep(0.05)

    def run(
        self, command: str, namespace: Namespace | None = None, *, merged: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command inside; `merged` writes its errors to its output, as a terminal has them."""
        words = ["nsenter", f"--target={self._pid}", "--mount", "--root"]
        words += ["--pid", "--cgroup", "--uts", "--ipc"] if self._systemd else []
        namespace = namespace or self._namespace
        words += [f"--net=/run/netns/{namespace.name}"] if namespace else []
        return subprocess.run(
            [*words, "env", "--chdir", str(ROOT), "sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merged else subprocess.PIPE,
            text=True,
            timeout=LIMIT,
            env=self._environment(),
            check=False,
        )

    def seen_from_outside(self, path: str) -> str:
        """Return the path under which the machine sees a file of the sandbox."""
        return f"/proc/{self._pid}/root{path}"

    def _environment(self) -> dict[str, str]:
        """Return an environment without settings in it, in which `istio-iptables` is the one under test."""
        return {
            "PATH": f"{VENV}/bin:{Path(sys.executable).parent}:{_PATH}",
            "HOME": "/root",
            "LC_ALL": "C.UTF-8",
            "SYSTEMD_COLORS": "0",
            "SYSTEMD_PAGER": "",
            "PYTHONPATH": str(ROOT),
            "PYTHONPYCACHEPREFIX": netns._bytecode(),
        }

    def install(self) -> None:
        """Do what the pip commands of docs/virtual-machine.md do, without a package index.

        Copies, since a hardened service sees no home directories, and Python and this one may be in one.
        """
        packages = ["istio_iptables", "yaml", "_yaml"]
        sources = [path for name in packages for path in _files_of(name)]
        words = " ".join(map(str, dict.fromkeys(sources)))
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        packages_folder = f"{VENV}/lib/python{version}/site-packages"
        script = f"""
            mkdir -p {VENV}/bin {packages_folder} /opt/python
            mount --rbind {sys.base_prefix} /opt/python
            echo /opt/python/lib >/etc/ld.so.conf.d/python.conf  # if it was built with --enable-shared
            ldconfig
            ln -s /opt/python/bin/python{version} {VENV}/bin/python
            echo 'home = /opt/python/bin' >{VENV}/pyvenv.cfg
            cp -a {words} {packages_folder}
            printf '%s\\n' '#!{VENV}/bin/python' 'import sys' 'from istio_iptables.__main__ import main' \
                'sys.exit(main())' >{VENV}/bin/istio-iptables
            chmod 755 {VENV}/bin/istio-iptables
        """
        done = self.run(f"{{ set -e; {script}\n}}")
        assert done.returncode == 0, done.stderr


_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def mount_points(mountinfo: str) -> list[str]:
    """Return what is mounted on the root file system, from proc_pid_mountinfo(5), parents first.

    Without what a sandbox has of its own, and without names that have a line break, which none has.
    """
    # The kernel writes blanks, tabs, line breaks and backslashes as three octal digits.
    names = {
        re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), line.split()[4])
        for line in mountinfo.splitlines()
    }
    own = tuple(f"{folder}/" for folder in _OWN_FILE_SYSTEMS)
    return sorted(
        name for name in names if name != "/" and "\n" not in name and not f"{name}/".startswith(own)
    )


def _mount_points() -> str:
    return "\n".join(mount_points(Path("/proc/self/mountinfo").read_text()))


def _name_of(pid: str) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def _files_of(package: str) -> list[Path]:
    """Return the files or the folder of a package of this environment, nothing if it is not there."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.origin:
        return []
    path = Path(spec.origin)
    return [path.parent if path.name == "__init__.py" else path]


@functools.cache
def why_no_systemd() -> str:
    """Return why a sandbox cannot have a systemd, or nothing if it can."""
    if not SYSTEMD.exists():
        return "systemd is not installed"
    with Path("/proc/filesystems").open() as file:
        return "" if "cgroup2" in file.read() else "the kernel has no cgroup2"


#: The pods that a page may ask for: whether they have IPv4 and IPv6 addresses.
SCENES = {"ipv4": (True, False), "ipv6": (False, True), "dual-stack": (True, True), "machine": (True, False)}


def pod_of(scene: str) -> Pod:
    """Make the pod of a scene."""
    ipv4, ipv6 = SCENES[scene]
    return Pod(ipv4=ipv4, ipv6=ipv6)
