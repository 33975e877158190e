"""repair: watch a node's pods through the Kubernetes API, and do something about those without their rules.

The client is kubernetes' own, which is an optional extra. Pods are listed, then watched from there, and from
where a watch ended; they are listed again when that is long ago, and when something failed: none is missed.
Lists come from the API server's cache (resourceVersion 0), since each node has such a process.
"""

from __future__ import annotations

import json
import time
from importlib.util import find_spec

from ...errors import KernelError
from ...startup.record import Record
from ..api_server import client
from ..protocol import CniError
from .broken import BrokenPod, broken

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from ...settings.node_commands import Repair
    from .agent import Log

#: How long a watch lasts, in seconds, and after how long pods are listed again.
_WATCH, _LISTED_AGAIN = 240, 3600.0
#: How long to wait for an answer, in seconds.
_TIMEOUT = 30
_PAGE = 500
_GONE, _CHANGED, _ANOTHER = 404, 409, 422


class Asked(Record):
    """What is to be done, with which pods: those of a node, or of all if it has no name."""

    action: Repair
    node: str = ""
    label: str = ""
    kubeconfig: str = ""


class Counts:
    """How many pods were repaired, by whether it worked."""

    def __init__(self) -> None:
        self.done = 0
        self.failed = 0


class Repairer:
    """Finds the pods of a node that started without their rules, and repairs them."""

    def __init__(
        self, asked: Asked, log: Log, counts: Counts, in_place: Callable[[BrokenPod, str], None]
    ) -> None:
        """Make a client. `in_place` writes the rules of a pod, whose JSON it gets. Raises KernelError."""
        try:
            self._connection = client(asked.kubeconfig)
        except CniError as error:
            if asked.kubeconfig or find_spec("kubernetes") is None:
                raise KernelError(error.message, error.details) from error
            raise KernelError(
                f"this pod has no access to the Kubernetes API: {error.details}",
                "give it a service account with the rights of deploy/cni/rbac.yaml, or name a file with "
                "--kubeconfig",
            ) from error
        from kubernetes import client as library

        self._library: Any = library
        self._api: Any = library.CoreV1Api(self._connection)
        self._asked = asked
        self._log = log
        self._counts = counts
        self._in_place = in_place
        self._seen: set[tuple[str, str]] = set()
        self._listed = 0.0

    def go_on(self, version: str) -> str:
        """List the pods if `version` is empty, else watch them from there. Return where to go on.

        Raises KernelError if the API does not answer.
        """
        if not version:
            return self.look()
        failed = self._counts.failed
        version = self.watch(version)
        is_due = time.monotonic() - self._listed > _LISTED_AGAIN
        return "" if is_due or self._counts.failed > failed else version

    def look(self) -> str:
        """List the pods, repair what has to be, and return the version that a watch goes on from.

        Raises KernelError if the API does not answer.
        """
        more, version = "", ""
        self._seen.clear()
        self._listed = time.monotonic()
        while True:
            found = self._list(more)
            for pod in found.get("items") or ():
                self._repair(pod)
            metadata = found.get("metadata") or {}
            more, version = metadata.get("continue", ""), metadata.get("resourceVersion", "")
            if not more:
                return str(version)

    def watch(self, version: str) -> str:
        """Repair pods as they change, until the server ends the watch, and return where to go on.

        That is nothing if they have to be listed again. Raises KernelError as `look`.
        """
        for event in self._events(version):
            if event.get("type") == "ERROR":
                return ""  # as a rule the version is too old
            pod = event.get("object") or {}
            version = (pod.get("metadata") or {}).get("resourceVersion", version)
            if event.get("type") in ("ADDED", "MODIFIED"):
                self._repair(pod)
        return version

    def _selector(self) -> dict[str, Any]:
        return {"field_selector": f"spec.nodeName={self._asked.node}"} if self._asked.node else {}

    def _list(self, more: str) -> Mapping[str, Any]:
        page: dict[str, Any] = {"_continue": more} if more else {"resource_version": "0"}
        found: Mapping[str, Any] = json.loads(
            self._call(self._api.list_pod_for_all_namespaces, limit=_PAGE, **page, **self._selector()).data
        )
        return found

    def _events(self, version: str) -> Iterator[Mapping[str, Any]]:
        answer = self._call(
            self._api.list_pod_for_all_namespaces,
            watch=True,
            resource_version=version,
            timeout_seconds=_WATCH,
            allow_watch_bookmarks=True,
            timeout=_WATCH + _TIMEOUT,
            **self._selector(),
        )
        from urllib3.exceptions import HTTPError

        rest = b""
        try:
            for part in answer.stream(decode_content=True):
                *lines, rest = (rest + part).split(b"\n")
                yield from (json.loads(line) for line in lines if line.strip())
        except (HTTPError, OSError) as error:
            raise _unreachable(error) from error
        finally:
            answer.close()

    def _call(self, function: Any, *arguments: object, timeout: float = _TIMEOUT, **named: object) -> Any:
        """Call the API and return the answer as it came. Raises KernelError with what it said instead."""
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        try:
            answer = function(*arguments, _preload_content=False, _request_timeout=timeout, **named)
        except ApiException as error:
            raise _refused(error.status, error.body) from error
        except (HTTPError, OSError) as error:
            raise _unreachable(error) from error
        if answer.status >= 300:
            raise _refused(answer.status, answer.read())
        # The library has read an ordinary answer; that of a watch is read as it comes.
        return getattr(answer, "response", answer) if named.get("watch") else answer

    # --- one pod ------------------------------------------------------------------------------

    def _repair(self, pod: Mapping[str, Any]) -> None:
        found = broken(pod)
        if found is None or self._is_done(found):
            return
        try:
            self._log.info(f"{found}: {self._act(found, pod)}")
            self._counts.done += 1
        except KernelError as error:
            if isinstance(error, _Refused) and error.status in (_GONE, _CHANGED, _ANOTHER):
                return  # it is gone, or it is another pod by now
            self._counts.failed += 1
            self._log.warn(f"{found} cannot be repaired: {error}")

    def _is_done(self, pod: BrokenPod) -> bool:
        """Tell whether a pod needs nothing more; each is acted on once until the next list."""
        key, _, value = self._asked.label.partition("=")
        if self._asked.action == "label" and pod.labels.get(key) == value:
            return True
        seen = (pod.uid, self._asked.action) in self._seen
        self._seen.add((pod.uid, self._asked.action))
        return seen

    def _act(self, pod: BrokenPod, document: Mapping[str, Any]) -> str:
        """Do what is asked with a pod, and return what was done. Raises KernelError."""
        if self._asked.action == "delete":
            options = self._library.V1DeleteOptions(preconditions=self._library.V1Preconditions(uid=pod.uid))
            self._call(self._api.delete_namespaced_pod, pod.name, pod.namespace, body=options)
            return "deleted, since it started without its rules"
        if self._asked.action == "label":
            key, _, value = self._asked.label.partition("=")
            patch = {"metadata": {"uid": pod.uid, "labels": {key: value}}}
            kind = "application/merge-patch+json"
            self._call(self._api.patch_namespaced_pod, pod.name, pod.namespace, patch, _content_type=kind)
            return f"labelled {self._asked.label}, since it started without its rules"
        if not pod.restarts:
            raise KernelError(
                "its restartPolicy is Never, so its init container is not started again",
                "have it deleted: --action delete",
            )
        self._in_place(pod, json.dumps(document))
        return "its rules are in place now"


class _Refused(KernelError):
    """The API has answered with an error."""

    def __init__(self, status: int, cause: str, remedy: str) -> None:
        self.status = status
        super().__init__(cause, remedy)


def _refused(status: object, body: object) -> _Refused:
    said = body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body or "")
    rights = status in (401, 403)
    return _Refused(
        int(str(status or 0)),
        f"the Kubernetes API answered {status}: {' '.join(said.split())[:300]}",
        "give the account the rights of deploy/cni/rbac.yaml" if rights else "",
    )


def _unreachable(error: Exception) -> KernelError:
    return KernelError(f"the Kubernetes API cannot be reached: {' '.join(str(error).split())}", "")
