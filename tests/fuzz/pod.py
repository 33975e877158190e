"""pod: the text of a manifest. It is refused in a few words, or every pod in it can be read and examined.

The settings of each have rules (see argv), and a container with these settings has the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from istio_iptables.errors import SettingsError
from istio_iptables.pod import read_settings
from istio_iptables.pod.container import container_settings
from istio_iptables.pod.lint import lint
from istio_iptables.pod.manifest import pods
from istio_iptables.settings.go_flags import read_arguments
from istio_iptables.settings.resolve import from_environment, parse
from istio_iptables.settings.texts import Given
from tests.fuzz.holding import FACTS, ROOT, allowed, files, printable, settled, text_of
from tests.support.manifests import init, manifest, proxy, traffic, workload


def corpus() -> Iterator[bytes]:
    yield from files("deploy/kustomize/**/*.yaml", "deploy/cni/**/*.yaml")
    for block in re.findall(r"^( *)(kind: .*?)(?:\n\n|\Z)", (ROOT / "docs/pods.md").read_text(), re.M | re.S):
        yield block[1].encode()
    for made in (
        manifest(traffic(includeInboundPorts="80,443", excludeOutboundIPRanges="10.0.0.0/8"), [proxy()]),
        manifest(
            {"sidecar.istio.io/interceptionMode": "TPROXY"}, [proxy()], [init("-p", "15001", "-m", "TPROXY")]
        ),
        workload("CronJob", traffic(kubevirtInterfaces="eth1")),
        workload("Deployment", traffic(excludeInterfaces="eth1,eth2", includeOutboundPorts="*")),
    ):
        yield json.dumps(made).encode()


def check(data: bytes) -> None:
    text = text_of(data)
    if text is None:
        return
    for pod in allowed(lambda: pods(text, "the manifest")) or ():
        printable(str(finding) for finding in lint(pod, FACTS))
        reading = read_settings(pod)
        printable([*reading.refusals, *reading.mistakes])
        settled(reading.given, [*reading.refusals, *reading.mistakes])
        _same_as_a_container(reading.given)


def _same_as_a_container(given: Sequence[Given]) -> None:
    """Check that the container which is made of settings has these."""
    try:
        parsed = parse(given, FACTS)
    except SettingsError:
        return
    made = container_settings(given)
    read = read_arguments(made.arguments()[1:])
    assert not read.mistakes, read.mistakes
    again = parse([*read.settings, *from_environment(made.variables())], FACTS)
    assert again.values == parsed.values
