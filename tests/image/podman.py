"""Containers and pods for tests: made with podman, under names of this process, and gone after the test.

A `PodmanPod` is a pod whose network is wired to a client as that of netns.Pod is, so nothing of the machine's
own network is used or changed. What listens in its containers is netns_helper.py, too.
"""

from __future__ import annotations

import itertools
import json
import os
import shlex
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tests.support import netns, netns_helper
from tests.support.arrivals import Arrival, read_arrival
from tests.support.netns import Outcome

HERE = Path(__file__).parent
ENGINE = shlex.split(os.environ.get("ENGINE") or "podman")
IMAGE = os.environ.get("IMAGE") or "istio-iptables"
#: That of the CNI plugin's installer.
CNI_IMAGE = os.environ.get("CNI_IMAGE") or "istio-iptables-cni"
#: What IMAGE was built on; empty if it was not given.
BASE = os.environ.get("BASE", "")

#: What Istio gives its init container, and what a strict cluster adds to it.
INIT_CONTAINER = (
    "--cap-drop=all",
    "--cap-add=NET_ADMIN",
    "--cap-add=NET_RAW",
    "--security-opt=no-new-privileges",
    "--read-only",
    "--read-only-tmpfs=false",  # podman would mount something writable on /run and /tmp, Kubernetes does not
)
ALONE = ("--network=none",)
#: Longest time that an engine's command may take, in seconds.
LIMIT = 120.0
_numbers = itertools.count()


def new_name() -> str:
    """Return a name that nothing else has."""
    return f"{netns.TOKEN}-image-{next(_numbers)}"


def engine(*words: str, check: bool = True) -> Outcome:
    """Run a command of the engine; with `check` it must succeed."""
    done = subprocess.run([*ENGINE, *words], capture_output=True, text=True, timeout=LIMIT, check=False)
    assert not check or done.returncode == 0, f"{shlex.join(words)}: {done.stdout}{done.stderr}"
    return Outcome(done.returncode, done.stdout, done.stderr)


def run(
    *arguments: str,
    options: Sequence[str] = (*ALONE, *INIT_CONTAINER),
    entrypoint: str = "",
    env: Mapping[str, str] | None = None,
    image: str = IMAGE,
) -> Outcome:
    """Run a container to its end, as Istio's init container unless `options` say otherwise."""
    name = new_name()
    words = [f"--entrypoint={json.dumps(shlex.split(entrypoint))}"] if entrypoint else []
    words += [f"--env={key}={value}" for key, value in (env or {}).items()]
    try:
        return engine("run", "--rm", f"--name={name}", *options, *words, image, *arguments, check=False)
    finally:
        remove(name)


def tool(*arguments: str, code: int = 0, **how: object) -> Outcome:
    """Run the image, which has to end with an exit code, and show no traceback."""
    done = run(*arguments, **how)  # type: ignore[arg-type]
    assert done.code == code, done
    assert "Traceback" not in done.err
    return done


def shell(script: str, image: str = IMAGE, options: Sequence[str] = ALONE) -> Outcome:
    """Run a piece of shell in a container that may do what podman allows by default."""
    return run("-c", script, options=options, entrypoint="/bin/sh", image=image)


def remove(name: str) -> None:
    """Remove a container, if it is there."""
    engine("rm", "--force", "--ignore", "--time=0", name, check=False)


def left_behind() -> list[str]:
    """Return the containers and pods of this process that still exist."""
    containers = engine("ps", "--all", "--format={{.Names}}").out.split()
    pods = engine("pod", "ps", "--format={{.Name}}").out.split()
    return [name for name in (*containers, *pods) if name.startswith(netns.TOKEN)]


class PodmanPod(netns.Pod):
    """A pod of podman's, wired to a client; a context manager. Containers in it are gone when it is."""

    def _make(self) -> None:
        """Make the pod, and give the network namespace that all its containers share a name."""
        pause = (f"--infra-image={IMAGE}", "--infra-command=sleep 600")  # longer than any test
        self.pod = new_name()
        self._stack.callback(engine, "pod", "rm", "--force", "--ignore", "--time=0", self.pod)
        engine("pod", "create", f"--name={self.pod}", "--network=none", *pause)
        engine("pod", "start", self.pod)
        infra = engine("pod", "inspect", "--format={{.InfraContainerID}}", self.pod).out.strip()
        pid = engine("inspect", "--format={{.State.Pid}}", infra).out.strip()
        netns._command("ip", "netns", "attach", self.name, pid)

    def init(self, *arguments: str, options: Sequence[str] = (), **how: object) -> Outcome:
        """Run the init container once."""
        return run(*arguments, options=(f"--pod={self.pod}", *INIT_CONTAINER, *options), **how)  # type: ignore[arg-type]

    def serve(self, name: str, uid: int, ports: Iterable[int]) -> str:
        """Start a container in which a user's process listens on ports; return its name."""
        code = (
            "import os, sys; sys.path.insert(0, '/peer'); import netns_helper; "
            "(alive, keep), ready = os.pipe(), os.open(os.devnull, os.O_WRONLY); "
            f"netns_helper._listener(alive, ready, name={name!r}, tcp={list(ports)}, udp=[], echo=False, "
            f"addresses=['0.0.0.0', '::'], uid={uid}, gid={uid}, transparent=False, log='/dev/null')"
        )
        container = new_name()
        peer = f"--volume={netns_helper.__file__}:/peer/netns_helper.py:ro"
        words = (f"--name={container}", f"--pod={self.pod}", f"--user={uid}:{uid}", "--cap-drop=all", peer)
        command = [*ENGINE, "run", "--read-only", *words, "--entrypoint=python3", IMAGE, "-c", code]
        with open(self.directory / "output", "ab") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, text=True
            )
        self._stack.callback(process.wait, LIMIT)
        self._stack.callback(remove, container)
        self._started.append(process)  # the code that waits for it to listen sees it die
        return container

    @staticmethod
    def dial(container: str, address: str, port: int) -> Arrival:
        """Connect from within a container that is there, and return where that arrived."""
        code = (
            f"import socket; print(socket.create_connection(({address!r}, {port}), 5).makefile().readline())"
        )
        return read_arrival(json.loads(engine("exec", container, "python3", "-c", code).out))

    def log(self, container: str) -> str:
        """Return what a container has written."""
        done = engine("logs", container)
        return done.out + done.err


def describe(image: str) -> dict[str, object]:
    """Return what the engine knows of an image."""
    (known,) = json.loads(engine("image", "inspect", image).out)
    assert isinstance(known, dict)
    return known


#: As Istio calls it (SPEC section 1).
ARGUMENTS = (
    *("-p", "15001", "-z", "15006", "-u", "1337", "-m", "REDIRECT", "-i", "*", "-x", ""),
    *("-b", "*", "-d", "15090,15021,15020", "--log_output_level=default:info"),
)
