"""kubernetes_api: a small HTTPS server that answers as the Kubernetes API does, to kubernetes' own client.

There is no kube-apiserver where tests run. It has pods, which can be listed in pages, watched, patched and
deleted with a precondition; its answers have the forms of the API's documentation. What was asked is kept.
"""

from __future__ import annotations

import base64
import copy
import http.server
import json
import queue
import ssl
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]


def certificate(folder: Path) -> None:
    """Make a certificate for this machine in a folder: cert.pem and key.pem."""
    command = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=kubernetes"
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(["openssl", *command.split(), *files, *names], check=True, capture_output=True)


def status(code: int, reason: str) -> Json:
    """An error of the API."""
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code}


class Api:
    """The server. `page` is the most that a list has; with `refuse` all answers are that code."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pods: dict[tuple[str, str], Json] = {}
        self.requests: list[tuple[str, str, dict[str, str], Any]] = []
        self.page = 500
        self.refuse = 0
        self.watches: list[queue.Queue[Json | None]] = []
        self.version = 100
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        self.end_watches()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def asked(self, method: str) -> list[tuple[str, dict[str, str], Any]]:
        """The requests of a method: path, headers, body."""
        return [(path, headers, body) for name, path, headers, body in self.requests if name == method]

    def put(self, pod: Json) -> None:
        """Make or change a pod; those that watch are told."""
        key = (pod["metadata"]["namespace"], pod["metadata"]["name"])
        self.version += 1
        pod["metadata"]["resourceVersion"] = str(self.version)
        kind = "MODIFIED" if key in self.pods else "ADDED"
        self.pods[key] = pod
        for watch in self.watches:
            watch.put({"type": kind, "object": copy.deepcopy(pod)})

    def end_watches(self, event: Json | None = None) -> None:
        """End all watches, with a last event if one is given."""
        for watch in self.watches:
            if event:
                watch.put(event)
            watch.put(None)
        self.watches = []

    def kubeconfig(self) -> str:
        """Write a kubeconfig for it and return its path."""
        authority = base64.b64encode((self.folder / "cert.pem").read_bytes()).decode()
        server = f"https://127.0.0.1:{self._server.server_address[1]}"
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "k", "cluster": {"server": server, "certificate-authority-data": authority}}
            ],
            "users": [{"name": "u", "user": {"token": "a-token"}}],
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
            "current-context": "c",
        }
        path = self.folder / "kubeconfig"
        path.write_text(json.dumps(document))
        return str(path)


def _handler(api: Api) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._record(None)
            parts = urlsplit(self.path)
            asked = {name: values[-1] for name, values in parse_qs(parts.query).items()}
            if api.refuse:
                self._send(api.refuse, status(api.refuse, "Forbidden"))
            elif parts.path != "/api/v1/pods":
                _, _, _, _, namespace, _, name = parts.path.split("/")
                pod = api.pods.get((namespace, name))
                self._send(200 if pod else 404, pod or status(404, "NotFound"))
            elif asked.get("watch") == "true":
                self._watch()
            else:
                self._list(asked)

        def _list(self, asked: dict[str, str]) -> None:
            node = asked.get("fieldSelector", "").removeprefix("spec.nodeName=")
            after = asked.get("continue", "")
            keys = [key for key in sorted(api.pods) if "/".join(key) > after]
            pods = [api.pods[key] for key in keys if not node or api.pods[key]["spec"]["nodeName"] == node]
            shown = pods[: min(api.page, int(asked.get("limit", api.page)))]
            metadata = {"resourceVersion": str(api.version)}
            if len(shown) < len(pods):
                metadata["continue"] = f"{shown[-1]['metadata']['namespace']}/{shown[-1]['metadata']['name']}"
            self._send(200, {"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": shown})

        def _watch(self) -> None:
            events: queue.Queue[Json | None] = queue.Queue()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.flush()
            api.watches.append(events)
            with suppress(OSError):
                while event := events.get():
                    line = json.dumps(event).encode() + b"\n"
                    # In two pieces, as a network may cut it.
                    for piece in (line[:7], line[7:]):
                        self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                        self.wfile.flush()
                self.wfile.write(b"0\r\n\r\n")

        def do_PATCH(self) -> None:
            pod, body = self._pod()
            if pod is None:
                return self._send(404, status(404, "NotFound"))
            metadata = body["metadata"]
            if metadata.get("uid", pod["metadata"]["uid"]) != pod["metadata"]["uid"]:
                return self._send(409, status(409, "Conflict"))
            pod["metadata"].setdefault("labels", {}).update(metadata["labels"])
            api.put(pod)
            self._send(200, pod)

        def do_DELETE(self) -> None:
            pod, body = self._pod()
            if pod is None:
                return self._send(404, status(404, "NotFound"))
            if body.get("preconditions", {}).get("uid", pod["metadata"]["uid"]) != pod["metadata"]["uid"]:
                return self._send(409, status(409, "Conflict"))
            del api.pods[pod["metadata"]["namespace"], pod["metadata"]["name"]]
            self._send(200, pod)

        def _pod(self) -> tuple[Json | None, Any]:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"null")
            self._record(body)
            _, _, _, _, namespace, _, name = urlsplit(self.path).path.split("/")
            return api.pods.get((namespace, name)), body

        def _record(self, body: Any) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            api.requests.append((self.command, self.path, headers, body))

        def _send(self, code: int, document: Json) -> None:
            content = json.dumps(document).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
