"""cni: calls of the CNI plugin, in this process or as a runtime makes them."""

from __future__ import annotations

import copy
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from istio_iptables.cni import plugin
from tests.support.arrivals import Call
from tests.support.netns import ROOT, Namespace

ANNOTATIONS = "io.kubernetes.cri.pod-annotations"
STATUS = "sidecar.istio.io/status"
#: What Istio's injector writes into a pod that has the CNI plugin instead of istio-init.
INJECTED = {
    STATUS: json.dumps(
        {
            "initContainers": ["istio-validation"],
            "containers": ["istio-proxy"],
            "volumes": ["workload-socket", "istio-envoy"],
            "imagePullSecrets": None,
            "revision": "default",
        }
    )
}
RESULT = {
    "cniVersion": "1.0.0",
    "interfaces": [{"name": "eth0", "sandbox": "/run/netns/a"}],
    "ips": [{"address": "10.1.0.5/16", "gateway": "10.1.0.1", "interface": 0}],
    "dns": {},
}


#: The users of the application and of the proxy in a pod.
APP, PROXY = 1000, 1337


def listen(pod: Namespace, *, transparent: bool = False) -> None:
    """Start the application and the proxy in a pod; of TPROXY the proxy is root, and transparent."""
    pod.listen("app", tcp=[80], uid=APP)
    pod.listen("outbound", tcp=[15001], uid=PROXY, gid=PROXY)
    uid = 0 if transparent else PROXY
    pod.listen("inbound", tcp=[15006], uid=uid, gid=PROXY, transparent=transparent)


def arrives(call: Call) -> str:
    """Return who answered a call, or why nobody did."""
    return call.arrival.name if call.arrival else call.error


class Answer(NamedTuple):
    """How a call ended: its exit code, what it printed, and what it logged."""

    status: int
    out: str
    log: tuple[str, ...] = ()

    @property
    def document(self) -> Any:
        """What was printed, as data; None if nothing was."""
        return json.loads(self.out) if self.out else None

    @property
    def code(self) -> int:
        """The code of an error; 0 if there is none."""
        return self.document["code"] if self.status else 0


class Recorder:
    """A log that keeps its lines, `level message`."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.subject = ""
        self.file = ""
        self.levels: tuple[tuple[str, str], ...] = ()

    def configure(self, levels: Iterable[tuple[str, str]], *, as_json: bool = False) -> None:
        self.levels = tuple(levels)

    def name(self, subject: str) -> None:
        self.subject = subject

    def append_to(self, path: str) -> None:
        self.file = path

    def debug(self, message: str) -> None:
        self.lines.append(f"debug {message}")

    def info(self, message: str) -> None:
        self.lines.append(f"info {message}")

    def warn(self, message: str) -> None:
        self.lines.append(f"warn {message}")

    def error(self, message: str) -> None:
        self.lines.append(f"error {message}")


def configuration(annotations: Mapping[str, Any] | None = INJECTED, **keys: Any) -> dict[str, Any]:
    """Return the configuration that a runtime gives to the plugin; None for a key leaves it out.

    `annotations` None: the runtime hands over none.
    """
    made: dict[str, Any] = {
        "cniVersion": "1.0.0",
        "name": "pods",
        "type": "istio-iptables-cni",
        "capabilities": {ANNOTATIONS: True},
        "metrics_file": "",
        "prevResult": copy.deepcopy(RESULT),
        **keys,
    }
    if annotations is not None:
        made["runtimeConfig"] = {ANNOTATIONS: dict(annotations)}
    return {key: value for key, value in made.items() if value is not None}


def variables(
    command: str = "ADD", name: str = "web", namespace: str = "shop", **more: str
) -> dict[str, str]:
    """Return the variables of a call for a pod; an empty text leaves one out."""
    arguments = f"IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}" if name else ""
    made = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": "cafe01",
        "CNI_NETNS": "/run/netns/there-is-none",
        "CNI_IFNAME": "eth0",
        "CNI_ARGS": arguments,
        "CNI_PATH": "/opt/cni/bin",
        **more,
    }
    return {name: value for name, value in made.items() if value}


def call(monkeypatch: Any, environ: Mapping[str, str], given: object, log: Recorder | None = None) -> Answer:
    """Call the plugin in this process, with a configuration as data or as bytes."""
    content = given if isinstance(given, bytes) else json.dumps(given).encode()
    out: Any = io.TextIOWrapper(io.BytesIO(), write_through=True)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    log = log or Recorder()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        status = plugin.run(environ, log)
    return Answer(status, bytes(out.buffer.getvalue()).decode(), tuple(log.lines))


PROGRAM = "import sys; from istio_iptables.__main__ import cni; sys.exit(cni())"


def install(directory: Path) -> Path:
    """Write the plugin's program into a directory, as an installation would, and return its path."""
    path = directory / "istio-iptables-cni"
    cache = (
        f"PYTHONPYCACHEPREFIX={os.environ['PYTHONPYCACHEPREFIX']} "
        if os.environ.get("PYTHONPYCACHEPREFIX")
        else ""
    )
    path.write_text(f"#!/bin/sh\nPYTHONPATH={ROOT} {cache}exec {sys.executable} -c '{PROGRAM}'\n")
    path.chmod(0o755)
    return path


def start(
    environ: Mapping[str, str], given: object, program: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Call the plugin as a process, and return how it ended."""
    words = [str(program)] if program else [sys.executable, "-c", PROGRAM]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environ}
    text = given if isinstance(given, str) else json.dumps(given)
    return subprocess.run(
        words, input=text, capture_output=True, text=True, env=environment, timeout=60, check=False
    )


def answer(done: subprocess.CompletedProcess[str]) -> Answer:
    """Return how a process ended, as an answer."""
    return Answer(done.returncode, done.stdout, tuple(done.stderr.splitlines()))
