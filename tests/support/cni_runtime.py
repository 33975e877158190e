"""cni_runtime: a small container runtime, as far as networks go, by the rules of the CNI specification.

https://www.cni.dev/docs/spec/, sections 3 and 4: how a configuration for each plugin of a list is derived, in
which order plugins run, and what each is given. It runs the plugins in the network namespace of a `node`.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.netns import Namespace

#: portmap 1.1.1 misses rules for IPv6 in a pod that has no IPv6.
UNCHECKED = ("portmap",)


class Failed(Exception):  # it is what a runtime is told
    """A plugin ended with an error, which is its answer."""

    def __init__(self, plugin: str, answer: Mapping[str, Any], log: str) -> None:
        super().__init__(f"{plugin}: {answer} {log}")
        self.plugin = plugin
        self.code = answer.get("code", 0)
        self.answer = answer


class Container(NamedTuple):
    """What a runtime attaches to a network: an ID, a network namespace by its path, and what kubelet says."""

    id: str
    namespace: str
    name: str = "web"
    kubernetes_namespace: str = "shop"
    annotations: Mapping[str, str] = {}
    ports: Sequence[Mapping[str, Any]] = ()

    @property
    def arguments(self) -> str:
        """CNI_ARGS as kubelet's runtimes set it."""
        return (
            f"IgnoreUnknown=1;K8S_POD_NAMESPACE={self.kubernetes_namespace};K8S_POD_NAME={self.name};"
            f"K8S_POD_INFRA_CONTAINER_ID={self.id};K8S_POD_UID=0b8f4d66-5a0c-4d2c-9b5e-0a5a0f6a3d2b"
        )


class Runtime:
    """A runtime with one network: a list of plugins."""

    def __init__(
        self, node: Namespace, folders: Sequence[Path], plugins: Sequence[Mapping[str, Any]], version: str
    ) -> None:
        self.node = node
        self.plugins = list(plugins)
        self.version = version
        self._folders = folders
        self._results: dict[str, Any] = {}
        #: What each plugin answered the last time, in order.
        self.answers: list[str] = []

    def add(self, container: Container) -> Any:
        """Attach a container: each plugin gets the result of the one before. Raises Failed."""
        result: Any = None
        self.answers = []
        for plugin in self.plugins:
            text = self._run(plugin, "ADD", container, result)
            self.answers.append(text)
            result = json.loads(text)
        self._results[container.id] = result
        return result

    def check(self, container: Container) -> None:
        """Have the plugins check that all is as ADD left it, but for UNCHECKED. Raises Failed."""
        for plugin in self.plugins:
            if plugin["type"] not in UNCHECKED:
                self._run(plugin, "CHECK", container, self._results[container.id])

    def delete(self, container: Container) -> None:
        """Detach a container: in reverse order, with the result of ADD if there is one. Raises Failed."""
        for plugin in reversed(self.plugins):
            self._run(plugin, "DEL", container, self._results.get(container.id))
        self._results.pop(container.id, None)

    def ask(self, command: str, plugin: str, **keys: Any) -> subprocess.CompletedProcess[str]:
        """Call one plugin for the network, and not for a container: STATUS, GC, VERSION."""
        (found,) = (each for each in self.plugins if each["type"] == plugin)
        environment = {"CNI_COMMAND": command, "CNI_PATH": self._path}
        return self._start(found, environment, {**self._derived(found, None, None), **keys})

    @property
    def _path(self) -> str:
        return ":".join(map(str, self._folders))

    def _derived(self, plugin: Mapping[str, Any], container: Container | None, result: Any) -> dict[str, Any]:
        """Return the configuration that a plugin gets: "Deriving execution configuration" in section 3."""
        made = {**copy.deepcopy(dict(plugin)), "cniVersion": self.version, "name": "pods"}
        if container is not None:
            offered = {
                "portMappings": list(container.ports),
                "io.kubernetes.cri.pod-annotations": dict(container.annotations),
            }
            wanted = plugin.get("capabilities", {})
            runtime = {name: value for name, value in offered.items() if wanted.get(name)}
            if runtime:
                made["runtimeConfig"] = runtime
        if result is not None:
            made["prevResult"] = result
        return made

    def _run(self, plugin: Mapping[str, Any], command: str, container: Container, result: Any) -> str:
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container.id,
            "CNI_NETNS": container.namespace,
            "CNI_IFNAME": "eth0",
            "CNI_ARGS": container.arguments,
            "CNI_PATH": self._path,
        }
        done = self._start(plugin, environment, self._derived(plugin, container, result))
        if done.returncode:
            raise Failed(plugin["type"], json.loads(done.stdout or "{}"), done.stderr)
        return done.stdout

    def _start(
        self, plugin: Mapping[str, Any], environment: Mapping[str, str], given: Mapping[str, Any]
    ) -> subprocess.CompletedProcess[str]:
        (program,) = (f / plugin["type"] for f in self._folders if (f / plugin["type"]).exists())
        lock = {"XTABLES_LOCKFILE": str(self.node.directory / "xtables.lock")}
        return self.node.run(
            [str(program)],
            stdin=json.dumps(given),
            check=False,
            env={"PATH": os.environ["PATH"], **lock, **environment},
        )


def containers(namespaces: Sequence[Namespace], **more: Any) -> Iterator[Container]:
    """Yield a container for each network namespace."""
    for number, namespace in enumerate(namespaces):
        yield Container(f"c{number:04}", f"/run/netns/{namespace.name}", **more)
