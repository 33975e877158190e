"""cni_node: a node with the plugin on it: its folders, its files, and the process that keeps it there."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from istio_iptables.cni.names import PLUGIN
from tests.support.cni import RESULT, configuration, variables
from tests.support.command import ENVIRONMENT
from tests.support.netns import ROOT, Namespace

LIST = '{"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge"}, {"type": "portmap"}]}\n'
#: However busy the machine is.
PATIENCE = 60.0


@functools.cache
def launcher() -> Path:
    """Compile what starts the plugin, once; the folder stays until this process ends."""
    folder = tempfile.TemporaryDirectory(prefix="istio-iptables-launcher-")
    _kept.append(folder)
    path = Path(folder.name) / "launch"
    source = ROOT / "tools/launch.c"
    command = ["cc", "-static", "-Os", "-s", "-Wall", "-Wextra", "-Werror", "-o", str(path), str(source)]
    subprocess.run(command, check=True, timeout=PATIENCE)
    return path


@functools.cache
def environment() -> dict[str, str]:
    """The environment of commands: without the client of the Kubernetes API, whose import takes long."""
    hiding = launcher().parent / "hiding/kubernetes"
    hiding.mkdir(parents=True)
    (hiding / "__init__.py").write_text("raise ImportError\n")
    return {**ENVIRONMENT, "PYTHONPATH": f"{hiding.parent}:{ENVIRONMENT['PYTHONPATH']}"}


_kept: list[tempfile.TemporaryDirectory[str]] = []


def why_no_launcher() -> str:
    """Return why the launcher cannot be compiled, or nothing."""
    return "" if shutil.which("cc") else "there is no C compiler"


def cni(*arguments: str, prefix: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run a command of `istio-iptables cni`."""
    command = [*prefix, sys.executable, "-m", "istio_iptables", "cni", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def folders(node: Path) -> list[str]:
    return [f"--conf-dir={node / 'conf'}", f"--bin-dir={node / 'bin'}"]


def make_node(path: Path, text: str = LIST) -> Path:
    """Make the folders of a node with a network."""
    (path / "conf").mkdir(parents=True)
    (path / "bin").mkdir()
    (path / "conf/10-net.conflist").write_text(text)
    return path


class Agent:
    """`cni install --watch` on a node, as a context manager."""

    def __init__(self, node: Path, *arguments: str, prefix: Sequence[str] = ()) -> None:
        self.node = node
        self.address = str(node / "agent.sock")
        listen = f"--listen=unix:{self.address}"
        command = [
            "cni",
            "install",
            "--watch",
            *folders(node),
            f"--launcher={launcher()}",
            listen,
            *arguments,
        ]
        self._command = [*prefix, sys.executable, "-m", "istio_iptables", *command]

    def __enter__(self) -> Self:
        self._log = (self.node / "log").open("w+")
        self.process = subprocess.Popen(self._command, cwd=ROOT, env=environment(), stderr=self._log)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        self._log.close()

    @property
    def log(self) -> str:
        return (self.node / "log").read_text()

    def terminate(self) -> int:
        """End it as kubelet does, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def get(self, path: str) -> tuple[int, str]:
        """Ask it over HTTP."""
        connection = http.client.HTTPConnection("agent")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(PATIENCE)
        connection.sock.connect(self.address)
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.02)

    def is_ready(self) -> bool:
        return os.path.exists(self.address) and self.get("/readyz") == (200, "ok\n")


def is_chained(node: Path, name: str = "10-net.conflist") -> bool:
    """Tell whether the plugin is in a list."""
    return PLUGIN in (node / "conf" / name).read_text()


def bare_root(node: Path) -> list[str]:
    """Make a root file system that has the plugin's files, and nothing else but what the kernel makes.

    Return the beginning of a command that is run in it. Each has a mount namespace of its own.
    """
    root = node / "root"
    if not root.exists():
        (root / "opt/cni").mkdir(parents=True)
        (root / "proc").mkdir()
        (root / "run/netns").mkdir(parents=True)
        shutil.copytree(node / "bin", root / "opt/cni/bin", symlinks=True, copy_function=os.link)
    script = 'mount -t proc proc "$0/proc"; mount --rbind /run/netns "$0/run/netns"; exec chroot "$0" "$@"'
    return ["unshare", "--mount", "--propagation=private", "sh", "-ec", script, str(root)]


def calls_of_a_pods_life(node: Path, pod: Namespace) -> str:
    """Have the plugin called in a bare root of a node, from VERSION to DEL; each call has to succeed.

    Return the rules that the pod's network namespace had meanwhile.
    """
    prefix, rules = bare_root(node), ""
    pod.ip("link add eth0 type veth peer name p0", "addr add 10.1.0.5/16 dev eth0", "link set eth0 up")
    call = variables(CNI_NETNS=f"/run/netns/{pod.name}", CNI_PATH="/opt/cni/bin")
    result = {**RESULT, "cniVersion": "1.1.0"}
    asked = json.dumps(configuration(cniVersion="1.1.0", prevResult=result))
    for command in ("VERSION", "STATUS", "ADD", "CHECK", "DEL"):
        done = subprocess.run(
            [*prefix, f"/opt/cni/bin/{PLUGIN}"],
            input=asked,
            env={**call, "CNI_COMMAND": command, "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
            check=False,
        )
        assert done.returncode == 0, (command, done)
        if command == "ADD":
            assert json.loads(done.stdout) == result
            commands = (["iptables-legacy-save", "-t", "nat"], ["iptables-nft-save"])
            rules = "".join(pod.run(words).stdout for words in commands)
    return rules
