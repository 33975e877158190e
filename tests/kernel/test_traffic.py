"""Real connections against the rules: every setting that changes where a connection goes, on every backend.

The table of them is traffic.txt.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from istio_iptables.settings.config import Config
from istio_iptables.settings.declared import SETTINGS
from tests.support.netns import Pod, left_behind
from tests.support.scenarios import BACKENDS, SENT_THROUGH, Scenario, apply, resolve
from tests.support.traffic import SCENARIOS, check, populate, read_row

each_backend = pytest.mark.parametrize("backend", SENT_THROUGH)


@contextmanager
def pod_of(scenario: Scenario) -> Iterator[Pod]:
    families = scenario.families
    with Pod(
        ipv4="4" in families, ipv6="6" in families, vm="vm" in families, resolv_conf=scenario.resolv_conf
    ) as pod:
        populate(pod, scenario)
        yield pod


def scenario_of(title: str) -> Scenario:
    (found,) = (scenario for scenario in SCENARIOS if scenario.title == title)
    return found


@each_backend
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.title)
def test_connections_arrive_where_the_table_says(scenario: Scenario, backend: str) -> None:
    with pod_of(scenario) as pod:
        apply(pod, scenario, backend)
        check(pod, scenario.rows)


def test_without_rules_every_connection_arrives_where_it_was_dialled() -> None:
    """Else the table would show the wiring of the pod, not the rules."""
    rows = {
        "client > pod:8080": "app",
        "client > pod-lo1:8080": "app",
        "client > pod:15006": "proxy:15006",
        "client > pod:8080/udp": "app",
        "client > pod:8080/fin+ack": "reset",
        "client > pod:8080/syn+ack": "reset",
        "app > world:80": "world",
        "proxy > side:80": "world",
        "app > dns:53/udp": "world",
        "app > side:53/udp": "world",
        "app > client:80": "world",
        "app > pod:8080": "app",
        "app > self:53/udp": "app",
        "v4 app > 127.9.9.9:8080": "app",
        "v4 app from passthrough > pod:8080": "app",
        "app from pod:4053 > dns:53/udp": "world",
        "app > self:15053": "agent:15053",
        "app > self:15053/udp": "agent:15053",
        "vm > world:80": "world",
        "vm > side:80": "world",
        "vm > pod:8080": "app",
        "vm > pod-vm0:8080": "app",
    }
    scenario = Scenario(
        "", families="4+6+vm", rows=[read_row(f"{r} {arrives}") for r, arrives in rows.items()]
    )
    with pod_of(scenario) as pod:
        check(pod, scenario.rows)


def test_nothing_is_left_of_a_pod_when_a_test_fails() -> None:
    class Failure(Exception):
        pass

    made: list[Pod] = []
    running: list[int] = []

    def fail() -> None:
        with Pod(vm=True, resolv_conf="") as pod:
            made.append(pod)
            running.append(pod.listen("app", tcp=[80], uid=1000, gid=1000).pid)
            running.append(pod.start(["sleep", "1000"], 1000, 1000).pid)
            assert set(left_behind()) >= {pod.name, pod.client.name}
            raise Failure

    with pytest.raises(Failure):
        fail()
    (pod,) = made
    assert pod.vm
    assert not {pod.name, pod.client.name, pod.vm.name} & set(left_behind())
    assert not pod.directory.exists()
    deadline = time.monotonic() + 5  # a listener ends as soon as it sees that its helper has ended
    while alive := [pid for pid in running if os.path.exists(f"/proc/{pid}")]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.01)


@each_backend
@pytest.mark.parametrize(
    "title",
    ["TPROXY, DNS and invalid packets", "a virtual machine, some destinations", "without one interface"],
)
def test_after_cleanup_nothing_is_captured(title: str, backend: str) -> None:
    scenario = scenario_of(title)
    rows = [
        "client > pod:8080 app",
        "app > world:80 world",
        "app > pod:8080 app",
        "client > pod-lo1:8080 app",
    ]
    rows += ["app > world:53/udp world", "0:1337 > pod:8080 app", "client > pod:8080/fin+ack reset"]
    direct = replace(scenario, rows=[read_row(row) for row in rows])
    with pod_of(direct) as pod:
        apply(pod, scenario, backend)
        done = pod.tool("cleanup")
        assert done.code == 0, done.err
        check(pod, direct.rows)


def ipv6_facts(pod: Pod) -> list[str]:
    """Return what there is of IPv6 beside rules."""
    return [
        pod.run(["ip", "-6", *words.split()]).stdout for words in ("address", "rule", "route show table all")
    ]


@each_backend
def test_ipv6_that_is_off_is_not_touched(backend: str) -> None:
    scenario = scenario_of("IPv6 is there but off")
    with pod_of(scenario) as pod:
        before = ipv6_facts(pod)
        apply(pod, scenario, backend)
        assert ipv6_facts(pod) == before
        assert pod.save("legacy", "ipv6") == ""
        assert "-A" not in pod.save("nft", "ipv6")


@each_backend
@pytest.mark.parametrize(
    "title", ["DNS, the agent asks from the port that the application has asked from", "all DNS"]
)
def test_queries_of_the_agent_and_their_answers_are_one_connection(title: str, backend: str) -> None:
    """The zone of the answers does not change where they go, but without it they are not seen as answers."""
    if not os.path.exists("/proc/net/nf_conntrack"):
        pytest.skip("the kernel does not show its connections (CONFIG_NF_CONNTRACK_PROCFS)")
    scenario = scenario_of(title)
    with pod_of(scenario) as pod:
        apply(pod, scenario, backend)
        for version in (4, 6):
            assert pod.query(resolve("dns", version), 53, uid=1337, gid=1337).arrival
        table = pod.run(["cat", "/proc/net/nf_conntrack"]).stdout
        own = [line for line in table.splitlines() if " udp " in line and "zone=1" in line.split()]
        assert len(own) == 2
        assert not [line for line in own if "UNREPLIED" in line]


def test_the_table_has_every_setting_that_decides_about_traffic() -> None:
    used = {
        name
        for scenario in SCENARIOS
        for name in (
            *scenario.settings,
            *scenario.variables,
            *(["--dual-stack"] if "+6" in scenario.families else []),
            *(flag for flags, _ in BACKENDS.values() for flag in flags),
        )
    }
    # What the first says decides nothing; what the second does is in test_neighbours.py.
    other = {"rule_comments", "dns_single_zone"}
    missing = [
        setting.flag
        for setting in SETTINGS
        if (setting.field in Config._fields or setting.field in ("dual_stack", "proxy_user"))
        and setting.field not in other
        and not used & {setting.flag, f"-{setting.short}", *setting.aliases}
    ]
    assert missing == []
