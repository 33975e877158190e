"""The Kubernetes API, asked by kubernetes' own client, of a small HTTPS server that answers as one does.

There is no kube-apiserver where these tests run. The server speaks the client's wire format: the request
that the client makes is checked to the letter, and the answers have the form of the API's.
"""

from __future__ import annotations

import base64
import http.server
import json
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.support.cni import INJECTED, Answer, call, configuration, variables

pytest.importorskip("kubernetes")
pytestmark = [
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed"),
    pytest.mark.slow,  # the client library takes a second to import
]

UID = "0b8f4d66-5a0c-4d2c-9b5e-0a5a0f6a3d2b"
POD: dict[str, Any] = {
    "kind": "Pod",
    "apiVersion": "v1",
    "metadata": {
        "name": "web",
        "namespace": "shop",
        "uid": UID,
        "resourceVersion": "4711",
        "creationTimestamp": "2026-11-27T10:00:00Z",
        "labels": {"app": "web"},
        "annotations": INJECTED,
    },
    "spec": {
        "containers": [
            {"name": "app", "image": "app"},
            {"name": "istio-proxy", "image": "proxyv2", "args": ["proxy", "sidecar"]},
        ]
    },
    "status": {"phase": "Pending"},
}
NOT_FOUND = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
FORBIDDEN = {**NOT_FOUND, "reason": "Forbidden", "code": 403, "message": "pods is forbidden"}


class Api:
    """A server: what it was asked, how many connections were made, and what it answers."""

    def __init__(self, folder: Path) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.connections = 0
        self.reply: Callable[[Any], None] = lambda handler: send(handler, 200, POD)
        self._folder = folder
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                api.requests.append((self.path, headers))
                with suppress(OSError):
                    api.reply(self)

            def log_message(self, *_: object) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def get_request(self) -> tuple[Any, Any]:
                api.connections += 1
                return super().get_request()

        self._server = Server(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def kubeconfig(self, *, authority: bytes | None = None, port: int = 0) -> str:
        """Write a kubeconfig, as `cni install` does on a node, and return its path."""
        path = self._folder / "kubeconfig"
        ca = authority if authority is not None else (self._folder / "cert.pem").read_bytes()
        server = f"https://127.0.0.1:{port or self._server.server_address[1]}"
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "local",
                    "cluster": {
                        "server": server,
                        "certificate-authority-data": base64.b64encode(ca).decode(),
                    },
                }
            ],
            "users": [{"name": "plugin", "user": {"token": "a-token"}}],
            "contexts": [{"name": "c", "context": {"cluster": "local", "user": "plugin"}}],
            "current-context": "c",
        }
        path.write_text(json.dumps(document))
        return str(path)


def send(handler: Any, status: int, document: object) -> None:
    content = json.dumps(document).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificate")
    command = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=kubernetes"
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(["openssl", *command.split(), *files, *names], check=True, capture_output=True)
    return folder


@pytest.fixture
def api(certificate: Path) -> Iterator[Api]:
    made = Api(certificate)
    yield made
    made.stop()


class Ask(Protocol):
    """Has the plugin ask for a pod of which the runtime says no more than its name."""

    def __call__(self, kubeconfig: str = "", **keys: Any) -> Answer: ...


@pytest.fixture
def ask(api: Api, monkeypatch: pytest.MonkeyPatch) -> Ask:
    environ = variables()
    environ["CNI_ARGS"] += f";K8S_POD_UID={UID}"

    def asking(kubeconfig: str = "", **keys: Any) -> Answer:
        given = configuration(None, kubeconfig=kubeconfig or api.kubeconfig(), **keys)
        return call(monkeypatch, environ, given)

    return asking


def test_a_pod_is_asked_for_once_over_one_connection(ask, api):
    found = ask()
    assert found.code == 3  # it gets rules: the next thing is its network namespace, which is not there
    ((path, headers),) = api.requests
    assert path == "/api/v1/namespaces/shop/pods/web"
    assert headers["authorization"] == "Bearer a-token"
    assert "application/json" in headers["accept"]
    assert api.connections == 1


