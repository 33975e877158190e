"""serve: metrics, and the probes of Kubernetes, over HTTP on a port or on a Unix socket."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from ...errors import KernelError, SettingsError
from ...startup.record import Record
from ..metrics import CONTENT_TYPE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_UNIX = "unix:"
_LARGEST_PORT = 65535


class Answers(Record):
    """What is answered: the text of the metrics, and what keeps the process from being ready, if anything."""

    metrics: Callable[[], str]
    problem: Callable[[], str]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Bind without looking up the host's name, which may take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "", 0


def start(address: str, answers: Answers) -> None:
    """Answer requests as long as the process runs: /metrics, /healthz (it runs) and /readyz (no problem).

    Raises SettingsError for an address that is none, KernelError if it cannot be listened on.
    """
    family, where = _parsed(address)
    if family == socket.AF_UNIX:
        with suppress(FileNotFoundError):
            os.unlink(str(where))  # of a process that was killed
    kind = type("_OfFamily", (_Server,), {"address_family": family})
    try:
        server = kind(where, _handler(answers))
    except OSError as error:
        raise KernelError(
            f"--listen: {address}: {error.strerror}", "name another address, or end what listens there"
        ) from error
    Thread(target=server.serve_forever, name="http", daemon=True).start()


def _parsed(address: str) -> tuple[socket.AddressFamily, Any]:
    if address.startswith(_UNIX):
        return socket.AF_UNIX, address.removeprefix(_UNIX)
    host, _, port = address.rpartition(":")
    if not (port.isascii() and port.isdigit() and 0 < int(port) <= _LARGEST_PORT):
        raise SettingsError([f"--listen: {address!r} is no address: use ADDRESS:PORT, :PORT or unix:PATH"])
    if not host:
        has_ipv6 = os.path.exists("/proc/net/if_inet6")
        return (socket.AF_INET6, ("::", int(port))) if has_ipv6 else (socket.AF_INET, ("0.0.0.0", int(port)))
    host = host.strip("[]")
    return (socket.AF_INET6 if ":" in host else socket.AF_INET), (host, int(port))


def _handler(answers: Answers) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            """Answer one request."""
            if self.path == "/metrics":
                self._answer(200, answers.metrics(), CONTENT_TYPE)
            elif self.path == "/healthz":
                self._answer(200, "ok\n")
            elif self.path == "/readyz":
                problem = answers.problem()
                self._answer(503 if problem else 200, f"{problem or 'ok'}\n")
            else:
                self._answer(404, "there are /metrics, /healthz and /readyz\n")

        def _answer(self, status: int, text: str, kind: str = "text/plain; charset=utf-8") -> None:
            data = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def address_string(self) -> str:
            """Return nothing: a Unix socket's peer has no address, and no line is logged."""
            return ""

        def log_message(self, *_: object) -> None:
            """Log nothing: probes come every few seconds."""

    return Handler
