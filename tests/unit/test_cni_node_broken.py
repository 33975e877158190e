"""Which pods count as started without their rules: what the API shows of their init container."""

from __future__ import annotations

from typing import Any

import pytest

from istio_iptables.cni.node.broken import broken
from tests.support.broken_pods import ENDED_WELL, FAILED, RUNNING, WAITING, pod


@pytest.mark.parametrize(
    ("state", "last", "expected"),
    [
        (FAILED, None, True),  # restartPolicy Never: that is its state, for good
        (WAITING, FAILED, True),  # kubelet waits before it starts it again
        (RUNNING, FAILED, True),
        (FAILED, FAILED, True),
        (None, FAILED, True),
        (ENDED_WELL, FAILED, False),  # it has succeeded since
        (ENDED_WELL, None, False),
        ({"terminated": {"exitCode": 1}}, None, False),  # something else was wrong
        ({"terminated": {"exitCode": 1}}, FAILED, False),
        (RUNNING, None, False),
        (None, None, False),
    ],
)
def test_states(state: Any, last: Any, expected: bool):
    for policy in ("Always", "OnFailure", "Never"):
        found = broken(pod(state=state, last=last, policy=policy))
        assert (found is not None) is expected
        if found:
            assert found.restarts is (policy != "Never")
            assert (str(found), found.uid) == ("pod shop/web", "uid-of-web")


def test_only_the_init_container_of_that_name():
    assert broken(pod(state=FAILED, container="istio-init")) is None


def test_one_that_is_being_deleted_is_left_to_that():
    going = pod(state=FAILED)
    going["metadata"]["deletionTimestamp"] = "2026-11-27T10:00:00Z"
    assert broken(going) is None


@pytest.mark.parametrize("document", [{}, {"status": None}, {"status": {"initContainerStatuses": None}}])
def test_a_pod_of_which_nothing_is_known_yet(document: Any):
    assert broken(document) is None