def test_what_only_the_api_knows_decides(ask, api):
    proxy = {"name": "istio-proxy", "args": ["proxy", "router"]}
    api.reply = lambda handler: send(handler, 200, {**POD, "spec": {"containers": [proxy]}})
    found = ask()
    assert found.status == 0
    assert "(not-a-sidecar)" in found.log[-1]


def test_a_pod_whose_name_decides_is_not_asked_for(ask, api):
    assert ask(exclude_namespaces=["shop"]).status == 0
    assert api.connections == 0


def test_annotations_that_are_handed_over_are_believed(api, monkeypatch):
    found = call(monkeypatch, variables(), configuration({}, kubeconfig=api.kubeconfig()))
    assert found.status == 0
    assert api.connections == 0


@pytest.mark.parametrize(
    ("status", "document", "told"),
    [
        (404, NOT_FOUND, "status 404"),
        (403, FORBIDDEN, "needs the right to `get` pods"),
        (500, {}, "status 500"),
        (200, {"kind": "Pod", "metadata": {"name": "web", "uid": UID}}, "annotation"),
    ],
)
def test_an_answer_that_is_no_pod(ask, api, status, document, told):
    api.reply = lambda handler: send(handler, status, document)
    found = ask()
    if status == 200:  # a pod without anything in it
        assert found.status == 0
        assert "(no-istio-proxy)" in found.log[-1]
        return
    assert found.code == 11
    assert told in found.document["details"]
    assert api.connections == 1  # it is the runtime that tries again


def test_a_pod_of_the_same_name_that_is_gone_is_not_taken_for_it(ask, api):
    other = {**POD, "metadata": {**POD["metadata"], "uid": "another"}}
    api.reply = lambda handler: send(handler, 200, other)
    found = ask()
    assert found.code == 11
    assert "another" in found.document["details"]
    # A pod from a file of the node: kubelet has another UID for it than the API.
    other["metadata"]["annotations"] = {**INJECTED, "kubernetes.io/config.hash": UID}
    assert ask().code == 3


@pytest.mark.parametrize("how", ["silent", "slow"])
def test_an_answer_that_takes_too_long(ask, api, how):
    ended = threading.Event()

    def reply(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        while not ended.wait(0.05):
            if how == "slow":
                handler.wfile.write(b" ")

    api.reply = reply
    begun = time.monotonic()
    found = ask(api_timeout="500ms")
    ended.set()
    assert found.code == 11
    assert time.monotonic() - begun < 20
    assert api.connections == 1


def test_a_connection_that_breaks_is_not_made_again(ask, api):
    api.reply = lambda handler: handler.connection.shutdown(socket.SHUT_RDWR)
    assert ask().code == 11
    assert api.connections == 1


def test_a_server_that_is_not_there_or_not_the_right_one(ask, api, certificate):
    assert ask(api.kubeconfig(port=1)).code == 11
    other = certificate / "other"
    other.mkdir(exist_ok=True)
    command = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=other"
    files = ["-keyout", str(other / "key.pem"), "-out", str(other / "cert.pem")]
    subprocess.run(["openssl", *command.split(), *files], check=True, capture_output=True)
    found = ask(api.kubeconfig(authority=(other / "cert.pem").read_bytes()))
    assert found.code == 11
    assert "certificate" in found.document["details"].lower()
    assert api.requests == []


@pytest.mark.parametrize("content", [None, "", "x: [", "{}", '{"current-context": "none"}'])
def test_a_kubeconfig_that_cannot_be_used(ask, tmp_path, content):
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_text(content)
    found = ask(str(path))
    assert found.code == 7
    assert str(path) in found.document["msg"]


def test_without_the_library_it_says_how_to_get_it(ask, monkeypatch):
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    found = ask()
    assert found.code == 7
    assert "pip install 'istio-iptables[cni-api]'" in found.document["details"]
