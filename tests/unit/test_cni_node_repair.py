"""`cni repair` with kubernetes' own client, of a small HTTPS server that answers as the API does."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from istio_iptables.cni.node.broken import BrokenPod
from istio_iptables.cni.node.repair import Asked, Counts, Repairer
from istio_iptables.errors import KernelError
from tests.support.broken_pods import ENDED_WELL, FAILED, RUNNING, WAITING, pod
from tests.support.cni import Recorder
from tests.support.kubernetes_api import Api, certificate, status

pytest.importorskip("kubernetes")
pytestmark = [
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed"),
    pytest.mark.slow,  # the client library takes a second to import
]

LABEL = "cni.istio.io/uninitialized=true"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("api")
    certificate(made)
    return made


@pytest.fixture
def api(folder: Path) -> Iterator[Api]:
    made = Api(folder)
    for each in (
        pod("fine", state=ENDED_WELL),
        pod("waits", state=WAITING, last=FAILED),
        pod("never", state=FAILED, policy="Never"),
        pod("runs", state=RUNNING),
        pod("elsewhere", state=FAILED, node="node-2"),
    ):
        made.put(each)
    yield made
    made.stop()


class Repair:
    """A Repairer, its log, its counts, and the pods whose rules it has written."""

    def __init__(self, api: Api, action: Any, **more: Any) -> None:
        self.log, self.counts = Recorder(), Counts()
        self.written: list[str] = []
        asked = Asked(action, node="node-1", label=LABEL, kubeconfig=api.kubeconfig(), **more)
        self.repairer = Repairer(asked, self.log, self.counts, self._write)

    def _write(self, found: BrokenPod, document: str) -> None:
        assert found.uid in document
        self.written.append(found.name)

    def look(self) -> str:
        return self.repairer.look()


def names(api: Api) -> set[str]:
    return {name for _, name in api.pods}


def test_delete_those_of_this_node_and_no_other(api: Api):
    repair = Repair(api, "delete")
    repair.look()
    assert names(api) == {"fine", "runs", "elsewhere"}
    assert (repair.counts.done, repair.counts.failed) == (2, 0)
    path, headers, body = api.asked("DELETE")[-1]
    assert path == "/api/v1/namespaces/shop/pods/waits"
    assert body["preconditions"] == {"uid": "uid-of-waits"}
    assert headers["authorization"] == "Bearer a-token"
    assert "info pod shop/never: deleted, since it started without its rules" in repair.log.lines


def test_another_pod_of_that_name_is_not_deleted(api: Api):
    """Between the list and the deletion its controller may have made a new one."""
    repair = Repair(api, "delete")
    found = api.pods["shop", "waits"]
    listed = repair.repairer._list

    def list_and_replace(more: str) -> Any:
        answer = listed(more)
        found["metadata"]["uid"] = "another"
        return answer

    repair.repairer._list = list_and_replace  # type: ignore[method-assign]
    repair.look()
    assert "waits" in names(api)
    assert repair.counts.failed == 0


def test_label(api: Api):
    repair = Repair(api, "label")
    repair.look()
    assert api.pods["shop", "never"]["metadata"]["labels"] == {
        "app": "never",
        "cni.istio.io/uninitialized": "true",
    }
    path, headers, body = api.asked("PATCH")[0]
    assert path == "/api/v1/namespaces/shop/pods/never"
    assert headers["content-type"] == "application/merge-patch+json"
    assert body["metadata"]["uid"] == "uid-of-never"
    asked = len(api.asked("PATCH"))
    repair.look()
    assert len(api.asked("PATCH")) == asked  # they have it
    assert names(api) >= {"never", "waits"}


def test_in_place_where_the_init_container_runs_again(api: Api):
    repair = Repair(api, "in-place")
    repair.look()
    assert repair.written == ["waits"]
    assert (repair.counts.done, repair.counts.failed) == (1, 1)
    assert any(
        "pod shop/never cannot be repaired: its restartPolicy is Never" in line for line in repair.log.lines
    )


def test_lists_come_in_pages(api: Api):
    api.page = 1
    Repair(api, "delete").look()
    assert names(api) == {"fine", "runs", "elsewhere"}


def test_those_that_fail_later_are_seen_by_the_watch(api: Api):
    repair = Repair(api, "delete")
    version = repair.look()
    ended = watching(repair, version)
    wait(lambda: bool(api.watches))
    api.put(pod("runs", state=RUNNING, last=FAILED))
    wait(lambda: "runs" not in names(api))
    api.put(pod("new", state=FAILED, policy="Never"))
    wait(lambda: "new" not in names(api))
    api.put(pod("fine", state=ENDED_WELL))
    assert f"resourceVersion={version}" in api.asked("GET")[-1][0]
    assert "fieldSelector=spec.nodeName%3Dnode-1" in api.asked("GET")[-1][0]
    api.end_watches()
    wait(ended.is_set)
    assert "fine" in names(api)


def test_a_watch_that_is_too_old_ends_and_what_it_missed_is_listed(api: Api):
    repair = Repair(api, "delete")
    ended = watching(repair, repair.look())
    wait(lambda: bool(api.watches))
    api.end_watches({"type": "ERROR", "object": status(410, "Expired")})
    wait(ended.is_set)
    api.put(pod("missed", state=FAILED, policy="Never"))
    repair.look()
    assert "missed" not in names(api)


def test_a_watch_goes_on_where_the_last_one_ended(api: Api):
    repair = Repair(api, "delete")
    version = repair.repairer.go_on("")
    lists = len(api.asked("GET"))
    assert "resourceVersion=0" in api.asked("GET")[0][0]  # from the server's cache
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(repair.repairer.go_on(version)), daemon=True)
    thread.start()
    wait(lambda: bool(api.watches))
    api.put(pod("fine", state=ENDED_WELL))
    api.end_watches()
    thread.join(30)
    assert found == [str(api.version)]
    assert len(api.asked("GET")) == lists + 1
    assert int(found[0]) > int(version)


def test_what_failed_is_tried_again_with_a_new_list(api: Api):
    repair = Repair(api, "in-place")
    version = repair.repairer.go_on("")
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(repair.repairer.go_on(version)), daemon=True)
    thread.start()
    wait(lambda: bool(api.watches))
    api.put(pod("another", state=FAILED, policy="Never"))
    wait(lambda: repair.counts.failed == 2)
    api.end_watches()
    thread.join(30)
    assert found == [""]


def test_no_rights_and_no_server(api: Api):
    repair = Repair(api, "delete")
    api.refuse = 403
    with pytest.raises(KernelError, match=r"answered 403.*Forbidden(.|\n)*rbac.yaml"):
        repair.look()
    other = Repair(api, "delete")
    api.stop()
    with pytest.raises(KernelError, match="cannot be reached"):
        other.look()


def watching(repair: Repair, version: str) -> threading.Event:
    ended = threading.Event()

    def watch() -> None:
        repair.repairer.watch(version)
        ended.set()

    threading.Thread(target=watch, daemon=True).start()
    return ended


def wait(condition: Callable[[], bool]) -> None:
    event = threading.Event()
    for _ in range(3000):
        if condition():
            return
        event.wait(0.01)
    raise AssertionError("it has not happened")
