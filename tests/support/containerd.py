"""containerd: Debian's containerd with its CRI, in folders and namespaces of its own.

It runs in the network namespace of a `node`, with its own mounts, processes and control groups, so that
nothing of it is left, and nothing of the machine's is seen. tools/foreign-programs has fetched the program.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tests.support import foreign_programs
from tests.support.cri import Service
from tests.support.foreign_programs import FETCHED
from tests.support.netns import Attached, Namespace

_PROGRAMS = FETCHED / "root/usr/bin"
_PATH = f"{_PROGRAMS}:{FETCHED / 'root/usr/sbin'}"
_NEEDED = ("containerd", "containerd-shim-runc-v2", "ctr", "runc")
IMAGE = "localhost/pause:1"
#: A program that waits: all that the container of a sandbox has to do.
_PAUSE = "#include <unistd.h>\nint main(void) { for (;;) pause(); }\n"
_LIMIT = 60.0


@functools.cache
def why_not() -> str:
    """Return why it cannot run here, or nothing if it can."""
    reason = foreign_programs.why_not()
    if reason:
        return reason
    missing = [name for name in _NEEDED if shutil.which(name, path=_PATH) is None]
    if missing:
        return f"no package of this release has {', '.join(missing)}"
    if shutil.which("gcc") is None:
        return "gcc is not installed, which makes the program of a sandbox's container"
    return ""


class Containerd:
    """A context manager: containerd with the network of a configuration list, and sandboxes in it."""

    def __init__(
        self, node: Namespace, folder: Path, plugins: Sequence[Path], network: Mapping[str, Any]
    ) -> None:
        self.node = node
        self.folder = folder
        self._plugins = plugins
        self._network = network
        self._stack = contextlib.ExitStack()
        self._daemon: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._stack = stack
            self._lay_out()
            self._start_space()
            self.start()
            self._import_image()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # --- what it runs in --------------------------------------------------------------------

    def _lay_out(self) -> None:
        for name in ("bin", "conf", "root", "state", "logs"):
            (self.folder / name).mkdir()
        for plugin in (each for directory in self._plugins for each in directory.iterdir()):
            if plugin.is_file():
                (self.folder / "bin" / plugin.name).symlink_to(plugin)
        (self.folder / "conf/10-pods.conflist").write_text(json.dumps(self._network))
        (self.folder / "config.toml").write_text(_CONFIG.format(folder=self.folder))

    def _start_space(self) -> None:
        """Start the first process of a space: whatever is in there ends with it."""
        mounts = " && ".join(
            ["mount -t proc proc /proc"]
            + [f"mkdir -p {path} && mount -t tmpfs tmpfs {path}" for path in _OWN_FOLDERS]
        )
        script = f"{mounts} && echo ready && while :; do sleep 1000; done"
        words = ["unshare", "--mount", "--propagation=slave", "--pid", "--fork", "--kill-child"]
        # `ip netns exec` would hide the control groups, below a new /sys.
        enter = ["nsenter", f"--net=/run/netns/{self.node.name}"]
        first = subprocess.Popen([*enter, *words, "sh", "-c", script], stdout=subprocess.PIPE)
        self._stack.callback(self._remove_control_groups)
        self._stack.callback(_end, first)
        assert first.stdout
        assert first.stdout.readline() == b"ready\n"
        children = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
        self._first = int(children[0])

    def inside(self, *words: str) -> list[str]:
        """Return the words that run a command in containerd's space."""
        spaces = ["--net", "--mount", "--pid"]
        return ["nsenter", f"--target={self._first}", *spaces, "--", *words]

    def _remove_control_groups(self) -> None:
        """Remove what is left; the kernel may still be ending what was in there."""
        deadline = time.monotonic() + _LIMIT
        while left := self._control_groups():
            for path in left:
                for group, _, _ in os.walk(path, topdown=False):
                    with contextlib.suppress(OSError):
                        os.rmdir(group)
            assert time.monotonic() < deadline, f"still there: {left}"
            time.sleep(0.02)

    def _control_groups(self) -> list[Path]:
        root = Path("/sys/fs/cgroup")  # one hierarchy, or one for each controller
        return [*root.glob(self.control_group), *root.glob(f"*/{self.control_group}")]

    @property
    def control_group(self) -> str:
        """The control group of all sandboxes."""
        return self.node.name

    # --- the daemon -------------------------------------------------------------------------

    def start(self) -> None:
        """Start containerd, and wait until its CRI answers."""
        path = f"PATH={_PATH}:{os.environ['PATH']}"
        with open(self.folder / "log", "ab") as log:
            words = self.inside("env", path, "containerd", "--config", str(self.folder / "config.toml"))
            self._daemon = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + _LIMIT
        while True:
            self.service = Service(self.folder / "state/containerd.sock")
            try:
                self.service.call("Version", seconds=5)
                return
            except Exception as error:
                self.service.close()
                if self._daemon.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"containerd does not answer: {self.log()}") from error
                time.sleep(0.05)

    def restart(self) -> None:
        """End containerd, while the containers go on, and start it again."""
        assert self._daemon
        self.service.close()
        # nsenter waits for it; it is the child of that.
        for child in Path(f"/proc/{self._daemon.pid}/task/{self._daemon.pid}/children").read_text().split():
            os.kill(int(child), 15)
        self._daemon.wait(_LIMIT)
        self.start()

    def log(self) -> str:
        """Return what containerd has logged."""
        return (self.folder / "log").read_text()[-8000:]

    def _import_image(self) -> None:
        archive = self.folder / "pause.tar"
        archive.write_bytes(_image(self.folder))
        self._ctr("images", "import", str(archive))

    def _ctr(self, *words: str) -> str:
        command = [str(_PROGRAMS / "ctr"), "--address", str(self.folder / "state/containerd.sock")]
        done = subprocess.run(
            self.inside(*command, "--namespace", "k8s.io", *words),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr + self.log()
        return done.stdout

    # --- sandboxes --------------------------------------------------------------------------

    def run_sandbox(
        self, name: str, annotations: Mapping[str, str], ports: Sequence[Mapping[str, Any]] = ()
    ) -> str:
        """Run a sandbox as kubelet does, and return its ID. Raises grpc.RpcError."""
        metadata = {"name": name, "uid": f"uid-of-{name}", "namespace": "shop", "attempt": 0}
        config = {
            "metadata": metadata,
            "hostname": name,
            "log_directory": str(self.folder / "logs"),
            "annotations": dict(annotations),
            "port_mappings": list(ports),
            "linux": {"cgroup_parent": f"/{self.control_group}"},
        }
        return str(self.service.call("RunPodSandbox", config=config).pod_sandbox_id)

    def status(self, sandbox: str) -> tuple[str, Any]:
        """Return the address of a sandbox, and what containerd knows of it."""
        found = self.service.call("PodSandboxStatus", pod_sandbox_id=sandbox, verbose=True)
        return found.status.network.ip, json.loads(found.info["info"])

    def namespace_path(self, sandbox: str) -> str:
        """Return the path of a sandbox's network namespace, as containerd sees it."""
        _, info = self.status(sandbox)
        spaces = info["runtimeSpec"]["linux"]["namespaces"]
        return str(next(each["path"] for each in spaces if each["type"] == "network"))

    def attached(self, sandbox: str) -> Attached:
        """Return the network namespace of a sandbox, to be entered."""
        return Attached(self.seen_from_outside(self.namespace_path(sandbox)))

    def seen_from_outside(self, path: str) -> str:
        """Return the path under which the machine sees a file of containerd's space."""
        return f"/proc/{self._first}/root{path}"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    if process.stdout:
        process.stdout.close()


#: Folders that containerd, runc and the plugins have by these names alone.
_OWN_FOLDERS = ("/run/containerd", "/run/runc", "/var/lib/cni")

_CONFIG = """
version = 2
root = "{folder}/root"
state = "{folder}/state"
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.internal.v1.opt"]
[grpc]
  address = "{folder}/state/containerd.sock"
[ttrpc]
  address = "{folder}/state/containerd.sock.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  disable_tcp_service = true
  restrict_oom_score_adj = true
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{folder}/bin"
    conf_dir = "{folder}/conf"
"""


def _image(folder: Path) -> bytes:
    """Return an image as `docker save` makes it: one layer, with one program."""
    (folder / "pause.c").write_text(_PAUSE)
    program = folder / "pause"
    subprocess.run(["gcc", "-Os", "-static", "-s", "-o", str(program), str(folder / "pause.c")], check=True)
    layer = _tar({"pause": program.read_bytes()})
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine),
        "os": "linux",
        "config": {"Entrypoint": ["/pause"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]
    return _tar(
        {
            "config.json": json.dumps(config).encode(),
            "layer.tar": layer,
            "manifest.json": json.dumps(manifest).encode(),
        }
    )


def _tar(files: Mapping[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            archive.addfile(member, io.BytesIO(content))
    return made.getvalue()
