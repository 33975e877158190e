"""Findings: where in the manifest each of them is, however long, odd or valid the manifest is."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from istio_iptables import SettingsError, lint_pods
from istio_iptables.pod.lint import KINDS, Finding
from istio_iptables.pod.lint.intervals import Interval, Intervals
from tests.support.linting import CONFIG, found_in, on_the_workload
from tests.support.manifests import MODE, manifest, odd_pods, traffic, valid_pods

POD = """\
apiVersion: v1
kind: Service
---
kind: List
items:
- kind: Deployment
  metadata:
    name: web
    annotations:
      traffic.sidecar.istio.io/includeInboundPorts: "80"
  spec:
    template:
      metadata:
        annotations:
          traffic.sidecar.istio.io/excludeInterface: net1
          traffic.sidecar.istio.io/excludeOutboundPorts: "*"
        labels: {traffic.sidecar.istio.io/includeInboundPorts: "80"}
      spec:
        hostname: [web]
        initContainers:
        - name: istio-init
          args: [istio-iptables, -b, "80", -b, "80,80", "--proxy-uid=a b"]
        containers:
        - name: app
          securityContext:
            runAsUser: 1337
          ports:
          - containerPort: 15006
        - name: istio-proxy
          env:
          - name: INVALID_DROP
            value: true
"""
#: A part of the finding's place -> line and column of what is to be changed.
PLACES = {
    "annotation traffic.sidecar.istio.io/includeInboundPorts of the Deployment itself": (10, 7),
    "annotation traffic.sidecar.istio.io/excludeInterface": (15, 11),
    "annotation traffic.sidecar.istio.io/excludeOutboundPorts": (16, 11),
    "label traffic.sidecar.istio.io/includeInboundPorts": (17, 18),
    "container istio-init: securityContext.capabilities": (21, 11),
    "container istio-init: --istio-inbound-ports (-b)": (22, 44),
    "container istio-init: --proxy-uid": (22, 57),
    "container app: securityContext.runAsUser": (26, 13),
    "container app: containerPort 15006": (28, 13),
    "container istio-proxy: variable INVALID_DROP": (31, 13),
}


def test_a_finding_says_line_and_column():
    found = {finding.where: (finding.line, finding.column) for finding in lint_pods(POD)}
    assert found.items() >= PLACES.items()


def test_a_finding_about_a_whole_pod_has_the_pods_place():
    text = "kind: Service\n---\n" + yaml.safe_dump(manifest({CONFIG: "statusPort: 1"}, hostNetwork=True))
    assert [(f.where, f.line > 2) for f in lint_pods(text)] == [(f"annotation {CONFIG}", True)]


@pytest.mark.parametrize("indent", [None, 2])
def test_a_finding_in_json_says_line_and_column(indent: int | None):
    things = [manifest(), {"kind": "List", "items": [on_the_workload(), manifest({MODE: "tproxy"})]}]
    text = "\n".join(json.dumps(thing, indent=indent) for thing in things)
    [finding] = lint_pods(text)
    assert text.splitlines()[finding.line - 1][finding.column - 1 :].startswith(f'"{MODE}": "tproxy"')


def test_a_line_begins_with_the_place():
    [finding] = [f for f in lint_pods(POD) if f.kind == "unknown"]
    assert str(finding.replace(file="a\nb.yaml")).startswith("a\\nb.yaml:15:11: deployment web: annotation ")
    assert str(finding.replace(file="web.yaml", line=0)).startswith("web.yaml: deployment web: annotation ")


@pytest.mark.slow
def test_long_lists_are_not_looked_at_in_pairs():
    networks = ",".join(f"10.{i >> 8 & 255}.{i & 255}.0/24" for i in range(20_000))
    thing = manifest(
        traffic(excludeOutboundIPRanges=networks, includeOutboundIPRanges=networks + ",11.0.0.0/8")
    )
    assert len([f for f in found_in(thing) if f.kind == "shadowed"]) == 20_000


def test_spans_of_one_version_do_not_meet_those_of_another():
    spans = Intervals([Interval("a", 4, 1, 5), Interval("b", 6, 1, 5), Interval("c", 4, 7, 9)])
    assert spans.repeated == []
    assert [getattr(spans.meeting(Interval("x", 4, n, n)), "text", "") for n in (0, 1, 5, 6, 7, 9, 10)] == [
        *("", "a", "a", "", "c", "c", "")
    ]
    assert spans.covering(Interval("x", 4, 4, 6)) is None
    assert spans.meeting(Interval("x", 0, 1, 5)) is None


numbers = st.integers(0, 30)
some_spans = st.builds(
    lambda version, first, length: Interval(f"{first}+{length}", version, first, first + length),
    st.sampled_from([0, 4]),
    numbers,
    st.integers(0, 9),
)


@given(st.lists(some_spans, max_size=8), some_spans)
@example([Interval("0+9", 0, 0, 9), Interval("1+1", 0, 1, 2)], Interval("5+0", 0, 5, 5))
def test_spans_that_meet_are_found(members: list[Interval], other: Interval):
    spans = Intervals(members)

    def meet(one: Interval) -> bool:
        return one.version == other.version and one.first <= other.last and other.first <= one.last

    met = spans.meeting(other)
    assert (met is not None) == any(map(meet, members))
    assert met is None or meet(met)
    pairs = [(a, b) for i, a in enumerate(members) for b in members[:i]]
    overlap = any(a.version == b.version and a.first <= b.last and b.first <= a.last for a, b in pairs)
    assert bool(spans.repeated) == overlap


@given(valid_pods())
def test_a_pod_that_can_be_read_has_nothing_invalid(thing: Any):
    assert not [finding for finding in found_in(thing) if finding.kind == "invalid"]


@given(odd_pods())
def test_whatever_is_in_a_manifest_is_linted(thing: Any):
    found: list[Finding] = []
    with contextlib.suppress(SettingsError):
        found = lint_pods(yaml.safe_dump(thing, allow_unicode=True))
    assert all(str(finding).isprintable() for finding in found)
    assert {finding.kind for finding in found} <= set(KINDS)
