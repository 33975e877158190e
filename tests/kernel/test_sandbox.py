"""The sandbox of the tests: it shows the machine as it is, and nothing that is written reaches it."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from tests.support.netns import ROOT
from tests.support.sandbox import Sandbox, mount_points


def test_mount_points_are_read_as_the_kernel_writes_them():
    mountinfo = textwrap.dedent(r"""
        21 1 8:1 / / rw - ext4 /dev/sda1 rw
        22 21 0:20 / /proc rw - proc proc rw
        23 22 0:21 / /proc/sys/fs/binfmt_misc rw - autofs systemd-1 rw
        24 21 0:22 / /run rw - tmpfs tmpfs rw
        25 21 0:23 / /runs rw - tmpfs tmpfs rw
        27 26 0:25 / /home/a\040b\134c rw - tmpfs tmpfs rw
        26 21 0:24 / /home rw - tmpfs tmpfs rw
        28 21 0:26 / /tmp rw shared:5 - tmpfs tmpfs rw
        29 21 0:27 / /tmp rw shared:6 - tmpfs tmpfs rw
    """).lstrip()
    assert mount_points(mountinfo) == ["/home", r"/home/a b\c", "/runs", "/tmp"]


#: A machine on which directories are file systems of their own, with a file in each, and a file is mounted.
MACHINE = """
set -e
mount -t tmpfs -o mode=1777 tmpfs "$1"
cd "$1"
mkdir a,b:c
mount -t tmpfs -o mode=711,uid=1000 tmpfs a,b:c
echo outer >file
echo inner >a,b:c/file
echo 192.0.2.1 mounted >hosts
mount --bind hosts /etc/hosts
cd "$2"
shift 2
exec "$@"
"""
INSIDE = """
cd "{0}" && cat file a,b:c/file /etc/hosts && stat --format "%a %u" . a,b:c
for file in file a,b:c/file /etc/hosts; do echo changed >$file; done
cat file a,b:c/file /etc/hosts
"""
CODE = f"""
import sys
from tests.support import netns
from tests.support.sandbox import Sandbox
try:
    with Sandbox() as sandbox:
        print(sandbox.run({INSIDE!r}.format(sys.argv[1]), merged=True).stdout, end="")
finally:
    netns.clean_up()
for file in (sys.argv[1] + "/file", sys.argv[1] + "/a,b:c/file", "/etc/hosts"):
    print(open(file).read(), end="")
"""


def test_what_is_mounted_is_shown_and_never_written(tmp_path):
    machine = ["unshare", "--mount", "sh", "-c", MACHINE, "sh", str(tmp_path), str(ROOT)]
    command = [*machine, sys.executable, "-c", CODE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    shown = ["outer", "inner", "192.0.2.1 mounted"]
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout.splitlines() == [*shown, "1777 0", "711 1000", *["changed"] * 3, *shown]


def test_a_sandbox_that_cannot_be_made_says_why(monkeypatch):
    monkeypatch.setattr("tests.support.sandbox._SCRIPT", "echo the reason >&2; exit 1")
    with pytest.raises(AssertionError, match="the sandbox cannot be made: the reason"), Sandbox():
        pass
